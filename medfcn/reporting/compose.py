"""Reports: which volumes `report.html` shows, and which facts about the model.

`medfcn.reporting.html` writes the page; here its cases are found.
"""

import math
from collections.abc import Iterable
from pathlib import Path

from medfcn.datasets import Dataset, find_dataset, find_masks, require_complete
from medfcn.datasets.find import listed_masks
from medfcn.datasets.tables import Ids
from medfcn.errors import DatasetError, MissingFileError
from medfcn.evaluation import Comparison, Definitions, ScoreTable, evaluate, read_scores
from medfcn.evaluation.matching import Masks, Meaning, Pairs, chosen_references, find_meaning, pair_cases
from medfcn.files import refuse_existing_file
from medfcn.labels import LabelMap
from medfcn.labels.colours import label_table
from medfcn.labels.label_map import LabelsLike
from medfcn.labels.sidecar import MaskRecord
from medfcn.progress import Progress
from medfcn.reporting.html import About, write_prediction_report, write_report
from medfcn.reporting.provenance import course_of_run, facts_of, failures_beside, labels_of_run, log_of_run
from medfcn.reporting.shown_cases import Images, PredictedCases, ScoredCases, images_at, images_beside
from medfcn.runs.folder import RunFolder
from medfcn.volumes import ReadOptions
from medfcn.volumes.names import stem_of
from medfcn.volumes.options import DEFAULT_OPTIONS


def report(
    predictions: Masks,
    references: Masks,
    output: Path | str,
    *,
    images: Images | None = None,
    labels: LabelsLike | None = None,
    definitions: Definitions | None = None,
    cases: Ids | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
    table: ScoreTable | None = None,
    comparison: Comparison | None = None,
    run: Path | str | None = None,
    title: str = "Evaluation",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write `report.html`: predictions compared with references.

    Args:
        predictions: As in `evaluate`.
        references: As in `evaluate`.
        output: The file.
        images: The images of the masks; by default those of `references` if it is a data set. Without any, masks are
            shown on an empty ground.
        labels: As in `evaluate`; the same as for `table`.
        definitions: As in `evaluate`.
        cases: As in `evaluate`.
        options: As in `evaluate`, for images too.
        table: The scores, if they are known, with their patients and strata; by default they are computed.
        comparison: The result of `compare`, if the predictions were compared with others.
        run: The run folder of the model, for its training curves and settings.
        title: The heading.
        overwrite: Replace an existing file.
        progress: Where progress is reported.

    Returns:
        `output`.

    Raises:
        OutputExistsError: `output` exists, and `overwrite` is false.
        MissingFileError: A folder does not exist.
        DatasetError: No prediction has the id of a reference.
        SettingsError: The labels are invalid.
    """
    refuse_existing_file(output, overwrite=overwrite)
    if run is not None and not Path(run).is_dir():
        raise MissingFileError(f"{run}: there is no such run folder; check the path")
    pictures = images_beside(references, options) if images is None else images_at(images)
    references = listed_masks(references, bids=options.bids)
    patients: dict[str, str] | None = None
    if table is not None and cases is not None:  # the ids of patients stand for cases that the table knows
        cases, patients = (*table.cases, *(case for case, _ in table.failures)), {}
    references = chosen_references(references, cases, options, predictions=predictions, patients=patients)
    pairs = pair_cases(predictions, references, options)
    meaning = find_meaning(pairs, references, labels)
    if table is None:
        table = evaluate(predictions, references, labels=labels, definitions=definitions, options=options)
    about = About(
        title=title,
        facts=facts_of(pairs.predictions.values(), run),
        log=log_of_run(run),
        overlaps=_overlap_names(meaning.labels),
        expected_dice=_expected_of_scored(pairs, meaning),
        comparison=comparison,
        colours=_chosen_colours(MaskRecord.beside(mask) for mask in pairs.predictions.values()),
    )
    read_case = ScoredCases(pairs, meaning, table.labels, pictures).read
    return write_report(output, table, read_case, about=about, progress=progress)


def train_report(
    run: Path | str,
    dataset: Path | str,
    *,
    output: Path | str | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
    allow_outside: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write the report of a run's validation cases.

    Args:
        run: A finished run folder with masks and scores in `validation/`; or a folder of folds, with the scores of
            all and the masks in each.
        dataset: The data set of the training, with images and references; each file is read once.
        output: The file; by default `report.html` in the run folder.
        options: As in `train`.
        allow_outside: As in `train`.
        overwrite: Replace an existing file.
        progress: Where progress is reported.

    Returns:
        The file.

    Raises:
        OutputExistsError: The file exists, and `overwrite` is false.
        MissingFileError: The run has no validation, or the data set does not exist.
        DatasetError: The data set does not contain the validation cases, or one of them is not complete any more.
    """
    run = Path(run)
    path = RunFolder(run).report if output is None else Path(output)
    refuse_existing_file(path, overwrite=overwrite)
    table, labels = read_scores(RunFolder(run).validation), labels_of_run(run)
    found = find_dataset(dataset, allow_outside=allow_outside, bids=options.bids)
    cases = _validation_cases(RunFolder(run), found, table, labels, options)
    about = About(
        title=f"Validation of {run.resolve().name}",
        subtitle="validation cases",
        facts=facts_of((), run),
        log=log_of_run(run),
        overlaps=_overlap_names(labels),
        course=course_of_run(run),
    )
    return write_report(path, table, cases.read, about=about, progress=progress)


def _validation_cases(
    run: RunFolder, dataset: Dataset, table: ScoreTable, labels: LabelMap, options: ReadOptions
) -> ScoredCases:
    """The validation cases of a run, with images and references of a data set."""
    needed = set(table.cases)
    complete = require_complete(dataset.keep(needed)).cases
    references = {case.id: case.label for case in complete if case.label is not None}
    if not references:
        raise DatasetError(
            f"{dataset.root.name}: contains none of the validation cases of {run.path.name}; give the data set of "
            "its training",
            code="CASES_UNMATCHED",
        )
    masks = {
        case: mask for model in run.models() for case, mask in find_masks(model.validation).items() if case in needed
    }
    pairs = Pairs(references, masks, tuple(sorted(needed - set(masks))), (), options)
    meaning = Meaning(labels, others=labels.written_codec)
    return ScoredCases(pairs, meaning, table.labels, {case.id: list(case.images) for case in complete})


def predict_report(
    masks: Path | str,
    images: Images,
    *,
    output: Path | str | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write the lighter report of masks without references: masks over images, and volumes.

    Args:
        masks: A folder that `medfcn predict` wrote, or one mask of it, each mask with its `.json`.
        images: The predicted images.
        output: The file; by default `report.html` in the folder, or `<case>.html` beside the one mask.
        options: As in `predict`.
        overwrite: Replace an existing file.
        progress: Where progress is reported.

    Returns:
        The file.

    Raises:
        OutputExistsError: The file exists, and `overwrite` is false.
        MissingFileError: The masks or the images do not exist.
    """
    masks = Path(masks)
    if output is None:
        output = masks / RunFolder.report if masks.is_dir() else masks.with_name(f"{stem_of(masks)}.html")
    refuse_existing_file(output, overwrite=overwrite)
    paths = dict(sorted(find_masks(masks).items()))
    pictures = images_at(images)
    if len(paths) == len(pictures) == 1 and masks.is_file():
        pictures = dict(zip(paths, pictures.values(), strict=True))
    records = {case: MaskRecord.of_file(path) for case, path in paths.items()}
    cases = PredictedCases(paths, records, pictures, options)
    about = About(
        title="Predictions",
        overlaps=_overlap_names(cases.label_map),
        failures=failures_beside(masks),
        facts=facts_of(paths.values(), None),
        expected_dice={case: _expected_dice(record) for case, record in records.items()},
        colours=_chosen_colours(records.values()),
    )
    return write_prediction_report(
        output, tuple(paths), cases.labels, cases.read, cases.row, about=about, progress=progress
    )


def _overlap_names(labels: LabelMap | None) -> tuple[str, ...]:
    """The names of the overlaps that masks contain; none unless labels overlap."""
    return tuple(overlap.name for overlap in labels.overlaps) if labels and labels.overlapping else ()


def _chosen_colours(records: Iterable[MaskRecord | None]) -> dict[str, str]:
    """The colours of labels and overlaps, if the first record that has labels says that some were chosen."""
    record = next((record for record in records if record and record.labels), None)
    if record is None or record.labels is None or not record.colours:
        return {}
    return {label.name: label.colour for label in label_table(record.labels, record.colours)}


def _expected_of_scored(pairs: Pairs, meaning: Meaning) -> dict[str, dict[str, float]]:
    """The expected Dice of masks whose recorded labels are those that are scored."""
    records = {case: MaskRecord.of_file(mask) for case, mask in pairs.predictions.items()}
    return {
        case: _expected_dice(record)
        for case, record in records.items()
        if record and record.labels and meaning.labels and record.labels.entries == meaning.labels.entries
    }


def _expected_dice(record: MaskRecord | None) -> dict[str, float]:
    """The expected Dice of a mask by label; empty if its record does not contain it."""
    return {
        of_label.label: dice if (dice := of_label.expected_dice) is not None and 0 <= dice <= 1 else math.nan
        for of_label in (record and record.by_label) or ()
    }
