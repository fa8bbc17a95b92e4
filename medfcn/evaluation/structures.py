"""The meaning of masks, where references or predictions are one file for each structure: names are matched."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from medfcn.datasets.cases import NamedLabels
from medfcn.datasets.dataset_json import read_description
from medfcn.errors import DatasetError, MedfcnError
from medfcn.labels import LabelCodec, LabelMap, read_mask
from medfcn.labels.label_map import LabelsLike
from medfcn.labels.structures import (
    StructureFiles,
    choose_structures,
    overlaps_by_places,
    parts_of,
    places_of_value,
    structure_codec,
    usual_names,
    value_of_places,
    with_overlaps,
)
from medfcn.labels.values import Value
from medfcn.labels.whole_numbers import LARGEST_LABEL, values_in
from medfcn.text import counted, listed
from medfcn.volumes import ReadOptions, VolumeLike


@dataclass(frozen=True)
class StructureMeaning:
    """The labels to score, and the meaning of the values of predictions; see `Meaning`."""

    labels: LabelMap
    recorded: Mapping[str, LabelCodec]
    others: LabelCodec
    notes: tuple[str, ...]


@dataclass(frozen=True)
class StructurePairs:
    """Masks of which some are one file for each structure.

    Args:
        references: By case.
        predictions: By case.
        records: The labels in the `<case>.json` of predictions, by case.
        beside: The labels that a `dataset.json` beside the references names.
        options: How files are read.
    """

    references: Mapping[str, VolumeLike]
    predictions: Mapping[str, VolumeLike]
    records: Mapping[str, LabelMap]
    beside: NamedLabels
    options: ReadOptions

    def meaning(self, given: LabelsLike | None) -> StructureMeaning:
        """Labels are matched by their names, which are the names of the files.

        Raises:
            SettingsError: The labels are not valid, or name no structure.
            DatasetError: Nothing says which label a value is.
        """
        chosen = self._chosen(given)
        structured = list(self._structured(self.predictions))
        values: set[int] = set()
        for mask in (*structured, *self._structured(self.references)):
            with suppress(MedfcnError):  # a failure of its case, when it is scored
                values |= values_in(read_mask(mask, labels=chosen, options=self.options).array)
        count = len(chosen.entries)
        combined = {places for value in values if len(places := places_of_value(value, count)) > 1}
        for record in self.records.values():
            combined |= {
                places
                for overlap in record.overlaps
                if len(places := _places(overlap_names(record, overlap.labels), chosen)) > 1
            }
        new = sorted(combined - overlaps_by_places(chosen).keys())
        if chosen.structures:
            chosen = with_overlaps(chosen, {value_of_places(places, count): places for places in new})
        else:  # values that no mask contains stand for what only predictions combine
            chosen = with_overlaps(chosen, {LARGEST_LABEL - nth: places for nth, places in enumerate(new)})
        recorded = {case: _by_name(record, chosen) for case, record in self.records.items()}
        plain = {
            case: mask
            for case, mask in self.predictions.items()
            if not isinstance(mask, StructureFiles) and case not in recorded
        }
        others = structure_codec(chosen, values) if structured else self._of_plain(plain, chosen)
        overlap = (chosen.overlap_text,) if chosen.overlapping else ()
        notes = (*overlap, *_lacking(structured, chosen), *(() if given is not None else self._rare(chosen)))
        return StructureMeaning(chosen, recorded, others, notes)

    def _rare(self, labels: LabelMap) -> tuple[str, ...]:
        """A note on structures that few references have a file of, and that nobody asked for."""
        _, rare = usual_names(list(self._structured(self.references)))
        unscored = [name for name in rare if not any(name in part for part in parts_of(labels))]
        if not unscored:
            return ()
        return (
            f"less than half of the references have a file of {listed(unscored)}: not scored; name the structures "
            "with --labels if they are meant",
        )

    def _structured(self, masks: Mapping[str, VolumeLike]) -> Iterable[StructureFiles]:
        return (mask for mask in masks.values() if isinstance(mask, StructureFiles))

    def _chosen(self, given: LabelsLike | None) -> LabelMap:
        """The labels to score."""
        names, rare = usual_names(list(self._structured(self.references)))
        if not names:
            chosen = self.beside.label_map if given is None else LabelMap.of(given)
            if chosen is None:
                raise DatasetError(
                    "the predictions are one file for each structure, and nothing names the values of the "
                    "references; name them with --labels, such as liver=1,spleen=2",
                    code="LABELS_DIFFER",
                    field="labels",
                )
            return replace(chosen.ignoring(self.beside.ignored), unnamed="background")
        if given is None and self.records:
            given = next(iter(self.records.values()))
        return choose_structures(given, names if given is None else (*names, *rare))

    def _of_plain(self, masks: Mapping[str, VolumeLike], labels: LabelMap) -> LabelCodec:
        """The meaning of predictions that are one file, without a record."""
        if not masks:
            return LabelCodec({})
        named = next((theirs for mask in masks.values() if (theirs := _named_beside(mask))), None)
        if named is not None:
            return _by_name(named, labels, is_reference=True)
        found: set[int] = set()
        for mask in masks.values():
            with suppress(MedfcnError):
                found |= values_in(read_mask(mask, options=self.options).array)
        if len(labels.entries) == 1 and len(found) <= 1:
            meant: dict[Value, int] = dict.fromkeys(found, 1)
            return LabelCodec(meant)
        raise DatasetError(
            f"the references are one file for each structure, and nothing says which label the predictions' values "
            f"{listed(sorted(found))} are; put a dataset.json with these labels beside the predictions",
            code="LABELS_DIFFER",
            field="labels",
        )


def overlap_names(labels: LabelMap, places: Iterable[int]) -> list[str]:
    """The names of the labels at some places."""
    return [labels.names[place - 1] for place in places]


def _places(names: Iterable[str], labels: LabelMap) -> tuple[int, ...]:
    """The places of names among some labels, without those that are none of them."""
    return tuple(sorted(labels.names.index(name) + 1 for name in names if name in labels.names))


def _by_name(theirs: LabelMap, labels: LabelMap, *, is_reference: bool = False) -> LabelCodec:
    """The meaning of the values of a mask of other labels, matched by name.

    Args:
        theirs: The labels of the mask.
        labels: The labels to score.
        is_reference: The mask has the values of a reference, not those that medfcn writes.
    """
    indices, meant = overlaps_by_places(labels), dict[Value, int]()
    for overlap in theirs.overlaps:
        index = indices.get(_places(overlap_names(theirs, overlap.labels), labels), 0)
        meant |= dict.fromkeys(overlap.values if is_reference else (overlap.written,), index)
    return LabelCodec(meant)


def _named_beside(mask: VolumeLike) -> LabelMap | None:
    """The labels that a `dataset.json` beside a mask's file names."""
    if isinstance(mask, str | os.PathLike):
        path = Path(mask).with_name("dataset.json")
        if path.is_file():
            return read_description(path).named_labels().label_map
    return None


def _lacking(masks: Iterable[StructureFiles], labels: LabelMap) -> tuple[str, ...]:
    """A note on structures that predictions lack: they count as empty, so that what a reader drew is missed."""
    lacking = {mask.case: names for mask in masks if (names := mask.lacking(labels))}
    if not lacking:
        return ()
    names = sorted({name for missing in lacking.values() for name in missing})
    return (
        f"no file of {listed(names)} in {counted(len(lacking), 'prediction')}, which counts as an empty mask: "
        f"{listed(lacking)}",
    )
