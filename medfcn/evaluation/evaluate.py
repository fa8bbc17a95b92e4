"""A folder of predictions and a folder of references -> a table of scores."""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from medfcn.errors import DatasetError, GeometryMismatchError, MedfcnError
from medfcn.evaluation.matching import Masks, Meaning, Pairs, find_meaning, pair_cases
from medfcn.evaluation.scores import Definitions, LabelScores, absent_row, score_case
from medfcn.evaluation.table import ScoreTable
from medfcn.labels import LabelMap, read_mask
from medfcn.labels.values import original_values, values_of
from medfcn.progress import Progress, Silent
from medfcn.volumes import Volume, VolumeLike, require_same_grid
from medfcn.volumes.geometry import corner_displacement_mm

__all__ = ["evaluate"]

_NOTHING = "nothing drawn or found"


def evaluate(
    predictions: Masks,
    references: Masks,
    *,
    labels: LabelMap | str | None = None,
    tolerance_mm: float = 1.0,
    definitions: Definitions | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> ScoreTable:
    """Score predictions against references, matched by case id.

    Every reference is due: one without a prediction is a miss of every label, and is named in the table's
    notes. A prediction without a reference is named and left out. A case that cannot be read, or whose masks
    are not on one grid, is a failure: named, and not in the averages. Voxels that a reference ignores count
    nowhere.

    Args:
        predictions: A folder of masks `<case>.nii.gz` (medfcn's or another tool's), one file, or masks by
            case id.
        references: A folder of masks, a dataset (its labels), one file, or masks by case id.
        labels: What to score: a `LabelMap`, or text such as `"hippocampus=1+2"` or `"organ=1,ignore=255"`; labels
            that overlap (`"whole=1+2,core=2"`) are each scored whole. Unless given, the labels of the predictions'
            `<case>.json`, else the values found, with names (or nnU-Net's regions) where a `dataset.json` lies with
            the references. How predictions are read is told in `medfcn.evaluation.matching.find_meaning`.
        tolerance_mm: For `nsd`.
        definitions: All settings at once, in place of `tolerance_mm`.
        threads: Cases in parallel; as many as there are processors unless given. The scores do not depend on
            it.
        progress: Where messages go.

    Returns:
        A row for each case and label.

    Raises:
        MissingFileError: A folder is not there.
        DatasetError: No prediction has the id of a reference, or no mask holds any label.
        SettingsError: The labels or the tolerance cannot be.

    Example:
        >>> import numpy as np
        >>> drawn, found = np.zeros((2, 4, 4, 4), dtype=np.uint8)
        >>> drawn[1:3, 1:3, 1:3] = found[1:3, 1:3, 1] = 1
        >>> table = evaluate({"case_1": (found, np.eye(4))}, {"case_1": (drawn, np.eye(4))}, labels="organ=1")
        >>> table.rows[0].status, round(table.rows[0].dice, 3), table.rows[0].hd_mm
        ('ok', 0.667, 1.0)
    """
    definitions = definitions or Definitions(tolerance_mm=tolerance_mm)
    pairs = pair_cases(predictions, references)
    meaning = find_meaning(pairs, references, labels)
    scored, failures = _score_all(pairs, meaning, definitions, threads or _processors(), progress or Silent())
    notes = (*pairs.notes(), *meaning.notes, *_stray_values(scored, meaning))
    rows = _rows_of_found_values(scored, meaning) if meaning.labels is None else _rows(scored)
    return ScoreTable(rows, definitions, notes, failures)


@dataclass(frozen=True)
class _ScoredCase:
    """The rows of a case, and the values that its masks held; of the reference also those that count nowhere."""

    rows: tuple[LabelScores, ...]
    drawn: frozenset[int] = frozenset()
    found: frozenset[int] = frozenset()
    ignored: frozenset[int] = frozenset()


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _score_all(
    pairs: Pairs, meaning: Meaning, definitions: Definitions, threads: int, progress: Progress
) -> tuple[list[_ScoredCase], tuple[tuple[str, str], ...]]:
    """Score every case, in the order of the ids; what a user can mend becomes a failure."""

    def score(case: str) -> _ScoredCase | MedfcnError:
        try:
            return _score_one(case, pairs, meaning, definitions)
        except MedfcnError as error:
            return error

    scored: list[_ScoredCase] = []
    failures: list[tuple[str, str]] = []
    with (
        progress.task("evaluate", len(pairs.references)) as task,
        ThreadPoolExecutor(max_workers=max(1, threads)) as executor,
    ):
        try:
            for case, outcome in zip(pairs.references, executor.map(score, pairs.references), strict=True):
                if isinstance(outcome, MedfcnError):
                    failures.append((case, str(outcome)))
                else:
                    scored.append(outcome)
                task.advance(case)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
    return scored, tuple(failures)


def _score_one(case: str, pairs: Pairs, meaning: Meaning, definitions: Definitions) -> _ScoredCase:
    reference = read_mask(pairs.references[case], labels=meaning.asked)
    given = pairs.predictions.get(case)
    prediction = None if given is None else read_mask(given, labels=meaning.asked)
    drawn = values_of(reference.array)
    ignored, drawn = drawn & meaning.ignored, drawn - meaning.ignored
    if prediction is not None and given is not None:
        _require_one_grid(prediction, _place(given, case), reference, _place(pairs.references[case], case))
    found = set() if prediction is None else values_of(prediction.array)
    labels, places = meaning.labels, meaning.places(case)
    if labels is None:
        # A case without any label still has a row, from which those of the others' labels are made.
        labels = meaning.of_values((drawn | found) - meaning.ignored or {_no_ignored(meaning)})
        places = original_values(labels)
    rows = score_case(prediction, reference, labels, case=case, definitions=definitions, prediction_values=places)
    return _ScoredCase(rows, frozenset(drawn), frozenset(found), frozenset(ignored))


def _place(mask: VolumeLike, case: str) -> str:
    """Where a mask lies, for messages; of one that is in memory, whose it is."""
    return os.fspath(mask) if isinstance(mask, str | os.PathLike) else f"that of {case}"


def _require_one_grid(prediction: Volume, found: str, reference: Volume, drawn: str) -> None:
    """Refuse to compare masks on different grids, in words that say which is which.

    Raises:
        GeometryMismatchError: They are; both places and both shapes are named.
    """
    try:
        require_same_grid(reference, prediction)
    except GeometryMismatchError as error:
        off = ""
        if prediction.shape == reference.shape:
            distance = corner_displacement_mm(reference.affine, prediction.affine, reference.shape)
            turned = f"orientation {prediction.orientation} against {reference.orientation}"
            off = f" ({distance:.3g} mm apart, {turned})"
        raise GeometryMismatchError(
            f"the prediction {found}, shape {prediction.shape}, is on another grid than the reference {drawn}, shape "
            f"{reference.shape}{off}; resample it to the reference's grid, or predict on the volume that "
            "the reference was drawn on"
        ) from error


def _no_ignored(meaning: Meaning) -> int:
    """The smallest value that is not ignored."""
    return next(value for value in itertools.count(1) if value not in meaning.ignored)


def _rows(scored: list[_ScoredCase]) -> tuple[LabelScores, ...]:
    return tuple(row for case in scored for row in case.rows)


def _rows_of_found_values(scored: list[_ScoredCase], meaning: Meaning) -> tuple[LabelScores, ...]:
    """Every case gets a row for every value that any case holds."""
    values = set().union(*(case.drawn | case.found for case in scored)) - meaning.ignored
    if scored and not values:
        raise DatasetError("no mask holds any label: all voxels of all references and predictions are 0")
    names = meaning.of_values(values).names if values else ()
    rows = []
    for case in scored:
        by_label = {row.label: row for row in case.rows}
        rows += [by_label.get(name) or absent_row(case.rows[0], name) for name in names]
    return tuple(rows)


def _stray_values(scored: list[_ScoredCase], meaning: Meaning) -> tuple[str, ...]:
    """Say which values were compared with nothing, or with no name."""
    drawn, found, ignored = (
        set().union(*(getattr(case, side) for case in scored)) for side in ("drawn", "found", "ignored")
    )
    notes = []
    if ignored:
        notes.append(
            f"the references hold {_listed(ignored)}, voxels that nobody labelled: they count nowhere, and are "
            "background in both masks for distances, volumes and lesions"
        )
    if meaning.labels is None:
        unfound, unheard = drawn - found, found - drawn - meaning.ignored
        if found & meaning.ignored:
            notes.append(f"the predictions hold {_listed(found & meaning.ignored)} too: background there")
        if unheard and drawn:
            notes.append(
                f"the predictions hold {_listed(unheard)}, which no reference does; if that is a label of the "
                "references under another value, rewrite the predictions or give --labels"
            )
        if unfound and found:
            notes.append(
                f"the references hold {_listed(unfound)}, which no prediction does; if the masks merge or renumber "
                "labels, give --labels (or keep the <case>.json beside each mask)"
            )
        return tuple(notes)
    unnamed = drawn - original_values(meaning.labels).keys()
    if unnamed:
        notes.append(f"the references also hold {_listed(unnamed)}, which no label names: background here")
    return tuple(notes)


def _listed(values: set[int]) -> str:
    return ", ".join(str(value) for value in sorted(values)[:12])
