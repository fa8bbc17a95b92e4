"""The residual blocks of ResNet-18, 34 and 50, named as in torchvision so that its weights fit."""

from collections.abc import Sequence

import torch
from torch import nn

from medfcn.networks.blocks import Normalisation, normalisation

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
"""Residual blocks in each of the four stages, by depth."""


class _Residual(nn.Module):
    """Convolutions whose result is added to their input; a shortcut gives the input the same channels and size."""

    downsample: nn.Module | None

    def _shortcut(self, channels_in: int, channels_out: int, stride: int, norm: Normalisation) -> nn.Module | None:
        if stride == 1 and channels_in == channels_out:
            return None
        convolution = nn.Conv2d(channels_in, channels_out, 1, stride, bias=norm == "none")
        return nn.Sequential(convolution, normalisation(norm, channels_out))

    def _joined(self, changed: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        kept = given if self.downsample is None else self.downsample(given)
        return torch.relu_(changed + kept)


class BasicBlock(_Residual):
    """Two 3×3 convolutions, as in ResNet-18 and 34."""

    EXPANSION = 1

    def __init__(self, channels_in: int, width: int, stride: int, norm: Normalisation) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 3, stride, padding=1, bias=norm == "none")
        self.bn1 = normalisation(norm, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=norm == "none")
        self.bn2 = normalisation(norm, width)
        self.downsample = self._shortcut(channels_in, width, stride, norm)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """`(N, C, H, W)` to `(N, width, ⌈H/stride⌉, ⌈W/stride⌉)`."""
        changed = torch.relu_(self.bn1(self.conv1(given)))
        return self._joined(self.bn2(self.conv2(changed)), given)


class Bottleneck(_Residual):
    """A 1×1, a 3×3 and a 1×1 convolution, as in ResNet-50."""

    EXPANSION = 4

    def __init__(self, channels_in: int, width: int, stride: int, norm: Normalisation) -> None:
        super().__init__()
        channels_out = width * self.EXPANSION
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=norm == "none")
        self.bn1 = normalisation(norm, width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=norm == "none")
        self.bn2 = normalisation(norm, width)
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=norm == "none")
        self.bn3 = normalisation(norm, channels_out)
        self.downsample = self._shortcut(channels_in, channels_out, stride, norm)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """`(N, C, H, W)` to `(N, 4·width, ⌈H/stride⌉, ⌈W/stride⌉)`."""
        changed = torch.relu_(self.bn1(self.conv1(given)))
        changed = torch.relu_(self.bn2(self.conv2(changed)))
        return self._joined(self.bn3(self.conv3(changed)), given)


def calm_residuals(network: nn.Module) -> None:
    """Divide the last convolution of every residual block without normalisation by the root of their number.

    With He's initialisation the power of the features would double in each block: the first logits of a ResNet-34
    were around 100. Scaled like this, the power grows by a factor of at most e over all blocks.

    Source:
        The scaling of residual branches by the depth: Zhang, Dauphin, Ma, Fixup initialization, ICLR 2019.
    """
    blocks = [module for module in network.modules() if isinstance(module, BasicBlock | Bottleneck)]
    for block in blocks:
        last, norm = (block.conv3, block.bn3) if isinstance(block, Bottleneck) else (block.conv2, block.bn2)
        if isinstance(norm, nn.Identity):
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
    kind = Bottleneck if depth == 50 else BasicBlock
    stem = nn.Sequential(
        nn.Conv2d(channels_in, widths[0], 7, stride=2, padding=3, bias=norm == "none"),
        normalisation(norm, widths[0]),
        nn.ReLU(inplace=True),
    )
    levels: list[nn.Module] = [stem]
    channels = [widths[0]]
    for stage, (width, count) in enumerate(zip(widths, STAGES[depth], strict=True)):
        blocks: list[nn.Module] = [nn.MaxPool2d(3, stride=2, padding=1)] if stage == 0 else []
        for index in range(count):
            before = channels[-1] if index == 0 else width * kind.EXPANSION
            blocks.append(kind(before, width, 2 if stage and index == 0 else 1, norm))
        levels.append(nn.Sequential(*blocks))
        channels.append(width * kind.EXPANSION)
    return levels, channels
