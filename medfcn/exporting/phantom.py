"""A phantom on which an exported model must predict as the run does: smooth noise, in three sizes."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from medfcn.inference.card import Card
from medfcn.inference.self_test import dice_of as dice_of
from medfcn.slices.slicing import in_plane_axes
from medfcn.volumes import ReadOptions, Volume

_SCALES = (1.0, 0.7, 1.4)
"""Edges of the slices, in windows of the training: the same, smaller, and larger, so that it is cut into tiles."""
_SLICES = 5
_SEED = 20_190_710
ANY_SIZE = ReadOptions(box_mm=((-1e6, 1e6), (-1e6, 1e6), (-1e6, 1e6)))
"""A phantom is looked at as a whole, even where windows are far larger than the training volumes in them."""
_OWN_MM = 3.0
"""Distance of slices where the network grid keeps a volume's own."""


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
