"""Losses on logits: the distance between scores and targets, as one number that training makes small.

Voxels whose target is `IGNORED` change neither the value of a loss nor any gradient. Arithmetic is at least float32,
whatever precision the network works in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from medfcn.errors import SettingsError
from medfcn.networks.design import Head
from medfcn.networks.index_loss import IndexTargets, IndexTerms, index_loss
from medfcn.networks.shared_batch import SharedBatch
from medfcn.networks.targets import Reference, certain_voxels, has_unions, known_voxels, refuse_unions
from medfcn.settings import LossName


def weighted_mean(values: Tensor, weights: Tensor | None, shared: SharedBatch | None = None) -> Tensor:
    """Mean of `values`, each counting as much as its weight (broadcast to them); 0 where all weights are 0.

    Args:
        values: Any shape.
        weights: None if all values count alike.
        shared: The other processes whose values belong to the same mean; None without any.
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
class LossOptions:
    """Which loss, and its numbers.

    - `ce`: cross-entropy, averaged over voxels; binary for each label with the sigmoid head.
    - `dice`: 1 − the mean over labels of (2 Σpy + s) / (Σp + Σy + s), for probabilities p, targets y and `smooth` s.
    - `ce_dice`: `ce` + `dice_weight` · `dice`.
    - `focal`: cross-entropy with each voxel's term times (1 − the probability of the right class)^γ.
    - `tversky`: as `dice`, of (TP + s) / (TP + α·FP + β·FN + s), where TP = Σpy, FP = Σp(1 − y), FN = Σ(1 − p)y. With
      α = β = ½ it is Dice with twice the `smooth`.
    - `mse`: squared error of the probabilities, averaged over voxels and channels.
    - `hinge`: the linear support vector machine on the score maps, with margin 1; weight decay is its other term. For
      the sigmoid head one label against the rest, max(0, 1 − ±z); for the softmax head max(0, 1 + the largest wrong
      score − the right one), after Crammer and Singer. Both decide at the same place as the other losses do, but the
      probabilities that follow from such scores are not calibrated.

    Dice and Tversky leave the background out. With sums over the batch, a slice without a label counts neither as a
    perfect nor as a lost score. With sums over each slice it does count: s / (Σp + s), which is 1 where the slice was
    rightly left empty; more `smooth` makes that term gentler. Slices that are ignored throughout are left out of the
    mean.

    Attributes:
        name: The loss.
        dice_weight: Weight of Dice beside the cross-entropy in `ce_dice`.
        dice_over: Take the sums of `dice` and `tversky` over the whole batch, or over each slice and average.
        smooth: Added to numerator and denominator of Dice and Tversky, in voxels, more than 0; a label that is absent
            does not divide by zero.
        class_weights: Weights of the background and of each label. A loss over voxels is their weighted mean, so only
            ratios matter; with the sigmoid head a voxel counts for each label as that label or as background. Dice
            and Tversky weigh the labels' scores. None weighs all alike.
        label_smoothing: Share of a voxel's target that is spread evenly over all classes, in `[0, 1)`; with the
            sigmoid head, over yes and no. Cross-entropy only (`ce`, and the one in `ce_dice`).
        focal_gamma: γ of `focal`; 0 makes it cross-entropy.
        tversky_alpha: α of `tversky`, the cost of a false positive.
        tversky_beta: β of `tversky`, the cost of a false negative.

    Raises:
        SettingsError: A number is out of its range, or an option does not belong to the loss.

    Source:
        Dice: Milletari, Navab, Ahmadi, V-Net, 3DV 2016, with the plain instead of the squared denominator. Over
        the batch: Kodym, Španěl, Herout, GCPR 2018. Effect of `smooth` and of the sums' extent on empty references:
        Tilborghs et al., MICCAI 2022. Focal: Lin et al., ICCV 2017. Tversky: Salehi, Erdogmus, Gholipour, MLMI 2017.
        Squared error: Brier, Monthly Weather Review 78(1), 1950. Hinge: Cortes, Vapnik, Machine Learning 20, 1995;
        Crammer, Singer, JMLR 2, 2001. Label smoothing: Szegedy et al., CVPR 2016.
    """

    name: LossName = "ce_dice"
    dice_weight: float = 1.0
    dice_over: Literal["batch", "slice"] = "batch"
    smooth: float = 1.0
    class_weights: Sequence[float] | None = None
    label_smoothing: float = 0.0
    focal_gamma: float = 2.0
    tversky_alpha: float = 0.3
    tversky_beta: float = 0.7

    def __post_init__(self) -> None:
        for name in ("dice_weight", "focal_gamma", "tversky_alpha", "tversky_beta"):
            require_setting(name, getattr(self, name), getattr(self, name) >= 0, "a number from 0")
        require_setting("smooth", self.smooth, self.smooth > 0, "a number of voxels above 0")
        smoothing, weights = self.label_smoothing, self.class_weights
        require_setting("label_smoothing", smoothing, 0 <= smoothing < 1, "a share in [0, 1)")
        fits = not smoothing or self.name in ("ce", "ce_dice")
        require_setting("label_smoothing", smoothing, fits, f"0, the only one for the loss {self.name}")
        fits = weights is None or (len(weights) > 1 and min(weights) >= 0 and max(weights[1:]) > 0)
        require_setting(
            "class_weights", weights, fits, "numbers from 0, the background's first, that of a label above 0"
        )


class SegmentationLoss(nn.Module):
    """The loss of a batch of slices.

    Args:
        options: Which loss; see there.
        head: The meaning of the logits.
        members: For labels that overlap, as in `targets.label_masks`; only for the sigmoid head.
        shared: The other processes that have the batch's other slices: the loss is then that of the whole batch, the
            same in every process. None without any.
        unions: `(U, L + 1)` bool, background first, for cases of which only some labels were drawn: target L + 1 + u
            says that a voxel is of one of the u-th union's classes, and not of which. Cross-entropy and focal loss
            take the union's probability, the sum of its classes'. For a label of the union, the voxel counts
            nowhere else: not in its Dice, nor with the sigmoid head. Only for labels that do not overlap.

    Raises:
        SettingsError: Labels overlap, and the head is softmax, or there are unions; or the loss has no form for
            unions (`mse` and `hinge`).

    Source:
        The union's probability: Shi, Zhao, Han et al., Medical Image Analysis 70, 2021 (marginal loss); Fidon,
        Aertsen, Emam et al., MICCAI 2021.

    Example:
        >>> from medfcn.labels import IGNORED
        >>> logits, targets = torch.zeros(1, 1, 2, 2), torch.tensor([[[0, 1], [1, IGNORED]]])
        >>> round(float(SegmentationLoss(LossOptions("ce"), head="sigmoid")(logits, targets)), 4)  # ln 2
        0.6931
    """

    def __init__(
        self,
        options: LossOptions,
        *,
        head: Head,
        members: Tensor | None = None,
        shared: SharedBatch | None = None,
        unions: Tensor | None = None,
    ) -> None:
        super().__init__()
        if unions is not None:
            refuse_unions(options.name, overlapping=members is not None)
        if members is not None and head == "softmax":
            raise SettingsError(
                "labels that overlap need the sigmoid head, because softmax lets one hold at a time",
                field="network.head",
            )
        self.options, self.head, self.shared = options, head, shared
        self.class_weights: Tensor | None
        self.members: Tensor | None
        weights = None if options.class_weights is None else torch.tensor(options.class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        self.register_buffer("members", members, persistent=False)
        self.unions: Tensor | None
        self.register_buffer("unions", unions, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            logits: `(N, L, H, W)` for the sigmoid head, `(N, L + 1, H, W)` for softmax, of any floating type.
            targets: `(N, H, W)` integers: 0 for background, k for the k-th label (or row of `members`), L + 1 + u for
                the u-th union, `IGNORED`.

        Returns:
            A scalar, float32 (float64 for such logits); 0, with gradient 0, where every voxel is ignored.
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

    def _reference(self, targets: Tensor, logits: Tensor) -> Reference:
        label_count = logits.shape[1] - (self.head == "softmax")
        weights = None if self.class_weights is None else self.class_weights.to(logits)
        known = known_voxels(targets)
        unions = self.unions if self.unions is not None and has_unions(targets, label_count) else None
        certain = known if unions is None else certain_voxels(targets, label_count, unions)
        return Reference(targets, label_count, self.members, known, certain, weights, self.head, logits.dtype, unions)

    def _loss(self, logits: Tensor, reference: Reference) -> Tensor:
        if self._is_by_index(logits):
            known = None if reference.known is None else reference.known[:, 0]
            targets = IndexTargets(reference.classes[:, 0], known, reference.class_weights, reference.unions)
            return index_loss(logits, targets, self._index_terms())
        losses = {
            "ce_dice": self._both,
            "ce": self._cross_entropy,
            "dice": self._overlap,
            "tversky": self._overlap,
            "focal": self._focal,
            "mse": self._squared_error,
            "hinge": self._hinge,
        }
        return losses[self.options.name](logits, reference)

    def _is_by_index(self, logits: Tensor) -> bool:
        """True if the loss is one that `index_loss` computes; it needs no other process and no GPU."""
        alone = self.shared is None and logits.device.type == "cpu"
        plain = self.options.name in ("ce_dice", "ce", "dice") and not self.options.label_smoothing
        return alone and plain and self.head == "softmax"

    def _index_terms(self) -> IndexTerms:
        options = self.options
        return IndexTerms(
            cross_entropy=float(options.name != "dice"),
            dice={"ce": 0.0, "dice": 1.0}.get(options.name, options.dice_weight),
            over_slices=options.dice_over == "slice",
            smooth=options.smooth,
        )

    def _both(self, logits: Tensor, reference: Reference) -> Tensor:
        cross_entropy = self._cross_entropy(logits, reference)
        return cross_entropy + self.options.dice_weight * self._overlap(logits, reference)

    def _cross_entropy(self, logits: Tensor, reference: Reference) -> Tensor:
        weights, smoothing = reference.weights, self.options.label_smoothing
        # All at once where nothing but the mean is needed.
        is_mean = weights is None and self.shared is None
        reduction = "mean" if is_mean else "none"
        if self.head == "softmax":
            if reference.unions is not None:
                losses = -self._log_likelihood(logits, reference)
                if smoothing:
                    even = -functional.log_softmax(logits, dim=1).mean(dim=1, keepdim=True)
                    losses = (1 - smoothing) * losses + smoothing * even
                return weighted_mean(losses, weights, self.shared)
            classes = reference.classes[:, 0]
            losses = functional.cross_entropy(logits, classes, reduction=reduction, label_smoothing=smoothing)
            return losses if is_mean else weighted_mean(losses[:, None], weights, self.shared)
        wanted = reference.wanted
        if smoothing > 0:
            wanted = wanted * (1 - smoothing) + smoothing / 2
        losses = functional.binary_cross_entropy_with_logits(logits, wanted, reduction=reduction)
        return losses if is_mean else weighted_mean(losses, weights, self.shared)

    def _log_likelihood(self, logits: Tensor, reference: Reference) -> Tensor:
        """`(N, 1, H, W)` logarithm of the probability of a voxel's class, or of the classes of its union."""
        each = functional.log_softmax(logits, dim=1)
        if reference.unions is None:
            return each.gather(1, reference.classes)
        possible = reference.possible[reference.classes[:, 0]].movedim(-1, 1) > 0
        return torch.logsumexp(each.masked_fill(~possible, -torch.inf), dim=1, keepdim=True)

    def _overlap(self, logits: Tensor, reference: Reference) -> Tensor:
        """Dice or Tversky loss: 1 − the mean score of the labels."""
        options = self.options
        probability = torch.softmax(logits, dim=1)[:, 1:] if self.head == "softmax" else torch.sigmoid(logits)
        wanted, known = reference.wanted, reference.certain
        if known is not None:
            probability = probability * known
        # Sums are (L,) over the batch, (N, L) over each slice.
        over = (0, 2, 3) if options.dice_over == "batch" else (2, 3)
        both = (probability * wanted).sum(dim=over)
        if options.name == "tversky":
            both, predicted, present = self._totals(both, probability.sum(dim=over), wanted.sum(dim=over))
            extra, missed = options.tversky_alpha * (predicted - both), options.tversky_beta * (present - both)
            scores = (both + options.smooth) / (both + extra + missed + options.smooth)
        else:
            both, total = self._totals(both, (probability + wanted).sum(dim=over))
            scores = (2 * both + options.smooth) / (total + options.smooth)
        weights = None if reference.class_weights is None else reference.class_weights[1:]
        if known is not None and options.dice_over == "slice":
            seen = known.flatten(2).any(dim=2)
            weights = seen if weights is None else seen * weights
        shared = self.shared if options.dice_over == "slice" else None
        if weights is None and shared is None:
            return 1 - scores.mean()
        return weighted_mean(1 - scores, weights, shared)

    def _totals(self, *sums: Tensor) -> tuple[Tensor, ...]:
        """Sums of a batch, with those of its other slices where these count."""
        if self.shared is None or self.options.dice_over == "slice":
            return sums
        return self.shared.total(torch.stack(sums)).unbind()

    def _focal(self, logits: Tensor, reference: Reference) -> Tensor:
        if self.head == "softmax":
            likelihood = self._log_likelihood(logits, reference)
            # Bounded from below, because a power under 1 is infinitely steep at 0.
            doubt = (1 - likelihood.exp()).clamp(min=torch.finfo(logits.dtype).eps / 2)
            return weighted_mean(-(doubt**self.options.focal_gamma) * likelihood, reference.weights, self.shared)
        right = (2 * reference.wanted - 1) * logits
        doubt = (self.options.focal_gamma * functional.logsigmoid(-right)).exp()
        return weighted_mean(-doubt * functional.logsigmoid(right), reference.weights, self.shared)

    def _squared_error(self, logits: Tensor, reference: Reference) -> Tensor:
        if self.head == "sigmoid":
            return weighted_mean((torch.sigmoid(logits) - reference.wanted) ** 2, reference.weights, self.shared)
        classes = torch.arange(logits.shape[1], device=logits.device)[:, None, None]
        wanted = (reference.classes == classes).to(logits.dtype)
        return weighted_mean((torch.softmax(logits, dim=1) - wanted) ** 2, reference.weights, self.shared)

    def _hinge(self, logits: Tensor, reference: Reference) -> Tensor:
        if self.head == "sigmoid":
            losses = functional.relu(1 - (2 * reference.wanted - 1) * logits)
            return weighted_mean(losses, reference.weights, self.shared)
        classes = reference.classes
        wrong = logits.scatter(1, classes, -torch.inf).amax(dim=1, keepdim=True)
        losses = functional.relu(1 + wrong - logits.gather(1, classes))
        return weighted_mean(losses, reference.weights, self.shared)


def require_setting(name: str, value: object, holds: bool, expected: str) -> None:
    """Raise SettingsError unless `holds`."""
    if not holds:
        raise SettingsError.of(name, f"{value!r} is not {expected}; change it")
