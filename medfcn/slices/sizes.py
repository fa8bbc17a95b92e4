"""Sizes of slices and organs in pixels of the network grid, and the levels of a network that fit them."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from medfcn.settings import View
from medfcn.slices.fingerprint import CaseFingerprint
from medfcn.slices.plan import SpacingRAS
from medfcn.slices.slicing import VIEW_AXIS, in_plane_axes

MAP_LARGEST = 192
"""Pixels an edge of the network's first map for the largest training window; larger slices are cropped in training
and tiled in prediction."""
_COARSEST_PIXELS = 4
"""The coarsest map keeps at least this many pixels an edge: a smaller map cannot say where something is."""
_WIDTH_FIRST, _WIDTH_LARGEST, _LEVELS_MOST = 16, 256, 6
Stem = Literal[1, 2, 4]
_STEM_PIXELS: Mapping[Stem, int] = {4: 2 * MAP_LARGEST + 1, 2: 96}
"""The network's first convolution reduces slices with this many pixels along their shorter edge by so much. They are
halved as long as a window then shows them whole."""


def of_stride(pixels: tuple[float, float], stride: int) -> tuple[int, int]:
    """Multiples of a stride, of which a quarter may lie beyond; at least two each."""
    first, second = (max(2, math.ceil(edge / stride - 0.25)) * stride for edge in pixels)
    return first, second


def organ_pixels(cases: Sequence[CaseFingerprint], axes: tuple[int, int], spacing: SpacingRAS) -> tuple[float, float]:
    """Pixels along each edge of the box around the foreground that three quarters of the cases have at most."""
    held = [case for case in cases if sum(case.label_voxels)]
    first, second = (
        float(np.percentile([case.extent_mm[axis] / (spacing[axis] or case.spacing_mm[axis]) for case in held], 75))
        for axis in axes
    )
    return first, second


def slice_pixels(cases: Sequence[CaseFingerprint], axes: tuple[int, int], spacing: SpacingRAS) -> tuple[float, float]:
    """Pixels along each edge that three quarters of the cases' slices have at most, on the network grid."""
    first, second = (
        float(np.percentile([case.shape[axis] * case.spacing_mm[axis] / (spacing[axis] or 1) for case in cases], 75))
        for axis in axes
    )
    return first, second


def slice_distance(cases: Sequence[CaseFingerprint], view: View, spacing: SpacingRAS) -> float:
    """The median distance between neighbouring slices of a view, in pixels of the network grid."""
    axis = VIEW_AXIS[view]
    across = spacing[axis] or float(np.median([case.spacing_mm[axis] for case in cases]))
    return across / max(spacing[axis] or 0.0 for axis in in_plane_axes(view))


def stem_for(shortest_edge: float) -> Stem:
    """The first stride of the preset `auto`, for slices whose shorter edge has that many pixels.

    In equal CPU time, a network can see a whole slice of a body, reduced at once, or a cropped one at full size; see
    `benchmarks/README.md`.

    Example:
        >>> stem_for(40), stem_for(145), stem_for(320), stem_for(512)
        (1, 2, 2, 4)
    """
    return next((stem for stem, pixels in _STEM_PIXELS.items() if shortest_edge >= pixels), 1)


def widths_for(shortest_edge: float, stem_stride: int = 1) -> tuple[int, ...]:
    """Channels of each level of the preset `auto`, for slices whose shorter edge has that many pixels.

    There are as many levels, each of half the resolution, as keep the coarsest map at 4 pixels an edge or more, at
    most 6. Each has twice the channels where the first level is at stride 4.

    Example:
        >>> widths_for(35), widths_for(145, stem_stride=2), widths_for(512, stem_stride=4)
        ((16, 32, 64, 128), (16, 32, 64, 128, 256), (32, 64, 128, 256, 256, 256))
    """
    narrowest = _WIDTH_FIRST * (2 if stem_stride == 4 else 1)
    levels = 1
    while levels < _LEVELS_MOST and shortest_edge / (stem_stride * 2**levels) >= _COARSEST_PIXELS:
        levels += 1
    return tuple(min(narrowest * 2**level, _WIDTH_LARGEST) for level in range(levels))
