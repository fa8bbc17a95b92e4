"""DICOM segmentations and structure sets are labels: on the grid of their image, whatever frames they leave out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'medfcn[dicom]'")

from click.testing import CliRunner
from pydicom.dataset import Dataset

from medfcn import check, evaluate
from medfcn.cli import main
from medfcn.datasets.find import find_dataset, find_masks
from medfcn.errors import MedfcnError
from medfcn.labels import read_mask
from medfcn.labels.dicom import dicom_label
from medfcn.volumes import Volume, read_volume
from tests.volumes.dicom_labels import segmentation, structure_set
from tests.volumes.dicom_series import Made, classic, save_all, turned

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "dicom"
LARGE: dict[str, Any] = {"rows": 19, "columns": 23, "spacing": (0.8, 1.1)}  # frames begin within a byte
SHAPE = (10, 19, 23)


def two_organs() -> dict[str, NDArray[np.bool_]]:
    """`(slices, rows, columns)`, with empty slices below, above and in between."""
    liver, spleen = np.zeros(SHAPE, dtype=bool), np.zeros(SHAPE, dtype=bool)
    liver[2:4, 3:9, 2:8] = liver[6:8, 4:9, 3:8] = True
    spleen[3:7, 12:17, 10:20] = True
    return {"liver": liver, "spleen": spleen}


def on_grid(masks: dict[str, NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """What a mask of both should be: `(columns, rows, slices)`, values in the order of the names."""
    value = sum((mask.astype(np.uint8) * number for number, mask in enumerate(masks.values(), start=1)))
    return np.asarray(value, dtype=np.uint8).transpose(2, 1, 0)


def read(label: Path, image: Path) -> Volume:
    return read_mask(dicom_label(label, "case").on_grid_of(image))


@pytest.mark.parametrize("made", [Made(**LARGE), Made("MR", turned(17, -8, 31), **LARGE)], ids=["axial", "oblique"])
@pytest.mark.parametrize(
    ("kind", "omit"),
    [("BINARY", True), ("BINARY", False), ("LABELMAP", False), ("LABELMAP", True), ("FRACTIONAL", True)],
    ids=str,
)
def test_a_segmentation_is_read_onto_the_grid_of_its_image(made: Made, kind: str, omit: bool, tmp_path: Path) -> None:
    slices, masks = classic(made), two_organs()
    folder = save_all(slices, tmp_path / "image")
    given = {name: mask * 0.7 for name, mask in masks.items()} if kind == "FRACTIONAL" else masks
    path = segmentation(slices, given, tmp_path / "seg.dcm", kind=kind, omit_empty_frames=omit)
    mask = read(path, folder)
    assert np.array_equal(mask.array, on_grid(masks))
    assert np.array_equal(mask.affine, read_volume(folder).affine)


def test_less_than_half_of_a_fractional_pixel_is_outside(tmp_path: Path) -> None:
    slices = classic(Made(**LARGE))
    folder, liver = save_all(slices, tmp_path / "image"), two_organs()["liver"]
    faint = {"liver": np.where(liver, 0.7, 0.3)}
    path = segmentation(slices, faint, tmp_path / "seg.dcm", kind="FRACTIONAL")
    assert np.array_equal(read(path, folder).array, on_grid({"liver": liver}))


def test_segments_may_overlap(tmp_path: Path) -> None:
    slices, masks = classic(Made(**LARGE)), two_organs()
    masks["spleen"] |= masks["liver"]
    folder = save_all(slices, tmp_path / "image")
    mask = read(segmentation(slices, masks, tmp_path / "seg.dcm"), folder)
    both = int(np.unique(mask.array)[-1])
    assert np.array_equal(mask.array == both, on_grid({"liver": masks["liver"]}) == 1)


def rectangle(made: Made, k: float, columns: tuple[float, float], rows: tuple[float, float]) -> NDArray[np.float64]:
    """The corners of a rectangle on slice k, in LPS millimetres."""
    cosines, position = np.array(made.orientation), np.array(made.position(k))
    corners = [(columns[0], rows[0]), (columns[1], rows[0]), (columns[1], rows[1]), (columns[0], rows[1])]
    points = [
        position + cosines[:3] * made.spacing[1] * column + cosines[3:] * made.spacing[0] * row
        for column, row in corners
    ]
    return np.array(points)


@pytest.mark.parametrize("made", [Made(**LARGE), Made("MR", turned(17, -8, 31), **LARGE)], ids=["axial", "oblique"])
def test_contours_hold_the_voxels_whose_centres_are_inside(made: Made, tmp_path: Path) -> None:
    slices = classic(made)
    folder = save_all(slices, tmp_path / "image")
    outer, inner = ((1.6, 9.4), (2.7, 12.2)), ((3.5, 6.5), (5.1, 8.9))
    keyhole = np.r_[rectangle(made, 5, *outer), rectangle(made, 5, *outer)[:1]]
    keyhole = np.r_[keyhole, rectangle(made, 5, *inner), rectangle(made, 5, *inner)[:1]]
    contours = {
        "ring": [rectangle(made, 2, *outer), rectangle(made, 2, *inner), keyhole],
        "two": [rectangle(made, 7, (0.9, 2.1), (0.9, 2.1)), rectangle(made, 7, (10.9, 11.1), (3.5, 4.5))],
    }
    path = structure_set(slices, contours, tmp_path / "rs.dcm")
    expected = np.zeros((23, 19, 10), dtype=np.uint8)
    for k in (2, 5):
        expected[2:10, 3:13, k] = 1
        expected[4:7, 6:9, k] = 0
    expected[1:3, 1:3, 7] = expected[11, 4, 7] = 2
    assert np.array_equal(read(path, folder).array, expected)


def test_contours_of_other_planes_are_refused(tmp_path: Path) -> None:
    made = Made(**LARGE)
    slices = classic(made)
    folder = save_all(slices, tmp_path / "image")
    tilted = rectangle(made, 2, (1, 9), (2, 12))
    tilted[0, 2] += 4.0
    with pytest.raises(MedfcnError, match=r"rs\.dcm: contour 1 of organ is not in the plane of a slice"):
        read(structure_set(slices, {"organ": [tilted]}, tmp_path / "rs.dcm"), folder)
    far = rectangle(made, 40, (1, 9), (2, 12))
    with pytest.raises(MedfcnError, match=r"far\.dcm: no contour of organ is inside the image"):
        read(structure_set(slices, {"organ": [far]}, tmp_path / "far.dcm"), folder)


def test_a_segmentation_of_another_grid_is_refused(tmp_path: Path) -> None:
    coarse = classic(Made(rows=19, columns=23, spacing=(1.5, 1.5)))
    folder = save_all(classic(Made(**LARGE)), tmp_path / "image")
    with pytest.raises(MedfcnError, match=r"seg\.dcm: frame \d+ is not on the image's grid \([\d.]+ voxels away\)"):
        read(segmentation(coarse, two_organs(), tmp_path / "seg.dcm"), folder)


def made_tree(root: Path, count: int = 3) -> Path:
    """Patients, each with a CT folder and a label in a folder of its own."""
    for number in range(count):
        made = Made(**LARGE, origin=(0.0, 0.0, number), fields={"PatientID": f"SECRET-{number}"})
        slices = classic(made)
        for dataset in slices:
            dataset.RescaleIntercept = number - 1024
        save_all(slices, root / f"p{number}" / "ct")
        masks = {"liver": two_organs()["liver"]}
        if number % 2:
            contours = [rectangle(made, 3, (2.6, 8.4), (3.6, 9.4))]
            structure_set(slices, {"liver": contours}, root / f"p{number}" / "label" / "rs.dcm")
        else:
            segmentation(slices, masks, root / f"p{number}" / "label" / "seg.dcm")
    return root


def test_a_tree_of_series_and_labels_is_a_data_set(tmp_path: Path) -> None:
    root = made_tree(tmp_path / "tree")
    dataset = find_dataset(root)
    assert dataset.layout == "dicom"
    assert [case.id for case in dataset.cases] == ["p0_ct", "p1_ct", "p2_ct"]
    assert dataset.named.structures == ("liver",)
    report = check(root)
    assert not [problem for problem in report.problems if problem.severity == "error"]
    assert "SECRET" not in json.dumps(report.to_json()) + report.to_text()
    result = CliRunner().invoke(main, ["check", str(root)])
    assert result.exit_code == 0, result.output


def test_a_tree_without_labels_is_checked_and_not_trained_on(tmp_path: Path) -> None:
    save_all(classic(Made(**LARGE)), tmp_path / "tree" / "ct")
    report = check(tmp_path / "tree")
    assert [(problem.code, problem.severity) for problem in report.problems] == [("LABEL_MISSING", "warning")]
    assert report.cases[0].images[0].shape == (23, 19, 10)
    with pytest.raises(MedfcnError, match="no DICOM segmentation and no RTSTRUCT refers to this series"):
        find_dataset(tmp_path / "tree")


def test_series_in_images_and_dicom_labels_in_labels_are_a_data_set(tmp_path: Path) -> None:
    slices: list[Dataset] = classic(Made(**LARGE))
    save_all(slices, tmp_path / "images" / "case_1")
    segmentation(slices, two_organs(), tmp_path / "labels" / "case_1.dcm")
    report = check(tmp_path)
    assert [problem.code for problem in report.problems if problem.severity == "error"] == []
    counts = report.cases[0].label.voxels  # type: ignore[union-attr]
    assert counts == {number: int(mask.sum()) for number, mask in enumerate(two_organs().values(), start=1)}


def test_predictions_are_scored_against_dicom_labels_on_their_own_grid(tmp_path: Path) -> None:
    slices, masks = classic(Made(**LARGE)), {"liver": two_organs()["liver"]}
    folder = save_all(slices, tmp_path / "image")
    segmentation(slices, masks, tmp_path / "references" / "case.dcm")
    (tmp_path / "predictions").mkdir()
    read_volume(folder).with_array(on_grid(masks)).save(tmp_path / "predictions" / "case.nii.gz")
    table = evaluate(tmp_path / "predictions", tmp_path / "references")
    assert [(row.label, row.dice) for row in table.rows] == [("liver", 1.0)]


def test_a_dicom_label_alone_has_no_grid(tmp_path: Path) -> None:
    segmentation(classic(Made(**LARGE)), two_organs(), tmp_path / "case.dcm")
    mask = find_masks(tmp_path)["case"]
    with pytest.raises(MedfcnError, match="case: a DICOM label says nothing of voxels without its image"):
        read_mask(mask)


@pytest.mark.parametrize("name", ["ct", "mr_t1", "pet"])
def test_a_real_structure_set_is_the_mask_that_others_made_of_it(name: str) -> None:
    folder = REAL / f"sts_002_{name}"
    if not folder.is_dir():
        pytest.skip("../shared/data/dicom is not there")
    mask = read(folder / "mask", folder / "image")
    others = read_volume(REAL / f"sts_002_{name}_as_nifti" / "mask" / "mask.nii.gz")
    assert np.array_equal(mask.reordered_to(others).array > 0, others.array > 0)


def test_a_real_segmentation_has_the_voxels_that_its_frames_hold() -> None:
    import pydicom

    folder = REAL / "breast_mask"
    if not folder.is_dir():
        pytest.skip("../shared/data/dicom is not there")
    from medfcn.volumes import ReadOptions

    label = dicom_label(folder, "breast").on_grid_of(REAL / "breast_dce_three_times")
    mask = read_mask(label, options=ReadOptions(volume_index=0))
    stored = pydicom.dcmread(folder / "1-1.dcm").pixel_array
    assert int(mask.array.sum()) == int((stored >= 128).sum()) == 82527
