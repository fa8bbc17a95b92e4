"""Encoders: a batch of slices → feature maps at falling resolution.

Every encoder is a list of levels, run one after the other; the decoder can fuse the map of each level. The functions
build the levels of the designs that medfcn knows.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import nn

from medfcn.networks.blocks import ConvBlock, Normalisation
from medfcn.networks.design import Design
from medfcn.networks.resnet import resnet_levels
from medfcn.settings import EncoderName

VGG16_CONVOLUTIONS = (2, 2, 3, 3, 3)
"""3×3 convolutions in each of VGG-16's blocks."""


class Encoder(nn.Module):
    """Levels that are run one after the other.

    Args:
        levels: Each takes the map of the level before; the first takes the slices.
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


def build_encoder(design: Design) -> Encoder:
    """The encoder of a design."""
    return _BUILDERS[design.encoder](design)


def _strided(design: Design) -> Encoder:
    """Levels of two 3×3 convolutions; each level after the first halves the resolution with its first one.

    The first level's first convolution has the stem's stride, and one pixel more on each side for every doubling: it
    is 3×3 at stride 1, 5×5 at 2 and 7×7 at 4, so it misses no pixel.
    """
    widths, norm, stem = design.widths, design.normalisation, design.stem_stride
    levels = []
    for level, width in enumerate(widths):
        # Every level makes a stem, and all but the first throw it away: the random numbers that it draws are part of
        # what a seed has always given.
        first = ConvBlock(design.channels_in, width, norm, kernel={1: 3, 2: 5, 4: 7}[stem], stride=stem)
        if level:
            first = ConvBlock(widths[level - 1], width, norm, stride=2)
        levels.append(nn.Sequential(first, ConvBlock(width, width, norm)))
    strides = [stem * 2**level for level in range(len(widths))]
    return Encoder(levels, channels=widths, strides=strides, dropout=design.dropout)


def _pooled(design: Design) -> Encoder:
    """Levels of one 3×3 convolution, each followed by max-pooling; the last map is the last pooled one."""
    levels = _blocks(design, [1] * len(design.widths))
    levels.append(nn.MaxPool2d(2))
    strides = [2**level for level in range(len(levels))]
    return Encoder(levels, channels=[*design.widths, design.widths[-1]], strides=strides, dropout=design.dropout)


def _blocks(design: Design, counts: Sequence[int]) -> list[nn.Module]:
    """For each width a level of so many 3×3 convolutions; each level after the first begins with max-pooling."""
    levels: list[nn.Module] = []
    before = design.channels_in
    for width, count in zip(design.widths, counts, strict=True):
        pool = [nn.MaxPool2d(2)] if levels else []
        levels.append(nn.Sequential(*pool, *_convolutions(before, width, count, design.normalisation)))
        before = width
    return levels


def _convolutions(channels_in: int, width: int, count: int, norm: Normalisation) -> list[nn.Module]:
    return [ConvBlock(channels_in if index == 0 else width, width, norm) for index in range(count)]


class FlatLevel(nn.Module):
    """3×3 convolutions at full resolution; a 3×3 skip runs beside each but the first, and the two are added.

    A convolution and its skip start from the same map and end at the same channels, so the two sums always agree in
    size and channels.
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


def _flat(design: Design) -> Encoder:
    """One level at full resolution; see `FlatLevel`."""
    level = FlatLevel(design.channels_in, design.widths, design.normalisation)
    return Encoder([level], channels=[design.widths[-1]], strides=[1], dropout=design.dropout)


def _vgg16(design: Design) -> Encoder:
    """VGG-16 whose fully connected layers fc6 and fc7 are convolutions of 7×7 and 1×1.

    The maps are those that the paper fuses: each block after pooling, and before them the first block at full
    resolution. fc6 is padded by 3, so that the coarsest map keeps its size. With fc6 and fc7 the dropout follows each
    of them; without them it drops channels of the last map.

    Source:
        Simonyan, Zisserman, ICLR 2015; Long, Shelhamer, Darrell, CVPR 2015, section 4.
    """
    norm, classifier, dropout = design.normalisation, design.classifier_channels, design.dropout
    levels: list[nn.Module] = []
    before = design.channels_in
    for width, count in zip(design.widths, VGG16_CONVOLUTIONS, strict=True):
        convolutions = _convolutions(before, width, count, norm)
        if levels:
            levels.append(nn.Sequential(*convolutions, nn.MaxPool2d(2)))
        else:
            levels += [nn.Sequential(*convolutions), nn.MaxPool2d(2)]
        before = width
    channels = [design.widths[0], *design.widths]
    if classifier:
        fc6 = ConvBlock(before, classifier, "none", kernel=7)
        fc7 = ConvBlock(classifier, classifier, "none", kernel=1)
        levels[-1] = nn.Sequential(levels[-1], fc6, nn.Dropout(dropout), fc7, nn.Dropout(dropout))
        channels[-1] = classifier
        dropout = 0.0
    return Encoder(levels, channels=channels, strides=[2**level for level in range(6)], dropout=dropout)


def _vgg16_blocks(design: Design) -> Encoder:
    """VGG-16's five blocks; the maps are those before pooling, and the fifth block is not pooled."""
    levels = _blocks(design, VGG16_CONVOLUTIONS)
    strides = [2**level for level in range(5)]
    return Encoder(levels, channels=design.widths, strides=strides, dropout=design.dropout)


def _resnet(design: Design, *, depth: int) -> Encoder:
    """ResNet-18, 34 or 50 without its classifier: the stem at stride 2, then four stages to stride 32.

    Source:
        He, Zhang, Ren, Sun, CVPR 2016; the strided convolution of a bottleneck is its 3×3 one, as in torchvision.
    """
    levels, channels = resnet_levels(design.channels_in, design.widths, design.normalisation, depth=depth)
    return Encoder(levels, channels=channels, strides=[2, 4, 8, 16, 32], dropout=design.dropout)


_BUILDERS: Mapping[EncoderName, Callable[[Design], Encoder]] = {
    "strided": _strided,
    "pooled": _pooled,
    "flat": _flat,
    "vgg16": _vgg16,
    "vgg16_blocks": _vgg16_blocks,
    "resnet18": partial(_resnet, depth=18),
    "resnet34": partial(_resnet, depth=34),
    "resnet50": partial(_resnet, depth=50),
}
