"""The one way from the stored values of a mask to indices, and back.

An index is the number of a label in its list, from 1 to 254; where labels overlap, the number of an overlap. 0 is the
background, and `IGNORED` a voxel that nobody labelled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import LabelError
from medfcn.labels.values import Value, ValueSet, span_of
from medfcn.labels.whole_numbers import LARGEST_TABLE, chunks, numbers_text, values_in
from medfcn.text import listed
from medfcn.volumes.formats.stored import is_of_one_value, of_one_value

IGNORED = 255
"""The index of a voxel that nobody labelled: neither foreground nor background."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class LabelCodec:
    """The meaning of the values that some masks store.

    Args:
        indices: The index of each stored value, or range of values, that has one; ranges do not overlap. All other
            values are background.

    Example:
        >>> codec = LabelCodec({2: 1, 7: 2})
        >>> codec.encode(np.array([0, 7, 2, 5], dtype=np.uint8)).tolist(), codec.decode(np.array([0, 2])).tolist()
        ([0, 2, 1, 0], [0, 7])
        >>> from medfcn.labels.values import Span
        >>> LabelCodec({Span(1, 42): 1}).encode(np.array([0, 42, 43], dtype=np.uint8)).tolist()
        [0, 1, 0]
    """

    indices: Mapping[Value, int]

    @cached_property
    def known(self) -> ValueSet:
        """The stored values that have an index."""
        return ValueSet(tuple(sorted(self.indices, key=span_of)))

    def joined_with(self, written: "LabelCodec") -> "LabelCodec | None":
        """The meaning of the values of both; None if a value has two meanings.

        Args:
            written: The meaning of single values, such as those that medfcn writes.
        """
        new: dict[Value, int] = {}
        for value, index in written.indices.items():
            first = span_of(value).first
            if first not in self.known:
                new[value] = index
            elif self.encode(np.array([first])) != index:
                return None
        return LabelCodec({**self.indices, **new})

    @property
    def without_ignored(self) -> "LabelCodec":
        """The same for masks in which every voxel is labelled, such as predictions."""
        return LabelCodec({value: index for value, index in self.indices.items() if index != IGNORED})

    def encode(self, mask: NDArray[Any]) -> Bytes:
        """The index of each voxel.

        Args:
            mask: Stored values: unsigned whole numbers.

        Returns:
            The same shape, in the same memory order.
        """
        if is_of_one_value(mask):
            return of_one_value(self.encode(mask.flat[:1])[0], mask.shape)
        largest = int(mask.max(initial=0))
        known = [(*span_of(value), index) for value, index in self.indices.items()]
        known = sorted((first, min(last, largest), index) for first, last, index in known if first <= largest)
        if largest > LARGEST_TABLE:
            return _searched(known, mask)
        table = np.zeros(largest + 1, dtype=np.uint8)
        for first, last, index in known:
            table[first : last + 1] = index
        return _looked_up(table, mask)

    def decode(self, indices: NDArray[Any]) -> NDArray[Any]:
        """The stored value of each voxel, in the smallest unsigned type that can hold all of them.

        Args:
            indices: 0, or an index that a stored value has.

        Returns:
            The same shape, in the same memory order; the same array, if each value is its index.
        """
        firsts = {span_of(value).first: index for value, index in self.indices.items()}
        table = np.zeros(max(firsts.values(), default=0) + 1, dtype=np.min_scalar_type(max(firsts, default=0)))
        for value, index in firsts.items():
            table[index] = value
        if table.dtype == indices.dtype and (table == np.arange(len(table))).all():
            return indices
        return _looked_up(table, indices)

    def refuse_other_values(self, mask: NDArray[Any], *, name: str) -> None:
        """Refuse a mask of unsigned whole numbers with a value that has no index.

        Raises:
            LabelError: It has one.
        """
        strange = values_in(mask) - self.known
        if strange:
            raise LabelError(
                f"{name}: unexpected label values {numbers_text(sorted(strange))}; expected "
                f"{listed(self.known.values)}; name those that matter with --labels NAME=V",
                code="LABEL_UNNAMED",
                field="labels",
            )


def _looked_up(table: NDArray[Any], places: NDArray[Any]) -> NDArray[Any]:
    """`table[places]`, in the memory order of `places`."""
    if is_of_one_value(places):
        return of_one_value(table[places.flat[0]], places.shape)
    result = np.empty_like(places, dtype=table.dtype, subok=False)
    for target, source in chunks(result, places):
        target[...] = table[source]
    return result


def _searched(known: Sequence[tuple[int, int, int]], mask: NDArray[Any]) -> Bytes:
    """The index of each voxel, 0 where it has none, where a table of all values would be too long.

    Args:
        known: First and last value and index of each range, in the order of the values.
        mask: Stored values.
    """
    result = np.zeros_like(mask, dtype=np.uint8, subok=False)
    if not known:
        return result
    firsts, lasts = (np.array(ends, dtype=mask.dtype) for ends in list(zip(*known, strict=True))[:2])
    indices = np.array([index for _, _, index in known], dtype=np.uint8)
    for target, source in chunks(result, mask):
        places = np.searchsorted(firsts, source, side="right")  # of the range after the one that may contain it
        at = np.maximum(places, 1) - 1
        target[...] = np.where((places > 0) & (source <= lasts[at]), indices[at], 0)
    return result
