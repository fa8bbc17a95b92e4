"""The volumes of each case of a report. Each file is read once, when it is the case's turn."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from medfcn.datasets import Dataset, find_dataset, find_inputs
from medfcn.datasets.cases import Case
from medfcn.datasets.folder_names import holds_labels
from medfcn.errors import MedfcnError
from medfcn.evaluation.matching import Masks, Meaning, Pairs
from medfcn.labels import LabelCodec, LabelMap, read_mask
from medfcn.labels.sidecar import CHANGED, MaskRecord
from medfcn.labels.sparse_labels import count_labelled
from medfcn.labels.whole_numbers import values_in
from medfcn.reporting.sections import PredictedCase
from medfcn.reporting.upright import CaseVolumes
from medfcn.runs.folder import DISAGREEMENT, ENTROPY, UNCERTAINTY_FOLDER
from medfcn.volumes import ReadOptions, Volume, VolumeLike, as_volume
from medfcn.volumes.names import stem_of
from medfcn.volumes.options import DEFAULT_OPTIONS
from medfcn.volumes.reading import volume_count

_UNSURE, _SPLIT = 0.5, 0.1
"""Bits of entropy and of disagreement above which a voxel is counted."""
Images = str | os.PathLike[str] | Mapping[str, VolumeLike | Sequence[VolumeLike]]
"""A folder of images, a data set, one file, or images by case id; a list contains a case's channels."""

Channels = Mapping[str, Sequence[VolumeLike]]
"""The channels of each image, by case id."""


def images_beside(references: Masks | Images, options: ReadOptions = DEFAULT_OPTIONS) -> Channels:
    """The images of a data set; none if the references are no data set.

    The folder of the labels of a data set stands for the data set.
    """
    if isinstance(references, Mapping | Dataset):
        return {}
    folder = Path(references)
    for place in (folder, folder.parent) if holds_labels(folder) else (folder,):
        try:
            return {case.id: list(case.images) for case in find_dataset(place, bids=options.bids).cases}
        except MedfcnError:
            continue
    return {}


def images_at(images: Images) -> Channels:
    """The images of each case.

    Raises:
        MissingFileError: The folder or file does not exist.
        DatasetError: It contains no images.
    """
    if isinstance(images, Mapping):
        return {
            str(case): image if isinstance(image, list) else [cast(VolumeLike, image)]
            for case, image in images.items()
        }
    found = images_beside(images)
    return found or {case.id: list(case.images) for case in find_inputs(images)}


@dataclass
class _Reading:
    """Volumes of one case; `notes` say why one of them is not shown, `options` how files are read."""

    options: ReadOptions
    notes: list[str] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)

    def volume(self, kind: str, read: Callable[[], Volume]) -> Volume | None:
        try:
            volume = read()
        except MedfcnError as error:
            self.notes.append(f"the {kind} is not shown: {error}")
            return None
        if volume.sha256:
            self.hashes[kind] = volume.sha256
        return volume

    def image(self, channels: Sequence[VolumeLike]) -> Volume | None:
        """The first channel."""
        first = replace(self.options, volume_index=self.options.volume_index or 0)
        image = self.volume("image", lambda: as_volume(channels[0], options=first)) if channels else None
        count = max(len(channels), volume_count(channels[0])) if channels else 0
        if image is not None and count > 1:
            self.notes.append(f"The first of {count} channels is shown.")
        return image

    def mask(
        self, kind: str, source: VolumeLike, labels: LabelMap | None, codec_of: Callable[[Volume], LabelCodec]
    ) -> Volume | None:
        """A mask as indices."""
        mask = self.volume(kind, lambda: read_mask(source, labels=labels, options=self.options))
        return None if mask is None else mask.with_array(codec_of(mask).encode(mask.array))


@dataclass(frozen=True)
class ScoredCases:
    """Cases with references.

    Attributes:
        pairs: The masks.
        meaning: The meaning of their values.
        labels: The labels of the scores.
        images: The images.
    """

    pairs: Pairs
    meaning: Meaning
    labels: tuple[str, ...]
    images: Channels

    def read(self, case: str) -> CaseVolumes:
        """The volumes of a case; masks contain indices of `labels`, or of the overlaps where labels overlap."""
        reading, masks = _Reading(self.pairs.options), {}
        for kind, sources in (("reference", self.pairs.references), ("prediction", self.pairs.predictions)):
            if case in sources:
                codec_of = partial(self._codec_of, case, kind)
                masks[kind] = reading.mask(kind, sources[case], self.meaning.known, codec_of)
            else:
                reading.notes.append(f"There is no {kind} of this case.")
        reference, prediction = masks.get("reference"), masks.get("prediction")
        share = 0.0 if reference is None else 1 - count_labelled(reference.array) / reference.array.size
        if share:
            reading.notes.append(
                f"The reference ignores {100 * share:.3g} % of the voxels: predictions there are not counted."
            )
        given = self.pairs.predictions.get(case)
        uncertainty = None if given is None else _read_uncertainty(given, MaskRecord.of_file(given), reading)
        image = reading.image(self.images.get(case, ()))
        return CaseVolumes(
            image, reference, prediction, tuple(reading.notes), hashes=reading.hashes, uncertainty=uncertainty
        )

    def _codec_of(self, case: str, kind: str, mask: Volume) -> LabelCodec:
        """The meaning of a mask's values as indices of `labels`, or of their overlaps."""
        labels = self.meaning.labels
        if labels is None:
            codec = self.meaning.with_values_named(self.labels, values_in(mask.array))
        else:
            codec = labels.reference_codec if kind == "reference" else self.meaning.of_prediction(case)
        return codec if kind == "reference" else codec.without_ignored


def _read_uncertainty(mask: VolumeLike, record: MaskRecord | None, reading: _Reading) -> Volume | None:
    """For each voxel the entropy of the label of which the model is least sure, with a line for each label.

    Args:
        mask: The mask; uncertainty is in files beside it.
        record: Of the mask.
        reading: Gets the lines.
    """
    if record is None or not record.uncertainty_sha256 or not isinstance(mask, str | os.PathLike):
        return None
    labels, largest = record.labels, None
    for entry in labels.entries if labels else ():
        ending = f"_{entry.written}" if labels and len(labels.entries) > 1 else ""
        stem = Path(mask).parent / UNCERTAINTY_FOLDER / f"{stem_of(Path(mask))}{ending}"
        try:
            files = (f"{stem}_{what}.nii.gz" for what in (ENTROPY, DISAGREEMENT))
            entropy, apart = (as_volume(file, options=reading.options) for file in files)
        except MedfcnError as error:
            reading.notes.append(f"the uncertainty of {entry.name} is not shown: {error}")
            continue
        unsure = np.count_nonzero(entropy.array > _UNSURE) * entropy.voxel_ml
        split = np.count_nonzero(apart.array > _SPLIT) * apart.voxel_ml
        reading.notes.append(
            f"Uncertainty of {entry.name}: entropy above {_UNSURE:g} bit in {unsure:.3g} ml, disagreement above "
            f"{_SPLIT:g} bit in {split:.3g} ml; largest {entropy.array.max():.2f} and {apart.array.max():.2f} bit."
        )
        if largest is None:
            largest = entropy
        elif largest.shape == entropy.shape:
            largest = entropy.with_array(np.maximum(largest.array, entropy.array))
    return largest


@dataclass(frozen=True)
class PredictedCases:
    """Masks without references, with the records beside them.

    Attributes:
        masks: Their files, in the order of the ids.
        records: Their records.
        images: The images.
        options: How files are read.
    """

    masks: Mapping[str, VolumeLike]
    records: Mapping[str, MaskRecord | None]
    images: Channels
    options: ReadOptions = DEFAULT_OPTIONS
    _measured: dict[str, dict[str, float]] = field(default_factory=dict, init=False)

    @property
    def label_map(self) -> LabelMap | None:
        """The labels of the first record that names any."""
        return next((record.labels for record in self.records.values() if record and record.labels), None)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels."""
        return self.label_map.names if self.label_map else ("mask",)

    def row(self, case: str) -> PredictedCase:
        """Volumes and flags of a case: those of its record, else those of its mask."""
        record = self.records[case] or MaskRecord()
        volumes = record.volumes_ml
        if volumes is None:
            if case not in self._measured:  # it was not shown, so its mask is read here
                self._mask_of(case, _Reading(self.options))
            volumes = self._measured.get(case, {})
        changed = tuple(note for note in record.notes if note == CHANGED)
        return PredictedCase(case, dict(volumes), (*changed, *record.flags))

    def read(self, case: str) -> CaseVolumes:
        """The volumes of a case; the mask contains indices of `labels`, or of the overlaps where labels overlap."""
        reading = _Reading(self.options)
        prediction = self._mask_of(case, reading)
        uncertainty = _read_uncertainty(self.masks[case], self.records[case], reading)
        image = reading.image(self.images.get(case, ()))
        return CaseVolumes(
            image,
            None,
            prediction,
            tuple(reading.notes),
            has_reference=False,
            hashes=reading.hashes,
            uncertainty=uncertainty,
        )

    def _mask_of(self, case: str, reading: _Reading) -> Volume | None:
        mask = reading.mask("prediction", self.masks[case], None, self._codec_of)
        record = self.records[case]
        if mask is not None and (record is None or record.volumes_ml is None):
            labels, indices = self.label_map, mask.array
            counts = labels.voxel_counts(indices) if labels else {self.labels[0]: np.count_nonzero(indices)}
            self._measured[case] = {name: float(count * mask.voxel_ml) for name, count in counts.items()}
        return mask

    def _codec_of(self, mask: Volume) -> LabelCodec:
        labels = self.label_map
        return labels.written_codec if labels else LabelCodec(dict.fromkeys(values_in(mask.array), 1))


@dataclass(frozen=True)
class DatasetCases:
    """Cases of a data set, with their labels.

    Attributes:
        cases: By id.
        labels: The labels.
        options: How files are read.
    """

    cases: Mapping[str, Case]
    labels: LabelMap
    options: ReadOptions = DEFAULT_OPTIONS

    def read(self, case: str) -> CaseVolumes:
        """The volumes of a case; the mask contains indices of `labels`, or of the overlaps where labels overlap."""
        reading, files = _Reading(self.options), self.cases[case]
        mask = None
        if files.label is not None:
            mask = reading.mask(
                "label", files.label, self.labels, lambda _: self.labels.reference_codec.without_ignored
            )
        image = reading.image(files.images)
        return CaseVolumes(image, None, mask, tuple(reading.notes), has_reference=False, hashes=reading.hashes)
