"""Tables of cases from spreadsheets: names of columns in capitals, and columns that are not read but matter."""

import json

import numpy as np
import pytest

import medfcn
from medfcn.datasets import find_dataset
from medfcn.datasets.column_names import as_read, patients_in
from medfcn.datasets.patients import require_stated_patients, unstated_patients
from medfcn.errors import DatasetError
from medfcn.evaluation.changes import read_pairs
from medfcn.volumes import Volume


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """Eight cases, two of each patient, whose ids do not say so."""
    folder, mask = tmp_path_factory.mktemp("table"), np.zeros((6, 6, 6), dtype=np.uint8)
    mask[2:4, 2:4, 2:4] = 1
    for case in range(8):
        Volume(np.random.default_rng(case).normal(size=mask.shape).astype(np.float32), np.eye(4)).save(
            folder / f"im{case}.nii.gz"
        )
        Volume(mask, np.eye(4)).save(folder / f"mask{case}.nii.gz")
    return folder


def table(folder, header, *of_cases):
    path = folder / "cases.csv"
    lines = [f"c{case},im{case}.nii.gz,mask{case}.nii.gz,{text}" for case, text in enumerate(of_cases)]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


PATIENTS = ["P1", "P1", "P2", "P2", "P3", "P3", "P4", "P4"]


@pytest.mark.parametrize("header", ["id,image,label,Group", "ID,Image,Label,GROUP"], ids=["one", "all"])
def test_names_in_capitals_are_the_columns_that_are_read(volumes, header):
    dataset = find_dataset(table(volumes, header, *PATIENTS))
    assert [case.group for case in dataset.cases] == PATIENTS
    assert as_read(["Image_CT", "Sex", "Age"], ("image", "image_")) == ("image_CT", "Sex", "Age")
    with pytest.raises(DatasetError, match="the column 'group' is given twice"):
        find_dataset(table(volumes, "id,image,label,group,Group", *(f"{name},x" for name in PATIENTS)))
    path = volumes / "pairs.csv"
    path.write_text("Before,After\na,b\n")
    assert read_pairs(path) == (("a", "b"),)


@pytest.mark.parametrize("column", ["patient", "Patient ID", "subject_id", "groups", "PID"])
def test_patients_in_a_column_that_is_not_read_are_never_split_in_silence(volumes, column):
    path = table(volumes, f"id,image,label,{column}", *PATIENTS)
    found = (
        f"8 cases are of 4 patients by the column {column}, which is not read: c0, c1 .P1.; c2, c3 .P2. and 2 more"
    )
    with pytest.raises(DatasetError, match=f"{found}; call the column group, or give .*none") as error:
        require_stated_patients(find_dataset(path))
    assert error.value.code == "PATIENTS_UNSTATED"
    assert unstated_patients(find_dataset(path))["P2"] == ("c2", "c3")
    require_stated_patients(find_dataset(path, group_by="none"))
    masks = {f"c{case}": volumes / f"mask{case}.nii.gz" for case in range(8)}
    notes = " ".join(medfcn.evaluate(masks, path).notes)
    assert f"by the column {column}, which is not read" in notes
    assert "makes intervals too narrow" in notes


def test_a_column_whose_cases_are_all_alone_or_all_together_says_nothing_of_patients():
    assert patients_in({"patient": {"a": "1", "b": "2"}}) == ("", {})
    assert patients_in({"group": {"a": "1", "b": "1", "c": "2"}, "sex": {"a": "f", "b": "f", "c": "m"}}) == ("", {})
    assert patients_in({"person": {"a": "", "b": "", "c": "2"}}) == ("", {})
    assert patients_in({"group ids": {"a": "1", "b": "1"}}) == ("", {})


@pytest.mark.parametrize(
    ("column", "values", "is_said"),
    [
        ("split", ["train"] * 6 + ["test"] * 2, True),
        ("Set", ["Training", "Validation"] * 4, True),
        ("folds", list("01230123"), True),
        ("fold", list("01230123"), False),
        ("set", list("abcdefgh"), False),
        ("site", ["train", "test"] * 4, False),
    ],
    ids=["split", "set", "folds", "read", "no parts", "another"],
)
def test_a_split_in_a_column_that_is_not_read_is_said(volumes, column, values, is_said):
    problems = find_dataset(table(volumes, f"id,image,label,{column}", *values)).problems
    said = [problem for problem in problems if problem.code == "SPLITS_UNREAD"]
    assert len(said) == is_said
    if is_said:
        assert said[0].found.startswith(f"the column {column} is not read (")
        assert said[0].severity == "warning"


def test_labels_that_were_drawn_and_patients_are_read_in_either_spelling_and_from_a_list(volumes):
    dataset = find_dataset(table(volumes, "id,image,label,labeled", *["organ"] * 7, ""))
    assert [case.labelled for case in dataset.cases] == [("organ",)] * 7 + [()]
    entries = [
        {"image": f"im{case}.nii.gz", "label": f"mask{case}.nii.gz", "group": case // 2, "labeled": ["organ"]}
        for case in range(8)
    ]
    path = volumes / "list" / "dataset.json"
    path.parent.mkdir()
    for name in volumes.glob("*.nii.gz"):
        (path.parent / name.name).symlink_to(name)
    path.write_text(json.dumps({"training": entries}))
    dataset = find_dataset(path, allow_outside=True)
    assert [case.group for case in dataset.cases] == list("00112233")
    assert dataset.has_groups
    assert {case.labelled for case in dataset.cases} == {("organ",)}
    del entries[3]["group"]
    path.write_text(json.dumps({"training": entries}))
    with pytest.raises(DatasetError, match="no group for im3; give every case one"):
        find_dataset(path, allow_outside=True)
