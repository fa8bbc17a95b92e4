"""Skip fusion: score maps of several strides → one, at the finest."""

import torch
from torch import nn

from medfcn.networks.encoders import ConvBlock
from medfcn.networks.upsampling import Upsample, Upsampling


class SkipFusion(nn.Module):
    """Adds a finer score map to an upsampled coarser one, and refines the sum by one 3×3 convolution block.

    The target size is that of the finer map, whatever the rounding on the way down, so no crop is ever guessed.
    """

    def __init__(self, channels: int, *, upsampling: Upsampling) -> None:
        super().__init__()
        self.upsample = Upsample(channels, method=upsampling)
        self.refine = ConvBlock(channels, channels)

    def forward(self, coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        """`(N, C, h, w)` and `(N, C, H, W)` to `(N, C, H, W)`."""
        size = (fine.shape[-2], fine.shape[-1])
        fused: torch.Tensor = self.refine(self.upsample(coarse, size) + fine)
        return fused
