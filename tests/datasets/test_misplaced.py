"""Whoever gives the wrong folder is told what is in it and what would be right; usual names are understood."""

import zipfile
from pathlib import Path

import pytest

from medfcn.datasets import find_dataset, find_inputs, find_masks
from medfcn.datasets.folder_names import FolderPair, folder_pair, holds_labels
from medfcn.errors import DatasetError, MedfcnError, MissingFileError
from medfcn.reporting.shown_cases import images_beside
from tests.datasets.layouts import lay


def _said(call: object, path: Path) -> str:
    with pytest.raises(MedfcnError) as caught:
        call(path)  # type: ignore[operator]
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("images", "labels"),
    [("Images", "Masks"), ("images", "masks"), ("img", "mask"), ("IMAGES", "LABELS"), ("scans", "Segmentations")],
)
def test_usual_names_of_folders_are_understood(images: str, labels: str, tmp_path: Path) -> None:
    lay(tmp_path, f"{images}/a.nii.gz", f"{images}/b.nii.gz", f"{labels}/a.nii.gz", f"{labels}/b.nii.gz")
    assert [case.id for case in find_dataset(tmp_path).cases] == ["a", "b"]
    assert find_dataset(tmp_path).layout == "folders"
    assert {case.images[0].parent.name for case in find_inputs(tmp_path)} == {images}
    assert find_masks(tmp_path) == {name: tmp_path / labels / f"{name}.nii.gz" for name in ("a", "b")}
    assert set(images_beside(tmp_path / labels)) == {"a", "b"}, "a report of these references shows the images"


def test_folders_of_nnu_net_in_other_letters(tmp_path: Path) -> None:
    lay(tmp_path, "ImagesTR/a_0000.nii.gz", "labelstr/a.nii.gz")
    assert find_dataset(tmp_path).layout == "nnunet"
    assert [case.id for case in find_dataset(tmp_path).cases] == ["a"]


def test_the_documented_names_come_before_the_others(tmp_path: Path) -> None:
    lay(tmp_path, "images/a.nii.gz", "labels/a.nii.gz", "masks/b.nii.gz", "scans/b.nii.gz")
    assert folder_pair(tmp_path) == FolderPair("images", "labels", "folders")
    assert not holds_labels(tmp_path / "masks")
    assert holds_labels(tmp_path / "labels")


def test_a_folder_of_other_masks_is_named(tmp_path: Path) -> None:
    lay(tmp_path, "images/a.nii.gz", "labels/a.nii.gz", "scribbles/a.nii.gz", "notes/b.nii.gz", "imagesTs/a.nii.gz")
    (problem,) = find_dataset(tmp_path).problems
    assert (problem.code, problem.severity, problem.file) == ("FILE_UNUSED", "warning", "scribbles")
    assert problem.found.startswith("scribbles/ has volumes of the same names as 1 case, and is not read: the masks")


def test_of_two_folders_that_may_be_meant_none_is_chosen(tmp_path: Path) -> None:
    lay(tmp_path, "images/a.nii.gz", "masks/a.nii.gz", "Segmentations/a.nii.gz")
    text = _said(find_dataset, tmp_path)
    assert "Segmentations/ and masks/ may each be the folder of labels; name the one that is meant labels/" in text


def test_images_without_masks_are_not_taken_for_a_data_set(tmp_path: Path) -> None:
    lay(tmp_path, "Scans/a.nii.gz", "Scans/b.nii.gz")
    assert folder_pair(tmp_path) is None
    assert "volumes are in Scans/ alone; masks of the same names belong into labels/" in _said(find_dataset, tmp_path)
    assert "no volumes in it, but in Scans/; give that folder" in _said(find_inputs, tmp_path)


@pytest.mark.parametrize(
    ("image", "mask"), [("case_0_ct", "case_0_seg"), ("case_0", "case_0_mask"), ("case_0-T1", "case_0-label")]
)
def test_images_and_masks_in_one_folder(image: str, mask: str, tmp_path: Path) -> None:
    lay(tmp_path, f"{image}.nii.gz", f"{mask}.nii.gz")
    text = _said(find_dataset, tmp_path)
    assert f"images and masks are in one folder ({image}.nii.gz beside {mask}.nii.gz)" in text
    assert "put them into images/ and labels/, each under its case's name (case_0.nii.gz)" in text
    assert f"id,image,label, then case_0,{image}.nii.gz,{mask}.nii.gz" in text
    (tmp_path / "table.csv").write_text(f"id,image,label\ncase_0,{image}.nii.gz,{mask}.nii.gz\n")
    assert [case.id for case in find_dataset(tmp_path / "table.csv").cases] == ["case_0"], "what it advises works"
    inner = tmp_path / "images"
    lay(inner, f"{image}.nii.gz", f"{mask}.nii.gz")
    assert "images and masks are in one folder" in _said(find_dataset, tmp_path)


def test_images_and_labels_of_other_names(tmp_path: Path) -> None:
    lay(tmp_path, "images/case_0_ct.nii.gz", "labels/case_0_seg.nii.gz", "images/case_1_ct.nii.gz")
    lay(tmp_path, "labels/case_1_seg.nii.gz")
    text = _said(find_dataset, tmp_path)
    assert "images are named like 'case_0_ct' and labels like 'case_0_seg', and no name is the same" in text
    assert "give both the case's id as file name, or list them in a CSV" in text
    assert [case.id for case in find_inputs(tmp_path)] == ["case_0_ct", "case_1_ct"], "they can be predicted"


def test_volumes_without_masks(tmp_path: Path) -> None:
    lay(tmp_path, "a.nii.gz", "b.nii.gz")
    text = _said(find_dataset, tmp_path)
    assert "2 volumes and no folder of masks" in text
    assert "medfcn predict RUN VOLUMES -o MASKS" in text


def test_a_data_set_one_folder_further_in(tmp_path: Path) -> None:
    lay(tmp_path, "Task04/images/a.nii.gz", "Task04/labels/a.nii.gz")
    assert "the data set is further in; give Task04/ in it" in _said(find_dataset, tmp_path)


def test_folders_of_other_names(tmp_path: Path) -> None:
    lay(tmp_path, "CTs/a_ct.nii.gz", "Drawn/a_seg.nii.gz", "CTs/b_ct.nii.gz", "Drawn/b_seg.nii.gz")
    (tmp_path / "CTs" / "ct.txt").touch()
    text = _said(find_inputs, tmp_path)
    assert "no volumes in it, but in CTs/, Drawn/; give one of them" in text


@pytest.mark.parametrize("inside", ["", "patient_1"])
def test_pictures_are_no_volumes(inside: str, tmp_path: Path) -> None:
    (tmp_path / inside).mkdir(exist_ok=True)
    for name in ("1.png", "2.PNG", "3.png"):
        (tmp_path / inside / name).write_bytes(b"\x89PNG")
    for call in (find_dataset, find_inputs, find_masks):
        text = _said(call, tmp_path)
        assert "3 PNG pictures and no volumes" in text
        assert "give the DICOM series that they are from, or stack the slices" in text


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "series.zip", "w") as archive:
        archive.writestr("1.dcm", b"0")
    for call in (find_dataset, find_inputs, find_masks):
        assert "series.zip is an archive; unpack it, and give the folder" in _said(call, tmp_path)
    assert "series.zip is an archive; unpack it" in _said(find_dataset, tmp_path / "series.zip")


@pytest.mark.parametrize("file", ["model.json", "state/training.json", "fold_1/model.json"])
def test_a_run_folder_is_no_data(file: str, tmp_path: Path) -> None:
    lay(tmp_path, file, "cases.csv", "validation/a.nii.gz")
    said = _said(find_dataset, tmp_path)
    assert "a run folder of `medfcn train`, no data set; give the folder or table of the cases" in said
    assert "cases.csv" not in said, "that table names no files"
    assert "give RUN first, then volumes: `medfcn predict RUN VOLUMES -o MASKS`" in _said(find_inputs, tmp_path)
    assert "its validation/ holds the validation masks and their scores" in _said(find_masks, tmp_path)


def test_what_is_not_recognised_is_told_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert "expected images/ and labels/, a dataset.json" in _said(find_dataset, tmp_path)
    with pytest.raises(MissingFileError):
        find_dataset(tmp_path / "nothing")
    with pytest.raises(DatasetError, match="no masks"):
        find_masks(tmp_path)
