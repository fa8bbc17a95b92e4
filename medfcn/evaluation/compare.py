"""Two evaluations of the same cases, case against case: how much changed, how surely, and where."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import DatasetError
from medfcn.evaluation.estimates import bootstrap_intervals, mean_of, order_statistic
from medfcn.evaluation.scores import LabelScores
from medfcn.evaluation.summary import SHARES, plain_values
from medfcn.evaluation.table import ScoreTable
from medfcn.evaluation.text import shown_number
from medfcn.text import aligned, page

__all__ = ["Comparison", "MovedCase", "PairedDifference", "compare_tables"]

METRICS = ("dice", "nsd", "hd95_mm", "assd_mm")

# Up to how many cases the test is exact, without ties and with them; as scipy decides.
_EXACT, _EXACT_TIED = 50, 13


@dataclass(frozen=True)
class MovedCase:
    """One case in both tables.

    Attributes:
        case: Its id.
        first: Its score in the first table.
        second: Its score in the second.
    """

    case: str
    first: float
    second: float


@dataclass(frozen=True)
class PairedDifference:
    """One metric of one label, first table minus second, over the cases that both have.

    Attributes:
        label: The label's name.
        metric: The column of `scores.csv`.
        cases: How many cases both tables score.
        mean: Mean difference; `nan` where a distance is infinite in one table only.
        mean_low: Lower end of its 95 % bootstrap interval.
        mean_high: Its upper end.
        median: Median difference; two misses differ by 0, a miss and a distance by infinity.
        p_value: Of the two-sided Wilcoxon signed-rank test; 1 when no case differs.
        better: Cases in which the first table is better.
        worse: Cases in which it is worse.
        equal: Cases in which both are equal.
        moved: The cases that moved most, largest difference first.
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


@dataclass(frozen=True)
class Comparison:
    """All differences between two tables.

    Attributes:
        differences: One for each label and metric.
        notes: Cases, labels or definitions that the tables do not share.
    """

    differences: tuple[PairedDifference, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file: NaN is `None` and infinity `"inf"`."""
        return {
            "difference": "first minus second, over cases scored in both",
            "interval": "95 % percentile bootstrap over cases",
            "test": "two-sided Wilcoxon signed-rank",
            "differences": [plain_values(asdict(difference)) for difference in self.differences],
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """A table for a terminal, with the cases that moved most under it."""
        headings = (
            "label",
            "metric",
            "difference",
            "95 % interval",
            "median",
            "p",
            "better",
            "worse",
            "equal",
            "cases",
        )
        rows = [_fields(difference) for difference in self.differences]
        lines = (
            aligned([headings, *rows], right=range(2, len(headings)), widest=24)
            if rows
            else ["the tables share no case"]
        )
        for difference in self.differences:
            if difference.metric == "dice" and difference.moved:
                moved = (
                    f"{case.case} {shown_number(case.second, 3)} → {shown_number(case.first, 3)}"
                    for case in difference.moved
                )
                lines += ["", f"{difference.label}, moved most in Dice: " + "; ".join(moved)]
        lines += ["", *self.notes]
        lines.append("Differences are the first table minus the second; p is of the Wilcoxon signed-rank test.")
        return page(lines)


def _fields(difference: PairedDifference) -> tuple[str, ...]:
    digits = 3 if difference.metric in SHARES else 2
    interval = (
        "–"
        if math.isnan(difference.mean_low)
        else f"{difference.mean_low:+.{digits}f} – {difference.mean_high:+.{digits}f}"
    )
    return (
        difference.label,
        difference.metric,
        shown_number(difference.mean, digits),
        interval,
        shown_number(difference.median, digits),
        f"{difference.p_value:.3g}" if not math.isnan(difference.p_value) else "–",
        *(str(count) for count in (difference.better, difference.worse, difference.equal, difference.cases)),
    )


def compare_tables(
    first: ScoreTable, second: ScoreTable, *, metrics: Sequence[str] = METRICS, most: int = 5
) -> Comparison:
    """Compare two tables, case against case.

    Args:
        first: The table in question.
        second: The one it is held against.
        metrics: Columns of `scores.csv`; of columns in millimetres the smaller is the better.
        most: How many of the most moved cases to name.

    Returns:
        First minus second for each label and metric, over the cases that have a value in both.

    Raises:
        DatasetError: The tables share no case and label.

    Source:
        Wilcoxon, Biometrics Bulletin 1(6), 1945.

    Example:
        >>> def row(case, dice):
        ...     return LabelScores(case, "organ", "ok", *[dice] * 5, 1.0, 1.0, *[1.0] * 4, dice)
        >>> old = ScoreTable((row("a", 0.5), row("b", 0.75)))
        >>> new = ScoreTable((row("a", 0.75), row("b", 0.75)))
        >>> change = compare_tables(new, old, metrics=["dice"]).differences[0]
        >>> change.mean, change.better, change.equal, change.moved[0].case
        (0.125, 1, 1, 'a')
    """
    ours, theirs = ({(row.label, row.case): row for row in table.rows} for table in (first, second))
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        raise DatasetError("the two tables share no case and label; compare evaluations of the same references")
    labels = [label for label in first.labels if any(label == other for other, _ in shared)]
    differences = tuple(
        _difference(label, metric, [(ours[key], theirs[key]) for key in shared if key[0] == label], most)
        for label in labels
        for metric in metrics
    )
    return Comparison(differences, _notes(first, second, set(shared)))


def _notes(first: ScoreTable, second: ScoreTable, shared: set[tuple[str, str]]) -> tuple[str, ...]:
    notes = []
    for name, table in (("first", first), ("second", second)):
        alone = sorted({row.case for row in table.rows if (row.label, row.case) not in shared})
        if alone:
            some = ", ".join(case for case in alone[:20])
            more = f" and {len(alone) - 20} more" if len(alone) > 20 else ""
            notes.append(f"only in the {name} table, and left out: {some}{more}")
    if first.definitions != second.definitions:
        notes.append(
            f"the tables differ in their definitions: first {first.definitions.short()}; "
            f"second {second.definitions.short()}"
        )
    return tuple(notes)


def _difference(label: str, metric: str, pairs: list[tuple[LabelScores, LabelScores]], most: int) -> PairedDifference:
    cases = [MovedCase(a.case, float(getattr(a, metric)), float(getattr(b, metric))) for a, b in pairs]
    cases = [case for case in cases if not (math.isnan(case.first) or math.isnan(case.second))]
    # A table read from a CSV file holds ten digits: what differs beyond them is one number.
    changes = np.array(
        [0.0 if math.isclose(case.first, case.second, rel_tol=1e-9) else case.first - case.second for case in cases]
    )
    sign = -1 if metric.endswith("_mm") else 1
    finite = bool(changes.size) and bool(np.isfinite(changes).all())
    low, high = bootstrap_intervals(np.sort(changes))[:2] if finite else (math.nan, math.nan)
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
        p_value=_signed_rank_p(changes),
        better=int(np.count_nonzero(sign * changes > 0)),
        worse=int(np.count_nonzero(sign * changes < 0)),
        equal=int(np.count_nonzero(changes == 0)),
        moved=tuple(cases[number] for number in moved[:most]),
    )


def _median(changes: NDArray[np.float64]) -> float:
    """The middle change; between minus and plus infinity there is none."""
    ordered = np.sort(changes)
    if ordered.size and math.isinf(ordered[0]) and ordered[(ordered.size - 1) // 2] == -math.inf:
        return math.nan if ordered[ordered.size // 2] == math.inf else -math.inf
    return order_statistic(ordered, 0.5)


def _signed_rank_p(changes: NDArray[np.float64]) -> float:
    """Wilcoxon's p-value; only ranks count, so an infinite change is the largest."""
    if not changes.size:
        return math.nan
    changes = changes[changes != 0]
    if not changes.size:
        return 1.0
    finite = np.abs(changes[np.isfinite(changes)])
    largest = 2 * float(finite.max()) + 1 if finite.size else 1.0
    # 13 digits: differences that are equal on paper must tie.
    changes = np.asarray(np.round(np.clip(changes, -largest, largest), 13), dtype=np.float64)
    changes = changes[changes != 0]
    if not changes.size:
        return 1.0
    has_ties = np.unique(np.abs(changes)).size < changes.size
    if changes.size <= (_EXACT_TIED if has_ties else _EXACT):
        return _exact_signed_rank_p(changes)
    from scipy.stats import wilcoxon

    return float(wilcoxon(changes, method="approx").pvalue)


def _exact_signed_rank_p(changes: NDArray[np.float64]) -> float:
    """The share of all ways to give the ranks a sign that are at least as far from even, ties included."""
    from scipy.stats import rankdata

    # Tied ranks may be halves; twice the rank is whole.
    ranks = np.rint(2 * rankdata(np.abs(changes))).astype(int)
    ways: NDArray[np.float64] = np.ones(1)
    for rank in ranks:
        longer = np.zeros(ways.size + rank)
        longer[: ways.size] += ways
        longer[rank:] += ways
        ways = longer
    positive = int(ranks[changes > 0].sum())
    total = 2.0**changes.size
    return float(min(1.0, 2 * min(ways[: positive + 1].sum(), ways[positive:].sum()) / total))
