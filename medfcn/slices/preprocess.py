"""A case's volumes → the network's input: channels on the network grid, with intensities that compare.

Training and prediction both go through `network_image`. `medfcn.monai.transforms` offers the same steps as MONAI
transforms.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import GeometryMismatchError, VolumeError
from medfcn.memory import require_memory
from medfcn.slices.background import at_minimum, find_background
from medfcn.slices.grid import GridMap, map_to_network, to_network_grid
from medfcn.slices.plan import Intensity, Plan
from medfcn.text import counted
from medfcn.volumes import Volume, require_same_grid

_FLOAT_BYTES = 4
_PERCENTILE_SAMPLE = 1_000_000
"""Voxels that percentiles are taken from, evenly spaced; more do not change them noticeably."""


def normalise(array: NDArray[np.float32], intensity: Intensity) -> NDArray[np.float32]:
    """Bring one channel's intensities to mean 0 and standard deviation 1; a constant channel becomes 0.

    Args:
        array: Any shape.
        intensity: See there.
    """
    if intensity.kind == "none":
        return array.astype(np.float32)
    if intensity.kind == "ct":
        return _scaled(array, intensity.lower, intensity.upper, intensity.mean, intensity.std)
    if intensity.background == "minimum":
        return _zscore(array, array > array.min() if at_minimum(array) else None)
    found = find_background(array)
    result = _zscore(array, found.image)
    return found.darken(result)


def _zscore(array: NDArray[np.float32], image: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """Clip and scale by the figures of the voxels of `image`; None takes all."""
    values = array.reshape(-1) if image is None else array[image]
    if not len(values):
        return np.zeros_like(array)
    sample = values[:: max(1, len(values) // _PERCENTILE_SAMPLE)]
    lower, upper = percentile(sample, 0.5), percentile(sample, 99.5)
    values = np.clip(values, lower, upper)
    mean, spread = values.mean(dtype=np.float64), values.std(dtype=np.float64)
    if not spread > 0:
        return np.zeros_like(array)
    return _scaled(array, lower, upper, mean, spread)


def percentile(values: NDArray[np.float32], percent: float) -> np.float64:
    """`np.percentile(values, [percent])`, the same to the last bit in a fifth of the time.

    numpy selects one element with vector instructions, and several at once (as `percentile` does) without (2.4).

    Args:
        values: `(N,)`, at least one.
        percent: 0 to 100.
    """
    place = np.float64(percent) / 100 * (len(values) - 1)
    below = int(place)
    ordered = np.partition(values, below)
    low = ordered[below]
    high = ordered[below + 1 :].min() if below + 1 < len(values) else low
    share, step = place - below, high - low
    result: np.float64 = low + step * share if share < 0.5 else high - step * (1 - share)
    return result


def _scaled(array: NDArray[np.float32], lower: float, upper: float, mean: float, std: float) -> NDArray[np.float32]:
    return ((np.clip(array, lower, upper) - np.float32(mean)) / np.float32(std)).astype(np.float32)


def grid_of(volume: Volume, plan: Plan) -> GridMap:
    """The map from a volume's grid to the network grid of a plan."""
    shape = (int(volume.shape[0]), int(volume.shape[1]), int(volume.shape[2]))
    return map_to_network(shape, volume.orientation, volume.spacing_mm, plan.spacing_mm)


def network_image(volumes: Sequence[Volume], plan: Plan) -> NDArray[np.float32]:
    """A case's channels as the network sees them: `(C, R, A, S)` float32 on the network grid, normalised.

    Raises:
        GeometryMismatchError: A channel has another grid than the first.
        VolumeError: An intensity is beyond float32.
    """
    moved = to_network_grid(stack_channels(volumes), grid_of(volumes[0], plan))
    return normalise_channels(moved, plan.intensities)


def stack_channels(volumes: Sequence[Volume]) -> NDArray[np.float32]:
    """A case's channels on their own grid: `(C, I, J, K)` float32.

    Raises:
        GeometryMismatchError: A channel has another grid than the first.
        VolumeError: An intensity is beyond float32.
    """
    count = len(volumes) * math.prod(volumes[0].shape)
    require_memory(_FLOAT_BYTES * count, f"{counted(len(volumes), 'channel')} of {count // len(volumes):,} voxels")
    volumes = [volume.reordered_to(volumes[0]) for volume in volumes]
    for channel in volumes[1:]:
        try:
            require_same_grid(volumes[0], channel)
        except GeometryMismatchError as error:
            raise GeometryMismatchError(
                f"{error} (channels of one case must share a grid)", code=error.code, field=error.field
            ) from error
    return np.stack([_as_float32(volume) for volume in volumes])


def normalise_channels(image: NDArray[np.float32], intensities: Sequence[Intensity]) -> NDArray[np.float32]:
    """Normalise `(C, ...)` channels, each in its own way; see `normalise`."""
    require_memory(image.nbytes + 3 * image[0].nbytes, "the normalised channels")  # with the copies on the way
    result = np.empty_like(image)
    for channel, (values, intensity) in enumerate(zip(image, intensities, strict=True)):
        result[channel] = normalise(values, intensity)
    return result


def _as_float32(volume: Volume) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        array = volume.array.astype(np.float32)
    if volume.array.dtype == np.float64 and not np.isfinite(array).all():
        who = volume.name or "volume"
        raise VolumeError(
            f"{who}: contains intensities beyond 3.4e38, more than any scanner gives; fix the file",
            code="VOXELS_RANGE",
        )
    return array
