"""Labels: which values of a mask mean what, and masks read as such.

A `LabelMap` is an ordered list of foreground labels. A label of one value is written to masks as that value;
one merged from several is written as its place in the list. Where labels overlap, the mask holds their parts (see
`medfcn.labels.overlaps`), each as its smallest value: a voxel of a value is of every label that has that value.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medfcn.decoding import convert
from medfcn.errors import LabelError, SettingsError
from medfcn.labels.overlaps import LabelPart, is_overlapping, members_of, overlap_parts
from medfcn.labels.whole_numbers import LARGEST_LABEL, ROUNDING, label_counts, listed, pieces, whole_numbers
from medfcn.volumes.names import NIFTI_EXTENSIONS, extension_of
from medfcn.volumes.options import DEFAULT_OPTIONS, ReadOptions
from medfcn.volumes.reading import as_volume, read_stored, volume_of
from medfcn.volumes.volume import Volume, VolumeLike

IGNORED = 255
"""What `LabelMap.encode` writes for a voxel that nobody labelled: neither foreground nor background."""
IGNORE_NAME = "ignore"
"""The name that is reserved for such voxels, as nnU-Net reserves it."""
_MOST_LABELS = IGNORED - 1


@dataclass(frozen=True)
class LabelEntry:
    """One foreground label.

    Args:
        name: What it is called in reports.
        values: The values of a reference that belong to it.
        written: The value it has in a mask that medfcn writes; where labels overlap, its place in the list.
    """

    name: str
    values: tuple[int, ...]
    written: int


@dataclass(frozen=True)
class LabelMap:
    """The foreground labels, in their order; the network's channel `k` is the `k`-th, 0 is background.

    Labels overlap when a value belongs to several of them.

    Args:
        entries: The labels, 1 to 254, cut into at most 254 parts.
        unnamed: What a value that no entry names is: background, or a reason to refuse the mask.
        ignored: The values of voxels that nobody labelled (around scribbles, in slices left out), which are
            neither trained on nor scored.

    Raises:
        SettingsError: Two entries share a name, all their values or what they are written as; or a value is no
            label, or both a label and ignored.

    Example:
        >>> labels = LabelMap.parse("hippocampus=1+2,other=3")
        >>> labels.encode(np.array([[[0, 1, 2, 3, 9]]]), name="case").tolist()
        [[[0, 1, 1, 2, 0]]]
        >>> labels.decode(np.array([[[0, 1, 2]]])).tolist()
        [[[0, 1, 3]]]
        >>> LabelMap.parse("organ=1,ignore=9").encode(np.array([[[0, 1, 9]]]), name="case").tolist()
        [[[0, 1, 255]]]

        A tumour whose value 3, its core, is also of the whole:

        >>> labels = LabelMap.parse("whole=1+2+3,core=3")
        >>> [(part.name, part.values, part.written) for part in labels.parts]
        [('whole', (1, 2), 1), ('whole + core', (3,), 3)]
        >>> labels.decode(labels.encode(np.array([[[0, 1, 2, 3]]]), name="case")).tolist()
        [[[0, 1, 1, 3]]]
    """

    entries: tuple[LabelEntry, ...]
    unnamed: Literal["background", "refuse"] = "background"
    ignored: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.entries) <= _MOST_LABELS:
            raise SettingsError(
                f"labels: {len(self.entries)} labels; expected 1 to {_MOST_LABELS}, as NAME=V[+V...],..."
            )
        names: set[str] = set()
        owners: dict[int, str] = {}
        alike: dict[frozenset[int], str] = {}
        for entry in self.entries:
            shown_name = entry.name
            if not entry.name or entry.name in names:
                raise SettingsError(f"labels: the name {shown_name!r} is empty or given twice; give each its own")
            names.add(entry.name)
            for value in entry.values:
                if not 1 <= value <= LARGEST_LABEL:
                    raise SettingsError(
                        f"labels: {shown_name}={value}; values are 1 to {LARGEST_LABEL}, 0 is the background"
                    )
                owners[value] = entry.name
            values = frozenset(entry.values)
            if len(values) < len(entry.values):
                raise SettingsError(f"labels: {shown_name} has a value twice; name it once")
            other = alike.setdefault(values, entry.name)
            if other != entry.name:
                raise SettingsError(f"labels: {other} and {shown_name} have the same values; name one")
        for value in self.ignored:
            if not 1 <= value <= LARGEST_LABEL:
                raise SettingsError(f"labels: {IGNORE_NAME}={value}; values are 1 to {LARGEST_LABEL}")
            if value in owners or self.ignored.count(value) > 1:
                other = owners.get(value, IGNORE_NAME)
                raise SettingsError(f"labels: the value {value} belongs to {other} and to ignore; name it once")
        self._check_written()
        if len(self.parts) > _MOST_LABELS:
            raise SettingsError(
                f"labels: they overlap in {len(self.parts)} combinations, of which a mask can tell {_MOST_LABELS} "
                "apart; name fewer labels"
            )

    def _check_written(self) -> None:
        written: dict[int, LabelEntry] = {}
        for place, entry in enumerate(self.entries, start=1):
            if not entry.values or entry.written != _written(entry.values, place, self.overlapping):
                raise SettingsError(
                    f"labels: {entry.name} cannot be written as {entry.written}; a single value is "
                    "written as itself, a merged one, or any where labels overlap, as its place in the list"
                )
            other = written.setdefault(entry.written, entry)
            if other is not entry:
                merged, single = (entry, other) if len(entry.values) > 1 else (other, entry)
                raise SettingsError(
                    f"labels: {merged.name} (merged, so written as its place in the list) and "
                    f"{single.name} would both be written as {entry.written}; put "
                    f"{merged.name} at a place that is no other label's value"
                )

    @classmethod
    def parse(cls, text: str) -> "LabelMap":
        """Read `NAME=V[+V...],...`; values that no entry names are background.

        Labels overlap where they name the same value. The name `ignore` is no label: its values are voxels that
        nobody labelled.

        Raises:
            SettingsError: The text is not of that form, or the labels contradict each other.

        Example:
            >>> LabelMap.parse("anterior=1,posterior=2").names
            ('anterior', 'posterior')
            >>> LabelMap.parse("organ=1,ignore=254+255").ignored
            (254, 255)
        """
        named: list[tuple[str, tuple[int, ...]]] = []
        ignored: tuple[int, ...] = ()
        for part in text.split(","):
            name, equals, numbers = (piece.strip() for piece in part.partition("="))
            digits = [number.strip() for number in numbers.split("+")]
            if not (name and equals) or not all(number.isascii() and number.isdigit() for number in digits):
                raise SettingsError(
                    f"labels: {part.strip()!r} is not NAME=V[+V...]; write for example organ=1 or left=1+3,right=2+4"
                )
            # A number of more digits than a label can have is refused before it is converted.
            values = tuple(int(number[:12]) for number in digits)
            if name == IGNORE_NAME:
                ignored += values
            else:
                named.append((name, values))
        return cls(_entries(named), ignored=ignored)

    @classmethod
    def from_names(cls, names: Mapping[int, str], *, ignored: Iterable[int] = ()) -> "LabelMap":
        """One label for each value, in the order of the values, without 0; others are refused in masks.

        Args:
            names: The names by value; values named `ignore` are no label.
            ignored: More values of voxels that nobody labelled.

        Example:
            >>> LabelMap.from_names({0: "background", 2: "posterior", 1: "anterior"}).names
            ('anterior', 'posterior')
        """
        chosen = sorted((int(value), str(name)) for value, name in names.items() if int(value) != 0)
        entries = tuple(LabelEntry(name, (value,), value) for value, name in chosen if name != IGNORE_NAME)
        unlabelled = {value for value, name in chosen if name == IGNORE_NAME}.union(ignored)
        return cls(entries, unnamed="refuse", ignored=tuple(sorted(unlabelled)))

    @classmethod
    def from_regions(cls, regions: Mapping[str, Sequence[int]], *, ignored: Iterable[int] = ()) -> "LabelMap":
        """Labels that may have several values and overlap, in their order; values of none are refused in masks.

        Args:
            regions: The values by name.
            ignored: Values of voxels that nobody labelled.

        Example:
            >>> LabelMap.from_regions({"whole": [1, 2], "core": [2]}).overlapping
            True
        """
        entries = _entries([(name, tuple(values)) for name, values in regions.items()])
        return cls(entries, unnamed="refuse", ignored=tuple(sorted(ignored)))

    def ignoring(self, values: Iterable[int]) -> "LabelMap":
        """The same labels on a dataset that calls these values ignored: as far as no label names them.

        Labels that already say what they ignore stay as they are.

        Example:
            >>> LabelMap.parse("organ=1").ignoring([1, 2]).ignored
            (2,)
        """
        if self.ignored:
            return self
        return replace(self, ignored=tuple(sorted(set(values).difference(self.named_values))))

    @property
    def names(self) -> tuple[str, ...]:
        """The labels' names, in order."""
        return tuple(entry.name for entry in self.entries)

    @cached_property
    def overlapping(self) -> bool:
        """Whether a value belongs to several labels."""
        return is_overlapping([entry.values for entry in self.entries])

    @cached_property
    def parts(self) -> tuple[LabelPart, ...]:
        """What a mask tells apart: the labels, or where they overlap, their combinations by smallest value."""
        if self.overlapping:
            return overlap_parts(self.names, [entry.values for entry in self.entries])
        return tuple(
            LabelPart(entry.name, entry.values, (place,), entry.written)
            for place, entry in enumerate(self.entries, start=1)
        )

    @cached_property
    def members(self) -> NDArray[np.bool_] | None:
        """`(A + 1, L)`: which labels hold in the background and in each part; None unless labels overlap."""
        return members_of(self.parts, len(self.entries)) if self.overlapping else None

    @property
    def overlap_text(self) -> str:
        """For people, which labels hold together: a slip of the pen would make labels overlap too.

        Example:
            >>> LabelMap.parse("whole=1+2+3,core=3").overlap_text
            'labels overlap: 1+2 is whole; 3 is whole + core'
        """
        parts = "; ".join(f"{'+'.join(map(str, part.values))} is {part.name}" for part in self.parts)
        return f"labels overlap: {parts}"

    @property
    def named_values(self) -> frozenset[int]:
        """The values of a reference that belong to a label."""
        return frozenset(value for entry in self.entries for value in entry.values)

    def encode(self, array: NDArray[Any], *, name: str) -> NDArray[np.uint8]:
        """The values of a mask as places in the list: 0 for background, `k` for the `k`-th entry, from 1.

        Where labels overlap, `k` is the `k`-th of `parts`. Ignored values become `IGNORED` (255).

        Args:
            array: Whole numbers, any shape.
            name: The case, for messages.

        Returns:
            uint8, the same shape, contiguous as `array` is.

        Raises:
            LabelError: A value is negative, not whole, or neither named nor ignored while `unnamed` is "refuse".
        """
        whole, _ = whole_numbers(array, name=name)
        most = int(whole.max()) if whole.size else 0
        table = np.zeros(max(most, *self.named_values, *self.ignored) + 1, dtype=np.uint8)
        for place, part in enumerate(self.parts, start=1):
            table[list(part.values)] = place
        table[list(self.ignored)] = IGNORED
        if self.unnamed == "refuse":
            strange = [value for value in label_counts(whole) if value != 0 and table[value] == 0]
            if strange:
                raise LabelError(
                    f"{name}: unexpected label values {listed(strange)}; expected "
                    f"{listed(sorted(self.named_values.union(self.ignored)))}; name those that matter with "
                    "--labels NAME=V"
                )
        encoded = np.empty_like(whole, dtype=np.uint8)
        for target, source in pieces(encoded, whole):
            target[...] = table[source]
        return encoded

    def decode(self, index_array: NDArray[Any]) -> NDArray[Any]:
        """The inverse for masks that are written: from places in the list to the values written.

        Places are 0 to the number of labels, or parts; a mask that is written ignores no voxel.
        """
        written = np.array([0, *(part.written for part in self.parts)])
        values: NDArray[Any] = written.astype(np.min_scalar_type(int(written.max())))[index_array]
        return values

    def to_json(self) -> dict[str, Any]:
        """A value that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> "LabelMap":
        """The inverse of `to_json`; what was written before values could be ignored ignores none.

        Raises:
            SettingsError: `value` is not what `to_json` gives.

        Example:
            >>> labels = LabelMap.parse("hippocampus=1+2")
            >>> LabelMap.from_json(labels.to_json()) == labels
            True
        """
        return convert(value, cls, source="labels", error=SettingsError, remedy="expected what medfcn writes")


def _entries(named: Sequence[tuple[str, tuple[int, ...]]]) -> tuple[LabelEntry, ...]:
    """Labels of these names and values, with what they are written as."""
    overlapping = is_overlapping([values for _, values in named])
    return tuple(
        LabelEntry(name, values, _written(values, place, overlapping))
        for place, (name, values) in enumerate(named, start=1)
    )


def _written(values: tuple[int, ...], place: int, overlapping: bool) -> int:
    return values[0] if len(values) == 1 and not overlapping else place


def read_mask(
    source: VolumeLike, *, labels: LabelMap | None = None, options: ReadOptions = DEFAULT_OPTIONS
) -> Volume:
    """Read a mask: a volume whose voxels are whole numbers from 0 up.

    Values within 1e-3 of a whole number are rounded, and the volume's `notes` say so. The values are those of
    the file; `labels` is only asked what 255 means.

    Args:
        source: What `as_volume` accepts.
        labels: Naming 255 (`--labels organ=255`, `ignore=255`) opts in to masks drawn with 255, and to files
            that scale 255 down to 1.
        options: How a file is read.

    Returns:
        A volume of the smallest unsigned integers.

    Raises:
        LabelError: A value is negative, not whole, above 65535, or a 255 that nobody named.
        VolumeError: As in `read_volume`.
    """
    named = set(labels.named_values.union(labels.ignored)) if labels else set()
    if isinstance(source, str | os.PathLike) and extension_of(source) in NIFTI_EXTENSIONS:
        volume = _unscaled_where_ambiguous(source, named, options)
    else:
        volume = as_volume(source, options=options)
    who = volume.name or "mask"
    whole, off = whole_numbers(volume.array, name=who)
    _check_255(whole, named, who)
    notes = volume.notes + ((f"voxels rounded to whole labels (by up to {off:.1g})",) if off else ())
    return Volume(whole, volume.affine, name=volume.name, header=volume.header, sha256=volume.sha256, notes=notes)


def _unscaled_where_ambiguous(source: Any, named: set[int], options: ReadOptions) -> Volume:
    """Read a mask whose header may scale it, such as 255 by 1/255, where both readings look like labels."""
    stored = read_stored(source, options=options)
    raw = stored.array.copy() if stored.is_scaled else stored.array
    scaled = volume_of(stored, options=options)
    if not stored.is_scaled or raw.dtype.kind not in "iu" or int(raw.min()) < 0 or int(raw.max()) > LARGEST_LABEL:
        return scaled
    as_stored = [int(value) for value in np.unique(raw)]
    as_scaled = [float(value) for value in np.unique(scaled.array)]
    names_stored = bool(named.intersection(as_stored))
    names_scaled = any(abs(value - round(value)) <= ROUNDING and round(value) in named for value in as_scaled)
    if names_stored == names_scaled:
        raise LabelError(
            f"{stored.name}: stores the values {listed(as_stored)} and scl_slope {stored.slope:.6g} makes "
            f"them {listed(as_scaled)}; say which is meant, such as --labels organ={as_stored[-1]}"
        )
    if not names_stored:
        return scaled
    note = "scl_slope ignored: the labels named are the stored values"
    return volume_of(replace(stored, array=raw, slope=1.0, inter=0.0, notes=(*stored.notes, note)), options=options)


def _check_255(whole: NDArray[Any], named: set[int], name: str) -> None:
    """Refuse a 255 that nobody named: as often "yes" in a picture of a mask as a label."""
    if 255 in named or int(whole.max()) < 255 or not (whole == 255).any():
        return
    values = list(label_counts(whole))
    if named and any(value in named for value in values):
        return
    raise LabelError(
        f"{name}: label values {listed(values)}; if 255 is the foreground, say so with --labels "
        "organ=255, if nobody labelled those voxels, with ignore=255"
    )
