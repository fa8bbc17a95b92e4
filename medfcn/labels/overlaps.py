"""Labels that overlap, such as a tumour's core inside the whole tumour.

A voxel of a mask stores one value, so a mask stores overlaps: the combinations of labels that occur together.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from medfcn.labels.values import Value, Values, ValueSet, span_of, twice, value_of


@dataclass(frozen=True)
class Overlap:
    """A combination of labels that one value of a written mask stands for; a single label where none overlap.

    Args:
        name: The names of its labels.
        values: The values of a reference that belong to exactly these labels.
        labels: The indices of its labels, from 1.
        written: The value it has in a mask that medfcn writes.
    """

    name: str
    values: Values
    labels: tuple[int, ...]
    written: int


def is_overlapping(values: Sequence[Values]) -> bool:
    """True if some value belongs to more than one label, given the values of each label.

    Example:
        >>> is_overlapping([(1, 2), (2,)]), is_overlapping([(1, 2), (3,)])
        (True, False)
    """
    return twice(tuple(span for of_label in values for span in ValueSet(of_label).spans)) is not None


def find_overlaps(names: Sequence[str], values: Sequence[Values]) -> tuple[Overlap, ...]:
    """The combinations of labels that occur, in the order of their smallest values, which they are written as.

    Args:
        names: The name of each label.
        values: The values of a reference that belong to each label.

    Example:
        >>> [(one.name, one.values) for one in find_overlaps(["whole", "core"], [(1, 2, 3, 4), (1, 4)])]
        [('whole + core', (1, 4)), ('whole', (2, 3))]
        >>> from medfcn.labels.values import Span
        >>> [(one.name, str(one.values[0])) for one in find_overlaps(["whole", "core"], [(Span(1, 9),), (9,)])]
        [('whole', '1-8'), ('whole + core', '9')]
    """
    # Between two neighbouring ends of ranges every value belongs to the same labels.
    begin: defaultdict[int, list[int]] = defaultdict(list)
    end: defaultdict[int, list[int]] = defaultdict(list)
    for index, of_label in enumerate(values, start=1):
        for first, last in map(span_of, of_label):
            begin[first].append(index)
            end[last + 1].append(index)
    owners: set[int] = set()
    values_by_labels: dict[tuple[int, ...], list[Value]] = {}
    for here, following in pairwise(sorted({*begin, *end})):
        owners = owners.difference(end[here]).union(begin[here])
        if owners:
            values_by_labels.setdefault(tuple(sorted(owners)), []).append(value_of(here, following - 1))
    return tuple(
        Overlap(" + ".join(names[index - 1] for index in labels), tuple(shared), labels, span_of(shared[0]).first)
        for labels, shared in values_by_labels.items()
    )


def membership(overlaps: Sequence[Overlap], label_count: int) -> NDArray[np.bool_]:
    """`(A + 1, L)`: True where a label is in the background (row 0, never) or in one of A overlaps."""
    table = np.zeros((len(overlaps) + 1, label_count), dtype=bool)
    for row, overlap in enumerate(overlaps, start=1):
        table[row, [index - 1 for index in overlap.labels]] = True
    table.setflags(write=False)
    return table
