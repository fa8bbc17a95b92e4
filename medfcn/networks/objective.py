"""The number that a training makes small: the loss of every prediction, and those of the auxiliary tasks."""

import torch
from torch import nn

from medfcn.errors import SettingsError
from medfcn.networks.auxiliary import AuxiliaryLoss
from medfcn.networks.design import head_of
from medfcn.networks.losses import LossOptions, SegmentationLoss
from medfcn.networks.shared_batch import SharedBatch
from medfcn.networks.supervision import Outputs
from medfcn.settings import Settings


class Objective(nn.Module):
    """The loss of a network's outputs in training.

    Args:
        segmentation: The loss of the logits; coarser ones have half the weight of the finer.
        auxiliary: The loss of the auxiliary tasks; None without any.
    """

    def __init__(self, segmentation: SegmentationLoss, auxiliary: AuxiliaryLoss | None) -> None:
        super().__init__()
        self.segmentation = segmentation
        self.auxiliary = auxiliary

    @classmethod
    def of(
        cls,
        settings: Settings,
        label_count: int,
        *,
        members: torch.Tensor | None = None,
        shared: SharedBatch | None = None,
        unions: torch.Tensor | None = None,
    ) -> "Objective":
        """The objective of some settings.

        Args:
            settings: Those of the training.
            label_count: Foreground labels.
            members: For labels that overlap; see `targets.label_masks`.
            shared: The other processes that have the batch's other slices.
            unions: For cases of which only some labels were drawn; see `SegmentationLoss`.

        Raises:
            SettingsError: `training.class_weights` does not have one number for the background and each label.
        """
        training = settings.training
        weights = training.class_weights
        if weights is not None and len(weights) != label_count + 1:
            raise SettingsError.of(
                "training.class_weights",
                f"{weights!r} has {len(weights)} numbers, the background and "
                f"{label_count} labels take {label_count + 1}; give as many",
            )
        options = LossOptions(
            training.loss,
            dice_weight=training.dice_weight,
            dice_over=training.dice_over,
            class_weights=weights,
            label_smoothing=training.label_smoothing,
        )
        head = head_of(settings.network, label_count, overlapping=members is not None)
        segmentation = SegmentationLoss(options, head=head, members=members, shared=shared, unions=unions)
        if not training.presence_weight and not training.distance_weight:
            return cls(segmentation, None)
        auxiliary = AuxiliaryLoss(
            presence_weight=training.presence_weight,
            distance_weight=training.distance_weight,
            label_count=label_count,
            members=members,
            shared=shared,
            unions=unions,
        )
        return cls(segmentation, auxiliary)

    def forward(self, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """The loss of a batch, a scalar.

        Args:
            outputs: From `SupervisedFCN`.
            targets: `(N, H, W)` integers: 0 for background, k for the k-th label (or row of `members`), L + 1 + u for
                the u-th union, 255 for voxels to ignore.
        """
        loss = self.segmentation.deep(outputs.logits, targets)
        if self.auxiliary is not None:
            loss = loss + self.auxiliary(outputs.presence, outputs.distances, targets)
        return loss
