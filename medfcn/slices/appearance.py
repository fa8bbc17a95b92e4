"""Figures by which volumes of one kind can be known: their grid, and the look of each channel.

They need no mask, and come from a sample of the voxels. They are the same for a volume that is stored in another
order. All but the levels are the same for intensities times a positive number, or plus any.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfcn.slices.background import image_of
from medfcn.slices.grid import from_stored_order, map_to_network
from medfcn.volumes import Volume

AXES = ("R", "A", "S")
_RATIOS = (("A", "R"), ("S", "R"), ("S", "A"))
LEVELS = ("level_5", "level_50", "level_95", "all_5", "all_95")
"""The figures of a channel that depend on its scale."""
GRID_FIGURES = (
    *(f"{kind}_{axis}" for kind in ("spacing", "field") for axis in AXES),
    *(f"aspect_{one}{other}" for one, other in _RATIOS),
    "tilt",
)
LOOK_FIGURES = (
    *("quarter", "median", "three_quarters", "tail", "centre"),
    *(f"{kind}_{axis}" for kind in ("near", "far", "towards") for axis in AXES),
)
_SAMPLE = 10_000
"""Voxels that a channel's figures come from, at most, evenly spaced along each axis."""
_NEAR, _FAR = 1, 4
"""Distances in voxels at which intensities are compared."""
_PAIRS_FEWEST = 100
_TAIL_LEAST = 0.05


@dataclass(frozen=True)
class Appearance:
    """The figures of one case.

    Attributes:
        orientation: The order in which it is stored, such as `LPS`.
        grid: `spacing_R`, `field_R` (the field of view) and so on, in mm along the patient's axes; `aspect_AR` and so
            on, the ratio of two fields; and `tilt`, the largest angle between an axis of the grid and the patient's,
            in degrees.
        channels: For each channel: `level_5`, `level_50` and `level_95`, percentiles of the image without its
            background; `all_5` and `all_95`, the same with it; `quarter`, `median` and `three_quarters`, the place
            of the quartiles in the range of 5 to 95 %; `tail`, the logarithm of the range above it; `near_R`,
            `far_R` and so on, the logarithm of the mean difference of voxels one and four apart, in parts of that
            of any two voxels; `towards_R` and so on, how much brighter one half is than the other, in standard
            deviations; `centre`, how much brighter the middle is than the rest. None for a channel whose image has
            a single value, or one beyond float32.
    """

    orientation: str
    grid: Mapping[str, float]
    channels: tuple[Mapping[str, float] | None, ...]


def appearance_of(volumes: Sequence[Volume]) -> Appearance:
    """The figures of a case's channels, which are on one grid."""
    first = volumes[0]
    shape = (int(first.shape[0]), int(first.shape[1]), int(first.shape[2]))
    grid = map_to_network(shape, first.orientation, first.spacing_mm, (None, None, None))
    figures = {f"spacing_{axis}": spacing for axis, spacing in zip(AXES, grid.spacing_mm, strict=True)}
    for axis, edge, spacing in zip(AXES, grid.shape, grid.spacing_mm, strict=True):
        figures[f"field_{axis}"] = edge * spacing
    figures |= aspects_of(figures)
    lengths = first.affine[:3, :3] / np.linalg.norm(first.affine[:3, :3], axis=0)
    straight = min(abs(float(lengths[world, axis])) for world, axis in enumerate(grid.axes))
    figures["tilt"] = math.degrees(math.acos(min(1.0, straight)))
    looks = tuple(_look(from_stored_order(volume.array, grid)) for volume in volumes)
    return Appearance(first.orientation, figures, looks)


def aspects_of(figures: Mapping[str, float]) -> dict[str, float]:
    """The ratios of the fields of view."""
    return {f"aspect_{one}{other}": figures[f"field_{one}"] / figures[f"field_{other}"] for one, other in _RATIOS}


def _look(array: NDArray[np.generic]) -> dict[str, float] | None:
    """The figures of one channel, with its axes in R, A, S order."""
    places = [np.arange(0, size, step) for size, step in zip(array.shape, _steps(array.shape), strict=True)]
    with np.errstate(over="ignore"):
        sample = array[np.ix_(*places)].astype(np.float32)
    if not np.isfinite(sample).all():
        return None
    image = image_of(sample)
    inside = np.sort(sample.reshape(-1) if image is None else sample[image])
    if not len(inside) or not inside[-1] > inside[0]:
        return None
    lowest, low, quarter, median, upper, high, highest = _at(inside, 1, 5, 25, 50, 75, 95, 99)
    figures = {"level_5": low, "level_50": median, "level_95": high}
    figures["all_5"], figures["all_95"] = _at(np.sort(sample, axis=None), 5, 95)
    if not high > low:  # nearly all voxels have one value
        low, high = float(inside[0]), float(inside[-1])
    if not highest > lowest:
        lowest, highest = low, high
    spread = high - low
    for name, level in (("quarter", quarter), ("median", median), ("three_quarters", upper)):
        figures[name] = (level - low) / spread
    figures["tail"] = math.log(_TAIL_LEAST + max(0.0, highest - high) / spread)
    clipped, seen = (np.clip(values, lowest, highest, dtype=np.float64) for values in (sample, inside))
    unlike = float(np.abs(seen - median).mean()) * math.sqrt(2)
    for axis, name in enumerate(AXES):
        for distance, far in ((_NEAR, "near"), (_FAR, "far")):
            chosen = np.flatnonzero(places[axis] + distance < array.shape[axis])
            others = [place[chosen] + distance if other == axis else place for other, place in enumerate(places)]
            here, there = clipped.take(chosen, axis), array[np.ix_(*others)].astype(np.float64)
            both = there >= inside[0]
            if image is not None:
                both &= image.take(chosen, axis)
            if np.count_nonzero(both) >= _PAIRS_FEWEST:
                differences = np.abs(here - np.clip(there, lowest, highest))[both]
                figures[f"{far}_{name}"] = math.log(1e-3 + float(differences.mean()) / unlike)
        half = sample.shape[axis] // 2
        if half:
            along = clipped.mean(axis=tuple(other for other in range(3) if other != axis))
            figures[f"towards_{name}"] = float(along[-half:].mean() - along[:half].mean()) / float(clipped.std())
    middle = tuple(slice(size // 4, size - size // 4) for size in sample.shape)
    figures["centre"] = float(clipped[middle].mean() - clipped.mean()) / float(clipped.std())
    return figures


def _steps(shape: Sequence[int]) -> list[int]:
    """How far apart the voxels of the sample are along each axis."""
    steps = [1] * len(shape)
    while math.prod(counts := [-(-size // step) for size, step in zip(shape, steps, strict=True)]) > _SAMPLE:
        steps[counts.index(max(counts))] += 1
    return steps


def _at(ordered: NDArray[np.float32], *percents: float) -> list[float]:
    """Percentiles of sorted values, each one of them."""
    return [float(ordered[round(percent / 100 * (len(ordered) - 1))]) for percent in percents]
