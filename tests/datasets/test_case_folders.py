"""Data sets with one file for each structure: found in every layout, read as one mask, none missing in silence."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from medfcn.datasets import find_dataset
from medfcn.datasets.case_folders import masks_in
from medfcn.datasets.check import check
from medfcn.errors import DatasetError, GeometryMismatchError, LabelError, SettingsError
from medfcn.labels import LabelMap, read_mask
from medfcn.labels.structures import (
    StructureFiles,
    choose_structures,
    places_of_value,
    structure_labels,
    value_of_places,
    with_values,
)
from medfcn.progress import Silent
from medfcn.training.survey import survey
from medfcn.volumes.options import DEFAULT_OPTIONS
from tests.structures import SHAPE, box, lay_out, organs, save

LAYOUTS = ["segmentations", "flat", "beside"]


def two_cases(root: Path, layout: str, overlap: int = 0) -> Path:
    return lay_out(root, layout, {f"s{case}": organs(case, overlap=overlap) for case in range(2)})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_a_data_set(tmp_path: Path, layout: str) -> None:
    report = check(two_cases(tmp_path, layout))
    assert report.label_names == ("kidney", "liver", "spleen")
    assert [case.id for case in report.cases] == ["s0", "s1"]
    assert not report.problems
    for case in report.cases:
        assert case.label is not None
        assert case.label.voxels == {1: 48, 2: 864, 3: 720}
    assert "kidney: 48 (0.576), liver: 864 (10.4), spleen: 720 (8.64)" in " ".join(report.to_text().split())


@pytest.mark.parametrize(
    ("labels", "voxels"),
    [
        ("spleen,liver", {1: 720, 2: 864}),
        ("organs=liver+spleen", {1: 1584}),
        ("abdomen=liver+spleen, stone = kidney", {1: 1584, 2: 48}),
        ({"abdomen": ["liver", "spleen"], "stone": "kidney"}, {1: 1584, 2: 48}),
    ],
    ids=str,
)
def test_structures_are_chosen_renamed_and_merged(tmp_path: Path, labels: object, voxels: dict[int, int]) -> None:
    report = check(two_cases(tmp_path, "segmentations"), labels=labels)  # type: ignore[arg-type]
    assert report.cases[0].label is not None
    assert report.cases[0].label.voxels == voxels
    assert not report.problems


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("livr", "did you mean 'liver'?"),
        ("liver=1", "none is '1'; known are kidney, liver, spleen"),
        ("liver,liver", "given twice"),
        ("a=liver+liver", "has a structure twice"),
        ("ignore=liver", "ignore cannot be a structure"),
        ({"a": 3}, "the masks are one file for each structure"),
        ("", "one file for each structure; name them"),
    ],
    ids=str,
)
def test_structures_that_cannot_be_meant_are_refused(tmp_path: Path, labels: object, words: str) -> None:
    with pytest.raises(SettingsError, match=words.replace("?", r"\?")):
        check(two_cases(tmp_path, "segmentations"), labels=labels)  # type: ignore[arg-type]


def test_structures_that_share_voxels_overlap(tmp_path: Path) -> None:
    report = check(two_cases(tmp_path, "segmentations", overlap=1))
    assert report.cases[0].label is not None
    # With three labels, the second and the third together are 2 + 3 x 4.
    assert report.cases[0].label.voxels == {1: 48, 2: 720, 3: 720, 14: 144}
    assert [problem.code for problem in report.problems] == ["LABELS_OVERLAP"]
    assert "liver + spleen" in report.problems[0].found
    assert check(tmp_path, labels="organs=liver+spleen").problems == ()
    labels = with_values(choose_structures(None, ["kidney", "liver", "spleen"]), [1, 2, 3, 14])
    case = find_dataset(tmp_path).cases[0]
    assert case.label is not None
    indices = labels.encode(read_mask(case.label, labels=labels).array, name="s0")
    assert labels.voxel_counts(indices) == {"kidney": 48, "liver": 864, "spleen": 864}
    assert LabelMap.from_json(json.loads(json.dumps(labels.to_json()))) == labels


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_missing_structure_is_a_problem_of_its_case(tmp_path: Path, layout: str) -> None:
    root = two_cases(tmp_path, layout)
    next(root.glob("**/s1/**/spleen.nii.gz")).unlink()
    report = check(root)
    assert [(problem.code, problem.case) for problem in report.problems] == [("STRUCTURE_MISSING", "s1")]
    assert "no file of spleen" in report.problems[0].found
    assert check(root, labels="liver,kidney").problems == ()


def test_a_structure_that_few_cases_have_is_one_problem_of_the_data_set(tmp_path: Path) -> None:
    root = lay_out(tmp_path, "segmentations", {f"s{case}": organs(case) for case in range(3)})
    save(root / "s1" / "segmentations" / "cyst.nii.gz", organs()["kidney"])
    report = check(root)
    assert [(problem.code, problem.case) for problem in report.problems] == [("STRUCTURE_RARE", "")]
    assert "only 1 of 3 cases has a file of cyst" in report.problems[0].found
    assert report.label_names == ("kidney", "liver", "spleen")
    assert not check(root, labels="kidney,liver,spleen").problems
    named = check(root, labels="cyst,liver")
    assert [(problem.code, problem.case) for problem in named.errors] == [
        ("STRUCTURE_MISSING", "s0"),
        ("STRUCTURE_MISSING", "s2"),
    ]
    with pytest.raises(DatasetError, match="only 1 of 3 cases has a file of cyst"):
        survey(find_dataset(root), None, DEFAULT_OPTIONS, skip_bad=True, progress=Silent())
    chosen = find_dataset(root).labels_of("kidney,liver,spleen")
    assert len(survey(find_dataset(root), chosen, DEFAULT_OPTIONS, skip_bad=False, progress=Silent()).cases) == 3


def test_rare_structures_are_counted_one_by_one(tmp_path: Path) -> None:
    root = lay_out(tmp_path, "segmentations", {f"s{case}": organs(case) for case in range(3)})
    for case, name in (("s0", "cyst"), ("s1", "node"), ("s2", "stent")):
        save(root / case / "segmentations" / f"{name}.nii.gz", organs()["kidney"])
    (problem,) = check(root).problems
    assert problem.found == (
        "less than half of 3 cases have a file of each of these structures: cyst (1), node (1), stent (1)"
    )


def test_training_knows_which_structures_overlap(tmp_path: Path) -> None:
    said: list[str] = []

    class Heard(Silent):
        def say(self, line: str) -> None:
            said.append(line)

    root = two_cases(tmp_path, "segmentations", overlap=1)
    found = survey(find_dataset(root), None, DEFAULT_OPTIONS, skip_bad=False, progress=Heard())
    assert found.labels.overlapping
    assert found.label_voxels["s0"] == (48, 864, 864)
    assert "labels overlap: 1 is kidney; 2 is liver; 3 is spleen; 14 is liver + spleen" in said


def test_what_a_case_lacks_is_its_own_problem(tmp_path: Path) -> None:
    root = two_cases(tmp_path, "segmentations")
    (root / "s0" / "ct.nii.gz").unlink()
    for file in (root / "s1" / "segmentations").iterdir():
        file.unlink()
    lay_out(root, "segmentations", {"s2": organs(2)})
    problems = find_dataset(root).problems
    assert [(problem.code, problem.case) for problem in problems] == [
        ("IMAGE_MISSING", "s0"),
        ("LABEL_MISSING", "s1"),
    ]
    assert all("s0/" in problem.line or "s1/" in problem.line for problem in problems)


def test_a_volume_that_is_neither_image_nor_structure_is_named(tmp_path: Path) -> None:
    root = two_cases(tmp_path, "segmentations")
    save(root / "s1" / "combined.nii.gz", organs()["liver"])
    assert [problem.code for problem in find_dataset(root).problems] == ["FILE_UNUSED"]
    assert find_dataset(root).channel_names == ("ct",)


@pytest.mark.parametrize(
    ("voxels", "counts"),
    [
        (box(slice(2, 14), slice(2, 14), slice(1, 7)) * np.uint8(255), 864),
        (box(slice(2, 14), slice(2, 14), slice(1, 7)) * np.int16(5), 864),
        (box(slice(2, 14), slice(2, 14), slice(1, 7)).astype(np.float32), 864),
        (np.zeros(SHAPE, dtype=np.uint8), None),
    ],
    ids=["255", "5", "float", "empty"],
)
def test_a_structure_has_any_one_value(tmp_path: Path, voxels: np.ndarray, counts: int | None) -> None:
    root = two_cases(tmp_path, "segmentations")
    save(root / "s0" / "segmentations" / "liver.nii.gz", voxels)
    label = check(root).cases[0].label
    assert label is not None
    assert label.voxels.get(2) == counts


def test_a_structure_of_several_values_is_refused(tmp_path: Path) -> None:
    root = two_cases(tmp_path, "segmentations")
    save(root / "s0" / "segmentations" / "liver.nii.gz", organs()["liver"] + organs()["kidney"] * np.uint8(2))
    report = check(root)
    assert [(problem.code, problem.case) for problem in report.errors] == [("LABEL_VALUES", "s0")]
    assert "liver.nii.gz has the values 1, 2" in report.errors[0].line.replace(
        "liver.nii.gz: has", "liver.nii.gz has"
    )


def test_structures_in_another_order_are_re_ordered(tmp_path: Path) -> None:
    root = two_cases(tmp_path, "segmentations")
    mask = organs()["liver"]
    turned = np.array([[2.0, 0, 0, -2.0 * 23], [0, -2.0, 0, 0], [0, 0, 3.0, 0], [0, 0, 0, 1]])
    save(root / "s0" / "segmentations" / "liver.nii.gz", mask[::-1], turned)
    first, second = (read_mask(case.label).array for case in find_dataset(root).cases if case.label is not None)
    assert np.array_equal(first == 2, second == 2)


def test_structures_on_another_grid_are_refused(tmp_path: Path) -> None:
    root = two_cases(tmp_path, "segmentations")
    save(root / "s0" / "segmentations" / "liver.nii.gz", organs()["liver"][:, :, :8])
    label = find_dataset(root).cases[0].label
    assert label is not None
    with pytest.raises(GeometryMismatchError, match=r"liver|kidney"):
        read_mask(label)
    assert [problem.code for problem in check(root).errors] == ["LABEL_SHAPE_DIFFERS"]


def test_a_mask_of_many_structures_does_not_hold_them_all(tmp_path: Path) -> None:
    shape = (64, 64, 32)
    files = {}
    for nth in range(117):
        mask = np.zeros(shape, dtype=np.uint8)
        mask[nth % 60 : nth % 60 + 2, nth % 50 : nth % 50 + 3] = 1
        files[f"structure_{nth:03d}"] = save(tmp_path / f"structure_{nth:03d}.nii.gz", mask)
    source = StructureFiles("case", tmp_path, files)
    read_mask(source)  # what is imported on the way is not measured
    tracemalloc.start()
    mask = read_mask(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * np.prod(shape)
    assert mask.shape == shape


def test_values_of_combinations_follow_from_the_labels_alone() -> None:
    values = [value_of_places(places, 117) for places in ([1], [117], [1, 2], [3, 60, 117])]
    assert values == [1, 117, 1 + 2 * 118, 3 + 60 * 118 + 117 * 118**2]
    assert [places_of_value(value, 117) for value in values] == [(1,), (117,), (1, 2), (3, 60, 117)]


def test_too_many_structures_at_one_voxel_are_refused(tmp_path: Path) -> None:
    files = {
        f"structure_{nth:03d}": save(tmp_path / f"structure_{nth:03d}.nii.gz", box(slice(2, 4))) for nth in range(117)
    }
    with pytest.raises(SettingsError, match="choose fewer with labels="):
        read_mask(StructureFiles("case", tmp_path, files))


def test_a_list_names_folders_of_structures(tmp_path: Path) -> None:
    two_cases(tmp_path, "segmentations")
    for case in range(2):
        (tmp_path / f"s{case}" / "ct.nii.gz").rename(tmp_path / f"s{case}" / f"ct_{case}.nii.gz")
    entries = [{"image": f"s{case}/ct_{case}.nii.gz", "label": f"s{case}/segmentations"} for case in range(2)]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": entries}))
    report = check(tmp_path)
    assert report.label_names == ("kidney", "liver", "spleen")
    assert not report.errors
    (tmp_path / "table.csv").write_text(
        "id,image,label\n" + "".join(f"p{case},s{case}/ct_{case}.nii.gz,s{case}/segmentations\n" for case in range(2))
    )
    assert not check(tmp_path / "table.csv").errors


def test_both_kinds_of_labels_in_one_list_are_refused(tmp_path: Path) -> None:
    two_cases(tmp_path, "segmentations")
    labels = ["s0/segmentations", "s1/segmentations/liver.nii.gz"]
    lines = [f"p{case},s{case}/ct.nii.gz,{label}\n" for case, label in enumerate(labels)]
    (tmp_path / "table.csv").write_text("id,image,label\n" + "".join(lines))
    with pytest.raises(DatasetError, match="store all labels alike"):
        find_dataset(tmp_path / "table.csv")


def test_a_folder_of_masks_stays_a_folder_of_masks(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", organs()["liver"])
    save(tmp_path / "probabilities" / "a.nii.gz", organs()["liver"])
    assert masks_in(tmp_path) == ({"a": tmp_path / "a.nii.gz"}, {})


def test_labels_without_a_file_are_empty_among_predictions_alone(tmp_path: Path) -> None:
    file = save(tmp_path / "liver.nii.gz", organs()["liver"])
    both, spleen = (
        structure_labels({"liver": ["liver"], "spleen": ["spleen"]}),
        structure_labels({"spleen": ["spleen"]}),
    )
    predicted = StructureFiles("case", tmp_path, {"liver": file}, empty_if_absent=True)
    assert int(np.asarray(read_mask(predicted, labels=both).array).sum()) == 864
    assert not np.asarray(read_mask(predicted, labels=spleen).array).any()
    with pytest.raises(LabelError, match="case: no file of spleen in"):
        read_mask(StructureFiles("case", tmp_path, {"liver": file}), labels=both)
