"""A BIDS root is a data set: which images and labels it takes, and what it says where it cannot know."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medfcn.datasets import bids, find_dataset, find_inputs, find_masks
from medfcn.datasets.bids_files import bids_tree
from medfcn.datasets.check import check
from medfcn.errors import DatasetError, MedfcnError, SettingsError
from medfcn.evaluation import evaluate
from medfcn.evaluation.cohort import find_cohort
from tests.datasets.bids_trees import bids_tree_of, describe, put, scan
from tests.datasets.layouts import line_of

SMALL = (8, 7, 5)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three subjects with two sessions each."""
    return bids_tree_of(tmp_path / "bids", subjects=3, shape=SMALL)


def test_a_root_is_read_by_rule(root: Path) -> None:
    dataset = find_dataset(root)
    assert (dataset.layout, dataset.channel_names, dataset.has_groups) == ("bids", ("T1w",), True)
    assert [case.id for case in dataset.cases] == [f"sub-0{n}_ses-{s}" for n in (1, 2, 3) for s in (1, 2)]
    for case in dataset.cases:
        assert case.group == case.id.split("_")[0]
        assert case.images[0].name == f"{case.id}_T1w.nii.gz"
        assert isinstance(case.label, Path)
        assert case.label.name == f"{case.id}_desc-manual_dseg.nii.gz"
    assert dataset.named.names == {1: "ball"}
    assert dataset.columns["sex"]["sub-02_ses-1"] == "M"
    assert not dataset.problems


def test_a_subject_with_two_values_of_a_column_loses_the_column_and_nothing_else(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = root / "participants.tsv"
    table.write_text(table.read_text() + "sub-02\tM\tb\n")
    dataset = find_dataset(root)
    (problem,) = dataset.problems
    line = "warning TABLE_BROKEN participants.tsv: line 5: sub-02 has two values of site, 'a' and 'b'; give it one"
    assert problem.line.startswith(line)
    assert set(dataset.columns) == {"sex"}  # which both rows say alike
    masks = {case.id: (np.ones((4, 4, 4), dtype=np.uint8), np.eye(4)) for case in dataset.cases}
    with pytest.raises(DatasetError, match=r"participants\.tsv: line 5: sub-02 has two values of site"):
        evaluate(masks, root, by="site")
    other = replace(problem, code="LABELS_UNKNOWN", field="scanner")  # of something that is called like the column
    monkeypatch.setattr(
        "medfcn.evaluation.cohort.dataset_of_masks", lambda *_, **__: replace(dataset, problems=(other,))
    )
    with pytest.raises(DatasetError, match="by scanner: there is no such column"):
        find_cohort(root, list(masks), by=["scanner"])


def test_inputs_and_masks_have_the_same_ids(root: Path) -> None:
    ids = [case.id for case in find_dataset(root).cases]
    assert [case.id for case in find_inputs(root)] == ids == list(find_masks(root))
    assert list(find_masks(root / "derivatives" / "manual")) == ids


def test_check_reads_every_case(root: Path) -> None:
    report = check(root)
    assert not report.errors
    assert len(report.cases) == 6


def test_sessions_of_a_subject_are_never_split(root: Path) -> None:
    dataset = find_dataset(root).without(["sub-02_ses-1"])
    assert [case.id for case in dataset.left_out] == ["sub-02_ses-1", "sub-02_ses-2"]


def test_zeros_and_further_entities_of_a_name_are_kept(root: Path) -> None:
    for run in ("1", "01"):
        name = f"sub-007_acq-mprage_run-{run}"
        scan(root, f"{name}_T1w", 1, shape=SMALL)
        scan(root / "derivatives" / "manual", f"{name}_desc-manual_dseg", 1, label=True, shape=SMALL)
    dataset = find_dataset(root)
    assert [case.id for case in dataset.cases][:2] == ["sub-007_acq-mprage_run-01", "sub-007_acq-mprage_run-1"]
    assert not dataset.incomplete


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("sub-01_ses-1_T2w", "anat", "images with several suffixes, T1w (6), T2w (1)"),
        ("sub-01_ses-1_task-rest_bold", "func", "images with several suffixes, T1w (6), bold (1)"),
        ("sub-01_ses-1_part-phase_T1w", "anat", "images that differ in part, part-none (6), part-phase (1)"),
        ("sub-01_ses-1_echo-2_T1w", "anat", "images that differ in echo, echo-2 (1), echo-none (6)"),
        ("sub-01_ses-1_space-MNI_desc-preproc_T1w", "anat", "images that differ in space"),
    ],
)
def test_images_of_several_kinds_are_listed(root: Path, name: str, kind: str, words: str) -> None:
    scan(root, name, 3, kind=kind, shape=SMALL)
    for read in (find_dataset, find_inputs):
        with pytest.raises(DatasetError) as caught:
            read(root)
        assert words in line_of(caught)
        assert "choose with options=ReadOptions(bids=" in line_of(caught)


def test_a_choice_decides(root: Path) -> None:
    scan(root, "sub-01_ses-1_T2w", 3, shape=SMALL)
    scan(root, "sub-01_ses-1_part-phase_T1w", 3, shape=SMALL)
    assert len(find_dataset(root, bids="suffix=T1w,part=none").cases) == 6
    assert [case.id for case in find_inputs(root, bids="suffix=T2w")] == ["sub-01_ses-1"]
    assert [case.id for case in find_inputs(root, bids="suffix=T1w,part=phase")] == ["sub-01_ses-1_part-phase"]
    assert len(find_dataset(root, bids="suffix=T1w,part=none,ses=2").cases) == 3


def test_labels_of_images_that_were_not_chosen_are_left_alone(root: Path) -> None:
    chosen = [f"sub-0{number}_ses-1" for number in (1, 2, 3)]
    found = find_dataset(root, bids="suffix=T1w,ses=1")
    assert [case.id for case in found.all_cases] == chosen
    assert not found.problems
    assert list(find_masks(root, bids="suffix=T1w,ses=1")) == chosen
    (root / "sub-02" / "ses-2" / "anat" / "sub-02_ses-2_T1w.nii.gz").unlink()
    found = find_dataset(root, bids="suffix=T1w,ses=1")  # nobody knows which image this label is of
    assert [(problem.code, problem.case) for problem in found.problems] == [("IMAGE_MISSING", "sub-02_ses-2")]


def test_several_suffixes_are_channels(root: Path) -> None:
    for number in (1, 2, 3):
        for session in (1, 2):
            scan(root, f"sub-0{number}_ses-{session}_acq-spc_FLAIR", 3, shape=SMALL)
    dataset = find_dataset(root, bids="suffix=T1w+FLAIR")
    assert dataset.channel_names == ("T1w", "FLAIR")
    assert [[file.name.split("_")[-1] for file in case.images] for case in dataset.cases] == [
        ["T1w.nii.gz", "FLAIR.nii.gz"]
    ] * 6
    (root / "sub-02" / "ses-1" / "anat" / "sub-02_ses-1_acq-spc_FLAIR.nii.gz").unlink()
    found = find_dataset(root, bids="suffix=T1w+FLAIR")
    assert [(problem.code, problem.case) for problem in found.problems] == [("CHANNEL_MISSING", "sub-02_ses-1")]
    lacking = [case.lacks for case in find_inputs(root, bids="suffix=T1w+FLAIR") if case.lacks]
    assert len(lacking) == 1
    assert "FLAIR is missing" in lacking[0]


def test_several_derivatives_are_listed(root: Path) -> None:
    other = root / "derivatives" / "auto"
    for number in (1, 2, 3):
        scan(other, f"sub-0{number}_ses-1_desc-auto_dseg", 3, label=True, shape=SMALL)
    describe(other, "auto", DatasetType="derivative", GeneratedBy=[{"Name": "another tool"}])
    with pytest.raises(DatasetError) as caught:
        find_dataset(root)
    assert "auto: desc-auto_dseg (3), manual: desc-manual_dseg (6)" in line_of(caught)
    assert "options=ReadOptions(bids=" in line_of(caught)
    for choice in ("derivatives=manual", f"derivatives={root / 'derivatives' / 'manual'}", "desc=manual"):
        assert len(find_dataset(root, bids=choice).cases) == 6
    assert len(find_dataset(root, bids="derivatives=auto").incomplete) == 3


def test_masks_that_medfcn_made_are_no_labels_unless_chosen(root: Path) -> None:
    own = root / "derivatives" / "medfcn"
    scan(own, "sub-01_ses-1_desc-medfcn_dseg", 3, label=True, shape=SMALL)
    describe(own, "masks", DatasetType="derivative", GeneratedBy=[{"Name": "medfcn"}])
    assert len(find_dataset(root).cases) == 6
    assert [case.id for case in find_dataset(root, bids="derivatives=medfcn").cases] == ["sub-01_ses-1"]


def test_masks_of_several_labels_are_structures(tmp_path: Path) -> None:
    root = tmp_path / "bids"
    for number in (1, 2):
        scan(root, f"sub-{number}_T1w", number, shape=SMALL)
        for label in ("liver", "spleen"):
            scan(root / "derivatives" / "drawn", f"sub-{number}_label-{label}_mask", number, label=True, shape=SMALL)
    dataset = find_dataset(root)
    assert dataset.named.structures == ("liver", "spleen")
    assert check(root, labels="liver").errors == ()


def test_a_derivative_with_images_is_a_root(tmp_path: Path) -> None:
    root = tmp_path / "prep"
    for number in (1, 2):
        for name, label in (("desc-preproc_T1w", False), ("dseg", True), ("space-MNI_dseg", True)):
            scan(root, f"sub-{number}_{name}", number, label=label, shape=SMALL)
    describe(root, "prep", DatasetType="derivative", GeneratedBy=[{"Name": "prep"}])
    assert [case.label.name for case in find_dataset(root).cases] == ["sub-1_dseg.nii.gz", "sub-2_dseg.nii.gz"]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("derivatives/manual", "without images, only labels; give the root with its images"),
        ("derivatives", "manual is of BIDS: give the root"),
    ],
)
def test_a_folder_of_derivatives_says_what_to_give(root: Path, place: str, words: str) -> None:
    with pytest.raises(DatasetError) as caught:
        find_dataset(root / place)
    assert words in line_of(caught)


def test_what_a_case_lacks_is_its_own_problem(root: Path) -> None:
    (root / "sub-01" / "ses-1" / "anat" / "sub-01_ses-1_T1w.nii.gz").unlink()
    (root / "derivatives" / "manual" / "sub-02" / "ses-2" / "anat" / "sub-02_ses-2_desc-manual_dseg.nii.gz").unlink()
    dataset = find_dataset(root)
    assert [(one.code, one.case) for one in dataset.problems] == [
        ("IMAGE_MISSING", "sub-01_ses-1"),
        ("LABEL_MISSING", "sub-02_ses-2"),
    ]
    assert len(dataset.cases) == 4
    assert [case.id for case in find_inputs(root)] == [case.id for case in dataset.all_cases][1:]


def test_a_root_without_labels_can_be_checked_and_predicted(root: Path) -> None:
    shutil.rmtree(root / "derivatives")
    assert {problem.severity for problem in check(root).problems} == {"warning"}
    assert len(find_inputs(root)) == 6
    with pytest.raises(DatasetError, match="6 of 6 cases are not complete"):
        find_dataset(root)


def test_content_that_was_not_fetched_is_a_problem_of_its_case(root: Path) -> None:
    image = root / "sub-01" / "ses-1" / "anat" / "sub-01_ses-1_T1w.nii.gz"
    image.unlink()
    image.symlink_to("../../../.git/annex/objects/xx/MD5E-s1.nii.gz")
    (root / "sub-04").symlink_to("nowhere")
    (root / "sub-05").mkdir()
    report = check(root)
    found = {(one.code, one.case) for one in report.errors}
    assert found >= {(("FILE_NOT_FETCHED"), name) for name in ("sub-01_ses-1", "sub-04", "sub-05")}
    assert "datalad get" in next(one.remedy for one in report.errors if one.case == "sub-04")
    lacking = {case.id: case.lacks for case in find_inputs(root) if case.lacks}
    assert set(lacking) == {"sub-04", "sub-05"}


def test_ignored_and_misnamed_files_are_passed_over(root: Path) -> None:
    scan(root, "sub-01_ses-1_T2w", 3, shape=SMALL)
    scan(root, "sub-01_ses-1_acq-broken_T1w", 3, shape=SMALL)
    shutil.copy(
        scan(root, "sub-01_ses-1_x", 3, shape=SMALL), root / "sub-01" / "ses-1" / "anat" / "final copy.nii.gz"
    )
    put(root / ".bidsignore", "# not ours\n*_T2w.nii.gz\nsub-01/ses-1/anat/*acq-broken*\n**/*_x.nii.gz\n")
    dataset = find_dataset(root)
    assert len(dataset.cases) == 6
    assert [(one.code, one.file) for one in dataset.problems] == [
        ("FILE_UNUSED", "sub-01/ses-1/anat/final copy.nii.gz")
    ]


def test_a_file_in_another_subjects_folder_is_refused(root: Path) -> None:
    image = root / "sub-01" / "ses-1" / "anat" / "sub-01_ses-1_T1w.nii.gz"
    image.rename(image.with_name("sub-02_ses-1_T1w.nii.gz"))
    dataset = find_dataset(root)
    assert "is named after sub-02, and in the folder of sub-01" in {one.found for one in dataset.problems}


def test_a_label_that_may_be_of_several_images_is_of_none(root: Path) -> None:
    for run in (1, 2):
        scan(root, f"sub-09_run-{run}_T1w", run, shape=SMALL)
    scan(root / "derivatives" / "manual", "sub-09_desc-manual_dseg", 1, label=True, shape=SMALL)
    dataset = find_dataset(root)
    assert {case.id for case in dataset.incomplete} == {"sub-09_run-1", "sub-09_run-2"}
    assert all("may be the label of other images too" in problem.found for problem in dataset.problems)


def test_structures_without_a_session_are_no_labels_of_two_sessions_and_stop_no_other_case(root: Path) -> None:
    derived = root / "derivatives" / "parts"
    for number in (1, 2, 3):
        for session in (1, 2) if number != 2 else (1,):
            for part in ("liver", "spleen"):
                name = f"sub-0{number}_ses-{session}_label-{part}_mask"
                scan(derived, name, number, label=True, shape=SMALL)
    for part in ("liver", "spleen"):
        scan(derived, f"sub-02_label-{part}_mask", 2, label=True, shape=SMALL)
    dataset = find_dataset(root, bids="derivatives=parts")
    # Masks of the session itself are nearer than those of the subject.
    assert [case.id for case in dataset.incomplete] == ["sub-02_ses-2"]
    assert "may be the label of other images too" in dataset.problems[0].found
    assert next(case for case in dataset.cases if case.id == "sub-02_ses-1").label is not None


def test_tables_that_contradict_each_other_are_refused_unless_the_labels_are_named(
    root: Path, tmp_path: Path
) -> None:
    put(root / "derivatives" / "manual" / "sub-01" / "sub-01_dseg.tsv", "index\tname\n1\tcube\n")
    assert len(find_dataset(root).cases) == 6
    for refused in (lambda: check(root), lambda: evaluate(root / "derivatives" / "manual", root)):
        with pytest.raises(DatasetError, match=r"names the value 1 'ball'.* say which with labels=") as caught:
            refused()
        assert caught.value.code == "DATASET_CONTRADICTED"
    assert check(root, labels="ball=1").label_names == ("ball",)
    assert evaluate(root / "derivatives" / "manual", root, labels="ball=1").summary()["ball"].scored == 6


def test_an_evaluation_lists_its_references_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "derivatives" / "manual" / "sub-02" / "ses-1" / "anat" / "sub-02_ses-1_desc-manual_dseg.nii.gz").unlink()
    predictions = shutil.copytree(root / "derivatives" / "manual", root.parent / "predictions")
    listed: list[Path] = []
    monkeypatch.setattr(bids, "bids_tree", lambda folder, name="": listed.append(folder) or bids_tree(folder, name))
    table = evaluate(predictions, root, by="site")
    assert [case for case, _ in table.failures] == ["sub-02_ses-1"]
    assert sorted(listed) == sorted([root, root / "derivatives" / "manual", predictions])


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("suffx=T1w", "did you mean 'suffix'?"),
        ("T1w", "is not KEY=VALUE"),
        ("suffix=", "is not KEY=VALUE"),
        ("suffix=T1w+T1w", "suffix names 'T1w' more than once"),
        ("suffix=T1w,ses=1+2+1", "ses names '1' more than once"),
        (" ", "nothing is given"),
        ("suffix=T3w", "no image has the suffix T3w; there are T1w (6)"),
        ("ses=9", "no file has ses=9; of ses there are 1 (3), 2 (3)"),
        ("derivatives=nowhere", "no derivative nowhere; there are manual"),
        ("label.desc=other", "no file has desc=other"),
    ],
)
def test_a_choice_that_fits_nothing_is_refused(root: Path, choice: str, words: str) -> None:
    with pytest.raises(MedfcnError) as caught:
        find_dataset(root, bids=choice)
    assert words in str(caught.value)


def test_a_choice_about_labels_is_refused_where_none_are_read(root: Path) -> None:
    with pytest.raises(SettingsError, match="no image of bids has the entity desc"):
        find_inputs(root, bids="desc=manual")
    assert len(find_inputs(root, bids="label.desc=manual")) == 6


def test_a_choice_for_another_layout_is_refused(balls: Path) -> None:
    for read in (find_dataset, find_inputs, find_masks):
        with pytest.raises(SettingsError, match="is no BIDS data set"):
            read(balls, bids="suffix=T1w")


def test_flat_masks_with_names_of_bids_are_no_root(root: Path, tmp_path: Path) -> None:
    for case in find_inputs(root):
        put(tmp_path / "masks" / f"{case.id}.json", "{}")
        shutil.copy(case.images[0], tmp_path / "masks" / f"{case.id}.nii.gz")
    assert list(find_masks(tmp_path / "masks")) == list(find_masks(root))
