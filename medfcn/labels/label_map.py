"""The labels of a task: their names, their values in a reference, and their values in a mask that medfcn writes.

A `LabelMap` is an ordered list of foreground labels. A label of one value is written to masks as that value, one
merged from several as its index in the list. Where labels overlap, a mask stores their overlaps (see
`medfcn.labels.overlaps`), each as its smallest value: a voxel belongs to every label that has its value.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medfcn.decoding import convert
from medfcn.errors import SettingsError
from medfcn.labels.codec import IGNORED, LabelCodec
from medfcn.labels.overlaps import Overlap, find_overlaps, is_overlapping, membership
from medfcn.labels.whole_numbers import LARGEST_LABEL, label_counts, whole_numbers

IGNORE_NAME = "ignore"
"""The name that is reserved for voxels that nobody labelled, as nnU-Net reserves it."""
_MOST_LABELS = IGNORED - 1


@dataclass(frozen=True)
class LabelEntry:
    """One foreground label.

    Args:
        name: Its name in reports.
        values: The values of a reference that belong to it.
        written: The value it has in a mask that medfcn writes; where labels overlap, its index in the list.
    """

    name: str
    values: tuple[int, ...]
    written: int


@dataclass(frozen=True)
class LabelMap:
    """The foreground labels, in their order; the network's channel `k` is the `k`-th, 0 is the background.

    Labels overlap if a value belongs to several of them.

    Args:
        entries: The labels, 1 to 254, with at most 254 overlaps.
        unnamed: The meaning of a value that no entry names: background, or a reason to refuse the mask.
        ignored: The values of voxels that nobody labelled (around scribbles, in slices left out). They are neither
            trained on nor scored.

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

        A tumour whose value 3, its core, also belongs to the whole:

        >>> labels = LabelMap.parse("whole=1+2+3,core=3")
        >>> [(overlap.name, overlap.values, overlap.written) for overlap in labels.overlaps]
        [('whole', (1, 2), 1), ('whole + core', (3,), 3)]
        >>> labels.decode(labels.encode(np.array([[[0, 1, 2, 3]]]), name="case")).tolist()
        [[[0, 1, 1, 3]]]
    """

    entries: tuple[LabelEntry, ...]
    unnamed: Literal["background", "refuse"] = "background"
    ignored: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.entries) <= _MOST_LABELS:
            raise _refusal(f"{len(self.entries)} labels; expected 1 to {_MOST_LABELS}, as NAME=V[+V...],...")
        names: set[str] = set()
        owners: dict[int, str] = {}
        alike: dict[frozenset[int], str] = {}
        for entry in self.entries:
            if not entry.name or entry.name in names:
                raise _refusal(f"the name {entry.name!r} is empty or given twice; give each its own")
            names.add(entry.name)
            _require_labels(entry.name, entry.values, "0 is the background")
            owners |= dict.fromkeys(entry.values, entry.name)
            values = frozenset(entry.values)
            if len(values) < len(entry.values):
                raise _refusal(f"{entry.name} has a value twice; name it once")
            other = alike.setdefault(values, entry.name)
            if other != entry.name:
                raise _refusal(f"{other} and {entry.name} have the same values; name one")
        _require_labels(IGNORE_NAME, self.ignored, "those of labels excepted")
        for value in self.ignored:
            if value in owners or self.ignored.count(value) > 1:
                other = owners.get(value, IGNORE_NAME)
                raise _refusal(f"the value {value} belongs to {other} and to ignore; name it once")
        self._check_written()
        if len(self.overlaps) > _MOST_LABELS:
            raise _refusal(
                f"they overlap in {len(self.overlaps)} combinations, of which a mask can store {_MOST_LABELS}; name "
                "fewer labels"
            )

    def _check_written(self) -> None:
        written: dict[int, LabelEntry] = {}
        for index, entry in enumerate(self.entries, start=1):
            if not entry.values or entry.written != _written(entry.values, index, self.overlapping):
                raise _refusal(
                    f"{entry.name} cannot be written as {entry.written}; a single value is written as itself, a "
                    "merged one, or any where labels overlap, as its place in the list"
                )
            other = written.setdefault(entry.written, entry)
            if other is not entry:
                merged, single = (entry, other) if len(entry.values) > 1 else (other, entry)
                raise _refusal(
                    f"{merged.name} (merged, so written as its place in the list) and {single.name} would both be "
                    f"written as {entry.written}; put {merged.name} at a place that is no other label's value"
                )

    @classmethod
    def parse(cls, text: str) -> "LabelMap":
        """Read `NAME=V[+V...],...`; values that no entry names are background.

        Labels overlap if they name the same value. The name `ignore` is no label: its values are voxels that nobody
        labelled.

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
                raise _refusal(
                    f"{part.strip()!r} is not NAME=V[+V...]; write for example organ=1 or left=1+3,right=2+4"
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
        """One label for each value, in the order of the values, without 0; masks with other values are refused.

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
        """Labels that may have several values and overlap, in their order; masks with other values are refused.

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
        """The same labels for a dataset that ignores these values, except those that a label names.

        Labels that already name ignored values stay as they are.

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
        """True if a value belongs to several labels."""
        return is_overlapping([entry.values for entry in self.entries])

    @cached_property
    def overlaps(self) -> tuple[Overlap, ...]:
        """The combinations of labels that a mask stores, by smallest value; each label alone where none overlap."""
        if self.overlapping:
            return find_overlaps(self.names, [entry.values for entry in self.entries])
        return tuple(
            Overlap(entry.name, entry.values, (index,), entry.written)
            for index, entry in enumerate(self.entries, start=1)
        )

    @cached_property
    def membership(self) -> NDArray[np.bool_]:
        """`(A + 1, L)`: True where a label is in the background (row 0, never) or in one of the A overlaps."""
        return membership(self.overlaps, len(self.entries))

    @property
    def members(self) -> NDArray[np.bool_] | None:
        """As `membership`; None unless labels overlap."""
        return self.membership if self.overlapping else None

    @property
    def overlap_text(self) -> str:
        """For people, which labels occur together: a slip of the pen would make labels overlap too.

        Example:
            >>> LabelMap.parse("whole=1+2+3,core=3").overlap_text
            'labels overlap: 1+2 is whole; 3 is whole + core'
        """
        each = "; ".join(f"{'+'.join(map(str, overlap.values))} is {overlap.name}" for overlap in self.overlaps)
        return f"labels overlap: {each}"

    @property
    def named_values(self) -> frozenset[int]:
        """The values of a reference that belong to a label."""
        return frozenset(value for entry in self.entries for value in entry.values)

    @cached_property
    def reference_codec(self) -> LabelCodec:
        """The meaning of the values of a reference; an index is that of an overlap, or `IGNORED`."""
        indices = {value: index for index, one in enumerate(self.overlaps, start=1) for value in one.values}
        return LabelCodec(indices | dict.fromkeys(self.ignored, IGNORED))

    @cached_property
    def written_codec(self) -> LabelCodec:
        """The meaning of the values of a mask that medfcn writes."""
        return LabelCodec({overlap.written: index for index, overlap in enumerate(self.overlaps, start=1)})

    def encode(self, array: NDArray[Any], *, name: str) -> NDArray[np.uint8]:
        """The values of a reference as indices: 0 for background, `k` for the `k`-th label, from 1.

        Where labels overlap, `k` is the `k`-th of `overlaps`. Ignored values become `IGNORED` (255).

        Args:
            array: Whole numbers, any shape.
            name: The case, for messages.

        Returns:
            uint8, the same shape, in the same memory order.

        Raises:
            LabelError: A value is negative, not whole, or neither named nor ignored while `unnamed` is "refuse".
        """
        whole, _ = whole_numbers(array, name=name)
        self.refuse_unnamed(whole, self.reference_codec, name=name)
        return self.reference_codec.encode(whole)

    def refuse_unnamed(self, mask: NDArray[Any], codec: LabelCodec, *, name: str) -> None:
        """Refuse a mask with a value that `codec` gives no index, if that is what `unnamed` says.

        Raises:
            LabelError: It has one.
        """
        if self.unnamed == "refuse":
            codec.refuse_other_values(mask, name=name)

    def decode(self, indices: NDArray[Any]) -> NDArray[Any]:
        """The values of a mask that is written: the inverse of `encode`, for masks that ignore no voxel.

        Args:
            indices: 0 to the number of labels, or overlaps.
        """
        return self.written_codec.decode(indices)

    def mask_of(self, indices: NDArray[np.uint8], label: int) -> NDArray[np.bool_]:
        """The voxels of one label, by its index in the list, from 1.

        Example:
            >>> LabelMap.parse("whole=1+2,core=2").mask_of(np.array([0, 1, 2], dtype=np.uint8), 1)
            array([False,  True,  True])
        """
        within = np.flatnonzero(self.membership[:, label - 1]).tolist()
        return LabelCodec(dict.fromkeys(within, 1)).encode(indices).view(np.bool_)

    def voxel_counts(self, indices: NDArray[np.uint8]) -> dict[str, int]:
        """The number of voxels of each label, by name.

        Example:
            >>> LabelMap.parse("whole=1+2,core=2").voxel_counts(np.array([0, 1, 2], dtype=np.uint8))
            {'whole': 2, 'core': 1}
        """
        counts = np.zeros(len(self.membership), dtype=np.int64)
        for index, count in label_counts(indices).items():
            if index != IGNORED:
                counts[index] = count
        return dict(zip(self.names, (counts @ self.membership).tolist(), strict=True))

    def to_json(self) -> dict[str, Any]:
        """A value of dictionaries, text and numbers, for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> "LabelMap":
        """The inverse of `to_json`; a map from before values could be ignored ignores none.

        Raises:
            SettingsError: `value` is not what `to_json` gives.

        Example:
            >>> labels = LabelMap.parse("hippocampus=1+2")
            >>> LabelMap.from_json(labels.to_json()) == labels
            True
        """
        return convert(value, cls, source="labels", error=SettingsError, remedy="expected what medfcn writes")


def _refusal(message: str) -> SettingsError:
    return SettingsError(f"labels: {message}", field="labels")


def _require_labels(name: str, values: Iterable[int], remark: str) -> None:
    for value in values:
        if not 1 <= value <= LARGEST_LABEL:
            raise _refusal(f"{name}={value}; values are 1 to {LARGEST_LABEL}, {remark}")


def _entries(named: Sequence[tuple[str, tuple[int, ...]]]) -> tuple[LabelEntry, ...]:
    """Labels of these names and values, with what they are written as."""
    overlapping = is_overlapping([values for _, values in named])
    return tuple(
        LabelEntry(name, values, _written(values, index, overlapping))
        for index, (name, values) in enumerate(named, start=1)
    )


def _written(values: tuple[int, ...], index: int, overlapping: bool) -> int:
    return values[0] if len(values) == 1 and not overlapping else index
