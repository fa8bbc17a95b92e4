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

from medfcn.scratch import release

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
        stored: The same numbers as they are stored, with the axes in reverse; None where `read` makes them.
    """

    shape: tuple[int, ...]
    read: Callable[[Ranges], Floats]
    stored: NDArray[Any] | None = None
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
        for ranges in self._places():
            yield ranges, self.part(ranges)

    def stored_slabs(self) -> Iterator[tuple[Ranges, NDArray[Any]]]:
        """The same slabs for work that needs neither float32 nor an order in memory: as they are stored, if they are.

        It is spared the way through memory that a copy of a large channel is.
        """
        if self.stored is None:
            yield from self.slabs()
            return
        for ranges in self._places():
            yield ranges, self.stored[ranges[::-1]]
            release(self.stored)

    def _places(self) -> Iterator[Ranges]:
        """The places of the slabs."""
        *others, last = self.shape
        thickness = max(1, _PART_VOXELS // max(1, math.prod(others)))
        for start in range(0, last, thickness):
            yield (*_all(tuple(others)), slice(start, min(start + thickness, last)))

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
            small = places[-1].astype(np.min_scalar_type(self.shape[-1]))  # numpy sorts these by their digits
            order = np.argsort(small, kind="stable")
            *others, last = (place[order] for place in places)
            parts = []
            for ranges, block in self.stored_slabs():
                here = slice(*np.searchsorted(last, [ranges[-1].start, ranges[-1].stop]))
                parts.append(block[(last[here] - ranges[-1].start, *(place[here] for place in reversed(others)))])
            found = np.concatenate(parts).astype(np.float32, copy=False)
        found.sort()
        return found

    def extremes(self) -> tuple[np.float32, int, np.float32]:
        """The smallest intensity, the number of voxels that have it, and the largest."""
        least, count, most = np.inf, 0, -np.inf
        for _, block in self.stored_slabs():
            low, most = block.min(), max(most, block.max())
            if low <= least:
                count = (count if low == least else 0) + int(np.count_nonzero(block == low))
                least = low
        return np.float32(least), count, np.float32(most)


def _all(shape: tuple[int, ...]) -> Ranges:
    return tuple(slice(0, length) for length in shape)
