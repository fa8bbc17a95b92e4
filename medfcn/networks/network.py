"""The interface of all networks: slices in, logits out."""

from abc import abstractmethod

import torch
from torch import nn

from medfcn.networks.design import AnyDesign


class SliceNetwork(nn.Module):
    """A network that turns slices into logits: medfcn's FCN, or one of MONAI.

    Attributes:
        design: Its parts.
        takes_any_size: True if it takes slices of any size; False if only of the size that it is trained on.
    """

    design: AnyDesign
    takes_any_size: bool

    @abstractmethod
    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        """`(N, K, H, W)` float32 logits of `(N, C, H, W)` slices."""


def channels_last(network: SliceNetwork) -> SliceNetwork:
    """`network` with its weights in the memory layout with which convolutions are fastest, on CPUs and GPUs alike."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch 2.13 leaves it out of its types
    return network
