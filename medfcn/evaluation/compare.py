"""Two evaluations of the same cases, case by case: size, certainty and place of the differences.

The two sides are A and B, and every difference is A − B.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.datasets import find_masks
from medfcn.datasets.tables import Ids, ids_of
from medfcn.errors import DatasetError, MissingFileError
from medfcn.evaluation.cohort import Cohort, Grouping, find_cohort
from medfcn.evaluation.definitions import Definitions
from medfcn.evaluation.estimates import INTERVAL, OVER_PATIENTS, mean_interval, mean_of, order_statistic
from medfcn.evaluation.evaluate import evaluate
from medfcn.evaluation.label_summary import SHARES, PartlyLabelled
from medfcn.evaluation.matching import Masks
from medfcn.evaluation.score_table import ScoreTable
from medfcn.evaluation.scores import LabelScores
from medfcn.evaluation.significance import holm, least_corrected_p, patient_changes, signed_rank_p
from medfcn.evaluation.summary_text import cases_of_patients, shown_number
from medfcn.files import plain_json
from medfcn.labels.label_map import LabelsLike
from medfcn.progress import Progress
from medfcn.runs.folder import SCORES_FILE
from medfcn.text import Shown, aligned, counted, listed, page
from medfcn.volumes.options import DEFAULT_OPTIONS, ReadOptions

METRICS = ("dice", "nsd", "hd95_mm", "assd_mm")
_HEADINGS = ("label", "metric", "A − B", "95 % interval", "median", "p", "p (Holm)", "A better", "B better", "equal")
_SIDES = ("first", "second")
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
    sides: tuple[str, str] = _SIDES
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


def side_names(*sides: object) -> tuple[str, str]:
    """Names of two sets of predictions: the shortest ends of their paths that differ, else `first` and `second`.

    Example:
        >>> side_names("runs/new/masks", "runs/old/masks"), side_names({}, "masks")
        (('new/masks', 'old/masks'), ('first', 'masks'))
    """
    parts = [Path(side).absolute().parts if isinstance(side, str | os.PathLike) else () for side in sides]
    length = next((n for n in range(1, max(map(len, parts))) if parts[0][-n:] != parts[1][-n:]), 1)
    first, second = ("/".join(of[-length:]) or name for of, name in zip(parts, _SIDES, strict=True))
    return first, second


def compare(
    first: Masks | ScoreTable,
    second: Masks | ScoreTable,
    references: Masks,
    *,
    labels: LabelsLike | None = None,
    definitions: Definitions | None = None,
    cases: Ids | None = None,
    metrics: Sequence[str] = METRICS,
    most: int = 5,
    options: ReadOptions = DEFAULT_OPTIONS,
    threads: int | None = None,
    progress: Progress | None = None,
    groups: Grouping = None,
    group_by: str | None = None,
    sides: tuple[str, str] | None = None,
) -> Comparison:
    """Compare two sets of predictions, case by case.

    `medfcn evaluate FIRST REFERENCES --compare SECOND` does the same.

    Args:
        first: The predictions in question, A: masks as in `evaluate`, a folder of their scores, or a table of scores.
        second: The predictions that they are compared with, B: the same kinds.
        references: As in `evaluate`.
        labels: As in `evaluate`.
        definitions: As in `evaluate`; by default those of the first table of scores that is given, if there is one.
        cases: As in `evaluate`.
        metrics: As in `compare_tables`.
        most: As in `compare_tables`.
        options: As in `evaluate`.
        threads: As in `evaluate`.
        progress: Where progress is reported.
        groups: As in `evaluate`; by default the patients of a table of scores that is given.
        group_by: As in `evaluate`.
        sides: The names of A and B; by default the ends of their paths that differ.

    Returns:
        A − B for each label and metric, over the cases that have a value in both.

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
    given = [side if isinstance(side, ScoreTable) else masks_or_scores(side) for side in (first, second)]
    if definitions is None:
        scored = (side.definitions for side in given if isinstance(side, ScoreTable))
        definitions = next(scored, None)
    cases = None if cases is None else ids_of(cases)
    tables = []
    for side in given:
        if isinstance(side, ScoreTable):
            if groups is not None or group_by is not None:
                cohort = find_cohort(references, side.cases, groups=groups, group_by=group_by, bids=options.bids)
                side = replace(side, cohort=cohort)
            tables.append(side)
            continue
        table = evaluate(
            side,
            references,
            labels=labels,
            definitions=definitions,
            cases=cases,
            options=options,
            threads=threads,
            progress=progress,
            groups=groups,
            group_by=group_by,
        )
        tables.append(table)
    return compare_tables(*tables, metrics=metrics, most=most, sides=sides or side_names(first, second))


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
    first: ScoreTable,
    second: ScoreTable,
    *,
    metrics: Sequence[str] = METRICS,
    most: int = 5,
    sides: tuple[str, str] = _SIDES,
) -> Comparison:
    """Compare two tables of scores, case by case.

    Intervals and tests are over patients if one of the tables states them.

    Args:
        first: The table in question, A.
        second: The table that it is compared with, B.
        metrics: Columns of `scores.csv`. In columns in millimetres the smaller number is the better.
        most: Number of the most changed cases to name.
        sides: The names of A and B.

    Returns:
        A − B for each label and metric, over the cases that have a value in both.

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
    cohort = second.cohort if second.cohort.is_clustered and not first.cohort.is_clustered else first.cohort
    labels = [label for label in first.labels if any(label == other for other, _ in shared)]
    differences = [
        _difference(label, metric, [(ours[key], theirs[key]) for key in shared if key[0] == label], most, cohort)
        for label in labels
        for metric in metrics
    ]
    corrected = holm([difference.p_value for difference in differences])
    differences = [replace(difference, p_corrected=p) for difference, p in zip(differences, corrected, strict=True)]
    notes = _notes(first, second, set(shared), sides)
    if any(metric == "nsd" or metric.endswith("_mm") for metric in metrics):
        notes += _note_on_lost_misses([(ours[key], theirs[key]) for key in shared], sides)
    return Comparison(tuple(differences), notes, sides, (*first.failures, *second.failures))


def _notes(
    first: ScoreTable, second: ScoreTable, shared: set[tuple[str, str]], sides: tuple[str, str]
) -> tuple[str, ...]:
    both = first.cohort, second.cohort
    notes = [cohort.unstated for cohort in both if cohort.unstated and not any(of.is_clustered for of in both)][:1]
    names = _lettered(sides)
    for name, table in zip(names, (first, second), strict=True):
        notes += [f"{name}: {text}" for text in table.failure_notes]
        absent = {row.case for row in table.rows if row.status == "prediction_missing"} - dict(table.failures).keys()
        if absent:
            notes.append(f"{name}: without a usable mask, which counts as a miss: {listed(sorted(absent), limit=20)}")
        alone = sorted({row.case for row in table.rows if (row.label, row.case) not in shared})
        if alone:
            notes.append(f"only in {name}, and left out: {listed(alone, limit=20)}")
    if first.definitions != second.definitions:
        notes.append(
            f"the tables differ in their definitions: {names[0]} {first.definitions.short()}; "
            f"{names[1]} {second.definitions.short()}"
        )
    rows = (row for table in (first, second) for row in table.rows if (row.label, row.case) in shared)
    if partly := PartlyLabelled.among(rows):
        notes.append(partly.text(len({case for _, case in shared})))
    return tuple(notes)


def _note_on_lost_misses(pairs: list[tuple[LabelScores, LabelScores]], sides: tuple[str, str]) -> tuple[str, ...]:
    """Counts the misses of each side that have no pair, as the other side's distances and NSD are unknown."""
    words = []
    for name, ordered in zip(_lettered(sides), (pairs, [(b, a) for a, b in pairs]), strict=True):
        lost = sum(one.is_miss and other.is_partly_labelled and math.isnan(other.nsd) for one, other in ordered)
        words += [f"{counted(lost, 'miss', 'misses')} of {name}"] * bool(lost)
    reason = "for less than half is labelled there, and the other side has no distance and no NSD"
    return (f"not in the rows of distances and NSD: {listed(words)}, {reason}",) if words else ()


def _lettered(sides: tuple[str, str]) -> list[str]:
    return [f"{letter} ({name})" for letter, name in zip("AB", sides, strict=True)]


def _difference(
    label: str, metric: str, pairs: list[tuple[LabelScores, LabelScores]], most: int, cohort: Cohort
) -> PairedDifference:
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
