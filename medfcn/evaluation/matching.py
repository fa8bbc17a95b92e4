"""Pairs of a prediction and its reference, and the meaning of the values of their voxels."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medfcn.datasets import find_masks
from medfcn.datasets.cases import NamedLabels
from medfcn.datasets.dataset_json import read_description
from medfcn.datasets.layouts import volumes_in
from medfcn.errors import DatasetError, SettingsError
from medfcn.labels import LabelCodec, LabelEntry, LabelMap, read_mask
from medfcn.labels.sidecar import MaskRecord
from medfcn.labels.whole_numbers import values_in
from medfcn.text import listed
from medfcn.volumes import VolumeLike

__all__ = ["Masks", "Meaning", "Pairs", "chosen_references", "find_meaning", "pair_cases"]

Masks = str | os.PathLike[str] | Mapping[str, VolumeLike]
"""A folder of masks, a data set, one file, or masks by case id."""


@dataclass(frozen=True)
class Pairs:
    """Masks matched by case id.

    Attributes:
        references: By case id, in the order of the ids.
        predictions: By case id; only of cases that have a reference.
        missing: Ids without a prediction.
        unmatched: Ids of predictions without a reference.
    """

    references: Mapping[str, VolumeLike]
    predictions: Mapping[str, VolumeLike]
    missing: tuple[str, ...]
    unmatched: tuple[str, ...]

    def notes(self) -> tuple[str, ...]:
        """Facts about the matching that a reader of the scores needs."""
        notes = []
        if self.missing:
            notes.append(
                f"no prediction for {len(self.missing)} of {len(self.references)} references; each counts as a miss "
                f"of every label: {listed(self.missing, limit=20)}"
            )
        if self.unmatched:
            notes.append(
                f"no reference for {len(self.unmatched)} of the predictions, left out: "
                f"{listed(self.unmatched, limit=20)}"
            )
        return tuple(notes)


def chosen_references(references: Masks, cases: Iterable[str] | None) -> Masks:
    """The references of some cases, by case id; with `None` all of them, as they are.

    Raises:
        MissingFileError: The folder does not exist.
        DatasetError: A case has no reference.
    """
    if cases is None:
        return references
    chosen, found = set(cases), _masks_of(references, are_predictions=False)
    unknown = sorted(chosen - found.keys())
    if unknown:
        raise DatasetError(
            f"{len(unknown)} of the requested cases have no reference: {listed(unknown)}; correct the ids",
            code="CASES_UNKNOWN",
        )
    return {case: mask for case, mask in found.items() if case in chosen}


def pair_cases(predictions: Masks, references: Masks) -> Pairs:
    """Match predictions and references by case id.

    Raises:
        MissingFileError: A folder does not exist.
        DatasetError: A folder contains no masks, or no prediction has the id of a reference.
    """
    drawn = _masks_of(references, are_predictions=False)
    found = _masks_of(predictions, are_predictions=True)
    if len(drawn) == len(found) == 1 and all(_is_one_file(masks) for masks in (predictions, references)):
        found = dict(zip(drawn, found.values(), strict=True))
    if not drawn.keys() & found.keys():
        raise DatasetError(
            f"predictions are named like {next(iter(found))!r} and references like {next(iter(drawn))!r}, and no "
            "name is the same; give both the case's id as file name",
            code="CASES_UNMATCHED",
        )
    ids = sorted(drawn)
    return Pairs(
        {case: drawn[case] for case in ids},
        {case: found[case] for case in ids if case in found},
        tuple(case for case in ids if case not in found),
        tuple(sorted(found.keys() - drawn.keys())),
    )


def _masks_of(masks: Masks, *, are_predictions: bool) -> dict[str, VolumeLike]:
    if isinstance(masks, Mapping):
        if not masks:
            raise DatasetError(
                f"{'predictions' if are_predictions else 'references'}: none given; give at least one",
                code="MASKS_MISSING",
            )
        return {str(case): mask for case, mask in masks.items()}
    folder = Path(masks)
    # nnU-Net leaves a dataset.json among its predictions; the masks beside it are meant, not a data set.
    if are_predictions and folder.is_dir():
        beside = volumes_in(folder)
        if beside:
            return dict(beside)
    return dict(find_masks(folder))


def _is_one_file(masks: Masks) -> bool:
    return not isinstance(masks, Mapping) and Path(masks).is_file()


@dataclass(frozen=True)
class Meaning:
    """What the values of voxels mean.

    Attributes:
        labels: The labels asked for or found in sidecars; `None` to take the values that each case holds.
        names: Names of values, for `labels=None`.
        unlabelled: Values of voxels that nobody labelled, for `labels=None`.
        recorded: The codec of each prediction that has a record, by case.
        others: The codec of all other predictions.
        notes: What was decided where it could have been otherwise.
    """

    labels: LabelMap | None
    names: Mapping[int, str] = field(default_factory=dict)
    recorded: Mapping[str, LabelCodec] = field(default_factory=dict)
    others: LabelCodec | None = None
    notes: tuple[str, ...] = ()
    unlabelled: tuple[int, ...] = ()

    @property
    def ignored(self) -> frozenset[int]:
        """The values of a reference that count nowhere."""
        return frozenset(self.unlabelled if self.labels is None else self.labels.ignored)

    @property
    def asked(self) -> LabelMap | None:
        """What is known of the values before a mask is read; `None` where nothing is."""
        return self.labels or (LabelMap.from_names(self.names, ignored=self.unlabelled) if self.names else None)

    def codec(self, case: str) -> LabelCodec | None:
        """The meaning of the values of a case's prediction; None without labels."""
        return self.recorded.get(case, self.others)

    def of_values(self, values: set[int]) -> LabelMap:
        """Labels for values that were found, in their order; what is ignored is no label."""
        labels = sorted(values - self.ignored)
        entries = tuple(LabelEntry(self.names.get(value, str(value)), (value,), value) for value in labels)
        return LabelMap(entries, ignored=tuple(sorted(self.ignored)))


def find_meaning(pairs: Pairs, references: Masks, labels: LabelMap | str | None) -> Meaning:
    """Decide which labels are scored and how each mask holds them.

    The labels are those given; else those of the predictions' `<case>.json`; else the regions of a `dataset.json`
    that lies with the references; else the values found, with names where such a file gives them. What is ignored
    is what the labels say, else what that `dataset.json` names `ignore`. References always hold the labels' own
    values. A prediction

    - with a `<case>.json` holds what that says: each value stands for the reference values listed there;
    - without one may be medfcn's (the values written) or another tool's (the references' values). Where the
      two readings agree on every value both name, a mask is read by either. Where they contradict each other,
      the values of all these masks together decide: if all are values that medfcn writes, they are read as
      such, else as the references' values.

    Raises:
        SettingsError: The labels given cannot be, or contradict a sidecar.
        DatasetError: Two sidecars name different labels and none were given, or a mask fits neither reading.
    """
    sidecars = {
        case: record.labels
        for case, path in pairs.predictions.items()
        if (record := MaskRecord.beside(path)) and record.labels
    }
    swapped = () if sidecars else _swapped(pairs.references)
    chosen = LabelMap.parse(labels) if isinstance(labels, str) else labels
    if chosen is None and sidecars:
        chosen = _common(sidecars)
    beside = _named_beside(references)
    if chosen is None and beside.regions:
        chosen = beside.label_map
    if chosen is None:
        return Meaning(None, names=beside.names, unlabelled=beside.ignored, notes=swapped)
    chosen = chosen.ignoring(beside.ignored)
    recorded = {case: _translated(found, chosen, case) for case, found in sidecars.items()}
    others, notes = _codec_without_record(pairs, chosen, frozenset(sidecars))
    overlap = (chosen.overlap_text,) if chosen.overlapping else ()
    return Meaning(chosen, recorded=recorded, others=others, notes=(*swapped, *overlap, *notes))


def _swapped(references: Mapping[str, VolumeLike]) -> tuple[str, ...]:
    """A note where only references have what medfcn writes beside a prediction."""
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


def _common(sidecars: Mapping[str, LabelMap]) -> LabelMap:
    first, labels = next(iter(sidecars.items()))
    for case, other in sidecars.items():
        if (other.entries, other.ignored) != (labels.entries, labels.ignored):
            raise DatasetError(
                f"{case}: its .json names the labels {', '.join(other.names)}, that of "
                f"{first} {', '.join(labels.names)}; say which to score with --labels"
            )
    return labels


def _translated(found: LabelMap, chosen: LabelMap, case: str) -> LabelCodec:
    """The meaning of the values that a mask with a record stores, in the labels that are scored."""
    indices = {}
    for part in found.overlaps:
        for index, wanted in enumerate(chosen.overlaps, start=1):
            shared = set(part.values) & set(wanted.values)
            if shared == set(part.values):
                indices[part.written] = index
            elif shared:
                raise SettingsError(
                    f"{case}: its .json merges {'+'.join(map(str, part.values))} into "
                    f"{part.name}, which {wanted.name} takes only in part; "
                    "give --labels as the model was trained"
                )
    return LabelCodec(indices)


def _codec_without_record(
    pairs: Pairs, labels: LabelMap, with_record: frozenset[str]
) -> tuple[LabelCodec, tuple[str, ...]]:
    """The meaning of the values of predictions without a record; see `find_meaning`."""
    as_written, as_drawn = labels.written_codec, labels.reference_codec.without_ignored
    written, original = as_written.indices, as_drawn.indices
    if all(original.get(value, index) == index for value, index in written.items()):
        return LabelCodec({**original, **written}), ()
    plain = {case: mask for case, mask in pairs.predictions.items() if case not in with_record}
    if not plain:
        return as_written, ()
    values = set()
    for mask in plain.values():
        values |= values_in(read_mask(mask, labels=labels).array)
    if values <= written.keys():
        return as_written, (
            "the predictions hold only values that medfcn writes for these labels, and were read as such",
        )
    if values <= original.keys():
        return as_drawn, ("the predictions hold values of the references, and were read as such",)
    raise DatasetError(
        f"predictions hold the values {', '.join(map(str, sorted(values)[:8]))}; expected those written "
        f"({', '.join(map(str, sorted(written)))}) or those of the references "
        f"({', '.join(map(str, sorted(original)))}); name the labels so that the two do not overlap"
    )


def _named_beside(references: Masks) -> NamedLabels:
    """The labels that a `dataset.json` in or above the references names, if there is one."""
    if not isinstance(references, Mapping):
        folder = Path(references)
        for path in (folder / "dataset.json", folder.parent / "dataset.json"):
            if path.is_file():
                return read_description(path).named_labels()
    return NamedLabels()
