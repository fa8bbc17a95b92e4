"""Inputs of a prediction: which files are channels of one case, and which are cases of their own."""

import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medfcn.datasets import assemble, find_dataset, find_inputs, inputs
from medfcn.errors import DatasetError
from tests.datasets.layouts import lay

TWO = ["v_0000.nii", "v_0001.nii"]
INPUTS: dict[str, tuple[list[str], str, int | None, dict[str, list[str]]]] = {
    "one channel, two files": (TWO, "", 1, {"v_0000": ["v_0000.nii"], "v_0001": ["v_0001.nii"]}),
    "two channels, two files": (TWO, "", 2, {"v": TWO}),
    "nobody knows how many": (TWO, "", None, {"v": TWO}),
    "one channel as nnU-Net names it": (
        ["a_0000.nii", "b_0000.nii"],
        "",
        1,
        {"a": ["a_0000.nii"], "b": ["b_0000.nii"]},
    ),
    "plain names": (["a.nii", "b.nii"], "", 1, {"a": ["a.nii"], "b": ["b.nii"]}),
    "years": (["s_2021.nii", "s_2022.nii"], "", 2, {"s_2021": ["s_2021.nii"], "s_2022": ["s_2022.nii"]}),
    "a folder that was trained on": (
        [*(f"images/{name}" for name in TWO), *(f"labels/{name}" for name in TWO)],
        "",
        1,
        {"v_0000": ["v_0000.nii"], "v_0001": ["v_0001.nii"]},
    ),
    "its images": (
        [*(f"images/{name}" for name in TWO), *(f"labels/{name}" for name in TWO)],
        "images",
        1,
        {"v_0000": ["v_0000.nii"], "v_0001": ["v_0001.nii"]},
    ),
    "its images, one left": (
        ["images/v_0000.nii", "labels/v_0000.nii"],
        "images",
        1,
        {"v_0000": ["v_0000.nii"]},
    ),
    "nnU-Net's folder": (
        ["imagesTr/a_0000.nii", "imagesTr/a_0001.nii", "labelsTr/a.nii"],
        "",
        2,
        {"a": ["a_0000.nii", "a_0001.nii"]},
    ),
    "nnU-Net's folder without labels": (["imagesTr/a_0000.nii"], "", 1, {"a": ["a_0000.nii"]}),
    "one file of two cases": (TWO, "v_0000.nii", 1, {"v_0000": ["v_0000.nii"]}),
    "the other": (TWO, "v_0001.nii", 1, {"v_0001": ["v_0001.nii"]}),
    "one file finds its sibling": ([*TWO, "w_0001.nii"], "v_0000.nii", 2, {"v": TWO}),
    "the second file finds the first": (TWO, "v_0001.nii", 2, {"v": TWO}),
    "a file by itself": (["v_0000.nii"], "v_0000.nii", 1, {"v": ["v_0000.nii"]}),
}


@pytest.mark.parametrize("name", list(INPUTS))
def test_the_cases_of_files(name: str, tmp_path: Path) -> None:
    names, given, channels, expected = INPUTS[name]
    lay(tmp_path, *names)
    found = find_inputs(tmp_path / given, channels=channels)
    assert {case.id: [path.name for path in case.images] for case in found} == expected
    assert not any(case.lacks or case.label for case in found)


@pytest.mark.parametrize("given", ["", "v_0001.nii.gz"])
def test_the_file_of_a_missing_channel_is_named(given: str, tmp_path: Path) -> None:
    lay(tmp_path, *(["v_0001.nii.gz"] if given else ["v_0001.nii.gz", "w_0000.nii", "w_0001.nii"]))
    case = find_inputs(tmp_path / given, channels=2)[0]
    assert case.id == "v"
    assert case.lacks == "v_0000.nii.gz is missing: the model takes 2 channels, the case has 1; add the file"


def test_one_of_several_missing_channels_is_named_and_the_others_counted(tmp_path: Path) -> None:
    lay(tmp_path, "v_0000.nii", "v_0002.nii")
    assert find_inputs(tmp_path, channels=4)[0].lacks.startswith("v_0001.nii (and 1 more) is missing")


def test_channels_in_the_fourth_dimension_are_no_siblings(tmp_path: Path) -> None:
    for name in TWO:
        nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 3, 2), dtype=np.int16), np.eye(4)), tmp_path / name)
    assert [case.id for case in find_inputs(tmp_path, channels=2)] == ["v_0000", "v_0001"]


@pytest.mark.parametrize("folder", ["images", "scans"])
def test_channels_that_only_a_list_names(folder: str, tmp_path: Path) -> None:
    lay(tmp_path, f"{folder}/a_t1.nii", f"{folder}/a_t2.nii", "masks/a.nii")
    entry = {"image": [f"{folder}/a_t1.nii", f"{folder}/a_t2.nii"], "label": "masks/a.nii"}
    (tmp_path / "dataset.json").write_text(json.dumps({"training": [entry]}))
    for given in (tmp_path, tmp_path / "dataset.json"):
        (case,) = find_inputs(given, channels=2)
        assert [path.name for path in case.images] == ["a_t1.nii", "a_t2.nii"]


def test_a_table_names_the_image_that_is_missing(tmp_path: Path) -> None:
    lay(tmp_path, "a.nii", "ma.nii", "mb.nii")
    (tmp_path / "cases.csv").write_text("id,image,label\na,a.nii,ma.nii\nb,b.nii,mb.nii\nc,a2.nii,mc.nii\n")
    first, second, _ = find_inputs(tmp_path / "cases.csv", channels=1)
    assert (first.id, first.lacks) == ("a", "")
    assert re.fullmatch(r"named in cases.csv: line 3 but does not exist; .*", second.lacks)


def test_twins_of_a_sibling_are_named(tmp_path: Path) -> None:
    lay(tmp_path, *TWO, "v_0001.nii.gz")
    assert "two cases have this id" in find_inputs(tmp_path / "v_0000.nii", channels=2)[0].lacks
    assert find_inputs(tmp_path / "v_0000.nii", channels=1)[0].images == (tmp_path / "v_0000.nii",)


def test_names_are_compared_once_however_many_cases_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with each would take the square of their number."""
    calls: list[str] = []
    for module in (inputs, assemble):
        original = module.twin_key
        monkeypatch.setattr(module, "twin_key", lambda name, of=original: calls.append(name) or of(name))
    for number in range(60):
        (tmp_path / f"case_{number}.nii").touch()
    assert len(find_inputs(tmp_path)) == 60
    assert len(calls) <= 4 * 60
    calls.clear()
    rows = [f"case_{number},case_{number}.nii,no.nii" for number in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["id,image,label", *rows]))
    with pytest.raises(DatasetError, match="60 of 60 cases are not complete"):
        find_dataset(tmp_path / "t.csv")
    assert len(calls) <= 4 * 60
