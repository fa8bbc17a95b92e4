"""A batch's targets in the forms that losses need: masks of labels, known voxels, and what is certain of a voxel.

Of a case of which only some labels were drawn, the target of a voxel can be a union of classes: it is of one of them.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from medfcn.errors import SettingsError
from medfcn.labels import IGNORED
from medfcn.networks.design import Head
from medfcn.settings import LossName


def label_masks(targets: Tensor, label_count: int, members: Tensor | None = None) -> Tensor:
    """For each label, the mask of the pixels that have it.

    Args:
        targets: `(N, H, W)` integers: 0 for background, k for the k-th label or the k-th row of `members`, `IGNORED`.
        label_count: Labels L.
        members: `(A + 1, L)` bool, for labels that overlap: the labels that a target of 0 … A stands for. The first
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


def known_voxels(targets: Tensor) -> Tensor | None:
    """`(N, 1, H, W)` bool, true where targets are not `IGNORED`; None if no target is.

    On a GPU the answer is always a mask: to ask whether any target is ignored would make the CPU wait for the GPU.
    """
    # No label's target is larger, and the maximum costs a fortieth of a comparison (torch 2.13, uint8).
    if targets.device.type == "cpu" and (targets.numel() == 0 or int(targets.max()) < IGNORED):
        return None
    return (targets != IGNORED)[:, None]


def certain_voxels(targets: Tensor, label_count: int, unions: Tensor | None) -> Tensor | None:
    """Where it is known if a voxel has a label: nowhere in an ignored one, and not for the labels of its union.

    Args:
        targets: `(N, H, W)` integers, as in `SegmentationLoss`.
        label_count: Labels L.
        unions: As in `SegmentationLoss`.

    Returns:
        `(N, 1 or L, H, W)` bool; None if everything is known.

    Example:
        >>> targets, unions = torch.tensor([[[0, 1, 3]]]), torch.tensor([[True, False, True]])
        >>> certain_voxels(targets, 2, unions).int().tolist()  # target 3 is background or label 2
        [[[[1, 1, 1]], [[1, 1, 0]]]]
    """
    known = known_voxels(targets)
    if unions is None or not has_unions(targets, label_count):
        return known
    rows = (targets.long() - label_count - 1).clamp(0, len(unions) - 1)
    inside = (targets > label_count) & (targets != IGNORED)
    certain = ~(unions.to(targets.device)[rows].movedim(-1, 1)[:, 1:] & inside[:, None])
    return certain if known is None else certain & known


def has_unions(targets: Tensor, label_count: int) -> bool:
    """True if a target is a union of classes; on a GPU always, as the CPU would wait for the answer."""
    if targets.device.type != "cpu":
        return True
    return bool(((targets > label_count) & (targets != IGNORED)).any())


def refuse_unions(loss: LossName, *, overlapping: bool) -> None:
    """Refuse what cases of which only some labels were drawn cannot be trained with.

    Raises:
        SettingsError: Labels overlap, or the loss has no form for a union of classes.
    """
    if overlapping:
        raise SettingsError("labels that overlap cannot be drawn in part; name labels that do not", field="labels")
    if loss in ("mse", "hinge"):
        raise SettingsError.of(
            "training.loss",
            f"{loss!r} has no form for cases of which only some labels were drawn; take ce_dice, ce, dice, focal or "
            "tversky",
        )


@dataclass(frozen=True)
class Reference:
    """A batch's targets in the forms that the losses need, each computed when it is first used.

    Attributes:
        targets: `(N, H, W)` integers.
        label_count: Labels L.
        members: See `label_masks`.
        known: `(N, 1, H, W)` bool, false where targets are ignored; None if none is.
        certain: `(N, 1 or L, H, W)` bool, from `certain_voxels`.
        class_weights: `(L + 1,)`, background first; None for equal weights.
        head: The meaning of the logits.
        dtype: That of the logits.
        unions: As in `SegmentationLoss`; None if no target is one.
    """

    targets: Tensor
    label_count: int
    members: Tensor | None
    known: Tensor | None
    certain: Tensor | None
    class_weights: Tensor | None
    head: Head
    dtype: torch.dtype
    unions: Tensor | None

    @cached_property
    def possible(self) -> Tensor:
        """`(L + 1 + U, L + 1)`: 1 where a target may be a class, else 0; ordinary targets are one class each."""
        single = torch.eye(self.label_count + 1, dtype=self.dtype, device=self.targets.device)
        return single if self.unions is None else torch.cat([single, self.unions.to(single)])

    @cached_property
    def classes(self) -> Tensor:
        """`(N, 1, H, W)` int64 targets, 0 where ignored; above L for a union."""
        classes = self.targets.long()[:, None]
        return classes if self.known is None else classes.masked_fill(~self.known, 0)

    @cached_property
    def wanted(self) -> Tensor:
        """`(N, L, H, W)`: 1 where a pixel has the label, else 0."""
        if self.label_count == 1 and self.members is None and self.known is None:
            return self.targets[:, None].to(self.dtype)  # already 0 and 1; a comparison would cost ten times as much
        return label_masks(self.targets, self.label_count, self.members).to(self.dtype)

    @cached_property
    def weights(self) -> Tensor | None:
        """The weight of each voxel, `(N, L or 1, H, W)`; None for equal weights. A union weighs as background."""
        counts, known = self.class_weights, self.known if self.head == "softmax" else self.certain
        if counts is None:
            return known
        if self.head == "softmax":
            weights = counts[self.classes.masked_fill(self.classes > self.label_count, 0)]
        else:
            weights = counts[0] + self.wanted * (counts[1:] - counts[0])[:, None, None]
        return weights if known is None else weights * known
