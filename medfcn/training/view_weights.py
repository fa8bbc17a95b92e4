"""How much each view's probabilities weigh in their mean: as the validation cases say."""

import numpy as np
from numpy.typing import NDArray

from medfcn.inference.decide import decide
from medfcn.inference.model import Model
from medfcn.inference.rules import clearly_best
from medfcn.labels import IGNORED
from medfcn.slices.grid import from_stored_order, native_slabs
from medfcn.slices.preprocess import grid_of
from medfcn.training.prepare import Prepared, ReadCase, read_case

_PARTS = 6
"""Weights are multiples of a sixth: the Dice changes slowly with them, and both two and three views can be even."""


def choose_view_weights(model: Model, prepared: Prepared) -> tuple[float, ...]:
    """The weights of the views that reach the largest mean Dice on the validation cases.

    All weights that are multiples of a sixth and sum to 1 are tried. Even ones are kept unless others gain more than
    chance would; see `best_weights`. They are also kept where the validation cases are a fold, whose scores are to be
    those of unseen cases, and where labels overlap.

    Returns:
        A weight for each view of the plan, in its order; `()` for even ones.
    """
    count, split = len(model.card.plan.views), prepared.split
    if count == 1 or split.fold or prepared.survey.labels.overlapping:
        return ()
    cases = prepared.cases(split.validation)
    weights = simplex(count, _PARTS)
    reads = (read_case(case, prepared.survey.labels, prepared.survey.options) for case in cases)
    return best_weights(weights, np.array([dices_by_weights(model, read, weights) for read in reads]))


def simplex(count: int, parts: int) -> NDArray[np.float64]:
    """`(N, count)` weights that are multiples of `1 / parts` and sum to 1, the most even first.

    Example:
        >>> simplex(2, 2).tolist()
        [[0.5, 0.5], [0.0, 1.0], [1.0, 0.0]]
    """
    rows = [row for row in np.ndindex(*(parts + 1,) * count) if sum(row) == parts]
    return np.array(sorted(rows, key=lambda row: (sum(part * part for part in row), row))) / parts


def best_weights(weights: NDArray[np.float64], dices: NDArray[np.float64]) -> tuple[float, ...]:
    """The weights of the largest mean Dice, where they are better than the first ones by more than chance.

    Args:
        weights: `(N, V)`, even ones first.
        dices: `(cases, N)`.

    Returns:
        `(V,)`; `()` for even ones, which also stay where their lead over them is within twice the standard error of
        the cases' mean difference, or where a single case cannot tell.
    """
    best = clearly_best(dices)
    return tuple(float(weight) for weight in weights[best]) if best else ()


def dices_by_weights(model: Model, case: ReadCase, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """A case's mean Dice over labels with each of some weights; a label that is empty in both masks counts as right.

    What the reference ignores is left out, as in the scores.

    Each view goes through the network once. Then all weights are tried, a slab of the native grid at a time: only
    where the views by themselves come to different labels, for where they agree, any mean of them does too.

    Args:
        model: With several views.
        case: A case with its reference.
        weights: `(N, V)`, each row summing to 1.

    Returns:
        `(N,)`.
    """
    card, head = model.card, model.head
    classes, threshold = len(card.labels.entries) + 1, card.foreground_from
    grid = grid_of(case.images[0], card.plan)
    reference = from_stored_order(case.labels, grid)
    slabs = [native_slabs(part, grid) for _, part in model.view_probabilities(case.images, card.plan.views)]
    joint = np.zeros((len(weights), classes * classes), dtype=np.int64)
    for parts in zip(*slabs, strict=True):
        drawn = reference[parts[0][0]].astype(np.int64)
        alone = [decide(part, threshold, head) for _, part in parts]
        known = drawn != IGNORED
        alike = np.logical_and.reduce([alone[0] == other for other in alone[1:]])
        agreed, differing = known & alike, known & ~alike
        joint += np.bincount(drawn[agreed] * classes + alone[0][agreed], minlength=classes * classes)
        disputed = np.stack([part[:, differing] for _, part in parts])
        for row, weight in zip(joint, weights.astype(np.float32), strict=True):
            found = decide(np.tensordot(weight, disputed, axes=1), threshold, head)
            row += np.bincount(drawn[differing] * classes + found, minlength=classes * classes)
    both = joint.reshape(-1, classes, classes)
    overlap = np.diagonal(both, axis1=1, axis2=2)[:, 1:]
    sizes = both.sum(axis=1)[:, 1:] + both.sum(axis=2)[:, 1:]
    dices: NDArray[np.float64] = np.where(sizes > 0, 2 * overlap / np.maximum(sizes, 1), 1.0).mean(axis=1)
    return dices
