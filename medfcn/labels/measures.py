"""The size of each label of a mask, and the intensity of the image inside it.

A mask is measured a slice at a time, in the order in which its file stores slices, so that the numbers depend neither
on how many slices are in memory nor on what made the mask.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medfcn.labels.codec import LabelCodec
from medfcn.labels.label_map import LabelMap
from medfcn.labels.masks import read_mask
from medfcn.scratch import parts, release
from medfcn.volumes.options import DEFAULT_OPTIONS, ReadOptions
from medfcn.volumes.reading import as_volume
from medfcn.volumes.volume import Volume, VolumeLike, require_same_grid


class Intensity(NamedTuple):
    """The intensity of one channel inside a label, in the units of the image.

    Attributes:
        mean: Arithmetic mean; None where the label has no voxel.
        spread: Standard deviation (of all voxels, divided by their number); None where the label has no voxel.
    """

    mean: float | None
    spread: float | None


class Measure(NamedTuple):
    """One label of a mask.

    Attributes:
        voxels: The number of its voxels.
        intensity: For each channel of the image, in their order; empty without an image.
    """

    voxels: int
    intensity: tuple[Intensity, ...]


class _Moments:
    """Number, mean and sum of squared differences of the voxels of each index."""

    def __init__(self, length: int) -> None:
        self.count, self.mean, self.squares = np.zeros((3, length))

    def add(self, count: NDArray[np.float64], mean: NDArray[np.float64], squares: NDArray[np.float64]) -> None:
        """Add other voxels (Chan, Golub, LeVeque, COMPSTAT 1982)."""
        both = self.count + count
        share = np.divide(count, both, out=np.zeros_like(both), where=both > 0)
        apart = mean - self.mean
        self.mean += apart * share
        self.squares += squares + apart * apart * self.count * share
        self.count = both


class LabelMeter:
    """Measures a mask as its slices come.

    Args:
        labels: The labels of the mask.
        channels: The number of channels of the image; 0 counts voxels only.

    Example:
        >>> meter = LabelMeter(LabelMap.parse("organ=1,lesion=2"), channels=1)
        >>> meter.add(np.array([[[1, 1]], [[0, 1]]], dtype=np.uint8), [np.array([[[3, 4]], [[100, 5]]])])
        >>> meter.measures()["organ"]
        Measure(voxels=3, intensity=(Intensity(mean=4.0, spread=0.816496580927726),))
        >>> meter.measures()["lesion"]
        Measure(voxels=0, intensity=(Intensity(mean=None, spread=None),))
    """

    def __init__(self, labels: LabelMap, *, channels: int) -> None:
        self._labels = labels
        self._length = len(labels.membership)
        self._voxels = np.zeros(self._length, dtype=np.int64)
        self._moments = [_Moments(self._length) for _ in range(channels)]

    def add(self, indices: NDArray[np.uint8], channels: Sequence[NDArray[Any]] = ()) -> None:
        """Add the next slices.

        Args:
            indices: `(I, J, n)`: 0 for background, else the place of a label, or of an overlap where labels overlap.
            channels: `(I, J, n)` of each channel of the image.
        """
        for k in range(indices.shape[2]):
            inside = indices[:, :, k] != 0
            if inside.any():
                found = indices[:, :, k][inside]
                self._voxels += np.bincount(found, minlength=self._length)
                for moments, channel in zip(self._moments, channels, strict=True):
                    moments.add(*self._of_slice(found, channel[:, :, k][inside].astype(np.float64)))
            for array in (indices, *channels):
                release(array)

    def _of_slice(self, found: NDArray[np.uint8], values: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Number, mean and sum of squared differences of the voxels of each index in a slice."""
        places = found.astype(np.intp)  # once, not by each call
        count: NDArray[np.float64] = np.bincount(places, minlength=self._length).astype(np.float64)
        total = np.bincount(places, weights=values, minlength=self._length)
        mean: NDArray[np.float64] = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
        apart = values - (mean[1] if self._length == 2 else mean[places])
        squares = np.bincount(places, weights=apart**2, minlength=self._length)
        return count, mean, squares.astype(np.float64, copy=False)

    def measures(self) -> Mapping[str, Measure]:
        """Each label by name, with the voxels of all overlaps that it is part of."""
        found = {}
        for name, is_part in zip(self._labels.names, self._labels.membership.T, strict=True):
            intensity = tuple(_joined(moments, is_part) for moments in self._moments)
            found[name] = Measure(int(self._voxels[is_part].sum()), intensity)
        return found


def _joined(moments: _Moments, is_part: NDArray[np.bool_]) -> Intensity:
    """The intensity of all voxels whose index is part of a label."""
    label = _Moments(1)
    for index in np.flatnonzero(is_part):
        at = slice(index, index + 1)
        label.add(moments.count[at], moments.mean[at], moments.squares[at])
    if not label.count[0]:
        return Intensity(None, None)
    return Intensity(float(label.mean[0]), math.sqrt(label.squares[0] / label.count[0]))


def measured(
    mask: str | os.PathLike[str],
    labels: LabelMap,
    images: Sequence[VolumeLike] = (),
    *,
    codec: LabelCodec | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
) -> tuple[Mapping[str, Measure], Volume, tuple[Volume, ...]]:
    """Measure the mask in a file.

    Args:
        mask: The file.
        labels: The meaning of its values.
        images: The channels of its image; none counts voxels only.
        codec: The meaning of its values, if they are not those that medfcn writes.
        options: How the files are read.

    Returns:
        The measures by label, the mask, and the channels in the order of the mask's voxels.

    Raises:
        VolumeError: A file cannot be trusted.
        GeometryMismatchError: The mask is not on the image's grid.
    """
    found = read_mask(mask, labels=labels, options=options)
    channels = tuple(as_volume(image, options=options).reordered_to(found) for image in images)
    for channel in channels:
        require_same_grid(channel, found)
    indices = (codec or labels.written_codec).encode(found.array)
    return measure_labels(indices, labels, [channel.array for channel in channels]), found, channels


def measure_labels(
    indices: NDArray[np.uint8], labels: LabelMap, channels: Sequence[NDArray[Any]] = ()
) -> Mapping[str, Measure]:
    """Measure a whole mask; see `LabelMeter`.

    Args:
        indices: `(I, J, K)` indices of labels or overlaps.
        labels: Their meaning.
        channels: `(I, J, K)` of each channel of the image.
    """
    meter = LabelMeter(labels, channels=len(channels))
    box = _box_of(indices)
    if box is not None:
        meter.add(indices[box], [channel[box] for channel in channels])
    return meter.measures()


def _box_of(indices: NDArray[np.uint8]) -> tuple[slice, ...] | None:
    """The box around the voxels of all labels, outside of which nothing is to be measured; None without any."""
    seen = [np.zeros(length, dtype=bool) for length in indices.shape]
    for place, part in parts(indices):
        for axis, along in enumerate(seen):
            others = tuple(other for other in range(3) if other != axis)
            along[place[axis]] |= part.max(axis=others, initial=0) > 0
    places = [np.flatnonzero(along) for along in seen]
    if not len(places[0]):
        return None
    return tuple(slice(int(along[0]), int(along[-1]) + 1) for along in places)
