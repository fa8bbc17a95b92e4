"""Masks are read with their values as stored; 255 and scaled files need a word."""

from pathlib import Path

import numpy as np
import pytest

from medfcn.errors import LabelError, VolumeError
from medfcn.labels import IGNORED, LabelMap, read_mask
from medfcn.volumes import Volume
from medfcn.volumes.formats.nifti_labels import TableLabel
from medfcn.volumes.formats.seg_nrrd import write_seg_nrrd
from tests.volumes.hostile import AFFINE, VOXELS, good, put


def test_a_rounded_mask_says_so_once(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(good(code=16, voxels=VOXELS * np.float32(0.9999)))
    mask = read_mask(tmp_path / "a.nii")
    np.testing.assert_array_equal(mask.array, VOXELS)
    assert [note for note in mask.notes if "rounded" in note] == ["voxels rounded to whole labels (by up to 0.0004)"]
    (tmp_path / "b.nii").write_bytes(good())
    assert read_mask(tmp_path / "b.nii").notes == ()


BINARY = ((VOXELS > 2) * 255).astype(np.uint8)


def test_255_is_a_label_only_where_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(good(code=2, voxels=BINARY))
    with pytest.raises(LabelError, match=r"label values 0, 255; .*labels='organ=255'"):
        read_mask(path)
    with pytest.raises(LabelError):
        read_mask(path, labels=LabelMap.parse("organ=1"))
    mask = read_mask(path, labels=LabelMap.parse("organ=255"))
    assert LabelMap.parse("organ=255").encode(mask.array, name="a").sum() == (BINARY > 0).sum()
    ignored = LabelMap.parse("organ=1,ignore=255")
    assert set(np.unique(ignored.encode(read_mask(path, labels=ignored).array, name="a"))) == {0, IGNORED}
    path.write_bytes(good(code=2, voxels=np.where(BINARY, 255, VOXELS % 2).astype(np.uint8)))
    words = "0, 1, 255; if 255 is a label, say so with labels='a=1,b=255', if nobody .* with a=1,ignore=255"
    with pytest.raises(LabelError, match=words):
        read_mask(path)
    assert set(np.unique(read_mask(path, labels=LabelMap.parse("organ=1")).array)) == {0, 1, 255}


def test_255_scaled_to_1_needs_a_word(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(put(good(code=2, voxels=BINARY), "scl_slope", 1 / 255))
    with pytest.raises(LabelError, match=r"stores the values 0, 255 and scl_slope 0\.00392157 makes them 0, 1"):
        read_mask(path)
    stored = read_mask(path, labels=LabelMap.parse("organ=255"))
    np.testing.assert_array_equal(stored.array, BINARY)
    assert any("scl_slope" in note for note in stored.notes)
    scaled = read_mask(path, labels=LabelMap.parse("organ=1"))
    np.testing.assert_array_equal(scaled.array, BINARY > 0)


def test_a_mask_that_nibabel_scaled_is_read(tmp_path: Path) -> None:
    """Floats saved under an int16 header: stored as -32768 ... 32767, so only one reading is a mask."""
    import nibabel

    image = nibabel.Nifti1Image((VOXELS > 2).astype(np.float64), np.eye(4))
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.nii.gz")
    mask = read_mask(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(mask.array, VOXELS > 2)


@pytest.mark.parametrize("labels", [None, LabelMap.parse("a=1,b=2+3,c=4"), LabelMap.parse("b=2")])
@pytest.mark.parametrize("slope", [0.99999994, 0.9999, 1.0000001])
def test_a_slope_of_almost_1_changes_no_label(slope: float, labels: LabelMap | None, tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(put(good(), "scl_slope", slope))
    mask = read_mask(path, labels=labels)
    np.testing.assert_array_equal(mask.array, VOXELS)
    assert any(note.startswith("voxels rounded to whole labels") for note in mask.notes)


@pytest.mark.parametrize("top", [2, 104, 131, 132, 200, 254])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4"])
def test_float_labels_under_an_integer_header_are_rounded(dtype: str, top: int, tmp_path: Path) -> None:
    """nibabel scales them by top / 255 and the like; what rounding to integers lost is less than half a label."""
    import nibabel

    values = np.array([0.0, 1.0, 2.0, (top + 1) // 2, top])[VOXELS]
    image = nibabel.Nifti1Image(values, np.eye(4))
    image.set_data_dtype(np.dtype(dtype))
    nibabel.save(image, tmp_path / "a.nii.gz")
    for labels in (None, LabelMap.parse(f"organ={top}"), LabelMap.parse("a=1,b=2")):
        np.testing.assert_array_equal(read_mask(tmp_path / "a.nii.gz", labels=labels).array, values)


def test_an_image_that_its_header_scales_is_no_mask(tmp_path: Path) -> None:
    """Its values are as often near half a number as near a whole one."""
    voxels = np.arange(120, dtype=np.int16).reshape(VOXELS.shape)
    for slope in (0.9, 0.7, 0.3, 0.01):
        (tmp_path / "a.nii").write_bytes(put(good(voxels=voxels), "scl_slope", slope))
        with pytest.raises(LabelError):
            read_mask(tmp_path / "a.nii")


def test_labels_above_65535_are_read_and_written(tmp_path: Path) -> None:
    """Regions of the Allen mouse brain atlas have numbers up to 614454277."""
    values = np.array([0, 997, 65536, 182305689, 614454277], dtype=np.uint32)[VOXELS]
    (tmp_path / "a.nii").write_bytes(good(code=768, voxels=values))
    labels = LabelMap.parse("root=997,cortex=182305689+65536,ventricle=614454277")
    mask = read_mask(tmp_path / "a.nii", labels=labels)
    np.testing.assert_array_equal(mask.array, values)
    indices = labels.encode(mask.array, name="a")
    np.testing.assert_array_equal(indices, np.array([0, 1, 2, 2, 3])[VOXELS])
    written = Volume(labels.decode(indices), mask.affine).save(tmp_path / "b.nii.gz")
    assert sorted(np.unique(read_mask(written).array)) == [0, 2, 997, 614454277]
    with pytest.raises(LabelError, match=r"614454277"):
        LabelMap.from_names({997: "root"}).encode(mask.array, name="a")


def test_masks_come_from_whatever_stands_for_a_volume(tmp_path: Path) -> None:
    volume = Volume((VOXELS > 2).astype(float), np.eye(4), name="a")
    assert read_mask(volume).array.dtype == np.uint8
    assert read_mask((VOXELS > 2, np.eye(4))).array.sum() == (VOXELS > 2).sum()
    with pytest.raises(VolumeError):
        read_mask(3)


@pytest.mark.parametrize(
    ("names", "is_right"),
    [
        ({1: "liver", 2: "tumour"}, True),
        ({1: "Liver", 2: "other"}, True),
        ({1: "Segment_1", 2: "Segment_2"}, True),
        ({1: "tumour", 2: "liver"}, False),
        ({5: "liver", 2: "tumour"}, False),
        ({1: "liver", 2: "Liver"}, False),
    ],
)
def test_a_file_of_3d_slicer_that_names_its_values_otherwise_is_refused(
    names: dict[int, str], is_right: bool, tmp_path: Path
) -> None:
    """Slicer numbers the segments of each file anew, in the order in which they were drawn."""
    segments = [TableLabel(value, name, "#ff0000") for value, name in names.items()]
    path = write_seg_nrrd(tmp_path / "a.seg.nrrd", [VOXELS.astype(np.uint8) % 3], AFFINE, segments)
    labels = LabelMap.parse("liver=1,tumour=2")
    if is_right:
        assert set(np.unique(read_mask(path, labels=labels).array)) == {0, 1, 2}
        return
    with pytest.raises(LabelError, match=r"names the value [125] '[Lt]?.*; export it with the values") as caught:
        read_mask(path, labels=labels)
    assert (caught.value.code, caught.value.field) == ("LABELS_DIFFER", "labels")
    assert read_mask(path, labels=LabelMap.parse("any=any")).shape == VOXELS.shape
