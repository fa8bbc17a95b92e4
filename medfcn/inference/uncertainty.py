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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from medfcn.inference.probabilities import view_shares
from medfcn.networks.sliding import MirroredNetwork, Network
from medfcn.slices.grid import from_stored_order, native_slabs
from medfcn.slices.preprocess import grid_of, network_image
from medfcn.volumes import Volume

if TYPE_CHECKING:
    from medfcn.inference.card import Card
    from medfcn.settings import View

Floats = NDArray[np.float32]


class Member(Protocol):
    """A model, as far as its uncertainty needs it; see `Model`."""

    card: Card
    runner: Network

    def view_probabilities(self, image: Floats, view: View, *, tta: bool | None = None) -> Floats:
        """`(L, R, A, S)` probabilities of one view."""


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

    Args:
        model: The network.
        volumes: A case's channels.
        tta: Average over mirror images; None does as the model's settings say.
    """
    image = network_image(volumes, model.card.plan)
    members = 0
    mean: Floats | None = None
    doubt = np.zeros((), dtype=np.float32)
    for view, share in view_shares(model.card).items():
        mirrors = _mirrors(model, view, tta=tta)
        total, entropy = np.zeros((), dtype=np.float32), np.zeros((), dtype=np.float32)
        for number, axes in enumerate(mirrors):
            twin = copy.copy(model)
            twin.runner = MirroredNetwork(model.runner, axes)
            seen = twin.view_probabilities(image, view, tta=False)
            total = total + seen if number else seen
            entropy = entropy + entropy_bits(seen)
        count = np.float32(len(mirrors))
        scaled = total / count * share
        mean = scaled if mean is None else mean + scaled
        doubt = doubt + entropy / count * share
        members += len(mirrors)
    likely = cast(Floats, mean)
    if members < 2:
        return NetworkMaps(likely, None)
    return NetworkMaps(likely, np.maximum(entropy_bits(likely) - doubt, 0))


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
    shape = (len(maps[0].likely), *volume.shape)
    entropy, disagreement = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    grids = [grid_of(volume, model.card.plan) for model in models]
    stored = [from_stored_order(array, grids[0]) for array in (entropy, disagreement)]
    # One array for a network, so that probabilities and doubt come in the same slabs.
    both = [
        one.likely if one.disagreement is None else np.concatenate([one.likely, one.disagreement]) for one in maps
    ]
    labels = shape[0]
    within = any(one.disagreement is not None for one in maps)
    if within:
        both = [array if len(array) > labels else np.concatenate([array, np.zeros_like(array)]) for array in both]
    slabs = [native_slabs(array, grid) for array, grid in zip(both, grids, strict=True)]
    count = np.float32(len(models))
    for each in zip(*slabs, strict=True):
        rows, parts = each[0][0], [values for _, values in each]
        likely = [part[:labels] for part in parts]
        mean = sum(likely[1:], start=likely[0]) / count
        whole = entropy_bits(mean)
        apart = np.zeros_like(whole)
        if len(models) > 1:
            apart += np.maximum(whole - sum(entropy_bits(one) for one in likely) / count, 0)
        if within:
            apart += sum(part[labels:] for part in parts) / count
        stored[0][:, rows] = whole
        stored[1][:, rows] = np.minimum(apart, whole)
    return UncertaintyMaps(entropy, disagreement)
