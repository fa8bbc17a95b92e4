"""The losses against torch's, MONAI's and formulas written out; what is ignored, weighted or out of range."""

from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceLoss, FocalLoss, TverskyLoss
from torch.nn import functional

from medfcn.errors import SettingsError
from medfcn.labels import IGNORED
from medfcn.networks import losses
from medfcn.networks.design import Head
from medfcn.networks.losses import LossName, LossOptions, SegmentationLoss
from medfcn.networks.targets import label_masks

NAMES: tuple[LossName, ...] = get_args(LossName)
HEADS: tuple[Head, ...] = get_args(Head)
EXTENTS = ("batch", "slice")
every_loss = pytest.mark.parametrize("name", NAMES)
every_head = pytest.mark.parametrize(
    ("head", "labels"), [("sigmoid", 1), ("sigmoid", 3), ("softmax", 1), ("softmax", 3)]
)
every_extent = pytest.mark.parametrize("dice_over", EXTENTS)


def loss_of(
    name: LossName = "ce_dice", *, head: Head, members: torch.Tensor | None = None, **options: Any
) -> SegmentationLoss:
    return SegmentationLoss(LossOptions(name, **options), head=head, members=members)


def _batch(
    seed: int, head: Head, labels: int, *, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of size (4, K, 6, 7) and targets, of which the last slice holds background alone."""
    random = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(4, labels + (head == "softmax"), 6, 7, generator=random, dtype=dtype)
    targets = torch.randint(0, labels + 1, (4, 6, 7), generator=random)
    targets[-1] = 0
    return logits, targets.to(torch.uint8)


def _confident(targets: torch.Tensor, head: Head, labels: int) -> torch.Tensor:
    wanted = functional.one_hot(targets.long(), labels + 1).movedim(-1, 1)
    return 20.0 * (2 * wanted - 1)[:, 1:] if head == "sigmoid" else 20.0 * wanted


def _gradient(
    loss: SegmentationLoss, logits: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf, targets)
    value.backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad


# Values: the default written out, torch, MONAI, formulas.


@given(st.integers(0, 9999), st.sampled_from([torch.uint8, torch.int64]))
@settings(max_examples=25, deadline=None)
def test_the_default_for_one_label_is_binary_cross_entropy_plus_dice_over_the_batch_to_the_bit(
    seed: int, kind: torch.dtype
) -> None:
    logits, targets = _batch(seed, "sigmoid", 1)
    leaf, wanted = logits.clone().requires_grad_(), targets[:, None].float()
    shown = torch.sigmoid(leaf)
    dice = (2 * (shown * wanted).sum(dim=(0, 2, 3)) + 1) / ((shown + wanted).sum(dim=(0, 2, 3)) + 1)
    expected = functional.binary_cross_entropy_with_logits(leaf, wanted) + 1.0 * (1 - dice.mean())
    expected.backward()
    value, gradient = _gradient(loss_of(head="sigmoid"), logits, targets.to(kind))
    assert torch.equal(value, expected.detach())
    assert leaf.grad is not None
    assert torch.equal(gradient, leaf.grad)


@given(st.integers(0, 9999), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_the_default_for_several_labels_is_cross_entropy_plus_dice_of_the_labels(seed: int, labels: int) -> None:
    logits, targets = _batch(seed, "softmax", labels)
    leaf = logits.clone().requires_grad_()
    shown = torch.softmax(leaf, dim=1)[:, 1:]
    wanted = torch.stack([targets == label for label in range(1, labels + 1)], dim=1).float()
    dice = (2 * (shown * wanted).sum(dim=(0, 2, 3)) + 1) / ((shown + wanted).sum(dim=(0, 2, 3)) + 1)
    expected = functional.cross_entropy(leaf, targets.long()) + 1.0 * (1 - dice.mean())
    expected.backward()
    value, gradient = _gradient(loss_of(head="softmax"), logits, targets)
    assert torch.allclose(value, expected.detach(), rtol=1e-5)
    assert leaf.grad is not None
    assert torch.allclose(gradient, leaf.grad, rtol=1e-4, atol=1e-7)


@given(st.integers(0, 9999), st.floats(0.01, 5), st.floats(0, 3), st.sampled_from(EXTENTS), st.sampled_from(HEADS))
@settings(max_examples=40, deadline=None)
def test_dice_is_that_of_monai(seed: int, smooth: float, weight: float, dice_over: str, head: Head) -> None:
    logits, targets = _batch(seed, head, 3)
    options = {"batch": dice_over == "batch", "smooth_nr": smooth, "smooth_dr": smooth}
    if head == "sigmoid":
        expected = DiceLoss(sigmoid=True, **options)(logits, label_masks(targets, 3).float())
    else:
        theirs = DiceLoss(softmax=True, to_onehot_y=True, include_background=False, **options)
        expected = theirs(logits, targets[:, None])
    found = loss_of("dice", head=head, dice_over=dice_over, smooth=smooth)(logits, targets)
    assert float(found) == pytest.approx(float(expected), abs=1e-6)
    entropy = loss_of("ce", head=head)(logits, targets)
    both = loss_of(head=head, dice_over=dice_over, smooth=smooth, dice_weight=weight)(logits, targets)
    assert float(both) == pytest.approx(float(entropy + weight * expected), abs=1e-5)


@given(st.integers(0, 9999), st.floats(0.1, 1), st.floats(0.1, 1), st.sampled_from(EXTENTS), st.sampled_from(HEADS))
@settings(max_examples=40, deadline=None)
def test_tversky_is_that_of_monai(seed: int, alpha: float, beta: float, dice_over: str, head: Head) -> None:
    logits, targets = _batch(seed, head, 3)
    options = {"batch": dice_over == "batch", "smooth_nr": 0.5, "smooth_dr": 0.5, "alpha": alpha, "beta": beta}
    if head == "sigmoid":
        expected = TverskyLoss(sigmoid=True, **options)(logits, label_masks(targets, 3).float())
    else:
        theirs = TverskyLoss(softmax=True, to_onehot_y=True, include_background=False, **options)
        expected = theirs(logits, targets[:, None])
    loss = loss_of("tversky", head=head, dice_over=dice_over, smooth=0.5, tversky_alpha=alpha, tversky_beta=beta)
    assert float(loss(logits, targets)) == pytest.approx(float(expected), abs=1e-6)


@every_head
@every_extent
def test_tversky_of_two_halves_is_dice(head: Head, labels: int, dice_over: str) -> None:
    logits, targets = _batch(3, head, labels)
    dice = loss_of("dice", head=head, smooth=2, dice_over=dice_over)
    halves = {"tversky_alpha": 0.5, "tversky_beta": 0.5}
    tversky = loss_of("tversky", head=head, smooth=1, dice_over=dice_over, **halves)
    assert float(dice(logits, targets)) == pytest.approx(float(tversky(logits, targets)), abs=1e-6)


@pytest.mark.parametrize(("alpha", "beta", "worse"), [(0.9, 0.1, "larger"), (0.1, 0.9, "smaller")])
def test_alpha_prices_what_is_drawn_too_much_and_beta_what_is_missed(alpha: float, beta: float, worse: str) -> None:
    targets = torch.zeros(1, 10, 10, dtype=torch.uint8)
    targets[:, 3:7, 3:7] = 1
    larger, smaller = torch.full((1, 1, 10, 10), -20.0), torch.full((1, 1, 10, 10), -20.0)
    larger[:, :, 3:7, 2:8], smaller[:, :, 3:7, 4:6] = 20, 20
    loss = loss_of("tversky", head="sigmoid", tversky_alpha=alpha, tversky_beta=beta)
    assert (loss(larger, targets) > loss(smaller, targets)) == (worse == "larger")


@given(st.integers(0, 9999), st.floats(0, 4), st.sampled_from(HEADS))
@settings(max_examples=40, deadline=None)
def test_focal_is_that_of_monai(seed: int, gamma: float, head: Head) -> None:
    logits, targets = _batch(seed, head, 3)
    if head == "sigmoid":
        expected = FocalLoss(gamma=gamma)(logits, label_masks(targets, 3).float())
    else:  # MONAI averages over the channels too, of which all but one add nothing
        expected = 4 * FocalLoss(gamma=gamma, use_softmax=True, to_onehot_y=True)(logits, targets[:, None])
    found = loss_of("focal", head=head, focal_gamma=gamma)(logits, targets)
    assert float(found) == pytest.approx(float(expected), abs=1e-6, rel=1e-5)


@every_head
def test_focal_without_focus_is_cross_entropy(head: Head, labels: int) -> None:
    batch = _batch(4, head, labels)
    focal, entropy = loss_of("focal", head=head, focal_gamma=0), loss_of("ce", head=head)
    for found, expected in zip(_gradient(focal, *batch), _gradient(entropy, *batch), strict=True):
        torch.testing.assert_close(found, expected)


def test_hinge_is_the_sum_of_margins_that_are_missed() -> None:
    """Binary: max(0, 1 − yz) for y of −1 or 1. Crammer and Singer: max over j of z_j − z_y + [j ≠ y]."""
    logits, targets = _batch(5, "sigmoid", 3)
    signs = np.where(label_masks(targets, 3).numpy(), 1, -1)
    expected = np.maximum(0, 1 - signs * logits.numpy()).mean()
    assert float(loss_of("hinge", head="sigmoid")(logits, targets)) == pytest.approx(expected, rel=1e-5)

    logits, targets = _batch(5, "softmax", 3)
    margins = []
    for scores, right in zip(logits.movedim(1, -1).reshape(-1, 4).numpy(), targets.ravel().tolist(), strict=True):
        margins.append(max(scores[j] - scores[right] + (j != right) for j in range(4)))
    found = loss_of("hinge", head="softmax")(logits, targets)
    assert float(found) == pytest.approx(np.mean(margins), rel=1e-5)


def test_beyond_the_margin_hinge_asks_for_nothing() -> None:
    targets = torch.tensor([[[0, 1]]])
    for head, margin in (("sigmoid", 1.01), ("softmax", 0.51)):
        side = torch.tensor([[-margin, margin]])
        logits = side[:, None, None] if head == "sigmoid" else torch.stack([-side, side], 1)[:, :, None]
        value, gradient = _gradient(loss_of("hinge", head=head), logits, targets)
        assert value == 0
        assert not gradient.any()
        value, gradient = _gradient(loss_of("hinge", head=head), 0.9 * logits, targets)
        assert value > 0
        assert gradient.all()


def test_mse_is_of_the_probabilities() -> None:
    logits, targets = _batch(6, "sigmoid", 3)
    expected = functional.mse_loss(torch.sigmoid(logits), label_masks(targets, 3).float())
    torch.testing.assert_close(loss_of("mse", head="sigmoid")(logits, targets), expected)
    logits, targets = _batch(6, "softmax", 3)
    wanted = functional.one_hot(targets.long(), 4).movedim(-1, 1).float()
    expected = functional.mse_loss(torch.softmax(logits, 1), wanted)
    torch.testing.assert_close(loss_of("mse", head="softmax")(logits, targets), expected)


@every_loss
@every_head
@every_extent
def test_gradients_are_those_of_finite_differences(name: LossName, head: Head, labels: int, dice_over: str) -> None:
    logits, targets = _batch(7, head, labels, dtype=torch.float64)
    targets[0, :2] = IGNORED
    weights = [0.5, 1.0, 2.0, 1.5][: labels + 1]
    loss = loss_of(name, head=head, class_weights=weights, dice_over=dice_over)
    assert torch.autograd.gradcheck(loss, (logits[..., :3].requires_grad_(), targets[..., :3]))


@every_loss
@every_head
def test_confident_and_right_costs_nothing_and_anything_else_more(name: LossName, head: Head, labels: int) -> None:
    loss = loss_of(name, head=head)
    _, targets = _batch(8, head, labels)
    right = _confident(targets, head, labels)
    unsure, wrong = 0.01 * right, -right
    assert float(loss(right, targets)) < 1e-4
    assert float(loss(right, targets)) < float(loss(unsure, targets)) < float(loss(wrong, targets))


# Ignored voxels.


@every_loss
@every_head
@every_extent
@pytest.mark.parametrize("weighted", [False, True])
def test_ignored_columns_are_as_if_they_had_been_cut_off(
    name: LossName, head: Head, labels: int, dice_over: str, weighted: bool
) -> None:
    weights = [0.5, 1.0, 2.0, 1.5][: labels + 1] if weighted else None
    loss = loss_of(name, head=head, dice_over=dice_over, class_weights=weights)
    logits, targets = _batch(9, head, labels)
    expected, kept = _gradient(loss, logits[..., 2:], targets[..., 2:])
    targets[..., :2] = IGNORED
    value, gradient = _gradient(loss, logits, targets)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient[..., 2:], kept)
    assert not gradient[..., :2].any()


@every_loss
@every_head
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_ignored_voxels_anywhere_are_as_if_they_were_not_there(
    name: LossName, head: Head, labels: int, data: st.DataObject
) -> None:
    loss = loss_of(name, head=head)
    logits, targets = _batch(data.draw(st.integers(0, 9999)), head, labels)
    share = data.draw(st.floats(0, 0.99))
    ignored = torch.rand(targets.shape, generator=torch.Generator().manual_seed(1)) < share
    known_logits = logits.movedim(1, -1)[~ignored].T[None, :, None]
    expected, kept = _gradient(loss, known_logits, targets[~ignored][None, None])
    targets[ignored] = IGNORED
    value, gradient = _gradient(loss, logits, targets)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient.movedim(1, -1)[~ignored].T[None, :, None], kept)
    assert not gradient.movedim(1, -1)[ignored].any()


@every_loss
@every_head
@every_extent
def test_a_slice_ignored_throughout_is_as_if_it_were_not_in_the_batch(
    name: LossName, head: Head, labels: int, dice_over: str
) -> None:
    loss = loss_of(name, head=head, dice_over=dice_over)
    logits, targets = _batch(10, head, labels)
    expected = loss(logits[1:], targets[1:])
    targets[0] = IGNORED
    torch.testing.assert_close(loss(logits, targets), expected)


@every_loss
@every_head
@every_extent
@pytest.mark.parametrize("weighted", [False, True])
def test_nothing_known_costs_nothing_and_changes_nothing(
    name: LossName, head: Head, labels: int, dice_over: str, weighted: bool
) -> None:
    weights = [0.5, 1.0, 2.0, 1.5][: labels + 1] if weighted else None
    loss = loss_of(name, head=head, dice_over=dice_over, class_weights=weights)
    logits, targets = _batch(11, head, labels)
    batches = [
        (logits, torch.full_like(targets, IGNORED)),
        (logits[:0], targets[:0]),
        (logits[..., :0], targets[..., :0]),
    ]
    for batch in batches:
        value, gradient = _gradient(loss, *batch)
        assert float(value) == pytest.approx(0, abs=1e-6)
        assert not gradient.any()


@every_loss
@every_head
@every_extent
def test_masks_that_hide_nothing_change_nothing(
    name: LossName, head: Head, labels: int, dice_over: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU works with, which is not asked whether anything is ignored."""
    loss = loss_of(name, head=head, dice_over=dice_over)
    logits, targets = _batch(12, head, labels)
    expected = _gradient(loss, logits, targets)
    monkeypatch.setattr(
        losses, "known_voxels", lambda targets, **_: torch.ones_like(targets, dtype=torch.bool)[:, None]
    )
    for found, wanted in zip(_gradient(loss, logits, targets), expected, strict=True):
        torch.testing.assert_close(found, wanted)


# Edges of the arithmetic.


@every_loss
@every_head
@every_extent
@pytest.mark.parametrize("size", [0.0, 1.0, 1e4, 1e30])
@pytest.mark.parametrize("reference", ["labels", "background", "ignored"])
def test_the_loss_and_its_gradient_are_finite(
    name: LossName, head: Head, labels: int, dice_over: str, size: float, reference: str
) -> None:
    logits, targets = _batch(13, head, labels)
    if reference == "background":
        targets.zero_()
    elif reference == "ignored":
        targets[:, 1:5] = IGNORED
    value, gradient = _gradient(loss_of(name, head=head, dice_over=dice_over), size * logits.sign(), targets)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("size", [5.0, 20.0, 1e4])
def test_focal_is_never_infinitely_steep(head: Head, gamma: float, size: float) -> None:
    _, targets = _batch(14, head, 3)
    logits = size * _confident(targets, head, 3)
    for sign in (1, -1):
        value, gradient = _gradient(loss_of("focal", head=head, focal_gamma=gamma), sign * logits, targets)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()


@every_loss
@every_head
def test_half_precision_logits_are_worked_on_in_single(name: LossName, head: Head, labels: int) -> None:
    loss = loss_of(name, head=head, class_weights=[1.0, 2.0, 3.0, 4.0][: labels + 1])
    logits, targets = _batch(15, head, labels)
    rounded = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value, gradient = _gradient(loss, rounded, targets)
    assert value.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(value, loss(rounded.float(), targets))


def test_a_slice_without_the_label_changes_dice_over_the_batch_by_nothing() -> None:
    loss = loss_of("dice", head="sigmoid")
    logits, targets = _batch(2, "sigmoid", 1)
    more_logits = torch.cat([logits, torch.full_like(logits, -60.0)])
    more_targets = torch.cat([targets, torch.zeros_like(targets)])
    assert float(loss(more_logits, more_targets)) == pytest.approx(float(loss(logits, targets)), abs=1e-5)


def test_a_slice_without_the_label_counts_in_dice_over_slices_by_what_was_drawn_there() -> None:
    """Two slices of 4 pixels without the label: left empty, and filled. Scores 1 and s / (4 + s) for s = 2."""
    logits = torch.tensor([-60.0, 60.0])[:, None, None, None].expand(2, 1, 2, 2)
    loss = loss_of("dice", head="sigmoid", dice_over="slice", smooth=2.0)
    assert float(loss(logits, torch.zeros(2, 2, 2, dtype=torch.uint8))) == pytest.approx(1 - (1 + 2 / 6) / 2)


# Class weights and label smoothing.


def test_class_weights_are_those_of_torch() -> None:
    logits, targets = _batch(16, "softmax", 3)
    weights = [0.1, 1.0, 3.0, 0.0]
    expected = functional.cross_entropy(logits, targets.long(), weight=torch.tensor(weights))
    torch.testing.assert_close(loss_of("ce", head="softmax", class_weights=weights)(logits, targets), expected)


@every_loss
@every_head
@every_extent
@pytest.mark.parametrize("size", [1.0, 7.0])
def test_equal_class_weights_change_nothing(
    name: LossName, head: Head, labels: int, dice_over: str, size: float
) -> None:
    batch = _batch(17, head, labels)
    plain = loss_of(name, head=head, dice_over=dice_over)
    weighted = loss_of(name, head=head, dice_over=dice_over, class_weights=[size] * (labels + 1))
    torch.testing.assert_close(weighted(*batch), plain(*batch))


@pytest.mark.parametrize("name", ["ce", "focal", "mse", "hinge"])
@pytest.mark.parametrize("head", HEADS)
def test_a_voxel_of_weight_two_counts_as_two_voxels(name: LossName, head: Head) -> None:
    """A row of voxels with the labelled ones shown twice, against once with twice the weight."""
    logits, targets = _batch(18, head, 1)
    once, drawn = logits.movedim(1, -1).reshape(-1, logits.shape[1]), targets.reshape(-1)
    twice, drawn_twice = torch.cat([once, once[drawn == 1]]), torch.cat([drawn, drawn[drawn == 1]])
    weighted = loss_of(name, head=head, class_weights=[1.0, 2.0])
    expected = loss_of(name, head=head)(twice.T[None, :, None], drawn_twice[None, None])
    torch.testing.assert_close(weighted(logits, targets), expected)


def test_a_voxel_counts_for_each_label_as_that_label_or_as_background() -> None:
    logits, targets = _batch(19, "sigmoid", 2)
    masks = label_masks(targets, 2)
    weight = torch.where(masks, torch.tensor([2.0, 5.0])[:, None, None], torch.tensor(0.5))
    entropy = functional.binary_cross_entropy_with_logits(logits, masks.float(), reduction="none")
    loss = loss_of("ce", head="sigmoid", class_weights=[0.5, 2.0, 5.0])
    torch.testing.assert_close(loss(logits, targets), (weight * entropy).sum() / weight.sum())


@every_head
def test_class_weights_weigh_the_dice_of_the_labels(head: Head, labels: int) -> None:
    logits, targets = _batch(20, head, labels)
    chosen = [9.0] + [0.0] * (labels - 1) + [4.0]
    probability = torch.sigmoid(logits) if head == "sigmoid" else torch.softmax(logits, 1)
    shown, wanted = probability[:, -1], targets == labels
    expected = 1 - (2 * shown[wanted].sum() + 1) / (shown.sum() + wanted.sum() + 1)
    torch.testing.assert_close(loss_of("dice", head=head, class_weights=chosen)(logits, targets), expected)


@pytest.mark.parametrize("name", ["ce", "focal", "mse", "hinge"])
@every_head
def test_a_batch_of_classes_that_count_nothing_costs_nothing(name: LossName, head: Head, labels: int) -> None:
    logits, targets = _batch(21, head, labels)
    loss = loss_of(name, head=head, class_weights=[0.0] + [1.0] * labels)
    value, gradient = _gradient(loss, logits, torch.zeros_like(targets))
    assert value == 0
    assert not gradient.any()


def test_label_smoothing_is_that_of_torch_and_two_classes_are_smoothed_as_one_label() -> None:
    logits, targets = _batch(22, "softmax", 3)
    loss = loss_of("ce", head="softmax", label_smoothing=0.2)
    expected = functional.cross_entropy(logits, targets.long(), label_smoothing=0.2)
    torch.testing.assert_close(loss(logits, targets), expected)
    logits, targets = _batch(22, "softmax", 1)
    one = loss_of("ce", head="sigmoid", label_smoothing=0.2)
    two = loss_of("ce", head="softmax", label_smoothing=0.2)
    torch.testing.assert_close(one(logits[:, 1:] - logits[:, :1], targets), two(logits, targets))


@pytest.mark.parametrize("name", ["ce", "ce_dice", "dice", "focal", "tversky"])
@every_extent
def test_one_label_and_the_difference_of_two_scores_are_the_same(name: LossName, dice_over: str) -> None:
    """sigmoid(b − a) is the second of softmax(a, b)."""
    logits, targets = _batch(23, "softmax", 1)
    targets[0, :3] = IGNORED
    options = {"dice_over": dice_over, "class_weights": [0.5, 2.0]}
    one, two = loss_of(name, head="sigmoid", **options), loss_of(name, head="softmax", **options)
    torch.testing.assert_close(one(logits[:, 1:] - logits[:, :1], targets), two(logits, targets))


# Labels.


@every_loss
@every_extent
@pytest.mark.parametrize("head", HEADS)
@given(order=st.permutations([1, 2, 3]), seed=st.integers(0, 9999))
@settings(max_examples=8, deadline=None)
def test_the_order_of_the_labels_does_not_matter(
    name: LossName, dice_over: str, head: Head, order: list[int], seed: int
) -> None:
    logits, targets = _batch(seed, head, 3)
    targets[1, 2:4] = IGNORED
    weights = [0.5, 1.0, 2.0, 3.0]
    loss = loss_of(name, head=head, dice_over=dice_over, class_weights=weights)
    renamed = targets.clone()
    for place, label in enumerate(order, start=1):
        renamed[targets == label] = place
    channels = [0, *order] if head == "softmax" else [label - 1 for label in order]
    reweighted = [weights[0], *(weights[label] for label in order)]
    same = loss_of(name, head=head, dice_over=dice_over, class_weights=reweighted)
    value, gradient = _gradient(loss, logits, targets)
    other_value, other_gradient = _gradient(same, logits[:, channels], renamed)
    torch.testing.assert_close(other_value, value)
    torch.testing.assert_close(other_gradient, gradient[:, channels])


@every_loss
@pytest.mark.parametrize("labels", [1, 3])
def test_a_table_in_which_each_target_is_its_label_changes_nothing(name: LossName, labels: int) -> None:
    logits, targets = _batch(24, "sigmoid", labels)
    targets[0, 0] = IGNORED
    members = torch.eye(labels + 1, dtype=torch.bool)[:, 1:]
    table = loss_of(name, head="sigmoid", members=members)
    torch.testing.assert_close(table(logits, targets), loss_of(name, head="sigmoid")(logits, targets))


@every_loss
@every_extent
def test_labels_that_overlap_cost_what_each_costs_alone(name: LossName, dice_over: str) -> None:
    """Targets 1, 2, 3: the organ, a tumour in it, a tumour outside; labels: organ, tumour."""
    members = torch.tensor([[False, False], [True, False], [True, True], [False, True]])
    logits, targets = _batch(25, "sigmoid", 3)
    logits = logits[:, :2]
    targets[0, 0] = IGNORED
    organ, tumour = targets.clone(), targets.clone()
    organ[targets == 2], organ[targets == 3] = 1, 0
    tumour[targets == 1], tumour[(targets == 2) | (targets == 3)] = 0, 1
    alone = loss_of(name, head="sigmoid", dice_over=dice_over)
    expected = (alone(logits[:, :1], organ) + alone(logits[:, 1:], tumour)) / 2
    both = loss_of(name, head="sigmoid", members=members, dice_over=dice_over)
    torch.testing.assert_close(both(logits, targets), expected)


# Deep supervision, settings, state.


@every_loss
@every_head
def test_each_depth_counts_half_as_much_as_the_next_finer_one(name: LossName, head: Head, labels: int) -> None:
    loss = loss_of(name, head=head)
    depths = [_batch(seed, head, labels)[0] for seed in (26, 27, 28)]
    targets = _batch(26, head, labels)[1]
    targets[0, 0] = IGNORED
    first, second, third = (loss(logits, targets) for logits in depths)
    torch.testing.assert_close(loss.deep(depths, targets), (4 * first + 2 * second + third) / 7)
    assert torch.equal(loss.deep(depths[:1], targets), first)


@pytest.mark.parametrize(
    "options",
    [
        {"dice_weight": -1.0},
        {"smooth": 0.0},
        {"label_smoothing": 1.0},
        {"name": "dice", "label_smoothing": 0.1},
        {"focal_gamma": -0.5},
        {"tversky_alpha": -0.1},
        {"tversky_beta": float("nan")},
        {"class_weights": [1.0]},
        {"class_weights": [1.0, -1.0]},
        {"class_weights": [1.0, 0.0, 0.0]},
    ],
    ids=str,
)
def test_a_setting_out_of_its_range_is_refused_by_name(options: dict[str, object]) -> None:
    setting = list(options)[-1]
    with pytest.raises(SettingsError, match=f"setting {setting}: "):
        loss_of(head="sigmoid", **options)


def test_labels_that_overlap_are_refused_with_softmax() -> None:
    with pytest.raises(SettingsError, match="sigmoid"):
        loss_of(head="softmax", members=torch.eye(3, dtype=torch.bool)[:, 1:])


def test_a_loss_has_no_state_to_be_saved() -> None:
    members = torch.eye(3, dtype=torch.bool)[:, 1:]
    assert not loss_of(head="sigmoid", class_weights=[1.0, 2.0, 3.0], members=members).state_dict()
