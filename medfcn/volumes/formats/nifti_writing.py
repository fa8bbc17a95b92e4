"""NIfTI files as medfcn writes them: whole or not at all, with geometry and labels in the header and nothing else."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import VolumeError, WriteError
from medfcn.files import atomic_write, refuse_existing_file
from medfcn.scratch import extremes, release
from medfcn.text import shown
from medfcn.volumes.formats.nifti_header import (
    HEADER_FIELDS,
    MAGIC,
    VOXEL_TYPES,
    ByteOrder,
    NiftiGeometry,
    header_record,
    transforms_of,
)
from medfcn.volumes.formats.nifti_labels import LABEL_INTENT, TableLabel, label_extension
from medfcn.volumes.formats.nifti_transforms import ROUNDING, quaternion_of
from medfcn.volumes.formats.streams import CHUNK, crc32, gzip_writer
from medfcn.volumes.geometry import (
    SAME_GRID_VOXELS,
    Affine,
    corner_displacement_voxels,
    is_sheared,
    spacing_mm,
)
from medfcn.volumes.names import extension_of

_CODES = {numpy_name: code for code, numpy_name in VOXEL_TYPES.items()}
_ALIGNED = 2
"""The transform code "aligned": the affine is known, the scanner it came from is not."""
_MILLIMETRES = 2
_LONGEST_1 = 32767
IMAGE_LEVEL, MASK_LEVEL = 3, 1
"""igzip's levels: little is gained above."""


def stored_type(array: NDArray[Any], byte_order: ByteOrder = "<") -> np.dtype[Any]:
    """The type in which voxels are stored: for integers the smallest that holds them, unsigned if possible.

    Example:
        >>> stored_type(np.array([[[0, 300]]])).name, stored_type(np.array([[[-5.0]]], dtype=np.float16)).name
        ('uint16', 'float32')
    """
    if array.dtype.kind == "f":
        return np.dtype(np.float64 if array.dtype.itemsize > 4 else np.float32).newbyteorder(byte_order)
    if array.dtype.kind == "b" or array.dtype == np.uint8:
        return np.dtype(np.uint8)
    least, most = (int(end) for end in extremes(array))
    # A signed type that holds -most - 1 holds most.
    return np.min_scalar_type(most if least >= 0 else min(least, -most - 1)).newbyteorder(byte_order)


def header_bytes(
    array: NDArray[Any], affine: Affine, geometry: NiftiGeometry | None, labels: Sequence[TableLabel] = ()
) -> tuple[bytes, np.dtype[Any]]:
    """The header of a single-file NIfTI, with everything before the voxels, and the type in which it stores these.

    Args:
        array: `(I, J, K)`, the voxels.
        affine: Their grid.
        geometry: The fields of a file, written back as they were if they still describe this grid.
        labels: The label table of a mask, with which it says that its values are labels; none writes neither.
    """
    if geometry is not None and geometry.describes(array.shape, affine):
        record, byte_order = header_record(geometry.raw)
        record = record.copy()
    else:
        record, byte_order = _geometry_of_affine(array.shape, affine), "<"
    dtype = stored_type(array, byte_order)
    length = record.dtype.itemsize
    record["sizeof_hdr"] = length
    record["magic"] = np.void(MAGIC[length][0])
    record["datatype"] = _CODES[dtype.newbyteorder("=").str[1:]]
    record["bitpix"] = 8 * dtype.itemsize
    extension = label_extension(labels, byte_order)
    record["vox_offset"] = length + 4 + len(extension)
    if labels:
        record["intent_code"] = LABEL_INTENT
    record["scl_slope"] = 1.0
    if length == 348:
        record["regular"] = b"r"
    return record.tobytes() + bytes([bool(extension), 0, 0, 0]) + extension, dtype


def _geometry_of_affine(shape: tuple[int, ...], affine: Affine) -> NDArray[np.void]:
    """New geometry fields for a volume that was created from an array and an affine."""
    record = np.zeros((), dtype=HEADER_FIELDS[348 if max(shape) <= _LONGEST_1 else 540].newbyteorder("<"))
    record["dim"] = [3, *shape, 1, 1, 1, 1]
    record["xyzt_units"] = _MILLIMETRES
    record["sform_code"] = _ALIGNED
    record["srow"] = affine[:3]
    spacing = np.array(spacing_mm(affine))
    handedness = -1.0 if np.linalg.det(affine[:3, :3]) < 0 else 1.0
    record["pixdim"] = [handedness, *spacing, 1, 1, 1, 1]
    if is_sheared(affine):
        return record
    with_qform = record.copy()
    with_qform["qform_code"] = _ALIGNED
    with_qform["quatern"] = quaternion_of(affine[:3, :3] / (spacing * [1.0, 1.0, handedness]))
    with_qform["qoffset"] = affine[:3, 3]
    return with_qform if _says_the_same(with_qform, shape, affine) else record


def _says_the_same(record: NDArray[np.void], shape: tuple[int, ...], affine: Affine) -> bool:
    """True if every reader takes the affine from the qform of a header.

    Near half a turn a float32 quaternion is too coarse, and readers differ: nifti1.h sets a to 0 where its square is
    below 1e-7, nibabel 5.4.2 where it is below 3.6e-7.
    """
    transforms = transforms_of(record)
    readings = [transforms.qform()]
    if 1.0 - float(transforms.quaternion @ transforms.quaternion) < ROUNDING:
        readings.append(transforms.qform(a=0.0))
    return all(corner_displacement_voxels(affine, qform, shape) < SAME_GRID_VOXELS for qform in readings)


def write_nifti(
    path: str | os.PathLike[str],
    array: NDArray[Any],
    affine: Affine,
    geometry: NiftiGeometry | None = None,
    *,
    overwrite: bool = False,
    labels: Sequence[TableLabel] = (),
) -> Path:
    """Write voxels as `.nii.gz` or `.nii`; see `Volume.save`, which is the way to it.

    Raises:
        VolumeError: The name ends in neither.
        OutputExistsError: The file exists, and `overwrite` is false.
        WriteError: The disk is full, or what was written reads otherwise.
    """
    target = Path(path)
    extension = extension_of(target)
    if extension not in (".nii", ".nii.gz"):
        raise VolumeError(f"{shown(target)}: medfcn writes NIfTI; choose a name that ends in .nii.gz or .nii")
    refuse_existing_file(target, overwrite=overwrite)
    head, dtype = header_bytes(array, affine, geometry, labels)
    with atomic_write(target) as file:
        sent = _Checksummed(file)
        onto = cast(IO[bytes], sent)
        if extension == ".nii":
            _write_content(onto, head, array, dtype)
        else:
            with gzip_writer(onto, level=MASK_LEVEL if dtype.kind == "u" else IMAGE_LEVEL) as stream:
                _write_content(stream, head, array, dtype)
        file.flush()
        _verify(Path(file.name), target, sent)
    return target


def _write_content(file: IO[bytes], head: bytes, array: NDArray[Any], dtype: np.dtype[Any]) -> None:
    """Write a header and voxels, a few slices at a time."""
    file.write(head)
    step = max(1, CHUNK // max(1, array.shape[0] * array.shape[1] * dtype.itemsize))
    for k in range(0, array.shape[2], step):
        slab = array[:, :, k : k + step].astype(dtype, copy=False)
        file.write(slab.ravel(order="F").view(np.uint8).data)
        release(array)


class _Checksummed(io.RawIOBase):
    """A file that computes the length and the CRC of all bytes that are written to it."""

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


def _verify(part: Path, target: Path, sent: _Checksummed) -> None:
    """Read the file back, and compare its length and CRC with those of the bytes that were written.

    A mask is compared compressed: that costs a hundredth of what decompressing it would, and the compressed bytes
    carry the CRC of the voxels, which every reading verifies.
    """
    checksum, length = 0, 0
    with part.open("rb", buffering=0) as file:
        while piece := file.read(CHUNK):
            checksum = crc32(piece, checksum)
            length += len(piece)
    if (length, checksum) != (sent.length, sent.checksum):
        raise WriteError(f"{target}: the disk returned other bytes than were written; check it")
