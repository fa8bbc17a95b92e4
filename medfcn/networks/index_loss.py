"""Cross-entropy and Dice of softmax scores against one index map, with the gradient written out.

The plain formula takes a mask of its own for each class, and remembers a dozen maps as large as the scores for the
way back. Here a voxel's target stays an index, both ways go through the scores in pieces that fit the processor's
cache, and the only map as large as the scores is the gradient.

With p the softmax of the scores z, y a voxel's class, w its share of the cross-entropy, and for each label k
(never the background) the sums I = Σ p[y = k], P = Σ p, Y = Σ [y = k] over the known voxels:

    loss = −Σ w log p_y + Σ_k W_k (1 − (2I + s) / (P + Y + s))
    dloss/dp_k = a_k [y = k] + b_k,  a_k = −2 W_k / (P + Y + s),  b_k = W_k (2I + s) / (P + Y + s)²
    dloss/dz_k = p_k (w + b_k − S) + [k = y] (a_k p_k − w),  S = Σ_j b_j p_j + a_y p_y
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_PIECE = 2**18
"""Scores in a piece: a megabyte of float32, so that a piece and its results stay in the cache."""
_ROWS_FROM = 16
"""From so many classes a piece has the classes of a voxel side by side, else the voxels of a class."""
_RARE = 1e-30
"""The logarithm of a probability below this is taken from the scores: float32 has no smaller ones to the full."""


@dataclass(frozen=True)
class IndexTargets:
    """The targets of a batch, one index for each voxel.

    Attributes:
        classes: `(N, H, W)` int64, 0 for the background and where targets are ignored.
        known: `(N, H, W)` bool, false where targets are ignored; None if none is.
        class_weights: `(K,)`, background first; None for equal weights.
    """

    classes: Tensor
    known: Tensor | None
    class_weights: Tensor | None


@dataclass(frozen=True)
class IndexTerms:
    """Which terms, and their weights.

    Attributes:
        cross_entropy: Weight of the mean cross-entropy.
        dice: Weight of 1 − the mean Dice of the labels.
        over_slices: One Dice for each slice, instead of one for the batch.
        smooth: s, in voxels.
    """

    cross_entropy: float
    dice: float
    over_slices: bool
    smooth: float


def index_loss(logits: Tensor, targets: IndexTargets, terms: IndexTerms) -> Tensor:
    """The loss of softmax scores, a scalar.

    Args:
        logits: `(N, K, H, W)` float32 or float64 on a CPU, background first; not empty.
        targets: Of the same slices.
        terms: See there.
    """
    with torch.autocast("cpu", enabled=False):  # sums stay as precise as the scores
        loss: Tensor = _IndexLoss.apply(logits, targets, terms)  # type: ignore[no-untyped-call]
    return loss


class _IndexLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: IndexTargets, terms: IndexTerms) -> Tensor:
        sums = _Sums(logits.detach(), targets, terms)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(sums.gradient())
        return sums.value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient if float(outer) == 1.0 else gradient * outer, None, None


class _Sums:
    """The sums of a batch, and what the gradient needs.

    Attributes:
        value: The loss.
    """

    def __init__(self, logits: Tensor, targets: IndexTargets, terms: IndexTerms) -> None:
        self.shape, self.terms = logits.shape, terms
        self.count = logits.shape[1]
        self.rows = logits.permute(0, 2, 3, 1).reshape(-1, self.count)  # a view of maps with channels last
        self.classes = targets.classes.reshape(-1)
        self.known = None if targets.known is None else targets.known.reshape(-1).to(logits.dtype)
        self.axis = 1 if self.count >= _ROWS_FROM else 0
        # A product with it turns a piece around exactly, in a fifth of the time of a strided copy (torch 2.13).
        self._same = torch.eye(self.count, dtype=logits.dtype)
        self.weights = self.known
        if targets.class_weights is not None:
            weights = targets.class_weights[self.classes]
            self.weights = weights if self.known is None else weights * self.known
        self.likely = torch.empty(self.rows.numel(), dtype=logits.dtype)  # the pieces' probabilities
        self.right = torch.empty(len(self.rows), dtype=logits.dtype)  # those of each voxel's own class
        groups = len(logits) if terms.over_slices else 1
        both, total = (torch.zeros((groups, self.count), dtype=torch.float64) for _ in range(2))
        entropy = 0.0
        for group, first, last in self._pieces():
            probability = self._probability(first, last)
            classes = self.classes[first:last]
            right = probability.gather(self.axis, classes.unsqueeze(self.axis)).squeeze(self.axis)
            self.right[first:last] = right
            if terms.cross_entropy:
                losses = self._entropy(right, first, last)
                entropy += float(losses.sum() if self.weights is None else losses @ self.weights[first:last])
            if terms.dice:
                ones = right.new_ones(last - first) if self.known is None else self.known[first:last]
                along = probability if self.axis == 0 else probability.t()
                both[group] += torch.bincount(classes, right.double(), self.count)
                total[group] += along @ ones
                total[group] += torch.bincount(classes, minlength=self.count)
        tiny = torch.finfo(logits.dtype).tiny
        voxels = len(self.rows) if self.weights is None else max(float(self.weights.double().sum()), tiny)
        self.each = terms.cross_entropy / voxels
        value = self.each * entropy
        self.slope, self.offset = (torch.zeros((groups, self.count), dtype=logits.dtype) for _ in range(2))
        if terms.dice:
            value += self._dice(both[:, 1:], total[:, 1:] + terms.smooth, targets)
        self.value = logits.new_tensor(value)

    def gradient(self) -> Tensor:
        """The gradient of the loss, of the scores' shape; the probabilities are used up."""
        for group, first, last in self._pieces():
            slope, offset, right = self.slope[group], self.offset[group], self.right[first:last]
            piece = self._piece(first, last)
            classes = self.classes[first:last]
            share: Tensor | float = self.each
            if self.weights is not None:
                share = self.weights[first:last] * self.each
            at_right = right * slope.take(classes)
            along = piece if self.axis == 0 else piece.t()
            factor = share - (offset @ along + at_right)
            other = 1 - self.axis
            result = piece * (factor.unsqueeze(self.axis) + offset.unsqueeze(other))
            result.scatter_add_(self.axis, classes.unsqueeze(self.axis), (at_right - share).unsqueeze(self.axis))
            if self.known is not None:
                result *= self.known[first:last].unsqueeze(self.axis)
            rows = self._block(first, last).view(-1, self.count)
            if self.axis == 1:
                rows.copy_(result)
            else:
                torch.mm(result.t(), self._same, out=rows)
        batch, count, height, width = self.shape
        return self.likely.view(batch, height, width, count).permute(0, 3, 1, 2)

    def _pieces(self) -> Iterator[tuple[int, int, int]]:
        """A group of sums, and a range of voxels; none reaches over two groups."""
        length = max(1, _PIECE // self.count)
        every = len(self.rows) // self.shape[0] if self.terms.over_slices else len(self.rows)
        for start in range(0, len(self.rows), every):
            for first in range(start, start + every, length):
                yield start // every, first, min(first + length, start + every)

    def _block(self, first: int, last: int) -> Tensor:
        return self.likely[first * self.count : last * self.count]

    def _piece(self, first: int, last: int) -> Tensor:
        """The probabilities of some voxels: `(K, voxels)`, or `(voxels, K)` for many classes."""
        shape = (self.count, last - first) if self.axis == 0 else (last - first, self.count)
        return self._block(first, last).view(shape)

    def _probability(self, first: int, last: int) -> Tensor:
        scores, into = self.rows[first:last], self._piece(first, last)
        if self.axis == 0:
            scores = torch.mm(self._same, scores.t())
        torch.softmax(scores, dim=self.axis, out=into)
        return into

    def _entropy(self, right: Tensor, first: int, last: int) -> Tensor:
        losses = -right.log()
        rare = (right < _RARE).nonzero()[:, 0]
        if len(rare):
            scores, classes = self.rows[first:last][rare], self.classes[first:last][rare]
            losses[rare] = -scores.log_softmax(dim=1).gather(1, classes[:, None])[:, 0]
        return losses

    def _dice(self, both: Tensor, total: Tensor, targets: IndexTargets) -> float:
        """The Dice term, from `(groups, labels)` sums; the factors of its gradient are kept."""
        weights = torch.ones_like(both)
        if targets.class_weights is not None:
            weights = weights * targets.class_weights[1:]
        if targets.known is not None and self.terms.over_slices:
            weights = weights * targets.known.flatten(1).any(dim=1, keepdim=True)
        weights = self.terms.dice * weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
        scores = (2 * both + self.terms.smooth) / total
        self.slope[:, 1:] = -2 * weights / total
        self.offset[:, 1:] = weights * scores / total
        return float((weights * (1 - scores)).sum())
