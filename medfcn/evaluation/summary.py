"""From the scores of cases to what is said about them: means, medians, worst cases, intervals, and who was
missed.

The law of every summary here: a further miss never makes it better. So an infinite distance stays in the
mean, the quartiles are order statistics with infinity as the largest number, and nothing that is `nan`
because of a miss drops out unseen: each figure carries the number of cases behind it. (Precision has no value
without a prediction, and specificity and the signed volume may rise with a miss.)
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from medfcn.evaluation.estimates import INTERVAL, bootstrap_intervals, mean_of, order_statistic
from medfcn.evaluation.lesions import LesionCounts
from medfcn.evaluation.overlap import VoxelCounts
from medfcn.evaluation.scores import Definitions, LabelScores

__all__ = [
    "DistanceSummary",
    "LabelSummary",
    "ShareSummary",
    "Summary",
    "VolumeSummary",
    "order_statistic",
    "summarise",
]

SHARES = ("dice", "iou", "precision", "recall", "specificity", "nsd")
DISTANCES = ("hd_mm", "hd95_mm", "assd_mm", "masd_mm")


@dataclass(frozen=True)
class ShareSummary:
    """A score between 0 and 1 over cases.

    Attributes:
        cases: How many cases have a value.
        mean: Their mean; `nan` without cases, like all that follows.
        mean_low: Lower end of the 95 % bootstrap interval of the mean.
        mean_high: Its upper end.
        median: Their median.
        median_low: Lower end of the 95 % bootstrap interval of the median.
        median_high: Its upper end.
        worst: The smallest value.
        worst_case: The case that has it; the first by name among equals.
    """

    cases: int
    mean: float
    mean_low: float
    mean_high: float
    median: float
    median_low: float
    median_high: float
    worst: float
    worst_case: str


@dataclass(frozen=True)
class DistanceSummary:
    """A distance over cases, infinite for a miss.

    Attributes:
        cases: How many cases have a value.
        mean: Infinite after any miss; `nan` without cases, like all that follows.
        median: The middle value, infinity counted as the largest.
        lower_quartile: A quarter of the values are at most this.
        upper_quartile: Three quarters of the values are at most this.
        worst: The largest value.
        worst_case: The case that has it; the first by name among equals.
        penalised_mean: The mean with a penalty in place of infinity, when one was asked for; else `nan`.
    """

    cases: int
    mean: float
    median: float
    lower_quartile: float
    upper_quartile: float
    worst: float
    worst_case: str
    penalised_mean: float = math.nan


@dataclass(frozen=True)
class VolumeSummary:
    """Predicted minus drawn volume over cases that have a prediction file (Bland and Altman, Lancet 327,
    1986).

    Attributes:
        cases: How many cases have a difference.
        mean_ml: The bias.
        lower_limit_ml: Bias minus 1.96 standard deviations.
        upper_limit_ml: Bias plus 1.96 standard deviations.
    """

    cases: int
    mean_ml: float
    lower_limit_ml: float
    upper_limit_ml: float


@dataclass(frozen=True)
class LabelSummary:
    """All cases of one label.

    Attributes:
        label: The label's name.
        cases: How many were due.
        scored: How many of them enter the averages: all but those where both masks are empty.
        missed: No prediction although one was due: the prediction is empty or its file is missing.
        missing: How many of the missed have no file.
        false: A prediction where the reference is empty.
        both_empty: Left out of all averages.
        reference_voxels: Voxels drawn in all cases together (the support).
        shares: By metric: `dice`, `iou`, `precision`, `recall`, `specificity`, `nsd`.
        distances: By metric: `hd_mm`, `hd95_mm`, `assd_mm`, `masd_mm`.
        volume: Predicted minus drawn volume.
        micro: Overlap of the voxels of all cases counted together, as if they were one.
        lesions: Lesions of all cases together; `None` unless they were counted.
        failed: How many could not be scored, and are in none of these numbers but `cases`.
    """

    label: str
    cases: int
    scored: int
    missed: int
    missing: int
    false: int
    both_empty: int
    reference_voxels: int
    shares: Mapping[str, ShareSummary]
    distances: Mapping[str, DistanceSummary]
    volume: VolumeSummary
    micro: Mapping[str, float]
    lesions: LesionCounts | None = None
    failed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        values: dict[str, Any] = plain_values(asdict(self))
        if self.lesions is not None:
            shares = {name: getattr(self.lesions, name) for name in ("missed", "recall", "precision", "f1")}
            values["lesions"] |= plain_values(shares)
        return values


@dataclass(frozen=True)
class Summary:
    """What is said about a table of scores.

    Attributes:
        labels: One summary a label.
        macro: Mean over labels of each metric's mean over cases; labels without a value are left out.
        micro: Overlap of all voxels of all cases and labels counted together.
        definitions: What the numbers mean.
        notes: What a reader must know: predictions that are missing, masks left out.
    """

    labels: tuple[LabelSummary, ...]
    macro: Mapping[str, float]
    micro: Mapping[str, float]
    definitions: Definitions
    notes: tuple[str, ...] = ()

    def __getitem__(self, label: str) -> LabelSummary:
        """The summary of the label of that name."""
        for summary in self.labels:
            if summary.label == label:
                return summary
        raise KeyError(label)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file: NaN is `None` and infinity `"inf"`."""
        return {
            "definitions": self.definitions.to_json(),
            "interval": INTERVAL,
            "labels": {summary.label: summary.to_json() for summary in self.labels},
            "macro": plain_values(dict(self.macro)),
            "micro": plain_values(dict(self.micro)),
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """A table for a terminal, with the definitions at its foot."""
        from medfcn.evaluation.text import summary_text

        return summary_text(self)


def plain_values(value: Any) -> Any:
    """The same without numbers that JSON cannot hold: NaN is `None` and infinity `"inf"`."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, dict):
        return {key: plain_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(item) for item in value]
    return value


def summarise(
    rows: Iterable[LabelScores],
    definitions: Definitions,
    *,
    penalty_mm: float | str | None = None,
    notes: Sequence[str] = (),
    failed: int = 0,
) -> Summary:
    """Summarise rows; their order changes nothing but the order of labels.

    Args:
        rows: Scores of cases and labels.
        definitions: What they mean.
        penalty_mm: What a miss counts in `penalised_mean`: millimetres, or `"diagonal"` for that of its
            volume.
        notes: Carried along.
        failed: Cases that were due and could not be scored.

    Returns:
        One summary a label, in the order in which labels first appear.
    """
    rows = tuple(rows)
    by_label: dict[str, list[LabelScores]] = {}
    for row in rows:
        by_label.setdefault(row.label, []).append(row)
    labels = tuple(_of_label(label, of_label, penalty_mm, failed) for label, of_label in by_label.items())
    return Summary(labels, _macro(labels), _micro(rows), definitions, tuple(notes))


def _of_label(label: str, rows: list[LabelScores], penalty_mm: float | str | None, failed: int) -> LabelSummary:
    rows = sorted(rows, key=lambda row: row.case)
    scored = [row for row in rows if row.is_scored]
    return LabelSummary(
        label=label,
        cases=len(rows) + failed,
        scored=len(scored),
        missed=sum(row.is_miss for row in rows),
        missing=sum(row.status == "prediction_missing" for row in rows),
        false=sum(row.status == "reference_empty" for row in rows),
        both_empty=len(rows) - len(scored),
        reference_voxels=sum(row.true_positives + row.false_negatives for row in rows),
        shares={metric: _shares(metric, scored) for metric in SHARES},
        distances={metric: _distances(metric, scored, penalty_mm) for metric in DISTANCES},
        volume=_volumes(scored),
        micro=_micro(rows),
        lesions=_lesions(rows),
        failed=failed,
    )


def _lesions(rows: Sequence[LabelScores]) -> LesionCounts | None:
    counted = [row for row in rows if not math.isnan(row.lesions)]
    if not counted:
        return None
    return LesionCounts(
        int(sum(row.lesions for row in counted)),
        int(sum(row.lesions_found for row in counted)),
        int(sum(row.lesions_false for row in counted)),
    )


def _with_values(metric: str, rows: Sequence[LabelScores]) -> list[tuple[float, LabelScores]]:
    """Smallest value first, so that sums do not depend on the order of cases."""
    pairs = [(float(getattr(row, metric)), row) for row in rows]
    return sorted((pair for pair in pairs if not math.isnan(pair[0])), key=lambda pair: (pair[0], pair[1].case))


def _shares(metric: str, rows: Sequence[LabelScores]) -> ShareSummary:
    pairs = _with_values(metric, rows)
    if not pairs:
        return ShareSummary(0, *(math.nan,) * 7, "")
    values = np.array([value for value, _ in pairs])
    mean_low, mean_high, median_low, median_high = bootstrap_intervals(values)
    return ShareSummary(
        cases=len(pairs),
        mean=mean_of(values),
        mean_low=mean_low,
        mean_high=mean_high,
        median=order_statistic(values, 0.5),
        median_low=median_low,
        median_high=median_high,
        worst=float(values[0]),
        worst_case=pairs[0][1].case,
    )


def _distances(metric: str, rows: Sequence[LabelScores], penalty_mm: float | str | None) -> DistanceSummary:
    pairs = _with_values(metric, rows)
    if not pairs:
        return DistanceSummary(0, *(math.nan,) * 5, "")
    values = np.array([value for value, _ in pairs])
    worst = float(values[-1])
    return DistanceSummary(
        cases=len(pairs),
        mean=mean_of(values),
        median=order_statistic(values, 0.5),
        lower_quartile=order_statistic(values, 0.25),
        upper_quartile=order_statistic(values, 0.75),
        worst=worst,
        worst_case=min(row.case for value, row in pairs if value == worst),
        penalised_mean=_penalised_mean(pairs, penalty_mm),
    )


def _penalised_mean(pairs: Sequence[tuple[float, LabelScores]], penalty_mm: float | str | None) -> float:
    if penalty_mm is None:
        return math.nan
    # A penalty below what other cases got would make a miss the better result.
    floor = max((value for value, _ in pairs if math.isfinite(value)), default=0.0)
    return math.fsum(
        max(floor, row.diagonal_mm if penalty_mm == "diagonal" else float(penalty_mm)) if math.isinf(value) else value
        for value, row in pairs
    ) / len(pairs)


def _volumes(rows: Sequence[LabelScores]) -> VolumeSummary:
    values = np.array([value for value, _ in _with_values("volume_difference_ml", rows)])
    if not values.size:
        return VolumeSummary(0, math.nan, math.nan, math.nan)
    mean = mean_of(values)
    spread = 1.96 * float(values.std(ddof=1)) if values.size > 1 else math.nan
    return VolumeSummary(values.size, mean, mean - spread, mean + spread)


def _micro(rows: Sequence[LabelScores]) -> dict[str, float]:
    counts = VoxelCounts(
        sum(row.true_positives for row in rows),
        sum(row.false_positives for row in rows),
        sum(row.false_negatives for row in rows),
        0,
    )
    return {
        "dice": counts.dice,
        "iou": counts.iou,
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.dice,
    }


def _macro(labels: Sequence[LabelSummary]) -> dict[str, float]:
    means = {}
    for metric in (*SHARES, *DISTANCES):
        of_labels = [
            (summary.shares[metric] if metric in SHARES else summary.distances[metric]).mean for summary in labels
        ]
        values = np.array([value for value in of_labels if not math.isnan(value)])
        means[metric] = mean_of(values)
    return means
