"""`dataset.json` as the Medical Segmentation Decathlon, nnU-Net and MONAI write it."""

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec

from medfcn.datasets.cases import NamedLabels
from medfcn.datasets.problems import Problem
from medfcn.datasets.tables import read_text
from medfcn.decoding import decode_json
from medfcn.errors import DatasetError
from medfcn.labels.label_map import IGNORE_NAME
from medfcn.labels.values import ANY, Named, Value, parse_values, span_of, values_from, values_text
from medfcn.labels.whole_numbers import LARGEST_LABEL
from medfcn.text import counted, listed

_CODE, _REMEDY = "DATASET_JSON", "fix the entry"
_BACKGROUND = re.compile(
    r"back ?ground|^(bg|air|none|void|other|rest|empty|)$|clear|unlabel|not? label|outside", re.I
)
"""Names of the value 0 that no label is meant by."""


class Entry(msgspec.Struct, frozen=True):
    """One case of a list; an empty text, an empty list or null names no file.

    Attributes:
        image: One file for each channel.
        label: The reference mask.
        fold: The fold whose validation case it is, as MONAI writes it.
        labelled: Names of the labels that were drawn, where only some were.
        labeled: The same in American spelling.
        group: The patient.
    """

    image: str | list[str] | None = None
    label: str | None = None
    fold: int | str | None = None
    labelled: list[str] | None = None
    labeled: list[str] | None = None
    group: int | str | None = None

    @property
    def drawn(self) -> tuple[str, ...]:
        """The names of the labels that were drawn; empty where all were."""
        return tuple(self.labelled or self.labeled or ())

    @property
    def images(self) -> list[str]:
        """The images, one per channel."""
        return self.image if isinstance(self.image, list) else [self.image] if self.image else []


class Description(msgspec.Struct, frozen=True):
    """The keys of a `dataset.json` that medfcn uses; there may be others.

    Attributes:
        training: The cases; empty where the file lists none, as nnU-Net's.
        labels: `{"1": "organ"}` as the Decathlon writes them, `{"organ": 1}` or `{"whole": [1, 2]}` as nnU-Net does;
            values may be ranges, `{"lesion": "1-42"}`, or `any`.
        channel_names: Names by number, as nnU-Net writes them.
        modality: The same, as the Decathlon writes them.
        validation: Cases to validate with, as MONAI writes them.
        count: `numTraining`, the number of training cases.
    """

    training: Annotated[list[Entry], msgspec.Meta(min_length=1)] = []
    labels: dict[str, Any] = {}
    channel_names: Any = None
    modality: Any = None
    validation: list[Entry] = []
    count: Any = msgspec.field(name="numTraining", default=None)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels; empty unless the file names 0, 1 and so on without a gap."""
        named = self._named_channels
        if not isinstance(named, dict) or set(named) != {str(number) for number in range(len(named))}:
            return ()
        return tuple(str(named[str(number)]) for number in range(len(named)))

    @property
    def _named_channels(self) -> Any:
        return self.modality if self.channel_names is None else self.channel_names

    def contradictions(self, cases: int, channels: int) -> list[Problem]:
        """Warnings about entries that contradict the files, or each other.

        Args:
            cases: Number of training cases that there are.
            channels: Number of channels that they have.
        """
        found = []
        if self.count is not None and self.count not in (cases, cases + len(self.validation)):
            found.append(("numTraining", f"numTraining is {self.count!r}, but there are {counted(cases, 'case')}"))
        named = self._named_channels
        if named is not None and len(self.channels) != channels:
            names = listed(named.values()) if isinstance(named, dict) else repr(named)
            found.append(("channel_names", f"the channels {names} are named, but a case has {channels}"))
        elif self.modality is not None and self.modality != named:
            found.append(("modality", "modality and channel_names name other channels; channel_names is used"))
        for name, values in map(_named, self.labels.items()):
            if name.casefold() == "background" and values != (0,):
                what = f"the label {name} has the value {values_text(values)}; 0 is background here, this is a label"
                found.append(("labels", what))
            elif values == (0,) and not _BACKGROUND.search(name):
                found.append(
                    ("labels", f"the label {name} has the value 0, which is background; it is not segmented")
                )
        remedy = "correct dataset.json"
        return [
            Problem("DATASET_CONTRADICTED", "warning", "", "dataset.json", field, text, remedy)
            for field, text in found
        ]

    def named_labels(self) -> NamedLabels:
        """The labels that the file names.

        The name `ignore` is no label: its values are voxels that nobody labelled. nnU-Net's `regions_class_order`
        is not used: it says how nnU-Net writes regions into one mask.

        Raises:
            DatasetError: A value is not a whole number, has two names, or is the background's 0 beside others.

        Example:
            >>> Description(labels={"0": "background", "2": "b", "1": "a"}).named_labels().names
            {1: 'a', 2: 'b'}
            >>> named = Description(labels={"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}).named_labels()
            >>> named.regions, named.ignored
            ({'whole': (1, 2), 'core': (2,)}, (3,))
            >>> Description(labels={"background": 0, "lesion": "1-42"}).named_labels().regions
            {'lesion': (Span(first=1, last=42),)}
        """
        pairs = [pair for pair in map(_named, self.labels.items()) if pair[1] != (0,)]
        ignored = tuple(value for name, values in pairs if name == IGNORE_NAME and values != ANY for value in values)
        named = [(name, values) for name, values in pairs if name != IGNORE_NAME]
        is_plain = all(len(values) == 1 and isinstance(values[0], int) for _, values in named)
        if not is_plain or any(isinstance(item, list) for item in self.labels.values()):
            if len(dict(named)) < len(named):
                raise _refused("labels", f"a label is named twice ({listed(name for name, _ in named)})")
            return NamedLabels(regions=dict(named), ignored=ignored)
        names: dict[int, str] = {}
        for name, value in ((name, value) for name, values in pairs for value in values if isinstance(value, int)):
            if names.setdefault(value, name) != name:
                raise _refused("labels", f"value {value} has two names")
        return NamedLabels({value: names[value] for value in sorted(names) if value not in ignored}, ignored=ignored)


def read_description(path: Path) -> Description:
    """Read a `dataset.json`.

    Raises:
        MissingFileError: It is not there.
        DatasetError: It is not JSON, or a key has a value of another type.
    """
    return decode_json(read_text(path), Description, source=path.name, error=DatasetError, remedy=_REMEDY, code=_CODE)


def _named(item: tuple[str, Any]) -> tuple[str, Named]:
    """Name and values of an entry of `labels`, whichever way round it is written."""
    key, stored = item
    is_turned = isinstance(stored, str) and parse_values(key) not in (None, ANY)
    name, stored = (stored, key) if is_turned else (key, stored)
    values = values_from(stored)
    if values is None or values == () or not (values == ANY or all(map(_is_label, values))):
        raise _refused(f"labels.{key}", f"expected whole numbers from 0 to {LARGEST_LABEL}, found {stored!r}")
    if values == ANY and name == IGNORE_NAME:
        raise _refused(f"labels.{key}", "ignores every value")
    if values != ANY and values != (0,) and any(span_of(value).first == 0 for value in values):
        raise _refused(f"labels.{key}", "contains the background's 0 beside other values")
    return name, values


def _is_label(value: Value) -> bool:
    first, last = span_of(value)
    return 0 <= first <= last <= LARGEST_LABEL


def _refused(field: str, found: str) -> DatasetError:
    return DatasetError(f"dataset.json: {field}: {found}; {_REMEDY}", code=_CODE, field=field)
