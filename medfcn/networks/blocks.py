"""The smallest parts that encoders and decoders share."""

import math
from typing import Literal

from torch import nn

Normalisation = Literal["batch", "instance", "group", "none"]

_GROUPS = 8
"""Groups of channels; fewer if this many do not divide the channels evenly."""


def normalisation(kind: Normalisation, channels: int) -> nn.Module:
    """A layer that normalises `channels` feature maps; for `none`, one that does nothing.

    Source:
        Batch: Ioffe, Szegedy, ICML 2015. Instance: Ulyanov, Vedaldi, Lempitsky, arXiv:1607.08022. Group: Wu, He,
        ECCV 2018.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    if kind == "group":
        return nn.GroupNorm(math.gcd(channels, _GROUPS), channels)
    return nn.Identity()


class ConvBlock(nn.Sequential):
    """A convolution, a normalisation and ReLU; with stride 1 the size stays.

    The convolution has a bias only if no normalisation follows, which would remove it again.
    """

    def __init__(
        self, channels_in: int, channels_out: int, norm: Normalisation, *, kernel: int = 3, stride: int = 1
    ) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=norm == "none"),
            normalisation(norm, channels_out),
            nn.ReLU(inplace=True),
        )
