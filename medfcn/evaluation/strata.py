"""Scores by stratum, such as the scanner, the site or the diagnosis, and the gap between the best and the worst.

A gap is the mean of the best stratum minus that of the worst. As these two are chosen by their means, a gap is above
0 by chance too; its interval is that of the difference between these two strata, and may contain 0. Cases without a
value are no end of a gap: nobody knows of which stratum they are.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from medfcn.evaluation.cohort import NOT_STATED, Cohort
from medfcn.evaluation.estimates import FEWEST, gap_interval, mean_of
from medfcn.evaluation.label_summary import LabelSummary, summarise_label
from medfcn.evaluation.scores import LabelScores
from medfcn.evaluation.summary_text import interval_text, share_interval, shown_number
from medfcn.files import plain_json
from medfcn.text import aligned, counted, listed

GAP_METRICS = {"dice": "Dice", "nsd": "NSD"}
"""The metrics with a gap, and their titles."""
_FEW = 10
"""An interval of fewer patients is too narrow."""
HOW_GAP = (
    "Gap: mean of the best stratum minus that of the worst, with the interval of this difference; the two are chosen "
    "by their means, so a gap is above 0 by chance too"
)
_HEADINGS = ("missed", "Dice", "95 % interval", "NSD", "95 % interval", "HD95")


@dataclass(frozen=True)
class Gap:
    """The difference between the best and the worst stratum in one metric.

    Attributes:
        metric: `dice` or `nsd`.
        best: The stratum with the largest mean.
        worst: The stratum with the smallest mean.
        difference: Mean of the best minus that of the worst.
        low: Lower end of the 95 % bootstrap interval of this difference; `nan` if one has fewer than five patients.
        high: Upper end of that interval.
        without_few: True if strata with fewer than five patients were left out.
    """

    metric: str
    best: str
    worst: str
    difference: float
    low: float
    high: float
    without_few: bool = False

    def words(self, of: str = "patient") -> str:
        """The gap in words.

        Args:
            of: A case, where no patients are stated.

        Example:
            >>> Gap("dice", "GE", "Siemens", 0.0761, 0.031, 0.1212).words()
            'Dice 0.076 (0.031 – 0.121), GE − Siemens'
        """
        interval = interval_text(self.low, self.high) or "no interval"
        without = f", without strata of fewer than {FEWEST} {of}s" if self.without_few else ""
        pair = f"{self.best} − {self.worst}"
        return f"{GAP_METRICS[self.metric]} {self.difference:.3f} ({interval}), {pair}{without}"


@dataclass(frozen=True)
class Strata:
    """One label by the values of one column.

    Attributes:
        column: The column, such as `scanner`.
        label: The label's name.
        summaries: The summary of each stratum by its value, in order; cases without a value are `not stated`, the
            last.
        gaps: Those of Dice and NSD between stated values; a second one of a metric leaves out strata with fewer than
            five patients.
    """

    column: str
    label: str
    summaries: Mapping[str, LabelSummary]
    gaps: tuple[Gap, ...]

    @property
    def is_clustered(self) -> bool:
        """True if several cases are of one patient."""
        return any(summary.patients is not None for summary in self.summaries.values())

    def gap_words(self) -> list[str]:
        """The gaps in words."""
        return [gap.words(self._unit) for gap in self.gaps]

    @property
    def _unit(self) -> str:
        return "patient" if self.is_clustered else "case"

    def to_json(self) -> dict[str, Any]:
        """Values for a JSON file."""
        strata = {
            value: {"patients": summary.patient_count} | summary.to_json()
            for value, summary in self.summaries.items()
        }
        return {"strata": strata, "gaps": [plain_json(asdict(gap)) for gap in self.gaps]}

    def few(self) -> str:
        """The strata with few patients, or cases where no patients are stated, in words; empty without any."""
        counts = {value: summary.patient_count for value, summary in self.summaries.items()}
        few = [
            f"{value} ({counted(count, self._unit)}{', no interval' if count < FEWEST else ''})"
            for value, count in counts.items()
            if count < _FEW
        ]
        return f"few {self._unit}s, so means and intervals are uncertain: {listed(few)}" if few else ""


def stratify(column: str, label: str, rows: Sequence[LabelScores], cohort: Cohort) -> Strata:
    """Summarise one label by the values of a column.

    Args:
        column: One of the cohort's.
        label: The label's name.
        rows: Its scores.
        cohort: The values and patients of the cases.
    """
    values = cohort.columns[column]
    by_value: dict[str, list[LabelScores]] = {value: [] for value in values.values()}
    for row in sorted(rows, key=lambda row: row.case):
        by_value.setdefault(values.get(row.case, NOT_STATED), []).append(row)
    # A case that could not be scored has no row; it still counts in its stratum.
    failed = Counter(values[case] for case in values.keys() - {row.case for row in rows})
    order = sorted(by_value, key=lambda value: (value == NOT_STATED, value))
    summaries = {
        value: summarise_label(label, by_value[value], failed=failed[value], cohort=cohort) for value in order
    }
    gaps = tuple(gap for metric in GAP_METRICS for gap in _gaps(metric, by_value, cohort))
    return Strata(column, label, summaries, gaps)


def _gaps(metric: str, by_value: Mapping[str, Sequence[LabelScores]], cohort: Cohort) -> Iterator[Gap]:
    """The gap between all stated strata; and another if one of its two has too few patients for an interval."""
    scores = {
        value: {row.case: float(getattr(row, metric)) for row in rows if not math.isnan(getattr(row, metric))}
        for value, rows in by_value.items()
        if value != NOT_STATED
    }
    means = {value: mean_of(np.array(list(of.values()))) for value, of in scores.items() if of}
    enough = [value for value in means if cohort.count(scores[value]) >= FEWEST]
    pairs = {_extremes({value: means[value] for value in chosen}): chosen is enough for chosen in (enough, means)}
    for (best, worst), is_of_enough in reversed(pairs.items()):
        if best == worst:
            continue
        low, high = gap_interval(
            np.array(list(scores[best].values())),
            [cohort.patients.get(case, case) for case in scores[best]],
            np.array(list(scores[worst].values())),
            [cohort.patients.get(case, case) for case in scores[worst]],
        )
        yield Gap(metric, best, worst, means[best] - means[worst], low, high, is_of_enough)


def _extremes(means: Mapping[str, float]) -> tuple[str, str]:
    """The strata with the largest and the smallest mean; twice the same name if there are not two."""
    ordered = sorted(means, key=lambda value: (-means[value], value)) or [""]
    return ordered[0], ordered[-1]


def strata_lines(strata: Sequence[Strata]) -> list[str]:
    """A table of each column for a terminal, with the gaps and the strata that have few patients."""
    lines: list[str] = []
    for column in dict.fromkeys(each.column for each in strata):
        of_column = [each for each in strata if each.column == column]
        is_clustered = any(each.is_clustered for each in of_column)
        headings = ("label", column, "cases", *(("patients",) if is_clustered else ()), *_HEADINGS)
        rows = [row for each in of_column for row in _rows(each, is_clustered=is_clustered)]
        lines += ["", *aligned([headings, *rows], right=range(2, len(headings)))]
        for each in of_column:
            words = [*(f"gap in {gap}" for gap in each.gap_words()), *([each.few()] if each.few() else [])]
            lines += [f"{each.label}, {column}: {text}" for text in words]
    return [*lines, f"HD95 is the median in mm. {HOW_GAP}."] if lines else []


def _rows(strata: Strata, *, is_clustered: bool) -> Iterator[tuple[str, ...]]:
    for place, (value, summary) in enumerate(strata.summaries.items()):
        cases = f"{summary.scored} of {summary.cases}" if summary.scored < summary.cases else str(summary.scored)
        counts = (cases, *((str(summary.patient_count),) if is_clustered else ()), str(summary.missed))
        shares = [summary.shares[metric] for metric in GAP_METRICS]
        fields = [field for share in shares for field in (shown_number(share.mean, 3), share_interval(share))]
        hd95 = shown_number(summary.distances["hd95_mm"].median, 2)
        value += " *" if summary.partly_labelled else ""
        yield ("" if place else strata.label, value, *counts, *fields, hd95)
