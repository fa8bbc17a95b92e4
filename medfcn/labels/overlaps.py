"""Labels that overlap, such as a tumour's core inside the whole tumour, and the parts they cut each other into.

A voxel of a mask has one value, so what a mask holds is the parts: the combinations of labels that can hold together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelPart:
    """The voxels of one value of a written mask.

    Args:
        name: The label's, or the names of all labels that hold there.
        values: The values of a reference that belong to it.
        labels: Places in the list, from 1, of the labels that hold there.
        written: The value it has in a mask that medfcn writes.
    """

    name: str
    values: tuple[int, ...]
    labels: tuple[int, ...]
    written: int


def is_overlapping(values: Sequence[Sequence[int]]) -> bool:
    """Whether some value belongs to more than one label, given the values of each.

    Example:
        >>> is_overlapping([(1, 2), (2,)]), is_overlapping([(1, 2), (3,)])
        (True, False)
    """
    return sum(len(set(of_label)) for of_label in values) > len(set().union(*values))


def overlap_parts(names: Sequence[str], values: Sequence[Sequence[int]]) -> tuple[LabelPart, ...]:
    """The combinations of labels that occur, in the order of their smallest values, which they are written as.

    Args:
        names: Of the labels.
        values: Of a reference, for each label.

    Example:
        >>> [(part.name, part.values) for part in overlap_parts(["whole", "core"], [(1, 2, 3, 4), (1, 4)])]
        [('whole + core', (1, 4)), ('whole', (2, 3))]
    """
    owners: dict[int, list[int]] = {}
    for place, of_label in enumerate(values, start=1):
        for value in of_label:
            owners.setdefault(value, []).append(place)
    held: dict[tuple[int, ...], list[int]] = {}
    for value in sorted(owners):
        held.setdefault(tuple(owners[value]), []).append(value)
    return tuple(
        LabelPart(" + ".join(names[place - 1] for place in labels), tuple(found), labels, found[0])
        for labels, found in held.items()
    )


def members_of(parts: Sequence[LabelPart], label_count: int) -> NDArray[np.bool_]:
    """`(A + 1, L)`: which labels hold in the background (row 0, none) and in each of A parts."""
    members = np.zeros((len(parts) + 1, label_count), dtype=bool)
    for row, part in enumerate(parts, start=1):
        members[row, [place - 1 for place in part.labels]] = True
    members.setflags(write=False)
    return members
