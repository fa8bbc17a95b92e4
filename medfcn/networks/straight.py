"""A network whose layers are called one after the other, with less of Python between them: for prediction.

Of a batch of 26 slices of 40×40 pixels, Python's way from layer to layer takes 8 % of the time. Containers, layers
that do nothing and the check for hooks at each layer are left out. Each number stays the same to the bit.
"""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from medfcn.networks.fcn import FCN
from medfcn.networks.network import SliceNetwork

Step = Callable[[torch.Tensor], torch.Tensor]
M = TypeVar("M", bound=nn.Module)

_IDLE = (nn.Identity, nn.Dropout, nn.Dropout2d)
"""Layers that do nothing in evaluation mode."""


class Chain(nn.Module):
    """Steps that are taken one after the other. Hooks are not called.

    Args:
        steps: Each takes what the one before gives.
    """

    def __init__(self, steps: tuple[Step, ...]) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """The maps after the last step."""
        for step in self.steps:
            features = step(features)
        return features

    __call__ = forward


def straight(network: SliceNetwork) -> SliceNetwork:
    """A network in evaluation mode with chains of steps in the place of its plain layers.

    Args:
        network: It is not changed. The result shares its weights; another network than medfcn's own is given back.
    """
    if not isinstance(network, FCN) or network.training:
        return network
    return _with_chains(network)


def _with_chains(module: M) -> M:
    """A module that shares the weights of another, and calls its plain layers straight."""
    twin = copy.copy(module)
    twin._modules = {
        name: None if child is None else Chain(tuple(_steps(child))) if _is_plain(child) else _with_chains(child)
        for name, child in module._modules.items()
    }
    return twin


def _is_plain(layer: nn.Module) -> bool:
    """True for a container that only runs its layers, and for a layer that is one function of torch."""
    if isinstance(layer, nn.Sequential):
        return type(layer).forward is nn.Sequential.forward
    if type(layer) in (nn.Conv2d, nn.ConvTranspose2d):
        return layer.padding_mode == "zeros"
    return type(layer) in (nn.ReLU, *_IDLE)


def _steps(layer: nn.Module) -> Iterator[Step]:
    """The steps of a layer, none for one that does nothing."""
    if not _is_plain(layer):
        yield _with_chains(layer)
    elif isinstance(layer, nn.Sequential):
        for inner in layer._modules.values():  # `children()` leaves out a layer that is there twice
            yield from _steps(inner)
    elif isinstance(layer, nn.ReLU):
        yield torch.relu_ if layer.inplace else torch.relu
    elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        yield _convolution(layer)


def _convolution(layer: nn.Conv2d | nn.ConvTranspose2d) -> Step:
    names = ["weight", "bias", "stride", "padding", "dilation", "groups"]
    if isinstance(layer, nn.ConvTranspose2d):
        names.append("output_padding")
    choices: dict[str, Any] = {name: getattr(layer, name) for name in names}
    return partial(torch.conv2d if isinstance(layer, nn.Conv2d) else torch.conv_transpose2d, **choices)
