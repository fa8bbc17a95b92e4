"""Transposed convolutions by their phases: the fine pixels of a coarse one, each the sum of four coarse pixels.

With a stride f, a kernel of 2f pixels and a padding of f / 2, a fine pixel of phase `a` (its place in its coarse
pixel `i`) meets the taps `a + f/2 + f·(1 − t)` of two coarse pixels `i − 1 + t`. The functions give what the layer
gives, up to rounding, where oneDNN (torch 2.13) is slow in a training, with AVX2 in float32 and with AVX-512 in
bfloat16.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Any

import torch
from torch import nn
from torch.nn import functional

_REGISTER = 8
"""Numbers in a register of a processor with AVX2: maps of fewer channels do not fill one."""
_BY_BYTES = {8: torch.int64, 16: torch.complex128}
"""The types of numbers by their size."""


def raised_in_training(layer: nn.ConvTranspose2d, coarse: torch.Tensor, factor: int) -> torch.Tensor:
    """The output of a transposed convolution in a training on a CPU.

    Under autocast few channels are raised in bfloat16. Many labels stay in float32: that takes no longer, a third of
    what the layer takes in bfloat16, and its gradients are more exact.

    Args:
        layer: Its kernels have twice the edge of the factor.
        coarse: `(N, C, h, w)` float32 or bfloat16.
        factor: Its stride, even.

    Returns:
        `(N, K, h·f, w·f)`.
    """
    if layer.bias is not None:
        with torch.autocast("cpu", enabled=False):
            precise = coarse.to(layer.weight.dtype)
            return _Biased.apply(precise, layer.weight, layer.bias, factor)  # type: ignore[no-untyped-call,no-any-return]
    if max(layer.in_channels, layer.out_channels) < _REGISTER:
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else coarse.dtype
        return _Narrow.apply(coarse.to(kind), layer.weight.to(kind), factor)  # type: ignore[no-untyped-call,no-any-return]
    fine: torch.Tensor = layer(coarse)
    return fine


class _Narrow(torch.autograd.Function):
    """Few channels: one convolution of 3×3 pixels makes all phases, f² maps for each channel.

    More than half of each kernel is zero, and yet with 4 channels it takes two fifths of the time. The way back is
    that of the layer, but for the kernels in bfloat16.

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
        maps = functional.conv2d(coarse, kernels, padding=1).contiguous(memory_format=torch.channels_last)
        batch, _, height, width = maps.shape
        shape = (batch, channels, height * factor, width * factor)
        # Not a view, which layers after it could not change in place.
        fine = torch.empty(shape, dtype=maps.dtype, memory_format=torch.channels_last)
        for of_maps, of_fine in _rows_of_phases(maps, fine, factor):
            of_fine.copy_(of_maps)
        return fine

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        coarse, weight = ctx.saved_tensors
        of_coarse, of_weight, _ = ctx.needs_input_grad
        by_phases = of_weight and outer.dtype == torch.bfloat16  # float32 takes as long either way
        to_coarse, to_weight = _plain_gradients(
            outer, coarse, weight, ctx.factor, (of_coarse, of_weight and not by_phases)
        )
        if by_phases:
            to_weight = _narrow_weight_gradient(outer, coarse, weight, ctx.factor)
        return to_coarse, to_weight, None


def _narrow_weight_gradient(
    outer: torch.Tensor, coarse: torch.Tensor, weight: torch.Tensor, factor: int
) -> torch.Tensor:
    """The gradient of the kernels as that of the convolution of 3×3 pixels which makes all phases."""
    channels_in, channels = weight.shape[:2]
    batch, _, height, width = coarse.shape
    fine = outer.contiguous(memory_format=torch.channels_last)
    shape = (batch, factor * factor * channels, height, width)
    maps = torch.empty(shape, dtype=fine.dtype, memory_format=torch.channels_last)
    for of_maps, of_fine in _rows_of_phases(maps, fine, factor):
        of_maps.copy_(of_fine)
    kernels = torch.empty((shape[1], channels_in, 3, 3), dtype=weight.dtype, memory_format=torch.channels_last)
    found = torch.ops.aten.convolution_backward(
        maps, coarse, kernels, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False]
    )[1]
    flat = found.permute(0, 2, 3, 1).reshape(-1)
    chosen: torch.Tensor = flat.index_select(0, _places_in_kernels(channels_in, channels, factor))
    return chosen.view(weight.shape)


def _rows_of_phases(
    maps: torch.Tensor, fine: torch.Tensor, factor: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """For each fine row of a coarse pixel, the same numbers in the maps of all phases and in the fine map.

    A pixel's fine columns lie side by side in both, and count as one number where there is one of their size: several
    times as fast to copy (torch 2.13).

    Args:
        maps: `(N, f·f·K, h, w)` with channels last.
        fine: `(N, K, h·f, w·f)` with channels last.
        factor: f.
    """
    batch, _, height, width = maps.shape
    run = factor * fine.shape[1]
    kind = _BY_BYTES.get(run * fine.element_size(), fine.dtype)
    in_maps = maps.permute(0, 2, 3, 1).view(batch, height, width, factor, run)
    in_fine = fine.permute(0, 2, 3, 1).view(batch, height, factor, width, run)
    for row in range(factor):
        yield in_maps[:, :, :, row].view(kind), in_fine[:, :, row].view(kind)


class _Biased(torch.autograd.Function):
    """Many labels: the gradients of kernels and bias as matrix products and a sum.

    With 104 labels on 9 slices of 256×256 pixels these two took 1.2 of the 2.1 seconds of a step.
    """

    @staticmethod
    def forward(
        ctx: Any, coarse: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, factor: int
    ) -> torch.Tensor:
        ctx.save_for_backward(coarse, weight)
        ctx.factor = factor
        return functional.conv_transpose2d(coarse, weight, bias, stride=factor, padding=factor // 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        coarse, weight = ctx.saved_tensors
        of_coarse, of_weight, of_bias, _ = ctx.needs_input_grad
        to_coarse, _ = _plain_gradients(outer, coarse, weight, ctx.factor, (of_coarse, False))
        to_weight = weight_gradient(coarse, outer, ctx.factor) if of_weight else None
        to_bias = None
        if of_bias:
            slices = outer.permute(0, 2, 3, 1).reshape(len(outer), -1, outer.shape[1])
            ones = slices.new_ones(slices.shape[1])
            to_bias = torch.stack([ones @ each for each in slices]).sum(dim=0)  # in half the time of a sum
        return to_coarse, to_weight, to_bias, None


def weight_gradient(coarse: torch.Tensor, outer: torch.Tensor, factor: int) -> torch.Tensor:
    """The gradient of a transposed convolution's kernels: for each phase, the product of its pixels and neighbours.

    Args:
        coarse: `(N, C, h, w)`, the input.
        outer: `(N, K, h·f, w·f)`, the gradient of the output.
        factor: The stride f, even.

    Returns:
        `(C, K, 2f, 2f)`.
    """
    batch, channels_in, height, width = coarse.shape
    channels, half = outer.shape[1], factor // 2
    framed = functional.pad(coarse.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    pixels = outer.permute(0, 2, 3, 1).reshape(batch, height, factor, width, factor, channels)
    gradient = coarse.new_empty(channels_in, channels, 2 * factor, 2 * factor)
    for row, column in product(range(factor), repeat=2):
        nearest = [(int(phase >= half), int(phase >= half) + 1) for phase in (row, column)]
        around = list(product(*nearest))
        sums = coarse.new_zeros(len(around) * channels_in, channels)
        for framed_slice, of_slice in zip(framed, pixels, strict=True):  # one at a time stays in the cache
            parts = [framed_slice[down : down + height, right : right + width] for down, right in around]
            neighbours = torch.cat(parts, dim=-1).view(height * width, -1)
            sums.addmm_(neighbours.t(), of_slice[:, row, :, column].reshape(height * width, channels))
        for (down, right), values in zip(around, sums.view(len(around), channels_in, channels), strict=True):
            gradient[:, :, row + half + factor * (1 - down), column + half + factor * (1 - right)] = values
    return gradient


def _plain_gradients(
    outer: torch.Tensor, coarse: torch.Tensor, weight: torch.Tensor, factor: int, wanted: tuple[bool, bool]
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """The gradients of input and kernels as the layer computes them."""
    stride, padding = [factor] * 2, [factor // 2] * 2
    to_coarse, to_weight, _ = torch.ops.aten.convolution_backward(
        outer, coarse, weight, None, stride, padding, [1, 1], True, [0, 0], 1, [*wanted, False]
    )
    return to_coarse, to_weight


@lru_cache(maxsize=16)
def _places_in_kernels(channels_in: int, channels: int, factor: int) -> torch.Tensor:
    """The place of each weight, `(channels_in, channels, 2f, 2f)`, in the kernels of `_Narrow`.

    Those are `(f, f, channels, 3, 3, channels_in)`: a fine row and column in a coarse pixel, and a neighbour of it.
    """
    tap = torch.arange(2 * factor) - factor // 2
    phase, neighbour = tap % factor, 1 - torch.div(tap, factor, rounding_mode="floor")
    shape = (factor, factor, channels, 3, 3, channels_in)
    places = torch.arange(math.prod(shape)).view(shape)
    first, then = torch.arange(channels_in)[:, None, None, None], torch.arange(channels)[:, None, None]
    return places[phase[:, None], phase, then, neighbour[:, None], neighbour, first].reshape(-1)
