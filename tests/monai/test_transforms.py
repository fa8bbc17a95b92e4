"""MONAI transforms to the network grid and to slices: they compose, return, and equal the steps of medfcn."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import (
    Compose,
    Flipd,
    Invertd,
    Orientationd,
    RandAffined,
    ScaleIntensityd,
    Spacingd,
    SpatialPadd,
)
from monai.utils import GridSampleMode

from medfcn.errors import SettingsError
from medfcn.monai.loading import LoadVolumed, image_tensor, label_tensor
from medfcn.monai.transforms import NormaliseIntensityd, SliceVolumed, ToNetworkGridd, network_transforms
from medfcn.networks.sliding import Sliding, sliding_logits
from medfcn.slices.grid import map_to_network, to_network_grid
from medfcn.slices.overlaps import overlaps_to_native, overlaps_to_network
from medfcn.slices.plan import Intensity, Plan
from medfcn.slices.preprocess import grid_of, network_image
from medfcn.slices.slicing import VIEW_AXIS
from medfcn.volumes import Volume, orientation_of, spacing_mm
from tests.slices.stored_orders import ORDERS, oblique_affine, positions, restored, stored_in

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


def _class_map(dtype: torch.dtype, order: int = 11) -> MetaTensor:
    """Classes 0, 1 and 3 side by side: whoever interpolates between 1 and 3 invents a 2."""
    classes = np.zeros((1, 12, 10, 8))
    classes[:, 2:6], classes[:, 6:10] = 1, 3
    stored, affine = stored_in(classes, oblique_affine(5, (0.8, 1.3, 2.5), most_degrees=30), ORDERS[order])
    return MetaTensor(torch.tensor(stored.copy(), dtype=dtype), affine=torch.from_numpy(affine))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8, torch.int16])
@pytest.mark.parametrize("mode", ["nearest", GridSampleMode.NEAREST])
def test_nearest_invents_no_class_whatever_the_type(dtype: torch.dtype, mode: Any) -> None:
    to_grid = ToNetworkGridd("label", (1.1, 1.1, 1.1), mode)
    there = to_grid({"label": _class_map(dtype)})["label"]
    assert there.dtype == dtype
    assert set(np.unique(there.numpy())) == {0, 1, 3}
    back = to_grid.inverse({"label": there})["label"]
    assert back.dtype == dtype
    assert set(np.unique(back.numpy())) == {0, 1, 3}
    whole = to_network_grid(_class_map(torch.uint8).numpy(), _grid_of(_class_map(dtype), (1.1, 1.1, 1.1)))
    assert np.array_equal(there.numpy(), whole)  # the same voxels as the whole numbers that training reads


def _grid_of(tensor: MetaTensor, wanted: tuple[float, float, float]) -> Any:
    affine = tensor.affine.numpy()
    shape = (int(tensor.shape[1]), int(tensor.shape[2]), int(tensor.shape[3]))
    return map_to_network(shape, orientation_of(affine), spacing_mm(affine), wanted)


def test_bilinear_interpolates_whole_numbers_too() -> None:
    there = ToNetworkGridd("image", (1.1, 1.1, 1.1), "bilinear")({"image": _class_map(torch.int16)})["image"]
    assert there.dtype == torch.float32
    assert not (there == there.round()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_invertd_with_nearest_is_obeyed(dtype: torch.dtype) -> None:
    """A network's class map, float as torch makes it, is brought back by the trace of an interpolated image."""
    image = _class_map(torch.float32)
    to_grid = Compose([ToNetworkGridd("image", (1.1, 1.1, 1.1), "bilinear")])
    sample = to_grid({"image": image})
    predicted = ToNetworkGridd("pred", (1.1, 1.1, 1.1), "nearest")({"pred": _class_map(dtype)})["pred"]
    sample["pred"] = MetaTensor(predicted.as_tensor())
    back = Invertd("pred", to_grid, orig_keys="image", nearest_interp=True)(dict(sample))["pred"]
    assert set(np.unique(back.numpy())) == {0, 1, 3}
    assert back.shape == image.shape
    np.testing.assert_allclose(back.affine.numpy(), image.affine.numpy())
    smooth = Invertd("pred", to_grid, orig_keys="image", nearest_interp=False)(dict(sample))["pred"]
    assert len(np.unique(smooth.numpy())) > 3


def test_maps_of_many_values_take_the_nearest_voxel_from_every_stored_order() -> None:
    """Instance numbers are too many to weigh each one's share."""
    random = np.random.default_rng(0)
    numbers = random.integers(0, 10_000, (1, 9, 8, 7)).astype(np.int32)
    affine = oblique_affine(8, (0.8, 1.2, 2.0))
    expected = None
    for order in ORDERS:
        stored, stored_affine = stored_in(numbers, affine, order)
        tensor = MetaTensor(torch.from_numpy(stored.copy()), affine=torch.from_numpy(stored_affine))
        to_grid = ToNetworkGridd("label", (1.0, 1.0, 1.0))
        there = to_grid({"label": tensor})
        back = restored(to_grid.inverse(there)["label"].numpy()[0], order)
        expected = back if expected is None else expected
        assert np.array_equal(back, expected)
        assert set(np.unique(back)) <= set(np.unique(numbers))
        assert there["label"].dtype == torch.int32
    finer = ToNetworkGridd("label", (0.4, 0.4, 0.4))
    there = finer({"label": MetaTensor(torch.from_numpy(numbers), affine=torch.from_numpy(affine))})
    assert np.array_equal(finer.inverse(there)["label"].numpy(), numbers)


def test_other_modes_are_refused() -> None:
    with pytest.raises(SettingsError, match="'bicubic' is not bilinear or nearest"):
        ToNetworkGridd("image", mode="bicubic")
    with pytest.raises(ValueError, match="length 2, got 3"):
        ToNetworkGridd(["image", "label"], mode=["nearest", "nearest", "nearest"])


def test_labels_that_overlap_go_by_the_shares_of_each_label() -> None:
    members = np.array([[False, False], [True, False], [True, True]])
    sample = _sample()["label"]
    grid = _grid_of(sample, (1.0, 1.0, 1.0))
    to_grid = ToNetworkGridd("label", (1.0, 1.0, 1.0), "nearest", members=members)
    there = to_grid({"label": sample})
    assert np.array_equal(there["label"].numpy()[0], overlaps_to_network(sample.numpy()[0], grid, members))
    back = to_grid.inverse(there)["label"].numpy()[0]
    assert np.array_equal(back, overlaps_to_native(there["label"].numpy()[0], grid, members))


MODES = ("bilinear", "nearest")


@pytest.mark.parametrize("order", range(0, 48, 7))
def test_they_compose_with_monais_own_and_return(order: int) -> None:
    keys = ["image", "label"]
    classes = _class_map(torch.float32, order)
    sample = {"image": MetaTensor(torch.rand_like(classes.as_tensor()), affine=classes.affine), "label": classes}
    steps = [
        Orientationd(keys, axcodes="LPS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
        Spacingd(keys, pixdim=(1.0, 1.1, 1.7), mode=MODES),
        ToNetworkGridd(keys, (1.2, 1.2, None), mode=MODES),
        RandAffined(keys, prob=1.0, rotate_range=0.2, scale_range=0.1, mode=MODES, padding_mode="border"),
        SliceVolumed(keys, "coronal", context=(3, 1)),
    ]
    composed = Compose(steps).set_random_state(3)
    there = composed(sample)
    assert there["image"].shape[1] == 3
    assert there["label"].shape[1] == 1
    assert set(np.unique(there["label"].numpy())) <= {0, 1, 3}
    back = composed.inverse(there)
    for key in keys:
        assert back[key].shape == sample[key].shape
        np.testing.assert_allclose(back[key].affine.numpy(), sample[key].affine.numpy(), atol=1e-6)
        assert not back[key].applied_operations
    assert set(np.unique(back["label"].numpy())) == {0, 1, 3}
    predicted = {**there, "pred": MetaTensor(there["label"].as_tensor())}
    pred = Invertd("pred", composed, orig_keys="image")(predicted)["pred"]
    assert set(np.unique(pred.numpy())) == {0, 1, 3}
    assert (pred == back["label"]).float().mean() > 0.95
    still = Compose(steps[:3] + steps[4:])
    # Two nearest resamplings may move each of the three borders, of 12 voxels, by one.
    assert (still.inverse(still(sample))["label"] == sample["label"]).float().mean() >= 0.75


@pytest.mark.parametrize("view", sorted(VIEW_AXIS))
def test_labels_of_all_48_orientations_return_exactly_through_compose_and_invertd(view: Any) -> None:
    """Masks from a network, as floats, come back voxel for voxel, whichever way the file stores its axes."""
    random = np.random.default_rng(1)
    image, labels = random.normal(size=(6, 7, 8)), random.choice([0.0, 1.0, 3.0], (6, 7, 8))
    affine = oblique_affine(2, (0.8, 1.3, 2.5), most_degrees=30)
    keys = ["image", "label"]
    composed = Compose(
        [
            LoadVolumed(keys),
            ToNetworkGridd(keys, mode=MODES),
            NormaliseIntensityd("image", [ZSCORE]),
            SliceVolumed(keys, view, context=(3, 1)),
        ]
    )
    invert = Invertd(["pred", "label"], composed, orig_keys=["image", "label"], nearest_interp=True)
    seen = None
    for order in ORDERS:
        stored, place = stored_in(labels, affine, order)
        there = composed({"image": (stored_in(image, affine, order)[0], place), "label": (stored, place)})
        seen = there["image"].numpy() if seen is None else seen
        assert np.array_equal(there["image"].numpy(), seen)  # one network input, however it is stored
        there["pred"] = MetaTensor(there["label"].as_tensor().clone())
        back = invert(there)
        for key in ("pred", "label"):
            assert np.array_equal(back[key].numpy()[0], stored)
            np.testing.assert_allclose(back[key].affine.numpy(), place)


@given(st.tuples(*[st.integers(1, 9)] * 3), st.sampled_from(sorted(VIEW_AXIS)), st.sampled_from([1, 3, 5]))
@settings(max_examples=60, deadline=None)
def test_slices_return_to_their_volume_and_are_those_that_the_network_sees(
    shape: tuple[int, int, int], view: Any, context: int
) -> None:
    volume = torch.from_numpy(np.random.default_rng(sum(shape)).normal(size=(2, *shape)).astype(np.float32))
    cut = SliceVolumed("image", view, context=context)
    there = cut({"image": MetaTensor(volume)})
    seen: list[torch.Tensor] = []
    sliding_logits(volume.numpy(), lambda part: seen.append(part) or part, view, Sliding((1, 1), context, 100))
    if len(seen) == 1:  # in one piece
        assert torch.equal(there["image"].as_tensor(), seen[0])
    back = cut.inverse(there)["image"]
    assert torch.equal(back.as_tensor(), volume)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_predictions_are_stacked_with_all_their_channels(channels: int) -> None:
    """Also with as many as the input has with its context."""
    cut = Compose([SliceVolumed("image", "sagittal", context=3)])
    sample = cut({"image": MetaTensor(torch.rand(1, 4, 5, 6))})
    logits = torch.rand(4, channels, 5, 6)
    back = Invertd("pred", cut, orig_keys="image")({**sample, "pred": MetaTensor(logits)})["pred"]
    assert torch.equal(back.as_tensor(), logits.movedim(0, 1))


def test_an_even_context_is_refused() -> None:
    with pytest.raises(SettingsError, match="context 2 is not an odd number"):
        SliceVolumed("image", "axial", context=2)


def test_a_loaders_batches_are_undone() -> None:
    samples = [_sample(seed) for seed in (1, 2)]
    keys = ["image", "label"]
    composed = Compose([ToNetworkGridd(keys, mode=MODES), SliceVolumed(keys, "axial", context=(3, 1))])
    batch = next(iter(DataLoader(Dataset(samples, composed), batch_size=2)))
    assert batch["image"].ndim == 5
    batch["pred"] = batch["label"].float()
    invert = Invertd("pred", composed, orig_keys="image")
    for item, sample in zip(decollate_batch(batch), samples, strict=True):
        assert np.array_equal(invert(item)["pred"].numpy(), sample["label"].numpy())
