"""The weight of each view's probabilities in their mean, chosen on the validation cases."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medfcn.inference.decide import decide
from medfcn.inference.postprocessing import clearly_best
from medfcn.labels import IGNORED
from medfcn.slices.grid import from_stored_order, native_slabs
from medfcn.slices.preprocess import grid_of
from medfcn.training.validation import Outputs, ScoredCase

_PARTS = 6
"""Weights are multiples of a sixth: the Dice changes slowly with them, and both two and three views can be even."""


def choose_view_weights(outputs: Outputs, cases: Sequence[ScoredCase]) -> tuple[float, ...]:
    """The weights of the views with the largest mean Dice.

    All weights that are multiples of a sixth and sum to 1 are tried. Even ones are kept unless others gain more than
    chance would; see `best_weights`.

    Args:
        outputs: Of a network whose labels do not overlap.
        cases: The validation cases.

    Returns:
        A weight for each view of the plan, in its order; `()` for even ones.
    """
    count = len(outputs.model.card.plan.views)
    if count == 1:
        return ()
    weights = simplex(count, _PARTS)
    return best_weights(weights, np.array([dices_by_weights(outputs, case, weights) for case in cases]))


def simplex(count: int, parts: int) -> NDArray[np.float64]:
    """`(N, count)` weights that are multiples of `1 / parts` and sum to 1, the most even first.

    Example:
        >>> simplex(2, 2).tolist()
        [[0.5, 0.5], [0.0, 1.0], [1.0, 0.0]]
    """
    rows = [row for row in np.ndindex(*(parts + 1,) * count) if sum(row) == parts]
    return np.array(sorted(rows, key=lambda row: (sum(part * part for part in row), row))) / parts


def best_weights(weights: NDArray[np.float64], dices: NDArray[np.float64]) -> tuple[float, ...]:
    """The weights of the largest mean Dice, if they are better than the first ones by more than chance.

    Args:
        weights: `(N, V)`, even ones first.
        dices: `(cases, N)`.

    Returns:
        `(V,)`; `()` for even ones. Those also stay if another's lead is within twice the standard error of the cases'
        mean difference, and if there is a single case.
    """
    best = clearly_best(dices)
    return tuple(float(weight) for weight in weights[best]) if best else ()


def dices_by_weights(outputs: Outputs, case: ScoredCase, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """A case's mean Dice over labels with each of some weights; a label that is empty in both masks counts as 1.

    Voxels that the reference ignores are left out, as in the scores.

    The weights are tried a slab of the native grid at a time, and only at the voxels where the views alone give
    different labels: where they agree, every mean of them agrees too.

    Args:
        outputs: Of a network with several views.
        case: A case with its reference.
        weights: `(N, V)`, each row summing to 1.

    Returns:
        `(N,)`.
    """
    card, head = outputs.model.card, outputs.model.head
    classes, threshold = len(card.labels.entries) + 1, card.foreground_from
    grid = grid_of(case.blank, card.plan)
    reference = from_stored_order(case.reference(card.labels), grid)
    slabs = [native_slabs(outputs.of(case, view), grid) for view in card.plan.views]
    # (N, K * K): voxels by weights, label of the reference and label of the mask.
    joint = np.zeros((len(weights), classes * classes), dtype=np.int64)
    for parts in zip(*slabs, strict=True):
        drawn = reference[parts[0][0]].astype(np.int64)  # (rows, A, S)
        alone = [decide(part, threshold, head, None) for _, part in parts]
        known = drawn != IGNORED
        alike = np.logical_and.reduce([alone[0] == other for other in alone[1:]])
        agreed, differing = known & alike, known & ~alike
        joint += np.bincount(drawn[agreed] * classes + alone[0][agreed], minlength=classes * classes)
        disputed = np.stack([part[:, differing] for _, part in parts])  # (V, L, voxels)
        for row, weight in zip(joint, weights.astype(np.float32), strict=True):
            found = decide(np.tensordot(weight, disputed, axes=1), threshold, head, None)
            row += np.bincount(drawn[differing] * classes + found, minlength=classes * classes)
    both = joint.reshape(-1, classes, classes)
    overlap = np.diagonal(both, axis1=1, axis2=2)[:, 1:]
    sizes = both.sum(axis=1)[:, 1:] + both.sum(axis=2)[:, 1:]
    each = np.where(sizes > 0, 2 * overlap / np.maximum(sizes, 1), 1.0)
    places = [place - 1 for place in case.drawn(card.labels) or range(1, classes)]
    dices: NDArray[np.float64] = each[:, places].mean(axis=1)
    return dices
