"""Reports, composed: which files are read for `report.html`, and what is told of the model.

`medfcn.reporting.html` writes the page; here its cases are found and read, one after the other.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from medfcn.datasets import find_dataset, find_inputs, find_masks, require_complete
from medfcn.errors import DatasetError, MedfcnError, MissingFileError
from medfcn.evaluation import Definitions, ScoreTable, evaluate
from medfcn.evaluation.matching import Masks, Meaning, Pairs, chosen_references, find_meaning, pair_cases
from medfcn.files import refuse_existing_file
from medfcn.labels import IGNORED, LabelCodec, LabelMap, read_mask
from medfcn.labels.sidecar import MaskRecord
from medfcn.labels.whole_numbers import values_in
from medfcn.progress import Progress, Silent
from medfcn.reporting.html import About, PredictedCase, write_prediction_report, write_report
from medfcn.reporting.provenance import (
    facts_of,
    failures_beside,
    labels_of_run,
    log_of_run,
    validation_table,
)
from medfcn.reporting.upright import CaseVolumes
from medfcn.runs.folder import RunFolder
from medfcn.volumes import Volume, VolumeLike, as_volume
from medfcn.volumes.names import stem_of

__all__ = ["images_beside", "predict_report", "report", "train_report"]

Images = str | os.PathLike[str] | Mapping[str, VolumeLike | Sequence[VolumeLike]]
"""A folder of images, a dataset, one file, or images by case id; a list holds a case's channels."""


def report(
    predictions: Masks,
    references: Masks,
    output: Path | str,
    *,
    images: Images | None = None,
    labels: LabelMap | str | None = None,
    definitions: Definitions | None = None,
    cases: Iterable[str] | None = None,
    table: ScoreTable | None = None,
    run: Path | str | None = None,
    title: str = "Evaluation",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write `report.html` of predictions held against references.

    Args:
        predictions: As in `evaluate`.
        references: As in `evaluate`.
        output: The file to write.
        images: What the masks were drawn on. Unless given, those of `references` where that is a dataset; without
            any, masks are shown on an empty ground.
        labels: As in `evaluate`; the same as were given for `table`.
        definitions: As in `evaluate`.
        cases: As in `evaluate`.
        table: The scores, where they are there already; else they are made.
        run: The run folder of the model, for its training curves and settings.
        title: In large letters.
        overwrite: Replace an existing file.
        progress: Where messages go.

    Returns:
        `output`.

    Raises:
        OutputExistsError: `output` exists, and `overwrite` is false.
        MissingFileError: A folder is not there.
        DatasetError: No prediction has the id of a reference.
        SettingsError: The labels cannot be.
    """
    refuse_existing_file(output, overwrite=overwrite)
    if run is not None and not Path(run).is_dir():
        raise MissingFileError(f"{run}: no such run folder; check the path")
    pictures = images_beside(references) if images is None else _images_at(images)
    references = chosen_references(references, cases)
    pairs = pair_cases(predictions, references)
    meaning = find_meaning(pairs, references, labels)
    if table is None:
        table = evaluate(predictions, references, labels=labels, definitions=definitions)
    shown = _ScoredCases(pairs, meaning, table.labels, pictures)
    about = About(
        title=title,
        facts=facts_of(pairs.predictions.values(), run),
        log=log_of_run(run),
        expected_dice=_expected_of_scored(pairs, meaning),
    )
    with (progress or Silent()).task("report", len(table.cases)) as task:
        return write_report(
            output,
            table,
            shown.read,
            about=about,
            parts=_part_names(meaning.labels),
            on_case=lambda _done, _all, case: task.advance(case),
        )


def train_report(
    run: Path | str,
    dataset: Path | str,
    *,
    output: Path | str | None = None,
    allow_outside: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write the report of a run's validation cases.

    Args:
        run: A finished run folder: its `validation/` holds masks and `scores.csv`; or a folder of folds, with the
            scores of all and the masks in each.
        dataset: The dataset it was trained on, for images and references.
        output: The file to write; `report.html` in the run folder unless given.
        allow_outside: As in `train`.
        overwrite: Replace an existing file.
        progress: Where messages go.

    Returns:
        The file.

    Raises:
        OutputExistsError: The file exists, and `overwrite` is false.
        MissingFileError: The run has no validation, or the dataset is not there.
        DatasetError: The dataset does not hold the validation cases, or one of them is not complete any more.
    """
    run = Path(run)
    path = Path(output) if output is not None else RunFolder(run).report
    refuse_existing_file(path, overwrite=overwrite)
    table = validation_table(run)
    labels = labels_of_run(run)
    due = set(table.cases)
    lies = require_complete(find_dataset(dataset, allow_outside=allow_outside).keep(due))
    found = {case.id: case for case in lies.cases}
    references: dict[str, VolumeLike] = {case.id: case.label for case in found.values() if case.label is not None}
    if not references:
        raise DatasetError(
            f"{Path(dataset).name}: holds none of the validation cases of {run.name}; "
            "give the dataset it was trained on"
        )
    found_masks = [find_masks(model.validation) for model in RunFolder(run).models()]
    masks = {case: mask for each in found_masks for case, mask in each.items() if case in due}
    pairs = Pairs(references, dict(masks), tuple(sorted(due - set(masks))), ())
    meaning = Meaning(labels, others=labels.written_codec)
    pictures: dict[str, Sequence[VolumeLike]] = {case.id: list(case.images) for case in found.values()}
    cases = _ScoredCases(pairs, meaning, table.labels, pictures)
    about = About(
        title=f"Validation of {run.resolve().name}",
        subtitle="validation cases",
        facts=facts_of((), run),
        log=log_of_run(run),
    )
    with (progress or Silent()).task("report", len(table.cases)) as task:
        return write_report(
            path,
            table,
            cases.read,
            about=about,
            parts=_part_names(labels),
            on_case=lambda _done, _all, case: task.advance(case),
        )


def predict_report(
    masks: Path | str,
    images: Images,
    *,
    output: Path | str | None = None,
    title: str = "Predictions",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write the lighter report of masks without references: masks over images, and volumes.

    Args:
        masks: A folder that `medfcn predict` wrote, or one mask of it, each mask with its `.json`.
        images: What was predicted.
        output: The file to write; unless given, `report.html` in the folder, or `<case>.html` beside the one mask.
        title: In large letters.
        overwrite: Replace an existing file.
        progress: Where messages go.

    Returns:
        The file.

    Raises:
        OutputExistsError: The file exists, and `overwrite` is false.
        MissingFileError: The masks or the images are not there.
    """
    masks = Path(masks)
    if output is None:
        output = masks / RunFolder.report if masks.is_dir() else masks.with_name(f"{stem_of(masks)}.html")
    refuse_existing_file(output, overwrite=overwrite)
    paths = find_masks(masks)
    pictures = _images_at(images)
    if len(paths) == len(pictures) == 1 and masks.is_file():
        pictures = dict(zip(paths, pictures.values(), strict=True))
    records = {case: MaskRecord.beside(path) for case, path in paths.items()}
    cases = _PredictedCases(paths, records, pictures)
    expected = {case: _expected_dice(record) for case, record in records.items()}
    about = About(title=title, facts=facts_of(paths.values(), None), expected_dice=expected)
    with (progress or Silent()).task("report", len(paths)) as task:
        return write_prediction_report(
            output,
            cases.rows(),
            cases.labels,
            cases.read,
            about=about,
            parts=_part_names(cases.label_map),
            failures=failures_beside(masks),
            on_case=lambda _done, _all, case: task.advance(case),
        )


def images_beside(references: Masks | Images) -> dict[str, Sequence[VolumeLike]]:
    """The images of a dataset by case id, one for each channel; none where the references are no dataset.

    The folder `labels` of a dataset stands for the dataset.
    """
    if isinstance(references, Mapping):
        return {}
    folder = Path(references)
    places = [folder] if folder.name != "labels" else [folder, folder.parent]
    for place in places:
        try:
            return {case.id: list(case.images) for case in find_dataset(place).cases}
        except MedfcnError:
            continue
    return {}


def _images_at(images: Images) -> dict[str, Sequence[VolumeLike]]:
    if isinstance(images, Mapping):
        return {
            str(case): image if isinstance(image, list) else [cast(VolumeLike, image)]
            for case, image in images.items()
        }
    found = images_beside(images)
    return found or {case.id: list(case.images) for case in find_inputs(images)}


def _shown_image(
    images: Mapping[str, Sequence[VolumeLike]], case: str, notes: list[str], hashes: dict[str, str]
) -> Volume | None:
    """The first channel of a case; why there is none goes to the notes."""
    given = images.get(case)
    if not given:
        return None
    try:
        image = as_volume(given[0])
    except MedfcnError as error:
        notes.append(f"the image is not shown: {error}")
        return None
    if len(given) > 1:
        notes.append(f"The first of {len(given)} channels is shown.")
    _note_hash(hashes, "image", image)
    return image


def _note_hash(hashes: dict[str, str], name: str, volume: Volume) -> None:
    if volume.sha256:
        hashes[name] = volume.sha256


def _part_names(labels: LabelMap | None) -> tuple[str, ...] | None:
    """What is drawn of labels that overlap; None for others, which are drawn themselves."""
    return None if labels is None or not labels.overlapping else tuple(overlap.name for overlap in labels.overlaps)


def _expected_dice(record: MaskRecord | None) -> dict[str, float]:
    """The expected Dice of a mask by label; empty where its record does not say it."""
    return {
        label: math.nan if dice is None or not 0 <= dice <= 1 else dice
        for label, _, dice, _ in (record and record.by_label) or ()
    }


def _expected_of_scored(pairs: Pairs, meaning: Meaning) -> dict[str, dict[str, float]]:
    """What was expected of masks of the very labels that are scored."""
    if meaning.labels is None:
        return {}
    records = {case: MaskRecord.beside(mask) for case, mask in pairs.predictions.items()}
    return {
        case: _expected_dice(record)
        for case, record in records.items()
        if record and record.labels and record.labels.entries == meaning.labels.entries
    }


@dataclass(frozen=True)
class _ScoredCases:
    """Reads cases of an evaluation when the report asks for them."""

    pairs: Pairs
    meaning: Meaning
    labels: tuple[str, ...]
    images: Mapping[str, Sequence[VolumeLike]]

    def read(self, case: str) -> CaseVolumes:
        notes: list[str] = []
        hashes: dict[str, str] = {}
        masks: dict[str, Volume | None] = {"reference": None, "prediction": None}
        for kind, given in (("reference", self.pairs.references), ("prediction", self.pairs.predictions)):
            if case not in given:
                notes.append(f"There is no {kind} of this case.")
                continue
            try:
                mask = read_mask(given[case], labels=self.meaning.asked)
                _note_hash(hashes, kind, mask)
                masks[kind] = mask.with_array(self._codec(case, kind, mask).encode(mask.array))
            except MedfcnError as error:
                notes.append(f"the {kind} is not shown: {error}")
        drawn = masks["reference"]
        share = 0.0 if drawn is None else np.mean(drawn.array == IGNORED)
        if share:
            notes.append(f"Nobody labelled {100 * share:.3g} % of the voxels: what is found there counts nowhere.")
        image = _shown_image(self.images, case, notes, hashes)
        return CaseVolumes(image, drawn, masks["prediction"], tuple(notes), hashes=hashes)

    def _codec(self, case: str, kind: str, mask: Volume) -> LabelCodec:
        """The meaning of a mask's values in the table's labels, or in the overlaps of these."""
        labels, ignored, is_reference = self.meaning.labels, self.meaning.ignored, kind == "reference"
        codec = labels.reference_codec if labels and is_reference else self.meaning.codec(case)
        if codec is not None:
            return codec
        index = {name: place for place, name in enumerate(self.labels, start=1)}
        names = {value: self.meaning.names.get(value, str(value)) for value in values_in(mask.array) - ignored}
        indices = {value: index[name] for value, name in names.items() if name in index}
        return LabelCodec(indices | (dict.fromkeys(ignored, IGNORED) if is_reference else {}))


@dataclass(frozen=True)
class _PredictedCases:
    """Reads masks without references, with the records beside them."""

    masks: Mapping[str, Path]
    records: Mapping[str, MaskRecord | None]
    images: Mapping[str, Sequence[VolumeLike]]

    @property
    def label_map(self) -> LabelMap | None:
        """The labels of the first record that names any."""
        return next((record.labels for record in self.records.values() if record and record.labels), None)

    @property
    def labels(self) -> tuple[str, ...]:
        found = self.label_map
        return found.names if found is not None else ("mask",)

    def rows(self) -> list[PredictedCase]:
        """Volumes and flags of each mask, in the order of the ids."""
        rows = []
        for case in sorted(self.masks):
            record = self.records[case] or MaskRecord()
            volumes = self._measured(case) if record.volumes_ml is None else record.volumes_ml
            rows.append(PredictedCase(case, dict(volumes), record.flags))
        return rows

    def _measured(self, case: str) -> dict[str, float]:
        """Volumes of a mask whose record does not say them."""
        try:
            mask = read_mask(self.masks[case])
        except MedfcnError:
            return {}
        labels, indices = self.label_map, self._codec(mask).encode(mask.array)
        counts = {self.labels[0]: np.count_nonzero(indices)} if labels is None else labels.voxel_counts(indices)
        return {name: float(count * mask.voxel_ml) for name, count in counts.items()}

    def _codec(self, mask: Volume) -> LabelCodec:
        labels = self.label_map
        return LabelCodec(dict.fromkeys(values_in(mask.array), 1)) if labels is None else labels.written_codec

    def read(self, case: str) -> CaseVolumes:
        notes: list[str] = []
        hashes: dict[str, str] = {}
        prediction = None
        try:
            mask = read_mask(self.masks[case])
            _note_hash(hashes, "prediction", mask)
            prediction = mask.with_array(self._codec(mask).encode(mask.array))
        except MedfcnError as error:
            notes.append(f"the prediction is not shown: {error}")
        image = _shown_image(self.images, case, notes, hashes)
        return CaseVolumes(image, None, prediction, tuple(notes), has_reference=False, hashes=hashes)
