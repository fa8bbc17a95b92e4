"""Masks as DICOM segmentations and structure sets: what independent readers find is the mask, voxel for voxel."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'medfcn[dicom]'")
import highdicom
import pydicom

from medfcn.cli import main
from medfcn.errors import MedfcnError, SettingsError
from medfcn.exporting.dicom_seg import parse_codes, probabilities_of
from medfcn.exporting.dicom_source import Source, save_dicom
from medfcn.exporting.masks import MaskExport
from medfcn.exporting.outlines import outlines
from medfcn.files import sha256_of
from medfcn.labels import LabelMap
from medfcn.labels.sidecar import MaskRecord
from medfcn.verbs import predict
from medfcn.volumes import ReadOptions, Volume, read_volume
from medfcn.volumes.formats.dicom.contours import filled
from tests.inference.models import saved, tiny_model
from tests.volumes.dicom_series import Made, classic, enhanced, save, save_all, turned

ODD: dict[str, Any] = {"rows": 19, "columns": 23, "spacing": (0.8, 1.1)}
SHAPES: dict[str, list[str]] = {
    "square": ["......", ".####.", ".####.", ".####.", ".####.", "......"],
    "2 x 2": ["....", ".##.", ".##.", "...."],
    "single voxel": ["...", ".#.", "..."],
    "line": [".......", ".#####.", "......."],
    "ring": [".......", ".#####.", ".#...#.", ".#...#.", ".#####.", "......."],
    "two holes": [".........", ".#######.", ".#.#...#.", ".###...#.", ".#######.", "........."],
    "corner to corner": ["....", ".#..", "..#.", "...."],
    "hole to the corner": ["#####", "#...#", "#.#.#", "#..##", "###.#"],
}


def drawn(lines: list[str]) -> NDArray[np.bool_]:
    return np.array([[character == "#" for character in line] for line in lines])


def masked(
    made: Made, mask: NDArray[np.uint8], folder: Path, *, labels: str = "liver=1,left_kidney=2", multi: bool = False
) -> tuple[Path, Path]:
    """A series, and a mask of it with its record; `mask` is `(columns, rows, slices)`."""
    if multi:
        image = save(enhanced(made, [7, 2, 9, 0, 4, 1, 8, 3, 6, 5]), folder / "image" / "one.dcm").parent
    else:
        image = save_all(classic(made), folder / "image")
    path = folder / "masks" / "case.nii.gz"
    path.parent.mkdir()
    read_volume(image).with_array(mask).save(path)
    MaskRecord(case="case", labels=LabelMap.parse(labels), mask_sha256=sha256_of(path)).write(path)
    return image, path


def two_labels(made: Made) -> NDArray[np.uint8]:
    mask = np.zeros((made.columns, made.rows, made.count), dtype=np.uint8)
    mask[3:9, 2:8, 2:5] = 1
    mask[12:15, 9:14, 4:9] = 2
    mask[5, 5, 3] = 0
    return mask


def voxels_of_segments(path: Path, volume: Volume) -> dict[str, NDArray[np.bool_]]:
    """The masks of a segmentation on a grid, by pydicom's pixels and per-frame groups alone."""
    content = pydicom.dcmread(path)
    names = {item.SegmentNumber: item.SegmentLabel for item in content.SegmentSequence}
    found = {name: np.zeros(volume.shape, dtype=bool) for name in names.values()}
    pixels = content.pixel_array.reshape(-1, content.Rows, content.Columns)
    for frame, plane in zip(content.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, dtype=float) * [-1, -1, 1]
        i, j, k, _ = np.rint(np.linalg.inv(volume.affine) @ [*position, 1.0]).astype(int)
        assert (i, j) == (0, 0)
        found[names[number]][:, :, k] = plane.T > 0
    return found


@pytest.mark.parametrize("multi", [False, True], ids=["classic", "enhanced"])
@pytest.mark.parametrize("turn", [(0, 0, 0), (17, -8, 31)], ids=["axial", "oblique"])
@pytest.mark.parametrize("empty", [False, True], ids=["two labels", "empty"])
def test_a_segmentation_holds_the_mask(multi: bool, turn: tuple[int, ...], empty: bool, tmp_path: Path) -> None:
    made = Made("MR", turned(*turn), **ODD)
    mask = two_labels(made) * (0 if empty else 1)
    image, path = masked(made, mask.astype(np.uint8), tmp_path, multi=multi)
    written = MaskExport(format="dicom-seg", options=ReadOptions()).write(path, image)
    assert written == path.with_name("case.dcm")
    found = voxels_of_segments(written, read_volume(image))
    assert np.array_equal(found["liver"], mask == 1)
    assert np.array_equal(found["left_kidney"], mask == 2)
    read = highdicom.seg.segread(written)
    assert read.segmentation_type.value == "BINARY"
    assert [code.meaning for code in read.segmented_property_types] == ["Liver", "Kidney"]
    assert read.NumberOfFrames == 2 * made.count
    volume = read.get_volume(segment_numbers=[1], combine_segments=False)
    assert int(volume.array.sum()) == int((mask == 1).sum())


@pytest.mark.parametrize("format", ["dicom-seg", "rtstruct"])
def test_patient_fields_are_the_sources_and_no_others(format: str, tmp_path: Path) -> None:
    made = Made(**ODD, fields={"PatientAge": "042Y"})
    image, path = masked(made, two_labels(made), tmp_path)
    for file in image.iterdir():
        dataset = pydicom.dcmread(file)
        del dataset.PatientSex
        dataset.save_as(file)
    written = pydicom.dcmread(MaskExport(format=format, options=ReadOptions()).write(path, image))  # type: ignore[arg-type]
    source = pydicom.dcmread(next(image.iterdir()), stop_before_pixels=True)
    theirs, ours = ([item for item in one if item.tag.group == 0x0010] for one in (source, written))
    assert ours == theirs
    assert written.StudyInstanceUID == source.StudyInstanceUID
    assert written.SeriesInstanceUID != source.SeriesInstanceUID
    if format == "dicom-seg":
        assert list(written.ImageType)[:1] == ["DERIVED"]
        assert written.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "medfcn"
        references = {
            item.ReferencedSOPInstanceUID for item in written.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        }
        assert references == {
            pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in image.iterdir()
        }


@pytest.mark.parametrize("highest", [0.0, 0.0015, 0.4, 1.0])
def test_faint_probabilities_become_a_fractional_segmentation_too(highest: float, tmp_path: Path) -> None:
    made = Made(**ODD)
    image = save_all(classic(made), tmp_path / "image")
    grid = read_volume(image)
    share = np.zeros(grid.shape, dtype=np.float32)
    share[3:9, 2:8, 2:5] = np.linspace(0, highest, 6, dtype=np.float32)[:, None, None]
    content = probabilities_of(
        [grid.with_array(share)], LabelMap.parse("liver=1"), Source.of(image, ReadOptions()), {}, "key"
    )
    save_dicom(content, tmp_path / "shares.dcm")
    stored = pydicom.dcmread(tmp_path / "shares.dcm")
    assert stored.SegmentationType == "FRACTIONAL"
    assert stored.NumberOfFrames == made.count
    read = stored.pixel_array / stored.MaximumFractionalValue
    order = np.argsort(
        [frame.PlanePositionSequence[0].ImagePositionPatient[2] for frame in stored.PerFrameFunctionalGroupsSequence]
    )
    assert np.abs(read[order].transpose(2, 1, 0) - share).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("name", SHAPES)
def test_outlines_are_filled_to_the_voxels_that_they_enclose(name: str) -> None:
    from skimage.draw import polygon2mask

    mask = drawn(SHAPES[name])
    polygons = list(outlines(mask))
    assert np.array_equal(filled([points.T for points in polygons], mask.shape), mask)
    by_skimage = sum(polygon2mask(mask.shape, points) for points in polygons)
    assert np.array_equal(by_skimage > 0, mask)


def test_outlines_of_random_masks_are_filled_to_the_same_masks() -> None:
    random = np.random.default_rng(1)
    for _ in range(200):
        mask = random.random(random.integers(1, 13, size=2)) < random.choice([0.2, 0.5, 0.8])
        assert np.array_equal(filled([points.T for points in outlines(mask)], mask.shape), mask)


@pytest.mark.parametrize("multi", [False, True], ids=["classic", "enhanced"])
@pytest.mark.parametrize("turn", [(0, 0, 0), (17, -8, 31)], ids=["axial", "oblique"])
def test_a_structure_set_holds_the_mask_and_refers_to_its_slices(
    multi: bool, turn: tuple[int, ...], tmp_path: Path
) -> None:
    made = Made("MR", turned(*turn), **ODD)
    mask = two_labels(made)
    image, path = masked(made, mask, tmp_path, multi=multi)
    written = pydicom.dcmread(MaskExport(format="rtstruct", options=ReadOptions()).write(path, image))
    assert [item.ROIName for item in written.StructureSetROISequence] == ["liver", "left_kidney"]
    positions: dict[Any, Any] = {}
    for file in image.iterdir():
        dataset = pydicom.dcmread(file, stop_before_pixels=True)
        for index, frame in enumerate(dataset.get("PerFrameFunctionalGroupsSequence", [dataset])):
            place = frame.PlanePositionSequence[0] if multi else frame
            positions[dataset.SOPInstanceUID, index + 1 if multi else None] = np.array(
                place.ImagePositionPatient, dtype=float
            )
    normal = np.cross(made.orientation[:3], made.orientation[3:])
    for item in written.ROIContourSequence:
        for contour in item.ContourSequence:
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            reference = contour.ContourImageSequence[0]
            position = positions[reference.ReferencedSOPInstanceUID, reference.get("ReferencedFrameNumber")]
            assert np.abs((points - position) @ normal).max() < 1e-4


def test_an_empty_mask_is_a_structure_without_contours(tmp_path: Path) -> None:
    made = Made(**ODD)
    image, path = masked(made, two_labels(made) * 0, tmp_path)
    written = pydicom.dcmread(MaskExport(format="rtstruct", options=ReadOptions()).write(path, image))
    assert [item.get("ContourSequence") for item in written.ROIContourSequence] == [None, None]


def test_the_same_mask_is_the_same_object_again(tmp_path: Path) -> None:
    made = Made(**ODD)
    image, path = masked(made, two_labels(made), tmp_path)
    export = MaskExport(format="dicom-seg", options=ReadOptions())
    first = pydicom.dcmread(export.write(path, image)).SOPInstanceUID
    assert export.is_done(path, image)
    assert pydicom.dcmread(export.write(path, image)).SOPInstanceUID == first
    assert not MaskExport(format="rtstruct", options=ReadOptions()).is_done(path, image)


def test_overlapping_labels_are_segments_that_overlap(tmp_path: Path) -> None:
    made = Made(**ODD)
    image, path = masked(made, two_labels(made), tmp_path, labels="whole=1+2,core=2")
    found = voxels_of_segments(
        MaskExport(format="dicom-seg", options=ReadOptions()).write(path, image), read_volume(image)
    )
    assert np.array_equal(found["whole"], two_labels(made) > 0)
    assert np.array_equal(found["core"], two_labels(made) == 2)


def test_codes_of_labels_can_be_given() -> None:
    assert parse_codes("a=SCT:1:One; b=DCM:2:Two: and more") == {
        "a": ("SCT", "1", "One"),
        "b": ("DCM", "2", "Two: and more"),
    }
    with pytest.raises(SettingsError, match="is not NAME=SCHEME:VALUE:MEANING"):
        parse_codes("liver=10200004")


def test_predict_writes_dicom_beside_each_mask(tmp_path: Path) -> None:
    run = saved(tiny_model(labels="liver=1,spleen=2"), tmp_path / "run")
    for name in ("p1", "p2"):
        made = Made(rows=26, columns=30, spacing=(1.5, 1.5), fields={"PatientID": f"SECRET-{name}"})
        save_all(classic(made), tmp_path / "tree" / name)
    arguments = ["predict", str(run), str(tmp_path / "tree"), "-o", str(tmp_path / "masks"), "--probabilities"]
    result = CliRunner().invoke(main, [*arguments, "--format", "dicom-seg", "--codes", "spleen=SCT:78961009:Spleen"])
    assert result.exit_code == 0, result.output
    for name in ("p1", "p2"):
        mask = read_volume(tmp_path / "masks" / f"{name}.nii.gz")
        assert mask.array.any()
        found = voxels_of_segments(tmp_path / "masks" / f"{name}.dcm", read_volume(tmp_path / "tree" / name))
        assert np.array_equal(found["liver"], mask.array == 1)
        assert np.array_equal(found["spleen"], mask.array == 2)
        shares = pydicom.dcmread(tmp_path / "masks" / "probabilities" / f"{name}.dcm")
        assert shares.SegmentationType == "FRACTIONAL"
        assert shares.PatientID == f"SECRET-{name}"
    assert "SECRET" not in result.output
    assert not [path for path in (tmp_path / "masks").rglob("*") if "SECRET" in path.name]
    scores = CliRunner().invoke(
        main, ["evaluate", str(tmp_path / "masks"), str(tmp_path / "masks"), "-o", str(tmp_path / "scores")]
    )
    assert scores.exit_code == 0, scores.output
    with (tmp_path / "scores" / "scores.csv").open() as file:
        assert {row["dice"] for row in csv.DictReader(file)} == {"1"}


def test_a_mask_without_its_object_is_a_failure_and_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = saved(tiny_model(labels="liver=1"), tmp_path / "run")
    for number, name in enumerate(("p1", "p2")):
        made = Made(rows=26, columns=30, spacing=(1.5, 1.5), origin=(0.0, float(number), 0.0))
        save_all(classic(made), tmp_path / "tree" / name)
    write = MaskExport.write

    def refusing(export: MaskExport, mask: Path, *others: Any) -> Path:
        if mask.name.startswith("p2"):
            raise SettingsError("p2: refused for the test; go on")
        return write(export, mask, *others)

    monkeypatch.setattr(MaskExport, "write", refusing)
    arguments = ["predict", str(run), str(tmp_path / "tree"), "-o", str(tmp_path / "masks"), "--format", "rtstruct"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 3
    assert "1 of 2 cases failed" in result.output
    assert re.search(r"^1 masks?: ", result.output, re.MULTILINE)
    assert "p2" in (tmp_path / "masks" / "failures.csv").read_text()


@pytest.mark.slow
def test_dcmrtstruct2nii_reads_every_shape(tmp_path: Path) -> None:
    """It needs pydicom 2, and so an environment of its own."""
    environment = tmp_path / "environment"
    python = environment / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", str(environment)],
        [str(python), "-m", "pip", "install", "-q", "dcmrtstruct2nii==5", "pydicom<3", "setuptools<81"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"the environment of dcmrtstruct2nii cannot be built: {done.stderr[-200:]}")
    image, written, _, values = _exported(tmp_path, SQUARE, "rtstruct")
    script = (
        "import sys; from dcmrtstruct2nii import dcmrtstruct2nii as convert; "
        "convert(*sys.argv[1:], convert_original_dicom=False, mask_foreground_value=255)"
    )
    command = [str(python), "-c", script, str(written), str(image), str(tmp_path / "read")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reference = read_volume(written.with_name("case.nii.gz"))
    for name, value in values.items():
        path = next((tmp_path / "read").glob(f"mask_{name.replace('_', '*')}.nii.gz"))
        found = read_volume(path)
        there, here = (
            {tuple(np.round(one.affine[:3, :3] @ ijk + one.affine[:3, 3], 3)) for ijk in np.argwhere(inside)}
            for one, inside in ((found, found.array > 0), (reference, reference.array == value))
        )
        assert there == here, name


def test_a_dicom_output_of_a_nifti_volume_is_refused_before_any_work(tmp_path: Path) -> None:
    run = saved(tiny_model(), tmp_path / "run")
    Volume(np.zeros((4, 4, 4)), np.eye(4)).save(tmp_path / "image.nii.gz")
    with pytest.raises(MedfcnError, match=r"image\.nii\.gz: is no DICOM series, and a DICOM output refers to one"):
        predict(run, tmp_path / "image.nii.gz", tmp_path / "masks", format="rtstruct")
    assert not (tmp_path / "masks").exists()


def _rectangles(made: Made) -> tuple[NDArray[np.uint8], dict[str, int]]:
    """Every shape on a slice of its own, each a label; on a square image, which rt-utils needs."""
    mask = np.zeros((made.columns, made.rows, made.count), dtype=np.uint8)
    values = {}
    for number, (name, lines) in enumerate(SHAPES.items(), start=1):
        shape = drawn(lines)
        mask[4 : 4 + shape.shape[0], 5 : 5 + shape.shape[1], number][shape] = number
        values[name.replace(" ", "_")] = number
    return mask, values


def _exported(tmp_path: Path, made: Made, format: str) -> tuple[Path, Path, NDArray[np.uint8], dict[str, int]]:
    mask, values = _rectangles(made)
    labels = ",".join(f"{name}={value}" for name, value in values.items())
    image, path = masked(made, mask, tmp_path, labels=labels)
    return image, MaskExport(format=format, options=ReadOptions()).write(path, image), mask, values  # type: ignore[arg-type]


SQUARE = Made(rows=24, columns=24, spacing=(0.8, 0.8))


@pytest.mark.slow
def test_rt_utils_reads_every_shape(tmp_path: Path) -> None:
    rt_utils = pytest.importorskip("rt_utils", reason="rt-utils is not installed: pip install rt-utils")
    image, written, mask, values = _exported(tmp_path, SQUARE, "rtstruct")
    read = rt_utils.RTStructBuilder.create_from(dicom_series_path=str(image), rt_struct_path=str(written))
    for name, value in values.items():
        found = read.get_roi_mask_by_name(name)  # (rows, columns, slices)
        assert np.array_equal(found.transpose(1, 0, 2), mask == value), name


@pytest.mark.slow
@pytest.mark.parametrize("made", [SQUARE, Made(**ODD)], ids=["square", "not square"])
def test_plastimatch_reads_every_shape(made: Made, tmp_path: Path) -> None:
    plastimatch = shutil.which("plastimatch", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if plastimatch is None:
        pytest.skip("plastimatch is not installed: pip install plastimatch")
    image, written, mask, values = _exported(tmp_path, made, "rtstruct")
    command = [plastimatch, "convert", "--input", str(written), "--referenced-ct", str(image)]
    subprocess.run([*command, "--output-prefix", str(tmp_path / "out"), "--prefix-format", "nii.gz"], check=True)
    for name, value in values.items():
        found = read_volume(tmp_path / "out" / f"{name}.nii.gz").reordered_to(read_volume(image))
        assert np.array_equal(found.array > 0, mask == value), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "made", [SQUARE, Made(**ODD), Made("MR", turned(17, -8, 31), **ODD)], ids=["square", "odd", "oblique"]
)
def test_dcmqi_reads_every_segment(made: Made, tmp_path: Path) -> None:
    converter = shutil.which(
        "segimage2itkimage", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if converter is None:
        pytest.skip("dcmqi is not installed: pip install dcmqi")
    image, written, mask, values = _exported(tmp_path, made, "dicom-seg")
    (tmp_path / "out").mkdir()
    command = [converter, "--inputDICOM", str(written), "--outputDirectory", str(tmp_path / "out")]
    subprocess.run([*command, "--outputType", "nii"], check=True, capture_output=True)
    for value in values.values():
        found = read_volume(tmp_path / "out" / f"{value}.nii.gz").reordered_to(read_volume(image))
        assert np.array_equal(found.array > 0, mask == value), value
