"""From stored numbers to intensities: scaling, and the rule that every voxel is finite."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import VolumeError
from medfcn.volumes.options import ReadOptions


def scaled(raw: NDArray[Any], slope: float, inter: float) -> NDArray[Any]:
    """Stored numbers times slope plus intercept, each computed in float64.

    Args:
        raw: `(I, J, K)`.
        slope: A slope of 1 with an intercept of 0 leaves the numbers, and their type, as they are.
        inter: Added after multiplying.

    Returns:
        float32 for 8- and 16-bit numbers and float32, float64 for others.
    """
    if (slope, inter) == (1.0, 0.0):
        return raw
    small = raw.dtype.itemsize <= 2 or raw.dtype == np.float32
    result = np.empty(raw.shape, dtype=np.float32 if small else np.float64, order="F")
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is infinite, and refused as such
        for k in range(raw.shape[2]):
            result[:, :, k] = raw[:, :, k].astype(np.float64) * slope + inter
    return result


def finite(array: NDArray[Any], name: str, options: ReadOptions) -> tuple[NDArray[Any], tuple[str, ...]]:
    """`array` if every voxel is finite; otherwise mended in place where that was opted in to, or refused.

    Returns:
        The array, and a note if something was mended.

    Raises:
        VolumeError: Naming how many voxels are not finite, and the first.
    """
    if array.dtype.kind != "f":
        return array, ()
    count, first = 0, None
    for k in range(array.shape[2]):
        plane = array[:, :, k]
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
            f"{name}: {count} voxels are NaN or infinite, the first at {first}; mend the file, "
            "or pass --nonfinite fill:VALUE"
        )
    return array, (f"{count} voxels that were NaN or infinite set to {options.nonfinite:g}",)
