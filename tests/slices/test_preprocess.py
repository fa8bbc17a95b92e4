"""The network's input: transforms that compose in MONAI, intensities that compare, channels that lie on one grid."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose, Flipd, ScaleIntensityd, SpatialPadd
from numpy.typing import NDArray

from medfcn.errors import GeometryMismatchError, VolumeError
from medfcn.monai.transforms import (
    NormaliseIntensityd,
    ToNetworkGridd,
    image_tensor,
    label_tensor,
    network_transforms,
)
from medfcn.slices.grid import to_network_grid
from medfcn.slices.plan import Intensity, Plan
from medfcn.slices.preprocess import grid_of, network_image, normalise
from medfcn.volumes import Volume
from tests.slices.stored_orders import ORDERS, oblique_affine, positions, stored_in

ZSCORE = Intensity("zscore")


def _sample(seed: int = 0, order: int = 11) -> dict[str, MetaTensor]:
    random = np.random.default_rng(seed)
    affine = oblique_affine(seed, (0.8, 1.3, 2.5), most_degrees=30)
    image, stored_affine = stored_in(random.normal(size=(2, 7, 6, 5)).astype(np.float32), affine, ORDERS[order])
    labels, _ = stored_in(random.integers(0, 3, (1, 7, 6, 5)).astype(np.uint8), affine, ORDERS[order])
    place = torch.from_numpy(stored_affine)
    return {
        "image": MetaTensor(torch.from_numpy(image.copy()), affine=place, meta={"filename_or_obj": "case.nii.gz"}),
        "label": MetaTensor(torch.from_numpy(labels.copy()), affine=place),
    }


@pytest.mark.parametrize("order", range(0, 48, 5))
def test_the_transform_composes_with_those_of_monai_and_returns(order: int) -> None:
    sample = _sample(order=order)
    keys = ["image", "label"]
    composed = Compose([ToNetworkGridd(keys), Flipd(keys, spatial_axis=1), SpatialPadd(keys, spatial_size=(9, 9, 9))])
    there = composed(sample)
    assert there["image"].shape == (2, 9, 9, 9)
    back = composed.inverse(there)
    for key in keys:
        assert back[key].dtype == sample[key].dtype
        assert np.array_equal(back[key].numpy(), sample[key].numpy())
        np.testing.assert_allclose(back[key].affine.numpy(), sample[key].affine.numpy(), atol=1e-9)
        assert not back[key].applied_operations
    assert back["image"].meta["filename_or_obj"] == "case.nii.gz"


def test_the_transform_follows_others_and_leaves_their_marks() -> None:
    sample = _sample()
    composed = Compose(
        [Flipd("image", spatial_axis=0), ToNetworkGridd("image", (1.0, None, 2.0)), ScaleIntensityd("image")]
    )
    there = composed(sample)["image"]
    back = Compose(composed.transforms[:2]).inverse({"image": there})["image"]
    assert back.shape == sample["image"].shape
    np.testing.assert_allclose(back.affine.numpy(), sample["image"].affine.numpy(), atol=1e-9)


def test_the_transform_does_not_change_what_it_is_given() -> None:
    sample = _sample()
    image, affine = sample["image"].numpy().copy(), sample["image"].affine.numpy().copy()
    network_transforms(_plan(), keys=("image", "label"))(sample)
    assert np.array_equal(sample["image"].numpy(), image)
    assert np.array_equal(sample["image"].affine.numpy(), affine)
    assert not sample["image"].applied_operations


@given(
    st.integers(0, 999), st.integers(0, 47), st.sampled_from([(None, None, None), (1.0, 0.9, None), (2.0, 2.0, 1.0)])
)
@settings(max_examples=30, deadline=None)
def test_the_affine_takes_network_voxels_to_their_points_in_the_world(seed: int, order: int, wanted: Any) -> None:
    """The image holds its own world coordinates: what the affine says of a voxel stands in it."""
    stored, affine = stored_in(np.zeros((6, 7, 8)), oblique_affine(seed, (0.8, 1.3, 2.5)), ORDERS[order])
    world = positions(stored.shape, affine)
    image = MetaTensor(torch.from_numpy(world.astype(np.float32)), affine=torch.from_numpy(affine))
    moved = ToNetworkGridd("image", wanted)({"image": image})["image"]
    told = positions(moved.shape[1:], moved.affine.numpy())
    # The outermost voxels may lie outside the volume, where values are held.
    inner = (slice(None), *(slice(1, -1) for _ in range(3)))
    np.testing.assert_allclose(moved.numpy()[inner], told[inner], atol=1e-3)
    assert np.isfinite(moved.numpy()).all()


def test_a_label_that_was_resampled_returns_as_labels() -> None:
    sample = _sample()
    to_grid = ToNetworkGridd("label", (1.6, 2.1, None))
    back = to_grid.inverse(to_grid(sample))["label"]
    assert back.dtype == torch.uint8
    assert set(np.unique(back.numpy())) <= {0, 1, 2}


def test_missing_entries_are_refused_unless_allowed() -> None:
    sample = {"image": _sample()["image"]}
    with pytest.raises(KeyError, match="label"):
        ToNetworkGridd(["image", "label"])(sample)
    assert set(ToNetworkGridd(["image", "label"], allow_missing_keys=True)(sample)) == {"image"}


def _plan(intensities: tuple[Intensity, ...] = (ZSCORE, ZSCORE)) -> Plan:
    return Plan(
        views=("axial",),
        spacing_mm=(1.0, 1.0, None),
        window=(8, 8),
        context=1,
        widths=(4,),
        intensities=intensities,
        batch_size=2,
        mirror_axes=(),
        reasons={},
    )


def test_only_the_image_is_normalised() -> None:
    there = network_transforms(_plan(), keys=("image", "label"))(_sample())
    assert there["label"].dtype == torch.uint8
    assert there["image"].shape[1:] == there["label"].shape[1:]
    assert np.abs(there["image"].numpy().mean(axis=(1, 2, 3))).max() < 0.1


@given(st.integers(0, 99), st.integers(0, 47), st.sampled_from([(None, None, None), (1.0, 0.9, None)]))
@settings(max_examples=20, deadline=None)
def test_training_and_prediction_see_what_the_transforms_of_monai_make(seed: int, order: int, wanted: Any) -> None:
    """To the bit: a network trained by medfcn serves a MONAI pipeline, and the other way round."""
    stored, affine = stored_in(
        np.random.default_rng(seed).normal(40, 200, (2, 9, 8, 7)),
        oblique_affine(seed, (0.8, 1.3, 2.5)),
        ORDERS[order],
    )
    labels = (stored[0] > 0).astype(np.uint8)
    plan = dataclasses.replace(
        _plan((ZSCORE, Intensity("ct", lower=-100, upper=200, mean=50, std=25))), spacing_mm=wanted
    )
    volumes = [Volume(channel, affine) for channel in stored]
    sample = {"image": image_tensor(volumes), "label": label_tensor(labels, affine)}
    there = network_transforms(plan, keys=("image", "label"))(sample)
    assert np.array_equal(network_image(volumes, plan), there["image"].numpy())
    assert np.array_equal(to_network_grid(labels[None], grid_of(volumes[0], plan)), there["label"].numpy())


def test_each_channel_is_normalised_by_its_own_intensity() -> None:
    image = MetaTensor(torch.arange(48.0).reshape(2, 2, 3, 4))
    shown = NormaliseIntensityd("image", [ZSCORE, Intensity("ct", lower=0, upper=30, mean=10, std=5)])
    found = shown({"image": image})["image"].numpy()
    assert found[0].mean() == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(found[1], (np.clip(image.numpy()[1], 0, 30) - 10) / 5)


@given(st.integers(0, 999), st.floats(0.1, 50), st.floats(-300, 300))
@settings(max_examples=50, deadline=None)
def test_zscore_does_not_depend_on_the_scale_of_a_scanner(seed: int, slope: float, inter: float) -> None:
    array = np.random.default_rng(seed).normal(size=(6, 7, 8)).astype(np.float32)
    first = normalise(array, ZSCORE)
    np.testing.assert_allclose(normalise((slope * array + inter).astype(np.float32), ZSCORE), first, atol=2e-2)
    assert first.dtype == np.float32
    assert abs(float(first.mean())) < 1e-3
    assert 0.9 < float(first.std()) < 1.1


def test_zscore_is_not_moved_by_a_few_extreme_voxels() -> None:
    array = np.random.default_rng(0).normal(100, 10, (20, 20, 10)).astype(np.float32)
    spoilt = array.copy()
    spoilt[0, 0, :5] = 1e6
    clean, found = normalise(array, ZSCORE), normalise(spoilt, ZSCORE)
    np.testing.assert_allclose(found[1:], clean[1:], atol=0.15)
    assert found.max() < 5


def test_zscore_leaves_a_large_share_of_air_out() -> None:
    tissue = np.random.default_rng(0).normal(100, 10, (10, 10, 10)).astype(np.float32)
    surrounded = np.zeros((20, 20, 20), dtype=np.float32)
    surrounded[5:15, 5:15, 5:15] = tissue
    inside = normalise(surrounded, ZSCORE)[5:15, 5:15, 5:15]
    np.testing.assert_allclose(inside, normalise(tissue, ZSCORE), atol=0.02)


@pytest.mark.parametrize("value", [0.0, -1024.0, 7.5])
def test_a_constant_channel_becomes_zero(value: float) -> None:
    found = normalise(np.full((3, 4, 5), value, dtype=np.float32), ZSCORE)
    assert found.shape == (3, 4, 5)
    assert (found == 0).all()


def test_ct_is_clipped_and_scaled_by_the_figures_of_the_data_set() -> None:
    array = np.array([-1024.0, -100.0, 50.0, 3000.0], dtype=np.float32)
    found = normalise(array, Intensity("ct", lower=-100, upper=200, mean=50, std=25))
    assert found.tolist() == [-6.0, -6.0, 0.0, 6.0]
    assert found.dtype == np.float32


def _volume(affine: NDArray[np.float64], shape: tuple[int, int, int] = (4, 5, 6), name: str = "flair") -> Volume:
    return Volume(np.zeros(shape, dtype=np.int16), affine, name=name)


def test_channels_on_another_grid_are_refused_in_one_line() -> None:
    moved, first = np.eye(4), _volume(np.eye(4), name="t1")
    moved[0, 3] = 2.0
    for other in (_volume(moved), _volume(np.diag([-1.0, 1, 1, 1])), _volume(np.eye(4), (4, 5, 7))):
        with pytest.raises(GeometryMismatchError, match=r"t1.*channels of one case") as caught:
            image_tensor([first, other])
        assert "\n" not in str(caught.value)


def test_channels_are_stacked_with_their_affine() -> None:
    affine = oblique_affine(3, (1.0, 2.0, 3.0))
    volumes = [Volume(np.full((2, 3, 4), value), affine) for value in (1, 2)]
    tensor = image_tensor(volumes)
    assert tensor.shape == (2, 2, 3, 4)
    assert tensor.dtype == torch.float32
    assert tensor[:, 0, 0, 0].tolist() == [1, 2]
    assert np.array_equal(tensor.affine.numpy(), affine)
    labels = label_tensor(np.ones((2, 3, 4), dtype=np.uint8), affine)
    assert labels.shape == (1, 2, 3, 4)
    assert labels.dtype == torch.uint8


def test_intensities_beyond_float32_are_refused_not_made_infinite() -> None:
    array = np.ones((2, 2, 2))
    array[0, 0, 0] = 1e300
    with pytest.raises(VolumeError, match="huge: holds intensities"):
        image_tensor([Volume(array, np.eye(4), name="huge")])
