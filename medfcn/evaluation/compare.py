"""Two evaluations of the same cases, case by case: size, certainty and place of the differences.

The two sides are A and B, and every difference is A − B.
"""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from medfcn.datasets import find_masks
from medfcn.datasets.tables import Ids, ids_of
from medfcn.errors import DatasetError, MissingFileError
from medfcn.evaluation.cohort import Grouping, find_cohort
from medfcn.evaluation.definitions import Definitions
from medfcn.evaluation.evaluate import evaluate
from medfcn.evaluation.label_summary import PartlyLabelled
from medfcn.evaluation.matching import NO_PREDICTION, Masks
from medfcn.evaluation.paired_differences import SIDES, Comparison, paired_difference
from medfcn.evaluation.score_table import ScoreTable, read_scores
from medfcn.evaluation.scores import LabelScores
from medfcn.evaluation.significance import holm
from medfcn.labels.label_map import LabelsLike
from medfcn.progress import Progress
from medfcn.runs.folder import SCORES_FILE
from medfcn.text import counted, listed
from medfcn.volumes.options import DEFAULT_OPTIONS, ReadOptions

_SAME_ML = 1e-6
"""Share by which two volumes of one reference may differ, for tables have ten digits."""
METRICS = ("dice", "nsd", "hd95_mm", "assd_mm")
"""The columns of `scores.csv` that are compared by default."""


def side_names(*sides: object) -> tuple[str, str]:
    """Names of two sets of predictions: the shortest ends of their paths that differ, else `first` and `second`.

    Example:
        >>> side_names("runs/new/masks", "runs/old/masks"), side_names({}, "masks")
        (('new/masks', 'old/masks'), ('first', 'masks'))
    """
    parts = [Path(side).absolute().parts if isinstance(side, str | os.PathLike) else () for side in sides]
    length = next((n for n in range(1, max(map(len, parts))) if parts[0][-n:] != parts[1][-n:]), 1)
    first, second = ("/".join(of[-length:]) or name for of, name in zip(parts, SIDES, strict=True))
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
        >>> import numpy as np
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
            return read_scores(Path(source))
    return source


def compare_tables(
    first: ScoreTable,
    second: ScoreTable,
    *,
    metrics: Sequence[str] = METRICS,
    most: int = 5,
    sides: tuple[str, str] = SIDES,
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
        both = (f"{name}: {listed(table.labels)}" for name, table in zip(sides, (first, second), strict=True))
        remedy = "compare evaluations of the same references"
        if not set(first.labels) & set(second.labels):
            remedy = "give --labels, by which the masks of both are read"
        raise DatasetError(
            f"the two tables share no case and label ({listed(both, separator='; ')}); {remedy}",
            code="CASES_UNMATCHED",
        )
    cohort = second.cohort if second.cohort.is_clustered and not first.cohort.is_clustered else first.cohort
    labels = [label for label in first.labels if any(label == other for other, _ in shared)]
    differences = [
        paired_difference(
            label, metric, [(ours[key], theirs[key]) for key in shared if key[0] == label], most, cohort
        )
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
    notes += [f"{' and '.join(names)}: {note}" for note in _of_its_own(first) if note in second.notes]
    for name, table in zip(names, (first, second), strict=True):
        notes += [f"{name}: {text}" for text in table.failure_notes]
        other = second if table is first else first
        notes += [f"{name}: {note}" for note in _of_its_own(table) if note not in other.notes]
        absent = {row.case for row in table.rows if row.status == "prediction_missing"} - dict(table.failures).keys()
        if absent:
            notes.append(f"{name}: without a usable mask, which counts as a miss: {listed(sorted(absent), limit=20)}")
        labels = {label for label, _ in shared}
        if only := [label for label in table.labels if label not in labels]:
            notes.append(f"{'labels' if len(only) > 1 else 'a label'} only in {name}, and left out: {listed(only)}")
        alone = sorted(
            {row.case for row in table.rows if row.label in labels and (row.label, row.case) not in shared}
        )
        if alone:
            notes.append(f"only in {name}, and left out: {listed(alone, limit=20)}")
    if first.definitions != second.definitions:
        notes.append(
            f"the tables differ in their definitions: {names[0]} {first.definitions.short()}; "
            f"{names[1]} {second.definitions.short()}"
        )
    notes += _note_on_references(first, second, shared)
    rows = (row for table in (first, second) for row in table.rows if (row.label, row.case) in shared)
    if partly := PartlyLabelled.among(rows):
        notes.append(partly.text(len({case for _, case in shared})))
    return tuple(notes)


def _note_on_references(first: ScoreTable, second: ScoreTable, shared: set[tuple[str, str]]) -> Iterator[str]:
    """Names the cases whose references are of other sizes: the two sides were scored by other masks, or readers."""
    ours, theirs = (
        {(row.label, row.case): row.reference_ml for row in table.rows if (row.label, row.case) in shared}
        for table in (first, second)
    )
    sizes = [(case, size, theirs[label, case]) for (label, case), size in ours.items()]
    other = sorted({case for case, size, same in sizes if abs(size - same) > _SAME_ML * max(size, same)})
    if other:
        yield (
            f"the references of {counted(len(other), 'case')} have other volumes on one side than on the other, so "
            f"the two were not scored by the same masks: {listed(other, limit=20)}; score both by one folder"
        )


def _of_its_own(table: ScoreTable) -> Iterator[str]:
    """The notes of a table without which its scores would be misread, but for those that are said otherwise."""
    said = (table.cohort.unstated, *table.failure_notes)
    return (note for note in table.notes if note not in said and not note.startswith(NO_PREDICTION))


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
