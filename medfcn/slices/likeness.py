"""Cases that look unlike the others of their data set: turned, mirrored, or with figures far from all others.

A volume is thinned to a coarse cube along the patient's axes, so that cases compare whatever their grid is. A case is
*turned* if the mean of the other cases fits it better after a quarter or half turn, or a mirror image, than as it is,
by more than chance. What most cases do is right here: a set that is turned as a whole looks alike.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medfcn.slices.grid import from_stored_order, map_to_network
from medfcn.volumes import Volume

EDGE = 12
"""Voxels of a cube's edge."""
FEWEST = 8
"""With fewer cases nothing is known of the usual."""
Cube = NDArray[np.float64]

_AXES = ("right-left", "front-back", "head-feet")
_PLANES = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}
_GAIN = 0.15
"""Correlation by which a turned cube must fit better."""
_ALIKE = 0.5
"""Median correlation of the cases with the mean of the others below which a set has no usual look."""
_FAR = 5.0
"""Robust standard deviations from the median beyond which a figure is unlike."""
_LEAST_SPREAD = 0.02


def cube_of(volume: Volume) -> Cube:
    """A volume as `(EDGE, EDGE, EDGE)` along R, A, S, with mean 0 and standard deviation 1; 0 if it is constant."""
    shape = (int(volume.shape[0]), int(volume.shape[1]), int(volume.shape[2]))
    grid = map_to_network(shape, volume.orientation, volume.spacing_mm, (None, None, None))
    array = from_stored_order(volume.array, grid)
    # Four voxels in each direction stand for a cell; more would cost and not change what is seen.
    places = [np.minimum((np.arange(4 * EDGE) * size) // (4 * EDGE), size - 1) for size in array.shape]
    sample = array[np.ix_(*places)].astype(np.float64)
    low, high = np.percentile(sample, (1, 99))
    cells = np.clip(sample, low, high).reshape(EDGE, 4, EDGE, 4, EDGE, 4).mean(axis=(1, 3, 5))
    spread = float(cells.std())
    return (cells - cells.mean()) / spread if spread else np.zeros_like(cells)


def turned(cubes: Mapping[str, Cube]) -> dict[str, str]:
    """The cases that the mean of the others fits better after a turn or a mirror image, and which.

    Args:
        cubes: By case id.

    Returns:
        Words such as `turned by 90° in the axial plane`, by case id. Empty with fewer than eight cases, and where the
        cases of the set do not resemble each other, as tumours in any limb.
    """
    if len(cubes) < FEWEST:
        return {}
    total = np.sum(list(cubes.values()), axis=0)
    others = {case: (total - cube) / (len(cubes) - 1) for case, cube in cubes.items()}
    as_they_are = {case: _correlation(cube, others[case]) for case, cube in cubes.items()}
    if float(np.median(list(as_they_are.values()))) < _ALIKE:
        return {}
    found = {}
    for case, cube in cubes.items():
        fits = {words: _correlation(moved, others[case]) for words, moved in _moves(cube)}
        best = max(fits, key=fits.__getitem__)
        if fits[best] > as_they_are[case] + _GAIN:
            found[case] = best
    return found


def _correlation(one: Cube, other: Cube) -> float:
    spread = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.vdot(one, other)) / spread if spread else 0.0


def _moves(cube: Cube) -> list[tuple[str, Cube]]:
    """A cube after each turn and mirror image, with the words for it."""
    moves = [(f"mirrored {_AXES[axis]}", np.flip(cube, axis)) for axis in range(3)]
    for (plane, axes), quarters in itertools.product(_PLANES.items(), (1, 2, 3)):
        moves.append((f"turned by {90 * quarters}° in the {plane} plane", np.rot90(cube, quarters, axes)))
    return moves


def far_from_others(values: Sequence[float]) -> list[bool]:
    """True for values beyond five robust standard deviations from the median of all.

    The standard deviation is that of the quartiles or of the median deviation, whichever is larger.

    Args:
        values: One for each case; `nan` where there is none.

    Example:
        >>> far_from_others([1.0, 1.1, 0.9, 1.0, 1.05, 0.95, 1.0, 9.0])
        [False, False, False, False, False, False, False, True]
    """
    numbers = np.asarray(values, dtype=np.float64)
    known = numbers[np.isfinite(numbers)]
    if len(known) < FEWEST:
        return [False] * len(numbers)
    median = float(np.median(known))
    lower, upper = np.percentile(known, (25, 75))
    # The deviation from the median is small where most values are equal and the others are not rare.
    spread = max(
        1.4826 * float(np.median(np.abs(known - median))), (upper - lower) / 1.349, _LEAST_SPREAD * abs(median)
    )
    spread = max(spread, 1e-9)
    return [bool(np.isfinite(number) and abs(number - median) > _FAR * spread) for number in numbers]
