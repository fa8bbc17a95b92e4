"""Phantoms in which an exported model must find what the run finds: noise, in three sizes, and cut into tiles."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.exporting.activation_maximisation import dreamt_size, dreamt_slices
from medfcn.inference.card import Card
from medfcn.inference.ensemble import Ensemble
from medfcn.inference.model import Model
from medfcn.inference.self_test import dice_of as dice_of
from medfcn.networks.sliding import REACH, WHOLE_PIXELS
from medfcn.slices.plan import Intensity, Plan
from medfcn.slices.slicing import VIEW_AXIS, in_plane_axes
from medfcn.volumes import ReadOptions, Volume

_SCALES = (1.0, 0.7, 1.4)
"""Edges of the slices, in windows of the training: the same, smaller, and larger."""
_SLICES = 5
_CUT_SLICES = 2
"""Slices of the phantom that is cut into tiles: each has some hundred thousand pixels."""
_SEED = 20_190_710
ANY_SIZE = ReadOptions(box_mm=((-1e6, 1e6), (-1e6, 1e6), (-1e6, 1e6)))
"""A phantom is looked at as a whole, even where windows are far larger than the training volumes in them."""
_OWN_MM = 3.0
"""Distance of slices where the network grid keeps a volume's own."""
_DREAMT = 2
"""Slices that are made for a model; they are repeated."""
_UNDECIDED = 1e-4
"""Voxels whose two highest probabilities differ by less may be decided otherwise by the last digits of a library."""


@dataclass(frozen=True)
class Phantom:
    """A phantom, and what a run finds in it.

    Attributes:
        volumes: Its channels.
        mask: The run's.
        decided: The voxels of which the run is sure beyond the last digits.
    """

    volumes: list[Volume]
    mask: Volume
    decided: NDArray[np.bool_]

    @classmethod
    def of(cls, volumes: list[Volume], loaded: Ensemble) -> "Phantom":
        """The phantom that some volumes are."""
        found = loaded.predict_case(volumes, keep_probabilities=True, options=ANY_SIZE)
        likely = found.probabilities
        decided = np.ones(found.mask.shape, dtype=bool) if likely is None else _decided(likely, loaded)
        return cls(volumes, found.mask, decided)

    @property
    def labels(self) -> int:
        """Labels that the run finds."""
        return int(np.count_nonzero(np.unique(self.mask.array)))

    def dice_to(self, mask: NDArray[Any]) -> float:
        """The smallest Dice of the run's mask and another over their labels, where the run is sure."""
        if mask.shape != self.mask.shape:
            return 0.0
        return dice_of(self.mask.array, np.where(self.decided, mask, self.mask.array))


def phantoms(loaded: Ensemble) -> list[Phantom]:
    """A phantom in each of the sizes, odd ones among them, in which a run finds every label if it can be.

    Of a single view one more is so large that its slices are cut into tiles, along rows and columns. Scripts and
    bundles, which cut them by themselves, have no more views.

    That is noise if it will do; else there are slices in its middle in which the first network finds its labels.
    """
    card, made, found = loaded.card, _Made(loaded.models[0]), []
    shapes = [_shape(card.plan, number) for number in range(len(_SCALES))]
    if len(card.plan.views) == 1 and loaded.models[0].network.takes_any_size:  # else the third is cut
        shapes.append(_cut_shape(card.plan))
    for number, shape in enumerate(shapes):
        noise = _noise(card, shape, number)
        phantom = Phantom.of(_volumes(card, [100 + 1000 * channel for channel in noise]), loaded)
        if phantom.labels < len(card.labels.entries) and loaded.models[0].transforms is None:
            phantom = max(
                phantom,
                Phantom.of(made.volumes(noise, is_filled=number == len(_SCALES)), loaded),
                key=lambda each: each.labels,
            )
        found.append(phantom)
    return found


@dataclass(frozen=True)
class _Made:
    """Volumes in whose middle a model finds its labels, made when the first is asked for."""

    model: Model

    @cached_property
    def _slices(self) -> NDArray[np.float32]:
        """`(n, C, h, w)`."""
        shape = (_DREAMT, len(self.model.card.channels), *dreamt_size(self.model))
        noise = np.random.default_rng(_SEED).normal(size=shape)
        return dreamt_slices(self.model, np.stack([[_smooth(each) for each in one] for one in noise]))

    def volumes(self, noise: Sequence[NDArray[np.float64]], *, is_filled: bool = False) -> list[Volume]:
        """Channels of noise, with the slices in their middle; or these again and again, for every tile."""
        card, stored = self.model.card, []
        for channel, intensity in enumerate(card.plan.intensities):
            values = np.moveaxis(noise[channel] / noise[channel].std(), VIEW_AXIS[card.plan.views[0]], 0)
            made = self._slices[np.arange(len(values)) % _DREAMT, channel]
            if is_filled:
                more = [(0, max(0, to - edge)) for to, edge in zip(values.shape, made.shape, strict=True)]
                values = np.pad(made, more, mode="wrap").astype(np.float64)
            else:
                theirs, ours = (_middle(a, b) for a, b in ((values.shape, made.shape), (made.shape, values.shape)))
                values[:, *theirs] = made[:, *ours]
            stored.append(_stored(np.moveaxis(values, 0, VIEW_AXIS[card.plan.views[0]]), intensity))
        return _volumes(card, stored)


def _middle(shape: Sequence[int], other: Sequence[int]) -> Iterator[slice]:
    """The rows and columns in the middle of slices that others have too."""
    for edge, size in zip(shape[1:], other[1:], strict=True):
        start = max(0, edge - size) // 2
        yield slice(start, start + min(edge, size))


def _stored(values: NDArray[np.float64], intensity: Intensity) -> NDArray[np.float64]:
    """Intensities that are scaled to some values of mean 0 and standard deviation 1, about."""
    if intensity.kind == "none":
        return values
    return intensity.mean + intensity.std * values if intensity.kind == "ct" else 100 + 1000 * values


def _shape(plan: Plan, number: int) -> tuple[int, ...]:
    """Voxels along R, A and S of a phantom in one of the sizes."""
    shape = [_SLICES + number] * 3
    for view in plan.views:
        for axis, edge in zip(in_plane_axes(view), plan.window, strict=True):
            shape[axis] = max(2, round(edge * _SCALES[number]) | (number & 1))
    return tuple(shape)


def _cut_shape(plan: Plan) -> tuple[int, ...]:
    """Voxels along R, A and S of the smallest phantom of one view whose slices are cut along rows and columns."""
    shape = [_CUT_SLICES] * 3
    beyond = min(plan.whole, max(REACH, math.sqrt(WHOLE_PIXELS / math.prod(plan.window))))
    for axis, edge in zip(in_plane_axes(plan.views[0]), plan.window, strict=True):
        shape[axis] = math.floor(beyond * edge) + 2
    return tuple(shape)


def _noise(card: Card, shape: tuple[int, ...], number: int) -> list[NDArray[np.float64]]:
    """Smooth noise, for each channel."""
    random = np.random.default_rng(_SEED + number)
    return [_smooth(random.normal(size=shape)) for _ in card.channels]


def _smooth(noise: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.ndimage import gaussian_filter

    smooth: NDArray[np.float64] = gaussian_filter(noise, 1.5)
    return smooth


def _volumes(card: Card, channels: Sequence[NDArray[np.float64]]) -> list[Volume]:
    """Volumes on the network's grid."""
    affine = np.diag([*(_OWN_MM if edge is None else float(edge) for edge in card.plan.spacing_mm), 1.0])
    return [
        Volume(channel.astype(np.float32), affine, name=f"phantom_{place}") for place, channel in enumerate(channels)
    ]


def _decided(probabilities: NDArray[np.float32], loaded: Ensemble) -> NDArray[np.bool_]:
    """`(I, J, K)` voxels whose two highest probabilities, or the highest and the threshold, differ clearly."""
    background = 1 - probabilities.sum(axis=0)
    if len(probabilities) == 1 or loaded.models[0].head == "sigmoid":
        background = np.full_like(background, loaded.rules.threshold)
    second, first = np.partition(np.stack([background, *probabilities]), -2, axis=0)[-2:]
    decided: NDArray[np.bool_] = first - second >= _UNDECIDED
    return decided
