"""Masks that are one file for each structure, such as `case/liver.nii.gz` and `case/spleen.nii.gz`.

Read together they are one mask, whose value k is the k-th label. A voxel of several labels has a value that follows
from them alone, so that it is the same in every case: with L labels, the places i < j < ... give i + j (L + 1) + ...
Which labels overlap is known when the masks have been read; `with_values` adds these combinations.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medfcn.errors import SettingsError
from medfcn.labels.codec import LabelCodec
from medfcn.labels.entries import refusal
from medfcn.labels.label_map import IGNORE_NAME, LabelMap, LabelsLike
from medfcn.labels.values import Named, Value, span_of
from medfcn.labels.whole_numbers import LARGEST_LABEL
from medfcn.text import did_you_mean, listed, nearest
from medfcn.volumes.names import extension_of


@dataclass(frozen=True)
class StructureFiles(os.PathLike[str]):
    """The mask of one case, one file for each structure.

    Args:
        case: The case's id.
        folder: Where the files are.
        files: By name of the structure, which is the file's name without extension.
        empty_if_absent: A label without a file is empty, as tools leave out what they did not find; refused
            otherwise.
        image: The image on whose grid the structures are, where they are those of DICOM files, of which one has
            several; None where nobody knows it.
    """

    case: str
    folder: Path
    files: Mapping[str, Path]
    empty_if_absent: bool = False
    image: Path | None = None

    @property
    def is_dicom(self) -> bool:
        """True if the structures are segments of DICOM segmentations, or contours of structure sets."""
        return any(not extension_of(file) for file in self.files.values())

    def on_grid_of(self, image: object) -> "StructureFiles":
        """The same with its image, if it needs one, has none, and this is a file."""
        if self.image is not None or not self.is_dicom or not isinstance(image, str | os.PathLike):
            return self
        return replace(self, image=Path(image))

    def __fspath__(self) -> str:
        return os.fspath(self.folder)

    def lacking(self, labels: LabelMap) -> list[str]:
        """The structures of some labels that have no file."""
        return [name for part in parts_of(labels) for name in part if name not in self.files]


def usual_names(masks: Sequence[StructureFiles]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The structures that at least half of some masks have a file of, and the others.

    Example:
        >>> masks = [StructureFiles(case, Path(case), {"liver": Path("liver.nii")}) for case in "abc"]
        >>> usual_names([*masks, StructureFiles("d", Path("d"), {"liver": Path("l.nii"), "cyst": Path("c.nii")})])
        (('liver',), ('cyst',))
    """
    counts = Counter(name for mask in masks for name in mask.files)
    usual = tuple(sorted(name for name, count in counts.items() if 2 * count >= len(masks)))
    return usual, tuple(sorted(counts.keys() - set(usual)))


def parts_of(labels: LabelMap) -> list[tuple[str, ...]]:
    """The structures of each label; one of its own name where none are stated."""
    return [entry.structures or (entry.name,) for entry in labels.entries]


def structure_labels(groups: Mapping[str, Sequence[str]]) -> LabelMap:
    """Labels, each of one structure or several merged; none overlap before masks are read.

    Raises:
        SettingsError: There are none, or too many.

    Example:
        >>> structure_labels({"kidneys": ["kidney_left", "kidney_right"], "liver": ["liver"]}).names
        ('kidneys', 'liver')
    """
    plain = LabelMap.from_names(dict(enumerate(groups, start=1)))
    entries = tuple(
        replace(entry, structures=tuple(part)) for entry, part in zip(plain.entries, groups.values(), strict=True)
    )
    return replace(plain, entries=entries)


def choose_structures(given: LabelsLike | None, names: Collection[str]) -> LabelMap:
    """The labels that a user names by structures: `liver,spleen` or `kidneys=kidney_left+kidney_right`.

    Args:
        given: Text, a mapping of labels to structures, or labels that were chosen before; None takes every structure.
        names: The structures that there are.

    Raises:
        SettingsError: A structure is not known, or named twice.

    Example:
        >>> chosen = choose_structures("spleen,kidneys=left+right", ["left", "liver", "right", "spleen"])
        >>> [(entry.name, entry.structures) for entry in chosen.entries]
        [('spleen', ('spleen',)), ('kidneys', ('left', 'right'))]
    """
    if isinstance(given, LabelMap):
        groups = dict(zip(given.names, parts_of(given), strict=True))
    elif given is None:
        groups = {name: (name,) for name in sorted(names)}
    else:
        groups = _parsed(given)
    if IGNORE_NAME in groups:
        raise refusal("ignore cannot be a structure: a file of a structure says nothing of voxels nobody labelled")
    for label, part in groups.items():
        for name in part:
            if name not in names:
                known = did_you_mean(name, sorted(names))
                remedy = (
                    f"; say which it is, such as --labels {label}={nearest(name, names) or min(names)}"
                    if names
                    else ""
                )
                found = f"{label}: the masks are one file for each structure, and none is {name!r}{known}"
                raise refusal(f"{found}{remedy}")
        if len(set(part)) < len(part):
            raise refusal(f"{label} has a structure twice ({listed(part)}); name it once")
    if isinstance(given, LabelMap) and all(entry.structures for entry in given.entries):
        return given
    return structure_labels(groups)


def _parsed(given: str | Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    """The structures of each label, in order."""
    if isinstance(given, str):
        pairs = [[piece.strip() for piece in part.partition("=")] for part in given.split(",")]
        named: list[tuple[str, object]] = [(name, text if equals else name) for name, equals, text in pairs]
    else:
        named = list(given.items())
    groups: dict[str, tuple[str, ...]] = {}
    for label, names in named:
        parts = names.split("+") if isinstance(names, str) else names
        if not isinstance(parts, Sequence) or not all(isinstance(name, str) and name.strip() for name in parts):
            raise refusal(
                f"{label}={names!r}: the masks are one file for each structure; name them, such as "
                "liver,kidneys=kidney_left+kidney_right"
            )
        if not label or label in groups:
            raise refusal(f"the name {label!r} is empty or given twice; give each its own")
        groups[label] = tuple(name.strip() for name in parts)
    return groups


def value_of_places(places: Sequence[int], count: int) -> int:
    """The value of a voxel that is in the labels at some places of a list.

    Args:
        places: From 1, in order.
        count: Number of labels.

    Example:
        >>> value_of_places([2], 3), value_of_places([1, 3], 3)
        (2, 13)
    """
    return sum(place * (count + 1) ** power for power, place in enumerate(places))


def places_of_value(value: int, count: int) -> tuple[int, ...]:
    """The inverse of `value_of_places`."""
    places = []
    while value:
        value, place = divmod(value, count + 1)
        places.append(place)
    return tuple(places)


def with_values(labels: LabelMap, values: Iterable[int]) -> LabelMap:
    """Labels of structures, with the combinations that masks contain.

    Args:
        labels: From `structure_labels`.
        values: The values of masks that were read with these labels.

    Raises:
        SettingsError: They overlap in more combinations than a mask can store.

    Example:
        >>> with_values(structure_labels({"a": ["a"], "b": ["b"]}), [1, 7]).overlap_text
        'labels overlap: 1 is a; 2 is b; 7 is a + b'
    """
    count = len(labels.entries)
    return with_overlaps(labels, {value: places_of_value(value, count) for value in sorted(values)})


def with_overlaps(labels: LabelMap, places: Mapping[int, tuple[int, ...]]) -> LabelMap:
    """Labels of which some overlap in more values.

    Args:
        labels: The labels.
        places: By new value, the places of the labels that it belongs to.
    """
    new = {value: at for value, at in places.items() if value and value not in labels.named_values}
    if not new:
        return labels
    regions: dict[str, Named | list[int]] = {}
    for place, entry in enumerate(labels.entries, start=1):
        more = tuple(value for value, at in new.items() if place in at)
        regions[entry.name] = (*entry.values, *more) if isinstance(entry.values, tuple) else entry.values
    merged = LabelMap.from_regions(regions, ignored=labels.ignored)
    entries = tuple(
        replace(entry, structures=old.structures) for entry, old in zip(merged.entries, labels.entries, strict=True)
    )
    return replace(merged, entries=entries, unnamed=labels.unnamed)


def value_names(labels: LabelMap) -> dict[int, str]:
    """The names of the labels that each value of masks of structures belongs to."""
    count = len(labels.entries)
    return {
        span.first: " + ".join(labels.names[place - 1] for place in places_of_value(span.first, count))
        for span in map(span_of, labels.named_values.values)
    }


def overlaps_by_places(labels: LabelMap) -> dict[tuple[int, ...], int]:
    """The index of each overlap, by the places of its labels."""
    return {overlap.labels: index for index, overlap in enumerate(labels.overlaps, start=1)}


def structure_codec(labels: LabelMap, values: Iterable[int]) -> LabelCodec:
    """The meaning of the values of masks of structures that were read with some labels.

    Args:
        labels: With every overlap that the masks contain.
        values: The values of the masks.
    """
    indices, count = overlaps_by_places(labels), len(labels.entries)
    meant: dict[Value, int] = {value: indices[places_of_value(value, count)] for value in values if value}
    return LabelCodec(meant)


def require_storable(value: int, name: str) -> None:
    """Refuse a voxel in more structures than a value can say.

    Raises:
        SettingsError: The value is too large.
    """
    if value > LARGEST_LABEL:
        raise SettingsError(
            f"{name}: too many structures share a voxel; choose fewer with --labels",
            code="LABEL_VALUES",
            field="labels",
        )
