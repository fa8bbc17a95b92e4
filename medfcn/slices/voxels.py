"""The intensities of one channel, a part at a time, so that a large one never lies in memory as a whole.

A part has the axes of the channel in reverse: those of a NIfTI file are then in the order of its bytes, and the first
axis is the slowest of both.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ranges = tuple[slice, ...]
"""A range along each axis, with begin and end."""
_PART_VOXELS = 1 << 21
"""Voxels in a part. It is the same on every machine, so that sums are."""
_KEPT_VOXELS = 1 << 23
"""A channel of no more voxels is kept once it was read."""


@dataclass
class Voxels:
    """One channel.

    Attributes:
        shape: Its voxels along its axes.
        read: From a range of each axis to the intensities there, float32 and contiguous, with the axes in reverse.
    """

    shape: tuple[int, ...]
    read: Callable[[Ranges], Floats]
    _whole: Floats | None = field(default=None, init=False, repr=False)

    @classmethod
    def of(cls, array: NDArray[Any]) -> Self:
        """The voxels of an array."""
        stored = np.asfortranarray(array, dtype=np.float32)  # turned once, not by every pass
        return cls(array.shape, lambda ranges: np.ascontiguousarray(stored[ranges].T))

    @property
    def size(self) -> int:
        """The number of voxels."""
        return math.prod(self.shape)

    def part(self, ranges: Ranges) -> Floats:
        """The intensities in a range of each axis, with the axes in reverse; not to be written to."""
        if self.size > _KEPT_VOXELS:
            return self.read(ranges)
        if self._whole is None:
            self._whole = self.read(_all(self.shape))
        return self._whole[ranges[::-1]]

    def slabs(self) -> Iterator[tuple[Ranges, Floats]]:
        """All intensities, as slabs along the last axis with their place."""
        *others, last = self.shape
        thickness = max(1, _PART_VOXELS // max(1, math.prod(others)))
        for start in range(0, last, thickness):
            ranges = (*_all(tuple(others)), slice(start, min(start + thickness, last)))
            yield ranges, self.part(ranges)

    def rows(self) -> Iterator[tuple[Ranges, Floats]]:
        """All intensities in the order of an array, as slabs along the first axis, whose axes are not in reverse."""
        first, *others = self.shape
        thickness = max(1, _PART_VOXELS // max(1, math.prod(others)))
        for start in range(0, first, thickness):
            ranges = (slice(start, min(start + thickness, first)), *_all(tuple(others)))
            yield ranges, np.ascontiguousarray(self.part(ranges).T)

    def every(self, step: int) -> Floats:
        """Each `step`-th intensity in the order of an array, from the first; sorted."""
        if step == 1:
            found = np.concatenate([block.reshape(-1) for _, block in self.slabs()])
        else:
            places = np.unravel_index(np.arange(0, self.size, step), self.shape)
            order = np.argsort(places[-1], kind="stable")
            *others, last = (place[order] for place in places)
            parts = []
            for ranges, block in self.slabs():
                here = slice(*np.searchsorted(last, [ranges[-1].start, ranges[-1].stop]))
                parts.append(block[(last[here] - ranges[-1].start, *(place[here] for place in reversed(others)))])
            found = np.concatenate(parts)
        found.sort()
        return found

    def extremes(self) -> tuple[np.float32, int, np.float32]:
        """The smallest intensity, the number of voxels that have it, and the largest."""
        least, count, most = np.float32(np.inf), 0, np.float32(-np.inf)
        for _, block in self.slabs():
            low, most = block.min(), max(most, block.max())
            if low <= least:
                count = (count if low == least else 0) + int(np.count_nonzero(block == low))
                least = low
        return least, count, most


def _all(shape: tuple[int, ...]) -> Ranges:
    return tuple(slice(0, length) for length in shape)
