"""Cases of which a reader drew only some of the labels: elsewhere in them is background, or a label not drawn.

A reader who drew the liver and no spleen says of every voxel whether it is liver, and of none whether it is spleen.
Such a case trains its own labels, and is scored on them alone.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import LabelError
from medfcn.labels.codec import IGNORED
from medfcn.labels.label_map import LabelMap
from medfcn.text import counted, did_you_mean, listed

SEPARATOR = "+"
"""Between two names in the column `labelled` of a table."""

Drawn = tuple[int, ...]
"""The indices of the labels that are drawn, from 1, rising; empty where all of them are."""


def parse_labelled(text: str) -> tuple[str, ...]:
    """The names in a field of the column `labelled`; none for an empty field, where every label is drawn.

    Example:
        >>> parse_labelled(" liver + spleen"), parse_labelled("")
        (('liver', 'spleen'), ())
    """
    return tuple(name.strip() for name in text.split(SEPARATOR)) if text.strip() else ()


def drawn_labels(names: Sequence[str], labels: LabelMap, *, case: str) -> Drawn:
    """The indices of the labels that a case names as drawn; empty where it names none, or all.

    Raises:
        LabelError: A name is no label's, or labels overlap: what is not drawn could then lie anywhere.

    Example:
        >>> drawn_labels(("spleen",), LabelMap.parse("liver=1,spleen=2"), case="case_1")
        (2,)
    """
    if not names:
        return ()
    unknown = [name for name in names if name not in labels.names]
    if unknown:
        raise LabelError(
            f"{case}: labelled names {unknown[0]!r}, which is no label{did_you_mean(unknown[0], labels.names)}",
            code="LABELLED_UNKNOWN",
            field="labelled",
        )
    if labels.overlapping:
        raise LabelError(
            f"{case}: labelled says that only {listed(names)} was drawn, and labels overlap; name labels that do not "
            "overlap, or leave out the cases that are partly drawn",
            code="LABELLED_OVERLAP",
            field="labelled",
        )
    places = tuple(place for place, name in enumerate(labels.names, start=1) if name in names)
    return () if len(places) == len(labels.names) else places


def partly_drawn(
    labelled: Mapping[str, Sequence[str]], labels: LabelMap, cases: Iterable[str]
) -> dict[str, Sequence[str]]:
    """The names of the drawn labels of those cases of which only some labels were drawn.

    Args:
        labelled: Names by case.
        labels: All labels.
        cases: The cases to look at.

    Raises:
        LabelError: As `drawn_labels`.

    Example:
        >>> labels = LabelMap.parse("liver=1,spleen=2")
        >>> partly_drawn({"a": ("liver",), "b": ("spleen", "liver"), "c": ()}, labels, "abcd")
        {'a': ('liver',)}
    """
    found = {case: labelled[case] for case in cases if case in labelled}
    return {case: names for case, names in found.items() if drawn_labels(names, labels, case=case)}


def without_others(indices: NDArray[np.uint8], drawn: Drawn) -> NDArray[np.uint8]:
    """Indices with 0 instead of every label that is not drawn: a few strokes of it are no drawing of it.

    Example:
        >>> without_others(np.array([0, 1, 2, 255], dtype=np.uint8), (2,)).tolist()
        [0, 0, 2, 255]
    """
    if not drawn:
        return indices
    table = np.zeros(IGNORED + 1, dtype=np.uint8)
    table[[*drawn, IGNORED]] = [*drawn, IGNORED]
    return table[indices]


def unions_of(drawn: Iterable[Drawn]) -> tuple[Drawn, ...]:
    """The different sets of drawn labels, in order, without the whole one; see `union_table`."""
    return tuple(sorted({one for one in drawn if one}))


def union_table(unions: Collection[Drawn], label_count: int) -> NDArray[np.bool_]:
    """For each set of drawn labels, the classes that a voxel outside of them may have.

    Args:
        unions: From `unions_of`. Target `label_count + 1 + u` stands for the u-th.
        label_count: Labels L.

    Returns:
        `(U, L + 1)`, the background first, which is always possible.

    Example:
        >>> union_table(((1,), (1, 3)), 3).astype(int).tolist()
        [[1, 0, 1, 1], [1, 0, 1, 0]]
    """
    table = np.ones((len(unions), label_count + 1), dtype=bool)
    for row, drawn in zip(table, unions, strict=True):
        row[list(drawn)] = False
    return table


def notes_on_drawn(names: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Which labels are not scored in how many cases, because they were not drawn there.

    Args:
        names: The drawn labels of each scored case; empty where all were.

    Example:
        >>> notes_on_drawn([("liver",), (), ("liver",)])
        ('2 cases of 3: liver alone drawn; no other label is scored there',)
    """
    sets = Counter(tuple(of_case) for of_case in names if of_case)
    return tuple(
        f"{counted(count, 'case')} of {len(names)}: {listed(of_cases)} alone drawn; no other label is scored there"
        for of_cases, count in sets.items()
    )
