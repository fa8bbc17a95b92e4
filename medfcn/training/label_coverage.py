"""Validation cases that contain every label, while the training cases still contain every label too."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

_TRIED_MOST = 20_000
"""Choices tried; a handful is enough unless labels are in very few patients."""


def cover(order: Sequence[str], labels_of: Mapping[str, Collection[int]]) -> list[str]:
    """Groups that contain every label between them, such that the others contain every label too.

    Args:
        order: The groups; those in front are taken first.
        labels_of: The labels in each group.

    Returns:
        As few as needed. A label in a single group stays with the others. If not all labels can be on both sides,
        the groups contain those that can, the rarest first.

    Example:
        >>> cover(["a", "b", "c"], {"a": (), "b": (0, 1), "c": (0, 1)})
        ['b']
        >>> cover(["a", "b", "c"], {"a": (0,), "b": (0, 1), "c": ()})
        ['a']
    """
    counts = Counter(label for group in order for label in labels_of[group])
    rarest_first = sorted((label for label, count in counts.items() if count > 1), key=lambda label: counts[label])
    search = _Search(order, labels_of, counts)
    found = search.all(rarest_first, [])
    return search.most(rarest_first) if found is None else found


class _Search:
    """The search of `cover`."""

    def __init__(
        self, order: Sequence[str], labels_of: Mapping[str, Collection[int]], counts: Mapping[int, int]
    ) -> None:
        self.order = order
        self.labels_of = labels_of
        self.counts = counts
        self.tried = 0

    def all(self, labels: Sequence[int], taken: list[str]) -> list[str] | None:
        """`taken` and further groups for all labels; None if there are none, or too many choices to try."""
        missing = self._missing(labels, taken)
        if not missing:
            return taken
        for group in self._candidates(missing[0], taken):
            self.tried += 1
            if self.tried > _TRIED_MOST:
                return None
            found = self.all(missing[1:], [*taken, group])
            if found is not None:
                return found
        return None

    def most(self, labels: Sequence[int]) -> list[str]:
        """Groups for one label after the other, without those that are impossible then."""
        taken: list[str] = []
        for label in labels:
            if self._missing([label], taken):
                taken += self._candidates(label, taken)[:1]
        return taken

    def _missing(self, labels: Sequence[int], taken: Sequence[str]) -> list[int]:
        present = {label for group in taken for label in self.labels_of[group]}
        return [label for label in labels if label not in present]

    def _candidates(self, label: int, taken: Sequence[str]) -> list[str]:
        """The groups with a label that can be taken without taking the last group with some label."""
        used = Counter(label for group in taken for label in self.labels_of[group])
        return [
            group
            for group in self.order
            if label in self.labels_of[group]
            and group not in taken
            and all(self.counts[other] > used[other] + 1 for other in self.labels_of[group])
        ]
