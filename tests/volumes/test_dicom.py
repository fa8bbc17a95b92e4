"""DICOM series are read where each of their slices says that it is, and with the numbers that it says."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="pydicom is not installed: pip install 'medfcn[dicom]'")
import pydicom
from pydicom import uid

from medfcn.volumes import ReadOptions, read_volume
from tests.volumes.dicom_series import (
    CORONAL,
    SAGITTAL,
    Made,
    classic,
    enhanced,
    expected_voxels,
    save,
    save_all,
    turned,
)

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "dicom"
CLOSE_MM = 1e-3
BACKWARDS = [7, 2, 9, 0, 4, 1, 8, 3, 6, 5]


def slopes(k: int) -> tuple[float, float]:
    """Rescale as of PET: slope 1 in the first slice, so that a reader that takes it for all loses the fractions."""
    return (1.0 if k == 0 else 0.37 + k / 100), 0.0


def _without_preamble(folder: Path) -> Path:
    for number, dataset in enumerate(classic(Made())):
        dataset.file_meta = type(dataset.file_meta)()
        folder.mkdir(parents=True, exist_ok=True)
        dataset.save_as(folder / f"{number}.dcm", implicit_vr=True, little_endian=True)
    return folder


def _legacy_converted(folder: Path) -> Path:
    legacy = pytest.importorskip("highdicom.legacy", reason="highdicom is not installed")
    made = classic(Made("MR", turned(10, 0, 5), rescale=lambda k: None))
    for dataset in made:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
        dataset.AcquisitionNumber = 1
    converted = legacy.LegacyConvertedEnhancedMRImage(made, uid.generate_uid(), 9, uid.generate_uid(), 1)
    save(converted, folder / "one.dcm")
    return folder


MADE: dict[str, Callable[[Path], Path]] = {
    "axial CT": lambda folder: save_all(classic(Made()), folder),
    "coronal MR": lambda folder: save_all(classic(Made("MR", CORONAL, rescale=lambda k: None)), folder),
    "sagittal MR": lambda folder: save_all(classic(Made("MR", SAGITTAL, rescale=lambda k: None)), folder),
    "oblique MR": lambda folder: save_all(classic(Made("MR", turned(17, -8, 31), rescale=lambda k: None)), folder),
    "steep oblique": lambda folder: save_all(classic(Made("MR", turned(44, 40, 80))), folder),
    "pixels that are not square": lambda folder: save_all(classic(Made(spacing=(0.6, 1.1))), folder),
    "rows reversed": lambda folder: save_all(classic(Made(orientation=(-1.0, 0, 0, 0, 1.0, 0))), folder),
    "numbered from the top": lambda folder: save_all(list(reversed(classic(Made(step=2.5)))), folder),
    "PET with a slope a slice": lambda folder: save_all(classic(Made("PT", rescale=slopes)), folder),
    "signed 12 bits in 16": lambda folder: save_all(classic(Made(bits=12)), folder),
    "unsigned 12 bits in 16": lambda folder: save_all(classic(Made(dtype="uint16", bits=12)), folder),
    "8 bits": lambda folder: save_all(classic(Made(dtype="uint8", bits=8)), folder),
    "32 bits": lambda folder: save_all(classic(Made(dtype="int32", bits=32)), folder),
    "implicit VR": lambda folder: save_all(classic(Made()), folder, uid.ImplicitVRLittleEndian),
    "deflated": lambda folder: save_all(classic(Made()), folder, uid.DeflatedExplicitVRLittleEndian),
    "without preamble": _without_preamble,
    "JPEG 2000": lambda folder: save_all(classic(Made(rows=32, columns=32)), folder, uid.JPEG2000Lossless),
    "JPEG-LS": lambda folder: save_all(classic(Made(rows=32, columns=32)), folder, uid.JPEGLSLossless),
    "RLE": lambda folder: save_all(classic(Made(rows=32, columns=32)), folder, uid.RLELossless),
    "enhanced MR, frames in no order": lambda folder: (
        save(enhanced(Made("MR", turned(5, 20, 0)), BACKWARDS), folder / "one.dcm").parent
    ),
    "enhanced CT, shared rescale": lambda folder: (
        save(enhanced(Made(), BACKWARDS, shared_rescale=True), folder / "one.dcm").parent
    ),
    "enhanced PET, a slope a frame": lambda folder: (
        save(enhanced(Made("PT", rescale=slopes), BACKWARDS), folder / "one.dcm").parent
    ),
    "enhanced MR, JPEG 2000": lambda folder: (
        save(enhanced(Made("MR", rows=32, columns=32), BACKWARDS), folder / "one.dcm", uid.JPEG2000Lossless).parent
    ),
    "legacy converted MR": _legacy_converted,
}


def require_same_world(folder: Path, options: ReadOptions, close_mm: float = CLOSE_MM) -> None:
    """Each corner of each slice is a voxel of the volume, at its own place and with its own number."""
    volume = read_volume(folder, options=options)
    expected = expected_voxels(folder)
    assert volume.shape[2] == len(expected) // 4
    to_voxels = np.linalg.inv(volume.affine)
    for world, intensity in expected:
        place = np.rint(to_voxels @ [*world, 1.0]).astype(int)
        assert np.linalg.norm((volume.affine @ place)[:3] - world) < close_mm
        assert volume.array[tuple(place[:3])] == pytest.approx(intensity, rel=1e-6, abs=1e-4)


@pytest.mark.parametrize("kind", MADE)
def test_each_slice_of_a_made_series_is_where_its_header_says(kind: str, tmp_path: Path) -> None:
    require_same_world(MADE[kind](tmp_path / "series"), ReadOptions())


def test_positions_rounded_to_tenths_are_an_even_stack(tmp_path: Path) -> None:
    made = Made(step=1.25, decimals=1)
    folder = save_all(classic(made), tmp_path / "series")
    require_same_world(folder, ReadOptions(), close_mm=0.06)
    volume = read_volume(folder)
    assert volume.spacing_mm[2] == pytest.approx(1.25, abs=0.005)
    assert "from the even stack" in volume.notes[0]


def test_a_gantry_tilt_is_refused_with_its_millimetres_and_kept_on_request(tmp_path: Path) -> None:
    tilted = Made(shear=(0.0, 0.6, 0.0))
    folder = save_all(classic(tilted), tmp_path / "head")
    with pytest.raises(
        ValueError, match=r"head: positions leave the normal of the slices by 5\.40 mm .*xform='sform'"
    ):
        read_volume(folder)
    require_same_world(folder, ReadOptions(xform="sform"))
    assert read_volume(folder, options=ReadOptions(xform="sform")).is_sheared


@pytest.mark.parametrize(
    ("name", "close_mm"),
    [
        ("adc", CLOSE_MM),
        ("sts_002_ct/image", CLOSE_MM),
        ("sts_002_mr_t1/image", CLOSE_MM),
        ("sts_002_pet/image", CLOSE_MM),
        # The beds of this whole-body scan meet with gaps of 3.19 to 3.29 mm, where slices are 3.27 mm apart.
        ("sts_001_pet_raw/image", 0.0402),
    ],
)
def test_each_slice_of_a_real_series_is_where_its_header_says(name: str, close_mm: float) -> None:
    if not (REAL / name).is_dir():
        pytest.skip("../shared/data/dicom is not there")
    require_same_world(REAL / name, ReadOptions(), close_mm)


def test_a_real_series_of_three_time_points_is_one_volume_at_a_time(tmp_path: Path) -> None:
    folder = REAL / "breast_dce_three_times"
    if not folder.is_dir():
        pytest.skip("../shared/data/dicom is not there")
    with pytest.raises(ValueError, match=r"3 volumes of 60 slices.*ContentTime \(102551, 103238, 103832\)"):
        read_volume(folder)
    for file in folder.iterdir():
        if pydicom.dcmread(file, stop_before_pixels=True).ContentTime == "103238":
            (tmp_path / file.name).symlink_to(file)
    require_same_world(tmp_path, ReadOptions())
    chosen = read_volume(folder, options=ReadOptions(volume_index=1))
    assert np.array_equal(read_volume(tmp_path).array, chosen.array)


def test_a_number_stays_an_integer_where_all_slices_share_a_whole_intercept(tmp_path: Path) -> None:
    volume = read_volume(save_all(classic(Made()), tmp_path / "ct"))
    assert volume.array.dtype == np.int16
    pet = read_volume(save_all(classic(Made("PT", rescale=slopes)), tmp_path / "pet"))
    assert pet.array.dtype == np.float32


def test_the_hash_of_a_series_follows_from_its_files_alone(tmp_path: Path) -> None:
    slices = classic(Made())
    first = read_volume(save_all(slices, tmp_path / "one"))
    second = read_volume(save_all(slices[::-1], tmp_path / "two"))
    assert first.sha256 == second.sha256
    assert first.sha256 != read_volume(save_all(classic(Made()), tmp_path / "three")).sha256


def test_nothing_of_the_header_is_in_a_name_or_a_note(tmp_path: Path) -> None:
    folder = save_all(classic(Made()), tmp_path / "case_7")
    volume = read_volume(folder)
    assert volume.name == "case_7"
    assert "SECRET" not in repr(volume) + "".join(volume.notes)


def test_copies_of_a_slice_are_dropped_and_said(tmp_path: Path) -> None:
    slices = classic(Made())
    folder = save_all(slices, tmp_path / "series")
    expected = read_volume(folder)
    for number, dataset in enumerate(slices):
        save(dataset, folder / f"copy{number}.dcm")
    volume = read_volume(folder)
    assert np.array_equal(volume.array, expected.array)
    assert volume.notes == ("10 files dropped: copies of others, with the same SOPInstanceUID",)


def test_a_segmentation_beside_its_images_is_no_image(tmp_path: Path) -> None:
    slices = classic(Made())
    folder = save_all(slices, tmp_path / "series")
    other = classic(dataclasses.replace(Made(), count=1))[0]
    other.SOPClassUID, other.Modality = uid.SegmentationStorage, "SEG"
    save(other, folder / "seg.dcm")
    assert read_volume(folder).shape == (7, 5, 10)
    with pytest.raises(ValueError, match=r"seg\.dcm: is a DICOM segmentation, not an image"):
        read_volume(folder / "seg.dcm")
