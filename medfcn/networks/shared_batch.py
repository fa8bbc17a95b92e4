"""A batch that several processes share: each has some of its slices, and its statistics are of all of them.

`training/distributed.py` moves the values from one process to another.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional


class SharedBatch(Protocol):
    """The other processes, as a loss or a normalisation sees them; all processes make the same calls in one order."""

    def total(self, values: Tensor) -> Tensor:
        """The sum of the values of every process, of any shape; gradients flow back to each of them."""

    def gather(self, values: Tensor) -> Tensor:
        """The values of every process, `(processes, *values.shape)`, without a gradient."""


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation with the statistics of the whole batch, on any device.

    Torch's `SyncBatchNorm` is for GPUs alone; this one runs on both, and can be tested without a GPU.

    Args:
        norm: Its weights and running statistics are used, and changed.
        batch: The other processes.

    Source:
        Means and variances of parts to those of the whole: Chan, Golub, LeVeque, American Statistician 37(3), 1983.
    """

    def __init__(self, norm: nn.BatchNorm2d, batch: SharedBatch) -> None:
        super().__init__(norm.num_features, eps=norm.eps, momentum=norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.batch = batch

    def forward(self, input: Tensor) -> Tensor:
        """`(N, C, H, W)` maps, normalised."""
        if not self.training:
            return super().forward(input)
        found = _statistics(input.detach(), self.batch, self.eps)
        with torch.no_grad():
            momentum = self.momentum or 0.0
            unbiased = found.variance * found.count / (found.count - 1).clamp(min=1)
            self.running_mean.lerp_(found.mean, momentum)  # type: ignore[union-attr]
            self.running_var.lerp_(unbiased, momentum)  # type: ignore[union-attr]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        normalised: Tensor = _Normalise.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, found
        )
        return normalised


def share_statistics(module: nn.Module, batch: SharedBatch) -> None:
    """Let every batch normalisation in a module see the whole batch; parameters stay the same objects."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, SharedBatchNorm2d(child, batch))
        else:
            share_statistics(child, batch)


@dataclass(frozen=True)
class _Statistics:
    """Statistics of the whole batch.

    Attributes:
        mean: `(C,)`.
        variance: `(C,)`.
        count: Pixels that they are of, a scalar.
        eps: Added to the variance.
        batch: The other processes.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor
    eps: float
    batch: SharedBatch


def _statistics(maps: Tensor, batch: SharedBatch, eps: float) -> _Statistics:
    """The statistics of `(N, C, H, W)` maps and of those that the other processes have."""
    wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, dim=(0, 2, 3), correction=0)
    pixels = mean.new_tensor([maps.numel() / maps.shape[1]])
    each = batch.gather(torch.cat([mean, variance, pixels]))
    means, variances, counts = torch.split(each, [len(mean), len(mean), 1], dim=1)
    count = counts.sum()
    mean = (means * counts).sum(0) / count
    return _Statistics(mean, ((variances + (means - mean) ** 2) * counts).sum(0) / count, count, eps, batch)


class _Normalise(torch.autograd.Function):
    """Batch normalisation with given statistics, and the gradient as if these were computed from every share."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, found: _Statistics) -> Tensor:
        ctx.save_for_backward(maps, weight, found.mean, torch.rsqrt(found.variance + found.eps), found.count)
        ctx.batch = found.batch
        return functional.batch_norm(maps, found.mean, found.variance, weight, bias, training=False, eps=found.eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight, mean, inverse, count = ctx.saved_tensors
        as_maps = (slice(None), None, None)
        standard = (maps.to(mean.dtype) - mean[as_maps]) * inverse[as_maps]
        wide = gradient.to(mean.dtype)
        of_share = torch.stack([wide.sum((0, 2, 3)), (wide * standard).sum((0, 2, 3))])
        offset, slope = ctx.batch.total(of_share) / count
        back = (wide - offset[as_maps] - standard * slope[as_maps]) * (weight * inverse)[as_maps]
        return back.to(maps.dtype), of_share[1], of_share[0], None
