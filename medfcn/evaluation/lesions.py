"""Scattered targets: lesions found, lesions missed, and lesions predicted where there is none."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from medfcn.errors import SettingsError
from medfcn.evaluation.mask_pairs import occupied_box, pair_masks

__all__ = ["LesionCounts", "count_lesions"]


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


def count_lesions(reference: ArrayLike, prediction: ArrayLike, *, least_overlap: float = 0.0) -> LesionCounts:
    """Count lesions found, missed and predicted falsely.

    A lesion is a component whose voxels touch by a face, an edge or a corner. It is found when the prediction
    contains at least one of its voxels, and more than `least_overlap` of them. A predicted component is false when it
    overlaps no lesion of the reference.

    Args:
        reference: The reader's mask: booleans, or 0 and 1.
        prediction: The network's mask, on the same grid.
        least_overlap: In `[0, 1)`.

    Raises:
        GeometryMismatchError: The masks differ in shape.
        LabelError: A mask contains other values than 0 and 1.
        SettingsError: `least_overlap` is outside `[0, 1)`.

    Example:
        >>> count_lesions([1, 0, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0, 1])
        LesionCounts(reference=2, found=1, false=1)
    """
    if not 0 <= least_overlap < 1:
        raise SettingsError(f"least_overlap: found {least_overlap}; expected 0 to below 1", field="least_overlap")
    pair = pair_masks(reference, prediction)
    box = occupied_box(pair)
    if box is None:
        return LesionCounts(0, 0, 0)
    in_reference, in_prediction = pair.reference[box], pair.prediction[box]
    touching = np.ones((3,) * in_reference.ndim, dtype=bool)
    lesions, lesion_count = ndimage.label(in_reference, structure=touching)
    components, component_count = ndimage.label(in_prediction, structure=touching)
    # Voxels of each lesion, voxels of each lesion in the prediction, voxels of each component in the reference.
    sizes = np.bincount(lesions.reshape(-1), minlength=lesion_count + 1)[1:]
    shared = np.bincount(lesions[in_prediction != 0], minlength=lesion_count + 1)[1:]
    touched = np.bincount(components[in_reference != 0], minlength=component_count + 1)[1:]
    return LesionCounts(
        reference=int(lesion_count),
        found=int(np.count_nonzero((shared > 0) & (shared > least_overlap * sizes))),
        false=int(np.count_nonzero(touched == 0)),
    )
