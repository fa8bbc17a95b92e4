"""The loss against torch's cross-entropy and MONAI's Dice, and where either has edges."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceLoss
from torch.nn import functional

from medfcn.networks.losses import CrossEntropyDiceLoss


def _batch(seed: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, channels, 6, 7, generator=random)
    return logits, torch.randint(0, max(channels, 2), (3, 6, 7), generator=random)


@given(st.integers(0, 9999), st.floats(0, 3), st.floats(0.01, 5))
@settings(max_examples=40, deadline=None)
def test_one_label_is_binary_cross_entropy_and_dice_over_the_batch(seed: int, weight: float, smooth: float) -> None:
    logits, targets = _batch(seed, 1)
    wanted = targets[:, None].float()
    dice = DiceLoss(sigmoid=True, batch=True, smooth_nr=smooth, smooth_dr=smooth)(logits, wanted)
    expected = functional.binary_cross_entropy_with_logits(logits, wanted) + weight * dice
    found = CrossEntropyDiceLoss(dice_weight=weight, smooth=smooth)(logits, targets.to(torch.uint8))
    assert float(found) == pytest.approx(float(expected), abs=1e-6, rel=1e-6)


@given(st.integers(0, 9999), st.integers(2, 5))
@settings(max_examples=40, deadline=None)
def test_several_labels_are_softmax_cross_entropy_and_dice_of_the_labels(seed: int, channels: int) -> None:
    logits, targets = _batch(seed, channels)
    options = {"softmax": True, "to_onehot_y": True, "include_background": False, "batch": True}
    dice = DiceLoss(**options, smooth_nr=1.0, smooth_dr=1.0)
    if channels == 2:  # MONAI 1.6.1 warns that it leaves the background in where one channel is left
        dice = None
        shown = torch.softmax(logits, 1)[:, 1]
        wanted = targets == 1
        value = 1 - (2 * shown[wanted].sum() + 1) / (shown.sum() + wanted.sum() + 1)
    else:
        value = dice(logits, targets[:, None])
    expected = functional.cross_entropy(logits, targets) + value
    assert float(CrossEntropyDiceLoss()(logits, targets)) == pytest.approx(float(expected), abs=1e-6, rel=1e-6)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_perfect_prediction_costs_nearly_nothing_and_its_opposite_much(channels: int) -> None:
    _, targets = _batch(0, channels)
    if channels == 1:
        logits = (40.0 * targets - 20)[:, None]
    else:
        logits = 20.0 * functional.one_hot(targets, channels).movedim(-1, 1)
    assert float(CrossEntropyDiceLoss()(logits, targets)) < 1e-4
    assert float(CrossEntropyDiceLoss()(-logits, targets)) > 10


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [1.0, 1e4, 1e30])
@pytest.mark.parametrize("empty", [True, False])
def test_the_loss_and_its_gradient_are_finite(channels: int, size: float, empty: bool) -> None:
    logits, targets = _batch(1, channels)
    logits = (size * logits.sign()).requires_grad_()
    loss = CrossEntropyDiceLoss()(logits, torch.zeros_like(targets) if empty else targets)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_a_slice_without_the_label_is_no_lost_score() -> None:
    """Dice is over the batch: an empty slice rightly left empty changes it by nothing."""
    logits, targets = _batch(2, 1)
    more_logits = torch.cat([logits, torch.full_like(logits, -60.0)])
    more_targets = torch.cat([targets, torch.zeros_like(targets)])
    with_dice, without = CrossEntropyDiceLoss(), CrossEntropyDiceLoss(dice_weight=0)
    dice = with_dice(logits, targets) - without(logits, targets)
    assert float(with_dice(more_logits, more_targets) - without(more_logits, more_targets)) == pytest.approx(
        float(dice), abs=1e-5
    )
