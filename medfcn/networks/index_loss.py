"""Cross-entropy and Dice of softmax scores against one index map, with the gradient written out.

The plain formula takes a mask of its own for each class, and remembers a dozen maps as large as the scores for the
way back. Here a voxel's target stays an index, both ways go through the scores in pieces that fit the processor's
cache, and the only map as large as the scores is the gradient.

With p the softmax of the scores z, y a voxel's class, w its share of the cross-entropy, and for each label k
(never the background) the sums I = Σ p[y = k], P = Σ p, Y = Σ [y = k] over the known voxels:

    loss = −Σ w log p_y + Σ_k W_k (1 − (2I + s) / (P + Y + s))
    dloss/dp_k = a_k [y = k] + b_k,  a_k = −2 W_k / (P + Y + s),  b_k = W_k (2I + s) / (P + Y + s)²
    dloss/dz_k = p_k (w + b_k − S) + [k = y] (a_k p_k − w),  S = Σ_j b_j p_j + a_y p_y

A voxel of which only a union of classes U is known has p_U = Σ_{j ∈ U} p_j instead of p_y, and counts in no sum of a
label of U: there b_k is 0, and a_y too. The last term is then −w p_k / p_U for each k of U.
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
        classes: `(N, H, W)` int64, 0 for the background and where targets are ignored; K + u for the u-th union.
        known: `(N, H, W)` bool, false where targets are ignored; None if none is.
        class_weights: `(K,)`, background first; None for equal weights. A union weighs as the background.
        unions: `(U, K)` bool, the classes of each union, the background among them; None without any.
    """

    classes: Tensor
    known: Tensor | None
    class_weights: Tensor | None
    unions: Tensor | None = None


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
        self.unions = None if targets.unions is None else targets.unions.to(logits.dtype)
        self.weights = self.known
        if targets.class_weights is not None:
            weights = targets.class_weights[self.classes.masked_fill(self.classes >= self.count, 0)]
            self.weights = weights if self.known is None else weights * self.known
        self.likely = torch.empty(self.rows.numel(), dtype=logits.dtype)  # the pieces' probabilities
        self.right = torch.empty(len(self.rows), dtype=logits.dtype)  # those of each voxel's own class
        groups = len(logits) if terms.over_slices else 1
        both, total = (torch.zeros((groups, self.count), dtype=torch.float64) for _ in range(2))
        entropy = 0.0
        for group, first, last in self._pieces():
            probability = self._probability(first, last)
            classes = self.classes[first:last]
            single, possible = self._unions_in(classes)
            right = probability.gather(self.axis, single.unsqueeze(self.axis)).squeeze(self.axis)
            if possible is not None:
                right = torch.where(classes < self.count, right, (probability * possible).sum(dim=self.axis))
            self.right[first:last] = right
            if terms.cross_entropy:
                losses = self._entropy(right, first, last)
                entropy += float(losses.sum() if self.weights is None else losses @ self.weights[first:last])
            if terms.dice:
                ones = right.new_ones(last - first) if self.known is None else self.known[first:last]
                if possible is not None:
                    probability = probability * (1 - possible)
                along = probability if self.axis == 0 else probability.t()
                # A union's bin is beyond the labels', and an ignored voxel's is the background's, which has no Dice.
                both[group] += torch.bincount(classes, right.double(), self.count)[: self.count]
                total[group] += along @ ones
                total[group] += torch.bincount(classes, minlength=self.count)[: self.count]
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
            other = 1 - self.axis
            single, possible = self._unions_in(classes)
            at_right, offsets = right * slope.take(single), offset.unsqueeze(other)
            if possible is None:
                along = piece if self.axis == 0 else piece.t()
                factor = share - (offset @ along + at_right)
            else:
                at_right = at_right.masked_fill(classes >= self.count, 0)
                offsets = offsets * (1 - possible)
                factor = share - ((offsets * piece).sum(dim=self.axis) + at_right)
            result = piece * (factor.unsqueeze(self.axis) + offsets)
            to_right = at_right - share
            if possible is not None:
                result -= self._within(first, last, possible) * _along(share, self.axis)
                to_right = to_right.masked_fill(classes >= self.count, 0)
            result.scatter_add_(self.axis, single.unsqueeze(self.axis), to_right.unsqueeze(self.axis))
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

    def _unions_in(self, classes: Tensor) -> tuple[Tensor, Tensor | None]:
        """The classes of some voxels, 0 for a union, and 1 for each class of a union; None if none is one."""
        if self.unions is None or int(classes.max()) < self.count:
            return classes, None
        beyond = classes - self.count
        possible = self.unions[beyond.clamp(min=0)] * (beyond >= 0)[:, None]
        return classes.masked_fill(beyond >= 0, 0), possible if self.axis == 1 else possible.t()

    def _within(self, first: int, last: int, possible: Tensor) -> Tensor:
        """The probability of each class of a union within it; 0 for other classes, and for voxels of one class."""
        scores = self.rows[first:last] if self.axis == 1 else self.rows[first:last].t()
        shares = scores.masked_fill(possible == 0, -torch.inf).softmax(dim=self.axis)
        return shares.nan_to_num(0.0)

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
            scores, classes = self.rows[first:last][rare].log_softmax(dim=1), self.classes[first:last][rare]
            single = classes.masked_fill(classes >= self.count, 0)
            losses[rare] = -scores.gather(1, single[:, None])[:, 0]
            if self.unions is not None:
                union = (classes >= self.count).nonzero()[:, 0]
                possible = self.unions[classes[union] - self.count] > 0
                losses[rare[union]] = -scores[union].masked_fill(~possible, -torch.inf).logsumexp(dim=1)
        return losses

    def _dice(self, both: Tensor, total: Tensor, targets: IndexTargets) -> float:
        """The Dice term, from `(groups, labels)` sums; the factors of its gradient are kept."""
        weights = torch.ones_like(both)
        if targets.class_weights is not None:
            weights = weights * targets.class_weights[1:]
        if self.terms.over_slices and (targets.known is not None or targets.unions is not None):
            weights = weights * self._seen(targets)
        weights = self.terms.dice * weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
        scores = (2 * both + self.terms.smooth) / total
        self.slope[:, 1:] = -2 * weights / total
        self.offset[:, 1:] = weights * scores / total
        return float((weights * (1 - scores)).sum())

    def _seen(self, targets: IndexTargets) -> Tensor:
        """`(N, 1 or labels)`: 1 for the slices of which anything is known, of a label if there are unions."""
        classes = targets.classes.flatten(1)
        known = torch.ones_like(classes, dtype=torch.bool) if targets.known is None else targets.known.flatten(1)
        if targets.unions is None:
            return known.any(dim=1, keepdim=True)
        table = torch.cat([targets.unions.new_zeros(self.count, self.count), targets.unions])[:, 1:]
        return torch.stack([(~table[each[of]]).any(dim=0) for each, of in zip(classes, known, strict=True)])


def _along(share: Tensor | float, axis: int) -> Tensor | float:
    return share.unsqueeze(axis) if isinstance(share, Tensor) else share
