"""A case's volumes → the network's input: channels on the network grid, with intensities that compare.

Training and prediction both go through `network_image`. `medfcn.monai.transforms` offers the same steps as MONAI
transforms.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import GeometryMismatchError, VolumeError
from medfcn.memory import require_memory
from medfcn.scratch import extremes
from medfcn.settings import View
from medfcn.slices.background import Background, above_minimum, find_background
from medfcn.slices.grid import GridMap, as_stored, map_to_network, network_part, to_network_grid
from medfcn.slices.plan import Intensity, Plan
from medfcn.slices.slicing import VIEW_AXIS
from medfcn.slices.voxels import Floats, Ranges, Voxels
from medfcn.text import counted
from medfcn.volumes import Volume, require_same_grid

_FLOAT_BYTES = 4
_PERCENTILE_SAMPLE = 1_000_000
"""Voxels that percentiles are taken from, evenly spaced; more do not change them noticeably."""


@dataclass(frozen=True)
class Scaling:
    """How one channel's intensities are scaled.

    Attributes:
        lower: They are clipped from here …
        upper: … to here.
        mean: Becomes 0.
        spread: Becomes 1; None makes all 0.
        background: Slices of one value in it get `darkest`; None for no background.
        darkest: The lowest intensity of the channel, scaled.
    """

    lower: float
    upper: float
    mean: float
    spread: float | None
    background: Background | None = None
    darkest: np.float32 = field(default_factory=np.float32)

    def __call__(self, ranges: Ranges, block: Floats) -> Floats:
        """A part of the channel, scaled; see `Voxels`."""
        if self.spread is None:
            return np.zeros_like(block)
        scaled = _scaled(block, self.lower, self.upper, self.mean, self.spread)
        if self.background is not None:
            self.background.darken(ranges, scaled, self.darkest)
        return scaled


def scaling_of(voxels: Voxels, intensity: Intensity) -> Scaling | None:
    """The scaling of a channel by itself or by its plan; None leaves intensities as they are."""
    if intensity.kind == "none":
        return None
    if intensity.kind == "ct":
        return Scaling(intensity.lower, intensity.upper, intensity.mean, intensity.std)
    found = above_minimum(voxels) if intensity.background == "minimum" else find_background(voxels)
    if not found.count:
        return Scaling(0, 0, 0, None)
    sample = _image_sample(voxels, found, max(1, found.count // _PERCENTILE_SAMPLE))
    lower, upper = percentile(sample, 0.5), percentile(sample, 99.5)
    mean, spread = _moments(voxels, found, lower, upper, float(np.clip(sample, lower, upper).mean(dtype=np.float64)))
    if not spread > 0:
        return Scaling(0, 0, 0, None)
    if found.blank is None:
        return Scaling(lower, upper, mean, spread)
    least = np.array([voxels.extremes()[0]], dtype=np.float32)
    return Scaling(lower, upper, mean, spread, found, _scaled(least, lower, upper, mean, spread)[0])


def _image_sample(voxels: Voxels, found: Background, step: int) -> Floats:
    """Each `step`-th intensity of the image, in the order of an array."""
    if found.is_all:
        return voxels.every(step)
    if step == 1:
        return np.concatenate([block[found.image(ranges, block)] for ranges, block in voxels.slabs()])
    # Voxels pass in the order of the file; each row knows what comes before it in the order of an array.
    rows = found.image_rows(voxels)
    before = np.ascontiguousarray(np.cumsum(rows.T).reshape(rows.T.shape).T) - rows
    number = -(-before // step)  # in the sample, of the next voxel that is taken
    wait = (number * step - before).astype(np.int32)  # voxels of the image that come first
    sample = np.empty(-(-found.count // step), dtype=np.float32)
    for ranges, block in voxels.stored_slabs():
        for plane, image in zip(block, found.image(ranges, block), strict=True):
            taken = image & (wait == 0)
            sample[number[taken]] = plane[taken]
            number[taken] += 1
            wait -= image
            wait[taken] = step - 1
    return sample


def _moments(
    voxels: Voxels, found: Background, lower: np.float64, upper: np.float64, near: float
) -> tuple[float, float]:
    """Mean and standard deviation of the image's clipped intensities.

    Args:
        voxels: The channel.
        found: Its background.
        lower: Intensities are clipped from here …
        upper: … to here.
        near: A number near the mean, which keeps the digits of the squares.
    """
    total = squares = 0.0
    for ranges, block in voxels.slabs():
        values = block.reshape(-1) if found.is_all else block[found.image(ranges, block)]
        beyond = np.clip(values, lower, upper) - near
        total += float(beyond.sum(dtype=np.float64))
        squares += float(np.dot(beyond, beyond))
    shift = total / found.count
    return near + shift, math.sqrt(max(0.0, squares / found.count - shift * shift))


def normalise(array: NDArray[np.float32], intensity: Intensity) -> NDArray[np.float32]:
    """Bring one channel's intensities to mean 0 and standard deviation 1; a constant channel becomes 0.

    Args:
        array: Any shape.
        intensity: See there.
    """
    voxels = Voxels.of(array)
    scaling = scaling_of(voxels, intensity)
    if scaling is None:
        return array.astype(np.float32)
    result = np.empty(array.shape, dtype=np.float32)
    for ranges, block in voxels.slabs():
        result[ranges] = scaling(ranges, block).T
    return result


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
    scaled = np.clip(array, lower, upper)
    scaled -= np.float32(mean)
    scaled /= np.float32(std)
    return scaled.astype(np.float32, copy=False)


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


class CaseImage:
    """A case as `network_image` makes it, the same to the bit, but a part at a time: the whole is never in memory.

    Args:
        volumes: A case's channels.
        plan: The plan of the network.

    Raises:
        GeometryMismatchError: A channel has another grid than the first.
        VolumeError: An intensity is beyond float32.
    """

    def __init__(self, volumes: Sequence[Volume], plan: Plan) -> None:
        aligned = _on_one_grid(volumes)
        grid = grid_of(volumes[0], plan)
        for volume in aligned:
            _require_float32(volume)
        self.shape = (len(aligned), *grid.shape)
        self._channels = [
            Voxels(grid.shape, partial(network_part, volume.array, grid), as_stored(volume.array, grid))
            for volume in aligned
        ]
        self._scalings = [
            scaling_of(voxels, intensity) for voxels, intensity in zip(self._channels, plan.intensities, strict=True)
        ]

    def part(self, ranges: Ranges) -> Floats:
        """`(C, r, a, s)` of a range along R, A and S: a view that is contiguous along R."""
        found = [
            voxels.part(ranges) if scaling is None else scaling(ranges, voxels.part(ranges))
            for voxels, scaling in zip(self._channels, self._scalings, strict=True)
        ]
        stacked = np.stack(found) if len(found) > 1 else found[0][None]
        return stacked.transpose(0, 3, 2, 1)

    def slices(self, view: View) -> "ImageSlices":
        """The slices of a view."""
        return ImageSlices(self, view)


@dataclass(frozen=True)
class ImageSlices:
    """The slices of a case along a view, made when they are asked for; see `medfcn.networks.sliding.Slices`.

    Attributes:
        image: The case.
        view: The plane of the slices.
    """

    image: CaseImage
    view: View

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """`(N, C, H, W)`."""
        channels, *sizes = self.image.shape
        count = sizes.pop(VIEW_AXIS[self.view])
        return count, channels, sizes[0], sizes[1]

    def part(self, start: int, stop: int) -> Floats:
        """`(stop - start, C, H, W)` slices from `start` to before `stop`."""
        ranges = [slice(0, length) for length in self.image.shape[1:]]
        ranges[VIEW_AXIS[self.view]] = slice(start, stop)
        found: Floats = np.moveaxis(self.image.part(tuple(ranges)), 1 + VIEW_AXIS[self.view], 0)
        return found


def stack_channels(volumes: Sequence[Volume]) -> NDArray[np.float32]:
    """A case's channels on their own grid: `(C, I, J, K)` float32.

    Raises:
        GeometryMismatchError: A channel has another grid than the first.
        VolumeError: An intensity is beyond float32.
    """
    count = len(volumes) * math.prod(volumes[0].shape)
    require_memory(_FLOAT_BYTES * count, f"{counted(len(volumes), 'channel')} of {count // len(volumes):,} voxels")
    return np.stack([_as_float32(volume) for volume in _on_one_grid(volumes)])


def _on_one_grid(volumes: Sequence[Volume]) -> list[Volume]:
    """The channels of a case in the order of axes of the first."""
    aligned = [volume.reordered_to(volumes[0]) for volume in volumes]
    for channel in aligned[1:]:
        try:
            require_same_grid(aligned[0], channel)
        except GeometryMismatchError as error:
            raise GeometryMismatchError(
                f"{error} (channels of one case must share a grid)", code=error.code, field=error.field
            ) from error
    return aligned


def normalise_channels(image: NDArray[np.float32], intensities: Sequence[Intensity]) -> NDArray[np.float32]:
    """Normalise `(C, ...)` channels, each in its own way; see `normalise`."""
    require_memory(image.nbytes + 3 * image[0].nbytes, "the normalised channels")  # with the copies on the way
    result = np.empty_like(image)
    for channel, (values, intensity) in enumerate(zip(image, intensities, strict=True)):
        result[channel] = normalise(values, intensity)
    return result


def _as_float32(volume: Volume) -> NDArray[np.float32]:
    _require_float32(volume)
    with np.errstate(over="ignore"):
        return volume.array.astype(np.float32)


def _require_float32(volume: Volume) -> None:
    """VolumeError for an intensity that float32 does not hold."""
    with np.errstate(over="ignore"):
        ends = np.array(extremes(volume.array) if volume.array.dtype == np.float64 else 0).astype(np.float32)
    if not np.isfinite(ends).all():
        who = volume.name or "volume"
        raise VolumeError(
            f"{who}: contains intensities beyond 3.4e38, more than any scanner gives; fix the file",
            code="VOXELS_RANGE",
        )
