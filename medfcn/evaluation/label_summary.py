"""Summary of one label over all cases: means, medians, worst cases, intervals, and which cases were missed.

Every summary here keeps one law: a further miss never improves it. So an infinite distance stays in the mean. The
quartiles are order statistics with infinity as the largest number. Each figure carries its number of cases, so that a
case without a value cannot drop out unseen. (Precision has no value without a prediction. Specificity and the signed
volume may rise with a miss.)
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from medfcn.evaluation.cohort import Cohort
from medfcn.evaluation.estimates import bootstrap_intervals, mean_of, order_statistic
from medfcn.evaluation.lesions import LesionCounts
from medfcn.evaluation.overlap import VoxelCounts, precision_in_averages
from medfcn.evaluation.scores import LabelScores
from medfcn.files import plain_json
from medfcn.labels.sparse_labels import share_text
from medfcn.text import counted

SHARES = ("dice", "iou", "precision", "recall", "specificity", "nsd")
DISTANCES = ("hd_mm", "hd95_mm", "assd_mm", "masd_mm")


@dataclass(frozen=True)
class ShareSummary:
    """A score between 0 and 1 over all cases.

    Attributes:
        cases: Number of cases with a value.
        mean: Their mean; `nan` without cases, as are all attributes below.
        mean_low: Lower end of the 95 % bootstrap interval of the mean.
        mean_high: Upper end of that interval.
        median: Their median.
        median_low: Lower end of the 95 % bootstrap interval of the median.
        median_high: Upper end of that interval.
        worst: The smallest value.
        worst_case: The case with that value; the first by name among equals.
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
    """A distance over all cases; it is infinite for a miss.

    Attributes:
        cases: Number of cases with a value.
        mean: Infinite after any miss; `nan` without cases, as are all attributes below.
        median: The middle value, with infinity as the largest number.
        lower_quartile: A quarter of the values are at most this.
        upper_quartile: Three quarters of the values are at most this.
        worst: The largest value.
        worst_case: The case with that value; the first by name among equals.
        penalised_mean: The mean with a penalty in place of infinity; `nan` unless a penalty was requested.
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
    """Predicted minus reference volume over the cases that have a prediction file.

    Attributes:
        cases: Number of cases with a difference.
        mean_ml: The bias.
        lower_limit_ml: Bias minus 1.96 standard deviations.
        upper_limit_ml: Bias plus 1.96 standard deviations.

    Source:
        Bland and Altman, Lancet 327, 1986.
    """

    cases: int
    mean_ml: float
    lower_limit_ml: float
    upper_limit_ml: float


@dataclass(frozen=True)
class PartlyLabelled:
    """Cases of which less than half is labelled.

    Their overlaps are of the labelled voxels alone. Unless they are missed, or predicted where the reference is
    empty, they have no distance and no NSD; they never have a volume.

    Attributes:
        cases: Number of such cases.
        labelled_voxels: Their labelled voxels.
        voxels: All their voxels.
    """

    cases: int
    labelled_voxels: int
    voxels: int

    @classmethod
    def among(cls, rows: Iterable[LabelScores]) -> "PartlyLabelled | None":
        """Those among some rows, each case once; `None` without any."""
        found = {row.case: row for row in rows if row.is_partly_labelled}.values()
        if not found:
            return None
        return cls(len(found), sum(row.labelled_voxels for row in found), sum(row.voxels for row in found))

    @classmethod
    def recorded(cls, label: Mapping[str, Any]) -> "PartlyLabelled | None":
        """Those of a label of `summary.json` or of a model's card; `None` without any."""
        found = label.get("partly_labelled")
        counts = [found.get(each.name) for each in fields(cls)] if isinstance(found, Mapping) else [None]
        return cls(*counts) if all(isinstance(count, int) for count in counts) else None

    def text(self, cases: int) -> str:
        """The meaning of their figures, of so many cases in all, in a line without a full stop."""
        return (
            f"less than half is labelled in {self.cases} of {counted(cases, 'case')}, "
            f"{share_text(self.labelled_voxels, self.voxels)}: their overlaps (Dice, IoU, precision, "
            "recall, specificity) are of these voxels alone, not of the organ, and they have no distance, NSD, "
            "volume or lesion (a miss and a false prediction keep infinity and NSD 0)"
        )


@dataclass(frozen=True)
class LabelSummary:
    """All cases of one label.

    Attributes:
        label: The label's name.
        cases: Number of references.
        scored: Cases in the averages: all but those with both masks empty.
        missed: Cases without a prediction where one was needed: the mask is empty, or its file is missing.
        missing: Missed cases whose file is missing.
        false: Cases with a prediction where the reference is empty.
        both_empty: Cases left out of all averages, with those of which no voxel is labelled.
        reference_voxels: Voxels of all references together (the support).
        shares: By metric: `dice`, `iou`, `precision`, `recall`, `specificity`, `nsd`.
        distances: By metric: `hd_mm`, `hd95_mm`, `assd_mm`, `masd_mm`.
        volume: Predicted minus reference volume.
        micro: Overlap with the voxels of all cases counted together, as if they were one case.
        lesions: Lesions of all cases together; `None` unless they were counted.
        failed: Cases that could not be scored; only `cases` counts them.
        partly_labelled: Scored cases of which less than half is labelled; `None` without any.
        patients: Patients of the scored cases; `None` if each case is a patient of its own.
        wholly_ignored: Those of `both_empty` of which no voxel is labelled.
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
    partly_labelled: PartlyLabelled | None = None
    patients: int | None = None
    wholly_ignored: int = 0

    @property
    def empty_in_both(self) -> int:
        """Number of labelled cases in which both masks lack the label."""
        return self.both_empty - self.wholly_ignored

    @property
    def patient_count(self) -> int:
        """Number of patients of the scored cases."""
        return self.scored if self.patients is None else self.patients

    def __getitem__(self, metric: str) -> ShareSummary | DistanceSummary:
        """The summary of one metric."""
        return self.shares[metric] if metric in self.shares else self.distances[metric]

    def to_json(self) -> dict[str, Any]:
        """Values for a JSON file: NaN is `None` and infinity `"inf"`."""
        values = asdict(self)
        if self.patients is None:
            del values["patients"]
        if not self.wholly_ignored:
            del values["wholly_ignored"]
        if self.lesions is not None:
            values["lesions"] |= {
                name: getattr(self.lesions, name) for name in ("missed", "recall", "precision", "f1")
            }
        if self.partly_labelled is None:
            del values["partly_labelled"]
        plain: dict[str, Any] = plain_json(values)
        return plain


def summarise_label(
    label: str,
    rows: Sequence[LabelScores],
    *,
    penalty_mm: float | str | None = None,
    failed: int = 0,
    cohort: Cohort | None = None,
) -> LabelSummary:
    """Summarise the rows of one label; see `medfcn.evaluation.summary.summarise`."""
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
        shares={metric: _shares(metric, scored, cohort or Cohort()) for metric in SHARES},
        distances={metric: _distances(metric, scored, penalty_mm) for metric in DISTANCES},
        volume=_volumes(scored),
        micro=micro_scores(rows),
        lesions=_lesions(rows),
        failed=failed,
        partly_labelled=PartlyLabelled.among(scored),
        patients=cohort.count(row.case for row in scored) if cohort and cohort.is_clustered else None,
        wholly_ignored=sum(row.is_wholly_ignored and not row.is_scored for row in rows),
    )


def micro_scores(rows: Sequence[LabelScores]) -> dict[str, float]:
    """Overlap with the voxels of all rows counted together."""
    names = ("true_positives", "false_positives", "false_negatives")
    counts = VoxelCounts(**{name: sum(getattr(row, name) for row in rows) for name in names}, true_negatives=0)
    precision = precision_in_averages(counts.precision, is_miss=counts.reference > 0)
    return {
        "dice": counts.dice,
        "iou": counts.iou,
        "precision": precision,
        "recall": counts.recall,
        "f1": counts.dice,
    }


def _lesions(rows: Sequence[LabelScores]) -> LesionCounts | None:
    names = ("lesions", "lesions_found", "lesions_false")
    counted = [row for row in rows if not any(math.isnan(getattr(row, name)) for name in names)]
    return LesionCounts(*(int(sum(getattr(row, name) for row in counted)) for name in names)) if counted else None


def _with_values(metric: str, rows: Sequence[LabelScores]) -> list[tuple[float, LabelScores]]:
    """Values and rows, smallest value first, so that sums do not depend on the order of cases."""
    pairs = [(row.counted(metric), row) for row in rows]
    return sorted((pair for pair in pairs if not math.isnan(pair[0])), key=lambda pair: (pair[0], pair[1].case))


def _shares(metric: str, rows: Sequence[LabelScores], cohort: Cohort) -> ShareSummary:
    pairs = _with_values(metric, rows)
    if not pairs:
        return ShareSummary(0, *(math.nan,) * 7, "")
    values = np.array([value for value, _ in pairs])
    patients = cohort.patients_of(row.case for _, row in pairs)
    mean_low, mean_high, median_low, median_high = bootstrap_intervals(values, patients)
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
    finite = [value for value, _ in pairs if math.isfinite(value)]
    penalties = [
        row.diagonal_mm if penalty_mm == "diagonal" else float(penalty_mm) for _, row in pairs[len(finite) :]
    ]
    # With a penalty below the distance or the penalty of another case, a miss would be the better result.
    penalty = max([*finite, *penalties])
    return math.fsum([*finite, *[penalty] * len(penalties)]) / len(pairs)


def _volumes(rows: Sequence[LabelScores]) -> VolumeSummary:
    values = np.array([value for value, _ in _with_values("volume_difference_ml", rows)])
    if not values.size:
        return VolumeSummary(0, math.nan, math.nan, math.nan)
    mean = mean_of(values)
    spread = 1.96 * float(values.std(ddof=1)) if values.size > 1 else math.nan
    return VolumeSummary(values.size, mean, mean - spread, mean + spread)
