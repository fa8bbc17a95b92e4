"""Labels that overlap find back to parts: the most probable one, on every grid."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medfcn.labels import IGNORED, LabelMap
from medfcn.settings import AugmentSettings
from medfcn.slices.augment import Augmenter
from medfcn.slices.components import largest_share
from medfcn.slices.fingerprint import fingerprint_case
from medfcn.slices.grid import GridMap, map_to_network, to_network_grid
from medfcn.slices.overlaps import best_overlap, overlaps_to_native, overlaps_to_network
from medfcn.volumes import Volume
from tests.overlapping import CROSSED, NESTED, draw_nested, overlapping_maps


def members_of(text: str) -> NDArray[np.bool_]:
    members = LabelMap.parse(text).members
    assert members is not None
    return members


@given(overlapping_maps(), st.integers(0, 2**32 - 1))
def test_the_part_is_the_most_probable_one(labels: LabelMap, seed: int) -> None:
    members = labels.members
    assert members is not None
    random = np.random.default_rng(seed)
    p = random.uniform(0.01, 0.99, (members.shape[1], 40))
    products = np.array([np.prod(np.where(row[:, None], p, 1 - p), axis=0) for row in members])
    found = best_overlap(np.log(p / (1 - p)).astype(np.float32), members)
    held = products[found, np.arange(40)]
    np.testing.assert_allclose(held, products.max(axis=0), rtol=1e-5)


@given(overlapping_maps(), st.integers(0, 2**32 - 1))
def test_labels_decided_one_by_one_that_make_a_part_are_that_part(labels: LabelMap, seed: int) -> None:
    members = labels.members
    assert members is not None
    random = np.random.default_rng(seed)
    evidence = random.choice([-1, 1], (members.shape[1], 60)) * random.uniform(0.1, 3, (members.shape[1], 60))
    found = best_overlap(evidence.astype(np.float32), members)
    for place, row in enumerate(members):
        assert (found[((evidence > 0) == row[:, None]).all(axis=0)] == place).all()


def grid_of(shape: tuple[int, int, int], to_mm: tuple[float | None, ...]) -> GridMap:
    return map_to_network(shape, "RAS", (1.0, 1.0, 1.5), (to_mm[0], to_mm[1], to_mm[2]))


@pytest.mark.parametrize("text", [NESTED, CROSSED])
def test_parts_on_their_own_grid_stay_as_they_are(text: str) -> None:
    members = members_of(text)
    parts = np.random.default_rng(0).integers(0, len(members), (9, 8, 7), dtype=np.uint8)
    parts[2:4, 3, 1] = IGNORED
    grid = grid_of(parts.shape, (None, None, None))
    moved = overlaps_to_network(parts, grid, members)
    np.testing.assert_array_equal(moved, parts)
    np.testing.assert_array_equal(overlaps_to_native(moved, grid, members), np.where(parts == IGNORED, 0, parts))


def test_a_rim_is_not_lost_between_two_others() -> None:
    """Of a coarse voxel three eighths are background, three rim and two core: most of it is tumour."""
    parts = np.array([0, 0, 0, 1, 1, 1, 2, 2], dtype=np.uint8).reshape(2, 2, 2)
    grid = map_to_network((2, 2, 2), "RAS", (1.0, 1.0, 1.0), (2.0, 2.0, 2.0))
    members = np.array([[False, False], [True, False], [True, True]])
    assert to_network_grid(parts, grid).tolist() == [[[0]]]
    assert overlaps_to_network(parts, grid, members).tolist() == [[[1]]]


@pytest.mark.parametrize("to_mm", [(2.0, 2.0, None), (0.7, 0.6, None), (1.4, 0.9, 2.0)])
def test_nested_labels_on_another_grid_are_those_moved_one_by_one(to_mm: tuple[float | None, ...]) -> None:
    members = members_of(NESTED)
    _, parts = draw_nested(3)
    grid = grid_of(parts.shape, to_mm)
    moved = overlaps_to_network(parts, grid, members)
    for label in range(3):
        share = to_network_grid((parts > label).astype(np.float32), grid)
        np.testing.assert_array_equal(moved > label, share > 0.5)


def test_what_is_ignored_stays_ignored_on_another_grid() -> None:
    _, parts = draw_nested(3)
    parts[:, :9] = IGNORED
    grid = grid_of(parts.shape, (1.7, 1.3, None))
    moved = overlaps_to_network(parts, grid, members_of(NESTED))
    edge = round(9 / 1.3)
    assert (moved[:, : edge - 1] == IGNORED).all()
    assert (moved[:, edge + 1 :] != IGNORED).all()
    back = overlaps_to_native(moved, grid, members_of(NESTED))
    assert back.max() == 3
    assert (back[:, 10:] == parts[:, 10:]).mean() > 0.97


def test_a_label_counts_by_its_share_of_what_is_known() -> None:
    random = np.random.default_rng(2)
    parts = random.choice([0, 1, 2, 3, IGNORED], (11, 12, 6)).astype(np.uint8)
    grid = grid_of(parts.shape, (1.7, 1.3, None))
    known = to_network_grid((parts != IGNORED).astype(np.float32), grid)
    masks = [(parts > label) & (parts != IGNORED) for label in range(3)]
    shares = np.stack([to_network_grid(mask.astype(np.float32), grid) for mask in masks])
    clear = (np.abs(shares / np.maximum(known, 1e-6) - 0.5) > 1e-4).all(axis=0) & (np.abs(known - 0.5) > 1e-4)
    expected = np.where(known > 0.5, (shares > known / 2).sum(axis=0), IGNORED)
    assert clear.mean() > 0.7
    np.testing.assert_array_equal(overlaps_to_network(parts, grid, members_of(NESTED))[clear], expected[clear])


STRONG = AugmentSettings(
    noise=0, blur_pixels=0, low_resolution=0, bias_field=0, contrast=0, brightness=0, gamma=0, mirror="always"
)
AXIAL = ("axial",) * 4


def batch(labels: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(5)
    coarse = torch.randint(0, labels + 1, (4, 1, 8, 9), generator=random).float()
    # As much beyond the window on either side, as the sampler has it: no pixel of a still slice lies between two.
    return torch.randn(4, 1, 40, 46, generator=random), torch.nn.functional.interpolate(coarse, size=(40, 46))[
        :, 0
    ].to(torch.uint8)


@given(st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_labels_that_do_not_overlap_are_augmented_as_ever(step: int) -> None:
    images, targets = batch(3)
    plain = Augmenter(STRONG, (28, 32), (0, 1), 7)(images, targets, step=step, views=AXIAL)
    table = np.eye(4, dtype=bool)[:, 1:]
    found = Augmenter(STRONG, (28, 32), (0, 1), 7, table)(images, targets, step=step, views=AXIAL)
    assert torch.equal(found[0], plain[0])
    assert found[1].dtype == targets.dtype
    assert (found[1] != plain[1]).float().mean() < 1e-3  # shares of exactly a half, rounded


@given(st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_every_nested_label_is_augmented_as_if_alone(step: int) -> None:
    images, targets = batch(3)
    found = Augmenter(STRONG, (28, 32), (0, 1), 7, members_of(NESTED))(images, targets, step=step, views=AXIAL)[1]
    for label in range(3):
        alone = Augmenter(STRONG, (28, 32), (0, 1), 7)(
            images, (targets > label).to(torch.uint8), step=step, views=AXIAL
        )[1]
        assert ((found > label) != (alone == 1)).float().mean() < 1e-3
    assert set(found.unique().tolist()) == {0, 1, 2, 3}


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_a_moved_label_counts_by_its_share_of_what_is_known(step: int) -> None:
    """The masks go along as images, so that every pixel's shares are known."""
    _, targets = batch(4)
    targets[targets == 4] = IGNORED
    masks = [(targets > label) & (targets != IGNORED) for label in range(3)]
    images = torch.stack([*masks, targets == IGNORED], dim=1).float()
    moved, found = Augmenter(STRONG, (28, 32), (), 7, members_of(NESTED))(images, targets, step=step, views=AXIAL)
    shares, ignored = moved[:, :3], moved[:, 3]
    expected = torch.where(ignored > 0.5, IGNORED, (shares > (1 - ignored[:, None]) / 2).sum(dim=1))
    near = ((shares - (1 - ignored[:, None]) / 2).abs() < 1e-4).any(dim=1) & (ignored < 0.5)
    near |= (ignored - 0.5).abs() < 1e-4
    assert near.float().mean() < 0.05
    assert torch.equal(found[~near], expected[~near])


def test_ignored_pixels_of_overlapping_labels_stay_ignored() -> None:
    images, targets = batch(3)
    targets[:, :, 20:] = IGNORED
    targets[:, :, :20] = targets[:, :, :20].clamp_min(1)
    for step in range(8):
        moved = Augmenter(STRONG, (28, 32), (), 7, members_of(NESTED))(images, targets, step=step, views=AXIAL)[1]
        inner = moved[:, 8:-8, 8:-8]  # beyond the region is background
        assert IGNORED in inner.unique().tolist()
        assert 0 not in inner.unique().tolist()


def test_a_fingerprint_counts_every_label_whole() -> None:
    image, mask = draw_nested(1)
    mask[0, 0, 0] = 3
    found = fingerprint_case("a", [Volume(image, np.eye(4))], mask, 3, members=members_of(NESTED))
    assert found.label_voxels == tuple(int((mask > label).sum()) for label in range(3))
    assert found.largest_shares == tuple(largest_share(mask > label) for label in range(3))
