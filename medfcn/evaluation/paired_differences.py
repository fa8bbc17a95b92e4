"""Paired differences of two tables of scores: one metric of one label over the same cases, and all of them together.

Every difference is A − B: the first table minus the second.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.evaluation.cohort import Cohort
from medfcn.evaluation.estimates import INTERVAL, OVER_PATIENTS, mean_interval, mean_of, order_statistic
from medfcn.evaluation.label_summary import SHARES
from medfcn.evaluation.scores import LabelScores
from medfcn.evaluation.significance import least_corrected_p, patient_changes, signed_rank_p
from medfcn.evaluation.summary_text import cases_of_patients, shown_number
from medfcn.files import plain_json
from medfcn.text import Shown, aligned, counted, listed, page

SIDES = ("first", "second")
"""The names of A and B where nothing else names them."""
_HEADINGS = ("label", "metric", "A − B", "95 % interval", "median", "p", "p (Holm)", "A better", "B better", "equal")
_LEVEL = 0.05


@dataclass(frozen=True)
class MovedCase:
    """One case in both tables.

    Attributes:
        case: Its id.
        first: Its score in A, the first table.
        second: Its score in B, the second.
    """

    case: str
    first: float
    second: float


@dataclass(frozen=True)
class PairedDifference:
    """One metric of one label, A − B (first table minus second), over the cases in both tables.

    Attributes:
        label: The label's name.
        metric: The column of `scores.csv`.
        cases: Number of cases with a score in both tables.
        mean: Mean difference; `nan` where a distance is infinite in one table only.
        mean_low: Lower end of its 95 % bootstrap interval.
        mean_high: Upper end of that interval.
        median: Median difference; two misses differ by 0, a miss and a distance by infinity.
        p_value: From the two-sided Wilcoxon signed-rank test of cases, or of the means of patients; 1 when none
            differs.
        better: Cases in which A is better.
        worse: Cases in which B is better.
        equal: Cases in which both are equal.
        moved: The cases with the largest differences, largest first.
        p_corrected: `p_value` corrected by Holm's method for all metrics and labels of the comparison.
        patients: Patients of these cases; `None` if each case is a patient of its own.
    """

    label: str
    metric: str
    cases: int
    mean: float
    mean_low: float
    mean_high: float
    median: float
    p_value: float
    better: int
    worse: int
    equal: int
    moved: tuple[MovedCase, ...]
    p_corrected: float = math.nan
    patients: int | None = None

    @property
    def patient_count(self) -> int:
        """Number of patients of these cases."""
        return self.cases if self.patients is None else self.patients


@dataclass(frozen=True)
class Comparison(Shown):
    """All differences between two tables.

    Attributes:
        differences: One for each label and metric.
        notes: Cases, labels or definitions that the tables do not share, and misses without a usable mask.
        sides: The names of A and B.
        failures: Cases whose prediction or reference cannot be used, with the reason; the notes say of which side.
    """

    differences: tuple[PairedDifference, ...]
    notes: tuple[str, ...] = ()
    sides: tuple[str, str] = SIDES
    failures: tuple[tuple[str, str], ...] = ()

    @property
    def is_clustered(self) -> bool:
        """True if several cases are of one patient; intervals and tests are then over patients."""
        return any(difference.patients is not None for difference in self.differences)

    @property
    def direction(self) -> str:
        """The direction of every difference, such as `A − B: new − old`."""
        return f"A − B: {self.sides[0]} − {self.sides[1]}"

    @property
    def definitions(self) -> dict[str, str]:
        """The definitions of the difference, the interval and the p values, in words."""
        tested = [each.patient_count for each in self.differences if not math.isnan(each.p_value)]
        tests = len(tested)
        least = least_corrected_p(max(tested, default=0), tests)
        among = counted(max(tested, default=0), "patient" if self.is_clustered else "case")
        few = f"; with {among} no p (Holm) can be below {least:.3g}" if tested and least > _LEVEL else ""
        most = max(
            ((each.cases, each.patients) for each in self.differences if each.patients is not None), default=None
        )
        number = f" ({cases_of_patients(*most)})" if most else ""
        return {
            "difference": f"{self.direction}, over the cases scored in both{number}",
            "interval": OVER_PATIENTS if self.is_clustered else INTERVAL,
            "test": "two-sided Wilcoxon signed-rank" + (", of the means of patients" if self.is_clustered else ""),
            "correction": f"Holm, for {counted(tests, 'test')} (labels × metrics){few}",
        }

    def to_json(self) -> dict[str, Any]:
        """Values for a JSON file: NaN is `None` and infinity `"inf"`."""
        return {
            "sides": {"A": self.sides[0], "B": self.sides[1]},
            **self.definitions,
            "differences": [plain_json(asdict(difference)) for difference in self.differences],
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """A table for a terminal, with the cases that changed most below it."""
        rows = [_fields(difference, is_clustered=self.is_clustered) for difference in self.differences]
        lines = ["the tables share no case"]
        if rows:
            headings = (*_HEADINGS, "cases", *(("patients",) if self.is_clustered else ()))
            lines = [self.direction, *aligned([headings, *rows], right=range(2, len(headings)))]
        for difference in self.differences:
            if difference.metric == "dice" and difference.moved:
                moved = listed(map(moved_words, difference.moved), limit=len(difference.moved), separator="; ")
                lines += ["", f"{difference.label}, Dice, the largest A − B: {moved}"]
        lines += ["", *self.notes]
        return page([*lines, *(f"{name.capitalize()}: {words}." for name, words in self.definitions.items())])


def moved_words(case: MovedCase) -> str:
    """A case's scores in the direction of the comparison.

    Example:
        >>> moved_words(MovedCase("case_1", 0.5, 0.75))
        'case_1 -0.250 (0.500 − 0.750)'
    """
    first, second = (shown_number(score, 3) for score in (case.first, case.second))
    return f"{case.case} {case.first - case.second:+.3f} ({first} − {second})"


def _fields(difference: PairedDifference, *, is_clustered: bool) -> tuple[str, ...]:
    digits = 3 if difference.metric in SHARES else 2
    low, high = difference.mean_low, difference.mean_high
    counts = [difference.better, difference.worse, difference.equal, difference.cases]
    return (
        difference.label,
        difference.metric,
        signed(difference.mean, digits),
        "–" if math.isnan(low) else f"{signed(low, digits)} – {signed(high, digits)}",
        signed(difference.median, digits),
        *(f"{p:.3g}" if not math.isnan(p) else "–" for p in (difference.p_value, difference.p_corrected)),
        *map(str, [*counts, *([difference.patient_count] if is_clustered else [])]),
    )


def signed(value: float, digits: int) -> str:
    """A difference with its sign; a dash for `nan`."""
    return "–" if math.isnan(value) else f"{value:+.{digits}f}" if round(value, digits) else f"{0:.{digits}f}"


def paired_difference(
    label: str, metric: str, pairs: list[tuple[LabelScores, LabelScores]], most: int, cohort: Cohort
) -> PairedDifference:
    """One metric of one label, A − B.

    Args:
        label: The label's name.
        metric: A column of `scores.csv`.
        pairs: The rows of A and B of each case.
        most: Number of the most changed cases to name.
        cohort: The patients of the cases.
    """
    cases = [MovedCase(a.case, float(getattr(a, metric)), float(getattr(b, metric))) for a, b in pairs]
    cases = [case for case in cases if not (math.isnan(case.first) or math.isnan(case.second))]
    patients = [cohort.patients.get(case.case, case.case) for case in cases]
    # A table read from a CSV file has ten digits; numbers that agree to nine are taken as equal.
    changes = np.array(
        [0.0 if math.isclose(case.first, case.second, rel_tol=1e-9) else case.first - case.second for case in cases]
    )
    sign = -1 if metric.endswith("_mm") else 1
    finite = bool(changes.size) and bool(np.isfinite(changes).all())
    low, high = mean_interval(changes, patients) if finite else (math.nan, math.nan)
    moved = sorted(
        (number for number in range(len(cases)) if changes[number] != 0),
        key=lambda number: (-abs(changes[number]), cases[number].case),
    )
    return PairedDifference(
        label=label,
        metric=metric,
        cases=len(cases),
        mean=mean_of(changes) if finite else math.nan,
        mean_low=low,
        mean_high=high,
        median=_median(changes),
        p_value=signed_rank_p(patient_changes(changes, patients)),
        better=int(np.count_nonzero(sign * changes > 0)),
        worse=int(np.count_nonzero(sign * changes < 0)),
        equal=int(np.count_nonzero(changes == 0)),
        moved=tuple(cases[number] for number in moved[:most]),
        patients=len(set(patients)) if cohort.is_clustered else None,
    )


def _median(changes: NDArray[np.float64]) -> float:
    """The middle change; `nan` halfway between minus and plus infinity."""
    ordered = np.sort(changes)
    if ordered.size and math.isinf(ordered[0]) and ordered[(ordered.size - 1) // 2] == -math.inf:
        return math.nan if ordered[ordered.size // 2] == math.inf else -math.inf
    return order_statistic(ordered, 0.5)
