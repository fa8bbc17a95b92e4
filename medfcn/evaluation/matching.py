"""Pairs of a prediction and its reference, and the meaning of the values of their voxels."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from medfcn.datasets import find_masks
from medfcn.datasets.cases import Dataset, NamedLabels
from medfcn.datasets.dataset_json import read_description
from medfcn.datasets.find import dataset_of_masks, listed_masks
from medfcn.datasets.listing import list_volumes
from medfcn.datasets.tables import Ids, chosen_ids
from medfcn.errors import DatasetError, MedfcnError, SettingsError
from medfcn.evaluation.structures import StructurePairs
from medfcn.labels import IGNORED, LabelCodec, LabelEntry, LabelMap, read_mask
from medfcn.labels.label_map import LabelsLike
from medfcn.labels.sidecar import OF_SEEN_CASES, MaskRecord
from medfcn.labels.structures import StructureFiles
from medfcn.labels.values import Value, ValueSet
from medfcn.labels.whole_numbers import numbers_text, values_in
from medfcn.runs.cases import SeenCases
from medfcn.runs.validation_masks import cases_of_validation, choices_on, labels_of_validation
from medfcn.text import counted, listed
from medfcn.volumes import ReadOptions, VolumeLike
from medfcn.volumes.options import DEFAULT_OPTIONS
from medfcn.volumes.refused import RefusedFile

Masks = str | os.PathLike[str] | Mapping[str, VolumeLike] | Dataset
"""A folder of masks, a data set, one file, or masks by case id."""
NO_PREDICTION = "no prediction for "
"""Begins the note on references without a prediction."""


@dataclass(frozen=True)
class Pairs:
    """Masks matched by case id.

    Attributes:
        references: By case id, in the order of the ids.
        predictions: By case id; only of cases that have a reference.
        missing: Ids without a prediction.
        unmatched: Ids of predictions without a reference.
        options: How the files are read.
        records: The labels in the `<case>.json` of predictions, or in the card of the run that validated with them,
            by case.
        seen: The predictions that are of cases or patients that their model saw, by their `<case>.json`.
    """

    references: Mapping[str, VolumeLike]
    predictions: Mapping[str, VolumeLike]
    missing: tuple[str, ...]
    unmatched: tuple[str, ...]
    options: ReadOptions = DEFAULT_OPTIONS
    records: Mapping[str, LabelMap] = field(default_factory=dict)
    seen: SeenCases = field(default_factory=SeenCases)

    def notes(self) -> tuple[str, ...]:
        """Facts about the matching that a reader of the scores needs."""
        notes = []
        if self.missing:
            notes.append(
                f"{NO_PREDICTION}{len(self.missing)} of {len(self.references)} references; each counts as a miss "
                f"of every label: {listed(self.missing, limit=20)}; to score some references only, give --cases FILE"
            )
        if self.unmatched:
            notes.append(
                f"no reference for {len(self.unmatched)} of the predictions, left out: "
                f"{listed(self.unmatched, limit=20)}"
            )
        notes += self.seen.lines(len(self.predictions), "prediction", of="of ", model="the model", limit=20)
        return tuple(notes)


def chosen_references(
    references: Masks,
    cases: Ids | None,
    options: ReadOptions = DEFAULT_OPTIONS,
    *,
    predictions: Masks | None = None,
    patients: Mapping[str, str] | None = None,
    say: Callable[[str], None] | None = None,
) -> Masks:
    """The references of some cases, by case id; with `None` all of them, as they are.

    The validation folder of a run has masks of its validation cases alone, so with `None` no others are due there.

    Args:
        references: All of them.
        cases: Ids of cases, or of patients with all their cases.
        options: How files are read.
        predictions: The masks that are scored.
        patients: The patient of each case; by default as the references state them, if they are a data set.
        say: As in `chosen_ids`.

    Raises:
        MissingFileError: The folder does not exist.
        DatasetError: A case has no reference.
    """
    if cases is None:
        return _due_in(predictions, references, options, say)
    found = _references_of(references, options.bids)
    if patients is None:
        patients = stated_patients(references, options.bids)
    chosen = chosen_ids(cases, found, lack="reference", patients=patients, say=say)
    return {case: mask for case, mask in found.items() if case in chosen}


def _due_in(
    predictions: Masks | None, references: Masks, options: ReadOptions, say: Callable[[str], None] | None
) -> Masks:
    """The references of which a mask is due: all, or of a run its validation cases and what else has a mask."""
    validated = cases_of_validation(predictions)
    if not isinstance(predictions, str | os.PathLike) or validated is None:
        return references
    say = say or (lambda line: None)
    for note in choices_on(predictions):
        say(note)
    found = _references_of(references, options.bids)
    due = found.keys() & (validated | _predictions_of(predictions).keys())
    if not due or due == found.keys():
        return references
    others = f"{len(found) - len(due)} of {counted(len(found), 'reference')}"
    say(f"{predictions} is of {counted(len(due), 'validation case')} of a run; {others} are of others, left out")
    return {case: mask for case, mask in found.items() if case in due}


def stated_patients(masks: Masks, bids: str | None = None) -> dict[str, str]:
    """The patients that a data set of masks states, by case id; empty if it states none."""
    dataset = None if isinstance(masks, Mapping) else dataset_of_masks(masks, bids=bids)
    if dataset is None or not dataset.has_groups:
        return {}
    return {case.id: case.group for case in dataset.all_cases}


def labelled_in(references: Masks, *, bids: str | None = None) -> dict[str, tuple[str, ...]]:
    """The names of the drawn labels, by case id, of the cases of which a table or `dataset.json` says so."""
    dataset = None if isinstance(references, Mapping) else dataset_of_masks(references, bids=bids)
    return {} if dataset is None else {case.id: case.labelled for case in dataset.all_cases if case.labelled}


def mask_ids(references: Masks, *, bids: str | None = None) -> tuple[str, ...]:
    """The ids of all references, in order.

    Raises:
        MissingFileError: The folder does not exist.
        DatasetError: It contains no masks.
    """
    return tuple(sorted(_references_of(references, bids)))


def pair_cases(predictions: Masks, references: Masks, options: ReadOptions = DEFAULT_OPTIONS) -> Pairs:
    """Match predictions and references by case id.

    Raises:
        MissingFileError: A folder does not exist.
        DatasetError: A folder contains no masks, or no prediction has the id of a reference.
    """
    theirs = _references_of(references, options.bids)
    ours = _predictions_of(predictions)
    if len(theirs) == len(ours) == 1 and all(_is_one_file(masks) for masks in (predictions, references)):
        ours = dict(zip(theirs, ours.values(), strict=True))
    if not theirs.keys() & ours.keys():
        raise DatasetError(
            f"predictions are named like {next(iter(ours))!r} and references like {next(iter(theirs))!r}, and no "
            "name is the same; give both the case's id as file name",
            code="CASES_UNMATCHED",
        )
    ids = sorted(theirs)
    matched, records, seen = _recorded({case: ours[case] for case in ids if case in ours})
    return Pairs(
        {case: _drawn_on(theirs[case], matched.get(case)) for case in ids},
        {case: _drawn_on(mask, theirs[case]) for case, mask in matched.items()},
        tuple(case for case in ids if case not in ours),
        tuple(sorted(ours.keys() - theirs.keys())),
        options,
        records,
        SeenCases(*(seen[note] for note in OF_SEEN_CASES)),
    )


def _drawn_on(mask: VolumeLike, other: VolumeLike | None) -> VolumeLike:
    """A mask, with the grid of the other one of its case where it is of DICOM structures without an image."""
    if isinstance(other, StructureFiles):
        other = None if other.is_dicom else next(iter(other.files.values()))
    return mask.on_grid_of(other) if isinstance(mask, StructureFiles) else mask


def lone_masks(masks: Masks, options: ReadOptions = DEFAULT_OPTIONS) -> Pairs:
    """Masks that are compared with nothing, in the order of their ids.

    Raises:
        MissingFileError: The folder does not exist.
        DatasetError: It contains no masks.
    """
    found = dict(sorted(_predictions_of(masks, options.bids).items()))
    matched, records, seen = _recorded(found)
    return Pairs({}, matched, (), (), options, records, SeenCases(*(seen[note] for note in OF_SEEN_CASES)))


def _recorded(
    predictions: Mapping[str, VolumeLike],
) -> tuple[dict[str, VolumeLike], dict[str, LabelMap], dict[str, tuple[str, ...]]]:
    """The predictions, those with a broken record refused, the labels of the records, the cases that a model saw."""
    matched, records = dict(predictions), dict[str, LabelMap]()
    seen: dict[str, tuple[str, ...]] = dict.fromkeys(OF_SEEN_CASES, ())
    for case, mask in predictions.items():
        try:
            record = MaskRecord.beside(mask)
        except MedfcnError as error:
            matched[case] = RefusedFile(Path(cast(str, mask)), error)
        else:
            labels = labels_of_validation(mask) if record is None else record.labels
            if labels is not None:
                records[case] = labels
            for note in OF_SEEN_CASES:
                if record is not None and note in record.notes:
                    seen[note] += (case,)
    return matched, records, seen


def _references_of(masks: Masks, bids: str | None) -> dict[str, VolumeLike]:
    if isinstance(masks, Mapping):
        return _given(masks, "references")
    return dict(find_masks(masks, bids=bids))


def _predictions_of(masks: Masks, bids: str | None = None) -> dict[str, VolumeLike]:
    if isinstance(masks, Mapping):
        return _given(masks, "predictions")
    if isinstance(masks, Dataset):
        return dict(find_masks(masks))
    folder = Path(masks)
    # nnU-Net leaves a dataset.json among its predictions; the masks beside it are meant, not a data set.
    beside = list_volumes(folder) if folder.is_dir() else None
    if beside is not None and beside.names:
        return {**beside.volumes, **beside.refused}
    return {
        case: replace(mask, empty_if_absent=True) if isinstance(mask, StructureFiles) else mask
        for case, mask in find_masks(folder, bids=bids).items()
    }


def _given(masks: Mapping[str, VolumeLike], what: str) -> dict[str, VolumeLike]:
    if not masks:
        raise DatasetError(f"{what}: none given; give at least one", code="MASKS_MISSING")
    return {str(case): mask for case, mask in masks.items()}


def _is_one_file(masks: Masks) -> bool:
    return not isinstance(masks, Mapping | Dataset) and Path(masks).is_file()


@dataclass(frozen=True)
class Meaning:
    """The labels to score, and the meaning of the values of every mask.

    Attributes:
        labels: The labels; `None` to score every value in the masks.
        named: The names that a `dataset.json` beside the references gives, for `labels=None`.
        recorded: By case, the meaning of the values of a prediction with a `<case>.json`.
        others: The meaning of the values of all other predictions.
        notes: Decisions that a reader of the scores needs to know.
    """

    labels: LabelMap | None
    named: NamedLabels = field(default_factory=NamedLabels)
    recorded: Mapping[str, LabelCodec] = field(default_factory=dict)
    others: LabelCodec = field(default_factory=lambda: LabelCodec({}))
    notes: tuple[str, ...] = ()

    @property
    def ignored(self) -> ValueSet:
        """The ignored values of a reference."""
        return ValueSet(self.named.ignored if self.labels is None else self.labels.ignored)

    @property
    def known(self) -> LabelMap | None:
        """The labels that are known before a mask is read; `None` if there are none."""
        return self.labels or self.named.label_map

    def of_prediction(self, case: str) -> LabelCodec:
        """The meaning of the values of a case's prediction."""
        return self.recorded.get(case, self.others)

    def of_values(self, values: set[int]) -> LabelMap:
        """One label for each value of a mask, in their order; ignored values are no label."""
        entries = tuple(LabelEntry(self._name(value), (value,), value) for value in sorted(values - self.ignored))
        return LabelMap(entries, ignored=self.ignored.values)

    def with_values_named(self, names: Sequence[str], values: set[int]) -> LabelCodec:
        """The meaning of a mask that was scored value by value.

        Args:
            names: The labels of the scores, in the order of their indices.
            values: The values of the mask.
        """
        indices = {name: index for index, name in enumerate(names, start=1)}
        unlabelled: dict[Value, int] = dict.fromkeys(self.ignored.values, IGNORED)
        named = {value: self._name(value) for value in values - self.ignored}
        scored: dict[Value, int] = {value: indices[name] for value, name in named.items() if name in indices}
        return LabelCodec({**unlabelled, **scored})

    def _name(self, value: int) -> str:
        return self.named.names.get(value, str(value))


def find_meaning(pairs: Pairs, references: Masks, labels: LabelsLike | None) -> Meaning:
    """Decide which labels are scored, and the meaning of the values of each mask.

    The labels are `labels`; by default those in the `<case>.json` files of the predictions; without these, the
    regions of a `dataset.json` beside the references; else every value in the masks, with the names in such a file.
    Ignored values are those of the labels, else the one that this `dataset.json` names `ignore`. References always
    contain the labels' own values. A prediction

    - with a `<case>.json` has the values that this file describes: each stands for the reference values listed there;
    - without one is from medfcn (its values are those that medfcn writes) or from another tool (its values are those
      of the references). Where the two readings agree on every value that both name, either is used. Where they
      contradict each other, the values of all these masks together decide: if medfcn writes all of them, they are
      read as such, else as the references' values.

    Raises:
        SettingsError: The labels are invalid, or contradict a `<case>.json`.
        DatasetError: Two `<case>.json` files name different labels and `labels` is not given, or a mask fits neither
            reading.
    """
    recorded = pairs.records
    swapped = () if recorded else _swapped(pairs.references)
    beside = _named_beside(references, pairs.options.bids)
    if any(isinstance(mask, StructureFiles) for mask in (*pairs.references.values(), *pairs.predictions.values())):
        found = StructurePairs(pairs.references, pairs.predictions, recorded, beside, pairs.options).meaning(labels)
        return Meaning(found.labels, recorded=found.recorded, others=found.others, notes=(*swapped, *found.notes))
    chosen = None if labels is None else LabelMap.of(labels)
    if chosen is None and recorded:
        chosen = _common(recorded)
    if chosen is None and beside.regions:
        chosen = beside.label_map
    if chosen is None:
        beside.require_one_meaning()
        return Meaning(None, beside, notes=swapped)
    chosen = chosen.ignoring(beside.ignored)
    codecs = {case: _translated(labels, chosen, case) for case, labels in recorded.items()}
    plain = [mask for case, mask in pairs.predictions.items() if case not in recorded]
    others, notes = _meaning_of_others(plain, chosen, pairs.options)
    overlap = (chosen.overlap_text,) if chosen.overlapping else ()
    return Meaning(chosen, recorded=codecs, others=others, notes=(*swapped, *overlap, *notes))


def _swapped(references: Mapping[str, VolumeLike]) -> tuple[str, ...]:
    """A note if only references have a record of medfcn beside them."""
    for case, path in references.items():
        try:
            is_predicted = MaskRecord.beside(path) is not None
        except SettingsError:
            continue
        if is_predicted:
            return (
                f"the reference of {case} has a .json of medfcn's beside it, and no prediction has: were "
                "the two folders swapped? precision and recall would be, and the sign of volumes",
            )
    return ()


def _common(recorded: Mapping[str, LabelMap]) -> LabelMap:
    """The labels that all records name."""
    first, labels = next(iter(recorded.items()))
    for case, other in recorded.items():
        if (other.entries, other.ignored) != (labels.entries, labels.ignored):
            raise DatasetError(
                f"{case}: its .json names the labels {listed(map(str, other.entries))}, that of {first} "
                f"{listed(map(str, labels.entries))}; "
                "say which to score with --labels",
                code="LABELS_DIFFER",
                field="labels",
            )
    return labels


def _translated(recorded: LabelMap, chosen: LabelMap, case: str) -> LabelCodec:
    """The meaning of a mask with recorded labels, as indices of the labels to score."""
    indices: dict[Value, int] = {}
    for stored in recorded.overlaps:
        for index, wanted in enumerate(chosen.overlaps, start=1):
            values = ValueSet(stored.values)
            shared = values & ValueSet(wanted.values)
            if shared.spans == values.spans:
                indices[stored.written] = index
            elif shared:
                raise SettingsError(
                    f"{case}: its .json merges {listed(stored.values, separator='+')} into {stored.name}, of which "
                    f"{wanted.name} contains only a part; give --labels as the model was trained",
                    code="LABELS_DIFFER",
                    field="labels",
                )
    return LabelCodec(indices)


def _meaning_of_others(
    masks: Sequence[VolumeLike], labels: LabelMap, options: ReadOptions
) -> tuple[LabelCodec, tuple[str, ...]]:
    """The meaning of predictions without a record; see `find_meaning`."""
    written, original = labels.written_codec, labels.reference_codec.without_ignored
    if (both := original.joined_with(written)) is not None:
        return both, ()
    if not masks:
        return written, ()
    values: set[int] = set()
    for mask in masks:
        with suppress(MedfcnError):  # a failure of its case, when it is scored
            values |= values_in(read_mask(mask, labels=labels, options=options).array)
    if not values - written.known:
        return written, (
            "the predictions hold only values that medfcn writes for these labels, and were read as such",
        )
    if not values - original.known:
        return original, ("the predictions hold values of the references, and were read as such",)
    raise DatasetError(
        f"predictions contain the values {numbers_text(sorted(values))}; expected those that medfcn writes "
        f"({listed(written.known.values)}) or those of the references ({listed(original.known.values)}); name the "
        "labels so that the two do not overlap",
        code="LABEL_VALUES",
        field="labels",
    )


def _named_beside(references: Masks, bids: str | None) -> NamedLabels:
    """The labels that a `dataset.json` in the folder of the references, or above it, names, or a BIDS root."""
    references = listed_masks(references, bids=bids)
    if isinstance(references, Dataset):
        return references.named
    if not isinstance(references, Mapping):
        folder = Path(references)
        for path in (folder / "dataset.json", folder.parent / "dataset.json"):
            if path.is_file():
                return read_description(path).named_labels()
    return NamedLabels()
