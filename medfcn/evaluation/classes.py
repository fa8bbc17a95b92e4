"""Masks judged as a classifier of voxels: confusion matrix, precision, recall, F1 and support of each class.

All voxels of all cases are counted together, so a large case weighs more than a small one. The background is a class
of the matrix, and of no average: it is most of every volume, and would make any prediction look good.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from medfcn.evaluation.estimates import mean_of
from medfcn.evaluation.overlap import VoxelCounts, confusion_matrix, precision_in_averages
from medfcn.evaluation.scores import LabelScores, encoded_pair
from medfcn.files import plain_json
from medfcn.labels.codec import LabelCodec
from medfcn.labels.label_map import LabelMap
from medfcn.text import aligned, page
from medfcn.volumes import Volume

BACKGROUND = "(background)"
Confusion = Mapping[tuple[str, str], int]
"""Voxels by the name of their class in the reference and in the prediction; pairs without a voxel may be left out."""

_SCORES = ("precision", "recall", "f1")
_HOW = (
    "Voxels of all cases together; a mask without a usable file is background everywhere. Macro: mean of the labels; "
    "weighted: by support; micro: all labels counted together. The background is in no average. A label that is "
    "nowhere predicted has no precision, and counts with 0 in averages."
)


@dataclass(frozen=True)
class ClassScores:
    """One label as a class of voxels.

    Attributes:
        label: The label's name.
        precision: Share of the predicted voxels that are right; `nan` without any.
        recall: Share of the reference's voxels that were predicted; `nan` without any.
        f1: `2 TP / (2 TP + FP + FN)`, the Dice of all voxels together; `nan` without any.
        support: Voxels of the reference.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class ClassReport:
    """Every label as a class of voxels, averages over the labels, and the confusion matrix.

    Attributes:
        labels: One for each label.
        averages: `micro`, `macro` and `weighted`.
        confusion: Voxels by class in the reference and in the prediction; empty where labels overlap, as a voxel
            then has several classes.
    """

    labels: tuple[ClassScores, ...]
    averages: tuple[ClassScores, ...]
    confusion: Confusion = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """The rows and columns of the matrix: the background, then the labels."""
        return (BACKGROUND, *(label.label for label in self.labels))

    def matrix(self) -> list[list[int]]:
        """`(labels + 1, labels + 1)` voxels: rows by reference, columns by prediction, the background first."""
        return [[self.confusion.get((row, column), 0) for column in self.classes] for row in self.classes]

    def to_json(self) -> dict[str, Any]:
        """Values for a JSON file: NaN is `None`."""
        found: dict[str, Any] = {
            kind: {
                each.label: {name: getattr(each, name) for name in (*_SCORES, "support")}
                for each in getattr(self, kind)
            }
            for kind in ("labels", "averages")
        }
        if self.confusion:
            found["confusion"] = {"classes": list(self.classes), "voxels": self.matrix()}
        plain: dict[str, Any] = plain_json({"definition": _HOW, **found})
        return plain

    def to_text(self) -> str:
        """Tables for a terminal."""
        rows = [("label", "precision", "recall", "F1", "support"), *map(_fields, self.labels)]
        averages = [(each.label, *_fields(each)[1:]) for each in self.averages]
        lines = [*aligned([*rows, *averages], right=[1, 2, 3, 4]), "", *self._matrix_lines(), _HOW]
        return page(lines)

    def _matrix_lines(self) -> list[str]:
        if not self.confusion:
            return ["No confusion matrix: labels overlap, so a voxel has several classes.", ""]
        table = [("ref. \\ pred.", *self.classes)]
        table += [(name, *map(str, counts)) for name, counts in zip(self.classes, self.matrix(), strict=True)]
        return [*aligned(table, right=range(1, len(self.classes) + 1), widest=16), ""]


def confusion_of_case(
    prediction: Volume | None,
    reference: Volume,
    labels: LabelMap,
    *,
    case: str,
    prediction_codec: LabelCodec | None = None,
) -> Confusion:
    """The voxels of a case by their classes; empty where labels overlap. Arguments are those of `score_case`."""
    if labels.overlapping:
        return {}
    part = encoded_pair(prediction, reference, labels, case=case, prediction_codec=prediction_codec)
    matrix = part.whole_matrix(confusion_matrix(*part.masks, labels=len(labels.names)))
    names = (BACKGROUND, *labels.names)
    return {
        (names[row], names[column]): int(matrix[row, column]) for row, column in zip(*np.nonzero(matrix), strict=True)
    }


def class_report(rows: Sequence[LabelScores], confusions: Iterable[Confusion] = ()) -> ClassReport:
    """Judge rows of scores as a classifier of voxels.

    Args:
        rows: Scores of cases and labels.
        confusions: The confusion of each case; none where labels overlap.

    Example:
        >>> row = LabelScores("a", "organ", "ok", *[0.5] * 12, true_positives=6, false_positives=2, false_negatives=4)
        >>> report = class_report([row])
        >>> report.labels[0].precision, report.labels[0].recall, report.labels[0].support
        (0.75, 0.6, 10)
    """
    by_label: dict[str, list[LabelScores]] = {}
    for row in rows:
        by_label.setdefault(row.label, []).append(row)
    counts = {label: _counts(of_label) for label, of_label in by_label.items()}
    labels = tuple(_scores(label, of_label) for label, of_label in counts.items())
    total: dict[tuple[str, str], int] = {}
    for confusion in confusions:
        for pair, voxels in confusion.items():
            total[pair] = total.get(pair, 0) + voxels
    return ClassReport(labels, (_micro(rows), *_means(labels)), total)


def _counts(rows: Sequence[LabelScores]) -> VoxelCounts:
    names = ("true_positives", "false_positives", "false_negatives")
    true, extra, lost = (sum(getattr(row, name) for row in rows) for name in names)
    return VoxelCounts(true, extra, lost, true_negatives=0)


def _scores(label: str, counts: VoxelCounts) -> ClassScores:
    return ClassScores(label, counts.precision, counts.recall, counts.dice, counts.reference)


def _micro(rows: Sequence[LabelScores]) -> ClassScores:
    pooled = _scores("micro average", _counts(rows))
    return replace(pooled, precision=_known(pooled.precision, pooled))


def _means(labels: Sequence[ClassScores]) -> tuple[ClassScores, ClassScores]:
    """The macro and the weighted average; a label that was never predicted has precision 0 in them, if it exists."""
    support = sum(label.support for label in labels)
    macro, weighted = {}, {}
    for name in _SCORES:
        values = [(_known(getattr(label, name), label), label.support) for label in labels]
        macro[name] = mean_of(np.array([value for value, _ in values if not math.isnan(value)]))
        parts = [value * weight for value, weight in values if weight]
        weighted[name] = math.fsum(parts) / support if support else math.nan
    return (
        ClassScores("macro average", **macro, support=support),
        ClassScores("weighted average", **weighted, support=support),
    )


def _known(value: float, label: ClassScores) -> float:
    """A miss counts 0: a label of the reference that is nowhere predicted has no precision of its own."""
    return precision_in_averages(value, is_miss=label.support > 0)


def _fields(scores: ClassScores) -> tuple[str, ...]:
    shares = ("–" if math.isnan(value := getattr(scores, name)) else f"{value:.3f}" for name in _SCORES)
    return (scores.label, *shares, f"{scores.support}")
