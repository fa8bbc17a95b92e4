"""Pictures of the same three validation slices over a training: image, reference as outline, prediction as fill."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medfcn.labels import IGNORED
from medfcn.labels.colours import PREDICTION, REFERENCE, palette_colour
from medfcn.png import png_bytes
from medfcn.settings import View
from medfcn.slices.slicing import VIEW_AXIS
from medfcn.training.curve import Block

SHOWN = 3
"""Slices in a picture."""
_HEIGHT, _WIDTH_MOST, _GAP = 128, 256, 4
"""Pixels of a slice, and between two."""
_FILL = 0.45
"""Opacity of a predicted label."""


def picture(blocks: Sequence[Block], indices: Sequence[NDArray[np.uint8]], view: View, *, values: int) -> bytes:
    """A PNG of three slices side by side: the middle ones of the first blocks, or all of one block.

    The patient's right is on the left (in sagittal slices the front), and the head (in axial ones the front) on top.

    Args:
        blocks: The slices of a curve; at least one.
        indices: The predicted indices of each block.
        view: The plane of the slices.
        values: Number of labels, or of overlaps.
    """
    axis, panels = VIEW_AXIS[view], []
    colours = _colours(values)
    for number, place in _shown(blocks, axis):
        block = blocks[number]
        grey = block.image[0].take([place + block.margin[0]], axis=axis).squeeze(axis)
        reference = block.reference.take([place], axis=axis).squeeze(axis)
        predicted = indices[number].take([place], axis=axis).squeeze(axis)
        panels.append(_panel(grey, reference, predicted, colours))
    height = max(panel.shape[0] for panel in panels)
    gap = np.full((height, _GAP, 3), 255, dtype=np.uint8)
    columns: list[NDArray[np.uint8]] = []
    for panel in panels:
        ground = np.zeros((height, panel.shape[1], 3), dtype=np.uint8)
        ground[: panel.shape[0]] = panel
        columns += [gap, ground]
    return png_bytes(np.hstack(columns[1:]))


def _shown(blocks: Sequence[Block], axis: int) -> list[tuple[int, int]]:
    """Pairs of a block's number and a slice in it."""
    counts = [block.reference.shape[axis] for block in blocks]
    if len(blocks) >= SHOWN:
        return [(number, counts[number] // 2) for number in range(SHOWN)]
    slices = [(number, place) for number, count in enumerate(counts) for place in range(count)]
    most = min(SHOWN, len(slices))
    return [slices[(place + 1) * len(slices) // (most + 1)] for place in range(most)]


def _panel(
    grey: NDArray[np.float32],
    reference: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    colours: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> NDArray[np.uint8]:
    """`(rows, columns, 3)` of one slice, upright, enlarged by a whole number or thinned."""
    low, high = np.percentile(grey, (1, 99))
    shown = np.clip((grey - low) / max(float(high - low), 1e-6), 0, 1) * 255
    scale = max(1, min(_HEIGHT // grey.shape[1], _WIDTH_MOST // grey.shape[0]))
    thin = max(1, -(-grey.shape[1] // (2 * _HEIGHT)), -(-grey.shape[0] // (2 * _WIDTH_MOST)))
    upright = [_enlarged(part, scale, thin) for part in (shown.astype(np.uint8), reference, prediction)]
    pixels = np.repeat(upright[0][..., None].astype(np.float32), 3, axis=2)
    inside = upright[2] > 0
    fill = colours[1][upright[2][inside]]
    pixels[inside] += _FILL * (fill - pixels[inside])
    known = np.where(upright[1] == IGNORED, 0, upright[1])
    edge = _edge(known)
    pixels[edge] = colours[0][known[edge]]
    return pixels.astype(np.uint8)


def _enlarged(part: NDArray[np.uint8], scale: int, thin: int) -> NDArray[np.uint8]:
    """A slice with rows from top to bottom and columns from left to right."""
    upright = part.T[::-thin, ::-thin]
    return np.repeat(np.repeat(upright, scale, axis=0), scale, axis=1)


def _edge(indices: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The pixels of each label that lie beside another value."""
    around = np.pad(indices, 1)
    beside = (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
    edge: NDArray[np.bool_] = (indices > 0) & np.any([other != indices for other in beside], axis=0)
    return edge


def _colours(count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The colours of references and of predictions by index: those of the two masks, or those of several labels."""
    names = [palette_colour(place) for place in range(count)]
    sides = ([REFERENCE], [PREDICTION]) if count < 2 else (names, names)
    found = [
        np.array([(0, 0, 0), *(tuple(bytes.fromhex(name[1:])) for name in side)], dtype=np.float32) for side in sides
    ]
    return found[0], found[1]
