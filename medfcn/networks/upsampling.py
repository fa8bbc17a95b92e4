"""Upsampling: a coarse map → a finer grid."""

import math
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from medfcn.settings import Upsampling

_REGISTER = 8
"""Numbers in a register of a processor with AVX2."""


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
        if isinstance(self.learned, nn.ConvTranspose2d) and self._is_narrow(coarse):
            coarse = _ByPhases.apply(coarse, self.learned.weight, self.factor)  # type: ignore[no-untyped-call]
        elif self.learned is not None:
            coarse = self.learned(coarse)
        if self.method == "bilinear":
            coarse = functional.interpolate(coarse, scale_factor=self.factor, mode="bilinear", align_corners=False)
        return coarse[..., : size[0], : size[1]]

    def _is_narrow(self, coarse: torch.Tensor) -> bool:
        """True in a training on a CPU in float32 with so few channels that they fill no register.

        Elsewhere the layer itself is as fast or faster, and a prediction keeps its last digits.
        """
        layer = self.learned
        return (
            isinstance(layer, nn.ConvTranspose2d)
            and self.method == "transposed"
            and layer.bias is None
            and max(layer.in_channels, layer.out_channels) < _REGISTER
            and self.training
            and (coarse.device.type, coarse.dtype, layer.weight.dtype) == ("cpu", torch.float32, torch.float32)
            and not torch.is_autocast_enabled("cpu")
        )


class _ByPhases(torch.autograd.Function):
    """A transposed convolution of stride f, computed as one of 3×3 pixels with f² maps for each channel.

    The maps are the fine pixels of a coarse one. More than half of each kernel is zero, and yet with 4 channels it
    takes two fifths of the time of oneDNN's transposed convolution (torch 2.13, AVX2). The way back is the layer's.

    Source:
        Shi, Caballero, Huszár et al., CVPR 2016.
    """

    @staticmethod
    def forward(ctx: Any, coarse: torch.Tensor, weight: torch.Tensor, factor: int) -> torch.Tensor:
        ctx.save_for_backward(coarse, weight)
        ctx.factor = factor
        channels_in, channels = weight.shape[:2]
        kernels = weight.new_zeros(factor * factor * channels * 9 * channels_in)
        kernels.index_copy_(0, _places_in_kernels(channels_in, channels, factor), weight.reshape(-1))
        kernels = kernels.view(-1, 3, 3, channels_in).permute(0, 3, 1, 2)
        maps = functional.conv2d(coarse, kernels, padding=1).permute(0, 2, 3, 1)
        batch, height, width = maps.shape[:3]
        fine = maps.reshape(batch, height, width, factor, factor, channels).transpose(2, 3)
        return fine.reshape(batch, height * factor, width * factor, channels).permute(0, 3, 1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        coarse, weight = ctx.saved_tensors
        stride, padding = [ctx.factor] * 2, [ctx.factor // 2] * 2
        wanted = [*ctx.needs_input_grad[:2], False]
        to_coarse, to_weight, _ = torch.ops.aten.convolution_backward(
            outer, coarse, weight, None, stride, padding, [1, 1], True, [0, 0], 1, wanted
        )
        return to_coarse, to_weight, None


@lru_cache(maxsize=16)
def _places_in_kernels(channels_in: int, channels: int, factor: int) -> torch.Tensor:
    """The place of each weight, `(channels_in, channels, 2f, 2f)`, in the kernels of `_ByPhases`.

    Those are `(f, f, channels, 3, 3, channels_in)`: a fine row and column in a coarse pixel, and a neighbour of it.
    """
    tap = torch.arange(2 * factor) - factor // 2
    phase, neighbour = tap % factor, 1 - torch.div(tap, factor, rounding_mode="floor")
    shape = (factor, factor, channels, 3, 3, channels_in)
    places = torch.arange(math.prod(shape)).view(shape)
    first, then = torch.arange(channels_in)[:, None, None, None], torch.arange(channels)[:, None, None]
    return places[phase[:, None], phase, then, neighbour[:, None], neighbour, first].reshape(-1)
