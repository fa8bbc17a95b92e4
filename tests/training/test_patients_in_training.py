"""A training does not split patients whose ids give them away, and writes down who was left out."""

import csv
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import medfcn
from medfcn.cli import main
from medfcn.errors import DatasetError
from medfcn.training.run import Run
from tests.conftest import draw_ball, write_case
from tests.training.test_resume import Told

IDS = ("P3_left", "P3_right", "P4_left", "P4_right", "P5_left", "P6_left")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patients") / "data"
    for number, name in enumerate(IDS):
        write_case(folder, name, *draw_ball(number))
    return folder


def train(data: Path, run: Path, **choices: Any) -> Run:
    common: dict[str, Any] = {"labels": "ball=1", "steps": 1, "device": "cpu", "threads": 1}
    return medfcn.train(data, run, **common | choices)


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def rows_of(run: Path) -> dict[str, tuple[str, str, str]]:
    with (run / "cases.csv").open() as file:
        return {row["case"]: (row["group"], row["use"], row["problem"]) for row in csv.DictReader(file)}


def test_a_training_stops_where_ids_share_stems_and_nothing_states_the_patients(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"P3_left, P3_right \(P3\).*group_by='stem'.*group_by='none'") as caught:
        train(data, tmp_path / "run")
    assert caught.value.code == "PATIENTS_UNSTATED"
    assert not (tmp_path / "run").exists()
    done = command("train", data, "-o", tmp_path / "run", "--labels", "ball=1", "--steps", 1, "--device", "cpu")
    assert done.exit_code == 1
    (line,) = [line for line in done.stderr.splitlines() if "P3_left" in line]
    assert "--group-by stem" in line
    planned = command("plan", data, "--labels", "ball=1")
    assert planned.exit_code == 0
    assert "PATIENTS_UNSTATED" in planned.stderr
    assert "4 cases seem to be of 2 patients by their ids: P3_left, P3_right (P3)" in " ".join(planned.stdout.split())
    assert "patients" not in command("plan", data, "--labels", "ball=1", "--group-by", "stem").stdout


def test_a_patient_is_never_on_both_sides_with_group_by_stem(data: Path, tmp_path: Path) -> None:
    run = train(data, tmp_path / "run", group_by="stem", seed=2)
    uses: dict[str, set[str]] = {}
    for group, use, _ in rows_of(run.folder).values():
        uses.setdefault(group, set()).add(use)
    assert set(uses) == {"P3", "P4", "P5_left", "P6_left"}
    assert all(len(of_patient) == 1 for of_patient in uses.values())
    # The same once more is the same training, and states its patients once.
    again = train(data, tmp_path / "run", group_by="stem", seed=2, resume=True)
    assert again.steps == run.steps


def test_who_is_left_out_is_whole_patients_and_written_down(data: Path, tmp_path: Path) -> None:
    told = Told()
    run = train(data, tmp_path / "run", group_by="stem", leave_out=["P3_left", "P4"], progress=told)
    rows = rows_of(run.folder)
    assert list(rows) == ["P5_left", "P6_left", "P3_left", "P3_right", "P4_left", "P4_right"]
    for name, patient in (("P3_left", "P3"), ("P3_right", "P3"), ("P4_left", "P4"), ("P4_right", "P4")):
        assert rows[name] == (patient, "left out", "on request")
    assert any("a patient is never split: 1 other case: P3_right" in line for line in told.lines)
    assert train(data, tmp_path / "run", group_by="stem", leave_out=["P3", "P4_right"], resume=True).steps == 1
    with pytest.raises(medfcn.MedfcnError, match="the patient of P4_left is P4, was absent"):
        train(data, tmp_path / "run", group_by="stem", leave_out=["P3"], resume=True)
    with pytest.raises(DatasetError, match="neither a case nor a patient"):
        train(data, tmp_path / "other", group_by="none", leave_out=["P3"])


def test_options_that_group_are_checked_before_any_work(data: Path, tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text("id,group\n")
    for more, status, found in (
        (("--group-by", "(P"), 2, "not a regular expression"),
        (("--group-by", "stem", "--groups", tmp_path / "groups.csv"), 2, "groups and group_by are given together"),
        (("--group-by", "P([0-5])_"), 1, "P6_left: --group-by P([0-5])_ does not match this id"),
    ):
        for verb in (("check", data), ("plan", data), ("train", data, "-o", tmp_path / "run")):
            done = command(*verb, *more)
            assert done.exit_code == status, done.stderr
            assert found in done.stderr
    assert not (tmp_path / "run").exists()
