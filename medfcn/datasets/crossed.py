"""Masks that fit the image of another case: those of two patients that were exchanged, or a list that slipped by one.

On one grid nothing else shows it. How well a mask fits an image is told by the intensities in the mask and in two
voxels around it: the square root of their mutual information with the labels. Two masks are said to be exchanged if
both fit better the other way round, by more than any two masks do that are right.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.datasets.problems import Problem
from medfcn.labels.values import ValueSet
from medfcn.text import listed
from medfcn.volumes.geometry import NEAR_GRID_VOXELS, Affine, corner_displacement_voxels
from medfcn.volumes.volume import Volume

GAIN = 0.1
"""Exchanged masks fit better the other way round by at least so much in the mean, in the root of nats, and each does.

Of 19,900 pairs of hippocampi, 1,891 of hearts and 381 of tumours that are right none gains more than 0.085.
"""
MOST_CASES = 500
"""Cases of a data set that are compared; each takes 64 kB a channel, and twice as much for its mask."""
_VOXELS = 2**16
"""Voxels of an image that are looked at, at most, evenly spaced."""
_FEWEST = 1000
"""Voxels in and around a mask, below which chance decides how well it fits."""
_LEVELS, _BINS = 256, 16
_STEPS, _SPARSE = 4096, 8
_AROUND = 2
_ALL, _SAMPLED = 100, 24
"""With more cases on one grid, those are compared for which one of 24 other masks fits better than their own."""

Fits = NDArray[np.float64]


@dataclass(frozen=True)
class Glance:
    """A case as its mask is compared: few voxels of its images and of its mask.

    Attributes:
        case: Its id.
        shape: Voxels of the whole.
        affine: Of the image.
        images: For each channel the ranks of the intensities, in 256 levels; `(I, J, K)`.
        mask: The values of the labels; `(I, J, K)`.
        around: True in and around the labels, where somebody labelled; `(I, J, K)`.
    """

    case: str
    shape: tuple[int, ...]
    affine: Affine
    images: tuple[NDArray[np.uint8], ...]
    mask: NDArray[np.uint8]
    around: NDArray[np.bool_]


def glance_at(case: str, images: Sequence[Volume], mask: Volume, ignored: ValueSet) -> Glance | None:
    """A case as its mask is compared; None where nothing could be told of it.

    Args:
        case: Its id.
        images: Its channels.
        mask: On their grid.
        ignored: Values of voxels that nobody labelled.
    """
    every = _thinning(mask.shape)
    values = np.unique(mask.array[every])
    if not 1 < len(values) <= _LEVELS:
        return None
    labels = np.searchsorted(values, mask.array[every]).astype(np.uint8)
    unlabelled = np.array([value in ignored for value in values.tolist()])[labels]
    around = _grown((labels != np.searchsorted(values, 0)) & ~unlabelled) & ~unlabelled
    if np.count_nonzero(around) < _FEWEST:
        return None
    looks = tuple(_ranks(image.array[every]) for image in images)
    return Glance(case, mask.shape, images[0].affine, looks, labels, around)


def exchanged_problems(glances: Sequence[Glance]) -> list[Problem]:
    """A warning for each two masks, or round of masks, that fit the images of each other better than their own.

    Args:
        glances: Of the cases, in their order.
    """
    return [
        _problem([cases[place].case for place in chain])
        for cases in _on_one_grid(glances[:MOST_CASES])
        for cases in (_doubtful(cases),)
        for chain in exchanged(_fits(cases, cases))
    ]


def exchanged(fits: Fits) -> list[list[int]]:
    """The chains of cases whose masks were exchanged: the mask of the second belongs to the image of the first.

    Args:
        fits: `(N, N)`: how well the mask of each column fits the image of each row.

    Example:
        >>> right = np.array([[0.9, 0.2, 0.1], [0.2, 0.8, 0.2], [0.1, 0.2, 0.7]])
        >>> exchanged(right), exchanged(right[:, [1, 0, 2]]), exchanged(right[:, [2, 0, 1]])
        ([], [[0, 1]], [[0, 1, 2]])

        A mask that is drawn with more care fits a clear image better than its own, which the other does not fit:

        >>> exchanged(np.array([[0.14, 0.03], [1.08, 0.32]]))
        []
    """
    order = np.arange(len(fits))
    while len(fits):
        moved = fits[:, order]
        own = np.diagonal(moved)
        gains = moved + moved.T - own[:, None] - own
        one, other = np.unravel_index(np.argmax(gains), gains.shape)
        if gains[one, other] <= 1e-9:
            break
        order[[one, other]] = order[[other, one]]
    found = []
    for chain in _chains(order.tolist()):
        each = [float(fits[place, order[place]] - fits[place, place]) for place in chain]
        if sum(each) > GAIN * len(each) and min(each) > 0:
            found.append(chain)
    return found


def _chains(order: Sequence[int]) -> Iterator[list[int]]:
    """The cycles of a permutation that are longer than one."""
    seen: set[int] = set()
    for start in range(len(order)):
        chain, place = [], start
        while place not in seen:
            seen.add(place)
            chain.append(place)
            place = order[place]
        if len(chain) > 1:
            yield chain


def _problem(cases: Sequence[str]) -> Problem:
    fits = "each fits the image of the other case much better than its own"
    if len(cases) > 2:
        fits = "each fits the image of the case before it much better than its own"
    found = f"the masks of {listed(cases, limit=20)} seem to be exchanged: {fits}"
    remedy = "look at these cases (medfcn look), and give each its own"
    return Problem("MASKS_EXCHANGED", "warning", "", "", "labels", found, remedy)


def _on_one_grid(glances: Sequence[Glance]) -> list[list[Glance]]:
    """The cases by grid, as far as a mask of one would be taken for the image of another."""
    by_shape: defaultdict[tuple[int, ...], list[list[Glance]]] = defaultdict(list)
    for glance in glances:
        grids = by_shape[(len(glance.images), *glance.shape)]
        for grid in grids:
            first = grid[0]
            if corner_displacement_voxels(first.affine, glance.affine, glance.shape) < NEAR_GRID_VOXELS:
                grid.append(glance)
                break
        else:
            grids.append([glance])
    return [grid for grids in by_shape.values() for grid in grids if len(grid) > 1]


def _doubtful(cases: list[Glance]) -> list[Glance]:
    """The cases to which the mask of another fits better than their own; all of them where they are few."""
    if len(cases) <= _ALL:
        return cases
    sample = cases[:: -(-len(cases) // _SAMPLED)]
    best = _fits(cases, sample).max(axis=1)
    return [case for case, fit in zip(cases, best, strict=True) if _fits([case], [case])[0, 0] <= fit][:_ALL]


def _fits(images: Collection[Glance], masks: Sequence[Glance]) -> Fits:
    """How well each mask fits each image; `(images, masks)`; over the channels the mean."""
    found = np.zeros((len(images), len(masks)))
    for column, mask in enumerate(masks):
        labels = mask.mask[mask.around].astype(np.intp)
        for row, image in enumerate(images):
            fits = [_fit(look[mask.around], labels) for look in image.images]
            found[row, column] = sum(fits) / len(fits)
    return found


def _fit(ranks: NDArray[np.uint8], labels: NDArray[np.intp]) -> float:
    """The root of the mutual information of intensities and labels in nats, less what chance gives (Miller, 1955)."""
    count = int(labels.max()) + 1
    joint = np.bincount(labels * _LEVELS + ranks, minlength=count * _LEVELS).reshape(count, _LEVELS)
    upto = np.cumsum(joint.sum(axis=0))
    bins = np.minimum((upto - 1) * _BINS // upto[-1], _BINS - 1).clip(0)
    share = np.stack([np.bincount(bins, weights=of_label, minlength=_BINS) for of_label in joint]) / upto[-1]
    alone = share.sum(axis=0) * share.sum(axis=1, keepdims=True)
    inside = share > 0
    information = float((share[inside] * np.log(share[inside] / alone[inside])).sum())
    by_chance = np.count_nonzero(share.sum(axis=1)) - 1
    by_chance *= np.count_nonzero(share.sum(axis=0)) - 1
    return math.sqrt(max(0.0, information - by_chance / (2 * len(labels))))


def _ranks(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Intensities as 256 levels of equally many voxels, as far as 4,096 even steps tell them apart."""
    numbers = values.astype(np.float64)
    low, high = np.quantile(numbers.reshape(-1)[::_SPARSE], (0.001, 0.999))
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        scale = (_STEPS - 1) / (high - low)
    if not 0.0 < scale < np.inf:  # one value, or numbers beyond what can be told apart
        return np.zeros(values.shape, dtype=np.uint8)
    places = ((np.clip(numbers, low, high) - low) * scale).astype(np.intp)
    upto = np.cumsum(np.bincount(places.reshape(-1), minlength=_STEPS))
    levels = ((upto - 1) * _LEVELS // upto[-1]).clip(0).astype(np.uint8)
    ranks: NDArray[np.uint8] = levels[places]
    return ranks


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask with the two voxels around it."""
    for _ in range(_AROUND):
        larger = mask.copy()
        for axis in range(mask.ndim):
            before, after = np.moveaxis(larger, axis, 0), np.moveaxis(mask, axis, 0)
            before[1:] |= after[:-1]
            before[:-1] |= after[1:]
        mask = larger
    return mask


def _thinning(shape: Sequence[int]) -> tuple[slice, ...]:
    steps = [1] * len(shape)
    while math.prod(counts := [-(-size // step) for size, step in zip(shape, steps, strict=True)]) > _VOXELS:
        steps[counts.index(max(counts))] += 1
    return tuple(slice(None, None, step) for step in steps)
