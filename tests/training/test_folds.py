"""Folds: every case is held out once, with its patient, and its score is that of a case nobody had seen."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner

import medfcn
from medfcn.cli import main
from medfcn.config import override
from medfcn.errors import (
    DatasetError,
    MedfcnError,
    MissingFileError,
    OutputExistsError,
    SettingsError,
    TrainingError,
    TrainingStoppedError,
)
from medfcn.evaluation import read_scores, write_scores
from medfcn.files import sha256_of
from medfcn.settings import Settings
from medfcn.text import counted
from medfcn.training import final_choices
from medfcn.training.crossvalidation import gather
from medfcn.training.folds import Folds
from medfcn.training.run import Run
from tests.conftest import draw_ball, write_case
from tests.training.test_resume import StopAfter, Told

SETTINGS = override(Settings(), "training", checkpoint_seconds=3600.0, epoch_steps=5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six cases of five patients."""
    folder = tmp_path_factory.mktemp("folded") / "data"
    for number in range(6):
        write_case(folder, f"ball_{number}", *draw_ball(number))
    groups = "id,group\n" + "".join(f"ball_{number},patient_{max(number, 1)}\n" for number in range(6))
    (folder.parent / "groups.csv").write_text(groups)
    return folder


def train(data: Path, run: Path, *, settings: Settings = SETTINGS, **choices: Any) -> Run:
    groups = data.parent / "groups.csv"
    return medfcn.train(
        data, run, settings=settings, groups=groups,
        **{"steps": 6, "device": "cpu", "threads": 1} | choices,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folded(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds, trained by one command."""
    return train(data, tmp_path_factory.mktemp("folds") / "run", folds=3).folder


def validation_of(run: Path) -> set[str]:
    with (run / "cases.csv").open() as file:
        return {row["case"] for row in csv.DictReader(file) if row["use"] == "validation"}


def hashes(run: Path) -> dict[str, str]:
    return {str(path.relative_to(run)): sha256_of(path) for path in sorted(run.rglob("*")) if path.is_file()}


def test_every_case_is_held_out_once_and_scored_by_the_fold_that_had_not_seen_it(folded: Path) -> None:
    held = [validation_of(folded / f"fold_{number}") for number in (1, 2, 3)]
    assert sorted(case for part in held for case in part) == [f"ball_{number}" for number in range(6)]
    assert any({"ball_0", "ball_1"} <= part for part in held)  # one patient
    with (folded / "validation" / "scores.csv").open() as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert list(rows) == [f"ball_{number}" for number in range(6)]
    for number, part in enumerate(held, start=1):
        with (folded / f"fold_{number}" / "validation" / "scores.csv").open() as file:
            assert {row["case"]: row for row in csv.DictReader(file)} == {case: rows[case] for case in part}
        card = json.loads((folded / f"fold_{number}" / "model.json").read_text())
        assert card["training"]["fold"] == f"{number} of 3"
        assert card["training"]["best_step"] == card["training"]["steps"] == 6
        assert not (folded / f"fold_{number}" / "state").exists()
    summary = json.loads((folded / "validation" / "summary.json").read_text())
    assert any(note.startswith("out of fold") for note in summary["notes"])


def test_the_scores_of_all_folds_are_over_patients_and_say_what_a_fold_says_of_surfaces_at_the_end(
    folded: Path, tmp_path: Path
) -> None:
    table = read_scores(folded / "validation")
    assert table.cohort.patients == {f"ball_{number}": f"patient_{max(number, 1)}" for number in range(6)}
    assert "6 cases of 5 patients" in table.to_text()
    assert table.summary()["label_1"].patients == 5
    assert "6 cases of 5 patients" in (folded / "report.html").read_text(encoding="utf-8")
    (before,) = [note for note in table.notes if "end of the volume" in note]
    counts = []
    for number in (1, 2, 3):
        notes = " ".join(read_scores(folded / f"fold_{number}" / "validation").notes)
        said = re.search(r"end of the volume: label_1 \((\d+) of \d+ reference", notes)
        counts.append(int(said[1]) if said else 0)
    assert f"label_1 ({sum(counts)} of 6 references, 0 predictions)" in before
    assert sum(counts) == 3
    # Whatever more the folds know is in the scores of all.
    run = shutil.copytree(folded, tmp_path / "run")
    shutil.rmtree(run / "validation")
    scores = read_scores(run / "fold_1" / "validation")
    rows = tuple(replace(row, reference_at_edges=0.25, prediction_at_edges=0.3) for row in scores.rows)
    write_scores(replace(scores, rows=rows), run / "fold_1" / "validation", overwrite=True)
    gathered = gather(run, Folds((1, 2, 3), 3, is_all=True))
    assert gathered is not None
    (note,) = [note for note in gathered.notes if "end of the volume" in note]
    count = len(rows) + sum(counts[1:])
    of_all = f"label_1 ({count} of 6 references, {counted(len(rows), 'prediction')});"
    assert note.startswith(f"more than 5 % of the surface is at the end of the volume: {of_all}")
    assert note in read_scores(run / "validation").notes


def test_nothing_of_a_fold_follows_from_its_validation_masks(data: Path, folded: Path, tmp_path: Path) -> None:
    held = validation_of(folded / "fold_1")
    other = shutil.copytree(data.parent, tmp_path / "other") / "data"
    for case in held:
        path = other / "labels" / f"{case}.nii.gz"
        mask = nibabel.load(path)
        drawn = np.asarray(mask.dataobj)
        nibabel.save(nibabel.Nifti1Image(np.roll(drawn, 3, axis=0), mask.affine), path)
    run = train(other, tmp_path / "run", fold="1/3")
    assert validation_of(run.folder) == held
    name = "fold_1/model.safetensors"
    assert sha256_of(tmp_path / "run" / name) == sha256_of(folded / name)
    assert run.load(device="cpu").card.one_part == medfcn.Model.load(folded / "fold_1", device="cpu").card.one_part


def test_no_choice_in_a_fold_looks_at_its_validation_cases(
    data: Path, folded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []

    original = final_choices.judge_training

    def look(*arguments: Any) -> list[Any]:
        judged: list[Any] = original(*arguments)
        looked_at.extend(one.case.id for one in judged)
        return judged

    monkeypatch.setattr(final_choices, "judge_training", look)
    monkeypatch.setattr("medfcn.training.schedule._STEPS_BETWEEN_VALIDATIONS", 1)
    monkeypatch.setattr("medfcn.training.trainer.dices_of_cases", lambda *_, **__: pytest.fail("validated"))
    train(data, tmp_path / "run", fold="1/3")
    assert sorted(looked_at) == sorted({f"ball_{number}" for number in range(6)} - validation_of(folded / "fold_1"))


def test_predicting_with_the_folder_averages_its_folds(data: Path, folded: Path) -> None:
    image = data / "images" / "ball_0.nii.gz"
    ensemble = medfcn.load(folded, device="cpu")
    assert len(ensemble.models) == 3
    alone = [
        medfcn.Model.load(folded / f"fold_{number}", device="cpu").predict_case(image, keep_probabilities=True)
        for number in (1, 2, 3)
    ]
    together = ensemble.predict_case(image, keep_probabilities=True)
    assert together.probabilities is not None
    mean = np.mean([one.probabilities for one in alone if one.probabilities is not None], axis=0)
    np.testing.assert_allclose(together.probabilities, mean, atol=1e-6)


def test_folds_trained_one_by_one_are_those_of_one_command(data: Path, folded: Path, tmp_path: Path) -> None:
    say = Told()
    for fold in ("3/3", "1/3"):
        run = train(data, tmp_path / "run", fold=fold, progress=say)
        assert run.folder == tmp_path / "run" / f"fold_{fold[0]}"
        assert run.scored == (run.folder,)
    assert not (tmp_path / "run" / "validation").exists()
    last = train(data, tmp_path / "run", fold="2/3", progress=say)
    assert last.scored == (last.folder, tmp_path / "run")
    assert any("all 3 folds are trained" in line for line in say.lines)
    for name in (
        "validation/scores.csv",
        "validation/summary.json",
        *(f"fold_{n}/model.safetensors" for n in (1, 2, 3)),
    ):
        assert sha256_of(tmp_path / "run" / name) == sha256_of(folded / name), name


def test_folds_that_were_stopped_go_on_where_they_were(data: Path, folded: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingStoppedError, match="stopped after step 3 of 6, which is saved"):
        train(data, tmp_path / "run", folds=3, stop=StopAfter(9))  # in the second fold
    assert [(tmp_path / "run" / f"fold_{number}" / "model.json").is_file() for number in (1, 2)] == [True, False]
    with pytest.raises(MedfcnError, match=r"fold_2: no model\.json"):
        medfcn.load(tmp_path / "run", device="cpu")
    with pytest.raises(OutputExistsError, match="already exists"):
        train(data, tmp_path / "run", folds=3)
    first = hashes(tmp_path / "run" / "fold_1")
    run = train(data, tmp_path / "run", folds=3, resume=True, steps=None)
    assert (tmp_path / "run" / "fold_1" / "report.html").is_file()  # reports are written after the last fold
    assert {**hashes(tmp_path / "run" / "fold_1"), **first} == hashes(tmp_path / "run" / "fold_1")
    assert hashes(tmp_path / "run" / "fold_1").keys() - first.keys() == {"report.html"}
    alone = {"fold_1/options.json"}  # it was trained by a command of its own
    assert hashes(run.folder).keys() - alone == hashes(folded).keys()
    for name, content in hashes(folded).items():
        if not name.endswith(("log.csv", "model.json", "options.json", "report.html")):
            assert sha256_of(run.folder / name) == content, name
    before = hashes(run.folder)
    say = Told()
    again = train(data, tmp_path / "run", folds=3, resume=True, progress=say)
    assert hashes(run.folder) == before
    assert again.validation.rows == run.validation.rows
    assert sum("is finished" in line for line in say.lines) == 3
    for choices, named in (
        ({"folds": 3, "seed": 1}, "fold_1: .*seed is 1, was 0"),
        ({"folds": 3, "steps": 7}, "the length is 7 steps, was 6 steps"),
        ({"folds": None, "fold": "2/4"}, "fold_2: .*the fold is 2 of 4, was 2 of 3"),
    ):
        with pytest.raises(MedfcnError, match=named):
            train(data, tmp_path / "run", resume=True, **choices)


def test_a_fold_of_another_cross_validation_is_refused_before_any_training(
    data: Path, folded: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(folded, run)
    shutil.rmtree(run / "fold_2")
    other = override(SETTINGS, "training", learning_rate=0.01)
    for choices, named in (
        ({"seed": 1}, r"fold_1: .*seed is 1, was 0"),
        ({"settings": other}, r"the setting training\.learning_rate is 0\.01, was not set"),
        ({"steps": 7}, "the length is 7 steps, was 6 steps"),
        ({"leave_out": ["ball_5"]}, r"validation cases are not those of fold . of 3 of this data set, first"),
    ):
        with pytest.raises(MedfcnError, match=named):
            train(data, run, **{"fold": "2/3"} | choices)
        assert not (run / "fold_2").exists()
    with pytest.raises(OutputExistsError, match="contains fold 3 of 2"):
        train(data, run, fold="2/2")
    with pytest.raises(MissingFileError, match="contains no stopped training"):
        train(data, run, fold="2/3", resume=True)
    assert train(data, run, folds=3, resume=True).validation.cases == tuple(f"ball_{n}" for n in range(6))


def test_overwriting_leaves_no_fold_of_before(data: Path, folded: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folded, run)
    train(data, run, folds=2, overwrite=True, steps=2)
    assert sorted(path.name for path in run.glob("fold_*")) == ["fold_1", "fold_2"]
    assert len(medfcn.load(run, device="cpu").models) == 2
    train(data, run, fold="2/2", overwrite=True, steps=2)
    with pytest.raises(OutputExistsError, match="already exists"):
        train(data, run)
    single = train(data, run, overwrite=True, steps=2)
    assert list(run.glob("fold_*")) == []
    with pytest.raises(OutputExistsError, match="contains a training without folds"):
        train(data, run, fold="1/3")
    assert (single.folder / "model.json").is_file()
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "precious.txt").touch()
    for choices in ({"folds": 2}, {"folds": 2, "overwrite": True}):
        with pytest.raises(OutputExistsError):
            train(data, tmp_path / "others", **choices)
    assert [path.name for path in (tmp_path / "others").iterdir()] == ["precious.txt"]


def test_the_folds_of_a_command_share_its_budget(data: Path, tmp_path: Path) -> None:
    run = train(data, tmp_path / "run", steps=None, budget="6s", folds=2)
    steps = set()
    for number in (1, 2):
        card = json.loads((run.folder / f"fold_{number}" / "model.json").read_text())
        assert card["training"]["budget_seconds"] == 3
        steps.add(card["training"]["steps"])
    assert steps == {run.steps // 2}
    assert run.steps >= 30  # measured in all folds together


def test_a_label_that_a_fold_lacks_is_named_before_any_training(data: Path, tmp_path: Path) -> None:
    other = shutil.copytree(data.parent, tmp_path / "other") / "data"
    for case in ("ball_4", "ball_5"):
        path = other / "labels" / f"{case}.nii.gz"
        mask = nibabel.load(path)
        drawn = np.asarray(mask.dataobj).copy()
        drawn[:13] *= 2
        nibabel.save(nibabel.Nifti1Image(drawn, mask.affine), path)
    with pytest.raises(
        DatasetError, match=r"fold 3 of 3: none of its \d validation cases contains low \(of all 6 cases 2"
    ):
        train(other, tmp_path / "run", labels="high=1,low=2", folds=3)
    assert not (tmp_path / "run").exists()
    # The rare label is dealt out first, so that two folds are possible.
    run = train(other, tmp_path / "run", labels="high=1,low=2", folds=2, steps=2)
    assert len({case for part in ("fold_1", "fold_2") for case in validation_of(run.folder / part)}) == 6


def test_the_folds_of_a_table_are_kept(data: Path, tmp_path: Path) -> None:
    other = shutil.copytree(data, tmp_path / "data")
    folds = ["10", "9", "9", "10", "9", "9"]
    rows = [f"ball_{n},images/ball_{n}.nii.gz,labels/ball_{n}.nii.gz,{fold}\n" for n, fold in enumerate(folds)]
    (other / "cases.csv").write_text("id,image,label,fold\n" + "".join(rows))
    common: dict[str, Any] = {"steps": 2, "device": "cpu", "threads": 1}
    run = medfcn.train(other / "cases.csv", tmp_path / "run", folds=2, **common)
    assert validation_of(run.folder / "fold_2") == {"ball_0", "ball_3"}  # 10 comes after 9
    with pytest.raises(DatasetError, match=r"prescribes 2 folds \(9, 10\), 3 are requested"):
        medfcn.train(other / "cases.csv", tmp_path / "more", folds=3, **common)


def test_the_command_line_writes_a_report_of_all_folds(data: Path, tmp_path: Path) -> None:
    def command(*arguments: object) -> Any:
        common = ("train", data, "-o", tmp_path / "run", "--steps", 2, "--device", "cpu", "--threads", 1)
        return CliRunner().invoke(main, [str(word) for word in (*common, *arguments)])

    assert command("--fold", "1/2").exit_code == 0
    assert (tmp_path / "run" / "fold_1" / "report.html").is_file()
    assert not (tmp_path / "run" / "report.html").exists()
    result = command("--folds", 2, "--resume")
    assert result.exit_code == 0, result.stderr
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert all(f"ball_{number}" in page for number in range(6))
    assert "out of fold" in page
    for arguments, said in (
        (("--fold", "3/2"), "is not K/N"),
        (("--fold", "two"), "is not K/N"),
        (("--folds", 1), "1"),
        (("--fold", "1/2", "--folds", 2), "given together"),
    ):
        result = command(*arguments)
        assert result.exit_code == 2
        assert said in result.stderr


def test_folds_are_asked_for_in_one_way() -> None:
    assert Folds.of(None, None) is None
    with pytest.raises(SettingsError, match="given together"):
        Folds.of("1/2", 2)
    for fold, folds in (("0/2", None), ("1/1", None), ("1", None), ("٣/5", None), (None, 1)):
        with pytest.raises(SettingsError):
            Folds.of(fold, folds)


def test_a_job_in_one_fold_is_told_to_a_second(data: Path, tmp_path: Path) -> None:
    from medfcn.runs.lock import locked

    with locked(tmp_path / "run" / "fold_2", Told()):
        for choices in ({"fold": "2/3"}, {"folds": 3}, {"folds": 3, "overwrite": True}):
            with pytest.raises(TrainingError, match=r"fold_2: process \d+ on .* is at work"):
                train(data, tmp_path / "run", **choices)
    assert not (tmp_path / "run").exists()
