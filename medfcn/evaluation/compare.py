"""Two evaluations of the same cases, case by case: size, certainty and place of the differences."""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.datasets import find_masks
from medfcn.errors import DatasetError, MissingFileError
from medfcn.evaluation.estimates import bootstrap_intervals, mean_of, order_statistic
from medfcn.evaluation.evaluate import evaluate
from medfcn.evaluation.label_summary import SHARES
from medfcn.evaluation.matching import Masks
from medfcn.evaluation.score_table import ScoreTable
from medfcn.evaluation.scores import Definitions, LabelScores
from medfcn.evaluation.summary_text import shown_number
from medfcn.files import plain_json
from medfcn.labels.label_map import LabelsLike
from medfcn.progress import Progress
from medfcn.runs.folder import SCORES_FILE
from medfcn.text import aligned, listed, page
from medfcn.volumes.options import DEFAULT_OPTIONS, ReadOptions

__all__ = ["Comparison", "MovedCase", "PairedDifference", "compare", "compare_tables", "masks_or_scores"]

METRICS = ("dice", "nsd", "hd95_mm", "assd_mm")
_HEADINGS = ("label", "metric", "difference", "95 % interval", "median", "p", "better", "worse", "equal", "cases")

# Number of cases up to which the test is exact, without ties and with ties; the same numbers as in scipy.
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
    """One metric of one label, first table minus second, over the cases in both tables.

    Attributes:
        label: The label's name.
        metric: The column of `scores.csv`.
        cases: Number of cases with a score in both tables.
        mean: Mean difference; `nan` where a distance is infinite in one table only.
        mean_low: Lower end of its 95 % bootstrap interval.
        mean_high: Upper end of that interval.
        median: Median difference; two misses differ by 0, a miss and a distance by infinity.
        p_value: From the two-sided Wilcoxon signed-rank test; 1 when no case differs.
        better: Cases in which the first table is better.
        worse: Cases in which it is worse.
        equal: Cases in which both are equal.
        moved: The cases with the largest differences, largest first.
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
        """Values for a JSON file: NaN is `None` and infinity `"inf"`."""
        return {
            "difference": "first minus second, over cases scored in both",
            "interval": "95 % percentile bootstrap over cases",
            "test": "two-sided Wilcoxon signed-rank",
            "differences": [plain_json(asdict(difference)) for difference in self.differences],
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """A table for a terminal, with the cases that changed most below it."""
        rows = [_fields(difference) for difference in self.differences]
        lines = ["the tables share no case"]
        if rows:
            lines = aligned([_HEADINGS, *rows], right=range(2, len(_HEADINGS)), widest=24)
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
    low, high = difference.mean_low, difference.mean_high
    return (
        difference.label,
        difference.metric,
        shown_number(difference.mean, digits),
        "–" if math.isnan(low) else f"{low:+.{digits}f} – {high:+.{digits}f}",
        shown_number(difference.median, digits),
        f"{difference.p_value:.3g}" if not math.isnan(difference.p_value) else "–",
        *(str(count) for count in (difference.better, difference.worse, difference.equal, difference.cases)),
    )


def compare(
    first: Masks | ScoreTable,
    second: Masks | ScoreTable,
    references: Masks,
    *,
    labels: LabelsLike | None = None,
    definitions: Definitions | None = None,
    cases: Iterable[str] | None = None,
    metrics: Sequence[str] = METRICS,
    most: int = 5,
    options: ReadOptions = DEFAULT_OPTIONS,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two sets of predictions, case by case.

    `medfcn evaluate FIRST REFERENCES --compare SECOND` does the same.

    Args:
        first: The predictions in question: masks as in `evaluate`, a folder of their scores, or a table of scores.
        second: The predictions that they are compared with: the same kinds.
        references: As in `evaluate`.
        labels: As in `evaluate`.
        definitions: As in `evaluate`; by default those of the first table of scores that is given, if there is one.
        cases: As in `evaluate`.
        metrics: As in `compare_tables`.
        most: As in `compare_tables`.
        options: As in `evaluate`.
        threads: As in `evaluate`.
        progress: Where progress is reported.

    Returns:
        First minus second for each label and metric, over the cases that have a value in both.

    Raises:
        MissingFileError: A folder does not exist.
        DatasetError: The two share no case and label, or as in `evaluate`.
        SettingsError: As in `evaluate`.

    Example:
        >>> reference, right, wrong = np.zeros((3, 4, 4, 4), dtype=np.uint8)
        >>> reference[1:3, 1:3, 1:3] = right[1:3, 1:3, 1:3] = wrong[1:3, 1:3, 1] = 1
        >>> new, old, references = ({"case_1": (mask, np.eye(4))} for mask in (right, wrong, reference))
        >>> change = compare(new, old, references, labels="organ=1", metrics=["dice"]).differences[0]
        >>> round(change.mean, 3), change.better
        (0.333, 1)
    """
    sides = [side if isinstance(side, ScoreTable) else masks_or_scores(side) for side in (first, second)]
    if definitions is None:
        scored = (side.definitions for side in sides if isinstance(side, ScoreTable))
        definitions = next(scored, None)
    cases = None if cases is None else tuple(cases)
    ours, theirs = (
        side
        if isinstance(side, ScoreTable)
        else evaluate(
            side,
            references,
            labels=labels,
            definitions=definitions,
            cases=cases,
            options=options,
            threads=threads,
            progress=progress,
        )
        for side in sides
    )
    return compare_tables(ours, theirs, metrics=metrics, most=most)


def masks_or_scores(source: Masks) -> Masks | ScoreTable:
    """The masks themselves; or, if a folder contains no mask but `scores.csv`, that table.

    Raises:
        MissingFileError: The folder does not exist.
        DatasetError: Its `scores.csv` is not a table of scores.
    """
    if not isinstance(source, str | os.PathLike):
        return source
    if not Path(source).exists():
        raise MissingFileError(f"{source}: does not exist; give a folder of masks, or of their scores")
    scores = Path(source) / SCORES_FILE
    if scores.is_file():
        try:
            find_masks(source)
        except DatasetError:
            return ScoreTable.from_csv(scores)
    return source


def compare_tables(
    first: ScoreTable, second: ScoreTable, *, metrics: Sequence[str] = METRICS, most: int = 5
) -> Comparison:
    """Compare two tables of scores, case by case.

    Args:
        first: The table in question.
        second: The table that it is compared with.
        metrics: Columns of `scores.csv`. In columns in millimetres the smaller number is the better.
        most: Number of the most changed cases to name.

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
        raise DatasetError(
            "the two tables share no case and label; compare evaluations of the same references",
            code="CASES_UNMATCHED",
        )
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
            notes.append(f"only in the {name} table, and left out: {listed(alone, limit=20)}")
    if first.definitions != second.definitions:
        notes.append(
            f"the tables differ in their definitions: first {first.definitions.short()}; "
            f"second {second.definitions.short()}"
        )
    return tuple(notes)


def _difference(label: str, metric: str, pairs: list[tuple[LabelScores, LabelScores]], most: int) -> PairedDifference:
    cases = [MovedCase(a.case, float(getattr(a, metric)), float(getattr(b, metric))) for a, b in pairs]
    cases = [case for case in cases if not (math.isnan(case.first) or math.isnan(case.second))]
    # A table read from a CSV file has ten digits; numbers that agree to nine are taken as equal.
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
    """The middle change; `nan` halfway between minus and plus infinity."""
    ordered = np.sort(changes)
    if ordered.size and math.isinf(ordered[0]) and ordered[(ordered.size - 1) // 2] == -math.inf:
        return math.nan if ordered[ordered.size // 2] == math.inf else -math.inf
    return order_statistic(ordered, 0.5)


def _signed_rank_p(changes: NDArray[np.float64]) -> float:
    """Wilcoxon's p-value. Only ranks count, so an infinite change is simply the largest."""
    if not changes.size:
        return math.nan
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
    """Share of all ways to give the ranks a sign whose sum is at least as far from even; ties included."""
    from scipy.stats import rankdata

    # Tied ranks may be halves; twice the rank is a whole number. `ways[s]` is the number of ways to reach the sum s.
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
