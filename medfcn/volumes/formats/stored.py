"""The numbers that a file stores, and the intensities they stand for: scaled, and every voxel finite."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import VolumeError
from medfcn.scratch import extremes, parts, release, scratch_array
from medfcn.volumes.formats.nifti_header import NiftiGeometry
from medfcn.volumes.geometry import Affine
from medfcn.volumes.options import ReadOptions


@dataclass(frozen=True, eq=False)
class StoredVolume:
    """A file's numbers before the scaling of its header, and where they are. Every format's reader returns one."""

    array: NDArray[Any]
    """`(I, J, K)`, native byte order, writeable."""
    affine: Affine
    """To RAS+ millimetres."""
    name: str
    """The file's name with its extension; empty for an image created in memory."""
    sha256: str = ""
    geometry: NiftiGeometry | None = None
    """The NIfTI header fields to write back; None for other formats."""
    slope: float = 1.0
    inter: float = 0.0
    notes: tuple[str, ...] = ()
    """Choices and assumptions of the reading."""

    @property
    def is_scaled(self) -> bool:
        """True if the stored numbers are not the intensities."""
        return (self.slope, self.inter) != (1.0, 0.0)

    def intensities(self, options: ReadOptions) -> tuple[NDArray[Any], tuple[str, ...]]:
        """The numbers scaled and checked to be finite, in the memory of `array` where possible, and all notes."""
        array, more = finite(scaled(self.array, self.slope, self.inter), options)
        return array, self.notes + more


def without_trailing_ones(array: NDArray[Any]) -> NDArray[Any]:
    """`array` without dimensions of length 1 after the third."""
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    return array


LARGE_BYTES = 1 << 24
"""A volume of one value with more bytes than this is kept as one voxel; see `of_one_value`."""


_SCALED_BYTES = 1 << 20
"""Stored bytes that are scaled at a time, in float64."""


def of_one_value(value: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """A read-only array in which every voxel is the same place in memory: an empty mask takes one voxel."""
    return np.broadcast_to(np.asarray(value), shape)


def is_of_one_value(array: NDArray[Any]) -> bool:
    """True if every voxel is the same place in memory."""
    return array.size > 1 and not any(array.strides)


def scaled(raw: NDArray[Any], slope: float, inter: float) -> NDArray[Any]:
    """Stored numbers times slope plus intercept, each computed in float64.

    A whole-number intercept without a slope (CT stored from 0) keeps integers, in the same memory, if the results
    fit: a float copy would take three times as much.

    Args:
        raw: `(I, J, K)`; its memory may be used for the result.
        slope: A slope of 1 with an intercept of 0 leaves the numbers, and their type, as they are.
        inter: Added after multiplying.

    Returns:
        Integers of the same size, float32 for other 8- and 16-bit numbers and float32, float64 for the rest.
    """
    if (slope, inter) == (1.0, 0.0):
        return raw
    if is_of_one_value(raw):
        return of_one_value(scaled(raw[:1, :1, :1].copy(), slope, inter)[0, 0, 0], raw.shape)
    shifted = _shifted(raw, inter) if slope == 1.0 and inter.is_integer() and raw.dtype.kind in "iu" else None
    if shifted is not None:
        return shifted
    small = raw.dtype.itemsize <= 2 or raw.dtype == np.float32
    result = scratch_array(raw.shape, np.float32 if small else np.float64, purpose="the scaled voxels")
    with np.errstate(over="ignore", invalid="ignore"):  # a number that overflows is infinite, and refused later
        for place, part in parts(raw, part_bytes=_SCALED_BYTES):
            result[place] = part.astype(np.float64) * slope + inter
            release(result)
    return result


def _shifted(raw: NDArray[Any], inter: float) -> NDArray[Any] | None:
    """Integers plus a whole number, in place; None where they would not fit the same number of bytes."""
    least, most = (int(end) + int(inter) for end in extremes(raw))
    unsigned = np.dtype(f"u{raw.dtype.itemsize}")
    for dtype in (raw.dtype, np.dtype(f"i{raw.dtype.itemsize}")):
        bounds = np.iinfo(dtype)
        if bounds.min <= least and most <= bounds.max:
            # Modulo 2^bits, so that 65535 - 65536 is -1 whatever is in between.
            for _, part in parts(raw.view(unsigned)):
                part += np.array(int(inter) % (1 << (8 * raw.dtype.itemsize)), dtype=unsigned)
            return raw.view(dtype)
    return None


def finite(array: NDArray[Any], options: ReadOptions) -> tuple[NDArray[Any], tuple[str, ...]]:
    """The array, if every voxel is finite or the options give a value for those that are not (filled in place).

    Returns:
        The array, and a note if voxels were filled.

    Raises:
        VolumeError: Some voxels are not finite; it says how many, and where the first is.
    """
    if array.dtype.kind != "f":
        return array, ()
    value = array[0, 0, 0]
    if is_of_one_value(array) and not np.isfinite(value) and options.nonfinite is not None:
        filled = of_one_value(array.dtype.type(options.nonfinite), array.shape)
        return filled, (f"{array.size} voxels that were NaN or infinite set to {options.nonfinite:g}",)
    count, first = 0, None
    for k in range(array.shape[2]):
        plane = array[:, :, k]
        release(array)
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(plane.sum()):  # NaN and infinity survive a sum
                continue
        bad = ~np.isfinite(plane)
        here = int(bad.sum())
        if here and first is None:
            i, j = (int(index) for index in np.argwhere(bad)[0])
            first = (i, j, k)
        count += here
        if here and options.nonfinite is not None:
            plane[bad] = options.nonfinite
    if not count:
        return array, ()
    if options.nonfinite is None:
        raise VolumeError(
            f"{count} voxels are NaN or infinite, the first at {first}; fix the file, or pass --nonfinite fill:VALUE",
            code="VOXELS_NOT_FINITE",
        )
    return array, (f"{count} voxels that were NaN or infinite set to {options.nonfinite:g}",)
