"""The header of a file medfcn writes: geometry, and nothing else."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.volumes.formats.nifti_header import (
    HEADER_BYTES,
    HEADER_FIELDS,
    MAGIC,
    VOXEL_TYPES,
    ByteOrder,
    transforms_of,
)
from medfcn.volumes.formats.nifti_transforms import ROUNDING, quaternion_of
from medfcn.volumes.geometry import SAME_GRID_VOXELS, corner_displacement_voxels, is_sheared, spacing_mm
from medfcn.volumes.volume import Volume

_CODES = {numpy_name: code for code, numpy_name in VOXEL_TYPES.items()}
_ALIGNED = 2
"""The transform code "aligned": the affine is known, the scanner it came from is not."""
_MILLIMETRES = 2
_LONGEST_1 = 32767


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
    least, most = int(array.min()), int(array.max())
    if least >= 0:
        return np.min_scalar_type(most).newbyteorder(byte_order)
    for signed in (np.int8, np.int16, np.int32):
        if np.iinfo(signed).min <= least and most <= np.iinfo(signed).max:
            return np.dtype(signed).newbyteorder(byte_order)
    return np.dtype(np.int64).newbyteorder(byte_order)


def header_bytes(volume: Volume) -> tuple[bytes, np.dtype[Any]]:
    """The header of a single-file NIfTI that holds `volume`, with the four bytes after it, and its voxels' type."""
    record, byte_order = _geometry_of_file(volume), volume.header.byte_order if volume.header else "<"
    if record is None:
        record, byte_order = _geometry_of_affine(volume), "<"
    dtype = stored_type(volume.array, byte_order)
    version = 1 if record.dtype.itemsize == HEADER_BYTES[1] else 2
    record["sizeof_hdr"] = HEADER_BYTES[version]
    record["magic"] = np.void(MAGIC[version][0])
    record["datatype"] = _CODES[dtype.newbyteorder("=").str[1:]]
    record["bitpix"] = 8 * dtype.itemsize
    record["vox_offset"] = HEADER_BYTES[version] + 4
    record["scl_slope"] = 1.0
    if version == 1:
        record["regular"] = b"r"
    return record.tobytes() + bytes(4), dtype


def _geometry_of_file(volume: Volume) -> NDArray[np.void] | None:
    """The geometry fields of the file the grid was read from, if they still describe it."""
    if volume.header is None:
        return None
    return volume.header.record if volume.header.describes(volume.shape, volume.affine) else None


def _geometry_of_affine(volume: Volume) -> NDArray[np.void]:
    """New geometry fields for a volume made from an array and an affine."""
    version = 1 if max(volume.shape) <= _LONGEST_1 else 2
    record = np.zeros((), dtype=HEADER_FIELDS[version].newbyteorder("<"))
    record["dim"] = [3, *volume.shape, 1, 1, 1, 1]
    record["xyzt_units"] = _MILLIMETRES
    record["sform_code"] = _ALIGNED
    record["srow"] = volume.affine[:3]
    spacing = np.array(spacing_mm(volume.affine))
    handedness = -1.0 if np.linalg.det(volume.affine[:3, :3]) < 0 else 1.0
    record["pixdim"] = [handedness, *spacing, 1, 1, 1, 1]
    if is_sheared(volume.affine):
        return record
    with_qform = record.copy()
    with_qform["qform_code"] = _ALIGNED
    with_qform["quatern"] = quaternion_of(volume.affine[:3, :3] / (spacing * [1.0, 1.0, handedness]))
    with_qform["qoffset"] = volume.affine[:3, 3]
    return with_qform if _says_the_same(with_qform, volume) else record


def _says_the_same(record: NDArray[np.void], volume: Volume) -> bool:
    """Whether the qform of a header is the affine, for every reader.

    Near half a turn a float32 quaternion is too coarse, and readers differ in what they make of it: nifti1.h
    takes a for 0 where its square is below 1e-7, nibabel 5.4.2 below 3.6e-7.
    """
    transforms = transforms_of(record)
    readings = [transforms.qform("header")]
    if 1.0 - float(transforms.quaternion @ transforms.quaternion) < ROUNDING:
        readings.append(transforms.qform("header", a=0.0))
    return all(
        corner_displacement_voxels(volume.affine, qform, volume.shape) < SAME_GRID_VOXELS for qform in readings
    )
