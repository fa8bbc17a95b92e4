"""Everything a training makes small, as one number: the loss of every prediction, and those of the other tasks."""

import torch
from torch import nn

from medfcn.errors import SettingsError
from medfcn.networks.auxiliary import AuxiliaryLoss
from medfcn.networks.fcn import head_of
from medfcn.networks.losses import SegmentationLoss
from medfcn.networks.shared_batch import SharedBatch
from medfcn.networks.supervision import Outputs
from medfcn.settings import Settings


class Objective(nn.Module):
    """The loss of a network's outputs in training.

    Args:
        segmentation: Of the logits, coarser ones with half the weight of the finer.
        auxiliary: Of the other tasks; None without any.
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
    ) -> "Objective":
        """The objective that settings ask for.

        Args:
            settings: Of the training.
            label_count: Foreground labels.
            members: For labels that overlap, which hold for each target; see `losses.label_masks`.
            shared: Other processes that have the batch's other slices.

        Raises:
            SettingsError: `training.class_weights` has another number than background and labels together.
        """
        training = settings.training
        weights = training.class_weights
        if weights is not None and len(weights) != label_count + 1:
            raise SettingsError(
                f"setting training.class_weights: {weights!r} has {len(weights)} numbers, the background and "
                f"{label_count} labels take {label_count + 1}; give as many"
            )
        segmentation = SegmentationLoss(
            training.loss,
            head=head_of(settings.network, label_count, overlapping=members is not None),
            dice_weight=training.dice_weight,
            dice_over=training.dice_over,
            class_weights=weights,
            label_smoothing=training.label_smoothing,
            members=members,
            shared=shared,
        )
        if not training.presence_weight and not training.distance_weight:
            return cls(segmentation, None)
        auxiliary = AuxiliaryLoss(
            presence_weight=training.presence_weight,
            distance_weight=training.distance_weight,
            label_count=label_count,
            members=members,
            shared=shared,
        )
        return cls(segmentation, auxiliary)

    def forward(self, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """The loss of a batch, a scalar.

        Args:
            outputs: Of `SupervisedFCN`.
            targets: `(N, H, W)` integers: 0 for background, k for the k-th label (or row of `members`), 255 for
                voxels to ignore.
        """
        loss = self.segmentation.deep(outputs.logits, targets)
        if self.auxiliary is not None:
            loss = loss + self.auxiliary(outputs.presence, outputs.distances, targets)
        return loss
