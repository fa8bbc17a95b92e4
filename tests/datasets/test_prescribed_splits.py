"""Splits that other tools wrote down are used as they are, or named."""

import json
from pathlib import Path

import pytest

from medfcn.datasets import check_cases, find_dataset
from medfcn.datasets.cases import Splits
from medfcn.errors import DatasetError
from tests.datasets.layouts import decathlon, lay, line_of

IDS = ("a", "b", "c", "d")


def nnunet(root: Path, *splits: tuple[str, str], ids: tuple[str, ...] = IDS) -> Path:
    """An nnU-Net folder with the given training and validation cases, a letter each."""
    lay(root, *(name for case in ids for name in (f"imagesTr/{case}_0000.nii", f"labelsTr/{case}.nii")))
    (root / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "MRI"}, "labels": {"background": 0, "x": 1}})
    )
    stored = [{"train": list(training), "val": list(validation)} for training, validation in splits]
    (root / "splits_final.json").write_text(json.dumps(stored))
    return root


def test_the_splits_of_nnunet_are_read(tmp_path: Path) -> None:
    dataset = find_dataset(nnunet(tmp_path, ("ab", "cd"), ("cd", "ab")))
    assert dataset.splits == Splits("splits_final.json", ((("a", "b"), ("c", "d")), (("c", "d"), ("a", "b"))))
    assert dataset.fold_count == 2
    assert "; prescribed: 2 splits of splits_final.json" in check_cases(dataset).to_text()
    assert find_dataset(nnunet(tmp_path, ("abc", "d"))).fold_count == 0


@pytest.mark.parametrize(
    ("splits", "found"),
    [
        ([("ab", "cde")], "split 1 names e, which the data set does not contain"),
        ([("abc", "cd")], "split 1 has the case c in training and in validation"),
        ([("abcd", "")], "split 1 has no validation case"),
        ([("", "ab")], "split 1 has no training case"),
        ([("abc", "d"), ("ab", "cd")], "split 2 has d in validation, as split 1 has"),
        ([], "contains no split"),
    ],
)
def test_splits_that_contradict_the_cases_are_refused(
    splits: list[tuple[str, str]], found: str, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=f"splits_final.json: {found}") as caught:
        find_dataset(nnunet(tmp_path, *splits))
    assert caught.value.code == "SPLITS_INVALID"
    line_of(caught)


def test_a_patient_on_both_sides_of_a_split_is_refused(tmp_path: Path) -> None:
    nnunet(tmp_path, ids=("P1_left", "P1_right", "P2_left"))
    stored = [{"train": ["P1_left", "P2_left"], "val": ["P1_right"]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(stored))
    assert find_dataset(tmp_path, group_by="none").splits
    with pytest.raises(DatasetError, match=r"split 1 has the patient \(group\) P1 in training and in validation"):
        find_dataset(tmp_path, group_by="stem")


def test_other_json_than_splits_is_refused(tmp_path: Path) -> None:
    nnunet(tmp_path)
    (tmp_path / "splits_final.json").write_text('[{"train": "a"}]')
    with pytest.raises(DatasetError, match=r"splits_final.json: \[0\].train: expected array, found str") as caught:
        find_dataset(tmp_path)
    assert caught.value.code == "SPLITS_INVALID"


def test_files_of_splits_that_are_not_read_are_named(tmp_path: Path) -> None:
    root = nnunet(tmp_path / "nnUNet_raw" / "Dataset007_X", ("ab", "cd"))
    prepared = tmp_path / "nnUNet_preprocessed" / "Dataset007_X"
    prepared.mkdir(parents=True)
    (root / "splits_final.json").rename(prepared / "splits_final.json")
    (root / "splits_final.pkl").write_bytes(b"\x80")
    problems = find_dataset(root).problems
    assert [problem.code for problem in problems] == ["SPLITS_UNREAD", "SPLITS_UNREAD"]
    assert [problem.file for problem in problems] == [
        "splits_final.pkl",
        "nnUNet_preprocessed/Dataset007_X/splits_final.json",
    ]
    assert {problem.code for problem in check_cases(find_dataset(root)).warnings} >= {"SPLITS_UNREAD"}


def monai(root: Path, training: list[dict[str, object]], **more: object) -> Path:
    lay(root, *(f"{kind}/{case}.nii" for case in IDS for kind in ("i", "l")))
    return decathlon(root, training, **more)


def entry(case: str, **more: object) -> dict[str, object]:
    return {"image": f"i/{case}.nii", "label": f"l/{case}.nii", **more}


def test_the_validation_list_of_monai_is_read(tmp_path: Path) -> None:
    root = monai(tmp_path, [entry("a"), entry("b"), entry("c")], validation=[entry("d")], numTraining=3)
    dataset = find_dataset(root)
    assert [case.id for case in dataset.cases] == list(IDS)
    assert dataset.splits == Splits("dataset.json", ((("a", "b", "c"), ("d",)),))
    assert not dataset.problems
    monai(tmp_path, [entry("a"), entry("b", label="l/x.nii")], validation=[entry("d", label="l/y.nii")])
    assert [(problem.case, problem.found) for problem in find_dataset(root).problems] == [
        ("b", "named in dataset.json: training[1] but does not exist"),
        ("d", "named in dataset.json: validation[0] but does not exist"),
    ]


def test_the_folds_of_monai_are_read(tmp_path: Path) -> None:
    root = monai(tmp_path, [entry(case, fold=number % 2) for number, case in enumerate(IDS)])
    dataset = find_dataset(root)
    assert [case.fold for case in dataset.cases] == ["0", "1", "0", "1"]
    assert dataset.fold_count == 2
    monai(tmp_path, [entry("a", fold=0), entry("b")])
    with pytest.raises(DatasetError, match=r"dataset\.json: no fold for b"):
        find_dataset(root)
    monai(tmp_path, [entry("a", fold=0), entry("b", fold=1)], validation=[entry("c")])
    with pytest.raises(DatasetError, match="validation is listed beside folds"):
        find_dataset(root)
