"""`LoadVolumed`: medfcn's trusted readers in a MONAI pipeline."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.transforms import Compose, LoadImage

from medfcn.errors import GeometryMismatchError, MissingFileError, VolumeError
from medfcn.monai.loading import LoadVolumed
from medfcn.volumes import ReadOptions, read_volume
from tests.conftest import draw_ball, write_case
from tests.slices.stored_orders import ORDERS, stored_in

KEYS = ["image", "label"]


@pytest.fixture
def case(tmp_path: Path) -> dict[str, str]:
    write_case(tmp_path, "ball", *draw_ball(3))
    return {key: str(tmp_path / f"{key}s" / "ball.nii.gz") for key in KEYS}


def test_a_file_is_loaded_as_monai_would_and_as_medfcn_reads(case: dict[str, str]) -> None:
    loaded = LoadVolumed(KEYS)(case)
    for key in KEYS:
        theirs = LoadImage(ensure_channel_first=True)(case[key])
        assert isinstance(loaded[key], MetaTensor)
        assert loaded[key].dtype == theirs.dtype == torch.float32
        assert torch.equal(loaded[key].as_tensor(), theirs.as_tensor())
        assert torch.allclose(loaded[key].affine, theirs.affine)
        assert loaded[key].meta["filename_or_obj"] == theirs.meta["filename_or_obj"]
        assert list(loaded[key].meta["spatial_shape"]) == list(theirs.meta["spatial_shape"])
        assert torch.allclose(loaded[key].meta["original_affine"], torch.as_tensor(theirs.meta["original_affine"]))
        assert np.array_equal(loaded[key][0].numpy(), read_volume(case[key]).array)


def test_a_type_for_each_key_and_none_keeps_the_files(case: dict[str, str]) -> None:
    loaded = LoadVolumed(KEYS, dtype=(np.float32, None))(case)
    assert [loaded[key].dtype for key in KEYS] == [torch.float32, torch.uint8]


def test_a_list_of_files_is_one_volume_of_several_channels(case: dict[str, str]) -> None:
    loaded = LoadVolumed("image")({"image": [case["image"], case["label"]]})["image"]
    assert loaded.shape[0] == 2
    assert torch.equal(loaded[1], LoadVolumed("label")(case)["label"][0])


def test_a_file_that_cannot_be_trusted_is_refused_in_one_line(case: dict[str, str], tmp_path: Path) -> None:
    content = Path(case["image"]).read_bytes()
    Path(case["image"]).write_bytes(content[: len(content) // 2])
    with pytest.raises(VolumeError) as caught:
        LoadVolumed(KEYS)(case)
    assert "\n" not in str(caught.value)
    with pytest.raises(MissingFileError):
        LoadVolumed(KEYS)({**case, "image": str(tmp_path / "none.nii.gz")})


def test_keys_on_different_grids_are_refused(case: dict[str, str]) -> None:
    mask = nibabel.load(case["label"])
    moved = mask.affine.copy()
    moved[0, 3] += 3
    with pytest.raises(GeometryMismatchError):
        LoadVolumed(KEYS)({**case, "label": nibabel.Nifti1Image(np.asarray(mask.dataobj), moved)})


def test_a_label_in_another_order_is_reordered_with_a_note(case: dict[str, str]) -> None:
    mask = read_volume(case["label"])
    array, affine = stored_in(mask.array, mask.affine, ORDERS[29])
    loaded = LoadVolumed(KEYS)({**case, "label": (array, affine)})
    assert torch.equal(loaded["label"], LoadVolumed(KEYS)(case)["label"])
    assert "re-ordered" in loaded["label"].meta["notes"]


def test_a_label_a_little_off_gets_the_affine_of_the_image_and_a_note(case: dict[str, str]) -> None:
    mask = nibabel.load(case["label"])
    moved = mask.affine.copy()
    moved[0, 3] += 0.2
    label = nibabel.Nifti1Image(np.asarray(mask.dataobj), moved)
    loaded = LoadVolumed(KEYS)({**case, "label": label})
    assert torch.equal(loaded["image"].affine, loaded["label"].affine)
    assert "0.2 voxels from ball" in loaded["label"].meta["notes"]


def test_the_notes_of_the_reader_travel_along_and_collate(case: dict[str, str], tmp_path: Path) -> None:
    image = nibabel.load(case["image"])
    bare = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine)
    bare.header["sform_code"] = bare.header["qform_code"] = 0
    path = tmp_path / "bare.nii.gz"
    nibabel.save(bare, path)
    options = ReadOptions(assume_grid=True)
    notes = read_volume(path, options=options).notes
    assert notes
    samples = [{"image": case["image"]}, {"image": str(path)}]
    cached = CacheDataset(samples, Compose([LoadVolumed("image", options=options)]), progress=False)
    assert cached[1]["image"].meta["notes"] == "; ".join(notes)
    batch = next(iter(DataLoader(cached, batch_size=2)))
    assert batch["image"].meta["notes"] == ["; ".join(read_volume(case["image"]).notes), "; ".join(notes)]


def test_values_that_a_type_cannot_hold_are_refused() -> None:
    huge = np.full((2, 2, 2), 1e300)
    with pytest.raises(VolumeError, match="float32 cannot hold"):
        LoadVolumed("image")({"image": (huge, np.eye(4))})
    for values in (np.full((2, 2, 2), 300), np.full((2, 2, 2), 0.5), np.full((2, 2, 2), -1)):
        with pytest.raises(VolumeError, match="uint8 cannot hold"):
            LoadVolumed("label", dtype=np.uint8)({"label": (values, np.eye(4))})


def test_missing_entries_are_refused_unless_allowed(case: dict[str, str]) -> None:
    del case["label"]
    with pytest.raises(KeyError, match="label"):
        LoadVolumed(KEYS)(case)
    assert set(LoadVolumed(KEYS, allow_missing_keys=True)(case)) == {"image"}
