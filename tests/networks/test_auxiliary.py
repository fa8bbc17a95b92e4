"""Presence and distance targets against scipy and by their laws; the auxiliary loss and what it leaves out."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from torch.nn import functional

from medfcn.errors import SettingsError
from medfcn.labels import IGNORED
from medfcn.networks.auxiliary import AuxiliaryLoss, signed_distances
from medfcn.networks.targets import label_masks

# Target 1 is the organ, 2 a tumour in it, 3 a tumour outside; labels are organ and tumour.
OVERLAPPING = torch.tensor([[False, False], [True, False], [True, True], [False, True]])


def presence_targets(targets: torch.Tensor, labels: int, members: torch.Tensor | None = None) -> torch.Tensor:
    return label_masks(targets, labels, members).flatten(2).any(dim=2).float()


def distance_targets(
    targets: torch.Tensor, labels: int, members: torch.Tensor | None = None, *, clip_pixels: float = 10.0
) -> torch.Tensor:
    return signed_distances(label_masks(targets, labels, members), clip_pixels)


def _slices(seed: int, shape: tuple[int, int], labels: int, *, share: float = 0.3) -> torch.Tensor:
    """Targets of three slices: blobs in the first, scattered pixels in the second, one pixel in the third."""
    random = np.random.default_rng(seed)
    targets = np.zeros((3, *shape), dtype=np.uint8)
    rows, columns = np.indices(shape)
    for label in range(1, labels + 1):
        centre = random.uniform(0, 1, 2) * shape
        radius = random.uniform(0.5, 0.5 + max(shape) / 2)
        targets[0][np.hypot(rows - centre[0], columns - centre[1]) < radius] = label
    targets[1] = random.integers(1, labels + 1, shape) * (random.random(shape) < share)
    targets[2, random.integers(shape[0]), random.integers(shape[1])] = labels
    return torch.from_numpy(targets)


def _expected_distances(inside: np.ndarray, clip_pixels: float) -> np.ndarray:
    if not inside.any():
        return np.full(inside.shape, -1.0)
    if inside.all():
        return np.ones(inside.shape)
    distances = np.where(inside, distance_transform_edt(inside) - 0.5, 0.5 - distance_transform_edt(~inside))
    return np.clip(distances / clip_pixels, -1, 1)


@given(
    st.integers(0, 9999),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(1, 3),
    st.floats(0.3, 30) | st.sampled_from([0.5, 1.5, 3.0, 7.5, 10.0, 200.0]),
    st.floats(0, 1),
)
@settings(max_examples=150, deadline=None)
def test_distances_are_those_of_scipy(
    seed: int, shape: tuple[int, int], labels: int, clip_pixels: float, share: float
) -> None:
    targets = _slices(seed, shape, labels, share=share)
    found = distance_targets(targets, labels, clip_pixels=clip_pixels)
    assert found.dtype == torch.float32
    for number, label in itertools.product(range(3), range(1, labels + 1)):
        expected = _expected_distances(targets[number].numpy() == label, clip_pixels)
        np.testing.assert_allclose(found[number, label - 1], expected, atol=1e-5)


def test_a_label_and_its_complement_have_opposite_distances() -> None:
    targets = (_slices(1, (30, 33), 1) > 0).to(torch.uint8)
    torch.testing.assert_close(distance_targets(1 - targets, 1), -distance_targets(targets, 1), rtol=0, atol=0)


def test_turning_a_slice_turns_its_distances() -> None:
    targets = _slices(2, (21, 34), 2)
    turned = distance_targets(targets.transpose(1, 2).contiguous(), 2)
    assert torch.equal(turned, distance_targets(targets, 2).transpose(2, 3))


def test_the_border_is_half_a_pixel_from_either_side() -> None:
    """In pixels, the label right of the bar: -2½ -1½ -½ | ½ 1½. A pixel across a corner is √2 away."""
    row = distance_targets(torch.tensor([[[0, 0, 0, 1, 1]]]), 1, clip_pixels=10)
    torch.testing.assert_close(10 * row[0, 0, 0], torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5]))
    corner = distance_targets(torch.tensor([[[1, 0], [0, 0]]]), 1, clip_pixels=10)
    assert float(10 * corner[0, 0, 1, 1]) == pytest.approx(0.5 - 2**0.5)


@pytest.mark.parametrize("background", [0, IGNORED, 2])
def test_a_slice_without_the_label_is_outside_and_one_full_of_it_inside(background: int) -> None:
    targets = torch.stack([torch.full((4, 5), background), torch.ones(4, 5, dtype=torch.int64)])
    found = distance_targets(targets, 1)
    assert (found[0] == -1).all()
    assert (found[1] == 1).all()


def test_presence_is_whether_a_slice_holds_a_pixel_of_the_label() -> None:
    targets = torch.zeros(4, 3, 3, dtype=torch.uint8)
    targets[0, 1, 2] = 1
    targets[1, 0, 0], targets[1, 2, 2] = 2, 1
    targets[2] = IGNORED
    found = presence_targets(targets, 2)
    assert found.dtype == torch.float32
    assert found.tolist() == [[1, 0], [1, 1], [0, 0], [0, 0]]


def test_labels_that_overlap_have_their_own_presence_and_distance() -> None:
    targets = _slices(3, (20, 25), 3)
    organ, tumour = ((targets == 1) | (targets == 2)).byte(), (targets >= 2).byte()
    for ask in (presence_targets, distance_targets):
        found = ask(targets, 2, members=OVERLAPPING)
        assert torch.equal(found, torch.cat([ask(organ, 1), ask(tumour, 1)], dim=1))


def _heads(targets: torch.Tensor, labels: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    presence = torch.randn(len(targets), labels, generator=random, requires_grad=True)
    distances = torch.randn(len(targets), labels, *targets.shape[1:], generator=random, requires_grad=True)
    return presence, distances


def test_the_loss_is_the_weighted_sum_of_its_heads() -> None:
    targets = _slices(4, (16, 18), 2)
    presence, distances = _heads(targets, 2)
    loss = AuxiliaryLoss(presence_weight=0.3, distance_weight=2.0, label_count=2)
    first = functional.binary_cross_entropy_with_logits(presence, presence_targets(targets, 2))
    second = functional.smooth_l1_loss(distances, distance_targets(targets, 2))
    torch.testing.assert_close(loss(presence, distances, targets), 0.3 * first + 2 * second)
    torch.testing.assert_close(loss(presence, None, targets), 0.3 * first)
    torch.testing.assert_close(loss(None, distances, targets), 2 * second)
    assert float(loss(None, None, targets)) == 0


def test_right_heads_cost_nothing_and_wrong_ones_more() -> None:
    targets = _slices(5, (16, 18), 2)
    presence, distances = 40 * presence_targets(targets, 2) - 20, distance_targets(targets, 2)
    loss = AuxiliaryLoss(presence_weight=1, distance_weight=1, label_count=2)
    assert float(loss(presence, distances, targets)) < 1e-6
    assert float(loss(-presence, distances, targets)) > 1
    assert float(loss(presence, -distances, targets)) > 0.1


def test_presence_is_not_asked_where_the_label_may_be_under_ignored_voxels() -> None:
    targets = torch.zeros(4, 3, 3, dtype=torch.uint8)
    targets[1:, 0, 0] = IGNORED  # 0: all known, empty. 1: empty so far. 2: holds label 1. 3: holds both.
    targets[2:, 1, 1], targets[3, 2, 2] = 1, 2
    presence, _ = _heads(targets, 2)
    loss = AuxiliaryLoss(presence_weight=1, distance_weight=1, label_count=2)(presence, None, targets)
    loss.backward()
    assert presence.grad is not None
    assert (presence.grad != 0).tolist() == [[True, True], [False, False], [True, False], [True, True]]
    asked = presence.detach()[[0, 0, 2, 3, 3], [0, 1, 0, 0, 1]]
    expected = functional.binary_cross_entropy_with_logits(asked, torch.tensor([0.0, 0, 1, 1, 1]))
    torch.testing.assert_close(loss.detach(), expected)


@given(st.integers(0, 9999), st.sampled_from([1.0, 2.5, 10.0]))
@settings(max_examples=40, deadline=None)
def test_distances_are_asked_where_they_are_the_same_whatever_the_ignored_voxels_are(
    seed: int, clip_pixels: float
) -> None:
    """Four ignored pixels are two to the fourth possible slices, all of them tried."""
    random = np.random.default_rng(seed)
    targets = torch.from_numpy((random.random((1, 6, 7)) < random.uniform(0, 1)).astype(np.uint8))
    hidden = random.choice(42, size=4, replace=False)
    possible = []
    for labels in itertools.product([0, 1], repeat=4):
        targets.view(-1)[hidden] = torch.tensor(labels, dtype=torch.uint8)
        possible.append(distance_targets(targets, 1, clip_pixels=clip_pixels))
    same = (torch.stack(possible) == possible[0]).all(dim=0)
    targets.view(-1)[hidden] = IGNORED
    same &= (targets != IGNORED)[:, None]

    distances = (possible[0] + 0.25).requires_grad_()
    loss = AuxiliaryLoss(presence_weight=0, distance_weight=1, label_count=1, clip_pixels=clip_pixels)
    value = loss(None, distances, targets)
    value.backward()
    assert distances.grad is not None
    assert torch.equal(distances.grad != 0, same)
    assert float(value.detach()) == pytest.approx(0.25**2 / 2 if same.any() else 0, abs=1e-6)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.0, 0.0)])
def test_nothing_known_costs_nothing_and_changes_nothing(weights: tuple[float, float]) -> None:
    loss = AuxiliaryLoss(presence_weight=weights[0], distance_weight=weights[1], label_count=2)
    ignored = torch.full((2, 5, 5), IGNORED)
    for targets in (ignored, ignored[:0], ignored[:, :0]):
        presence, distances = _heads(targets, 2)
        value = loss(presence, distances, targets)
        assert float(value.detach()) == 0
        if value.requires_grad:
            value.backward()
        for head in (presence, distances):
            assert head.grad is None or not head.grad.any()


def test_the_loss_and_its_gradient_are_finite_for_extreme_heads() -> None:
    targets = _slices(6, (12, 12), 2)
    targets[0, 0] = IGNORED
    loss = AuxiliaryLoss(presence_weight=1, distance_weight=1, label_count=2)
    for size in (1e4, -1e4):
        heads = [torch.full(shape, size, requires_grad=True) for shape in ((3, 2), (3, 2, 12, 12))]
        value = loss(*heads, targets)
        assert torch.isfinite(value)
        value.backward()
        assert all(head.grad is not None and torch.isfinite(head.grad).all() for head in heads)


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_heads_are_worked_on_in_single(autocast: bool) -> None:
    targets = _slices(6, (12, 12), 2)
    targets[0, 0] = IGNORED
    presence, distances = (head.detach().bfloat16() for head in _heads(targets, 2))
    loss = AuxiliaryLoss(presence_weight=1, distance_weight=1, label_count=2)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = [loss(presence, None, targets), loss(None, distances, targets)]
    expected = [loss(presence.float(), None, targets), loss(None, distances.float(), targets)]
    assert torch.equal(torch.stack(found), torch.stack(expected))


def test_labels_that_overlap_are_the_loss_of_each() -> None:
    targets = _slices(8, (14, 15), 3)
    presence, distances = _heads(targets, 2)
    both = AuxiliaryLoss(presence_weight=1, distance_weight=1, label_count=2, members=OVERLAPPING)
    alone = AuxiliaryLoss(presence_weight=1, distance_weight=1, label_count=1)
    organ, tumour = ((targets == 1) | (targets == 2)).byte(), (targets >= 2).byte()
    expected = alone(presence[:, :1], distances[:, :1], organ) + alone(presence[:, 1:], distances[:, 1:], tumour)
    torch.testing.assert_close(both(presence, distances, targets), expected / 2)
    assert not both.state_dict()


@pytest.mark.parametrize("setting", ["presence_weight", "distance_weight"])
@pytest.mark.parametrize("weight", [-0.1, float("nan")])
def test_a_weight_below_zero_is_refused(setting: str, weight: float) -> None:
    options = {"presence_weight": 1.0, "distance_weight": 1.0, setting: weight}
    with pytest.raises(SettingsError, match=f"setting {setting}: "):
        AuxiliaryLoss(label_count=1, **options)


@pytest.mark.parametrize("clip_pixels", [0.0, -1.0, float("nan")])
def test_distances_need_somewhere_to_be_clipped(clip_pixels: float) -> None:
    with pytest.raises(SettingsError, match="clip_pixels"):
        distance_targets(torch.zeros(1, 2, 2), 1, clip_pixels=clip_pixels)
