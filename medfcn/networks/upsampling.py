"""Upsampling: a coarse map → a finer grid."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from medfcn.networks.phases import raised_in_training
from medfcn.settings import Upsampling


def bilinear_kernel(stride: int) -> torch.Tensor:
    """The kernel with which a transposed convolution of a stride interpolates linearly.

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


def _outer(*taps: float) -> torch.Tensor:
    row = torch.tensor(taps)
    return row[:, None] * row[None, :]


def linear_kernel(method: Upsampling, factor: int) -> torch.Tensor:
    """The kernel that a learned method starts from, for each channel by itself."""
    if method == "nearest_conv":
        return _outer(0.25, 0.5, 0.25)
    return _outer(0.5, 1.0, 0.5) if method == "transposed_3x3" else bilinear_kernel(factor)


class Upsample(nn.Module):
    """Raises a map's resolution by a factor and cuts it to a given size.

    - `transposed`: a transposed convolution; its edge is twice the factor.
    - `transposed_3x3`: one of 3×3 pixels; it is centred on the coarse pixels' corners, half a fine pixel off.
    - `dilated`: one of 4×4 taps that are 3 pixels apart. 3 and the stride 2 have no common factor, so the same number
      of taps reaches every pixel; with a dilation of 2, three quarters of the pixels would get none.
    - `nearest_conv`: each pixel repeated, then a 3×3 convolution (with its kernel reversed, a transposed convolution
      of stride 1).
    - `bilinear`: fixed linear interpolation, and a 1×1 convolution if the channels change.

    The learned methods start as linear interpolation of each channel, if the channels stay the same. `dilated` then
    interpolates between coarse pixels three apart, the nearest that its taps reach, so it blurs more. One kernel for
    each pair of channels costs less than one for each channel: grouped transposed convolutions have no fast path on
    CPUs (a training step took 1.6 times as long, torch 2.13). By more than 2, all but `transposed` interpolate
    linearly.

    Args:
        channels_in: Channels of the coarse map.
        channels_out: Channels of the fine map.
        method: See above.
        factor: A power of two.
        bias: Add a number to each channel of the fine map; for `transposed`.
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, method: Upsampling, factor: int = 2, bias: bool = False
    ) -> None:
        super().__init__()
        self.factor = factor
        self.method: Upsampling = method if factor == 2 or method == "transposed" else "bilinear"
        self.learned: nn.Module | None = None
        if self.method == "bilinear":
            if channels_in != channels_out:
                mixing = nn.Conv2d(channels_in, channels_out, 1)
                nn.init.kaiming_normal_(mixing.weight, nonlinearity="relu")
                nn.init.zeros_(mixing.bias)  # type: ignore[arg-type]  # it has one
                self.learned = mixing
            return
        kind = nn.Conv2d if self.method == "nearest_conv" else nn.ConvTranspose2d
        # Edge, stride and padding; then the number of taps that reach a fine pixel.
        layers: dict[str, tuple[tuple[int, int, int], dict[str, Any], float]] = {
            "nearest_conv": ((3, 1, 1), {}, 9.0),
            "transposed_3x3": ((3, 2, 1), {"output_padding": 1}, 9 / 4),
            "dilated": ((4, 2, 4), {"dilation": 3}, 4.0),
            "transposed": ((2 * factor, factor, factor // 2), {}, 4.0),
        }
        shape, more, taps_a_pixel = layers[self.method]
        layer = kind(channels_in, channels_out, *shape, bias=bias, **more)
        self.learned = layer
        if layer.weight.is_meta:  # no values, only shapes: trained weights will follow
            return
        with torch.no_grad():
            if channels_in == channels_out:
                kernel = linear_kernel(self.method, factor)
                layer.weight.copy_(torch.eye(channels_in)[:, :, None, None] * kernel)
            else:  # He et al., ICCV 2015, with the number of taps that a fine pixel really gets
                nn.init.normal_(layer.weight, std=(2 / (channels_in * taps_a_pixel)) ** 0.5)

    def forward(self, coarse: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """`(N, channels_in, h, w)` to `(N, channels_out, *size)`, where `size` is at most `factor` times `(h, w)`."""
        if self.method == "nearest_conv":
            coarse = functional.interpolate(coarse, scale_factor=2, mode="nearest")
        if self._is_trained_on_cpu(coarse) and isinstance(self.learned, nn.ConvTranspose2d):
            coarse = raised_in_training(self.learned, coarse, self.factor)
        elif self.learned is not None:
            coarse = self.learned(coarse)
        if self.method == "bilinear":
            coarse = functional.interpolate(coarse, scale_factor=self.factor, mode="bilinear", align_corners=False)
        return coarse[..., : size[0], : size[1]]

    def _is_trained_on_cpu(self, coarse: torch.Tensor) -> bool:
        """True in a training on a CPU: there is a faster way. A prediction keeps its last digits."""
        if not self.training or self.method != "transposed":  # before anything is asked of a map that is traced
            return False
        return coarse.device.type == "cpu" and coarse.dtype in (torch.float32, torch.bfloat16)


def first_pixels(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """`(N, K, H, W)` maps, cut to their first pixels, in float32.

    Where maps of a training in bfloat16 are cut, their gradient has the channels last, as layers on a CPU take it;
    torch's own way back (2.13) turns it round.
    """
    is_of_training = maps.dtype == torch.bfloat16 and maps.requires_grad and maps.device.type == "cpu"
    if is_of_training and tuple(maps.shape[-2:]) != size:  # nothing is asked of the shape of maps that are traced
        return _FirstPixels.apply(maps, size)  # type: ignore[no-untyped-call,no-any-return]
    return maps[..., : size[0], : size[1]].float()


class _FirstPixels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        ctx.shape, ctx.dtype, ctx.size = maps.shape, maps.dtype, size
        return maps[..., : size[0], : size[1]].float()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        height, width = ctx.size
        gradient = torch.empty(ctx.shape, dtype=ctx.dtype, memory_format=torch.channels_last)
        gradient[..., height:, :].zero_()
        gradient[..., width:].zero_()
        gradient[..., :height, :width].copy_(outer)
        return gradient, None
