"""Cases that look unlike the others of their data set: turned, mirrored, or with figures far from all others.

A volume is thinned to a coarse cube along the patient's axes, so that cases compare whatever their grid is; so is its
mask, around its labels and in their size. A case is *turned* if its like among the other cases fit it better after a
quarter or half turn, or a mirror image, than as it is, by more than chance. Its like are compared, not the mean of
all: where each scan has a plane of its own, as hearts have, a mean fits nobody. What most cases do is right here: a
set that is turned as a whole looks alike.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medfcn.labels.values import ValueSet
from medfcn.slices.grid import from_stored_order, map_to_network
from medfcn.volumes import Volume

EDGE = 12
"""Voxels of a cube's edge."""
FEWEST = 8
"""With fewer cases nothing is known of the usual."""
Cube = NDArray[np.float32]

_FINE = 4
"""Samples along each edge of a voxel of a cube; more would cost and not change what is seen."""
_AXES = ("right-left", "front-back", "head-feet")
_PLANES = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}
_GAIN = 0.1
"""Correlation by which a turned cube must fit better."""
_MOST = 0.5
"""Share of the cases that fit best as they are, below which a set has no usual look."""
_LIKE, _COMPARED = 10, 200
"""The ten that fit best, among at most 200 other cases, are the like of a case."""
_REACH = 2.2
"""Half of the edge of a mask's cube, in standard deviations of its labelled voxels."""
_MOST_LABELS = 8
_SAMPLE = 100_000
"""Voxels of a mask from which its middle and size come, about."""
_NONE = ValueSet(())
_FAR = 5.0
"""Robust standard deviations from the median beyond which a figure is unlike."""
_LEAST_SPREAD = 0.02


@dataclass(frozen=True)
class Shape:
    """A case as `turned` compares it.

    Attributes:
        image: The cube of its first channel; None without one.
        labels: The cubes of its mask, by value; empty without one.
        group: Its patient, whose other cases say nothing of it.
    """

    image: Cube | None
    labels: Mapping[int, Cube] = field(default_factory=dict)
    group: str = ""


def cube_of(volume: Volume) -> Cube:
    """A volume as `(EDGE, EDGE, EDGE)` along R, A, S, with mean 0 and standard deviation 1; 0 if it is constant."""
    array, _ = _along_the_patient(volume)
    places = [np.minimum((np.arange(_FINE * EDGE) * size) // (_FINE * EDGE), size - 1) for size in array.shape]
    sample = array[np.ix_(*places)].astype(np.float64)
    low, high = np.percentile(sample, (1, 99))
    return _standard(_cells(np.clip(sample, low, high)))


def label_cubes_of(mask: Volume, ignored: ValueSet = _NONE) -> dict[int, Cube]:
    """The labels of a mask around their common middle, by value; cubes as those of `cube_of`.

    The edge of a cube is 4.4 standard deviations of the labelled voxels, so that neither the place nor the size of an
    organ matters. Empty without a label.

    Args:
        mask: Whole numbers.
        ignored: Values that are no label.
    """
    array, spacing_mm = _along_the_patient(mask)
    step = max(1, int((array.size / _SAMPLE) ** (1 / 3)))
    sample = array[::step, ::step, ::step]
    chosen = [value for value in np.unique(sample) if value and value not in ignored]
    spots = np.argwhere(np.isin(sample, chosen)) * step
    if not len(spots):
        return {}
    middle, spread_mm = spots.mean(axis=0), spots.std(axis=0) * spacing_mm
    reach_mm = _REACH * max(float(np.sqrt((spread_mm**2).mean())), *spacing_mm)
    ends = np.linspace(-reach_mm, reach_mm, _FINE * EDGE)
    places = [np.rint(at + ends / edge).astype(int) for at, edge in zip(middle, spacing_mm, strict=True)]
    inside = [(place >= 0) & (place < size) for place, size in zip(places, array.shape, strict=True)]
    cut = array[np.ix_(*(place.clip(0, size - 1) for place, size in zip(places, array.shape, strict=True)))]
    cut = np.where(inside[0][:, None, None] & inside[1][:, None] & inside[2], cut, 0)
    values, counts = np.unique(cut, return_counts=True)
    largest = sorted(zip(counts.tolist(), map(int, values), strict=True), reverse=True)
    kept = [value for _, value in largest if value and value not in ignored][: 2 * _MOST_LABELS]
    return {value: _standard(_cells((cut == value).astype(np.float64))) for value in kept}


def _along_the_patient(volume: Volume) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """The array with its axes towards right, front and head, and its spacing."""
    shape = (int(volume.shape[0]), int(volume.shape[1]), int(volume.shape[2]))
    grid = map_to_network(shape, volume.orientation, volume.spacing_mm, (None, None, None))
    return from_stored_order(volume.array, grid), np.array(grid.spacing_mm)


def _cells(sample: NDArray[np.float64]) -> NDArray[np.float64]:
    cells: NDArray[np.float64] = sample.reshape(EDGE, _FINE, EDGE, _FINE, EDGE, _FINE).mean(axis=(1, 3, 5))
    return cells


def _standard(cells: NDArray[np.float64]) -> Cube:
    spread = float(cells.std())
    standard = (cells - cells.mean()) / spread if spread else np.zeros_like(cells)
    return standard.astype(np.float32)


def turned(shapes: Mapping[str, Shape]) -> dict[str, str]:
    """The cases that their like among the others fit better after a turn or a mirror image, and which.

    A fit is the mean correlation with the ten cases of other patients that fit best: of the images, and of the labels
    where there are any, the mean of both.

    Args:
        shapes: By case id.

    Returns:
        Words such as `turned by 90° in the axial plane`, by case id. Empty with fewer than eight cases, and unless
        at least half of the cases fit best as they are: tumours in any limb fit in all ways alike.
    """
    if len(shapes) < FEWEST:
        return {}
    cases = list(shapes)
    compared = cases[:: -(-len(cases) // _COMPARED)]
    common = Counter(value for shape in shapes.values() for value in shape.labels).most_common(_MOST_LABELS)
    nothing = np.zeros((EDGE,) * 3, np.float32)
    images = {case: shape.image[None] for case, shape in shapes.items() if shape.image is not None}
    labels = {
        case: np.stack([shape.labels.get(value, nothing) for value, _ in common])
        for case, shape in shapes.items()
        if shape.labels
    }
    together: dict[str, dict[str, float]] = {}
    for cubes in (images, labels):
        for case, fits in _fits(cubes, [case for case in compared if case in cubes], shapes).items():
            known = together.get(case, fits)
            together[case] = {words: (fit + known[words]) / 2 for words, fit in fits.items()}
    best = {case: max(fits, key=fits.__getitem__) for case, fits in together.items()}
    if sum(words == _AS_IT_IS for words in best.values()) < _MOST * len(cases):
        return {}
    return {case: best[case] for case, fits in together.items() if fits[best[case]] > fits[_AS_IT_IS] + _GAIN}


def _fits(
    cubes: Mapping[str, NDArray[np.float32]],
    compared: Sequence[str],
    shapes: Mapping[str, Shape],
) -> dict[str, dict[str, float]]:
    """By case, the fit to its like as it is and after each move."""
    if not compared:
        return {}
    usual = np.stack([_unit(cubes[case]) for case in compared])
    groups = np.array([_group(shapes, case) for case in compared])
    found = {}
    for case, cube in cubes.items():
        moves = _moves(cube)
        fits = np.stack([_unit(moved) for _, moved in moves]) @ usual[groups != _group(shapes, case)].T
        like = min(_LIKE, max(1, fits.shape[1] // 3))
        best = np.sort(fits, axis=1)[:, -like:].mean(axis=1) if fits.size else np.zeros(len(moves))
        found[case] = {words: float(fit) for (words, _), fit in zip(moves, best, strict=True)}
    return found


def _group(shapes: Mapping[str, Shape], case: str) -> str:
    return shapes[case].group or case


def _unit(cube: NDArray[np.float32]) -> NDArray[np.float32]:
    """The numbers of a cube in a row, as long as 1, so that a product of two is their correlation."""
    row = cube.reshape(-1)
    length = float(np.linalg.norm(row))
    return row / np.float32(length) if length else row


_AS_IT_IS = "as it is"


def _moves(cube: NDArray[np.float32]) -> list[tuple[str, NDArray[np.float32]]]:
    """A cube `(C, EDGE, EDGE, EDGE)` as it is and after each turn and mirror image, with the words for it."""
    moves = [(_AS_IT_IS, cube)]
    moves += [(f"mirrored {_AXES[axis]}", np.flip(cube, axis + 1)) for axis in range(3)]
    for (plane, (one, other)), quarters in itertools.product(_PLANES.items(), (1, 2, 3)):
        axes = (one + 1, other + 1)
        moves.append((f"turned by {90 * quarters}° in the {plane} plane", np.rot90(cube, quarters, axes)))
    for plane, (one, other) in _PLANES.items():
        axes, swapped = (one + 1, other + 1), np.swapaxes(cube, one + 1, other + 1)
        moves.append((f"mirrored at a diagonal of the {plane} plane", swapped))
        moves.append((f"mirrored at the other diagonal of the {plane} plane", np.flip(swapped, axes)))
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
