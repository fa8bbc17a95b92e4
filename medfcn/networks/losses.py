"""Losses on logits."""

import torch
from torch import nn
from torch.nn import functional


class CrossEntropyDiceLoss(nn.Module):
    """Cross-entropy plus Dice loss: binary with one logit a pixel, softmax with several.

    Cross-entropy is averaged over pixels. Dice is taken over the whole batch, per foreground label, so that slices
    without the label do not each count as a perfect or a lost score.

    Args:
        dice_weight: Weight of the Dice loss beside the cross-entropy.
        smooth: Added to numerator and denominator of Dice, in pixels; keeps an empty batch from dividing by zero.

    Source:
        Dice: Milletari, Navab, Ahmadi, V-Net, 3DV 2016, with the plain instead of the squared denominator. Over
        the batch: Kodym, Španěl, Herout, GCPR 2018.
    """

    def __init__(self, *, dice_weight: float = 1.0, smooth: float = 1.0) -> None:
        super().__init__()
        self.dice_weight = dice_weight
        self.smooth = smooth

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss of a batch, a scalar.

        Args:
            logits: `(N, 1, H, W)` for one label, `(N, L + 1, H, W)` for L labels, background first.
            targets: `(N, H, W)` integers: 0 for background, k for the k-th label.
        """
        if logits.shape[1] == 1:
            wanted = targets[:, None].to(logits.dtype)
            entropy = functional.binary_cross_entropy_with_logits(logits, wanted)
            probability = torch.sigmoid(logits)
        else:
            entropy = functional.cross_entropy(logits, targets.long())
            probability = torch.softmax(logits, dim=1)[:, 1:]
            labels = torch.arange(1, logits.shape[1], device=logits.device)
            wanted = (targets[:, None] == labels[None, :, None, None]).to(logits.dtype)
        overlap = (probability * wanted).sum(dim=(0, 2, 3))
        total = (probability + wanted).sum(dim=(0, 2, 3))
        dice = (2 * overlap + self.smooth) / (total + self.smooth)
        loss: torch.Tensor = entropy + self.dice_weight * (1 - dice.mean())
        return loss
