"""The connected components of a mask that are kept: the largest of a label, or of all labels together."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from medfcn.scratch import parts, release, scratch_array
from medfcn.slices.connected import Components, Connected


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
        parts: The components that are left of a label, as far as they are known, so that nobody looks for them again.
    """

    indices: NDArray[np.uint8]
    removed: Mapping[int, float]
    disputed: tuple[int, ...] = ()
    parts: Mapping[int, Components] = field(default_factory=dict, repr=False)

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
        removed = {label: 1 - share for label, share in kept.items()}
        return replace(self, removed=removed, disputed=disputed)


def keep_parts(
    indices: NDArray[np.uint8],
    labels: tuple[int, ...],
    certainty: NDArray[np.int8] | None = None,
    *,
    together: bool = False,
    in_place: bool = False,
) -> OnePart:
    """One component of all labels together, and then one of each of some labels.

    Args:
        indices: `(I, J, K)` indices of the labels; 0 is background.
        labels: Indices of the labels of which one component is kept.
        certainty: As in `keep_one_part`.
        together: Also keep only one component of all labels together, first.
        in_place: Remove them from `indices` itself, which spares a copy.
    """
    if not together:
        return keep_one_part(indices, labels, certainty, in_place=in_place)
    first = keep_together(indices, certainty, in_place=in_place)
    is_own = in_place or first.indices is not indices
    return keep_one_part(first.indices, labels, certainty, in_place=is_own).after(first)


def keep_together(
    indices: NDArray[np.uint8], certainty: NDArray[np.int8] | None = None, *, in_place: bool = False
) -> OnePart:
    """Remove all that is not connected to the largest component of all labels together; see `keep_one_part`.

    A label may be in pieces that its neighbours connect (the wall of a heart); an island far away has no neighbour.

    Args:
        indices: `(I, J, K)`: 0 for background, k for the k-th label; not changed but for `in_place`.
        certainty: As in `keep_one_part`.
        in_place: As in `keep_one_part`.
    """
    found = Connected(indices, [range(1, 256)], certainty)
    components = found.of(0)
    if len(components.sizes) < 2:
        return OnePart(indices, {})
    stays, is_most_certain = _staying(components, certainty)
    disputed = _voxels_of(indices, found, ~is_most_certain) if is_most_certain.any() else None
    if stays.all():
        return OnePart(indices, {}, () if disputed is None else tuple(np.flatnonzero(disputed).tolist()))
    gone, whole = (_voxels_of(indices, found, those) for those in (stays, np.zeros_like(stays)))
    kept = indices if in_place else _copy(indices)
    _remove(kept, found, 0, stays)
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
        np.copyto(kept[box], 0, where=goes)
        release(kept)


def keep_one_part(
    indices: NDArray[np.uint8],
    labels: tuple[int, ...],
    certainty: NDArray[np.int8] | None = None,
    *,
    in_place: bool = False,
) -> OnePart:
    """Remove all but the largest component of some labels, and but the most certain one where that is another.

    The larger of two components may be a neighbour that was misread with little certainty, so size alone must not
    remove the other. Components of equal size are all kept: which of them comes first would depend on how the file
    orders its axes.

    Args:
        indices: `(I, J, K)`: 0 for background, k for the k-th label; not changed but for `in_place`.
        labels: The indices of these labels.
        certainty: `(I, J, K)`: the evidence for each voxel's label, whose sum says how certain a component is; None
            goes by size alone.
        in_place: Change `indices` itself, which spares a copy.
    """
    if not labels:
        return OnePart(indices, {})
    found = Connected(indices, [(index,) for index in labels], certainty)
    kept, removed, disputed, left = indices, {}, [], {}
    for place, index in enumerate(labels):
        components = found.of(place)
        if not len(components.sizes):
            continue
        stays, is_most_certain = _staying(components, certainty)
        if is_most_certain.any():
            disputed.append(index)
        removed[index] = float(components.sizes[~stays].sum() / components.sizes.sum())
        left[index] = components.only(stays)
        if stays.all():
            continue
        kept = _copy(indices) if kept is indices and not in_place else kept
        _remove(kept, found, place, stays)
    return OnePart(kept, removed, tuple(disputed), left)


def _copy(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    copy: NDArray[np.uint8] = scratch_array(array.shape, np.uint8, purpose="the mask")
    for place, part in parts(array):
        copy[place] = part
        release(copy)
    return copy
