"""Scattered targets: lesions found, lesions missed, and lesions predicted where there is none."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medfcn.errors import SettingsError
from medfcn.evaluation.mask_pairs import occupied_box, pair_masks
from medfcn.labels.codec import Bytes
from medfcn.labels.whole_numbers import value_counts


@dataclass(frozen=True)
class LesionCounts:
    """Lesions of one label of one case, or of many cases together.

    Attributes:
        reference: Lesions of the reference.
        found: Lesions of the reference that the prediction overlaps.
        false: Predicted components that overlap no lesion of the reference.

    Example:
        >>> counts = LesionCounts(reference=4, found=3, false=1)
        >>> counts.missed, counts.recall, counts.precision, counts.f1
        (1, 0.75, 0.75, 0.75)
    """

    reference: int
    found: int
    false: int

    @property
    def missed(self) -> int:
        """Lesions of the reference that the prediction does not overlap."""
        return self.reference - self.found

    @property
    def recall(self) -> float:
        """Share of lesions found; `nan` without any."""
        return self.found / self.reference if self.reference else math.nan

    @property
    def precision(self) -> float:
        """Found over found and false; `nan` without either."""
        return self.found / (self.found + self.false) if self.found + self.false else math.nan

    @property
    def f1(self) -> float:
        """`2 found / (2 found + false + missed)`; `nan` without lesions and without false ones."""
        everything = 2 * self.found + self.false + self.missed
        return 2 * self.found / everything if everything else math.nan


def count_lesions(
    reference: ArrayLike, prediction: ArrayLike, *, least_overlap: float = 0.0, ignored: ArrayLike | None = None
) -> LesionCounts:
    """Count lesions found, missed and predicted falsely.

    A lesion is a component whose voxels touch by a face, an edge or a corner, or lie straight across ignored voxels:
    at the same place in the next labelled slice along an axis. It is found when the prediction
    contains at least one of its voxels, and more than `least_overlap` of them. A predicted component is false when it
    overlaps no lesion of the reference.

    Args:
        reference: The reader's mask: booleans, or 0 and 1.
        prediction: The network's mask, on the same grid.
        least_overlap: In `[0, 1)`.
        ignored: Boolean, True for voxels that nobody labelled: background in both masks. None by default.

    Raises:
        GeometryMismatchError: The masks differ in shape.
        LabelError: A mask contains other values than 0 and 1.
        SettingsError: `least_overlap` is outside `[0, 1)`.

    Example:
        >>> count_lesions([1, 0, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0, 1])
        LesionCounts(reference=2, found=1, false=1)
        >>> count_lesions([1, 0, 1, 0], [1, 0, 1, 0], ignored=[False, True, False, False])
        LesionCounts(reference=1, found=1, false=0)
    """
    if not 0 <= least_overlap < 1:
        raise SettingsError(f"least_overlap: found {least_overlap}; expected 0 to below 1", field="least_overlap")
    pair = pair_masks(reference, prediction)
    box = occupied_box(pair)
    if box is None:
        return LesionCounts(0, 0, 0)
    in_reference, in_prediction = pair.reference[box], pair.prediction[box]
    hidden = None
    if ignored is not None:
        hidden = np.asarray(ignored, dtype=np.bool_).transpose(pair.axes)[box]
        in_reference, in_prediction = (np.where(hidden, np.uint8(0), mask) for mask in (in_reference, in_prediction))
    lesions, lesion_count = _components(in_reference, hidden)
    components, component_count = _components(in_prediction, hidden)
    # Voxels of each lesion, voxels of each lesion in the prediction, voxels of each component in the reference.
    sizes = value_counts(lesions, lesion_count + 1)[1:]
    shared = np.bincount(lesions[in_prediction != 0], minlength=lesion_count + 1)[1:]
    touched = np.bincount(components[in_reference != 0], minlength=component_count + 1)[1:]
    return LesionCounts(
        reference=int(lesion_count),
        found=int(np.count_nonzero((shared > 0) & (shared > least_overlap * sizes))),
        false=int(np.count_nonzero(touched == 0)),
    )


def _components(mask: Bytes, hidden: NDArray[np.bool_] | None) -> tuple[NDArray[np.integer], int]:
    """Components from 1 on, 0 for the background, and their number."""
    # scipy is imported where lesions are counted: that takes as long as scoring many cases.
    from scipy.ndimage import label

    components, count = label(mask, structure=np.ones((3,) * mask.ndim, dtype=bool))
    if hidden is None or not count or not hidden.any():
        return components, int(count)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = np.concatenate([_across(components, hidden, axis) for axis in range(mask.ndim)])
    joined = coo_array((np.ones(len(pairs), dtype=bool), tuple(pairs.T)), shape=(count + 1, count + 1))
    # The background is joined to nothing, so it stays alone, as the first.
    fewer, together = connected_components(joined, directed=False)
    return together[components], int(fewer) - 1


def _across(components: NDArray[np.integer], hidden: NDArray[np.bool_], axis: int) -> NDArray[np.integer]:
    """`(n, 2)` components that lie straight across hidden voxels along an axis."""
    along, is_hidden = np.moveaxis(components, axis, -1), np.moveaxis(hidden, axis, -1)
    length = along.shape[-1]
    # For each voxel the last labelled place before it, or -1.
    last = np.maximum.accumulate(np.where(is_hidden, -1, np.arange(length)), axis=-1)
    before = np.concatenate([np.full_like(last[..., :1], -1), last[..., :-1]], axis=-1)
    far = (along != 0) & (before >= 0) & (before < np.arange(length) - 1)
    other = np.take_along_axis(along, np.maximum(before, 0), axis=-1)
    far &= other != 0
    return np.stack([along[far], other[far]], axis=1)
