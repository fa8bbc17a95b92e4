"""The connected components of a mask, found slab by slab, so that their numbers take no memory of a whole volume."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.scratch import release
from medfcn.slices.boxes import Box, boxes_of
from medfcn.slices.grid import GridMap

_SLAB_VOXELS = 1 << 22
"""Voxels whose components are numbered at a time."""
_FEW_RUNS = 1 << 12
"""Runs of voxels whose components are numbered without a library, whose import takes 0.17 s of CPU time."""
_VOXELS_IN_TIME = 128
"""Voxels that the library takes as long for as a run takes here: masks of compact organs are done sooner here."""
_KEPT_RUNS = 1 << 21
"""Runs of voxels that are kept, 24 bytes each; of slabs with more, components are numbered again to be removed."""


@dataclass(frozen=True)
class Components:
    """The components of a mask; voxels that share a face are connected.

    Attributes:
        sizes: `(N,)` voxels of each component.
        starts: `(N, 3)` first voxel of the box around each.
        stops: `(N, 3)` end of the box around each.
        evidence: `(N,)` sum of the certainty of its voxels; exact, so in any order of axes the same.
    """

    sizes: NDArray[np.intp]
    starts: NDArray[np.intp]
    stops: NDArray[np.intp]
    evidence: NDArray[np.float64]

    def only(self, chosen: NDArray[np.bool_]) -> "Components":
        """Some of them."""
        return Components(self.sizes[chosen], self.starts[chosen], self.stops[chosen], self.evidence[chosen])

    def from_stored_order(self, grid: GridMap) -> "Components":
        """Those of a volume in its own order of axes, as they lie along R, A and S."""
        axes, size = list(grid.axes), np.array(grid.native_shape)[list(grid.axes)]
        starts, stops = self.starts[:, axes], self.stops[:, axes]
        turned = np.where(grid.flips, size - stops, starts), np.where(grid.flips, size - starts, stops)
        return Components(self.sizes, *turned, self.evidence)


@dataclass(frozen=True)
class _Runs:
    """Voxels of a box that follow each other along its last axis, and are of one component.

    Attributes:
        starts: `(R,)` place of the first voxel of each in the box.
        lengths: `(R,)` voxels of each.
        own: `(R,)` component of each, from 0.
    """

    starts: NDArray[np.intp]
    lengths: NDArray[np.intp]
    own: NDArray[np.intp]

    @classmethod
    def of(cls, numbers: NDArray[np.int32], inside: NDArray[np.bool_]) -> "_Runs":
        """The runs of a box with the number of each voxel's component, from 1, where it is inside of one."""
        starts, ends = _run_ends(inside)
        return cls(starts, ends - starts, numbers.reshape(-1)[starts].astype(np.intp) - 1)

    def only(self, chosen: NDArray[np.bool_]) -> "_Runs":
        """Those of some components."""
        at = chosen[self.own]
        return _Runs(self.starts[at], self.lengths[at], self.own[at])

    def voxels(self, box: Box) -> tuple[Box, NDArray[np.bool_]]:
        """The part of the box that they lie in, along its first axis, and true for their voxels there."""
        first, *others = box
        sizes = [side.stop - side.start for side in others]
        plane, ends = int(np.prod(sizes)), self.starts + self.lengths
        begin, end = int(self.starts[0]) // plane, int(ends[-1] - 1) // plane + 1
        steps = np.zeros((end - begin) * plane + 1, dtype=np.int8)
        steps[self.starts - begin * plane] += 1
        steps[ends - begin * plane] -= 1  # a run may begin where the one before ends, in the next row
        found = np.cumsum(steps[:-1], dtype=np.int8, out=steps[:-1]).view(np.bool_)
        return (slice(first.start + begin, first.start + end), *others), found.reshape(end - begin, *sizes)


class Connected:
    """The components of some masks that are stored as indices.

    Args:
        indices: `(I, J, K)`.
        members: For each mask, the indices of its voxels.
        certainty: `(I, J, K)` whole numbers, whose sum is the evidence of a component.
    """

    def __init__(
        self,
        indices: NDArray[np.uint8],
        members: Sequence[Sequence[int]],
        certainty: NDArray[np.int8] | None = None,
    ) -> None:
        # From the axis that is slowest in memory to the fastest.
        self._order = tuple(np.argsort([-abs(stride) for stride in indices.strides], kind="stable").tolist())
        self._indices = indices.transpose(self._order)
        self._certainty = None if certainty is None else certainty.transpose(self._order)
        self._present = [list(of_mask) for of_mask in members]
        self._pieces: list[list[tuple[Box, int, int, _Runs | None]]] = [[] for _ in members]
        self._runs_left = _KEPT_RUNS
        self._read()

    def of(self, mask: int) -> Components:
        """The components of one of the masks, by its place."""
        return self._components[mask]

    def removed(self, mask: int, stays: NDArray[np.bool_]) -> Iterator[tuple[Box, NDArray[np.bool_]]]:
        """The voxels of the components of a mask that do not stay, slab by slab: a box, and true for them in it.

        Slabs of which all stays are passed over.

        Args:
            mask: Its place.
            stays: `(N,)` of its components.
        """
        goes = ~stays[self._roots[mask]]
        back = np.argsort(self._order)
        for box, before, count, runs in self._pieces[mask]:
            here = goes[before : before + count]
            if here.any():
                if runs is None:
                    numbers, _ = self._numbered(mask, box)
                    runs = _Runs.of(numbers, numbers != 0)
                    release(self._indices)
                near, in_box = runs.only(here).voxels(box)
                yield tuple(near[axis] for axis in back), in_box.transpose(back)

    def _numbered(self, mask: int, box: Box) -> tuple[NDArray[np.int32], int]:
        """The number of each voxel's component in a box of a slab, from 1, and how many components there are."""
        part, present = self._indices[box], self._present[mask]
        inside = part == present[0] if len(present) == 1 else np.isin(np.arange(256), present)[part]
        return _components_of(inside)

    def _slabs(self) -> Iterator[tuple[int, Box]]:
        """Each slab of the masks: the mask's place, and the box around its voxels there."""
        first, *others = self._indices.shape
        thickness = max(1, _SLAB_VOXELS // max(1, int(np.prod(others))))
        for start in range(0, first, thickness):
            around = _boxes(self._indices[start : start + thickness])
            for mask, present in enumerate(self._present):
                boxes = [box for index in present if (box := around.get(index)) is not None]
                if boxes:
                    along, *rest = (
                        slice(min(side.start for side in sides), max(side.stop for side in sides))
                        for sides in zip(*boxes, strict=True)
                    )
                    yield mask, (slice(along.start + start, along.stop + start), *rest)
            release(self._indices)

    def _read(self) -> None:
        """Number all components, and join those that touch across the border of two slabs."""
        masks = range(len(self._present))
        found: list[list[tuple[NDArray[Any], ...]]] = [[] for _ in masks]
        joints: list[list[NDArray[np.intp]]] = [[] for _ in masks]
        borders: dict[int, tuple[Box, NDArray[np.intp]]] = {}
        seen = [0 for _ in masks]
        for mask, box in self._slabs():
            numbers, count = self._numbered(mask, box)
            inside = numbers != 0
            runs = _Runs.of(numbers, inside)
            found[mask].append(self._figures(box, inside, runs))
            is_kept = len(runs.starts) <= self._runs_left
            self._runs_left -= len(runs.starts) if is_kept else 0
            self._pieces[mask].append((box, seen[mask], count, runs if is_kept else None))
            if mask in borders and borders[mask][0][0].stop == box[0].start:
                joints[mask].append(_touching(*borders[mask], box, _counted_on(numbers[0], seen[mask])))
            borders[mask] = (box, _counted_on(numbers[-1], seen[mask]))
            seen[mask] += count
        self._roots = [_joined(count, pairs) for count, pairs in zip(seen, joints, strict=True)]
        self._components = [self._summed(roots, parts) for roots, parts in zip(self._roots, found, strict=True)]

    def _figures(self, box: Box, inside: NDArray[np.bool_], runs: _Runs) -> tuple[NDArray[Any], ...]:
        """Sizes, first voxels, ends and evidence of the components of a slab, from their runs along the last axis."""
        own, lengths = runs.own, runs.lengths
        sizes = np.bincount(own, weights=lengths).astype(np.intp)
        starts = np.full((len(sizes), 3), np.iinfo(np.intp).max)
        stops = np.zeros((len(sizes), 3), dtype=np.intp)
        for axis, places in enumerate(np.unravel_index(runs.starts, inside.shape)):
            np.minimum.at(starts[:, axis], own, places + box[axis].start)
            last = places + lengths if axis == 2 else places + 1
            np.maximum.at(stops[:, axis], own, last + box[axis].start)
        if self._certainty is None:
            return sizes, starts, stops, np.zeros(len(sizes))
        of_runs = np.add.reduceat(self._certainty[box][inside], np.cumsum(lengths) - lengths, dtype=np.int64)
        evidence = np.bincount(own, weights=of_runs)
        release(self._certainty)
        return sizes, starts, stops, evidence

    def _summed(self, roots: NDArray[np.intp], found: list[tuple[NDArray[Any], ...]]) -> Components:
        """The components of a mask, from those of its slabs; axes in the order of the caller."""
        count = int(roots.max(initial=-1)) + 1
        if not count:
            none = np.zeros((0, 3), dtype=np.intp)
            return Components(none[:, 0], none, none, np.zeros(0, dtype=np.float64))
        sizes, starts, stops, evidence = (np.concatenate(part) for part in zip(*found, strict=True))
        first = np.full((count, 3), np.iinfo(np.intp).max)
        end = np.zeros((count, 3), dtype=np.intp)
        np.minimum.at(first, roots, starts)
        np.maximum.at(end, roots, stops)
        back = np.argsort(self._order)
        return Components(
            np.bincount(roots, weights=sizes).astype(np.intp),
            first[:, back],
            end[:, back],
            np.bincount(roots, weights=evidence).astype(np.float64, copy=False),
        )


def _run_ends(inside: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Begin and end of each run of voxels along the last axis, as places in the array laid flat."""
    begins, ends = inside.copy(), inside.copy()
    begins[..., 1:] &= ~inside[..., :-1]  # voxels that follow each other are of one component
    ends[..., :-1] &= ~inside[..., 1:]
    return np.flatnonzero(begins), np.flatnonzero(ends) + 1


def _components_of(inside: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """The number of each voxel's component, from 1, and the number of components, from the runs that touch."""
    starts, ends = _run_ends(inside)
    if len(starts) > max(_FEW_RUNS, inside.size // _VOXELS_IN_TIME):
        from scipy.ndimage import label

        found: tuple[NDArray[np.int32], int] = label(inside)
        return found
    _, rows, length = inside.shape
    row, pairs = starts // length, []
    for step, has_neighbour in ((1, row % rows > 0), (rows, row >= rows)):
        own = np.flatnonzero(has_neighbour)
        # The runs of the row before that begin before this one ends, and end after it begins.
        low = np.searchsorted(ends, starts[own] - step * length, side="right")
        counts = np.searchsorted(starts, ends[own] - step * length, side="left") - low
        others = np.repeat(low - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        pairs.append(np.stack([np.repeat(own, counts), others], axis=1) + 1)
    roots = _joined(len(starts), pairs)
    numbers = np.zeros(inside.shape, dtype=np.int32)
    numbers[inside] = np.repeat(roots + 1, ends - starts)
    return numbers, int(roots.max(initial=-1)) + 1


def _touching(box: Box, plane: NDArray[np.intp], next_box: Box, next_plane: NDArray[np.intp]) -> NDArray[np.intp]:
    """`(N, 2)` numbers of components that share a face across the border of two slabs."""
    shared = [
        (max(one.start, other.start), min(one.stop, other.stop))
        for one, other in zip(box[1:], next_box[1:], strict=True)
    ]
    if any(start >= stop for start, stop in shared):
        return np.zeros((0, 2), dtype=np.intp)
    one, other = (
        of_plane[
            tuple(
                slice(start - side.start, stop - side.start)
                for (start, stop), side in zip(shared, sides, strict=True)
            )
        ]
        for of_plane, sides in ((plane, box[1:]), (next_plane, next_box[1:]))
    )
    both = (one > 0) & (other > 0)
    pairs = np.stack([one[both], other[both]], axis=1)
    is_new = np.ones(len(pairs), dtype=bool)
    is_new[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)  # most repeat the one before; sorting them all takes long
    return np.unique(pairs[is_new], axis=0)


def _boxes(slab: NDArray[np.uint8]) -> dict[int, Box]:
    """The box around the voxels of each index of a slab, which is looked for where it has any."""
    plane = slab.max(axis=0, initial=0)
    if not plane.any():
        return {}
    places = (slab.max(axis=(1, 2)), plane.max(axis=1), plane.max(axis=0))
    ends = [np.flatnonzero(along)[[0, -1]].tolist() for along in places]
    inside = tuple(slice(first, last + 1) for first, last in ends)
    if plane.max() == 1:  # there is no other
        return {1: inside}
    return {
        index: tuple(
            slice(outer.start + side.start, outer.start + side.stop) for outer, side in zip(inside, box, strict=True)
        )
        for index, box in boxes_of(slab[inside]).items()
    }


def _counted_on(plane: NDArray[np.int32], before: int) -> NDArray[np.intp]:
    """The numbers of components in a plane, after those of the slabs before."""
    return np.where(plane, plane.astype(np.intp) + before, 0)


def _joined(count: int, pairs: Sequence[NDArray[np.intp]]) -> NDArray[np.intp]:
    """For each of some components, from 1, the place of the one that it is part of, in the order of their first.

    Each is joined to the least of those that it touches, all at once, and again with what came of it until none
    touches another: a few times, because at least every second one is gone each time.
    """
    first = np.arange(count)
    one, other = (np.concatenate(pairs) - 1).T if pairs else np.zeros((2, 0), dtype=np.intp)
    while len(one):
        low, high = np.minimum(one, other), np.maximum(one, other)
        np.minimum.at(first, high, low)
        while (further := first[first]).tobytes() != first.tobytes():
            first = further
        one, other = first[low], first[high]
        apart = one != other
        one, other = one[apart], other[apart]
    found: NDArray[np.intp] = np.unique(first, return_inverse=True)[1].reshape(-1).astype(np.intp)
    return found
