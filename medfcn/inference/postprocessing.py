"""Two choices that unseen cases make: the threshold, and the labels of which one component is kept.

A single model's card contains the choices of its validation cases. The held-out cases of a fold choose nothing for
that fold, so that their scores stay those of unseen cases. Their results (`Unseen`) choose for the mean of all folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfcn.inference.card import DEFAULT_THRESHOLD, Card
from medfcn.inference.held_out import Unseen
from medfcn.slices.components import OnePart, keep_parts

THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)
"""The thresholds that are tried; the default is among them."""
_STANDARD_ERRORS = 2.0
"""A choice must be better by more than this many standard errors of the cases' mean difference."""
_FEWEST_CASES = 5
"""The least number of cases to choose a threshold."""
_LEAST_LOSS = 0.001
"""A label loses Dice if it loses more than this in the mean of cases: less are single voxels at its border."""


@dataclass(frozen=True)
class Rules:
    """The way from probabilities to a mask.

    Attributes:
        threshold: The probability from which a voxel is foreground.
        one_part: Indices (from 1) of the labels of which only the largest component is kept.
        is_certainty_kept: True if a component that is the most certain one is kept too.
        together: True if only the largest component of all labels together is kept.
    """

    threshold: float
    one_part: tuple[int, ...]
    is_certainty_kept: bool = False
    together: bool = False

    @property
    def removes_components(self) -> bool:
        """True if any component may be removed."""
        return self.together or bool(self.one_part)

    @property
    def needs_certainty(self) -> bool:
        """True if the certainty of components decides anything."""
        return self.is_certainty_kept and self.removes_components

    def cut(self, indices: NDArray[np.uint8], certainty: NDArray[np.int8] | None) -> OnePart:
        """A mask of `(I, J, K)` indices without the components that are not kept, in the memory of `indices`."""
        return keep_parts(indices, self.one_part, certainty, together=self.together, in_place=True)


def rules_of(cards: Sequence[Card]) -> Rules:
    """The rules for the mean of some models: those of a single one, or the choices of the unseen cases of several.

    Only the largest component of a label, or of all labels together, is kept if that does not lower its Dice in the
    mean of all models' unseen cases; of all labels together, if no label loses by it either. If a model has no
    such results, it is kept if every model does so by itself.

    Args:
        cards: At least one; all of the same labels.
    """
    first, is_certainty_kept = cards[0], all(card.components != "largest" for card in cards)
    if len(cards) == 1:
        return Rules(first.foreground_from, first.one_part, is_certainty_kept, first.together)
    unseen = [card.unseen for card in cards if card.unseen is not None]
    threshold = best_threshold(unseen) if len(unseen) == len(cards) else None

    def is_kept(tried: Sequence[Sequence[tuple[float, float]]], *, by_all: bool) -> bool:
        if len(tried) < len(cards) or not all(tried):
            return by_all
        return is_no_loss([pair for pairs in tried for pair in pairs])

    kept = tuple(
        index
        for index in range(1, len(first.labels.entries) + 1)
        if is_kept(
            [of_card.labels[index - 1].one_part for of_card in unseen],
            by_all=all(index in card.one_part for card in cards),
        )
    )
    together = is_kept([of_card.together for of_card in unseen], by_all=all(card.together for card in cards))
    if together and any(of_card.together for of_card in unseen):
        of_labels = zip(*(of_card.labels for of_card in unseen), strict=True)
        by_label = [[pair for one in of_label for pair in one.together] for of_label in of_labels]
        pairs = [pair for of_card in unseen for pair in of_card.together]
        together = is_no_loss_together(pairs, by_label)
    return Rules(first.foreground_from if threshold is None else threshold, kept, is_certainty_kept, together)


def is_no_loss_together(
    pairs: Sequence[tuple[float, float]], by_label: Sequence[Sequence[tuple[float, float]]]
) -> bool:
    """True if one component of all labels together does not lower the mean Dice, and no label loses by it.

    A label loses if its mean Dice falls by more than 0.001. Less are single voxels, which touch the rest of their
    organ by an edge alone: they must not keep the islands of another label.

    Args:
        pairs: For each case the mean Dice with all components, and with that one alone.
        by_label: The same Dice of each label; if all are empty nothing is known of any label, so it may not be kept.

    Example:
        >>> is_no_loss_together([(0.5, 0.7)], [[(0.2, 0.6)], [(0.8, 0.8)]])
        True
        >>> is_no_loss_together([(0.5, 0.5)], [[(0.2, 0.6)], [(0.8, 0.4)]])
        False
        >>> is_no_loss_together([(0.5, 0.7)], [[(0.2, 0.6)], [(0.8, 0.7998)]])
        True
    """
    by_label = [of for of in by_label if of]
    return bool(by_label) and is_no_loss(pairs) and all(_gain(of) >= -_LEAST_LOSS * len(of) for of in by_label)


def is_no_loss(pairs: Sequence[tuple[float, float]]) -> bool:
    """True if one component does not lower the mean Dice; false where no mask finds anything, which tells nothing.

    Args:
        pairs: For each case the Dice with all components, and with one.

    Example:
        >>> is_no_loss([(0.8, 0.8), (0.0, 0.0)]), is_no_loss([(0.0, 0.0)]), is_no_loss([(0.8, 0.7)])
        (True, False, False)
    """
    return any(max(pair) > 0 for pair in pairs) and _gain(pairs) >= 0


def _gain(pairs: Sequence[tuple[float, float]]) -> float:
    """The sum over cases of what one component adds to the Dice."""
    return sum(one - every for every, one in pairs)


def best_threshold(unseen: Sequence[Unseen]) -> float | None:
    """The threshold with the largest mean Dice of unseen cases; None unless it is better by more than chance.

    Args:
        unseen: The results of one model, or of each fold; if one of them tried no thresholds, none is chosen.
    """
    tried = {of_model.thresholds for of_model in unseen}
    thresholds = tried.pop() if len(tried) == 1 else ()
    rows = [row for of_model in unseen for row in of_model.threshold_dices]
    if DEFAULT_THRESHOLD not in thresholds or len(rows) < _FEWEST_CASES:
        return None
    start = thresholds.index(DEFAULT_THRESHOLD)
    best = clearly_best(np.array(rows), start)
    return None if best == start else thresholds[best]


def held_out_gain(unseen: Sequence[Unseen]) -> float:
    """The mean gain in Dice of thresholds on cases that did not choose them: each fold's is chosen by the others."""
    gains: list[float] = []
    for number, of_fold in enumerate(unseen):
        chosen = best_threshold([other for place, other in enumerate(unseen) if place != number])
        start = of_fold.thresholds.index(DEFAULT_THRESHOLD)
        column = start if chosen is None else of_fold.thresholds.index(chosen)
        gains += [row[column] - row[start] for row in of_fold.threshold_dices]
    return float(np.mean(gains)) if gains else 0.0


def clearly_best(dices: NDArray[np.float64], start: int = 0) -> int:
    """The column of the largest mean, if it is better than the first choice by more than chance.

    Args:
        dices: `(cases, choices)`.
        start: The choice that is kept unless another is better by more than twice the standard error of the cases'
            mean difference; a single case has none.

    Example:
        >>> clearly_best(np.array([[0.80, 0.85], [0.70, 0.74], [0.90, 0.94]]))
        1
        >>> clearly_best(np.array([[0.80, 0.90], [0.80, 0.79], [0.90, 0.90]]))
        0
    """
    if len(dices) < 2:
        return start
    best = int(dices.mean(axis=0).argmax())
    gains = dices[:, best] - dices[:, start]
    is_clear = gains.mean() > _STANDARD_ERRORS * gains.std(ddof=1) / np.sqrt(len(gains))
    return best if is_clear else start
