"""Background of a volume: air, padding, and what lies outside a scan.

The figures by which a volume is scaled must be those of its image. The share of the background depends on how a
scan was cropped, padded, masked or stored, and says nothing of the patient.
"""

import math
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.slices.voxels import Floats, Ranges, Voxels

Blank = tuple[NDArray[np.bool_], ...]

_SHARE = 0.05
"""A value is taken for air or padding if more than this share of the voxels have it."""
_SAMPLE = 1_000_000
"""Voxels in which repeated values and the noise of air are looked for, evenly spaced."""
_SLICE_VOXELS = 16
"""Fewer voxels of one value are no slice without an image."""
_FAR = 0.25
"""A few slices of one value count if they are so far outside the range of the others, in parts of that range."""
_ISOLATED = 5
"""Padding is this many times as frequent as the next values of the image."""
_BELOW_MOST = 0.1
"""Voxels below the background, for each voxel of the image."""
_BINS = 256
_NOISE_SHARE, _NOISE_REACH, _NOISE_WIDEST = 0.2, 2.5, 0.2
"""Air with noise has this share at least. It reaches so many half widths (at a tenth of its peak; 2.5 are 5.4
standard deviations of normal noise) above its middle, and so far at most into the range of the image."""


@dataclass(frozen=True)
class Background:
    """The background that was found in one channel.

    Attributes:
        level: Voxels up to this intensity are background; None for no such level.
        within: So are those of this intensity; None for none.
        blank: For each axis, true for slices of one value, which hold no image; None if there are none.
        count: Voxels of the image.
        is_all: True if all voxels are image.
        is_blank_left_out: False if slices of one value count as image, because nothing else is left.
        rows: See `image_rows`; None if they were not counted.
    """

    level: float | None
    within: float | None
    blank: Blank | None
    count: int
    is_all: bool
    is_blank_left_out: bool = True
    rows: NDArray[np.int64] | None = field(default=None, repr=False, compare=False)

    def image(self, ranges: Ranges, block: NDArray[Any]) -> NDArray[np.bool_]:
        """The voxels of the image, by which a channel is scaled, in one of its parts; see `Voxels`."""
        return _image(self.level, self.within, self.blank if self.is_blank_left_out else None, ranges, block)

    def image_rows(self, voxels: Voxels) -> NDArray[np.int64]:
        """The voxels of the image in each row along the last axis of a channel; the other axes are in reverse."""
        if self.rows is not None:
            return self.rows
        return _image_rows(voxels, self.level, self.within, self.blank if self.is_blank_left_out else None)

    def darken(self, ranges: Ranges, scaled: Floats, darkest: np.float32) -> None:
        """Give slices of one value the lowest intensity of a scaled channel: a bright frame is no organ.

        Args:
            ranges: The place of a part.
            scaled: The part, whose axes are in reverse; changed in place.
            darkest: The lowest intensity of the channel.
        """
        if self.blank is not None:
            scaled[_blank_of(self.blank, ranges)] = darkest


def image_of(array: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """The voxels of the image in an array, as `find_background` finds them; None for all."""
    voxels = Voxels.of(array)
    found = find_background(voxels)
    everywhere = tuple(slice(0, length) for length in array.shape)
    return None if found.is_all else found.image(everywhere, voxels.part(everywhere)).T


def find_background(voxels: Voxels) -> Background:
    """Find the background of one channel.

    Left out of the image are, in this order:

    1. Slices of one value, along any axis: a frame around a scan, a slice that was lost. They hold no image, whatever
       the value is (a few of them must be far darker or brighter than the rest).
    2. Padding: everything up to the highest value that more than a twentieth of the voxels have exactly, that stands
       alone (scanners give no such value, but masking and padding do), and that has next to nothing below it. So a
       speck below the background changes nothing, and of two paddings both are left out. The minimum need not stand
       alone. A padding in the middle of the intensities (a volume that is scaled to mean 0 already) is left out by
       itself if it covers half of the volume's faces.
    3. Air with noise: the lowest peak of the histogram, if it is narrow and contains a fifth of the voxels. Noise
       around 0 has no repeated value, and half of it is below 0.

    What is left of a volume without noise and specks are the voxels above its minimum, or all of them.
    """
    everything = Background(None, None, None, voxels.size, is_all=True)
    blank = _blank(voxels)
    if blank is not None and _inside(blank) == 0:
        return everything
    sample = _sample(voxels, blank)
    minimum = above_minimum(voxels)
    level, within = _padding(voxels, blank, sample, minimum.level)
    noise = _noise(sample if level is None else sample[sample > level], len(sample))
    level = level if noise is None else noise
    if level is None and within is None and blank is None:
        return everything
    rows = _image_rows(voxels, level, within, blank)
    count = int(rows.sum())
    if not count:
        return replace(minimum, blank=blank, is_blank_left_out=False)
    return Background(level, within, blank, count, is_all=count == voxels.size, rows=rows)


def above_minimum(voxels: Voxels) -> Background:
    """The voxels at the minimum as the background, if they are more than a twentieth of all; else none."""
    least, count, _ = voxels.extremes()
    if count > _SHARE * voxels.size and count < voxels.size:
        return Background(float(least), None, None, voxels.size - count, is_all=False)
    return Background(None, None, None, 0 if count == voxels.size else voxels.size, is_all=count < voxels.size)


def _image_rows(voxels: Voxels, level: float | None, within: float | None, blank: Blank | None) -> NDArray[np.int64]:
    rows = np.zeros(voxels.shape[-2::-1], dtype=np.int64)
    for ranges, block in voxels.stored_slabs():
        rows += _image(level, within, blank, ranges, block).view(np.uint8).sum(axis=0, dtype=np.uint32)
    return rows


def _image(
    level: float | None, within: float | None, blank: Blank | None, ranges: Ranges, block: NDArray[Any]
) -> NDArray[np.bool_]:
    image = np.ones(block.shape, dtype=bool) if level is None else block > np.float32(level)
    if within is not None:
        image &= block != np.float32(within)
    if blank is not None:
        image &= ~_blank_of(blank, ranges)
    return image


def _blank_of(blank: Blank, ranges: Ranges) -> NDArray[np.bool_]:
    """The voxels of a part that are in a blank slice, with the axes in reverse."""
    parts = [of_axis[part] for of_axis, part in zip(blank, ranges, strict=True)][::-1]
    shapes = [[-1 if axis == other else 1 for other in range(len(parts))] for axis in range(len(parts))]
    found: NDArray[np.bool_] = reduce(np.logical_or, map(np.reshape, parts, shapes))
    return found


def _inside(blank: Blank) -> int:
    """Voxels in no blank slice."""
    return math.prod(int(np.count_nonzero(~of_axis)) for of_axis in blank)


def _box(blank: Blank) -> Ranges:
    """The box around the voxels in no blank slice."""
    places = [np.flatnonzero(~of_axis) for of_axis in blank]
    return tuple(slice(int(place[0]), int(place[-1]) + 1) for place in places)


def _sample(voxels: Voxels, blank: Blank | None) -> Floats:
    """Evenly spaced intensities in no blank slice, sorted."""
    if blank is None:
        return voxels.every(max(1, voxels.size // _SAMPLE))
    inside = _inside(blank)
    step = max(1, inside // _SAMPLE)
    kept = [np.flatnonzero(~of_axis) for of_axis in blank]
    parts, seen = [], 0
    for ranges, block in voxels.rows():
        first = kept[0][(kept[0] >= ranges[0].start) & (kept[0] < ranges[0].stop)] - ranges[0].start
        values = block[np.ix_(first, *kept[1:])].reshape(-1)
        parts.append(values[-seen % step :: step])
        seen += len(values)
    return np.sort(np.concatenate(parts))


def _blank(voxels: Voxels) -> Blank | None:
    """The slices of one value along each axis, inside a frame of them too; None if there are none."""
    blank = _blank_slices(voxels)
    if blank is None or not _inside(blank):
        return blank
    box = _box(blank)
    shape = tuple(part.stop - part.start for part in box)
    if shape == voxels.shape:
        return blank

    def within(ranges: Ranges) -> Floats:
        return voxels.part(
            tuple(
                slice(edge.start + part.start, edge.start + part.stop) for edge, part in zip(box, ranges, strict=True)
            )
        )

    inner = _blank(Voxels(shape, within))
    if inner is not None:
        for of_axis, part, of_inner in zip(blank, box, inner, strict=True):
            of_axis[part] |= of_inner
    return blank


def _blank_slices(voxels: Voxels) -> Blank | None:
    """Slices of one value along each axis; None if they are few and no darker or brighter than others.

    A black row at the edge of a scan is as it was.
    """
    shape = voxels.shape
    blank = tuple(np.zeros(length, dtype=bool) for length in shape)
    axes = [axis for axis, length in enumerate(shape) if length >= 2 and voxels.size // length >= _SLICE_VOXELS]
    axes = [axis for axis in axes if _may_be_blank(voxels, axis)]
    if not axes:
        return None
    lows = {axis: np.full(shape[axis], np.inf, dtype=np.float32) for axis in axes}
    highs = {axis: np.full(shape[axis], -np.inf, dtype=np.float32) for axis in axes}
    for ranges, block in voxels.slabs():
        for axis in axes:
            others = tuple(len(shape) - 1 - other for other in range(len(shape)) if other != axis)
            here = ranges[axis]
            lows[axis][here] = np.minimum(lows[axis][here], block.min(axis=others))
            highs[axis][here] = np.maximum(highs[axis][here], block.max(axis=others))
    for axis in axes:
        blank[axis][:] = lows[axis] == highs[axis]
    share = (voxels.size - _inside(blank)) / voxels.size
    if share in (0, 1) or share > _SHARE:
        return blank if share else None
    rest = _sample(voxels, blank)
    low, high = np.percentile(rest, [0.5, 99.5])
    for axis in axes:  # a slice of one value is far as a whole
        far = np.abs(np.clip(lows[axis], low, high) - lows[axis]) > _FAR * (high - low)
        blank[axis][:] &= far
    return blank if any(of_axis.any() for of_axis in blank) else None


def _may_be_blank(voxels: Voxels, axis: int) -> bool:
    """True if a slice along an axis may have one value: one row of each tells of most that they hold an image."""
    row = 0 if axis else 1
    ranges = tuple(slice(0, 1 if other == row else length) for other, length in enumerate(voxels.shape))
    rows = np.moveaxis(voxels.part(ranges).T, axis, 0).reshape(voxels.shape[axis], -1)
    return bool((rows.min(axis=-1) == rows.max(axis=-1)).any())


def _padding(
    voxels: Voxels, blank: Blank | None, sample: Floats, minimum: float | None
) -> tuple[float | None, float | None]:
    """The value up to which voxels are padding, and a padding in the middle of the intensities; None for neither."""
    level = minimum
    if blank is not None and np.count_nonzero(sample == sample[0]) > _SHARE * len(sample):
        level = float(sample[0])
    apart = int(_SHARE * len(sample))
    if apart and not (sample[apart:] == sample[:-apart]).any():
        return level, None
    values, counts = np.unique(sample, return_counts=True)
    frequent = counts > _SHARE * len(sample)
    rare, rare_counts = np.flatnonzero(~frequent), counts[~frequent]
    within = None
    for index in np.flatnonzero(frequent):
        place = int(np.searchsorted(rare, index))
        if counts[index] < _ISOLATED * max(rare_counts[max(0, place - 1) : place + 1], default=0):
            continue
        below, above = int(rare_counts[:place].sum()), int(rare_counts[place:].sum())
        if above > 0.01 * len(sample) and below <= _BELOW_MOST * above:
            level = float(values[index])
        elif _share_of_faces(voxels, blank, float(values[index])) > 0.5:
            within = float(values[index])
    return level, within


def _share_of_faces(voxels: Voxels, blank: Blank | None, value: float) -> float:
    """The share of a value among the voxels of the volume's faces, inside a blank frame."""
    inside = tuple(slice(0, length) for length in voxels.shape) if blank is None else _box(blank)
    faces = []
    for axis, edge in enumerate(inside):
        for at in (edge.start, edge.stop - 1):
            face = tuple(slice(at, at + 1) if other == axis else part for other, part in enumerate(inside))
            faces.append(voxels.part(face).reshape(-1))
    return float(np.mean(np.concatenate(faces) == value))


def _noise(sample: NDArray[np.float32], voxels: int) -> float | None:
    """The intensity up to which noise around zero or below it reaches; None if there is none.

    Args:
        sample: Sorted intensities without padding.
        voxels: Voxels of the sample with its padding.
    """
    if not len(sample) or sample[0] >= 0:
        return None
    low, high = np.percentile(sample, [0.5, 99.5])
    if not high > low:
        return None
    counts, edges = np.histogram(sample, _BINS, (low, high))
    peak = int(counts.argmax())
    few = np.flatnonzero(counts < counts[peak] / 10)
    first = int(max(few[few < peak], default=-1)) + 1
    last = int(min(few[few > peak], default=_BINS)) - 1
    middle, half = (edges[first] + edges[last + 1]) / 2, (edges[last + 1] - edges[first]) / 2
    level = float(middle + _NOISE_REACH * half)
    below, within, negative = np.searchsorted(sample, [middle - _NOISE_REACH * half, level, 0.0])
    is_noise = (
        level - middle <= _NOISE_WIDEST * (high - middle)
        and within - below >= _NOISE_SHARE * voxels
        and below <= _BELOW_MOST * (len(sample) - within)
        and negative - below >= 0.2 * (within - below)
    )
    return level if is_noise else None
