"""The one way from the stored values of a mask to indices, and back.

An index is the number of a label in its list, from 1 to 254; where labels overlap, the number of an overlap. 0 is the
background, and `IGNORED` a voxel that nobody labelled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import LabelError
from medfcn.labels.whole_numbers import LARGEST_TABLE, chunks, numbers_text, values_in

IGNORED = 255
"""The index of a voxel that nobody labelled: neither foreground nor background."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class LabelCodec:
    """The meaning of the values that some masks store.

    Args:
        indices: The index of each stored value that has one; all other values are background.

    Example:
        >>> codec = LabelCodec({2: 1, 7: 2})
        >>> codec.encode(np.array([0, 7, 2, 5], dtype=np.uint8)).tolist(), codec.decode(np.array([0, 2])).tolist()
        ([0, 2, 1, 0], [0, 7])
    """

    indices: Mapping[int, int]

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
        largest = int(mask.max(initial=0))
        known = {value: index for value, index in sorted(self.indices.items()) if value <= largest}
        if largest > LARGEST_TABLE:
            return _searched(known, mask)
        table = np.zeros(largest + 1, dtype=np.uint8)
        for value, index in known.items():
            table[value] = index
        return _looked_up(table, mask)

    def decode(self, indices: NDArray[Any]) -> NDArray[Any]:
        """The stored value of each voxel, in the smallest unsigned type that can hold all of them.

        Args:
            indices: 0, or an index that a stored value has.

        Returns:
            The same shape, in the same memory order.
        """
        largest = max(self.indices, default=0)
        table = np.zeros(max(self.indices.values(), default=0) + 1, dtype=np.min_scalar_type(largest))
        for value, index in self.indices.items():
            table[index] = value
        return _looked_up(table, indices)

    def refuse_other_values(self, mask: NDArray[Any], *, name: str) -> None:
        """Refuse a mask of unsigned whole numbers with a value that has no index.

        Raises:
            LabelError: It has one.
        """
        strange = values_in(mask) - self.indices.keys()
        if strange:
            raise LabelError(
                f"{name}: unexpected label values {numbers_text(sorted(strange))}; expected "
                f"{numbers_text(sorted(self.indices))}; name those that matter with --labels NAME=V",
                code="LABEL_UNNAMED",
                field="labels",
            )


def _looked_up(table: NDArray[Any], places: NDArray[Any]) -> NDArray[Any]:
    """`table[places]`, in the memory order of `places`."""
    result = np.empty_like(places, dtype=table.dtype, subok=False)
    for target, source in chunks(result, places):
        target[...] = table[source]
    return result


def _searched(indices: Mapping[int, int], mask: NDArray[Any]) -> Bytes:
    """The index of each voxel, 0 where it has none, where a table of all values would be too long."""
    result = np.zeros_like(mask, dtype=np.uint8, subok=False)
    if not indices:
        return result
    values = np.array(list(indices), dtype=mask.dtype)
    found = np.array(list(indices.values()), dtype=np.uint8)
    for target, source in chunks(result, mask):
        places = np.minimum(np.searchsorted(values, source), len(values) - 1)
        target[...] = np.where(values[places] == source, found[places], 0)
    return result
