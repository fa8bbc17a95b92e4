"""Encoders: a batch of slices → feature maps at falling resolution.

Every encoder is a list of levels, run one after the other; the map that each level gives can be fused by the
decoder. The functions build the levels of the designs that medfcn knows.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from medfcn.networks.blocks import ConvBlock, Normalisation
from medfcn.networks.resnet import resnet_levels

VGG16_CONVOLUTIONS = (2, 2, 3, 3, 3)
"""3×3 convolutions in each of VGG-16's blocks."""


class Encoder(nn.Module):
    """Levels that are run one after the other.

    Args:
        levels: Each takes the map that the one before gives; the first takes the slices.
        channels: Channels of each level's map, finest first.
        strides: Input pixels per pixel of each level's map, finest first.
        dropout: Share of the last map's channels dropped in training.
    """

    def __init__(
        self, levels: Sequence[nn.Module], *, channels: Sequence[int], strides: Sequence[int], dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)
        self.dropout = nn.Dropout2d(dropout)
        self.channels = tuple(channels)
        self.strides = tuple(strides)

    def forward(self, slices: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps of `(N, C, H, W)` slices, finest first: `(N, channels[l], H/strides[l], W/strides[l])`.

        H and W are multiples of the coarsest stride.
        """
        maps = []
        for level in self.levels:
            slices = level(slices)
            maps.append(slices)
        maps[-1] = self.dropout(maps[-1])
        return maps


def strided_encoder(
    channels_in: int, widths: Sequence[int], norm: Normalisation, *, stem_stride: int = 1, dropout: float = 0.0
) -> Encoder:
    """Levels of two 3×3 convolutions; each level after the first halves the resolution with its first one.

    The first level's first convolution has the stem's stride, and one pixel more on each side for every doubling.
    """
    levels = []
    for level, width in enumerate(widths):
        stem = _stem(channels_in, width, norm, stem_stride)
        first = ConvBlock(widths[level - 1], width, norm, stride=2) if level else stem
        levels.append(nn.Sequential(first, ConvBlock(width, width, norm)))
    strides = [stem_stride * 2**level for level in range(len(widths))]
    return Encoder(levels, channels=widths, strides=strides, dropout=dropout)


def _stem(channels_in: int, width: int, norm: Normalisation, stride: int) -> ConvBlock:
    """A convolution of 3×3 at stride 1, 5×5 at 2 and 7×7 at 4: it misses no pixel."""
    return ConvBlock(channels_in, width, norm, kernel={1: 3, 2: 5, 4: 7}[stride], stride=stride)


def pooled_encoder(channels_in: int, widths: Sequence[int], norm: Normalisation, *, dropout: float = 0.0) -> Encoder:
    """Levels of one 3×3 convolution, each followed by max-pooling; the last map is the last pooled one."""
    levels: list[nn.Module] = []
    for level, width in enumerate(widths):
        pool = [nn.MaxPool2d(2)] if level else []
        levels.append(nn.Sequential(*pool, ConvBlock(widths[level - 1] if level else channels_in, width, norm)))
    levels.append(nn.MaxPool2d(2))
    strides = [2**level for level in range(len(levels))]
    return Encoder(levels, channels=[*widths, widths[-1]], strides=strides, dropout=dropout)


class FlatLevel(nn.Module):
    """3×3 convolutions at full resolution, each but the first also given what a 3×3 skip makes of its input.

    A convolution and its skip start from the same map and end at the same channels, so that what is added always
    has the size and the channels of what it is added to.
    """

    def __init__(self, channels_in: int, widths: Sequence[int], norm: Normalisation) -> None:
        super().__init__()
        self.first = ConvBlock(channels_in, widths[0], norm)
        pairs = list(pairwise(widths))
        self.convolutions = nn.ModuleList(ConvBlock(before, after, norm) for before, after in pairs)
        self.skips = nn.ModuleList(nn.Conv2d(before, after, 3, padding=1) for before, after in pairs)

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        """`(N, C, H, W)` to `(N, widths[-1], H, W)`."""
        kept: torch.Tensor = self.first(slices)
        for convolution, skip in zip(self.convolutions, self.skips, strict=True):
            kept = convolution(kept) + skip(kept)
        return kept


def flat_encoder(channels_in: int, widths: Sequence[int], norm: Normalisation, *, dropout: float = 0.0) -> Encoder:
    """One level at full resolution; see `FlatLevel`."""
    return Encoder([FlatLevel(channels_in, widths, norm)], channels=[widths[-1]], strides=[1], dropout=dropout)


def _vgg16_block(channels_in: int, width: int, count: int, norm: Normalisation) -> list[nn.Module]:
    return [ConvBlock(channels_in if index == 0 else width, width, norm) for index in range(count)]


def vgg16_encoder(
    channels_in: int, widths: Sequence[int], norm: Normalisation, *, classifier: int, dropout: float
) -> Encoder:
    """VGG-16 whose fully connected layers fc6 and fc7 are convolutions of 7×7 and 1×1.

    The maps are those the paper fuses: what pooling leaves of each block, and before them the first block's at full
    resolution. fc6 is padded by 3, so that the coarsest map keeps its size.

    Args:
        channels_in: Of the slices.
        widths: Channels of the five blocks.
        norm: After each convolution of the blocks; none in the paper.
        classifier: Channels of fc6 and fc7; 0 leaves both out.
        dropout: After fc6 and fc7, or of the last map's channels where these are left out.

    Source:
        Simonyan, Zisserman, ICLR 2015; Long, Shelhamer, Darrell, CVPR 2015, section 4.
    """
    levels: list[nn.Module] = []
    before = channels_in
    for block, (width, count) in enumerate(zip(widths, VGG16_CONVOLUTIONS, strict=True)):
        convolutions = _vgg16_block(before, width, count, norm)
        if block == 0:
            levels += [nn.Sequential(*convolutions), nn.MaxPool2d(2)]
        else:
            levels.append(nn.Sequential(*convolutions, nn.MaxPool2d(2)))
        before = width
    channels = [widths[0], *widths]
    if classifier:
        levels[-1] = nn.Sequential(levels[-1], *_classifier(before, classifier, dropout))
        channels[-1] = classifier
        dropout = 0.0
    return Encoder(levels, channels=channels, strides=[2**level for level in range(6)], dropout=dropout)


def _classifier(channels_in: int, width: int, dropout: float) -> list[nn.Module]:
    return [
        ConvBlock(channels_in, width, "none", kernel=7),
        nn.Dropout(dropout),
        ConvBlock(width, width, "none", kernel=1),
        nn.Dropout(dropout),
    ]


def vgg16_blocks_encoder(
    channels_in: int, widths: Sequence[int], norm: Normalisation, *, dropout: float = 0.0
) -> Encoder:
    """VGG-16's five blocks; the maps are theirs before pooling, and the fifth block is not pooled."""
    levels: list[nn.Module] = []
    before = channels_in
    for block, (width, count) in enumerate(zip(widths, VGG16_CONVOLUTIONS, strict=True)):
        pool = [nn.MaxPool2d(2)] if block else []
        levels.append(nn.Sequential(*pool, *_vgg16_block(before, width, count, norm)))
        before = width
    return Encoder(levels, channels=widths, strides=[2**level for level in range(5)], dropout=dropout)


def resnet_encoder(
    channels_in: int, widths: Sequence[int], norm: Normalisation, *, depth: int, dropout: float = 0.0
) -> Encoder:
    """ResNet-18, 34 or 50 without its classifier: the stem at stride 2, then four stages to stride 32.

    Source:
        He, Zhang, Ren, Sun, CVPR 2016; the strided convolution of a bottleneck is its 3×3 one, as in torchvision.
    """
    levels, channels = resnet_levels(channels_in, widths, norm, depth=depth)
    return Encoder(levels, channels=channels, strides=[2, 4, 8, 16, 32], dropout=dropout)
