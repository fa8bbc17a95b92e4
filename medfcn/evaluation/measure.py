"""Masks without references: the size of each label, the intensity of the image inside it, and changes over time."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import msgspec

from medfcn.calls import called_with
from medfcn.datasets import find_inputs
from medfcn.datasets.layouts import bids_for, dataset_at, require_bids
from medfcn.datasets.tables import Ids, chosen_ids
from medfcn.errors import DatasetError, MedfcnError, MemoryShortError
from medfcn.evaluation.changes import Change, changes_of, read_pairs, require_known
from medfcn.evaluation.images_given import refuse_images
from medfcn.evaluation.matching import Masks, Meaning, Pairs, find_meaning, lone_masks, stated_patients
from medfcn.files import csv_bytes, make_folder, write_bytes, write_csv
from medfcn.labels import LabelMap, read_mask
from medfcn.labels.label_map import LabelsLike
from medfcn.labels.measures import Intensity, measure_labels
from medfcn.labels.sidecar import CHANGED, MaskRecord
from medfcn.labels.volume_table import VolumeRow, volume_rows, volume_table, write_volumes
from medfcn.labels.whole_numbers import values_in
from medfcn.memory_errors import one_memory_error
from medfcn.progress import Progress, reporting
from medfcn.runs.folder import CHANGES_FILE, FAILURES_FILE, VOLUMES_FILE
from medfcn.runs.outputs import refuse_blocked, refuse_existing
from medfcn.text import Shown, aligned, counted, listed, page, shown
from medfcn.threads import in_threads
from medfcn.volumes import ReadOptions, Volume, VolumeLike, require_same_grid
from medfcn.volumes.options import DEFAULT_OPTIONS
from medfcn.volumes.reading import read_channels, volume_count

Channels = Mapping[str, Sequence[VolumeLike]]
"""The channels of each image, by case id."""
Timepoints = str | os.PathLike[str] | Sequence[tuple[str, str]]
"""A table as in `medfcn.evaluation.changes.read_pairs`, or pairs of case ids, the earlier first."""


@dataclass(frozen=True, kw_only=True)
class MeasureRequest:
    """The options of `measure`.

    Attributes:
        masks: A folder of masks `<case>.nii.gz` (from medfcn or another tool), one file, or masks by case id.
        images: A folder of images, a data set, one file, or images by case id, a list for several channels. Without
            any, intensities are not measured.
        output: The folder for `volumes.csv`, and for `changes.csv` with `pairs`; None writes nothing.
        labels: As in `evaluate`: by default the labels in the `<case>.json` files of the masks; without these, every
            value in the masks, with the names of a `dataset.json` beside them.
        pairs: Cases that are two times of one patient: a CSV with the columns `before` and `after`, or with `id`,
            `group` and `time`; or pairs of ids.
        cases: Ids of the masks to measure, or of patients with all theirs; all by default.
        options: What to opt in to when reading files that are otherwise refused.
        overwrite: Replace an existing output.
        threads: Number of cases measured in parallel.
        progress: Where progress is reported.
    """

    masks: Masks = field(kw_only=False)
    images: str | os.PathLike[str] | Mapping[str, VolumeLike | Sequence[VolumeLike]] | None = field(
        default=None, kw_only=False
    )
    output: Path | str | None = field(default=None, kw_only=False)
    labels: LabelsLike | None = None
    pairs: Timepoints | None = None
    cases: Ids | None = None
    options: ReadOptions = DEFAULT_OPTIONS
    overwrite: bool = False
    threads: int = 1
    progress: Progress | None = None


@dataclass(frozen=True)
class Measurements(Shown):
    """The sizes of all labels of some masks.

    Attributes:
        records: By case, in the order of the ids, the record of each mask with its sizes and intensities.
        changes: The change of each label between two times of a patient.
        failures: Id and error, in one line, of each mask that could not be measured.
        notes: Facts that a reader of the sizes needs.
    """

    records: Mapping[str, MaskRecord]
    changes: tuple[Change, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[VolumeRow, ...]:
        """One for each case and label, with the intensity of the first channel."""
        return tuple(row for case, record in self.records.items() for row, _ in volume_rows(case, record))

    def to_csv(self, path: Path | str) -> None:
        """Write all rows, as `volumes.csv`."""
        write_bytes(path, csv_bytes(*volume_table(self.records)))

    def to_text(self) -> str:
        """A table of all rows, then one of the changes, then the notes, and which masks are missing above."""
        sizes: list[tuple[str, ...]] = [("case", "label", "ml", "voxels", "mean", "spread")]
        sizes += [
            (row.case, row.label, _number(row.volume_ml), str(row.voxels), _number(row.mean), _number(row.spread))
            for row in self.rows
        ]
        lines = aligned(sizes, right=range(2, 6))
        if self.changes:
            changed: list[tuple[str, ...]] = [("before", "after", "label", "ml", "ml after", "change ml", "change %")]
            changed += [(one.before, one.after, one.label, *map(_number, one[3:])) for one in self.changes]
            lines += ["", *aligned(changed, right=range(3, 7))]
        notes = list(self.notes)
        if self.failures:
            of_all = counted(len(self.failures) + len(self.records), "mask")
            failed = listed((case for case, _ in self.failures), limit=20)
            notes.append(f"{len(self.failures)} of {of_all} could not be measured: {failed}")
        return page([*lines, *(f"note: {note}" for note in notes)])


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4g}"


@called_with(MeasureRequest)
def measure(request: MeasureRequest) -> Measurements:
    """Measure existing masks: the volume of each label, the intensity inside it, and its change over time.

    Of masks that `predict` wrote, the table is the one that `predict` wrote. A mask that cannot be read, or is not on
    its image's grid, is a failure; the others are measured.

    Raises:
        OutputExistsError: The output exists, and `overwrite` is false.
        MissingFileError: The masks, the images or the table of pairs do not exist.
        DatasetError: There are no masks, no image has the id of a mask, or `pairs` or `cases` name one that is not
            there.
        SettingsError: The labels are invalid, or contradict a `<case>.json`.
        WriteError: The disk is full, or the folder may not be written to.
    """
    output = None if request.output is None else Path(request.output)
    if output is not None:
        refuse_existing(output, overwrite=request.overwrite)
        refuse_blocked(output, files=(VOLUMES_FILE, CHANGES_FILE, FAILURES_FILE))
    of_masks, of_images = (bids_for(path, request.options.bids) for path in (request.masks, request.images))
    if request.options.bids is not None and of_masks is of_images is None:
        require_bids(Path(str(request.masks)), request.options.bids)
    found = _chosen(lone_masks(request.masks, replace(request.options, bids=of_masks)), request, of_masks)
    pairs = read_pairs(request.pairs) if isinstance(request.pairs, str | os.PathLike) else tuple(request.pairs or ())
    require_known(pairs, found.predictions)
    images = {} if request.images is None else _images_of(request.images, found, of_images)
    measured = _Measuring(
        found, find_meaning(found, request.masks, request.labels), images, _channels_of(request, images)
    ).all(request.threads, reporting(request.progress))
    measured = replace(
        measured,
        changes=changes_of(pairs, {case: record.volumes_ml or {} for case, record in measured.records.items()}),
    )
    if output is not None:
        _write(output, measured)
    return measured


def _write(output: Path, measured: Measurements) -> None:
    make_folder(output)
    write_volumes(output / VOLUMES_FILE, measured.records)
    tables = (
        (CHANGES_FILE, Change._fields, measured.changes),
        (FAILURES_FILE, ("case", "error"), measured.failures),
    )
    for name, columns, rows in tables:
        if rows:
            write_csv(output / name, columns, rows)
        else:  # it belongs to the measurements that were replaced
            (output / name).unlink(missing_ok=True)


def _chosen(found: Pairs, request: MeasureRequest, bids: str | None) -> Pairs:
    if request.cases is None:
        return found
    patients = stated_patients(request.masks, bids)
    say = reporting(request.progress).say
    ids = chosen_ids(request.cases, found.predictions, lack="mask", patients=patients, say=say)
    chosen = {case: mask for case, mask in found.predictions.items() if case in ids}
    records = {case: labels for case, labels in found.records.items() if case in ids}
    return replace(found, predictions=chosen, records=records)


def _channels_of(request: MeasureRequest, images: Channels) -> tuple[str, ...]:
    """The names of the channels of images that are a data set; none of others."""
    if not isinstance(request.images, str | os.PathLike) or all(len(files) < 2 for files in images.values()):
        return ()
    with suppress(MedfcnError):
        return dataset_at(Path(request.images), allow_outside=False, bids=request.options.bids).channel_names
    return ()


def _images_of(
    images: str | os.PathLike[str] | Mapping[str, VolumeLike | Sequence[VolumeLike]], masks: Pairs, bids: str | None
) -> Channels:
    """The channels of each image, by the id of its mask.

    Raises:
        DatasetError: No image has the id of a mask.
    """
    ids = masks.predictions.keys()
    if isinstance(images, Mapping):
        given: dict[str, Sequence[VolumeLike]] = {
            str(case): image if isinstance(image, list) else [cast(VolumeLike, image)]
            for case, image in images.items()
        }
    else:
        # Files that end in _0000 and _0001 are channels of a case, or cases of their own: the masks' names tell.
        given = {}
        for count in (None, 1):
            cases = [case for case in find_inputs(images, channels=count, bids=bids) if not case.lacks]
            if len(ids & {case.id for case in cases}) > len(ids & given.keys()):
                given = {case.id: list(case.images) for case in cases}
        if len(given) == len(ids) == 1 and Path(images).is_file():
            given = dict(zip(ids, given.values(), strict=True))
    if not ids & given.keys():
        raise DatasetError(
            f"masks are named like {next(iter(ids))!r} and images like {next(iter(given), 'nothing')!r}, and no name "
            "is the same; give both the case's id as file name",
            code="CASES_UNMATCHED",
            field="images",
        )
    return {case: list(given[case]) for case in ids & given.keys()}


@dataclass(frozen=True)
class _Measuring:
    """Everything that is the same for all cases."""

    masks: Pairs
    meaning: Meaning
    images: Channels
    channel_names: tuple[str, ...] = ()

    def all(self, threads: int, progress: Progress) -> Measurements:
        """Measure every case, in the order of the ids; an error that a user can fix becomes a failure."""
        cases = list(self.masks.predictions)
        with progress.task("measure", len(cases)) as task:
            outcomes = in_threads(self._tried, cases, threads=threads, advance=task.advance)
        both = list(zip(cases, outcomes, strict=True))
        refuse_images(
            "masks", {case: outcome if isinstance(outcome, MedfcnError) else None for case, outcome in both}
        )
        records = {case: outcome for case, outcome in both if isinstance(outcome, MaskRecord)}
        names = tuple(dict.fromkeys(name for record in records.values() for name in record.volumes_ml or ()))
        if self.meaning.labels is None:
            order, count = sorted(names, key=self._value_of), {case: len(self.images.get(case, ())) for case in cases}
            records = {case: _with_labels(record, order, count[case]) for case, record in records.items()}
        without = [case for case in records if self.images and case not in self.images]
        notes = [*self.meaning.notes]
        if without:
            notes.append(f"no image of {counted(len(without), 'mask')}, without intensities: {listed(without)}")
        notes += [f"{case}: {CHANGED}" for case, record in records.items() if CHANGED in record.notes]
        most = max((len(each) for of in records.values() for each in (of.intensity or {}).values()), default=0)
        if most > 1:
            columns = listed(f"mean_{each} and spread_{each}{self._named(each)}" for each in range(2, most + 1))
            notes.append(
                f"mean and spread are of channel 1 of {most}{self._named(1)}, in the units of its file; "
                f"volumes.csv has the others: {columns}"
            )
        failures = tuple((case, str(outcome)) for case, outcome in both if isinstance(outcome, MedfcnError))
        return Measurements(records, (), failures, tuple(notes))

    def _named(self, channel: int) -> str:
        """The name of a channel, from 1, or of its file in the first case that has one, in brackets; or nothing."""
        if len(self.channel_names) >= channel and not self.channel_names[channel - 1].isdecimal():
            return f" ({self.channel_names[channel - 1]})"
        for files in self.images.values():
            if len(files) >= channel and isinstance(files[channel - 1], str | os.PathLike):
                return f" ({shown(Path(cast(str, files[channel - 1])).name)})"
        return ""

    def _value_of(self, name: str) -> tuple[int, str]:
        values = {named: value for value, named in self.meaning.named.names.items()}
        return (int(name) if name.isdecimal() else values.get(name, 0), name)

    def _tried(self, case: str) -> MaskRecord | MedfcnError:
        try:
            with one_memory_error(case):
                return self._one(case)
        except MemoryShortError:
            raise
        except MedfcnError as error:
            return error

    def _one(self, case: str) -> MaskRecord:
        given, options, labels = self.masks.predictions[case], self.masks.options, self.meaning.labels
        mask = read_mask(given, labels=self.meaning.known, options=options)
        codec = self.meaning.of_prediction(case)
        if labels is None:
            labels = self.meaning.of_values(values_in(mask.array) or {1})
            codec = labels.written_codec
        record = _record_of(given, mask, labels)
        channels = self._channels(case, mask, record.input_sha256)
        indices = codec.without_ignored.encode(mask.array)
        measures = measure_labels(indices, labels, [channel.array for channel in channels])
        if channels:
            files = len(self.images[case])
            record = msgspec.structs.replace(
                record, input_sha256=tuple(channel.sha256 for channel in channels)[:files]
            )
        return record.measured(measures, mask.voxel_ml)

    def _channels(self, case: str, mask: Volume, seen: Sequence[str]) -> tuple[Volume, ...]:
        """The channels of a case's image, in the order of the mask's voxels.

        Args:
            case: The case's id.
            mask: Its mask.
            seen: The hashes of the files that the model saw. If all of them are there, the others are left out.
        """
        sources, options = list(self.images.get(case, ())), self.masks.options
        if len(sources) == 1 and options.volume_index is None and (count := volume_count(sources[0])) > 1:
            volumes = read_channels(sources[0], count, options=options)
        else:
            volumes = tuple(channel for source in sources for channel in read_channels(source, 1, options=options))
        if seen and {volume.sha256 for volume in volumes} > set(seen):
            volumes = tuple(volume for volume in volumes if volume.sha256 in seen)
        channels = [volume.reordered_to(mask) for volume in volumes]
        for channel in channels:
            require_same_grid(channel, mask)
        return tuple(channels)


def _record_of(given: VolumeLike, mask: Volume, labels: LabelMap) -> MaskRecord:
    """The record beside a mask, if it is of this very mask; else one that knows the mask alone."""
    beside = MaskRecord.beside(given)
    if beside is None or not beside.mask_sha256:
        return MaskRecord(mask_sha256=mask.sha256, labels=labels)
    beside = beside.of_mask(mask.sha256)
    if beside.labels is None or beside.labels.entries != labels.entries:
        return msgspec.structs.replace(beside, expected_dice=None, review=None, labels=labels)
    return beside


def _with_labels(record: MaskRecord, names: Sequence[str], channels: int) -> MaskRecord:
    """The record of a mask that was measured value by value, with a size of each label of any mask."""
    volumes, voxels, intensity = record.volumes_ml or {}, record.voxels or {}, record.intensity or {}
    absent = (Intensity(None, None),) * channels
    return msgspec.structs.replace(
        record,
        volumes_ml={name: volumes.get(name, 0.0) for name in names},
        voxels={name: voxels.get(name, 0) for name in names},
        intensity={name: intensity.get(name, absent) for name in names},
    )
