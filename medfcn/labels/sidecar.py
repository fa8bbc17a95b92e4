"""The record beside a mask, `<case>.json`: the mask's origin, the meaning of its values, the Dice to expect.

The keys of that file are the fields of `MaskRecord`, in their order. No other module spells them.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from medfcn.decoding import read_json
from medfcn.errors import LabelError, SettingsError
from medfcn.files import sha256_of, write_json
from medfcn.labels.label_map import LabelMap
from medfcn.labels.measures import Intensity, Measure
from medfcn.volumes.names import stem_of
from medfcn.volumes.refused import RefusedFile

_ORIGIN = ("input_sha256", "model_sha256", "card_sha256", "medfcn", "threads", "reading", "threshold", "tta")
_MAKER = ("model_sha256", "card_sha256", "medfcn", "threshold", "tta")

ENGINE, PRECISION = "torch", "float32"
"""The library that runs networks and its arithmetic, in records from before there were others."""
_LATER = (
    "mirrors",
    "views",
    "engine",
    "precision",
    "folded",
    "device",
    "label_table",
    "colours",
    "seg_nrrd_sha256",
    "uncertainty_sha256",
    "voxels",
    "intensity",
)
"""Keys that a file lacks where nothing is known, as files from before these keys do."""

TRAINING_CASE = "a training case of the model"
"""The note on a mask of a volume that one of its networks was trained on."""
CHOSEN_CASE = "a validation case of the model, on which its training chose"
"""The note on a mask of a volume that chose something of one of its networks, such as the weights to keep."""
TRAINING_PATIENT = "its id is that of a patient whom the model was trained on"
"""The note on a mask of another volume of a training patient, as far as ids and the data set tell."""
OF_SEEN_CASES = (TRAINING_CASE, CHOSEN_CASE, TRAINING_PATIENT)
"""The notes on masks of volumes, or of patients, that a network saw."""
CHANGED = "the mask is not the one that its .json describes: it was edited since"
"""The note on a mask whose file has another hash than its record says."""


class LabelRecord(NamedTuple):
    """One label of a recorded mask.

    Attributes:
        label: Its name.
        volume_ml: Its volume in millilitres.
        expected_dice: The Dice to expect; None where too little is known.
        review: True if a reader should look at it; None where too little is known.
    """

    label: str
    volume_ml: float
    expected_dice: float | None
    review: bool | None


class MaskRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of `<case>.json`.

    A field has its default where the file has no such key, or a value of another type. Keys that a newer medfcn adds
    are passed over.

    Attributes:
        input_sha256: Hashes of the image files, in the order of the channels.
        model_sha256: Hashes of the weights, one for each model.
        card_sha256: Hashes of what else decides a mask in each model's card.
        medfcn: The version.
        threads: CPU threads of torch.
        reading: The options with which the images were read.
        threshold: The probability from which a voxel is foreground.
        tta: True if mirror images were averaged.
        mirrors: The patient's axes (R, A, S) along which they were to be, as far as training mirrored some; None if
            it was not requested.
        views: The requested views of the models; None if these are all that they were trained on.
        engine: The library that ran the network.
        precision: The arithmetic of the network.
        folded: True if batch normalisation was folded into the convolutions before it.
        device: The kind of device: `cpu` or `cuda`.
        label_table: True if the mask's header has a label table.
        colours: The chosen colours by label; None if none were.
        uncertainty_sha256: Hashes of the files of uncertainty, if they were requested.
        seg_nrrd_sha256: The hash of the `.seg.nrrd` file, if it was requested.
        case: The case's id.
        mask_sha256: Hash of the mask's file.
        probabilities_sha256: Hashes of the probability files, one for each label, if they were requested.
        labels: The meaning of the mask's values.
        volumes_ml: Millilitres by label.
        voxels: Voxels by label.
        intensity: By label, the intensity of each channel inside it.
        expected_dice: By label, the Dice to expect without a reference; None where too little is known.
        review: By label, whether a reader should look at it; None where too little is known.
        flags: Lines that a reader should know.
        notes: Lines on how the images were read, and one of `OF_SEEN_CASES` where a network saw them.
        intended_use: Research only.
    """

    input_sha256: tuple[str, ...] = ()
    model_sha256: tuple[str, ...] = ()
    card_sha256: tuple[str, ...] = ()
    medfcn: str | None = None
    threads: int | None = None
    reading: Mapping[str, Any] | None = None
    threshold: float | None = None
    tta: bool | None = None
    mirrors: tuple[str, ...] | None = None
    views: tuple[str, ...] | None = None
    engine: str | None = None
    precision: str | None = None
    folded: bool | None = None
    device: str | None = None
    label_table: bool | None = None
    colours: Mapping[str, str] | None = None
    uncertainty_sha256: tuple[str, ...] | None = None
    seg_nrrd_sha256: str | None = None
    case: str = ""
    mask_sha256: str = ""
    probabilities_sha256: tuple[str, ...] = ()
    labels: LabelMap | None = None
    volumes_ml: Mapping[str, float] | None = None
    voxels: Mapping[str, int] | None = None
    intensity: Mapping[str, tuple[Intensity, ...]] | None = None
    expected_dice: Mapping[str, float | None] | None = None
    review: Mapping[str, bool | None] | None = None
    flags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    intended_use: str = ""

    @classmethod
    def beside(cls, mask: object) -> "MaskRecord | None":
        """The record of a mask; None if the mask is no path, or has no record, or the `.json` of another tool.

        Raises:
            SettingsError: The record's labels are not valid.
        """
        if not isinstance(mask, str | os.PathLike) or isinstance(mask, RefusedFile):
            return None
        path = record_path(mask)
        content = _content(path)
        if content is None:
            return None
        values = {item.name: _decoded(content.get(item.name), item.type) for item in msgspec.structs.fields(cls)}
        if "labels" in content:
            try:
                values["labels"] = LabelMap.from_json(_decoded(content["labels"], Any))
            except SettingsError as error:
                raise SettingsError(f"{path.name}: {error}; fix it, or remove the file", field="labels") from error
        return cls(**{name: value for name, value in values.items() if value is not None})

    @classmethod
    def of_file(cls, mask: object) -> "MaskRecord | None":
        """The record beside a mask as far as it is of this very file; see `of_mask`.

        Raises:
            SettingsError: The record's labels are not valid.
        """
        record = cls.beside(mask)
        if record is None or not isinstance(mask, str | os.PathLike) or not Path(mask).is_file():
            return record
        return record.of_mask(sha256_of(Path(mask))) if record.mask_sha256 else record

    def of_mask(self, sha256: str) -> "MaskRecord":
        """The same record; of a mask with another hash than it says, no more than the labels.

        Such a mask was edited, or is that of another case: its volumes, confidence and uncertainty are unknown.

        Example:
            >>> record = MaskRecord(mask_sha256="12", expected_dice={"organ": 0.9})
            >>> record.of_mask("12") == record, record.of_mask("34").notes == (CHANGED,)
            (True, True)
        """
        if not self.mask_sha256 or self.mask_sha256 == sha256:
            return self
        notes = (CHANGED, *(note for note in self.notes if note in OF_SEEN_CASES))
        return MaskRecord(case=self.case, mask_sha256=sha256, labels=self.labels, notes=notes)

    @staticmethod
    def is_in(path: Path) -> bool:
        """True if a file is the record of a mask, even one that is not valid."""
        return _content(path) is not None

    @staticmethod
    def is_of_another_tool(path: Path) -> bool:
        """True if a file is JSON with keys, of which none is a record's: such a file is not medfcn's to replace."""
        try:
            content = read_json(path, dict[str, msgspec.Raw], error=LabelError, remedy="remove it")
        except (OSError, LabelError):
            return False
        return bool(content) and content.keys().isdisjoint(MaskRecord.__struct_fields__)

    def write(self, mask: str | os.PathLike[str], more: Mapping[str, object] | None = None) -> None:
        """Write the record beside a mask, whole or not at all.

        Args:
            mask: The mask's file.
            more: Further keys, which readers of records pass over.
        """
        content = {name: getattr(self, name) for name in self.__struct_fields__}
        content = {name: value for name, value in content.items() if value is not None or name not in _LATER}
        if not self.probabilities_sha256:
            del content["probabilities_sha256"]
        labels = None if self.labels is None else self.labels.to_json()
        write_json(record_path(mask), {**content, "labels": labels, **(more or {})})

    def measured(self, measures: Mapping[str, Measure], voxel_ml: float) -> "MaskRecord":
        """The same record with the sizes and intensities of the labels.

        Args:
            measures: By label.
            voxel_ml: The volume of a voxel in millilitres.
        """
        return msgspec.structs.replace(
            self,
            volumes_ml={name: found.voxels * voxel_ml for name, found in measures.items()},
            voxels={name: found.voxels for name, found in measures.items()},
            intensity={name: found.intensity for name, found in measures.items()},
        )

    @property
    def origin(self) -> tuple[object, ...]:
        """Everything that decides a mask: two masks of one origin are equal."""
        how = (self.engine or ENGINE, self.precision or PRECISION, bool(self.folded))
        return (*(getattr(self, name) for name in _ORIGIN), *how)

    @property
    def maker(self) -> dict[str, object]:
        """The models and settings of the mask by key, as far as known."""
        values = {name: getattr(self, name) for name in _MAKER}
        return {name: value for name, value in values.items() if value not in (None, ())}

    @property
    def by_label(self) -> tuple[LabelRecord, ...] | None:
        """The labels with their expected quality; None unless the record has it for each."""
        if self.volumes_ml is None or self.expected_dice is None or self.review is None:
            return None
        if not self.volumes_ml.keys() >= self.expected_dice.keys():
            return None
        return tuple(
            LabelRecord(name, self.volumes_ml[name], dice, self.review.get(name))
            for name, dice in self.expected_dice.items()
        )


def record_path(mask: str | os.PathLike[str]) -> Path:
    """The file of a mask's record.

    Example:
        >>> record_path("masks/case_017.nii.gz").as_posix()
        'masks/case_017.json'
    """
    return Path(mask).with_name(f"{stem_of(mask)}.json")


def _content(path: Path) -> dict[str, msgspec.Raw] | None:
    """The undecoded fields of a record; None if a file is no record.

    A record contains the mask's hash, or labels as medfcn writes them.
    """
    try:
        content = read_json(path, dict[str, msgspec.Raw], error=LabelError, remedy="remove it")
    except (OSError, LabelError):
        return None
    names_labels = "entries" in (_decoded(content.get("labels"), dict[str, Any]) or {})
    return content if names_labels or "mask_sha256" in content else None


def _decoded(text: msgspec.Raw | None, kind: Any) -> Any:
    """A value of this type; None where it has another."""
    try:
        return None if text is None else msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
