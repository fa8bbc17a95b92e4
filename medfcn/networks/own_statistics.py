"""A network for one volume: its batch normalisation takes part of its statistics from that volume's own slices.

Batch normalisation scales each map by the mean and the variance that it had in training. A network that learned
from few patients for long fits theirs so closely that the maps of a patient of another contrast lie beside them, and
nothing is found there. So some slices of the volume go through the network as a training batch does, and each layer
takes the statistics that it meets for a share of its own.

Source:
    Schneider, Rusak, Eck, Bringmann, Brendel, Bethge, Improving robustness against common corruptions by covariate
    shift adaptation, NeurIPS 2020.
"""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medfcn.errors import SettingsError
from medfcn.networks.design import AnyDesign, MonaiDesign
from medfcn.networks.fcn import build_network
from medfcn.networks.network import SliceNetwork
from medfcn.networks.sliding import REACH, Slices, tile_of
from medfcn.slices.slicing import margin_before, neighbours


def require_statistics(design: AnyDesign, share: float) -> None:
    """Refuse to take a volume's own statistics in a network whose layers keep none of the training.

    Args:
        design: The network.
        share: `slices.own_statistics`, for the message.

    Raises:
        SettingsError: No layer of the network is a batch normalisation.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                network = build_network(design)
        except SettingsError:  # some networks of MONAI need values
            network = build_network(design)
    if next(_batch_norms(network), None) is not None:
        return
    if isinstance(design, MonaiDesign):
        kind, remedy = f"MONAI's {design.name}", "norm = 'batch' in network.monai_arguments, where it has that"
    else:
        kind, remedy = f"network.normalisation is {design.normalisation!r}", "network.normalisation = 'batch'"
    raise SettingsError.of(
        "slices.own_statistics",
        f"{share:g}, and the network has no batch normalisation ({kind}), which alone keeps statistics; expected "
        f"'auto' or 'never'; take the setting out, or set {remedy}",
    )


def _batch_norms(network: nn.Module) -> Iterator[tuple[nn.BatchNorm2d, torch.Tensor, torch.Tensor]]:
    """The batch normalisations of a network, with the mean and the variance of the training."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
            yield layer, layer.running_mean, layer.running_var


def some_slices(
    slices: Slices, window: tuple[int, int], *, count: int, context: int, whole: float = REACH
) -> NDArray[np.float32]:
    """Slices from all over a volume, as prediction shows them: smaller ones in the middle of a window.

    Of slices that prediction cuts into tiles, the tile in the middle.

    Args:
        slices: Those of a case along a view; none is empty.
        window: `(H, W)` pixels of a tile.
        count: Slices to take, at most, in the middle of parts of equal size; a single one is taken twice.
        context: Slices that the network sees at once.
        whole: Slices up to so many times the window go through in one piece; see `Sliding`.

    Returns:
        `(n, C·context, h, w)`.
    """
    total, channels, *size = slices.shape
    height, width = map(max, size, window)
    most = tile_of((height, width), window, whole)
    taken = [min(length, edge) for length, edge in zip(size, most, strict=True)]
    cut = [slice((length - kept) // 2, (length - kept) // 2 + kept) for length, kept in zip(size, taken, strict=True)]
    inside = [
        slice(before, before + kept)
        for before, kept in zip(
            (margin_before(kept, edge) for kept, edge in zip(taken, most, strict=True)), taken, strict=True
        )
    ]
    few = max(2, min(count, total))  # of one slice, a coarsest map of one pixel would have no variance
    numbers = neighbours((np.arange(few) * 2 + 1) * total // (2 * few), total, context)
    found = np.zeros((few, context, channels, *most), dtype=np.float32)
    for place, near in enumerate(numbers):
        read = slices.part(int(near[0]), int(near[-1]) + 1)
        found[place][..., *inside] = read[near - near[0]][..., *cut]
    return found.reshape(few, context * channels, *most)


def with_own_statistics(network: SliceNetwork, seen: torch.Tensor, share: float) -> SliceNetwork:
    """A copy of a network, of which each batch normalisation has part of its statistics from some slices.

    Args:
        network: In evaluation mode; it stays as it is.
        seen: `(n, C, H, W)` slices, on its device; they are one batch, so no clock and no memory changes the result.
        share: That of their statistics, in [0, 1]; the others are those of the training.
    """
    twin = copy.deepcopy(network).eval()
    before = [(layer, mean.clone(), variance.clone()) for layer, mean, variance in _batch_norms(twin)]
    for layer, *_ in before:
        layer.momentum = 1.0  # the statistics of this batch alone
        layer.train()
    with torch.no_grad():
        twin(seen)
        for layer, *trained in before:
            layer.eval()
            for own, of_training in zip((layer.running_mean, layer.running_var), trained, strict=True):
                if own is not None:
                    own.copy_(of_training.lerp(own, share))
    return twin
