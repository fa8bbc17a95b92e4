"""Background of a volume: air, padding, and what lies outside a scan.

The figures by which a volume is scaled must be those of its image. The share of the background depends on how a
scan was cropped, padded, masked or stored, and says nothing of the patient.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
        image: The voxels of the image, by which the channel is scaled; None for all.
        blank: The voxels in slices of one value, which hold no image; None if there are none.
    """

    image: NDArray[np.bool_] | None
    blank: NDArray[np.bool_] | None

    def darken(self, scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give slices of one value the lowest intensity of a scaled channel, in place: a bright frame is no organ."""
        if self.blank is not None:
            scaled[self.blank] = scaled.min()
        return scaled


def at_minimum(array: NDArray[np.float32]) -> bool:
    """True if more than a twentieth of the voxels are exactly at the minimum."""
    return int(np.count_nonzero(array == array.min())) > _SHARE * array.size


def find_background(array: NDArray[np.float32]) -> Background:
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
    blank = _blank(array)
    if blank is not None and blank.all():
        return Background(None, None)
    values = array.reshape(-1) if blank is None else array[~blank]
    sample = np.sort(values[:: max(1, len(values) // _SAMPLE)])
    level, within = _padding(array, blank, sample)
    noise = _noise(sample if level is None else sample[sample > level], len(sample))
    level = level if noise is None else noise
    image = np.ones(array.shape, dtype=bool) if level is None else array > level
    if within is not None:
        image &= array != within
    if blank is not None:
        image &= ~blank
    if not image.any():
        image = array > array.min() if at_minimum(array) else np.ones(array.shape, dtype=bool)
    return Background(None if image.all() else image, blank)


def _blank(array: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """The voxels of slices of one value, inside a frame of them too; None if there are none."""
    blank = _blank_slices(array)
    if blank is None or blank.all():
        return blank
    box = tuple(slice(int(places.min()), int(places.max()) + 1) for places in np.nonzero(~blank))
    inner = _blank(array[box]) if array[box].size < array.size else None
    if inner is not None:
        blank[box] |= inner
    return blank


def _blank_slices(array: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """The voxels of slices of one value, along any axis; None if they are few and no darker or brighter than others.

    A black row at the edge of a scan is as it was.
    """
    blank = np.zeros(array.shape, dtype=bool)
    for axis, length in enumerate(array.shape):
        if length < 2 or array.size // length < _SLICE_VOXELS:
            continue
        others = tuple(other for other in range(array.ndim) if other != axis)
        # One row of each slice tells of most that they hold an image.
        rows = np.moveaxis(array, axis, 0)[:, 0]
        if (rows.min(axis=-1) == rows.max(axis=-1)).any():
            blank |= array.min(axis=others, keepdims=True) == array.max(axis=others, keepdims=True)
    share = np.count_nonzero(blank) / array.size
    if share in (0, 1) or share > _SHARE:
        return blank if share else None
    rest = array[~blank]
    low, high = np.percentile(rest[:: max(1, len(rest) // _SAMPLE)], [0.5, 99.5])
    far = np.abs(np.clip(array, low, high) - array) > _FAR * (high - low)
    blank &= far
    return blank if blank.any() else None


def _padding(
    array: NDArray[np.float32], blank: NDArray[np.bool_] | None, sample: NDArray[np.float32]
) -> tuple[float | None, float | None]:
    """The value up to which voxels are padding, and a padding in the middle of the intensities; None for neither."""
    level = float(array.min()) if at_minimum(array) else None
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
        elif _share_of_faces(array, blank, float(values[index])) > 0.5:
            within = float(values[index])
    return level, within


def _share_of_faces(array: NDArray[np.float32], blank: NDArray[np.bool_] | None, value: float) -> float:
    """The share of a value among the voxels of the volume's faces, inside a blank frame."""
    inside = array
    for axis in range(array.ndim):
        if blank is not None:
            others = tuple(other for other in range(array.ndim) if other != axis)
            image = np.flatnonzero(~blank.all(axis=others))
            inside = np.take(inside, np.arange(image[0], image[-1] + 1), axis=axis)
    faces = [np.take(inside, end, axis=axis).reshape(-1) for axis in range(array.ndim) for end in (0, -1)]
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
