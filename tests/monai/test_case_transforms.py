"""A user's own MONAI transforms: applied to a case, undone for its mask, refused where they cannot be."""

import json
import pickle
from typing import Any

import numpy as np
import pytest
from monai.transforms import (
    Compose,
    CropForegroundd,
    DeleteItemsd,
    Flipd,
    Lambdad,
    OneOf,
    Orientationd,
    RandFlipd,
    RepeatChanneld,
    Resized,
    ScaleIntensityRanged,
    Spacingd,
    SpatialPadd,
)

from medfcn.errors import GeometryMismatchError, ModelError, SettingsError, VolumeError
from medfcn.monai.case_transforms import CaseTransforms
from medfcn.volumes import Volume
from tests.slices.stored_orders import ORDERS, oblique_affine, stored_in

KEYS = ["image", "label"]
MODES = ("bilinear", "nearest")
LABELS = (("L", "R"), ("P", "A"), ("I", "S"))


def case_of(order: int = 11) -> tuple[Volume, Volume]:
    random = np.random.default_rng(3)
    affine = oblique_affine(3, (0.9, 1.1, 2.0), most_degrees=20)
    labels = np.zeros((12, 11, 10), np.uint16)
    labels[3:8, 3:8, 2:7], labels[5:8, 4:7, 3:6] = 300, 7
    image, place = stored_in(random.normal(100, 20, labels.shape) * (1 + (labels > 0)), affine, ORDERS[order])
    return Volume(image, place, name="case"), Volume(stored_in(labels, affine, ORDERS[order])[0], place, name="case")


def spatial() -> list[Any]:
    return [
        Orientationd(KEYS, axcodes="RAS", labels=LABELS),
        Spacingd(KEYS, pixdim=(1.2, 1.2, 1.5), mode=MODES),
        SpatialPadd(KEYS, spatial_size=(16, 16, 16)),
        CropForegroundd(KEYS, source_key="image", select_fn=lambda image: image > 0),
    ]


@pytest.mark.parametrize("order", range(0, 48, 9))
def test_a_mask_returns_to_the_grid_of_the_file(order: int) -> None:
    image, mask = case_of(order)
    transforms = CaseTransforms(Compose([*spatial(), ScaleIntensityRanged("image", 0, 300, 0, 1)]))
    after = transforms([image], mask)
    assert after.mask is not None
    assert after.images[0].shape == after.mask.shape != image.shape
    assert after.images[0].array.max() <= 2
    assert set(np.unique(after.mask.array)) == {0, 7, 300}
    back = transforms.undo(after.mask.array, after)
    assert back.shape == image.shape
    assert back.dtype == after.mask.array.dtype
    assert set(np.unique(back)) == {0, 7, 300}
    assert (back == mask.array).mean() > 0.95
    without = transforms([image])
    assert without.mask is None
    assert np.array_equal(without.images[0].array, after.images[0].array)
    assert np.array_equal(transforms.undo(after.mask.array, without), back)
    shares = transforms.undo(np.stack([after.mask.array == 300, after.mask.array == 7]).astype(np.float32), after)
    assert shares.shape == (2, *image.shape)
    assert shares.dtype == np.float32


def test_flips_return_exactly() -> None:
    image, mask = case_of()
    transforms = CaseTransforms([Flipd(KEYS, spatial_axis=0), Orientationd(KEYS, axcodes="LPS", labels=LABELS)])
    after = transforms([image], mask)
    assert after.mask is not None
    assert np.array_equal(transforms.undo(after.mask.array, after), mask.array)


def test_the_volumes_that_come_in_stay_as_they_are() -> None:
    image, mask = case_of()
    before = image.array.copy()
    CaseTransforms(Lambdad("image", lambda tensor: tensor.mul_(0)))([image], mask)
    assert np.array_equal(image.array, before)


@pytest.mark.parametrize(
    "random",
    [RandFlipd("image"), Compose([RandFlipd("image")]), OneOf([Flipd("image", 0), Flipd("image", 1)])],
)
def test_random_transforms_are_refused(random: Any) -> None:
    with pytest.raises(SettingsError, match="is random, so a prediction could not repeat it") as caught:
        CaseTransforms(Compose([Flipd("image", 0), random]))
    assert caught.value.code == "TRANSFORM_RANDOM"


def test_what_is_no_transform_is_refused() -> None:
    with pytest.raises(SettingsError, match="str is not a transform"):
        CaseTransforms(["Flipd"])  # type: ignore[list-item]
    with pytest.raises(SettingsError, match="lazy"):
        CaseTransforms(Compose([Flipd("image", 0)], lazy=True))


class _Grey:
    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        return {**sample, "image": sample["image"].numpy()}


class _Moved:
    """Moves the volume in the world, which nothing undoes."""

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        for key in KEYS:
            sample[key].affine[0, 3] += 5
        return sample


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (Lambdad("image", lambda image: image / 0), "NaN or infinity"),
        (Lambdad("image", lambda image: image.reshape(-1, 7)), "the transforms failed"),
        (RepeatChanneld("image", 2), r"expected \(1, I, J, K\)"),
        (DeleteItemsd("image"), "the transforms failed"),
        (_Grey(), "a ndarray comes out"),
        (Spacingd(KEYS, pixdim=1.4, mode="bilinear"), 'mode="nearest" for the key "label"'),
    ],
)
def test_what_is_no_case_any_more_is_refused_in_one_line(transform: Any, words: str) -> None:
    image, mask = case_of()
    with pytest.raises(VolumeError, match=words) as caught:
        CaseTransforms(transform)([image], mask)
    assert str(caught.value).startswith("case: ")
    assert "\n" not in str(caught.value)


def test_a_transform_of_the_image_alone_that_moves_it_is_refused() -> None:
    image, mask = case_of()
    with pytest.raises(GeometryMismatchError):
        CaseTransforms(Flipd("image", spatial_axis=0))([image], mask)


def test_transforms_that_cannot_be_undone_are_refused_in_one_line() -> None:
    image, mask = case_of()

    def every_other(tensor: Any) -> Any:
        return tensor[:, ::2]

    transforms = CaseTransforms(Lambdad(KEYS, every_other))
    with pytest.raises(VolumeError, match=r"cannot be undone for its mask \(shape") as caught:
        transforms.require_usable([image], mask)
    assert "\n" not in str(caught.value)
    fine = CaseTransforms(Resized(KEYS, spatial_size=(8, 8, 8), mode=("trilinear", "nearest")))
    fine.require_usable([image], mask)
    elsewhere = mask.with_array(np.where(np.indices(mask.shape)[0] < 3, 7, 0).astype(np.uint8))
    silent = CaseTransforms(Lambdad(KEYS, lambda tensor: tensor.flip(1)))  # moves voxels, and no trace says so
    with pytest.raises(VolumeError, match="its label comes back in another place"):
        silent.require_usable([image], elsewhere)
    with pytest.raises(VolumeError, match="another affine than that of the file"):
        CaseTransforms(_Moved()).require_usable([image], mask)
    hidden = CaseTransforms(Lambdad("image", lambda tensor: tensor + np.random.default_rng().normal()))
    with pytest.raises(SettingsError, match="comes out in another way each time"):
        hidden.require_usable([image], mask)


def test_a_chain_returns_from_a_card() -> None:
    image, mask = case_of()
    chain = CaseTransforms(Compose([*spatial()[:3], Compose([ScaleIntensityRanged("image", 0, 300, 0, 1)])]))
    again = CaseTransforms.from_json(json.loads(json.dumps(chain.to_json())))
    assert again.sha256 == chain.sha256
    one, other = (each([image], mask) for each in (chain, again))
    assert np.array_equal(one.images[0].array, other.images[0].array)


def test_a_chain_that_no_card_can_hold_is_named() -> None:
    chain = CaseTransforms([Flipd("image", 0), Lambdad("image", lambda image: image), _Grey()])
    words = r"trained with monai\.transforms\.utility\.dictionary\.Lambdad, \S+\._Grey, which no card can hold"
    with pytest.raises(ModelError, match=words) as caught:
        CaseTransforms.from_json(chain.to_json())
    assert caught.value.code == "TRANSFORMS_MISSING"


def test_a_copy_for_another_process_has_the_records_alone() -> None:
    chain = CaseTransforms([Lambdad("image", lambda image: image)])
    copy = pickle.loads(pickle.dumps(chain))
    assert copy.sha256 == chain.sha256


@pytest.mark.parametrize("pixdim", [0.001, [0.5, 0.5, 0.0001]], ids=str)
def test_a_spacing_that_no_memory_holds_is_refused_before_resampling(pixdim: Any) -> None:
    from monai.transforms import Spacingd

    image = Volume(np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32), np.eye(4), name="case.nii")
    with pytest.raises(VolumeError, match=r"case\.nii: the transforms would make .* voxels of 8000; correct pixdim"):
        CaseTransforms([Spacingd(["image"], pixdim=pixdim)])([image])
