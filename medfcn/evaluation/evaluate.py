"""A folder of predictions and a folder of references -> a table of scores."""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medfcn.datasets.find import listed_masks
from medfcn.datasets.tables import Ids
from medfcn.errors import DatasetError, GeometryMismatchError, MedfcnError, MemoryShortError
from medfcn.evaluation.calibration import CaseBins, bins_of_case, calibration_of
from medfcn.evaluation.classes import Confusion, class_report, confusion_of_case
from medfcn.evaluation.cohort import Grouping, find_cohort, patients_of
from medfcn.evaluation.definitions import Definitions
from medfcn.evaluation.edges import NOTABLE_SHARE
from medfcn.evaluation.images_given import refuse_images
from medfcn.evaluation.matching import (
    Masks,
    Meaning,
    Pairs,
    chosen_references,
    find_meaning,
    labelled_in,
    pair_cases,
)
from medfcn.evaluation.mixed_up import notes_on_records, notes_on_twins
from medfcn.evaluation.score_table import ScoreTable
from medfcn.evaluation.scores import LabelScores, absent_row, score_case
from medfcn.labels import read_mask
from medfcn.labels.image_like import is_image
from medfcn.labels.label_map import LabelMap, LabelsLike
from medfcn.labels.partial_labels import notes_on_drawn, partly_drawn
from medfcn.labels.sidecar import MaskRecord
from medfcn.labels.whole_numbers import values_in
from medfcn.memory_errors import one_memory_error
from medfcn.progress import Progress, reporting
from medfcn.text import counted, listed
from medfcn.threads import in_threads
from medfcn.volumes import ReadOptions, Volume, VolumeLike, require_same_grid
from medfcn.volumes.geometry import corner_displacement_mm
from medfcn.volumes.options import DEFAULT_OPTIONS
from medfcn.volumes.same_voxels import voxels_sha256


def evaluate(
    predictions: Masks,
    references: Masks,
    *,
    labels: LabelsLike | None = None,
    tolerance_mm: float = 1.0,
    definitions: Definitions | None = None,
    cases: Ids | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
    threads: int | None = None,
    progress: Progress | None = None,
    groups: Grouping = None,
    group_by: str | None = None,
    by: str | Sequence[str] = (),
    cohort: str | os.PathLike[str] | None = None,
    labelled: Mapping[str, Sequence[str]] | None = None,
) -> ScoreTable:
    """Score predictions against references, matched by case id.

    Every reference needs a prediction; a missing one counts as a miss for every label, and the table's notes name
    it. A prediction without a reference is named and left out. A case that cannot be read, or whose masks are not on
    one grid, is a failure: it is named and not in the averages. Voxels that a reference ignores are not counted.

    Args:
        predictions: A folder of masks `<case>.nii.gz` (from medfcn or another tool), one file, or masks by case id.
        references: A folder of masks, a data set (its labels), one file, or masks by case id.
        labels: The labels to score: text such as `"hippocampus=1+2"`, `"organ=1,ignore=255"` or `"lesion=1-42"`, a
            mapping such as `{"lesion": "any"}`, or a `LabelMap`.
            Labels that overlap (`"whole=1+2,core=2"`) are each scored whole. By default the labels in the
            `<case>.json` files of the predictions; without these, every value in the masks, with names (or
            nnU-Net's regions) from a `dataset.json` beside the references. `find_meaning` in
            `medfcn.evaluation.matching` says how the values of predictions are read.
        tolerance_mm: For `nsd`.
        definitions: All settings at once, instead of `tolerance_mm`.
        cases: Ids of the references to score, or of patients with all theirs; all by default.
        options: What to opt in to when reading masks that are otherwise refused.
        threads: Number of cases scored in parallel; by default the number of processors. Scores do not depend on it.
        progress: Where progress is reported.
        groups: A CSV of `id, group`, or the patient of each case by id. Intervals are then over patients: several
            cases of one patient are no independent evidence. By default the groups of a table of references; without
            any, a note names ids that seem to be of one patient.
        group_by: Patients from the ids (instead of `groups`): `stem`, `none` or a regular expression.
        by: Columns, such as `scanner` or `diagnosis`, by whose values the summary also gives the scores, with the gap
            between the best and the worst. Cases without a value are a stratum of their own.
        cohort: A table with these columns and a column `id`, of cases or patients; by default the references, if they
            are a table, or the table of groups.
        labelled: The names of the labels that were drawn, by case id, of the cases of which only some were; by
            default as the references state, if they are a table or a `dataset.json`.

    Returns:
        A row for each case and label, without the labels that were not drawn in a case.

    Raises:
        MissingFileError: A folder does not exist.
        DatasetError: No prediction has the id of a reference, all predictions or all references are images, a case
            in `cases` has no reference, or no mask contains any label, or none that was drawn; a case has no
            patient, or a column is in no table.
        LabelError: `labelled` (or that of the references) names a label that is not scored, or labels overlap.
        SettingsError: The labels, the tolerance or the grouping are invalid.

    Example:
        >>> import numpy as np
        >>> reference, prediction = np.zeros((2, 4, 4, 4), dtype=np.uint8)
        >>> reference[1:3, 1:3, 1:3] = prediction[1:3, 1:3, 1] = 1
        >>> table = evaluate(
        ...     {"case_1": (prediction, np.eye(4))}, {"case_1": (reference, np.eye(4))}, labels="organ=1"
        ... )
        >>> table.rows[0].status, round(table.rows[0].dice, 3), table.rows[0].hd_mm
        ('ok', 0.667, 1.0)
    """
    definitions = definitions or Definitions(tolerance_mm=tolerance_mm)
    references = listed_masks(references, bids=options.bids)
    named = labelled_in(references, bids=options.bids) if labelled is None else labelled
    patients = None if cases is None else patients_of(references, groups, group_by, bids=options.bids)
    begun: list[str] = []
    chosen = chosen_references(
        references, cases, options, predictions=predictions, patients=patients, say=begun.append
    )
    pairs = pair_cases(predictions, chosen, options)
    if cases is not None:  # other predictions were not meant
        pairs = replace(pairs, unmatched=())
    of_cases = find_cohort(
        references,
        tuple(pairs.references),
        groups=groups,
        group_by=group_by,
        by=(by,) if isinstance(by, str) else by,
        table=cohort,
        bids=options.bids,
    )
    meaning = find_meaning(pairs, references, labels)
    drawn = {} if meaning.labels is None else partly_drawn(named, meaning.labels, pairs.references)
    scored, failures = _score_all(pairs, meaning, definitions, threads or _processors(), reporting(progress))
    unstated = (of_cases.unstated,) if of_cases.unstated else ()
    notes = (
        *begun,
        *pairs.notes(),
        *unstated,
        *_notes_on_order(scored),
        *_notes_on_copies(pairs, scored),
        *notes_on_records(_records_of(scored), pairs),
        *notes_on_twins(_records_of(scored), {case.rows[0].case: case.reference_sha256 for case in scored}),
        *meaning.notes,
        *_notes_on_values(scored, meaning),
    )
    if meaning.labels is None:
        rows = _rows_of_all_values(scored, meaning, definitions)
        drawn = partly_drawn(named, _labels_of_all_values(scored, meaning), pairs.references) if scored else {}
    else:
        rows = tuple(row for case in scored for row in case.rows)
    rows = tuple(row for row in rows if row.label in drawn.get(row.case, (row.label,)))
    notes += notes_on_drawn([drawn.get(case.rows[0].case, ()) for case in scored])
    notes += _notes_on_unscored(scored, rows)
    wholly = [case.confusion for case in scored if case.rows[0].case not in drawn]
    classes = class_report(rows, wholly) if definitions.classes else None
    calibration = calibration_of(case.calibration for case in scored if case.rows[0].case not in drawn)
    notes = (*notes, *notes_at_edges(rows, definitions))
    return ScoreTable(rows, definitions, notes, failures, of_cases, classes, calibration)


@dataclass(frozen=True)
class _ScoredCase:
    """The rows of a case, and the values in its masks; `ignored` are values of the reference that do not count.

    `reordered` is true if the prediction is stored along other axes than the reference; `unusable` is the error for
    which it counts as a miss, and None for most; `images` are the sides that seem to be no masks; `record` is the
    `<case>.json` beside the prediction, as far as it is of this very file; `reference_sha256` is of the voxels of the
    reference, and empty if it has no label.
    """

    rows: tuple[LabelScores, ...]
    reference: frozenset[int]
    prediction: frozenset[int]
    ignored: frozenset[int]
    reordered: bool = False
    unusable: MedfcnError | None = None
    images: frozenset[str] = frozenset()
    record: MaskRecord | None = None
    reference_sha256: str = ""
    confusion: Confusion = field(default_factory=dict)
    calibration: CaseBins = field(default_factory=CaseBins)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _score_all(
    pairs: Pairs, meaning: Meaning, definitions: Definitions, threads: int, progress: Progress
) -> tuple[list[_ScoredCase], tuple[tuple[str, str], ...]]:
    """Score every case, in the order of the ids; an error that a user can fix becomes a failure."""

    def score(case: str) -> _ScoredCase | MedfcnError:
        try:
            with one_memory_error(case):
                return _score_one(case, pairs, meaning, definitions)
        except MemoryShortError:
            raise
        except MedfcnError as error:
            return error

    cases = list(pairs.references)
    with progress.task("evaluate", len(cases)) as task:
        outcomes = in_threads(score, cases, threads=threads, advance=task.advance)
    both = dict(zip(cases, outcomes, strict=True))
    refuse_images("references", {case: _no_mask("references", outcome) for case, outcome in both.items()})
    refuse_images("predictions", {case: _no_mask("predictions", both[case]) for case in pairs.predictions})
    scored = [outcome for outcome in outcomes if isinstance(outcome, _ScoredCase)]
    errors = (outcome.unusable if isinstance(outcome, _ScoredCase) else outcome for outcome in outcomes)
    failures = [(case, str(error)) for case, error in zip(cases, errors, strict=True) if error is not None]
    return scored, tuple(failures)


def _no_mask(side: str, outcome: _ScoredCase | MedfcnError) -> MedfcnError | bool | None:
    """The error with which a mask was read, or True if it is an image; of a reference without an error, nothing."""
    if isinstance(outcome, MedfcnError):
        return outcome if side == "references" else None
    return side in outcome.images or (outcome.unusable if side == "predictions" else None)


def _score_one(case: str, pairs: Pairs, meaning: Meaning, definitions: Definitions) -> _ScoredCase:
    reference = read_mask(pairs.references[case], labels=meaning.known, options=pairs.options)
    given = pairs.predictions.get(case)
    if given is None:
        return _score_pair(case, None, reference, meaning, definitions)
    try:
        stored = read_mask(given, labels=meaning.known, options=pairs.options)
        prediction = stored.reordered_to(reference)
        _require_one_grid(prediction, _place(given, case), reference, _place(pairs.references[case], case))
        scored = _score_pair(case, prediction, reference, meaning, definitions)
        bins, record = CaseBins(), MaskRecord.of_file(given)
        if meaning.labels is not None and record is not None:
            bins = bins_of_case(Path(str(given)), record, prediction, reference, meaning.labels, pairs.options)
        return replace(scored, reordered=prediction is not stored, calibration=bins, record=record)
    except MemoryShortError:
        raise
    except MedfcnError as error:
        # A prediction that cannot be used costs as much as one that is not there.
        return replace(_score_pair(case, None, reference, meaning, definitions), unusable=error)


def _score_pair(
    case: str, prediction: Volume | None, reference: Volume, meaning: Meaning, definitions: Definitions
) -> _ScoredCase:
    in_reference = values_in(reference.array)
    in_prediction = set() if prediction is None else values_in(prediction.array)
    labels, codec = meaning.labels, meaning.of_prediction(case)
    if labels is None:
        # A case without any label still needs a row, from which the rows of the other cases' labels are made.
        labels = meaning.of_values((in_reference | in_prediction) - meaning.ignored or {_no_ignored(meaning)})
        codec = labels.written_codec
    rows = score_case(prediction, reference, labels, case=case, definitions=definitions, prediction_codec=codec)
    confusion: Confusion = {}
    if definitions.classes:
        confusion = confusion_of_case(prediction, reference, labels, case=case, prediction_codec=codec)
    ignored = meaning.ignored
    sides = (("references", reference, in_reference), ("predictions", prediction, in_prediction))
    images = frozenset(side for side, mask, values in sides if mask is not None and is_image(mask.array, len(values)))
    return _ScoredCase(
        rows,
        frozenset(in_reference - ignored),
        frozenset(in_prediction),
        frozenset(in_reference & ignored),
        confusion=confusion,
        images=images,
        reference_sha256=voxels_sha256(reference) if in_reference - ignored - {0} else "",
    )


def _place(mask: VolumeLike, case: str) -> str:
    """The file of a mask, for messages; its case if it is in memory."""
    return os.fspath(mask) if isinstance(mask, str | os.PathLike) else f"that of {case}"


def _require_one_grid(prediction: Volume, predicted_at: str, reference: Volume, reference_at: str) -> None:
    """Refuse to compare masks on different grids, and say which mask is which.

    Raises:
        GeometryMismatchError: The grids differ; the message names both files and both shapes.
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
            f"the prediction {predicted_at}, shape {prediction.shape}, is on another grid than the reference "
            f"{reference_at}, shape {reference.shape}{off}; resample it to the reference's grid, or predict on the "
            "volume of the reference",
            code=error.code,
            field=error.field,
        ) from error


def _no_ignored(meaning: Meaning) -> int:
    """The smallest value that is not ignored."""
    return next(value for value in itertools.count(1) if value not in meaning.ignored)


def _rows_of_all_values(
    scored: list[_ScoredCase], meaning: Meaning, definitions: Definitions
) -> tuple[LabelScores, ...]:
    """A row of every case for every value in any mask."""
    values = _all_values(scored, meaning)
    if scored and not values:
        raise DatasetError(
            "no mask holds any label: all voxels of all references and predictions are 0", code="LABELS_MISSING"
        )
    names = meaning.of_values(values).names if values else ()
    rows = []
    for case in scored:
        by_label = {row.label: row for row in case.rows}
        rows += [by_label.get(name) or absent_row(case.rows[0], name, definitions) for name in names]
    return tuple(rows)


def _all_values(scored: list[_ScoredCase], meaning: Meaning) -> set[int]:
    """The values in any mask, without the ignored ones."""
    return set().union(*(case.reference | case.prediction for case in scored)) - meaning.ignored


def _labels_of_all_values(scored: list[_ScoredCase], meaning: Meaning) -> LabelMap:
    """The labels that a case may say were drawn: those in any mask, and those that are named and in none."""
    return meaning.of_values(_all_values(scored, meaning) | set(meaning.named.names))


def _notes_on_unscored(scored: list[_ScoredCase], rows: Sequence[LabelScores]) -> tuple[str, ...]:
    """Name the cases of which no label is scored, because those that were drawn there are in no mask.

    Raises:
        DatasetError: No case is scored at all.
    """
    left = {row.case for row in rows}
    lost = [case.rows[0].case for case in scored if case.rows[0].case not in left]
    if not lost:
        return ()
    found = f"nothing is scored in {counted(len(lost), 'case')}: no mask holds a label that was drawn there"
    if not left:
        raise DatasetError(
            f"{found}; correct the column labelled, or give --labels", code="LABELS_MISSING", field="labelled"
        )
    return (f"{found}: {listed(lost, limit=20)}",)


def _notes_on_order(scored: list[_ScoredCase]) -> tuple[str, ...]:
    """Name the predictions that are stored along other axes than their references."""
    moved = [case.rows[0].case for case in scored if case.reordered]
    if not moved:
        return ()
    return (f"{counted(len(moved), 'prediction')} re-ordered to the axes of the reference: {listed(moved)}",)


def _records_of(scored: list[_ScoredCase]) -> dict[str, MaskRecord]:
    """The record of each prediction that has one, by case."""
    return {case.rows[0].case: case.record for case in scored if case.record is not None}


def _notes_on_copies(pairs: Pairs, scored: list[_ScoredCase]) -> tuple[str, ...]:
    """Say that predictions are the references, which nothing is learned from."""
    files = {case: (mask, pairs.references[case]) for case, mask in pairs.predictions.items()}
    files = {case: both for case, both in files.items() if all(isinstance(mask, str | os.PathLike) for mask in both)}
    own = [case for case, both in files.items() if len({os.path.realpath(str(mask)) for mask in both}) == 1]
    nothing = "their scores say nothing; give the masks of a model as predictions"
    if own:
        are = "is a file of the references itself" if len(own) == 1 else "are files of the references themselves"
        count = counted(len(pairs.predictions), "prediction")
        return (f"{len(own)} of {count} {are}: {nothing}",)
    dices = [row.dice for case in scored for row in case.rows if row.status != "both_empty"]
    if len(files) > 1 and len(files) == len(scored) and dices and set(dices) == {1.0}:
        return (f"every prediction equals its reference in every voxel; if they are copies, {nothing}",)
    return ()


def notes_at_edges(rows: Sequence[LabelScores], definitions: Definitions) -> Iterator[str]:
    """Name the labels whose masks end where the volume ends: there, they agree with every prediction."""
    rule = (
        "a prediction that fills the volume agrees there; --no-boundary-at-edges leaves these faces out"
        if definitions.boundary_at_edges
        else "these faces are left out"
    )
    found = []
    for label in dict.fromkeys(row.label for row in rows):
        of_label = [row for row in rows if row.label == label]
        first, second = (
            sum(getattr(row, side) > NOTABLE_SHARE for row in of_label)
            for side in ("reference_at_edges", "prediction_at_edges")
        )
        if first or second:
            masks = f"{first} of {counted(len(of_label), 'reference')}, {counted(second, 'prediction')}"
            found.append(f"{label} ({masks})")
    if found:
        share = f"{NOTABLE_SHARE:.0%}".replace("%", " %")
        yield f"more than {share} of the surface is at the end of the volume: {listed(found)}; {rule}"


def _notes_on_values(scored: list[_ScoredCase], meaning: Meaning) -> tuple[str, ...]:
    """Say which values were compared with nothing, or have no name."""
    in_references, in_predictions, ignored = (
        set().union(*(getattr(case, side) for case in scored)) for side in ("reference", "prediction", "ignored")
    )
    notes = []
    if ignored:
        notes.append(
            f"the references hold {_values(ignored)}, voxels that nobody labelled: they count nowhere, and a face "
            "towards one is no boundary"
        )
    if meaning.labels is not None:
        unnamed = in_references - meaning.labels.named_values
        if unnamed:
            notes.append(f"the references also hold {_values(unnamed)}, which no label names: background here")
        return tuple(notes)
    only_predicted, missed = in_predictions - in_references - meaning.ignored, in_references - in_predictions
    if in_predictions & meaning.ignored:
        notes.append(f"the predictions hold {_values(in_predictions & meaning.ignored)} too: background there")
    if only_predicted and in_references:
        notes.append(
            f"the predictions hold {_values(only_predicted)}, which no reference does; if that is a label of the "
            "references under another value, rewrite the predictions or give --labels"
        )
    if missed and in_predictions:
        notes.append(
            f"the references hold {_values(missed)}, which no prediction does; if the masks merge or renumber "
            "labels, give --labels (or keep the <case>.json beside each mask)"
        )
    return tuple(notes)


def _values(values: set[int]) -> str:
    return listed(sorted(values), limit=12)
