"""The connected components of a mask, found slab by slab, so that their numbers take no memory of a whole volume."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.scratch import parts, release, scratch_array

_SLAB_VOXELS = 1 << 22
"""Voxels whose components are numbered at a time."""
_FEW_PAIRS = 10_000
"""Pairs of components that are joined without a library: its import takes 0.08 s of CPU time."""
Box = tuple[slice, ...]


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
        self._pieces: list[list[tuple[Box, int, int]]] = [[] for _ in members]
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
        for box, before, count in self._pieces[mask]:
            here = goes[before : before + count]
            if here.any():
                numbers, _ = self._numbered(mask, box)
                in_box = np.concatenate([[False], here])[numbers]
                release(self._indices)
                yield tuple(box[axis] for axis in back), in_box.transpose(back)

    def _numbered(self, mask: int, box: Box) -> tuple[NDArray[np.int32], int]:
        """The number of each voxel's component in a box of a slab, from 1, and how many components there are."""
        from scipy.ndimage import label

        part, present = self._indices[box], self._present[mask]
        inside = part == present[0] if len(present) == 1 else np.isin(np.arange(256), present)[part]
        numbers, count = label(inside)
        return numbers, count

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
            found[mask].append(self._figures(box, numbers))
            self._pieces[mask].append((box, seen[mask], count))
            if mask in borders and borders[mask][0][0].stop == box[0].start:
                joints[mask].append(_touching(*borders[mask], box, _counted_on(numbers[0], seen[mask])))
            borders[mask] = (box, _counted_on(numbers[-1], seen[mask]))
            seen[mask] += count
        self._roots = [_joined(count, pairs) for count, pairs in zip(seen, joints, strict=True)]
        self._components = [self._summed(roots, parts) for roots, parts in zip(self._roots, found, strict=True)]

    def _figures(self, box: Box, numbers: NDArray[np.int32]) -> tuple[NDArray[Any], ...]:
        """Sizes, first voxels, ends and evidence of the components of a slab, from their runs along the last axis."""
        inside = numbers != 0
        begins, ends = inside.copy(), inside.copy()
        begins[..., 1:] &= ~inside[..., :-1]  # voxels that follow each other are of one component
        ends[..., :-1] &= ~inside[..., 1:]
        at = np.flatnonzero(begins)  # (R,) runs
        own, lengths = numbers.reshape(-1)[at].astype(np.intp) - 1, np.flatnonzero(ends) - at + 1
        sizes = np.bincount(own, weights=lengths).astype(np.intp)
        starts = np.full((len(sizes), 3), np.iinfo(np.intp).max)
        stops = np.zeros((len(sizes), 3), dtype=np.intp)
        for axis, places in enumerate(np.unravel_index(at, numbers.shape)):
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
    from scipy.ndimage import find_objects

    plane = np.bitwise_or.reduce(slab, axis=0)
    places = (slab.any(axis=(1, 2)), plane.any(axis=1), plane.any(axis=0))
    ends = [np.flatnonzero(along)[[0, -1]].tolist() for along in places if along.any()]
    if len(ends) < slab.ndim:
        return {}
    inside = tuple(slice(first, last + 1) for first, last in ends)
    found = enumerate(find_objects(slab[inside], max_label=255), start=1)
    return {
        index: tuple(
            slice(outer.start + side.start, outer.start + side.stop) for outer, side in zip(inside, box, strict=True)
        )
        for index, box in found
        if box is not None
    }


def _counted_on(plane: NDArray[np.int32], before: int) -> NDArray[np.intp]:
    """The numbers of components in a plane, after those of the slabs before."""
    return np.where(plane, plane.astype(np.intp) + before, 0)


def _joined(count: int, pairs: Sequence[NDArray[np.intp]]) -> NDArray[np.intp]:
    """For each of some components, from 1, the place of the one that it is part of, in the order of their first."""
    if not pairs:
        return np.arange(count)
    both = np.concatenate(pairs) - 1
    if len(both) <= _FEW_PAIRS:
        return _joined_in_turn(count, both.tolist())
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # scipy 1.11 reads indices of 64 bits of a coo_array as none, and finds no component without saying so.
    one, other = both.astype(np.int32).T
    graph = coo_array((np.ones(len(one), dtype=bool), (one, other)), shape=(count, count))
    roots: NDArray[np.intp] = connected_components(graph, directed=False)[1].astype(np.intp)
    return roots


def _joined_in_turn(count: int, pairs: Sequence[Sequence[int]]) -> NDArray[np.intp]:
    """As `_joined`, from places; for a few pairs this takes less than to import the library."""
    first: dict[int, int] = {}

    def root(place: int) -> int:
        while (before := first.get(place, place)) != place:
            first[place] = first.get(before, before)  # halves the way of the next
            place = before
        return place

    for pair in pairs:
        low, high = sorted(map(root, pair))
        first[high] = low
    roots = np.arange(count)
    joined = list(first)
    roots[joined] = [root(place) for place in joined]
    found: NDArray[np.intp] = np.unique(roots, return_inverse=True)[1].reshape(-1).astype(np.intp)
    return found


def largest_share(mask: NDArray[np.bool_]) -> float:
    """The share of a mask's voxels that is in its largest component; nan for an empty mask.

    Example:
        >>> mask = np.zeros((1, 1, 6), dtype=bool)
        >>> mask[..., :3] = mask[..., 5] = True
        >>> largest_share(mask)
        0.75
    """
    sizes = Connected(mask.view(np.uint8), [(1,)]).of(0).sizes
    return float(sizes.max() / sizes.sum()) if len(sizes) else float("nan")


def together_shares(indices: NDArray[np.uint8], members: NDArray[np.bool_]) -> tuple[float, ...]:
    """For each label the share of its voxels in the largest component of all labels together; nan where it is absent.

    Where the largest component has an equal, none is the common one: 0 for each label that is present.

    Args:
        indices: `(I, J, K)`: 0 for background; A + 1 and more belong to no label.
        members: `(A + 1, L)`: the labels that each of these indices stands for.

    Example:
        >>> row = np.array([[[1, 1, 1, 2, 0, 2, 0, 3]]], dtype=np.uint8)
        >>> together_shares(row, np.eye(5, dtype=bool)[:, 1:])
        (1.0, 0.5, 0.0, nan)
    """
    found = Connected(indices, [range(1, len(members))])
    sizes = found.of(0).sizes
    whole, gone = np.zeros((2, 256), dtype=np.intp)
    if len(sizes):
        stays = sizes == sizes.max()
        whole = _voxels_of(indices, found, np.zeros_like(stays))
        gone = whole if stays.sum() > 1 else _voxels_of(indices, found, stays)
    lost, voxels = ((counts[: len(members)] @ members).tolist() for counts in (gone, whole))
    return tuple(1 - one / count if count else float("nan") for one, count in zip(lost, voxels, strict=True))


@dataclass(frozen=True)
class OnePart:
    """A mask of which some labels were cut to one component.

    Attributes:
        indices: `(I, J, K)`.
        removed: By index of these labels, the share of the voxels that was removed.
        disputed: The labels whose largest component is not the most certain one; both are kept.
    """

    indices: NDArray[np.uint8]
    removed: Mapping[int, float]
    disputed: tuple[int, ...] = ()

    def after(self, first: "OnePart") -> "OnePart":
        """This cut as one with that which made its mask.

        Example:
            >>> half = OnePart(np.zeros((1, 1, 1), dtype=np.uint8), {1: 0.5})
            >>> half.after(half).removed
            {1: 0.75}
        """
        kept = {
            label: (1 - self.removed.get(label, 0.0)) * (1 - first.removed.get(label, 0.0))
            for label in {**first.removed, **self.removed}
        }
        disputed = tuple(sorted({*first.disputed, *self.disputed}))
        return OnePart(self.indices, {label: 1 - share for label, share in kept.items()}, disputed)


def keep_parts(
    indices: NDArray[np.uint8],
    labels: tuple[int, ...],
    certainty: NDArray[np.int8] | None = None,
    *,
    together: bool = False,
) -> OnePart:
    """One component of all labels together, where `together`, and then one of each of some labels."""
    if not together:
        return keep_one_part(indices, labels, certainty)
    first = keep_together(indices, certainty)
    return keep_one_part(first.indices, labels, certainty).after(first)


def keep_together(indices: NDArray[np.uint8], certainty: NDArray[np.int8] | None = None) -> OnePart:
    """Remove all that is not connected to the largest component of all labels together; see `keep_one_part`.

    A label may be in pieces that its neighbours connect (the wall of a heart); an island far away has no neighbour.

    Args:
        indices: `(I, J, K)`: 0 for background, k for the k-th label; not changed.
        certainty: As in `keep_one_part`.
    """
    found = Connected(indices, [range(1, 256)], certainty)
    components = found.of(0)
    if len(components.sizes) < 2:
        return OnePart(indices, {})
    stays, is_most_certain = _staying(components, certainty)
    disputed = _voxels_of(indices, found, ~is_most_certain) if is_most_certain.any() else None
    if stays.all():
        return OnePart(indices, {}, () if disputed is None else tuple(np.flatnonzero(disputed).tolist()))
    kept, gone = _copy(indices), _voxels_of(indices, found, stays)
    _remove(kept, found, 0, stays)
    whole = _voxels_of(indices, found, np.zeros_like(stays))
    removed = {int(label): float(gone[label] / whole[label]) for label in np.flatnonzero(whole)}
    return OnePart(kept, removed, () if disputed is None else tuple(np.flatnonzero(disputed).tolist()))


def _voxels_of(indices: NDArray[np.uint8], found: Connected, stays: NDArray[np.bool_]) -> NDArray[np.intp]:
    """`(256,)` voxels of each label in the components that do not stay."""
    counts = np.zeros(256, dtype=np.intp)
    for box, goes in found.removed(0, stays):
        counts += np.bincount(indices[box][goes], minlength=256)
        release(indices)
    return counts


def _staying(
    components: Components, certainty: NDArray[np.int8] | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """`(N,)` true for the components to keep; and for those that are kept only as the most certain ones."""
    stays = components.sizes == components.sizes.max()
    extra = np.zeros_like(stays)
    if certainty is not None and not stays.all():
        evidence = components.evidence
        if evidence[stays].max() < evidence.max():
            extra = evidence == evidence.max()
    return stays | extra, extra


def _remove(kept: NDArray[np.uint8], found: Connected, mask: int, stays: NDArray[np.bool_]) -> None:
    """Make the components of a mask that do not stay background."""
    for box, goes in found.removed(mask, stays):
        kept[box][goes] = 0
        release(kept)


def keep_one_part(
    indices: NDArray[np.uint8], labels: tuple[int, ...], certainty: NDArray[np.int8] | None = None
) -> OnePart:
    """Remove all but the largest component of some labels, and but the most certain one where that is another.

    The larger of two components may be a neighbour that was misread with little certainty, so size alone must not
    remove the other. Components of equal size are all kept: which of them comes first would depend on how the file
    orders its axes.

    Args:
        indices: `(I, J, K)`: 0 for background, k for the k-th label; not changed.
        labels: The indices of these labels.
        certainty: `(I, J, K)`: the evidence for each voxel's label, whose sum says how certain a component is; None
            goes by size alone.
    """
    if not labels:
        return OnePart(indices, {})
    found = Connected(indices, [(index,) for index in labels], certainty)
    kept, removed, disputed = indices, {}, []
    for place, index in enumerate(labels):
        components = found.of(place)
        if not len(components.sizes):
            continue
        stays, is_most_certain = _staying(components, certainty)
        if is_most_certain.any():
            disputed.append(index)
        removed[index] = float(components.sizes[~stays].sum() / components.sizes.sum())
        if stays.all():
            continue
        kept = _copy(indices) if kept is indices else kept
        _remove(kept, found, place, stays)
    return OnePart(kept, removed, tuple(disputed))


def _copy(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    copy: NDArray[np.uint8] = scratch_array(array.shape, np.uint8, purpose="the mask")
    for place, part in parts(array):
        copy[place] = part
        release(copy)
    return copy
