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

import numpy as np
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

    Only work on all scores is done piece by piece. What is one number for each voxel is done at once.

    Attributes:
        value: The loss.
    """

    def __init__(self, logits: Tensor, targets: IndexTargets, terms: IndexTerms) -> None:
        self.shape, self.terms = logits.shape, terms
        self.count = logits.shape[1]
        self.rows = logits.permute(0, 2, 3, 1).reshape(-1, self.count)  # a view of maps with channels last
        self.groups = len(logits) if terms.over_slices else 1
        self.every = len(self.rows) // self.groups
        self.axis = 1 if self.count >= _ROWS_FROM else 0
        self.classes = targets.classes.reshape(-1)
        self.known = None if targets.known is None else targets.known.reshape(-1).to(logits.dtype)
        self.unions = None if targets.unions is None else targets.unions.to(logits.dtype)
        self.is_union = None if self.unions is None else self.classes >= self.count
        self.single = self.classes if self.is_union is None else self.classes.masked_fill(self.is_union, 0)
        self.weights = self.known
        if targets.class_weights is not None:
            weights = targets.class_weights[self.single]
            self.weights = weights if self.known is None else weights * self.known
        self.likely = torch.empty(self.rows.numel(), dtype=logits.dtype)  # the pieces' probabilities
        self.right = torch.empty(len(self.rows), dtype=logits.dtype)  # those of each voxel's own class
        self._scratch = torch.empty(self._length * self.count, dtype=logits.dtype)
        predicted = self._probabilities()
        tiny = torch.finfo(logits.dtype).tiny
        voxels = len(self.rows) if self.weights is None else max(float(self.weights.double().sum()), tiny)
        self.each = terms.cross_entropy / voxels
        value = self.each * self._entropy() if terms.cross_entropy else 0.0
        self.slope, self.offset = (torch.zeros((self.groups, self.count), dtype=logits.dtype) for _ in range(2))
        if terms.dice:
            both, present = self._of_labels()
            value += self._dice(both[:, 1:], (predicted + present)[:, 1:] + terms.smooth, targets)
        self.value = logits.new_tensor(value)

    def _probabilities(self) -> Tensor:
        """Fill `likely` and `right`; `(groups, K)` sums of the known probabilities."""
        predicted = torch.zeros((self.groups, self.count), dtype=torch.float64)
        ones = torch.ones_like(self.right) if self.known is None else self.known
        for group, first, last in self._pieces():
            probability, right = self._probability(first, last), self.right[first:last]
            index = self.single[first:last].unsqueeze(self.axis)
            torch.gather(probability, self.axis, index, out=right.unsqueeze(self.axis))
            possible = self._possible(first, last)
            if possible is not None and self.is_union is not None:
                of_union = (probability * possible).sum(dim=self.axis)
                right.copy_(torch.where(self.is_union[first:last], of_union, right))
                probability = probability * (1 - possible)
            if self.terms.dice:
                predicted[group] += (probability if self.axis == 0 else probability.t()) @ ones[first:last]
        return predicted

    def _of_labels(self) -> tuple[Tensor, Tensor]:
        """`(groups, K)` sums over the voxels of each label: of their probability for it, and of their number."""
        # An ignored voxel is of the background, which has no Dice; a union's bin is beyond the labels'.
        marked = torch.from_numpy(np.flatnonzero((self.classes != 0).numpy()))  # numbers take four times as long
        bins = self.count + (0 if self.unions is None else len(self.unions))
        places = self.classes.index_select(0, marked)
        if self.groups > 1:
            places += marked.div(self.every, rounding_mode="floor") * bins
        right = self.right.index_select(0, marked).double()
        both, present = (torch.bincount(places, of, self.groups * bins) for of in (right, None))
        # Without a label, torch 2.13 counts in whole numbers whatever the weights are.
        return both.double().view(-1, bins)[:, : self.count], present.view(-1, bins)[:, : self.count]

    def gradient(self) -> Tensor:
        """The gradient of the loss, of the scores' shape; the probabilities are used up."""
        at_right = self.right * self._slopes()
        if self.is_union is not None:
            at_right.masked_fill_(self.is_union, 0)
        share = self.each if self.weights is None else self.weights * self.each
        less = at_right - share
        to_right = less if self.is_union is None else less.masked_fill(self.is_union, 0)
        other = 1 - self.axis
        for group, first, last in self._pieces():
            offset, piece = self.offset[group], self._piece(first, last)
            possible = self._possible(first, last)
            offsets = offset.unsqueeze(other)
            if possible is None:
                each = piece.t() if self.axis == 0 else piece
                factor = torch.addmv(less[first:last], each, offset, beta=-1, alpha=-1)
            else:
                offsets = offsets * (1 - possible)
                factor = -less[first:last] - (offsets * piece).sum(dim=self.axis)
            result = self._scratch[: piece.numel()].view(piece.shape)
            torch.add(factor.unsqueeze(self.axis), offsets, out=result)
            result = torch.mul(piece, result, out=result if self.axis == 0 else piece)
            if possible is not None:
                of_piece = share[first:last].unsqueeze(self.axis) if isinstance(share, Tensor) else share
                result -= self._within(first, last, possible) * of_piece
            index = self.single[first:last].unsqueeze(self.axis)
            result.scatter_add_(self.axis, index, to_right[first:last].unsqueeze(self.axis))
            if self.known is not None:
                result *= self.known[first:last].unsqueeze(self.axis)
            if self.axis == 0:
                _turn(result, self._block(first, last).view(-1, self.count).t())
        batch, count, height, width = self.shape
        return self.likely.view(batch, height, width, count).permute(0, 3, 1, 2)

    def _slopes(self) -> Tensor:
        """The slope of each voxel's class."""
        if self.groups == 1:
            return self.slope[0].index_select(0, self.single)
        return self.slope.gather(1, self.single.view(self.groups, -1)).view(-1)

    @property
    def _length(self) -> int:
        """Voxels in a piece, at most."""
        return min(max(1, _PIECE // self.count), self.every)

    def _pieces(self) -> Iterator[tuple[int, int, int]]:
        """A group of sums, and a range of voxels; none reaches over two groups."""
        for start in range(0, len(self.rows), self.every):
            for first in range(start, start + self.every, self._length):
                yield start // self.every, first, min(first + self._length, start + self.every)

    def _possible(self, first: int, last: int) -> Tensor | None:
        """1 for each class of the union that a voxel is of, as a piece has them; None if none is of one."""
        if self.unions is None or self.is_union is None or not self.is_union[first:last].any():
            return None
        beyond = self.classes[first:last] - self.count
        possible = self.unions[beyond.clamp(min=0)] * (beyond >= 0)[:, None]
        return possible if self.axis == 1 else possible.t()

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
            scores = _turn(scores.t(), self._scratch[: into.numel()].view(into.shape))
        torch.softmax(scores, dim=self.axis, out=into)
        return into

    def _entropy(self) -> float:
        """The sum of the voxels' cross-entropies, each times its weight."""
        losses = self.right.log().neg_()
        if float(self.right.min()) < _RARE:
            self._replace_rare(losses)
        if self.weights is None:
            return float(losses.sum(dtype=torch.float64))
        return float(losses.double() @ self.weights.double())

    def _replace_rare(self, losses: Tensor) -> None:
        """Take the logarithms of the least probabilities from the scores."""
        rare = (self.right < _RARE).nonzero()[:, 0]
        scores = self.rows[rare].log_softmax(dim=1)
        losses[rare] = -scores.gather(1, self.single[rare][:, None])[:, 0]
        if self.unions is not None and self.is_union is not None:
            of_union = self.is_union[rare].nonzero()[:, 0]
            possible = self.unions[self.classes[rare[of_union]] - self.count] > 0
            losses[rare[of_union]] = -scores[of_union].masked_fill(~possible, -torch.inf).logsumexp(dim=1)

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


def _turn(source: Tensor, into: Tensor) -> Tensor:
    """Copy the few rows of a piece; numpy takes them one by one in a sixth of torch's time for all (torch 2.13)."""
    for row, of in zip(into.numpy(), source.numpy(), strict=True):
        row[:] = of
    return into
