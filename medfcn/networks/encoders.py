"""Encoders: a batch of slices → feature maps at falling resolution."""

from collections.abc import Sequence

import torch
from torch import nn


class ConvBlock(nn.Sequential):
    """A 3×3 convolution, batch normalisation and ReLU; the size stays."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


class Encoder(nn.Module):
    """Levels of two convolution blocks; each level after the first starts by halving the resolution.

    Attributes:
        channels: Channels of each feature map, finest first.
        strides: Input pixels per pixel of each feature map, finest first.
    """

    def __init__(self, channels_in: int, widths: Sequence[int], *, dropout: float = 0.0) -> None:
        super().__init__()
        self.channels = tuple(widths)
        self.strides = tuple(2**level for level in range(len(widths)))
        levels = []
        for level, width in enumerate(widths):
            before = channels_in if level == 0 else widths[level - 1]
            blocks: list[nn.Module] = [
                ConvBlock(before, width, stride=1 if level == 0 else 2),
                ConvBlock(width, width),
            ]
            if dropout > 0 and level == len(widths) - 1:
                blocks.append(nn.Dropout2d(dropout))
            levels.append(nn.Sequential(*blocks))
        self.levels = nn.ModuleList(levels)

    def forward(self, slices: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps of `(N, C, H, W)` slices, finest first: `(N, channels[l], ⌈H/2ˡ⌉, ⌈W/2ˡ⌉)`."""
        features = []
        for level in self.levels:
            slices = level(slices)
            features.append(slices)
        return features
