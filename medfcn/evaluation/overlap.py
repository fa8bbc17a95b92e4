"""Overlap of two masks: Dice, IoU, precision, recall and specificity from one count of voxels.

Every score of every label comes from one confusion matrix, and the matrix from one pass over the volume.

An empty mask never scores well:

| reference | prediction | Dice, IoU | recall | precision |
|---|---|---|---|---|
| empty | empty | nan | nan | nan |
| not empty | empty | 0 | 0 | nan; 0 in averages |
| empty | not empty | 0 | nan | 0 |

Voxels that the reference ignores (`IGNORED`, 255) are neither right nor wrong: they are not counted.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medfcn.errors import LabelError, SettingsError
from medfcn.evaluation.mask_pairs import MaskPair, pair_labels, pair_masks, words_of
from medfcn.labels import IGNORED
from medfcn.labels.whole_numbers import CHUNK_VOXELS


@dataclass(frozen=True)
class VoxelCounts:
    """Voxel counts of one label, and the scores that follow from them.

    Attributes:
        true_positives: Voxels in both masks.
        false_positives: Voxels in the prediction only.
        false_negatives: Voxels in the reference only.
        true_negatives: Voxels in neither.

    Example:
        >>> counts = VoxelCounts(true_positives=2, false_positives=0, false_negatives=1, true_negatives=1)
        >>> counts.dice, counts.precision, round(counts.recall, 3)
        (0.8, 1.0, 0.667)
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def reference(self) -> int:
        """Voxels of the reference."""
        return self.true_positives + self.false_negatives

    @property
    def prediction(self) -> int:
        """Voxels of the prediction."""
        return self.true_positives + self.false_positives

    @property
    def dice(self) -> float:
        """`2 TP / (2 TP + FP + FN)`; `nan` when both masks are empty."""
        return _share(2 * self.true_positives, self.reference + self.prediction)

    @property
    def iou(self) -> float:
        """`TP / (TP + FP + FN)`, the Jaccard index; `nan` when both masks are empty."""
        return _share(self.true_positives, self.reference + self.false_positives)

    @property
    def precision(self) -> float:
        """`TP / (TP + FP)`; `nan` without a prediction."""
        return _share(self.true_positives, self.prediction)

    @property
    def recall(self) -> float:
        """`TP / (TP + FN)`, sensitivity; `nan` without a reference."""
        return _share(self.true_positives, self.reference)

    @property
    def specificity(self) -> float:
        """`TN / (TN + FP)`; `nan` when the reference fills the volume."""
        return _share(self.true_negatives, self.true_negatives + self.false_positives)


def precision_in_averages(value: float, *, is_miss: bool) -> float:
    """The precision with which a case, or a label, counts in means: 0 for a miss, which has none of its own.

    Left out, it would make a mean better with every organ that is missed.

    Source:
        scikit-learn, `precision_recall_fscore_support`: undefined values are 0 by default (`zero_division`).
        There they are reported as 0, too. Here the value itself stays undefined: nothing was predicted that could be
        right or wrong.

    Example:
        >>> precision_in_averages(math.nan, is_miss=True), precision_in_averages(0.5, is_miss=False)
        (0.0, 0.5)
    """
    return 0.0 if is_miss and math.isnan(value) else value


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def count_voxels(reference: ArrayLike, prediction: ArrayLike) -> VoxelCounts:
    """Count two masks of one label.

    Args:
        reference: The reader's mask: booleans, or 0 and 1.
        prediction: The network's mask, on the same grid.

    Raises:
        GeometryMismatchError: The masks differ in shape.
        LabelError: A mask contains other values than 0 and 1.

    Example:
        >>> count_voxels([[1, 0], [1, 1]], [[1, 0], [0, 1]])
        VoxelCounts(true_positives=2, false_positives=0, false_negatives=1, true_negatives=1)
    """
    pair = pair_masks(reference, prediction)
    both = int(np.count_nonzero((pair.reference & pair.prediction).view(np.bool_)))
    in_reference = int(np.count_nonzero(pair.reference.view(np.bool_)))
    in_prediction = int(np.count_nonzero(pair.prediction.view(np.bool_)))
    return VoxelCounts(
        both, in_prediction - both, in_reference - both, pair.reference.size - in_reference - in_prediction + both
    )


def count_labels(
    reference: ArrayLike, prediction: ArrayLike, *, labels: int, members: NDArray[np.bool_] | None = None
) -> tuple[VoxelCounts, ...]:
    """Count all labels of two masks in one pass.

    Args:
        reference: `uint8`, with `k` for the k-th label, 0 for the background and `IGNORED` for voxels that are not
            counted.
        prediction: The same, on the same grid, without `IGNORED`.
        labels: The number of labels, 1 to 254.
        members: `(A + 1, labels)`, for labels that overlap: True where a value of the masks, 0 to A, belongs to a
            label; row 0 is all False.

    Returns:
        The counts of labels 1 to `labels`, in order.

    Raises:
        GeometryMismatchError: The masks differ in shape.
        LabelError: A mask is not `uint8` or contains a label above `labels`, or a value above A.

    Example:
        >>> reference = np.array([0, 1, 1, 2], dtype=np.uint8)
        >>> prediction = np.array([0, 1, 2, 2], dtype=np.uint8)
        >>> [counts.iou for counts in count_labels(reference, prediction, labels=2)]
        [0.5, 0.5]
        >>> reference[2] = IGNORED
        >>> [counts.iou for counts in count_labels(reference, prediction, labels=2)]
        [1.0, 1.0]
        >>> inside = np.array([[False, False], [True, False], [True, True]])  # 2 is the second label within the first
        >>> [counts.iou for counts in count_labels(reference, prediction, labels=2, members=inside)]
        [1.0, 1.0]
    """
    if members is None:
        members = np.eye(labels + 1, dtype=bool)[:, 1:]
    matrix = confusion_matrix(reference, prediction, labels=len(members) - 1)
    # Rows of the (A + 1, A + 1) matrix that belong to a label are its reference, columns its prediction.
    total = int(matrix.sum())
    return tuple(
        VoxelCounts(
            true_positives=(both := int(matrix[np.ix_(of_label, of_label)].sum())),
            false_positives=(extra := int(matrix[:, of_label].sum()) - both),
            false_negatives=(lost := int(matrix[of_label].sum()) - both),
            true_negatives=total - both - extra - lost,
        )
        for of_label in members.T
    )


def confusion_matrix(reference: ArrayLike, prediction: ArrayLike, *, labels: int) -> NDArray[np.int64]:
    """Voxels by their label in the reference (row) and in the prediction (column); ignored voxels are left out.

    Args:
        reference: `uint8`, with `k` for the k-th label, 0 for the background and `IGNORED`.
        prediction: The same, on the same grid, without `IGNORED`.
        labels: The number of labels, 1 to 254.

    Returns:
        `(labels + 1, labels + 1)` counts.

    Raises:
        GeometryMismatchError: The masks differ in shape.
        LabelError: A mask is not `uint8` or contains a label above `labels`.

    Example:
        >>> reference, prediction = np.array([[0, 1, 1], [0, 0, 1]], dtype=np.uint8)
        >>> confusion_matrix(reference, prediction, labels=1)
        array([[1, 0],
               [1, 1]])
    """
    if not 1 <= labels < IGNORED:
        raise SettingsError(f"labels: found {labels}; expected 1 to {IGNORED - 1}", field="labels")
    return confusion_of(pair_labels(reference, prediction), labels)


def confusion_of(pair: MaskPair, labels: int) -> NDArray[np.int64]:
    """The confusion matrix of a pair of masks.

    Most voxels are background in both masks. 64-bit words pass over eight of them at a time; only the other words are
    counted voxel by voxel, in chunks that fit into the cache.
    """
    side = labels + 1
    counts = np.zeros(side * side, dtype=np.int64)
    seen = 0
    reference_words, prediction_words = words_of(pair.reference), words_of(pair.prediction)
    step = CHUNK_VOXELS // 8
    for start in range(0, reference_words.size, step):
        reference, prediction = reference_words[start : start + step], prediction_words[start : start + step]
        occupied = (reference | prediction) != 0
        kept = int(np.count_nonzero(occupied))
        if not kept:
            continue
        if kept < occupied.size:
            reference, prediction = reference[occupied], prediction[occupied]
        counts += _joint_counts(reference.view(np.uint8), prediction.view(np.uint8), side)
        seen += 8 * kept
    tail = reference_words.size * 8
    counts += _joint_counts(pair.reference.reshape(-1)[tail:], pair.prediction.reshape(-1)[tail:], side)
    seen += pair.reference.size - tail
    # The words that were passed over are background in both masks; ignored voxels were seen and not counted.
    counts[0] += pair.reference.size - seen
    return counts.reshape(side, side)


def _joint_counts(reference: NDArray[np.uint8], prediction: NDArray[np.uint8], side: int) -> NDArray[np.int64]:
    """Count the pairs of labels of `(V,)` voxels that are not ignored.

    Each pair becomes one number, `reference * side + prediction`, so that a single histogram counts them all.
    """
    if reference.size and int(reference.max()) == IGNORED:
        labelled = reference != IGNORED
        reference, prediction = reference[labelled], prediction[labelled]
    for name, labels in (("reference", reference), ("prediction", prediction)):
        if labels.size and int(labels.max()) >= side:
            raise LabelError(f"{name}: contains the label {labels.max()}; expected labels up to {side - 1}")
    codes: NDArray[Any] = reference.astype(np.uint8 if side * side <= 256 else np.uint16)
    codes *= side
    codes += prediction
    return np.bincount(codes, minlength=side * side)


def dice(reference: ArrayLike, prediction: ArrayLike) -> float:
    """Twice the shared volume over the sum of both volumes.

    Args:
        reference: The reader's mask: booleans, or 0 and 1.
        prediction: The network's mask, on the same grid.

    Returns:
        0 to 1; `nan` when both masks are empty, 0 when only one is.

    Raises:
        GeometryMismatchError: The masks differ in shape.
        LabelError: A mask contains other values than 0 and 1.

    Source:
        Dice, Ecology 26(3), 1945.

    Example:
        >>> dice([[1, 0], [1, 1]], [[1, 0], [0, 1]])
        0.8
    """
    return count_voxels(reference, prediction).dice


def iou(reference: ArrayLike, prediction: ArrayLike) -> float:
    """The shared volume over the joint volume (Jaccard index); arguments and edges as in `dice`.

    Example:
        >>> iou([1, 1, 0], [0, 1, 1])
        0.3333333333333333
    """
    return count_voxels(reference, prediction).iou


def precision(reference: ArrayLike, prediction: ArrayLike) -> float:
    """The share of the prediction that is right; `nan` without a prediction.

    Example:
        >>> precision([1, 1, 0], [0, 1, 1]), precision([1], [0])
        (0.5, nan)
    """
    return count_voxels(reference, prediction).precision


def recall(reference: ArrayLike, prediction: ArrayLike) -> float:
    """The share of the reference that the prediction contains (sensitivity); `nan` without a reference.

    Example:
        >>> recall([1, 1, 0], [0, 0, 0]), recall([0], [1])
        (0.0, nan)
    """
    return count_voxels(reference, prediction).recall


def specificity(reference: ArrayLike, prediction: ArrayLike) -> float:
    """The share of the background that the prediction leaves out; it depends on the size of the background.

    Example:
        >>> specificity([1, 0, 0], [1, 1, 0])
        0.5
    """
    return count_voxels(reference, prediction).specificity
