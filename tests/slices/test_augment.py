"""Augmentation moves images and targets together, follows from seed and step, and can be switched off."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from medfcn.labels import IGNORED
from medfcn.settings import AugmentSettings, View
from medfcn.slices.augment import Augmenter, _blurred
from medfcn.slices.movement import Movements, _mirrored, smooth_field
from medfcn.slices.sampler import SliceSampler

STRENGTHS = [item.name for item in dataclasses.fields(AugmentSettings) if item.name not in ("mirror", "movement")]
OFF: dict[str, Any] = dict.fromkeys(STRENGTHS, 0.0)
GEOMETRY = ("rotation_degrees", "scale", "shear", "shift", "elastic")
STRONG = {name: getattr(AugmentSettings(), name) for name in GEOMETRY}
"""The defaults, of slices that are all moved."""


def _augmenter(changed: dict[str, Any], window: tuple[int, int], *, axes: Any = ()) -> Augmenter:
    return Augmenter(AugmentSettings(**(OFF | changed)), window, axes, 7)


def _batch(window: tuple[int, int], *, count: int = 6, channels: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    region = SliceSampler(cases=(), window=window, context=1, batch_size=1, foreground_share=0, seed=0).region
    random = torch.Generator().manual_seed(1)
    images = torch.randn((count, channels, *region), generator=random)
    return images, torch.randint(0, 4, (count, *region), generator=random).to(torch.uint8)


def _axial(images: torch.Tensor) -> tuple[View, ...]:
    """All slices lie in one plane, in which the axes 0 and 1 of the network grid are H and W."""
    return ("axial",) * len(images)


def _centre(tensor: torch.Tensor, window: tuple[int, int]) -> torch.Tensor:
    top, left = ((size - edge) // 2 for size, edge in zip(tensor.shape[-2:], window, strict=True))
    return tensor[..., top : top + window[0], left : left + window[1]]


@given(st.tuples(st.integers(8, 60), st.integers(8, 60)))
@settings(max_examples=40, deadline=None)
def test_without_any_strength_the_window_comes_out_as_it_is(window: tuple[int, int]) -> None:
    images, targets = _batch(window)
    found, moved = _augmenter({}, window)(images, targets, step=0, views=_axial(images))
    assert found.shape == (6, 2, *window)
    assert moved.dtype == targets.dtype
    assert torch.allclose(found, _centre(images, window), atol=2e-4)
    assert torch.equal(moved, _centre(targets, window))


def _organs(window: tuple[int, int], count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Soft ellipses whose half-height contour is the target."""
    images, _ = _batch(window, count=count, channels=1)
    random = np.random.default_rng(0)
    for index in range(count):
        height, width = images.shape[-2:]
        rows, columns = np.mgrid[:height, :width]
        middle = np.array([height, width]) / 2 + random.uniform(-6, 6, 2)
        distance = np.hypot((rows - middle[0]) / 9, (columns - middle[1]) / 15)
        images[index, 0] = torch.from_numpy(1 / (1 + np.exp(8 * (distance - 1))))
    return images, (images[:, 0] > 0.5).to(torch.uint8)


@pytest.mark.parametrize("changed", [STRONG, *({name: STRONG[name]} for name in GEOMETRY)], ids=str)
def test_image_and_target_move_together(changed: dict[str, float]) -> None:
    window = (40, 52)
    images, targets = _organs(window, 16)
    still = _centre(targets, window)
    augmenter, moved_at_all = _augmenter(changed, window, axes=(0, 1)), False
    for step in range(5):
        found, moved = augmenter(images, targets, step=step, views=_axial(images))
        shown = found[:, 0] > 0.5
        dice = 2 * (shown & (moved == 1)).sum() / (shown.sum() + (moved == 1).sum())
        assert dice > 0.97
        assert (moved == 1).sum() > 0.5 * still.sum()
        moved_at_all |= not torch.equal(moved, still)
    assert moved_at_all


def test_a_batch_follows_from_seed_and_step() -> None:
    window, settings_ = (24, 32), AugmentSettings(mirror="always")
    images, targets = _batch(window)
    augmenter = Augmenter(settings_, window, (0, 1), 7)
    first = [augmenter(images, targets, step=step, views=_axial(images)) for step in range(3)]
    again = [
        Augmenter(settings_, window, (0, 1), 7)(images, targets, step=step, views=_axial(images))
        for step in (2, 1, 0)
    ][::-1]
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
    assert not torch.equal(first[0][0], first[1][0])
    assert not torch.equal(
        Augmenter(settings_, window, (0, 1), 8)(images, targets, step=0, views=_axial(images))[0], first[0][0]
    )


@pytest.mark.parametrize("axes", [(), (0,), (1,), (0, 1)])
def test_only_the_axes_allowed_are_mirrored(axes: tuple[int, ...]) -> None:
    window = (16, 20)
    images, targets = _batch(window, count=8)
    plain, labels = _centre(images, window), _centre(targets, window)
    allowed = [
        (),
        *([(0,)] if 0 in axes else []),
        *([(1,)] if 1 in axes else []),
        *([(0, 1)] if len(axes) == 2 else []),
    ]
    seen = set()
    for step in range(12):
        found, moved = _augmenter({}, window, axes=axes)(images, targets, step=step, views=_axial(images))
        for index in range(len(images)):
            fits = [
                flips
                for flips in ((), (0,), (1,), (0, 1))
                if torch.allclose(found[index], plain[index].flip([1 + axis for axis in flips]), atol=1e-3)
            ]
            assert len(fits) == 1
            assert torch.equal(moved[index], labels[index].flip(list(fits[0])))
            seen.add(fits[0])
    assert seen == set(allowed)


def test_each_slice_is_mirrored_along_what_its_view_allows() -> None:
    """Never across left and right: the axes of A and S are W in an axial and a coronal slice, both in a sagittal."""
    window = (16, 20)
    images, _ = _batch(window, count=9)
    views: tuple[View, ...] = ("axial", "coronal", "sagittal") * 3
    augmenter = _augmenter({}, window, axes=(1, 2))
    seen: dict[View, set[tuple[int, ...]]] = {view: set() for view in views}
    for step in range(12):
        found, _ = augmenter(images, torch.zeros(9, *images.shape[2:]), step=step, views=views)
        for index, view in enumerate(views):
            plain = _centre(images, window)[index]
            seen[view] |= {
                flips
                for flips in ((), (0,), (1,), (0, 1))
                if torch.allclose(found[index], plain.flip([1 + axis for axis in flips]), atol=1e-3)
            }
    assert seen == {"axial": {(), (1,)}, "coronal": {(), (1,)}, "sagittal": {(), (0,), (1,), (0, 1)}}


def test_no_label_is_invented() -> None:
    window = (24, 24)
    images, targets = _batch(window)
    targets = torch.where(targets == 2, 0, targets)  # 1 and 3 are there, 2 lies between them
    augmenter = Augmenter(AugmentSettings(rotation_degrees=90, elastic=0.2), window, (0, 1), 0)
    for step in range(5):
        found = augmenter(images, targets, step=step, views=_axial(images))[1]
        assert set(found.unique().tolist()) <= {0, 1, 3}


def test_intensity_changes_leave_the_targets_alone() -> None:
    window = (24, 24)
    images, targets = _batch(window)
    strong = {name: getattr(AugmentSettings(), name) or 1.0 for name in STRENGTHS if name not in GEOMETRY}
    for step in range(4):
        found, moved = _augmenter(strong, window)(images, targets, step=step, views=_axial(images))
        assert torch.equal(moved, _centre(targets, window))
        assert torch.isfinite(found).all()
        assert not torch.allclose(found, _centre(images, window), atol=1e-2)


@pytest.mark.parametrize("name", [name for name in STRENGTHS if name != "still_share"])
def test_every_strength_changes_the_images_by_itself(name: str) -> None:
    window = (24, 24)
    images, targets = _batch(window, count=16)
    augmenter = _augmenter({name: getattr(AugmentSettings(), name) or 1.0}, window)
    assert any(
        not torch.allclose(
            augmenter(images, targets, step=step, views=_axial(images))[0], _centre(images, window), atol=1e-3
        )
        for step in range(3)
    )


@pytest.mark.parametrize("window", [(16, 20), (17, 20), (23, 9)])
def test_slices_that_lie_still_keep_their_pixels(window: tuple[int, int]) -> None:
    """They are shifted by whole pixels, up to a tenth of the window; as many as were asked for, and no others."""
    images, targets = _batch(window, count=100)
    corners = [(size - edge) // 2 for size, edge in zip(images.shape[-2:], window, strict=True)]
    reach = [round(0.1 * edge) for edge in window]
    for share, least, most in ((1.0, 100, 100), (0.6, 45, 75), (0.0, 0, 0)):
        augmenter = _augmenter(STRONG | {"still_share": share}, window)
        found, moved = augmenter(images, targets, step=3, views=_axial(images))
        shifts = []
        for index in range(len(images)):
            for down in range(-reach[0], reach[0] + 1):
                for right in range(-reach[1], reach[1] + 1):
                    place = (
                        slice(corners[0] + down, corners[0] + down + window[0]),
                        slice(corners[1] + right, corners[1] + right + window[1]),
                    )
                    if torch.equal(found[index], images[index, :, place[0], place[1]]):
                        assert torch.equal(moved[index], targets[index, place[0], place[1]])
                        shifts.append((down, right))
        assert least <= len(shifts) <= most
        assert len(set(shifts)) > 4 or not share


def test_rotation_keeps_lengths_on_oblong_windows() -> None:
    """A disc stays a disc of its size, whatever the window's shape."""
    window = (32, 64)
    images, _ = _batch(window, count=12, channels=1)
    height, width = images.shape[-2:]
    rows, columns = np.mgrid[:height, :width]
    disc = np.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2) < 10
    targets = torch.from_numpy(np.broadcast_to(disc, (12, height, width)).astype(np.uint8))
    moved = _augmenter({"rotation_degrees": 90.0}, window)(images, targets, step=1, views=_axial(images))[1]
    expected = _centre(targets, window)
    assert ((moved != expected).sum(dim=(1, 2)) < 0.12 * disc.sum()).all()


def test_empty_batches_of_air_stay_finite() -> None:
    images, targets = torch.zeros(4, 1, 30, 30), torch.zeros(4, 30, 30, dtype=torch.uint8)
    found, moved = Augmenter(AugmentSettings(), (24, 24), (0, 1), 0)(images, targets, step=2, views=_axial(images))
    assert torch.isfinite(found).all()
    assert not moved.any()


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_ignored_pixels_move_as_a_label_does(step: int) -> None:
    """Where the third label is ignored instead, its pixels are ignored and no others change."""
    window = (24, 32)
    images, _ = _batch(window, count=4)
    coarse = torch.randint(0, 4, (4, 1, 6, 7), generator=torch.Generator().manual_seed(step)).float()
    targets = torch.nn.functional.interpolate(coarse, size=images.shape[-2:])[:, 0].to(torch.uint8)
    with_third, moved = _augmenter(STRONG, window)(images, targets, step=step, views=_axial(images))
    ignoring = torch.where(targets == 3, IGNORED, targets.long()).to(torch.uint8)
    with_ignored, found = _augmenter(STRONG, window)(images, ignoring, step=step, views=_axial(images))
    assert torch.equal(with_ignored, with_third)
    assert found.dtype == torch.uint8
    assert torch.equal(found[moved == 3], torch.full_like(found[moved == 3], IGNORED))
    decided = (moved != 3) & (moved != 0)
    assert torch.equal(found[decided], moved[decided])
    assert bool((found == IGNORED).any())


def test_a_pixel_between_a_label_and_what_is_ignored_is_never_background() -> None:
    window = (24, 32)
    images, targets = _batch(window, count=4)
    targets[:] = IGNORED
    targets[:, :, targets.shape[2] // 2 :] = 1
    for step in range(10):
        changed = {name: STRONG[name] for name in ("rotation_degrees", "elastic")}
        _, found = _augmenter(changed, window)(images, targets, step=step, views=_axial(images))
        inner = found[:, 6:-6, 6:-6]  # beyond the region is background
        assert set(inner.unique().tolist()) == {1, IGNORED}


@pytest.mark.parametrize("window", [(24, 32), (9, 7)])
@pytest.mark.parametrize("step", range(4))
def test_a_share_is_augmented_as_in_the_whole_batch(window: tuple[int, int], step: int) -> None:
    """Noise, too, also where a slice's pixels are no multiple of what torch draws at once."""
    augmenter = Augmenter(dataclasses.replace(AugmentSettings(), mirror="always"), window, (0, 2), 7)
    images, targets = _batch(window, count=7)
    targets[5] = IGNORED  # one share has voxels to ignore, the others none
    views: tuple[View, ...] = ("axial", "coronal", "sagittal") * 2 + ("axial",)
    whole, moved = augmenter(images, targets, step=step, views=views)
    for share in (range(3), range(3, 5), range(5, 7)):
        mine = slice(share.start, share.stop)
        found, found_targets = augmenter(images[mine], targets[mine], step=step, views=views, share=share)
        assert torch.equal(found, whole[mine])
        assert torch.equal(found_targets, moved[mine])


def test_coarser_pixels_keep_means_and_take_detail_away() -> None:
    window = (32, 48)
    images, targets = _batch(window, count=64, channels=1)
    found, moved = _augmenter({"low_resolution": 3.0}, window)(images, targets, step=0, views=_axial(images))
    whole = _centre(images, window)
    changed = [index for index in range(64) if not torch.allclose(found[index], whole[index], atol=2e-4)]
    assert 0 < len(changed) < 24
    for index in changed:
        assert found[index].std() < 0.9 * whole[index].std()
        assert abs(float(found[index].mean() - whole[index].mean())) < 0.05
    assert torch.equal(moved, _centre(targets, window))


@given(st.integers(0, 10**6), st.sampled_from([2, 104]), st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_vote_of_four_pixels_gives_what_interpolated_masks_give(step: int, labels: int, ignores: bool) -> None:
    window = (24, 31)
    images, _ = _batch(window, count=4)
    coarse = torch.randint(0, labels + 1, (4, 1, 9, 8), generator=torch.Generator().manual_seed(step)).float()
    targets = torch.nn.functional.interpolate(coarse, size=images.shape[-2:])[:, 0].to(torch.uint8)
    if ignores:
        targets[targets == 1] = IGNORED
    augmenter = _augmenter(STRONG, window, axes=(0, 1))
    _, found = augmenter(images, targets, step=step, views=_axial(images))

    values = torch.tensor([*range(1, labels + 1), IGNORED])
    masks = (targets[:, None] == values[:, None, None]).float()
    shares, _ = augmenter(masks, targets, step=step, views=_axial(images))  # as images, of which none is changed
    shares = torch.cat([1 - shares.sum(dim=1, keepdim=True), shares], dim=1)
    classes = torch.tensor([0, *values.tolist()])
    most, best = shares.max(dim=1)
    expected = torch.where((most > 0.5) | (shares[:, -1] > 0), classes[best], 0).to(torch.uint8)
    # A tie is decided by the last bit of a sum; everywhere else the two agree.
    second = shares.topk(2, dim=1).values[:, 1]
    clear = (most - second > 1e-4) & ((most - 0.5).abs() > 1e-4)
    assert clear.float().mean() > 0.5
    assert torch.equal(found[clear], expected[clear])


def test_targets_and_pixels_beyond_the_region_are_background_and_zero() -> None:
    window = (16, 20)
    images, targets = torch.ones(20, 1, 20, 26), torch.full((20, 20, 26), 3, dtype=torch.uint8)
    for still in (0.0, 1.0):
        changed = {"still_share": still, "shift": 1.5}
        found, moved = _augmenter(changed, window, axes=(0, 1))(images, targets, step=0, views=_axial(images))
        assert set(moved.unique().tolist()) == {0, 3}
        assert torch.equal(found[:, 0] > 0.5, moved == 3)


@pytest.mark.parametrize("bend", [None, (5, 5), (3, 4)])
def test_positions_are_those_of_an_affine_map_and_a_bicubic_deformation(bend: tuple[int, int] | None) -> None:
    random, window, region = np.random.default_rng(4), (17, 24), (22, 29)
    matrix, shift = random.normal(size=(3, 2, 2)), random.normal(size=(3, 2))
    points = None if bend is None else random.normal(size=(3, 2, *bend))
    movements = Movements(matrix, shift, np.ones((3, 2)), np.zeros(3, bool), points)
    columns, rows = movements.positions(window, region, torch.device("cpu"))

    half_out, half_in = np.array(window) / 2, np.array(region) / 2
    scaled = matrix * half_out[None, None, :] / half_in[None, :, None]
    theta = np.concatenate([scaled[:, ::-1, ::-1], (shift / half_in)[:, ::-1, None]], axis=2)
    grid = torch.nn.functional.affine_grid(torch.from_numpy(theta.copy()), [3, 1, *window], align_corners=False)
    if points is not None:
        coarse = torch.from_numpy(points)
        field = torch.nn.functional.interpolate(coarse, size=window, mode="bicubic", align_corners=True)
        grid = grid + field.permute(0, 2, 3, 1)
        assert torch.allclose(smooth_field(points, window, coarse.device).double(), field, atol=1e-5)
    assert torch.allclose(torch.stack([columns, rows], dim=-1).double(), grid, atol=1e-5)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 30), st.integers(1, 30), st.floats(0.05, 3.0))
@settings(max_examples=40, deadline=None)
def test_blur_is_a_gaussian_convolution(count: int, channels: int, height: int, width: int, sigma: float) -> None:
    images = torch.randn((count, channels, height, width), generator=torch.Generator().manual_seed(1))
    radius = max(1, round(3 * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1).double() / sigma) ** 2)
    kernel = torch.outer(taps, taps) / taps.sum() ** 2
    flat = functional.pad(images.double().reshape(-1, 1, height, width), (radius,) * 4, mode="replicate")
    expected = functional.conv2d(flat, kernel[None, None]).reshape(images.shape)
    assert torch.allclose(_blurred(images, sigma).double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("axes", [(False, False), (True, False), (False, True), (True, True)])
def test_arrays_are_mirrored_as_tensors_are(axes: tuple[bool, bool]) -> None:
    part = torch.arange(24.0).reshape(2, 3, 4)
    expected = part.flip([1 + axis for axis in range(2) if axes[axis]])
    assert torch.equal(_mirrored(part, axes), expected)
    assert np.array_equal(_mirrored(part.numpy(), axes), expected.numpy())
