"""Where only some labels were drawn, a voxel outside of them is background or one of the others: no more is known."""

import math

import pytest
import torch

from medfcn.errors import SettingsError
from medfcn.labels import IGNORED
from medfcn.networks import index_loss
from medfcn.networks.auxiliary import AuxiliaryLoss
from medfcn.networks.losses import LossName, LossOptions, SegmentationLoss

NOT_FIRST = torch.tensor([[True, False, True]])
"""Of two labels the first was drawn: target 3 is background or the second."""


def _logits(*probabilities: float) -> torch.Tensor:
    """One voxel with these probabilities."""
    return torch.tensor(probabilities, dtype=torch.float64).log()[None, :, None, None]


@pytest.mark.parametrize("by_index", [True, False])
def test_cross_entropy_takes_the_sum_of_the_probabilities(by_index: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not by_index:
        monkeypatch.setattr(SegmentationLoss, "_is_by_index", lambda self, logits: False)
    logits = _logits(0.5, 0.2, 0.3).requires_grad_()
    loss = SegmentationLoss(LossOptions("ce"), head="softmax", unions=NOT_FIRST)
    value = loss(logits, torch.tensor([[[3]]]))
    assert value.item() == pytest.approx(-math.log(0.5 + 0.3))
    value.backward()
    # p − p / 0.8 within the union, p elsewhere: nothing says which of the two it is.
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == pytest.approx([0.5 - 0.5 / 0.8, 0.2, 0.3 - 0.3 / 0.8])


@pytest.mark.parametrize("by_index", [True, False])
def test_dice_counts_such_a_voxel_for_the_drawn_label_alone(by_index: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not by_index:
        monkeypatch.setattr(SegmentationLoss, "_is_by_index", lambda self, logits: False)
    logits = torch.cat([_logits(0.5, 0.2, 0.3), _logits(0.1, 0.6, 0.3)], dim=3).requires_grad_()
    loss = SegmentationLoss(LossOptions("dice", smooth=1.0), head="softmax", unions=NOT_FIRST)
    value = loss(logits, torch.tensor([[[3, 1]]]))
    first = (2 * 0.6 + 1) / (0.2 + 0.6 + 1 + 1)  # the union is surely not the first label
    second = (0 + 1) / (0.3 + 1)  # of the second only the voxel counts that is surely the first
    assert value.item() == pytest.approx(1 - (first + second) / 2)
    value.backward()
    # At the union: d/dp₁ = first / 2 / 2.8 alone, through softmax.
    slope = first / 2 / 2.8
    assert logits.grad is not None
    assert logits.grad[0, :, 0, 0].tolist() == pytest.approx(
        [-0.5 * 0.2 * slope, 0.2 * (1 - 0.2) * slope, -0.3 * 0.2 * slope]
    )


@pytest.mark.parametrize("labels", [3, 20])
@pytest.mark.parametrize("dice_over", ["batch", "slice"])
@pytest.mark.parametrize("size", [1.0, 80.0])
def test_the_written_gradient_is_torchs(
    labels: int, dice_over: str, size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_loss, "_PIECE", 100)
    random = torch.Generator().manual_seed(labels)
    unions = torch.ones(2, labels + 1, dtype=torch.bool)
    unions[0, 1] = unions[1, 2] = unions[1, 3] = False
    first = size * torch.randn(3, labels + 1, 5, 7, generator=random, dtype=torch.float64)
    targets = torch.randint(0, labels + 1, (3, 5, 7), generator=random)
    targets[0][targets[0] != 1] = labels + 1
    targets[1][targets[1] != 3] = labels + 2
    targets[:2, 0] = IGNORED
    weights = tuple(0.5 + index % 3 for index in range(labels + 1))
    for name in ("ce_dice", "ce", "dice"):
        options = LossOptions(name, dice_over=dice_over, class_weights=weights, dice_weight=0.7)  # type: ignore[arg-type]
        loss, found = SegmentationLoss(options, head="softmax", unions=unions).double(), []
        for by_index in (True, False):
            logits = first.clone().requires_grad_()
            with monkeypatch.context() as patch:
                if not by_index:
                    patch.setattr(SegmentationLoss, "_is_by_index", lambda self, logits: False)
                value = loss(logits, targets)
            value.backward()
            assert logits.grad is not None
            found.append((value.detach(), logits.grad))
        assert torch.allclose(found[0][0], found[1][0], rtol=1e-9)
        assert torch.allclose(found[0][1], found[1][1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["ce_dice", "ce", "dice", "focal", "tversky"])
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_what_an_undrawn_label_might_be_changes_nothing(name: LossName, head: str) -> None:
    """In the union, moving probability between background and the other label costs nothing, whichever the loss."""
    loss = SegmentationLoss(LossOptions(name), head=head, unions=NOT_FIRST)  # type: ignore[arg-type]
    targets = torch.tensor([[[3, 1]]])
    if head == "softmax":
        pair = [
            torch.cat([_logits(*voxel), _logits(0.2, 0.6, 0.2)], dim=3)
            for voxel in ((0.6, 0.1, 0.3), (0.3, 0.1, 0.6))
        ]
    else:
        pair = [torch.tensor([-1.0, 2.0, second, -2.0]).reshape(1, 2, 1, 2) for second in (-3.0, 3.0)]
    assert loss(pair[0], targets).item() == pytest.approx(loss(pair[1], targets).item())
    drawn = torch.tensor([[[0, 1]]])
    assert loss(pair[0], drawn).item() != pytest.approx(loss(pair[1], drawn).item())


def test_auxiliary_tasks_say_nothing_of_an_undrawn_label() -> None:
    tasks = AuxiliaryLoss(presence_weight=1.0, distance_weight=1.0, label_count=2, unions=NOT_FIRST)
    targets = torch.full((1, 4, 4), 3)
    targets[0, :2] = 1
    distances, presence = torch.zeros(1, 2, 4, 4, requires_grad=True), torch.zeros(1, 2, requires_grad=True)
    tasks(presence, distances, targets).backward()
    assert presence.grad is not None
    assert distances.grad is not None
    assert presence.grad[0].tolist() == [pytest.approx(-0.5), 0.0]
    assert distances.grad[0, 0].any()
    assert not distances.grad[0, 1].any()


@pytest.mark.parametrize("name", ["mse", "hinge"])
def test_a_loss_without_such_a_form_is_refused(name: LossName) -> None:
    with pytest.raises(SettingsError, match=f"{name}.*only some labels were drawn"):
        SegmentationLoss(LossOptions(name), head="softmax", unions=NOT_FIRST)
