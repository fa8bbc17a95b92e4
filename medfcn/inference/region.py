"""The part of a volume that a model looks at: all of it, or a box around a place, with the mask on the whole grid.

A network that was trained on small boxes finds organs everywhere in a volume that is much larger: on two whole heads
a network for the hippocampus found 1.5 and 0.23 ml. Such a volume is refused unless its part is given.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import ModelError, VolumeError
from medfcn.inference.card import Card
from medfcn.inference.case import Prediction
from medfcn.slices.appearance import AXES
from medfcn.volumes import ReadOptions, Volume

_MUCH_LARGER = 8.0
"""A volume of more than this many times the largest of the training is refused: twice its edges."""


@dataclass(frozen=True)
class Region:
    """A box of a volume's voxels.

    Attributes:
        box: A range along each of its own axes.
    """

    box: tuple[slice, slice, slice]

    def cut(self, volume: Volume) -> Volume:
        """The part of a volume."""
        start = np.array([side.start for side in self.box], dtype=np.float64)
        affine = volume.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ start
        array = np.ascontiguousarray(volume.array[self.box])
        return Volume(array, affine, name=volume.name, sha256=volume.sha256, notes=volume.notes)

    def on_whole(self, part: Prediction, volume: Volume) -> Prediction:
        """The prediction of a part on the grid of the whole volume: background outside."""
        mask = np.zeros(volume.shape, dtype=part.mask.array.dtype)
        mask[self.box] = part.mask.array

        def whole(values: NDArray[np.float32]) -> NDArray[np.float32]:
            found = np.zeros((len(values), *volume.shape), dtype=np.float32)
            found[:, *self.box] = values
            return found

        shares = None if part.probabilities is None else whole(part.probabilities)
        maps = part.uncertainty
        if maps is not None:
            maps = replace(maps, entropy=whole(maps.entropy), disagreement=whole(maps.disagreement))
        return replace(part, mask=volume.with_array(mask), probabilities=shares, uncertainty=maps)


def region_of(volume: Volume, cards: Sequence[Card], options: ReadOptions) -> Region | None:
    """The part of a volume that is to be looked at; None for all of it.

    Args:
        volume: The first channel of a case.
        cards: Of the models; with the fields of view of their training cases.
        options: With the box, or the place around which it lies.

    Raises:
        VolumeError: The volume is much larger than those of the training and no part is given, or the part lies
            outside of it.
        ModelError: The part is given by its middle, and the models do not know how large their volumes were.
    """
    largest = _largest_mm(cards)
    if options.box_mm is not None:
        corners = np.array(list(itertools.product(*options.box_mm)))
    elif options.around_mm is not None:
        if largest is None:
            raise ModelError(
                "the model does not know how large its training volumes were; give a box (--box) instead of a place "
                "(--around)",
                field="around",
            )
        return _around(volume, options.around_mm, largest)
    else:
        _refuse_much_larger(volume, largest)
        return None
    voxels = _in_voxels(volume, corners)
    return _region(volume, voxels.min(axis=0) - 0.5, voxels.max(axis=0) + 0.5, "box")


def _around(volume: Volume, place_mm: tuple[float, float, float], largest_mm: NDArray[np.float64]) -> Region:
    """A box as large as the largest training volume, around a place."""
    middle = _in_voxels(volume, np.array([place_mm]))[0]
    if (middle < -0.5).any() or (middle > np.array(volume.shape) - 0.5).any():
        raise VolumeError(
            f"{volume.name or 'volume'}: the place {_shown(place_mm)} mm is outside of it; give one inside, in RAS+ "
            "millimetres of its header",
            code="VOLUME_REFUSED",
            field="around",
        )
    half = np.empty(3)
    for axis, letter in enumerate(volume.orientation):
        half[axis] = largest_mm[_world_axis(letter)] / volume.spacing_mm[axis] / 2
    return _region(volume, middle - half, middle + half, "around")


def _world_axis(letter: str) -> int:
    """0 for right and left, 1 for anterior and posterior, 2 for superior and inferior."""
    return next(number for number, pair in enumerate(("RL", "AP", "SI")) if letter in pair)


def _region(volume: Volume, low: NDArray[np.float64], high: NDArray[np.float64], field: str) -> Region:
    """The voxels whose middles lie between two corners."""
    first = np.clip(np.ceil(low), 0, volume.shape).astype(int)
    stop = np.clip(np.floor(high) + 1, 0, volume.shape).astype(int)
    if not (stop > first).all():
        raise VolumeError(
            f"{volume.name or 'volume'}: the box contains none of its voxels; give one in RAS+ millimetres of its "
            "header",
            code="VOLUME_REFUSED",
            field=field,
        )
    sides = [slice(int(start), int(end)) for start, end in zip(first, stop, strict=True)]
    return Region((sides[0], sides[1], sides[2]))


def _in_voxels(volume: Volume, places_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(N, 3)` places in mm to voxels."""
    inverse = np.linalg.inv(volume.affine)
    result: NDArray[np.float64] = places_mm @ inverse[:3, :3].T + inverse[:3, 3]
    return result


def _largest_mm(cards: Sequence[Card]) -> NDArray[np.float64] | None:
    """The largest field of view of any training case along R, A and S; None if it is not known."""
    known = [card.fingerprint for card in cards if card.fingerprint is not None]
    if not known:
        return None
    spans = [[fingerprint.grid.get(f"field_{axis}") for axis in AXES] for fingerprint in known]
    if any(span is None for row in spans for span in row):
        return None
    edges = np.array([[span.highest for span in row if span is not None] for row in spans], dtype=np.float64)
    largest: NDArray[np.float64] = edges.max(axis=0)
    return largest


def most_mm3(card: Card) -> float | None:
    """The room of a volume, in cubic millimetres, beyond which it is refused; None if any is accepted."""
    largest_mm = _largest_mm([card])
    return None if largest_mm is None else _MUCH_LARGER * math.prod(largest_mm)


def _refuse_much_larger(volume: Volume, largest_mm: NDArray[np.float64] | None) -> None:
    if largest_mm is None:
        return
    edges = np.empty(3)
    for count, length, letter in zip(volume.shape, volume.spacing_mm, volume.orientation, strict=True):
        edges[_world_axis(letter)] = count * length
    times = math.prod(edges) / math.prod(largest_mm)
    if times > _MUCH_LARGER:
        raise VolumeError(
            f"{volume.name or 'volume'}: it spans {_shown(edges)} mm (R, A, S), {times:.0f} times the room of the "
            f"largest volume of the training, {_shown(largest_mm)} mm; in so large a volume the model finds its "
            "organ in wrong places; say where to look with --around X,Y,Z or --box (millimetres)",
            code="VOLUME_REFUSED",
            field="around",
        )


def _shown(lengths_mm: Sequence[float] | NDArray[np.float64]) -> str:
    return " × ".join(f"{length:.4g}" for length in lengths_mm)
