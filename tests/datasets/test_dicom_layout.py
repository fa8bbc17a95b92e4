"""A tree of DICOM series as a data set: links to folders, halves of a series, and labels that few cases have."""

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'medfcn[dicom]'")
import pydicom

from medfcn.datasets import find_dataset, find_inputs
from medfcn.datasets.check import check
from medfcn.volumes import as_volume
from tests.volumes.dicom_labels import segmentation
from tests.volumes.dicom_series import Made, classic, save_all
from tests.volumes.hostile import GOOD


def series(folder: Path, patient: str, label: str = "") -> None:
    slices = classic(Made(fields={"PatientID": patient}))
    save_all(slices, folder / "ct")
    if label:
        first = slices[0]
        mask = np.zeros((len(slices), first.Rows, first.Columns), dtype=bool)
        mask[2:5, 3:6, 3:6] = True
        segmentation(slices, {label: mask}, folder / "seg" / "seg.dcm")


def test_a_structure_that_few_cases_have_is_chosen_by_its_name(tmp_path: Path) -> None:
    for name in ("GTV_Mass_CT", "GTV_Node", "Lung_Left"):
        series(tmp_path / name.lower(), name, name)
    dataset = find_dataset(tmp_path)
    assert not dataset.named.structures
    chosen = dataset.labels_of("GTV_Mass_CT")
    assert chosen is not None
    assert [entry.structures for entry in chosen.entries] == [("GTV_Mass_CT",)]
    report = check(tmp_path, labels="GTV_Mass_CT")
    lacking = {problem.case for problem in report.errors if problem.code == "STRUCTURE_MISSING"}
    assert lacking == {"gtv_node_ct", "lung_left_ct"}


def test_a_link_to_the_folder_of_a_series_is_followed_once(tmp_path: Path) -> None:
    series(tmp_path / "store" / "p1", "p1")
    series(tmp_path / "tree" / "p2", "p2")
    (tmp_path / "tree" / "p1").symlink_to(tmp_path / "store" / "p1")
    (tmp_path / "tree" / "p3").symlink_to(tmp_path / "store" / "p1")
    (tmp_path / "tree" / "p2" / "up").symlink_to(tmp_path)
    assert [case.id for case in find_inputs(tmp_path / "tree")] == ["p1_ct", "p2_ct"]


def test_a_series_whose_folder_says_nothing_is_named_by_the_folders_above(
    tmp_path: Path,
) -> None:
    """The masks of a tree, and of one patient of it, have the same names."""
    tree = tmp_path / "tree"
    for patient, folder in (("PAT05", "SE0001"), ("PAT06", "SE0002"), ("PAT07", "liver"), ("PAT09", "1234567")):
        save_all(classic(Made(fields={"PatientID": patient})), tree / patient / "ST0001" / folder)
    save_all(classic(Made(fields={"PatientID": "8"})), tree / "008")

    def ids(place: Path) -> list[str]:
        return [case.id for case in find_inputs(place)]

    assert ids(tree) == ["008", "PAT05_ST0001_SE0001", "PAT06_ST0001_SE0002", "PAT09_ST0001_1234567", "liver"]
    assert ids(tree / "PAT05") == ["PAT05_ST0001_SE0001"]
    assert ids(tree / "PAT09") == ["PAT09_ST0001_1234567"]
    assert ids(tree / "PAT07") == ["liver"]
    assert ids(tree / "008") == ["008"]
    assert ids(tree / "PAT05" / "ST0001" / "SE0001") == ["SE0001"]  # nothing above what was given is in a name
    assert ids(tree / "PAT05" / "ST0001") == ["SE0001"]
    for folder in (tree / "a_b" / "1", tree / "a" / "b" / "1"):  # whose names would be one
        save_all(classic(Made(fields={"PatientID": folder.parent.name})), folder)
    assert len(set(ids(tree))) == 7


def test_halves_of_a_series_in_two_folders_are_refused(tmp_path: Path) -> None:
    series(tmp_path, "p1")
    (tmp_path / "more").mkdir()
    for path in sorted((tmp_path / "ct").iterdir())[5:]:
        shutil.move(path, tmp_path / "more" / path.name)
    lacking = {case.id: case.lacks for case in find_inputs(tmp_path)}
    assert set(lacking) == {"ct", "more"}
    assert all("the series goes on in" in lacks for lacks in lacking.values())


def test_a_folder_of_which_no_file_can_be_read_is_a_case_that_failed(tmp_path: Path) -> None:
    series(tmp_path / "good", "p1")
    series(tmp_path / "bad", "p2")
    for path in (tmp_path / "bad" / "ct").iterdir():
        slice_ = pydicom.dcmread(path)
        del slice_.SeriesInstanceUID
        slice_.save_as(path)
    lacking = {case.id: case.lacks for case in find_inputs(tmp_path)}
    assert lacking["good_ct"] == ""
    assert "is DICOM without SOPClassUID, SOPInstanceUID or SeriesInstanceUID" in lacking["bad_ct"]
    assert {problem.case for problem in check(tmp_path).errors} == {"bad_ct"}


def test_one_file_that_looks_like_dicom_makes_no_tree_of_a_folder_of_volumes(tmp_path: Path) -> None:
    for name in ("a.nii", "b.nii"):
        (tmp_path / name).write_bytes(GOOD)
    (tmp_path / "c.nii").write_bytes(bytes(128) + b"DICM" + bytes(400))
    assert [case.id for case in find_inputs(tmp_path)] == ["a", "b", "c"]


def test_the_directory_of_a_disc_beside_slices_is_passed_over(tmp_path: Path) -> None:
    series(tmp_path, "p1")
    disc = pydicom.Dataset()
    disc.file_meta = pydicom.dataset.FileMetaDataset()
    disc.file_meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    disc.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    disc.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    disc.FileSetID = "DISC"
    disc.save_as(tmp_path / "ct" / "DICOMDIR", enforce_file_format=True)
    (case,) = find_inputs(tmp_path / "ct")
    assert case.lacks == ""
    assert as_volume(case.images[0]).shape[2] > 1


def test_a_further_series_of_a_patient_without_a_label_is_left_out_and_named(tmp_path: Path) -> None:
    """A scout or a second contrast beside the labelled series is no fault; a patient without any label is one."""
    for name in ("p1", "p2"):
        series(tmp_path / name, name, "liver")
        save_all(classic(Made(fields={"PatientID": name})), tmp_path / name / "pet")
    dataset = find_dataset(tmp_path)
    assert [case.id for case in dataset.cases] == ["p1_ct", "p2_ct"]
    assert dataset.incomplete == ()
    found = {problem.file: problem for problem in check(tmp_path).problems if problem.code == "FILE_UNUSED"}
    assert sorted(found) == ["p1/pet", "p2/pet"]
    assert found["p1/pet"].severity == "warning"
    assert found["p1/pet"].found == "series p1_pet has no label, and another one of this patient has: it is not used"
    assert [case.id for case in find_inputs(tmp_path)] == ["p1_ct", "p1_pet", "p2_ct", "p2_pet"]
    series(tmp_path / "p3", "p3")
    lacking = [problem.case for problem in check(tmp_path).errors if problem.code == "LABEL_MISSING"]
    assert lacking == ["p3_ct"]
