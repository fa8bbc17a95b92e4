"""The labels of a task: their names, their values in a reference, and their values in a mask that medfcn writes.

A `LabelMap` is an ordered list of foreground labels. A label of one value is written to masks as that value, one
that has a range as its first value, one merged from single values as its index in the list. Where labels overlap, a
mask stores their overlaps (see `medfcn.labels.overlaps`), each as its smallest value: a voxel belongs to every label
that has its value.
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
from medfcn.labels.entries import (
    LabelEntry,
    entries_of,
    in_numbers,
    in_order,
    is_merged,
    refusal,
    refuse_crossing,
    require_values,
    written_as,
)
from medfcn.labels.overlaps import Overlap, find_overlaps, is_overlapping, membership
from medfcn.labels.values import (
    ANY,
    Named,
    Span,
    Value,
    Values,
    ValueSet,
    parse_values,
    twice,
    values_from,
    values_text,
)
from medfcn.labels.whole_numbers import label_counts, whole_numbers

IGNORE_NAME = "ignore"
"""The name that is reserved for voxels that nobody labelled, as nnU-Net reserves it."""
_MOST_LABELS = IGNORED - 1


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

        Lesions that are numbered one by one:

        >>> LabelMap.parse("liver=100,lesion=1-42").encode(np.array([[[0, 7, 42, 43, 100]]]), name="case").tolist()
        [[[0, 2, 2, 0, 1]]]
        >>> LabelMap.parse("lesion=any,ignore=9").encode(np.array([[[0, 7, 9, 70000]]]), name="case").tolist()
        [[[0, 1, 255, 1]]]
    """

    entries: tuple[LabelEntry, ...]
    unnamed: Literal["background", "refuse"] = "background"
    ignored: Values = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.entries) <= _MOST_LABELS:
            raise refusal(f"{len(self.entries)} labels; expected 1 to {_MOST_LABELS}, as NAME=V[+V...],...")
        names: set[str] = set()
        alike: dict[tuple[Span, ...], str] = {}
        for entry in self.entries:
            if not entry.name or entry.name in names:
                raise refusal(f"the name {entry.name!r} is empty or given twice; give each its own")
            names.add(entry.name)
            if entry.values == ANY:
                if len(self.entries) > 1:
                    raise refusal(
                        f"{entry.name}=any is every value, so no other label can stand beside it; name the values of "
                        "each, such as 1-42"
                    )
                continue
            require_values(entry.name, entry.values, "0 is the background")
            if (value := twice(entry.values)) is not None:
                raise refusal(f"{entry.name} has a value twice (in {value}); name it once")
            other = alike.setdefault(ValueSet(entry.values).spans, entry.name)
            if other != entry.name:
                raise refusal(f"{other} and {entry.name} have the same values; name one")
        require_values(IGNORE_NAME, self.ignored, "those of labels excepted")
        if (value := twice(self.ignored)) is not None:
            raise refusal(f"the value {value} belongs to ignore and to ignore; name it once")
        for entry, values in reversed(list(zip(self.entries, self._values, strict=True))):
            if not values and entry.values:
                raise refusal(f"{entry.name}=any: every value is ignored; ignore fewer")
            for shared in (ValueSet(values) & ValueSet(self.ignored)).values:
                raise refusal(f"the value {shared} belongs to {entry.name} and to ignore; name it once")
        refuse_crossing(self.entries)
        self._check_written()
        if len(self.overlaps) > _MOST_LABELS:
            raise refusal(
                f"they overlap in {len(self.overlaps)} combinations, of which a mask can store {_MOST_LABELS}; name "
                "fewer labels"
            )

    def _check_written(self) -> None:
        written: dict[int, LabelEntry] = {}
        for index, entry in enumerate(self.entries, start=1):
            is_right = entry.values and entry.written == written_as(
                entry.values, index, overlapping=self.overlapping, ignored=self.ignored
            )
            if not is_right:
                raise refusal(
                    f"{entry.name} cannot be written as {entry.written}; a single value is written as itself, a "
                    "range as its first value, a merged one, or any where labels overlap, as its place in the list"
                )
            other = written.setdefault(entry.written, entry)
            if other is not entry:
                merged, single = (entry, other) if is_merged(entry.values) else (other, entry)
                raise refusal(
                    f"{merged.name} (merged, so written as its place in the list) and {single.name} would both be "
                    f"written as {entry.written}; put {merged.name} at a place that is no other label's value"
                )

    @classmethod
    def parse(cls, text: str) -> "LabelMap":
        """Read `NAME=V[-W][+V[-W]...],...` or `NAME=any`; values that no entry names are background.

        Labels overlap if they name the same value. The name `ignore` is no label: its values are voxels that nobody
        labelled.

        Raises:
            SettingsError: The text is not of that form, or the labels contradict each other.

        Example:
            >>> LabelMap.parse("anterior=1,posterior=2").names
            ('anterior', 'posterior')
            >>> LabelMap.parse("organ=1,ignore=254+255").ignored
            (254, 255)
            >>> [entry.written for entry in LabelMap.parse("liver=100,lesion=1-42").entries]
            [100, 1]
        """
        named: list[tuple[str, Named]] = []
        for part in text.split(","):
            name, equals, numbers = (piece.strip() for piece in part.partition("="))
            values = parse_values(numbers)
            if not (name and equals) or values is None:
                raise refusal(
                    f"{part.strip()!r} is not NAME=V[+V...]; write for example organ=1, left=1+3,right=2+4, "
                    "lesion=1-42 or lesion=any"
                )
            named.append((name, values))
        return cls._of(named)

    @classmethod
    def of(cls, labels: "LabelsLike") -> "LabelMap":
        """Labels from text as in `parse`, or from a mapping of names to values.

        Raises:
            SettingsError: They are neither, or contradict each other.

        Example:
            >>> LabelMap.of({"lesion": "1-42", "liver": [100, 101]}) == LabelMap.parse("lesion=1-42,liver=100+101")
            True
        """
        if isinstance(labels, LabelMap):
            return labels
        if isinstance(labels, str):
            return cls.parse(labels)
        if not isinstance(labels, Mapping):
            raise refusal(
                f"found {type(labels).__name__}; give text such as organ=1, or a mapping of names to values"
            )
        named: list[tuple[str, Named]] = []
        for name, given in labels.items():
            values = values_from(given)
            if not isinstance(name, str) or values is None:
                raise refusal(f"{name!r}: {given!r}; give a value, a list of values, text such as 1-42, or any")
            named.append((name, values))
        return cls._of(named)

    @classmethod
    def _of(cls, named: Sequence[tuple[str, Named]]) -> "LabelMap":
        """Labels of these names and values, of which `ignore` is none."""
        ignored: Values = ()
        for name, values in named:
            if name == IGNORE_NAME:
                if values == ANY:
                    raise refusal("ignore=any leaves nothing to learn or to score; name the values to ignore")
                ignored += values
        return cls(entries_of([one for one in named if one[0] != IGNORE_NAME], ignored), ignored=ignored)

    @classmethod
    def from_names(cls, names: Mapping[int, str], *, ignored: Iterable[Value] = ()) -> "LabelMap":
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
        return cls(entries, unnamed="refuse", ignored=in_order(unlabelled))

    @classmethod
    def from_regions(cls, regions: Mapping[str, Named | list[int]], *, ignored: Iterable[Value] = ()) -> "LabelMap":
        """Labels that may have several values and overlap, in their order; masks with other values are refused.

        Args:
            regions: The values by name.
            ignored: Values of voxels that nobody labelled.

        Example:
            >>> LabelMap.from_regions({"whole": [1, 2], "core": [2]}).overlapping
            True
        """
        unlabelled = in_order(ignored)
        named = [(name, values if values == ANY else tuple(values)) for name, values in regions.items()]
        return cls(entries_of(named, unlabelled), unnamed="refuse", ignored=unlabelled)

    def ignoring(self, values: Iterable[Value]) -> "LabelMap":
        """The same labels for a dataset that ignores these values, except those that a label names.

        Labels that already name ignored values stay as they are.

        Example:
            >>> LabelMap.parse("organ=1").ignoring([1, 2]).ignored
            (2,)
            >>> LabelMap.parse("lesion=any").ignoring([1, 2]).entries[0].written
            3
        """
        if self.ignored:
            return self
        named = ValueSet(tuple(value for entry in self.entries if entry.values != ANY for value in entry.values))
        ignored = tuple(kept for one in in_order(values) for kept in (ValueSet((one,)) & named.others).values)
        entries = tuple(
            replace(entry, written=written_as(ANY, 1, overlapping=False, ignored=ignored))
            if entry.values == ANY
            else entry
            for entry in self.entries
        )
        return replace(self, entries=entries, ignored=ignored)

    @property
    def names(self) -> tuple[str, ...]:
        """The labels' names, in order."""
        return tuple(entry.name for entry in self.entries)

    @property
    def structures(self) -> bool:
        """True if the masks are one file for each structure; see `medfcn.labels.structures`."""
        return any(entry.structures for entry in self.entries)

    @property
    def values_by_entry(self) -> tuple[tuple[LabelEntry, Values], ...]:
        """Each label with its values, `any` as ranges."""
        return tuple(zip(self.entries, self._values, strict=True))

    @property
    def is_any(self) -> bool:
        """True if every value but 0 is the one label."""
        return self.entries[0].values == ANY and not self.ignored

    @cached_property
    def _values(self) -> tuple[Values, ...]:
        """The values of each label, `any` in numbers."""
        return tuple(in_numbers(entry.values, self.ignored) for entry in self.entries)

    @cached_property
    def overlapping(self) -> bool:
        """True if a value belongs to several labels."""
        return is_overlapping(self._values)

    @cached_property
    def overlaps(self) -> tuple[Overlap, ...]:
        """The combinations of labels that a mask stores, by smallest value; each label alone where none overlap."""
        if self.overlapping:
            return find_overlaps(self.names, self._values)
        return tuple(
            Overlap(entry.name, values, (index,), entry.written)
            for index, (entry, values) in enumerate(zip(self.entries, self._values, strict=True), start=1)
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
        each = "; ".join(f"{values_text(overlap.values)} is {overlap.name}" for overlap in self.overlaps)
        return f"labels overlap: {each}"

    @cached_property
    def named_values(self) -> ValueSet:
        """The values of a reference that belong to a label."""
        return ValueSet(tuple(value for values in self._values for value in values))

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
        stored = asdict(self)
        for entry in stored["entries"]:
            if not entry["structures"]:  # a card of other masks stays as it was
                del entry["structures"]
        return stored

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


LabelsLike = LabelMap | str | Mapping[str, Any]
"""Labels as the library takes them: text as `--labels`, a mapping of names to values, or a `LabelMap`."""
