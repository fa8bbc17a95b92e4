"""NIfTI files: read right or refused.

This is the one door to nibabel. The voxels of a file do not pass through it: its gzip path does not reach the
CRC (nibabel 5.4.2), and it ignores units and contradicting fields. nibabel images are accepted and given.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import GeometryError, MissingFileError, VolumeError, naming
from medfcn.scratch import parts, scratch_array
from medfcn.text import shown
from medfcn.volumes.formats.nifti_header import (
    LARGEST_EXTENSION,
    MAGIC,
    NiftiGeometry,
    NiftiHeader,
    header_length,
    parse_header,
)
from medfcn.volumes.formats.nifti_writing import header_bytes
from medfcn.volumes.formats.refusals import other_kind, wrong_size
from medfcn.volumes.formats.stored import LARGE_BYTES, StoredVolume, of_one_value, without_trailing_ones
from medfcn.volumes.formats.streams import CHUNK, ByteSource, joint_hash, opened
from medfcn.volumes.geometry import Affine
from medfcn.volumes.names import extension_of
from medfcn.volumes.options import ReadOptions


def read_nifti(path: str | os.PathLike[str], *, options: ReadOptions) -> StoredVolume:
    """Read the numbers a NIfTI file stores; checks and errors as in `medfcn.volumes.reading.read_volume`."""
    extension = extension_of(path)
    if extension.startswith((".hdr", ".img")):
        return _read_pair(Path(path), options)
    with opened(path) as source:
        if extension not in (".nii", ".nii.gz"):
            raise _unknown_extension(source.head)
        _require_compression(source, extension)
        header = _header_of(source, options, is_pair=False)
        source.require_length(header.end, max_bytes=options.max_bytes)
        source.skip(header.vox_offset - source.position)
        array = _voxels_of(source, header)
    return _stored(array, header, shown(path), source.sha256)


def read_nifti_volumes(path: str | os.PathLike[str], *, options: ReadOptions) -> tuple[StoredVolume, ...]:
    """Read every volume of a `.nii` or `.nii.gz` file in one pass, as `read_nifti` reads one of them."""
    with opened(path) as source:
        _require_compression(source, extension_of(path))
        header = _header_of(source, replace(options, volume_index=0), is_pair=False)
        source.require_length(header.end, max_bytes=options.max_bytes)
        source.skip(header.vox_offset - source.position)
        whole = replace(header, shape=(*header.shape[:2], header.shape[2] * header.volumes), volumes=1)
        array = _voxels_of(source, whole)
    parts = np.split(array, header.volumes, axis=2)  # in Fortran order one volume follows the other
    return tuple(_stored(part, header, shown(path), source.sha256) for part in parts)


def count_volumes(path: str | os.PathLike[str]) -> int:
    """Number of volumes that the header of a NIfTI file names; 1 for any other file, and for one that is refused."""
    try:
        with opened(path) as source:
            return _header_of(
                source, ReadOptions(volume_index=0, xform="sform", assume_grid=True), is_pair=False
            ).volumes
    except (VolumeError, MissingFileError):
        return 1


def _unknown_extension(head: bytes) -> VolumeError:
    before = "not named as a volume (.nii, .nii.gz, .nrrd, .mha); it is "
    if header_length(head) is None:
        return other_kind(head, before, code="FILE_NAME")
    return VolumeError(f"{before}a NIfTI header under another name; rename it to .nii", code="FILE_NAME")


def _read_pair(path: Path, options: ReadOptions) -> StoredVolume:
    """Read a `.hdr` and its `.img`, given either."""
    header_path, voxel_path = _pair_of(path)
    with opened(header_path) as source:
        _require_compression(source, extension_of(header_path))
        header = _header_of(source, options, is_pair=True)
        # Extensions may follow the header; they are read for the hash and the CRC, and dropped.
        source.skip(LARGEST_EXTENSION)
        source.require_end(source.position)
        header_hash = source.sha256
    with opened(voxel_path) as source:
        _require_compression(source, extension_of(voxel_path))
        source.require_length(header.end, max_bytes=options.max_bytes)
        source.skip(header.vox_offset)
        array = _voxels_of(source, header)
    return _stored(array, header, shown(path), joint_hash(header_hash, source.sha256))


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
        f"{shown(path)}: one file of a .hdr/.img pair, and {base + wanted} is not beside it; restore it"
    )


def _require_compression(source: ByteSource, extension: str) -> None:
    """Refuse an empty file, gzip data under a plain name, and plain data under a gzip name."""
    if not source.head:
        raise other_kind(b"")
    before = f"named {extension} but is "
    if source.is_gzip and not extension.endswith(".gz"):
        raise VolumeError(f"{before}gzip data; rename it to {extension}.gz", code="FILE_NAME")
    if extension.endswith(".gz") and not source.is_gzip:
        if header_length(source.head) is None:
            raise other_kind(source.head, before, code="FILE_NAME")
        raise VolumeError(f"{before}uncompressed NIfTI; rename it to {extension[:-3]}", code="FILE_NAME")


def _header_of(source: ByteSource, options: ReadOptions, *, is_pair: bool) -> NiftiHeader:
    raw = source.read(4)
    length = header_length(raw)
    raw += source.read((length or 512) - len(raw))
    if length is None:
        inner = "gzip data that contains " if source.is_gzip else ""
        raise other_kind(raw, f"not NIfTI; it is {inner}")
    return parse_header(raw, options=options, is_pair=is_pair)


def _voxels_of(source: ByteSource, header: NiftiHeader) -> NDArray[Any]:
    """The stored numbers of the wanted volume; the source is at `vox_offset` and is read to its end."""
    source.skip(header.volume_bytes * header.volume_index)
    buffer = _bytes_of(source, header)
    source.skip(header.volume_bytes * (header.volumes - 1 - header.volume_index))
    if source.position != header.end:
        raise wrong_size(header.end, source.position)
    source.require_end(header.end)
    array = buffer.view(header.voxel_type)
    if not header.voxel_type.isnative:
        for _, part in parts(array):
            part.byteswap(inplace=True)
        array = array.view(header.voxel_type.newbyteorder("="))
    if len(buffer) < header.volume_bytes:
        return of_one_value(array[0], header.shape)
    return array.reshape(header.shape, order="F")


def _bytes_of(source: ByteSource, header: NiftiHeader) -> NDArray[np.uint8]:
    """The bytes of the wanted volume; those of one voxel if it is large and all voxels are alike."""
    count, voxel = header.volume_bytes, header.voxel_type.itemsize
    part = np.empty(min(count, CHUNK // voxel * voxel), dtype=np.uint8)
    done, same = 0, count > LARGE_BYTES
    while same and done < count:
        filled = source.read_into(part[: count - done].data)
        if not done:
            first = part[:voxel].copy()
        same = filled == min(len(part), count - done) and bool((part[:filled].reshape(-1, voxel) == first).all())
        done += filled
    if same:
        return first
    buffer: NDArray[np.uint8] = scratch_array(
        (count,), np.uint8, purpose=f"{'×'.join(map(str, header.shape))} voxels"
    )
    if done:
        known = (done - filled) // voxel
        for _, of_one in parts(buffer[: known * voxel].reshape(-1, voxel)):
            of_one[:] = first
        buffer[known * voxel : done] = part[:filled]
    for _, rest in parts(buffer[done:]) if done < count else ():
        source.read_into(rest.data)
    return buffer


def _stored(array: NDArray[Any], header: NiftiHeader, name: str, sha256: str = "") -> StoredVolume:
    return StoredVolume(array, header.affine, name, sha256, header.geometry, header.slope, header.inter, header.notes)


def stored_of_image(image: Any, *, options: ReadOptions) -> StoredVolume:
    """The numbers of a nibabel image; a NIfTI image's header passes the same checks as a file's.

    Raises:
        VolumeError: Its header would be refused in a file.
    """
    filename = image.get_filename() if hasattr(image, "get_filename") else None
    name = shown(filename) if filename else ""
    array = without_trailing_ones(np.asanyarray(image.dataobj))
    with naming(name or "image"):
        header = _header_of_image(image, options)
        if header is None and image.affine is None:
            raise GeometryError("the image has no affine; give it one", code="GRID_UNKNOWN", field="affine")
    if header is not None:
        if header.volumes > 1:
            array = array.reshape((*header.shape, -1), order="F")[..., header.volume_index]
        return _stored(np.array(array, order="K"), header, name)
    return StoredVolume(np.array(array, order="K"), np.asarray(image.affine, dtype=np.float64), name)


def _header_of_image(image: Any, options: ReadOptions) -> NiftiHeader | None:
    """The checked header of a nibabel image; None if it is not NIfTI, or was moved or cropped since it was read."""
    import nibabel

    if not isinstance(image.header, nibabel.Nifti1Header):
        return None
    header: Any = image.header
    header = header.copy()
    # In memory nibabel keeps NaN for "no scaling", and gives the voxels already scaled.
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    if tuple(header.get_data_shape()) != tuple(image.shape):
        return None
    if image.affine is not None and not np.allclose(header.get_best_affine(), image.affine, atol=1e-4):
        return None
    header["magic"] = MAGIC[header.sizeof_hdr][0]
    header["vox_offset"] = max(int(header["vox_offset"]), header.sizeof_hdr + 4)
    return parse_header(header.binaryblock, options=options)


def nibabel_image(array: NDArray[Any], affine: Affine, geometry: NiftiGeometry | None) -> Any:
    """A nibabel image of these voxels, and a header with their geometry and nothing else."""
    import nibabel

    raw, dtype = header_bytes(array, affine, geometry)
    library: Any = nibabel
    length = header_length(raw)
    kind = library.Nifti1Image if length == 348 else library.Nifti2Image
    return kind(array.astype(dtype, copy=False), affine, kind.header_class(raw[:length]))
