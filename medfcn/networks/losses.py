"""Losses on logits: how far scores are from targets, as one number to be made small.

Every loss leaves out voxels whose target is `IGNORED`: they change neither its value nor any gradient. Arithmetic is
float32 at least, whatever precision the network works in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional

from medfcn.errors import SettingsError
from medfcn.labels import IGNORED
from medfcn.networks.shared_batch import SharedBatch

Head = Literal["sigmoid", "softmax"]
"""What the logits are. `sigmoid`: `(N, L, H, W)`, one for each label, and labels may overlap; `softmax`:
`(N, L + 1, H, W)`, background first, of which one holds."""

LossName = Literal["ce_dice", "ce", "dice", "focal", "tversky", "mse", "hinge"]


def label_masks(targets: Tensor, label_count: int, members: Tensor | None = None) -> Tensor:
    """Which labels hold where.

    Args:
        targets: `(N, H, W)` integers: 0 for background, k for the k-th label or the k-th row of `members`, `IGNORED`.
        label_count: Labels L.
        members: `(A + 1, L)` bool, for labels that overlap: which labels hold where a target is 0 … A. The first
            row, the background's, is all false. Without it, target k is label k and nothing else.

    Returns:
        `(N, L, H, W)` bool; false for every label where the target is ignored.

    Example:
        >>> targets = torch.tensor([[[0, 1, 2, IGNORED]]])
        >>> label_masks(targets, 2).int().tolist()
        [[[[0, 1, 0, 0]], [[0, 0, 1, 0]]]]

        Target 2 is a tumour inside the organ; the organ is label 1, the tumour label 2:

        >>> members = torch.tensor([[False, False], [True, False], [True, True]])
        >>> label_masks(targets, 2, members).int().tolist()
        [[[[0, 1, 1, 0]], [[0, 0, 1, 0]]]]
    """
    if members is None:
        labels = torch.arange(1, label_count + 1, dtype=targets.dtype, device=targets.device)
        return targets[:, None] == labels[:, None, None]
    rows = targets.masked_fill(targets == IGNORED, 0).long()
    return members.to(targets.device)[rows].movedim(-1, 1)


def known_voxels(targets: Tensor, *, may_ignore: bool = True) -> Tensor | None:
    """Where targets say something: `(N, 1, H, W)` bool, or None for everywhere.

    On a CPU, None comes back whenever no target is `IGNORED`. Asking a GPU would make the CPU wait for it, so there
    the mask comes back unasked unless the caller knows better (`may_ignore=False`).
    """
    if not may_ignore:
        return None
    # No label's target is larger, and the maximum costs a fortieth of a comparison (torch 2.13, uint8).
    if targets.device.type == "cpu" and (targets.numel() == 0 or int(targets.max()) < IGNORED):
        return None
    return (targets != IGNORED)[:, None]


def weighted_mean(values: Tensor, weights: Tensor | None, shared: SharedBatch | None = None) -> Tensor:
    """Mean of `values`, each counting as much as its weight (broadcast to them); 0 where all weights are 0.

    Args:
        values: Of any shape.
        weights: None for all alike.
        shared: Other processes whose values belong to the same mean; None without any.
    """
    if weights is None and shared is None:
        return values.mean()
    if weights is None:
        summed, total = values.sum(), values.new_tensor(values.numel())
    else:
        weight = weights.to(values.dtype)
        summed, total = (values * weight).sum(), weight.expand_as(values).sum()
    if shared is not None:
        summed, total = shared.total(torch.stack([summed, total]))
    return summed / total.clamp(min=torch.finfo(values.dtype).tiny)


@dataclass(frozen=True)
class _Reference:
    """A batch's targets as the losses want them, each form made when it is first asked for.

    Attributes:
        targets: `(N, H, W)` integers.
        label_count: Labels L.
        members: Which labels hold for each target, as in `label_masks`.
        known: `(N, 1, H, W)` bool, where targets are not ignored; None for everywhere.
        class_weights: `(L + 1,)`, background first; None for all alike.
        head: What the logits are.
        dtype: Of the logits.
    """

    targets: Tensor
    label_count: int
    members: Tensor | None
    known: Tensor | None
    class_weights: Tensor | None
    head: Head
    dtype: torch.dtype

    @cached_property
    def classes(self) -> Tensor:
        """`(N, 1, H, W)` int64 targets, 0 where ignored."""
        classes = self.targets.long()[:, None]
        return classes if self.known is None else classes.masked_fill(~self.known, 0)

    @cached_property
    def wanted(self) -> Tensor:
        """`(N, L, H, W)`: 1 where a label holds, else 0."""
        if self.label_count == 1 and self.members is None and self.known is None:
            return self.targets[:, None].to(self.dtype)  # already 0 and 1; a comparison would cost ten times as much
        return label_masks(self.targets, self.label_count, self.members).to(self.dtype)

    @cached_property
    def weights(self) -> Tensor | None:
        """What each voxel counts, `(N, L or 1, H, W)`; None for all alike."""
        counts = self.class_weights
        if counts is None:
            return self.known
        if self.head == "softmax":
            weights = counts[self.classes]
        else:
            weights = counts[0] + self.wanted * (counts[1:] - counts[0])[:, None, None]
        return weights if self.known is None else weights * self.known


class SegmentationLoss(nn.Module):
    """The loss of a batch of slices, by name.

    - `ce`: cross-entropy, averaged over voxels; binary for each label with the sigmoid head.
    - `dice`: 1 − the mean over labels of (2 Σpy + s) / (Σp + Σy + s), for probabilities p, targets y and `smooth` s.
    - `ce_dice`: `ce` + `dice_weight` · `dice`.
    - `focal`: cross-entropy with each voxel's term times (1 − the probability of what is right)^γ.
    - `tversky`: as `dice`, of (TP + s) / (TP + α·FP + β·FN + s), where TP = Σpy, FP = Σp(1 − y), FN = Σ(1 − p)y. With
      α = β = ½ it is Dice with twice the `smooth`.
    - `mse`: squared error of the probabilities, averaged over voxels and channels.
    - `hinge`: the linear support vector machine on the score maps, with margin 1; weight decay is its other term. For
      the sigmoid head one label against the rest, max(0, 1 − ±z); for the softmax head max(0, 1 + the largest wrong
      score − the right one), after Crammer and Singer. Both decide at the same place as the other losses do, but the
      probabilities that follow from such scores are not calibrated.

    Dice and Tversky leave the background out. Over the batch, slices without a label do not each count as a perfect
    or a lost score. Over each slice, such a slice does count: s / (Σp + s), which is 1 where it was rightly left
    empty; more `smooth` makes that term gentler. Slices that are ignored throughout are left out of the mean.

    Args:
        name: Which loss.
        head: What the logits are.
        dice_weight: Weight of Dice beside the cross-entropy in `ce_dice`.
        dice_over: Take the sums of `dice` and `tversky` over the whole batch, or over each slice, and average.
        smooth: Added to numerator and denominator of Dice and Tversky, in voxels, more than 0; keeps labels that are
            nowhere from dividing by zero.
        class_weights: What a voxel counts, by what it is: background first, then each label. A loss over voxels is
            their weighted mean, so that only ratios matter; with the sigmoid head a voxel counts for each label as
            that label or as background. Dice and Tversky weigh the labels' scores. None weighs all alike.
        label_smoothing: Share of a voxel's target that is spread evenly over all classes, in `[0, 1)`; with the
            sigmoid head, over yes and no. Cross-entropy only (`ce`, and the one in `ce_dice`).
        focal_gamma: γ of `focal`; 0 makes it cross-entropy.
        tversky_alpha: What a false positive costs in `tversky`.
        tversky_beta: What a false negative costs in `tversky`.
        members: Which labels hold for each target, as in `label_masks`; only for the sigmoid head.
        may_ignore: False promises that no target is ever `IGNORED`, which spares a GPU the masks.
        shared: Other processes that have the batch's other slices: the loss is then that of the whole batch, the same
            in every process. None without any.

    Raises:
        SettingsError: A number is out of its range, or an option does not belong to the head or the loss.

    Source:
        Dice: Milletari, Navab, Ahmadi, V-Net, 3DV 2016, with the plain instead of the squared denominator. Over
        the batch: Kodym, Španěl, Herout, GCPR 2018. What `smooth` and the sums' extent do to empty references:
        Tilborghs et al., MICCAI 2022. Focal: Lin et al., ICCV 2017. Tversky: Salehi, Erdogmus, Gholipour, MLMI 2017.
        Squared error: Brier, Monthly Weather Review 78(1), 1950. Hinge: Cortes, Vapnik, Machine Learning 20, 1995;
        Crammer, Singer, JMLR 2, 2001. Label smoothing: Szegedy et al., CVPR 2016.

    Example:
        >>> logits, targets = torch.zeros(1, 1, 2, 2), torch.tensor([[[0, 1], [1, IGNORED]]])
        >>> round(float(SegmentationLoss("ce", head="sigmoid")(logits, targets)), 4)  # ln 2
        0.6931
    """

    def __init__(
        self,
        name: LossName = "ce_dice",
        *,
        head: Head,
        dice_weight: float = 1.0,
        dice_over: Literal["batch", "slice"] = "batch",
        smooth: float = 1.0,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        focal_gamma: float = 2.0,
        tversky_alpha: float = 0.3,
        tversky_beta: float = 0.7,
        members: Tensor | None = None,
        may_ignore: bool = True,
        shared: SharedBatch | None = None,
    ) -> None:
        super().__init__()
        _require("dice_weight", dice_weight, dice_weight >= 0, "a number from 0")
        _require("smooth", smooth, smooth > 0, "a number of voxels above 0")
        _require("label_smoothing", label_smoothing, 0 <= label_smoothing < 1, "a share in [0, 1)")
        unsmoothed = label_smoothing > 0 and name not in ("ce", "ce_dice")
        _require("label_smoothing", label_smoothing, not unsmoothed, f"0, the only one for the loss {name}")
        _require("focal_gamma", focal_gamma, focal_gamma >= 0, "a number from 0")
        _require("tversky_alpha", tversky_alpha, tversky_alpha >= 0, "a number from 0")
        _require("tversky_beta", tversky_beta, tversky_beta >= 0, "a number from 0")
        if class_weights is not None:
            fits = len(class_weights) > 1 and min(class_weights) >= 0 and max(class_weights[1:]) > 0
            _require(
                "class_weights", class_weights, fits, "numbers from 0, the background's first, a label's above 0"
            )
        if members is not None and head == "softmax":
            raise SettingsError("labels that overlap need the sigmoid head, because softmax lets one hold at a time")
        self.name = name
        self.head = head
        self.dice_weight = dice_weight
        self.dice_over = dice_over
        self.smooth = smooth
        self.label_smoothing = label_smoothing
        self.focal_gamma = focal_gamma
        self.tversky_alpha = tversky_alpha
        self.tversky_beta = tversky_beta
        self.may_ignore = may_ignore
        self.shared = shared
        self.class_weights: Tensor | None
        self.members: Tensor | None
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        self.register_buffer("members", members, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            logits: `(N, L, H, W)` for the sigmoid head, `(N, L + 1, H, W)` for softmax, of any floating type.
            targets: `(N, H, W)` integers: 0 for background, k for the k-th label (or row of `members`), `IGNORED`.

        Returns:
            A scalar, float32 (float64 for such logits); 0, with gradient 0, where every voxel is ignored.

        Raises:
            SettingsError: There are not as many class weights as labels and the background.
        """
        return self.deep([logits], targets)

    def deep(self, logits: Sequence[Tensor], targets: Tensor) -> Tensor:
        """The loss of logits at several depths of a network (deep supervision).

        Args:
            logits: At least one, finest first, each as `forward` takes it and of the targets' height and width.
            targets: `(N, H, W)`, as `forward` takes them.

        Returns:
            The weighted mean of the losses, a scalar: each depth counts half as much as the next finer one.

        Source:
            Lee et al., Deeply-supervised nets, AISTATS 2015; the weights: Isensee et al., Nature Methods 18, 2021.
        """
        wide = [scores.to(torch.promote_types(scores.dtype, torch.float32)) for scores in logits]
        if wide[0].numel() == 0:
            return wide[0].sum()
        reference = self._reference(targets, wide[0])
        losses = [self._loss(scores, reference) for scores in wide]
        if len(losses) == 1:
            return losses[0]
        weights = [0.5**depth for depth in range(len(losses))]
        return torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum() / sum(weights)

    def _reference(self, targets: Tensor, logits: Tensor) -> _Reference:
        label_count = logits.shape[1] - (self.head == "softmax")
        counts = None if self.class_weights is None else self.class_weights.to(logits)
        if counts is not None and len(counts) != label_count + 1:
            raise SettingsError(
                f"setting class_weights: {len(counts)} numbers for {label_count} labels; give {label_count + 1}, the "
                "background's first"
            )
        known = known_voxels(targets, may_ignore=self.may_ignore)
        return _Reference(targets, label_count, self.members, known, counts, self.head, logits.dtype)

    def _loss(self, logits: Tensor, reference: _Reference) -> Tensor:
        match self.name:
            case "ce_dice":
                return self._cross_entropy(logits, reference) + self.dice_weight * self._overlap(logits, reference)
            case "ce":
                return self._cross_entropy(logits, reference)
            case "dice" | "tversky":
                return self._overlap(logits, reference)
            case "focal":
                return self._focal(logits, reference)
            case "mse":
                return self._squared_error(logits, reference)
            case "hinge":
                return self._hinge(logits, reference)
            case _:
                assert_never(self.name)

    def _cross_entropy(self, logits: Tensor, reference: _Reference) -> Tensor:
        weights, smoothing = reference.weights, self.label_smoothing
        # All at once where nothing but the mean is needed.
        is_mean = weights is None and self.shared is None
        reduction = "mean" if is_mean else "none"
        if self.head == "softmax":
            classes = reference.classes[:, 0]
            losses = functional.cross_entropy(logits, classes, reduction=reduction, label_smoothing=smoothing)
            return losses if is_mean else weighted_mean(losses[:, None], weights, self.shared)
        wanted = reference.wanted
        if smoothing > 0:
            wanted = wanted * (1 - smoothing) + smoothing / 2
        losses = functional.binary_cross_entropy_with_logits(logits, wanted, reduction=reduction)
        return losses if is_mean else weighted_mean(losses, weights, self.shared)

    def _overlap(self, logits: Tensor, reference: _Reference) -> Tensor:
        """Dice or Tversky loss: 1 − the mean score of the labels."""
        probability = torch.softmax(logits, dim=1)[:, 1:] if self.head == "softmax" else torch.sigmoid(logits)
        wanted, known = reference.wanted, reference.known
        if known is not None:
            probability = probability * known
        over = (0, 2, 3) if self.dice_over == "batch" else (2, 3)
        both = (probability * wanted).sum(dim=over)
        if self.name == "tversky":
            both, predicted, present = self._totals(both, probability.sum(dim=over), wanted.sum(dim=over))
            extra = predicted - both
            missed = present - both
            scores = (both + self.smooth) / (
                both + self.tversky_alpha * extra + self.tversky_beta * missed + self.smooth
            )
        else:
            both, total = self._totals(both, (probability + wanted).sum(dim=over))
            scores = (2 * both + self.smooth) / (total + self.smooth)
        weights = None if reference.class_weights is None else reference.class_weights[1:]
        if known is not None and self.dice_over == "slice":
            seen = known.flatten(1).any(dim=1, keepdim=True)
            weights = seen if weights is None else seen * weights
        if self.shared is not None and self.dice_over == "slice":
            return weighted_mean(1 - scores, weights, self.shared)
        if weights is None:
            return 1 - scores.mean()
        return weighted_mean(1 - scores, weights)

    def _totals(self, *sums: Tensor) -> tuple[Tensor, ...]:
        """Sums of a batch, with those of its other slices where these count."""
        if self.shared is None or self.dice_over == "slice":
            return sums
        return self.shared.total(torch.stack(sums)).unbind()

    def _focal(self, logits: Tensor, reference: _Reference) -> Tensor:
        if self.head == "softmax":
            likelihood = functional.log_softmax(logits, dim=1).gather(1, reference.classes)
            # Bounded from below, because a power under 1 is infinitely steep at 0.
            doubt = (1 - likelihood.exp()).clamp(min=torch.finfo(logits.dtype).eps / 2)
            return weighted_mean(-(doubt**self.focal_gamma) * likelihood, reference.weights, self.shared)
        right = (2 * reference.wanted - 1) * logits
        doubt = (self.focal_gamma * functional.logsigmoid(-right)).exp()
        return weighted_mean(-doubt * functional.logsigmoid(right), reference.weights, self.shared)

    def _squared_error(self, logits: Tensor, reference: _Reference) -> Tensor:
        if self.head == "sigmoid":
            return weighted_mean((torch.sigmoid(logits) - reference.wanted) ** 2, reference.weights, self.shared)
        classes = torch.arange(logits.shape[1], device=logits.device)[:, None, None]
        wanted = (reference.classes == classes).to(logits.dtype)
        return weighted_mean((torch.softmax(logits, dim=1) - wanted) ** 2, reference.weights, self.shared)

    def _hinge(self, logits: Tensor, reference: _Reference) -> Tensor:
        if self.head == "sigmoid":
            losses = functional.relu(1 - (2 * reference.wanted - 1) * logits)
            return weighted_mean(losses, reference.weights, self.shared)
        classes = reference.classes
        wrong = logits.scatter(1, classes, -torch.inf).amax(dim=1, keepdim=True)
        losses = functional.relu(1 + wrong - logits.gather(1, classes))
        return weighted_mean(losses, reference.weights, self.shared)


def _require(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise SettingsError(f"setting {name}: {value!r} is not {expected}; change it")
