"""NIfTI files: read right or refused, written whole or not at all.

This is the one door to nibabel. The voxels of a file do not pass through it: its gzip path does not reach the
CRC (nibabel 5.4.2), and it ignores units and contradicting fields. nibabel images are accepted and given.
"""

import io
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import GeometryError, MissingFileError, VolumeError
from medfcn.files import atomic_write
from medfcn.outputs import refuse_existing
from medfcn.text import shown
from medfcn.volumes.formats.nifti_header import (
    HEADER_BYTES,
    LARGEST_EXTENSION,
    NiftiHeader,
    header_length,
    parse_header,
)
from medfcn.volumes.formats.nifti_writing import header_bytes
from medfcn.volumes.formats.scaling import finite, scaled
from medfcn.volumes.formats.sniff import describe_bytes
from medfcn.volumes.formats.streams import (
    CHUNK,
    ByteSource,
    crc32,
    gzip_writer,
    joint_hash,
    refuse_compression_mismatch,
)
from medfcn.volumes.names import OTHER_EXTENSIONS, extension_of, stem_of
from medfcn.volumes.options import ReadOptions
from medfcn.volumes.volume import DEFAULT_OPTIONS, Volume, without_trailing_ones

IMAGE_LEVEL, MASK_LEVEL = 3, 1
"""igzip's levels: little is gained above."""


@dataclass(frozen=True, eq=False)
class StoredVolume:
    """A file's numbers as they are stored, before the scaling of its header."""

    array: NDArray[Any]
    """`(I, J, K)`, native byte order."""
    header: NiftiHeader
    name: str
    sha256: str


def intensities_of(stored: StoredVolume, options: ReadOptions) -> Volume:
    """The volume that a file's stored numbers stand for: scaled, and checked to be finite."""
    array, notes = finite(scaled(stored.array, stored.header.slope, stored.header.inter), stored.name, options)
    return volume_of_stored(stored, array, notes)


def read_stored(path: str | os.PathLike[str], *, options: ReadOptions = DEFAULT_OPTIONS) -> StoredVolume:
    """Read the numbers a NIfTI file stores, without its scaling; checks and errors as in `read_volume`."""
    extension = extension_of(path)
    if extension in ("", *OTHER_EXTENSIONS):
        raise VolumeError(_unknown_extension(path))
    if extension.startswith((".hdr", ".img")):
        return _read_pair(Path(path), options)
    with ByteSource(path) as source:
        refuse_compression_mismatch(source, extension)
        header = _header_of(source, options, is_pair=False)
        source.require_length(header.end, max_bytes=options.max_bytes)
        source.skip(header.vox_offset - source.position)
        array = _voxels_of(source, header)
        return StoredVolume(array, header, source.name, source.sha256)


def _unknown_extension(path: str | os.PathLike[str]) -> str:
    with ByteSource(path) as source:
        known = header_length(source.head) is not None
        found = "a NIfTI header under another name; rename it to .nii" if known else describe_bytes(source.head)
        return f"{source.name}: not named as a volume (.nii, .nii.gz, .nrrd, .mha); it is {found}"


def _read_pair(path: Path, options: ReadOptions) -> StoredVolume:
    """Read a `.hdr` and its `.img`, given either."""
    header_path, voxel_path = _pair_of(path)
    with ByteSource(header_path) as source:
        refuse_compression_mismatch(source, extension_of(header_path))
        header = _header_of(source, options, is_pair=True)
        # Extensions may follow the header; they are read for the hash and the CRC, and dropped.
        source.skip(LARGEST_EXTENSION)
        source.require_end(source.position)
        header_hash = source.sha256
    with ByteSource(voxel_path) as source:
        refuse_compression_mismatch(source, extension_of(voxel_path))
        source.require_length(header.end, max_bytes=options.max_bytes)
        source.skip(header.vox_offset)
        array = _voxels_of(source, header)
        return StoredVolume(array, header, shown(path), joint_hash(header_hash, source.sha256))


def _pair_of(path: Path) -> tuple[Path, Path]:
    """The header and the voxel file of the pair that one of them names."""
    given = extension_of(path)
    wanted = {".hdr": ".img", ".img": ".hdr"}[given[:4]]
    base = path.name[: len(path.name) - len(given)]
    for extension in (wanted + given[4:], wanted, wanted + ".gz"):
        other = path.with_name(base + extension)
        if other.exists():
            return (path, other) if wanted == ".img" else (other, path)
    raise MissingFileError(
        f"{shown(path)}: one file of a .hdr/.img pair, and {shown(base + wanted)} is not beside it; restore it"
    )


def _header_of(source: ByteSource, options: ReadOptions, *, is_pair: bool) -> NiftiHeader:
    raw = source.read(4)
    length = header_length(raw)
    raw += source.read((length or 512) - len(raw))
    if length is None:
        inner = "gzip data that holds " if source.is_gzip else ""
        raise VolumeError(f"{source.name}: not NIfTI; it is {inner}{describe_bytes(raw)}")
    return parse_header(raw, name=source.name, options=options, is_pair=is_pair)


def _voxels_of(source: ByteSource, header: NiftiHeader) -> NDArray[Any]:
    """The stored numbers of the wanted volume; the source is at `vox_offset` and is read to its end."""
    volume_bytes = header.voxel_bytes // header.volumes
    source.skip(volume_bytes * header.volume_index)
    buffer = np.empty(volume_bytes, dtype=np.uint8)
    source.read_into(buffer.data)
    source.skip(volume_bytes * (header.volumes - 1 - header.volume_index))
    if source.position != header.end:
        raise VolumeError(
            f"{source.name}: the header describes {header.end} bytes and the file holds {source.position}; "
            "the file is cut off, copy it again"
        )
    source.require_end(header.end)
    array = buffer.view(header.voxel_type)
    if not header.voxel_type.isnative:
        array = array.byteswap(inplace=True).view(header.voxel_type.newbyteorder("="))
    return array.reshape(header.shape, order="F")


def volume_of_stored(stored: StoredVolume, array: NDArray[Any], notes: tuple[str, ...] = ()) -> Volume:
    """`array` on the grid of a file, with the file's name and hash."""
    return Volume(
        array,
        stored.header.affine,
        name=stem_of(stored.name),
        header=stored.header.geometry,
        sha256=stored.sha256,
        notes=stored.header.notes + notes,
    )


def volume_of_image(image: Any, *, options: ReadOptions = DEFAULT_OPTIONS) -> Volume:
    """A `Volume` from a nibabel image; a NIfTI image's header passes the same checks as a file's.

    Raises:
        VolumeError: Its header or voxels would be refused in a file.
    """
    filename = image.get_filename() if hasattr(image, "get_filename") else None
    name = stem_of(str(filename)) if filename else ""
    array = without_trailing_ones(np.asanyarray(image.dataobj))
    affine = None if image.affine is None else np.asarray(image.affine, dtype=np.float64)
    geometry = None
    notes: tuple[str, ...] = ()
    raw = bytes(getattr(image.header, "binaryblock", b""))
    if header_length(raw) is not None:
        header = _header_of_image(raw, image, name, options)
        if header is not None:
            affine, geometry, notes = header.affine, header.geometry, header.notes
            if header.volumes > 1:
                array = array.reshape((*header.shape, -1), order="F")[..., header.volume_index]
    if affine is None:
        raise GeometryError(f"{(name or 'image')}: the image has no affine; give it one")
    mended, more = finite(np.array(array, order="K"), name or "image", options)
    return Volume(mended, affine, name=name, header=geometry, notes=notes + more)


def _header_of_image(raw: bytes, image: Any, name: str, options: ReadOptions) -> NiftiHeader | None:
    """The checked header of a nibabel image; None where the image was moved or cropped since it was read."""
    import nibabel

    if not isinstance(image.header, nibabel.Nifti1Header):
        return None
    header: Any = image.header
    fresh = header.copy()
    # In memory nibabel keeps NaN for "no scaling", and gives the voxels already scaled.
    fresh["scl_slope"], fresh["scl_inter"] = 1.0, 0.0
    if tuple(fresh.get_data_shape()) != tuple(image.shape):
        return None
    if image.affine is not None and not np.allclose(fresh.get_best_affine(), image.affine, atol=1e-4):
        return None
    fresh["magic"] = b"n+1" if header_length(raw) == HEADER_BYTES[1] else b"n+2"
    fresh["vox_offset"] = max(int(fresh["vox_offset"]), HEADER_BYTES[1 if len(raw) == 348 else 2] + 4)
    checked = parse_header(fresh.binaryblock, name=name or "image", options=options)
    return replace(checked, vox_offset=0)


def to_nibabel(volume: Volume) -> Any:
    """The same volume as a nibabel image: its voxels, and a header with its geometry and nothing else."""
    import nibabel

    raw, dtype = header_bytes(volume)
    library: Any = nibabel
    is_second = header_length(raw) == HEADER_BYTES[2]
    kind = library.Nifti2Header if is_second else library.Nifti1Header
    image_type = library.Nifti2Image if is_second else library.Nifti1Image
    header = kind(raw[: header_length(raw)])
    return image_type(volume.array.astype(dtype, copy=False), volume.affine, header)


def write_volume(volume: Volume, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a mask or an image as `.nii.gz` or `.nii`, whole or not at all.

    A volume that shares the grid of a file it was read from gets that file's dim, pixdim, qform, sform, codes
    and units byte for byte, in the same byte order, and no text or extension. One made from an array and an
    affine gets an sform with code 2, and a qform where there is no shear. Integers are stored in the smallest
    unsigned type that holds them (signed if any is negative), floats as float32 or float64. Equal volumes
    give equal bytes. What was written is read back and compared before it takes its final name.

    Returns:
        The path.

    Raises:
        OutputExistsError: It exists, and `overwrite` is false.
        VolumeError: The name does not end in `.nii` or `.nii.gz`.
        OSError: The disk is full, may not be written to, or gave other bytes back.
    """
    target = Path(path)
    extension = extension_of(target)
    if extension not in (".nii", ".nii.gz"):
        raise VolumeError(f"{shown(target)}: medfcn writes NIfTI; choose a name that ends in .nii.gz or .nii")
    refuse_existing(target, overwrite=overwrite)
    head, dtype = header_bytes(volume)
    length = len(head) + volume.array.size * dtype.itemsize
    try:
        with atomic_write(target) as file:
            sent = _Checksummed(file)
            onto = cast(IO[bytes], sent)
            if extension == ".nii":
                _write_content(onto, head, volume.array, dtype)
            else:
                with gzip_writer(onto, level=MASK_LEVEL if dtype.kind == "u" else IMAGE_LEVEL) as stream:
                    _write_content(stream, head, volume.array, dtype)
            file.flush()
            _verify(Path(file.name), shown(target), sent)
    except OSError as error:
        if error.errno is None:
            raise
        # The file that could not be written has a temporary name; the user knows another.
        reason = f"{error.strerror} while writing a volume of {length} bytes"
        raise OSError(error.errno, reason, os.fspath(target)) from error
    return target


def _slabs(array: NDArray[Any], dtype: np.dtype[Any]) -> Any:
    """The voxels in file order, a few slices at a time."""
    step = max(1, CHUNK // max(1, array.shape[0] * array.shape[1] * dtype.itemsize))
    for k in range(0, array.shape[2], step):
        slab = array[:, :, k : k + step].astype(dtype, copy=False)
        yield slab.ravel(order="F").view(np.uint8)


def _write_content(file: IO[bytes], head: bytes, array: NDArray[Any], dtype: np.dtype[Any]) -> None:
    """Write a header and voxels."""
    file.write(head)
    for slab in _slabs(array, dtype):
        file.write(slab.data)


class _Checksummed(io.RawIOBase):
    """A file that remembers the length and the CRC of all that was written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.length = 0
        self.checksum = 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        self.file.write(view)
        self.length += len(view)
        self.checksum = crc32(view, self.checksum)
        return len(view)


def _verify(part: Path, name: str, sent: _Checksummed) -> None:
    """Read back the bytes that lie on the disk, and compare their length and CRC with those that were sent.

    A mask is compared as it lies there, compressed: that costs a hundredth of what decompressing it would, and the
    compressed bytes carry the CRC of the voxels, which every reading verifies.
    """
    found, length = 0, 0
    with part.open("rb", buffering=0) as file:
        while piece := file.read(CHUNK):
            found = crc32(piece, found)
            length += len(piece)
    if (length, found) != (sent.length, sent.checksum):
        raise OSError(f"{name}: the disk gave other bytes back than were written; check it")
