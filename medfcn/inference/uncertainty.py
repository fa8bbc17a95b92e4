"""Uncertainty as volumes: for each label, the entropy of the mean probability, and the disagreement behind it.

Members are the folds, views and mirror images whose probabilities are averaged. The entropy of a label's mean
probability p is `-p log2 p - (1 - p) log2 (1 - p)`: 1 bit where nothing is known, 0 where the mean is certain. The
disagreement is the mutual information of the label and the member: the entropy of the mean less the mean entropy of
the members, 0 where all say the same. What is left of the entropy is doubt that all members share.

The networks run once. Views and mirror images of a network share its grid, so their disagreement is computed there
and brought to the volume's grid; that of networks is computed on the volume's grid, where alone they meet.

Source:
    Depeweg et al., ICML 2018 (decomposition); Gal, Islam, Ghahramani, ICML 2017, equation 2 (mutual information).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from medfcn.inference.probabilities import view_shares
from medfcn.networks.sliding import MirroredNetwork, Network, Slices
from medfcn.scratch import parts, put, release, scratch_array
from medfcn.slices.grid import from_stored_order, native_slabs
from medfcn.slices.preprocess import CaseImage, grid_of
from medfcn.slices.voxels import Ranges
from medfcn.volumes import Volume

if TYPE_CHECKING:
    from medfcn.inference.card import Card
    from medfcn.settings import View

Floats = NDArray[np.float32]


class Member(Protocol):
    """A model, as far as its uncertainty needs it; see `Model`."""

    card: Card
    runner: Network

    def view_slabs(self, slices: Slices, view: View, *, tta: bool | None = None) -> Iterator[tuple[Ranges, Floats]]:
        """The probabilities of one view, some slices at a time; see `Model`."""


@dataclass(frozen=True)
class UncertaintyMaps:
    """The uncertainty of a case, in bits.

    Attributes:
        entropy: `(L, I, J, K)` entropy of the mean probability of each label.
        disagreement: `(L, I, J, K)` mutual information of each label and the members; at most the entropy.
    """

    entropy: Floats
    disagreement: Floats


@dataclass(frozen=True)
class NetworkMaps:
    """The word of one network, on its own grid.

    Attributes:
        likely: `(L, R, A, S)` mean probabilities over its views and mirror images.
        disagreement: `(L, R, A, S)` bits of disagreement between these; None for a single one.
    """

    likely: Floats
    disagreement: Floats | None


def entropy_bits(probabilities: Floats) -> Floats:
    """The entropy of a label that is there with these probabilities, in bits.

    Example:
        >>> entropy_bits(np.array([0, 0.5, 1], dtype=np.float32)).tolist()
        [0.0, 1.0, 0.0]
    """
    found = np.zeros_like(probabilities)
    inside = (probabilities > 0) & (probabilities < 1)
    one = probabilities[inside]
    other = 1 - one
    found[inside] = -(one * np.log2(one) + other * np.log2(other))
    return found


def network_maps(model: Member, volumes: Sequence[Volume], *, tta: bool | None = None) -> NetworkMaps:
    """The mean probabilities of a network, as it gives them without this module, and the disagreement behind them.

    Large arrays lie in files, and the slices pass through a slab at a time.

    Args:
        model: The network.
        volumes: A case's channels.
        tta: Average over mirror images; None does as the model's settings say.
    """
    image, labels = CaseImage(volumes, model.card.plan), len(model.card.labels.entries)
    views = [(view, share, _mirrors(model, view, tta=tta)) for view, share in view_shares(model.card).items()]
    is_alone = sum(len(mirrors) for _, _, mirrors in views) < 2
    mean = _scratch(image.shape[1:], labels)
    doubt = None if is_alone else _scratch(image.shape[1:], labels)
    for number, (view, share, mirrors) in enumerate(views):
        count, slices = np.float32(len(mirrors)), image.slices(view)
        slabs = [_mirrored(model, axes).view_slabs(slices, view, tta=False) for axes in mirrors]
        for each in zip(*slabs, strict=True):
            place, seen = each[0][0], [part for _, part in each]
            put(mean[place], sum(seen[1:], start=seen[0]) / count * share, add=number > 0)
            if doubt is not None:
                entropies = [entropy_bits(part) for part in seen]
                put(doubt[place], sum(entropies[1:], start=entropies[0]) / count * share, add=number > 0)
    if doubt is None:
        return NetworkMaps(mean, None)
    for of_label, likely in zip(doubt, mean, strict=True):
        for place, part in parts(of_label):
            part[...] = np.maximum(entropy_bits(likely[place]) - part, 0)
            release(mean)
    return NetworkMaps(mean, doubt)


def _scratch(shape: Sequence[int], labels: int) -> Floats:
    """Zeros for each label, contiguous; a large array lies in a file."""
    stored: Floats = scratch_array((*reversed(shape), labels), np.float32, purpose="the uncertainty").T
    return stored


def _mirrored(model: Member, axes: tuple[int, ...]) -> Member:
    twin = copy.copy(model)
    twin.runner = MirroredNetwork(model.runner, axes)
    return twin


def _mirrors(model: Member, view: View, *, tta: bool | None) -> list[tuple[int, ...]]:
    """The mirror images of a view, by the axes of the slices that are reversed; the first is the slice itself."""
    mirrors: list[tuple[int, ...]] = [()]
    if model.card.settings.prediction.tta if tta is None else tta:
        for axis in model.card.plan.mirrored(view):
            mirrors += [(*axes, 2 + axis) for axes in mirrors]
    return mirrors


def uncertainty_maps(models: Sequence[Member], maps: Sequence[NetworkMaps], volume: Volume) -> UncertaintyMaps:
    """The uncertainty of a case on its own grid.

    Args:
        models: The networks.
        maps: What each of them says.
        volume: A volume of the case.
    """
    labels, grids = len(maps[0].likely), [grid_of(volume, model.card.plan) for model in models]
    entropy, disagreement = (
        np.moveaxis(scratch_array((*volume.shape, labels), np.float32, purpose="the uncertainty"), 3, 0)
        for _ in range(2)
    )
    slabs = [native_slabs(one.likely, grid) for one, grid in zip(maps, grids, strict=True)]
    within = [
        native_slabs(one.disagreement, grid)
        for one, grid in zip(maps, grids, strict=True)
        if one.disagreement is not None
    ]
    count = np.float32(len(models))
    for each in zip(*slabs, strict=True):
        rows, likely = each[0][0], [values for _, values in each]
        mean = sum(likely[1:], start=likely[0]) / count
        whole = entropy_bits(mean)
        apart = np.zeros_like(whole)
        if len(models) > 1:
            apart += np.maximum(whole - sum(entropy_bits(one) for one in likely) / count, 0)
        if within:
            apart += sum(next(slab)[1] for slab in within) / count
        put(from_stored_order(entropy, grids[0])[:, rows], whole)
        put(from_stored_order(disagreement, grids[0])[:, rows], np.minimum(apart, whole))
        for array in (*(one.likely for one in maps), *(one.disagreement for one in maps)):
            if array is not None:
                release(array)
    return UncertaintyMaps(entropy, disagreement)
