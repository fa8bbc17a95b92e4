"""The residual blocks of ResNet-18, 34 and 50, named as in torchvision so that its weights fit."""

from collections.abc import Sequence

import torch
from torch import nn

from medfcn.networks.blocks import Normalisation, normalisation

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
"""Residual blocks in each of the four stages, by depth."""
_EXPANSION = 4
"""A bottleneck's result has this many times the channels of its convolutions."""
_ENOUGH_CHANNELS = 8
"""From here on, torch's own strided convolution is used."""


class Shortcut(nn.Conv2d):
    """A 1×1 convolution with a stride; of few channels, it takes its pixels first and convolves them without one.

    The result is the same. The other way torch 2.13.0 can crash on CPUs without AVX-512; with a torch that does not,
    this class is no longer needed.
    """

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """`(N, C, H, W)` to `(N, C', ⌈H/stride⌉, ⌈W/stride⌉)`."""
        rows, columns = self.stride
        if self.in_channels >= _ENOUGH_CHANNELS or rows == columns == 1:
            return super().forward(given)
        return nn.functional.conv2d(given[:, :, ::rows, ::columns], self.weight, self.bias)


class ResidualBlock(nn.Module):
    """Convolutions whose result is added to their input; a shortcut gives the input the same channels and size.

    A basic block (ResNet-18 and 34) has two 3×3 convolutions; a bottleneck (ResNet-50) has a 1×1, a 3×3 and a 1×1
    one, the last of which has four times the channels.

    Args:
        channels_in: Channels of the input.
        width: Channels of the first convolution.
        stride: Stride of the first 3×3 convolution.
        norm: The normalisation after each convolution.
        bottleneck: See above.
    """

    downsample: nn.Module | None

    def __init__(self, channels_in: int, width: int, stride: int, norm: Normalisation, *, bottleneck: bool) -> None:
        super().__init__()
        self.bottleneck = bottleneck
        edges = (1, 3, 1) if bottleneck else (3, 3)
        channels = [channels_in, *[width] * (len(edges) - 1), width * _EXPANSION if bottleneck else width]
        # Named as in torchvision: conv1, bn1, conv2 …
        self.layers = [(f"conv{number}", f"bn{number}") for number in range(1, len(edges) + 1)]
        for place, edge in enumerate(edges):
            before, after = channels[place : place + 2]
            step = stride if place == edges.index(3) else 1
            convolution = nn.Conv2d(before, after, edge, step, padding=edge // 2, bias=norm == "none")
            for name, module in zip(self.layers[place], (convolution, normalisation(norm, after)), strict=True):
                self.add_module(name, module)
        self.downsample = None
        if stride > 1 or channels_in != channels[-1]:
            shortcut = Shortcut(channels_in, channels[-1], 1, stride, bias=norm == "none")
            self.downsample = nn.Sequential(shortcut, normalisation(norm, channels[-1]))

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """`(N, C, H, W)` to `(N, width or 4·width, ⌈H/stride⌉, ⌈W/stride⌉)`."""
        changed = given
        for place, (convolution, norm) in enumerate(self.layers):
            changed = torch.relu_(changed) if place else changed
            changed = self.get_submodule(norm)(self.get_submodule(convolution)(changed))
        kept = given if self.downsample is None else self.downsample(given)
        return torch.relu_(changed + kept)


def calm_residuals(network: nn.Module) -> None:
    """Divide the last convolution of every residual block without normalisation by the root of their number.

    With He's initialisation the power of the features would double in each block: the first logits of a ResNet-34
    were around 100. Scaled like this, the power grows by a factor of at most e over all blocks.

    Source:
        The scaling of residual branches by the depth: Zhang, Dauphin, Ma, Fixup initialization, ICLR 2019.
    """
    blocks = [module for module in network.modules() if isinstance(module, ResidualBlock)]
    for block in blocks:
        last, norm = (block.get_submodule(name) for name in block.layers[-1])
        if isinstance(last, nn.Conv2d) and isinstance(norm, nn.Identity):
            with torch.no_grad():
                last.weight.mul_(len(blocks) ** -0.5)


def resnet_levels(
    channels_in: int, widths: Sequence[int], norm: Normalisation, *, depth: int
) -> tuple[list[nn.Module], list[int]]:
    """The stem and the four stages of a ResNet, and the channels of the map of each.

    Args:
        channels_in: Channels of the slices.
        widths: Channels inside the blocks of the four stages; the stem has the first.
        norm: The normalisation after each convolution.
        depth: 18, 34 or 50.
    """
    bottleneck = depth == 50
    stem = nn.Sequential(
        nn.Conv2d(channels_in, widths[0], 7, stride=2, padding=3, bias=norm == "none"),
        normalisation(norm, widths[0]),
        nn.ReLU(inplace=True),
    )
    levels: list[nn.Module] = [stem]
    channels = [widths[0]]
    for stage, (width, count) in enumerate(zip(widths, STAGES[depth], strict=True)):
        blocks: list[nn.Module] = [nn.MaxPool2d(3, stride=2, padding=1)] if stage == 0 else []
        after = width * _EXPANSION if bottleneck else width
        for index in range(count):
            before, stride = (after, 1) if index else (channels[-1], 2 if stage else 1)
            blocks.append(ResidualBlock(before, width, stride, norm, bottleneck=bottleneck))
        levels.append(nn.Sequential(*blocks))
        channels.append(after)
    return levels, channels
