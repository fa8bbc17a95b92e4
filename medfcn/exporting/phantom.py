"""A phantom on which an exported model must predict as the run does: smooth noise, in three sizes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import ModelError
from medfcn.inference.card import Card
from medfcn.slices.slicing import in_plane_axes
from medfcn.volumes import Volume

_SCALES = (1.0, 0.7, 1.4)
"""Edges of the slices, in windows of the training: the same, smaller, and larger, so that it is cut into tiles."""
_SLICES = 5
_SEED = 20_190_710
_OWN_MM = 3.0
"""Distance of slices where the network grid keeps a volume's own."""


@dataclass(frozen=True)
class Difference:
    """The largest difference of two predictions of the phantom.

    Attributes:
        probability: That of a voxel's probability.
        dice: The smallest Dice of two masks of a label; 1 where both are empty.
    """

    probability: float
    dice: float


def phantoms(card: Card) -> Iterator[list[Volume]]:
    """The channels of the phantom in each of the three sizes, odd ones among them."""
    plan = card.plan
    spacing = [_OWN_MM if edge is None else float(edge) for edge in plan.spacing_mm]
    for number, scale in enumerate(_SCALES):
        shape = [_SLICES + number] * 3
        for view in plan.views:
            for axis, edge in zip(in_plane_axes(view), plan.window, strict=True):
                shape[axis] = max(2, round(edge * scale) | (number & 1))
        noise = np.random.default_rng(_SEED + number)
        affine = np.diag([*spacing, 1.0])
        yield [
            Volume(_smooth(noise.normal(size=shape)), affine, name=f"phantom_{place}")
            for place in range(len(card.channels))
        ]


def _smooth(noise: NDArray[np.float64]) -> NDArray[np.float32]:
    from scipy.ndimage import gaussian_filter

    smooth: NDArray[np.float32] = (100 + 1000 * gaussian_filter(noise, 1.5)).astype(np.float32)
    return smooth


def difference(ours: Sequence[NDArray[np.float32]], theirs: Sequence[NDArray[np.float32]]) -> Difference:
    """Compare probabilities of the phantom in each size.

    Args:
        ours: `(L, I, J, K)` of each size.
        theirs: The same, of the exported model.

    Raises:
        ModelError: The shapes differ.
    """
    largest, dice = 0.0, 1.0
    for mine, other in zip(ours, theirs, strict=True):
        if mine.shape != other.shape:
            raise ModelError(f"the exported model predicts {other.shape} of the phantom, the run {mine.shape}")
        largest = max(largest, float(np.abs(mine - other).max()))
        for first, second in zip(mine >= 0.5, other >= 0.5, strict=True):
            both = int(first.sum()) + int(second.sum())
            dice = min(dice, 2 * int((first & second).sum()) / both if both else 1.0)
    return Difference(largest, dice)
