"""Probabilities → the index of each voxel."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfcn.networks.design import Head
from medfcn.slices.overlaps import best_overlap

_CERTAINTY_STEPS = 20
"""Steps of `certainty_of` in one unit of log odds."""


@dataclass(frozen=True)
class Foreground:
    """The voxels of a slab that are not background, which are few in most: they are looked for once.

    Attributes:
        at: `(F,)` their places in the slab, laid flat.
        indices: `(F,)` their indices, from 1.
    """

    at: NDArray[np.intp]
    indices: NDArray[np.uint8]

    @classmethod
    def of(cls, indices: NDArray[np.uint8]) -> "Foreground":
        """Those of a slab of indices."""
        flat = indices.reshape(-1)
        at = np.flatnonzero(flat != 0)
        return cls(at, flat[at])

    def own(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """`(F,)`: of `(L, ...)` probabilities, at each voxel that of its index; labels do not overlap."""
        flat = probabilities.reshape(len(probabilities), -1)
        found: NDArray[np.float32]
        found = flat[0][self.at] if len(flat) == 1 else flat[self.indices.astype(np.intp) - 1, self.at]
        return found


def decide(
    probabilities: NDArray[np.float32], threshold: float, head: Head, members: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """`(L, ...)` probabilities to `(...)` indices of labels, or of overlaps where labels overlap; 0 for background.

    With one label a voxel is foreground from the threshold on. With several it takes the label of the largest
    probability, where the background has what the labels leave of one. If each label has a probability of its own
    (the head `sigmoid`), it takes the largest from the threshold on.

    Where labels overlap, a voxel takes the overlap (a combination of labels that occur together) or the background
    that is most probable if labels are independent: with the largest product of p for its labels and 1 - p for all
    others. If the labels above 0.5 make such a combination, it is always that one. Another threshold t divides every
    label's odds by those of t, so that the same is true for the labels above t.
    """
    if members is not None:
        return best_overlap(_log_odds(probabilities, threshold), members)
    if len(probabilities) == 1:
        single: NDArray[np.uint8] = (probabilities[0] >= threshold).view(np.uint8)
        return single
    best = probabilities.argmax(axis=0) + 1
    largest = probabilities.max(axis=0)
    foreground = largest >= threshold if head == "sigmoid" else largest > 1 - probabilities.sum(axis=0)
    indices: NDArray[np.uint8] = np.where(foreground, best, 0).astype(np.uint8)
    return indices


def certainty_of(
    probabilities: NDArray[np.float32],
    indices: NDArray[np.uint8],
    threshold: float,
    foreground: Foreground | None = None,
) -> NDArray[np.int8]:
    """The evidence for the label that each voxel has, in a byte: sums of it do not depend on the order of voxels.

    Args:
        probabilities: `(L, ...)`; the labels do not overlap.
        indices: `(...)`, from `decide`.
        threshold: The probability that says nothing.
        foreground: That of the indices, if it is known.

    Returns:
        `(...)`: a twentieth is one unit of the logarithm of the odds over those of the threshold, at most 6.35 (a
        probability of 0.998 for a threshold of 0.5); 0 for the background.
    """
    certainty = np.zeros(indices.shape, dtype=np.int8)
    foreground = foreground or Foreground.of(indices)
    steps = np.rint(_CERTAINTY_STEPS * _log_odds(foreground.own(probabilities), threshold))
    certainty.reshape(-1)[foreground.at] = np.clip(steps, -127, 127)
    return certainty


def _log_odds(probabilities: NDArray[np.float32], threshold: float) -> NDArray[np.float32]:
    """The logarithm of each probability's odds over those of the threshold, clipped where it would be infinite."""
    least = np.finfo(np.float32).eps
    clipped = np.clip(probabilities, least, 1 - least)
    odds: NDArray[np.float32] = np.log(clipped / (1 - clipped)) - np.float32(np.log(threshold / (1 - threshold)))
    return odds
