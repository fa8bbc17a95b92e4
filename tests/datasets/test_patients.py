"""Cases of one patient are seen by their ids, and stay together as the user says; plain numbering is left alone."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from medfcn.cli import main
from medfcn.datasets import check_cases, find_dataset, find_inputs
from medfcn.datasets.cases import Dataset
from medfcn.datasets.patients import require_stated_patients, shared_stems, unstated_patients
from medfcn.datasets.tables import chosen_ids
from medfcn.errors import DatasetError, SettingsError
from medfcn.inference.predict import _chosen
from medfcn.progress import Silent
from tests.conftest import draw_ball, write_case
from tests.datasets.bids_trees import bids_tree_of
from tests.datasets.layouts import lay, line_of

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"

# An id, another of the same patient, and the patient.
OF_ONE_PATIENT = [
    ("patient001_frame01", "patient001_frame12", "patient001"),
    ("patient001_frame_01", "patient001_frame_12", "patient001"),
    ("sub-01_ses-1", "sub-01_ses-2", "sub-01"),
    ("sub-01_ses-1_run-1", "sub-01_ses-2_run-1", "sub-01"),
    ("sub-01_ses-pre_T1w", "sub-01_ses-post_T1w", "sub-01"),
    ("sub-07_hemi-L", "sub-07_hemi-R", "sub-07"),
    ("P3_left", "P3_right", "P3"),
    ("knee-9004175-LEFT", "knee-9004175-RIGHT", "knee-9004175"),
    ("case12_L", "case12_R", "case12"),
    ("017L", "017R", "017"),
    ("S04_lh", "S04_rh", "S04"),
    ("MS_11_t1", "MS_11_t2", "MS_11"),
    ("anna_time1", "anna_time2", "anna"),
    ("A7.tp0", "A7.tp1", "A7"),
    ("glioma_3_timepoint01", "glioma_3_timepoint02", "glioma_3"),
    ("pat5_20190304", "pat5_20200511", "pat5"),
    ("pat5_2019-03-04", "pat5_2020-05-11", "pat5"),
    ("pat5_04.03.2019", "pat5_11.05.2020", "pat5"),
    ("pat5_20190304_101500", "pat5_20190304_113000", "pat5"),
    ("liver_8_visit1", "liver_8_visit2", "liver_8"),
    ("OAS30001_v2", "OAS30001_v3", "OAS30001"),
    ("002_S_0295_m06", "002_S_0295_m12", "002_S_0295"),
    ("OAS30001_MR_d0129", "OAS30001_MR_d0757", "OAS30001_MR"),
    ("subject 4 week 2", "subject 4 week 12", "subject 4"),
    ("lung-22-scan1", "lung-22-scan2", "lung-22"),
    ("rat9_run1", "rat9_run2", "rat9"),
    ("hc03_s1", "hc03_s2", "hc03"),
    ("heart_31_ED", "heart_31_ES", "heart_31"),
    ("liver_44_arterial", "liver_44_venous", "liver_44"),
    ("4DCT_06_phase1", "4DCT_06_phase5", "4DCT_06"),
    ("tumour_2_preop", "tumour_2_postop", "tumour_2"),
    ("MS_12", "MS_12_followup", "MS_12"),
]
PLAIN = [
    ("hippocampus_001", "hippocampus_003", "hippocampus_004"),
    ("STS_002", "STS_003", "STS_021"),
    ("liver_12", "liver_2", "liver_31"),
    ("case_3", "case_4", "case_5"),
    ("ball_0", "ball_1", "ball_2"),
    ("sample_01", "sample_02", "sample_03"),
    ("v_0000", "v_0001", "v_0002"),
    ("0001", "0002", "0003"),
    ("P1", "P2", "P3"),
    ("sub-01", "sub-02", "sub-03"),
    ("frame_01", "frame_02", "frame_03"),
    ("scan_2021", "scan_2022", "scan_2023"),
    ("t1", "t2", "t3"),
    ("BraTS-GLI-00000-000", "BraTS-GLI-00002-000", "BraTS-GLI-00003-000"),
    ("TCGA-02-0003", "TCGA-02-0006", "TCGA-02-0009"),
    ("site1_scan_001", "site1_scan_002", "site2_scan_001"),
    ("site1_s01", "site1_s02", "site2_s01"),
    ("study_t1", "study_t2", "study_t3"),
    ("brain_20190304", "brain_20190305", "brain_20190306"),
    ("P3_left", "P4_left", "P5_left"),
    ("left_001", "left_002", "right_001"),
    ("knee_left_001", "knee_left_002", "knee_right_001"),
    ("T1_scan_001", "T1_scan_002", "T1_scan_003"),
    ("IXI012-Guys-0822", "IXI013-HH-1212", "IXI014-HH-1236"),
]


def dataset_of(root: Path, *ids: str) -> Dataset:
    return find_dataset(lay(root, *(f"{part}/{name}.nii" for name in ids for part in ("images", "labels"))))


@pytest.mark.parametrize(("one", "other", "patient"), OF_ONE_PATIENT)
def test_cases_of_one_patient_are_seen_by_what_their_ids_share(one: str, other: str, patient: str) -> None:
    expected = {patient: tuple(sorted((one, other)))}
    assert shared_stems([one, other]) == expected
    assert shared_stems([one, other, "x_001", "x_002"]) == expected


@pytest.mark.parametrize("ids", PLAIN)
def test_plain_numbering_states_no_patients(ids: tuple[str, ...], tmp_path: Path) -> None:
    assert shared_stems(ids) == {}
    require_stated_patients(dataset_of(tmp_path, *ids))


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is absent")
@pytest.mark.parametrize(
    ("name", "count"), [("heart_cine", 40), ("hippocampus", 0), ("sts_ct", 0), ("sts_mr_t1", 0), ("sts_petct", 0)]
)
def test_real_sets(name: str, count: int) -> None:
    assert len(unstated_patients(find_dataset(SHARED / name))) == count
    dataset = find_dataset(SHARED / name, group_by="stem")
    assert len({case.group for case in dataset.cases}) == count or len(dataset.cases)


def test_a_data_set_that_does_not_state_its_patients_names_them_and_the_options(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, "P3_left", "P3_right", "P4_left", "P4_right", "P5_left")
    with pytest.raises(DatasetError, match="4 cases seem to be of 2 patients by their ids") as caught:
        require_stated_patients(dataset)
    assert (caught.value.code, caught.value.field) == ("PATIENTS_UNSTATED", "group_by")
    line = line_of(caught)
    assert "P3_left, P3_right (P3); P4_left, P4_right (P4)" in line
    assert "group_by='stem'" in line
    assert "group_by='none'" in line


def test_check_names_the_patients(tmp_path: Path) -> None:
    for number, name in enumerate(("P3_left", "P3_right", "P4_left")):
        write_case(tmp_path, name, *draw_ball(number))
    report = check_cases(find_dataset(tmp_path))
    assert report.problems[0].code == "PATIENTS_UNSTATED"
    assert report.to_json()["unstated_patients"] == {"P3": ("P3_left", "P3_right")}
    assert "P3_left, P3_right (P3)" in report.to_text()
    assert "3 cases, no groups stated;" in report.to_text()
    grouped = check_cases(find_dataset(tmp_path, group_by="stem"))
    assert "PATIENTS_UNSTATED" not in {problem.code for problem in grouped.problems}
    alone = check_cases(find_dataset(tmp_path, group_by="none"))
    assert "3 cases in 3 groups;" in alone.to_text()
    assert "3 cases in 2 groups;" in grouped.to_text()


def groups_of(root: Path, how: str) -> list[str]:
    return [case.group for case in find_dataset(root, group_by=how).cases]


def test_groups_follow_from_the_ids_as_the_user_says(tmp_path: Path) -> None:
    dataset_of(tmp_path, "P3_left", "P3_right", "P4_left", "x_1", "x_2")
    assert groups_of(tmp_path, "stem") == ["P3", "P3", "P4_left", "x_1", "x_2"]
    assert groups_of(tmp_path, "none") == ["P3_left", "P3_right", "P4_left", "x_1", "x_2"]
    assert groups_of(tmp_path, "^[^_]+") == ["P3", "P3", "P4", "x", "x"]
    require_stated_patients(find_dataset(tmp_path, group_by="none"))


def test_an_expression_that_fits_not_every_id_is_refused_by_name(tmp_path: Path) -> None:
    dataset_of(tmp_path, "P3_left", "P3_right", "x_1")
    for how in ("P([0-9]+)", "([0-9]+)_", "x?"):
        with pytest.raises(DatasetError, match=r"(x_1|P3_left): group_by= .* does not match this id") as caught:
            find_dataset(tmp_path, group_by=how)
        assert (caught.value.code, caught.value.field) == ("GROUP_INVALID", "group_by")
    with pytest.raises(SettingsError, match="not a regular expression"):
        find_dataset(tmp_path, group_by="(P")
    table = tmp_path / "groups.csv"
    table.write_text("id,group\nP3_left,a\nP3_right,a\nx_1,b\n")
    with pytest.raises(SettingsError, match="groups and group_by are given together"):
        find_dataset(tmp_path, groups=table, group_by="stem")
    require_stated_patients(find_dataset(tmp_path, groups=table))


def test_leaving_out_takes_cases_and_patients_and_splits_none(tmp_path: Path) -> None:
    dataset_of(tmp_path, "P3_left", "P3_right", "P4_left", "P4_right", "P5_left")
    dataset = find_dataset(tmp_path, group_by="stem").without(["P3_left", "P4"])
    assert [case.id for case in dataset.all_cases] == ["P5_left"]
    assert [case.id for case in dataset.left_out] == ["P3_left", "P3_right", "P4_left", "P4_right"]
    with pytest.raises(DatasetError, match="1 case to leave out is neither a case nor a patient") as caught:
        dataset.without(["P6"])
    assert caught.value.code == "CASES_UNKNOWN"
    # A patient who is partly left out is still a patient.
    ungrouped = find_dataset(tmp_path).without(["P3_left", "P4_left"])
    assert list(unstated_patients(ungrouped)) == ["P3", "P4"]


@pytest.mark.parametrize(
    ("how", "said"),
    [("stem", True), (r"(.*)", True), ("none", False), (None, False), (r"^[a-z]+", False), ("groups.csv", True)],
    ids=["stem", "whole id", "none", "not said", "letters", "table"],
)
def test_a_grouping_that_changes_nothing_says_so(how: str | None, said: bool, tmp_path: Path) -> None:
    lay(tmp_path, *(f"{folder}/case_{number}.nii" for folder in ("images", "labels") for number in range(3)))
    (tmp_path / "groups.csv").write_text("id,group\n" + "".join(f"case_{number},{number}\n" for number in range(3)))
    options = {"groups": tmp_path / how} if how == "groups.csv" else {"group_by": how}
    found = find_dataset(tmp_path, **options)  # type: ignore[arg-type]
    assert [problem.code for problem in found.problems] == ["GROUPS_ALONE"] * said


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["sub-01"], ["sub-01_ses-1", "sub-01_ses-2"]),
        (["sub-01_ses-2", "sub-1"], ["sub-01_ses-2", "sub-1_ses-1"]),
        (["sub-01_ses-1", "sub-01"], ["sub-01_ses-1", "sub-01_ses-2"]),
        (["sub-01", "P1"], ["P1_left", "P1_right", "sub-01_ses-1", "sub-01_ses-2"]),
    ],
)
def test_the_id_of_a_patient_stands_for_all_its_cases(given: list[str], found: list[str]) -> None:
    known = ["sub-01_ses-1", "sub-01_ses-2", "sub-1_ses-1", "sub-012_ses-1", "sub-01-2_ses-1"]
    known += ["P1_left", "P1_right", "P1-2_left", "P1.5_left", "P12_left"]
    said: list[str] = []
    assert sorted(chosen_ids(given, known, lack="mask", say=said.append)) == found
    assert ("P1: 2 cases whose ids begin with P1_" in said) == ("P1" in given)


def test_where_patients_are_stated_no_id_is_taken_by_its_beginning() -> None:
    known, stated = ["P1_left", "P1_right", "a", "b"], {"a": "smith", "b": "smith"}
    assert chosen_ids(["smith", "P1_left"], known, lack="mask", patients=stated) == {"a", "b", "P1_left"}
    with pytest.raises(DatasetError, match=r"1 requested case has no mask, and is no patient: P1\b"):
        chosen_ids(["P1"], known, lack="mask", patients=stated)


def test_a_line_is_the_same_cases_to_use_and_to_leave_out(tmp_path: Path) -> None:
    dataset_of(tmp_path, "P1", "P1b", "P2", "P2b", "P3")
    table = tmp_path / "groups.csv"
    table.write_text("id,group\nP1,P1\nP1b,P1\nP2,P3\nP2b,P2\nP3,P3\n")
    dataset = find_dataset(tmp_path, groups=table)
    groups = {case.id: case.group for case in dataset.all_cases}
    assert chosen_ids(["P1"], groups, lack="mask", patients=groups) == {"P1", "P1b"}
    assert [case.id for case in dataset.without(["P1"]).left_out] == ["P1", "P1b"]
    for take in (dataset.without, lambda ids: chosen_ids(ids, groups, lack="mask", patients=groups)):
        with pytest.raises(DatasetError, match=r"^P2: a patient \(group\) with 1 case, and also a case of .* P3; "):
            take(["P2"])


def test_what_is_neither_case_nor_patient_is_named_with_the_nearest_name() -> None:
    with pytest.raises(DatasetError) as caught:
        chosen_ids(["sub-03", "case", "id"], ["case_1", "case_2", "sub-01_ses-1"], lack="mask", patients={})
    assert str(caught.value) == (
        "3 requested cases have no mask, and are no patients: case (nearest is case_2), id, sub-03 (nearest is "
        "sub-01); correct the ids"
    )


@pytest.mark.parametrize("command", ["evaluate", "measure", "look", "predict"])
def test_commands_take_patients_of_a_bids_root_in_cases(tmp_path: Path, command: str) -> None:
    root = bids_tree_of(tmp_path / "bids", subjects=3, shape=(8, 7, 5))
    (tmp_path / "cases.txt").write_text("sub-02\nsub-03_ses-1\n")
    wanted = {"sub-02_ses-1", "sub-02_ses-2", "sub-03_ses-1"}
    if command == "predict":
        assert {case.id for case in _chosen(find_inputs(root), tmp_path / "cases.txt", Silent())} == wanted
        return
    manual, output = root / "derivatives" / "manual", tmp_path / ("out.html" if command == "look" else "out")
    places = {"evaluate": [manual, root], "measure": [manual], "look": [root]}[command]
    words = [command, *places, "-o", output, "--cases", tmp_path / "cases.txt"]
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    if command == "look":
        assert set(re.findall(r"sub-0\d_ses-\d", output.read_text("utf-8"))) == wanted
    else:
        table = output / ("scores.csv" if command == "evaluate" else "volumes.csv")
        assert {line.split(",")[0] for line in table.read_text("utf-8").splitlines()[1:]} == wanted
