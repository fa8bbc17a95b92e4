"""A search begins with the defaults, never sees the test part, survives whatever stops it, and is no worse for it."""

import csv
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import medfcn
from medfcn.cli import main
from medfcn.config import override, read_settings, to_tables
from medfcn.errors import MissingFileError, OutputExistsError, SettingsError, TrainingError, TrainingStoppedError
from medfcn.runs.cluster import LostError
from medfcn.settings import Settings
from medfcn.training.trainer import Trainer
from medfcn.tuning.outcome import Tuned
from medfcn.tuning.space import OneOf, Searched
from medfcn.tuning.study import Study
from medfcn.tuning.trial import case_dices
from tests.training.nursery import Nursery, nursery
from tests.training.test_resume import StopAfter

EVERY_STEP = override(Settings(), "training", epoch_steps=10, checkpoint_seconds=0.0)
RATES = (Searched("training.learning_rate", OneOf((4e-3, 1e9)), "the second comes to no finite loss"),)


def tune(data: Path, folder: Path, **choices: Any) -> Tuned:
    usual = {"trials": 3, "steps": 3, "labels": "ball=1", "only": ["learning_rate"], "settings": EVERY_STEP}
    return medfcn.tune(data, folder, **usual | {"device": "cpu", "threads": 1} | choices)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def without_times(folder: Path) -> list[dict[str, str]]:
    """The rows of trials that ended by themselves, without their numbers and times."""
    left_out = ("trial", "seconds", "note")
    return [
        {name: value for name, value in row.items() if name not in left_out}
        for row in rows_of(folder)
        if row["state"] != "interrupted"
    ]


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def searched(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    return tune(balls, tmp_path_factory.mktemp("search") / "out")


def test_the_first_trial_is_a_training_with_the_defaults(balls: Path, searched: Tuned, tmp_path: Path) -> None:
    first = searched.trials[0]
    assert searched.defaults == first
    assert first.values == {"training.learning_rate": 4e-3}
    run = medfcn.train(balls, tmp_path / "run", labels="ball=1", steps=3, device="cpu", threads=1)
    assert first.score is not None
    assert [first.score.mean] == case_dices(run.validation)
    assert len({trial.values["training.learning_rate"] for trial in searched.trials}) == 3
    assert searched.best.score is not None
    assert searched.best.score.mean == max(trial.score.mean for trial in searched.trials if trial.score)
    assert searched.gain is not None
    assert searched.gain >= 0


def test_a_search_leaves_three_files_and_no_slices(searched: Tuned) -> None:
    assert files_in(searched.folder) == ["best.toml", "study.db", "trials.csv"]
    rows = rows_of(searched.folder)
    assert [row["trial"] for row in rows] == ["0", "1", "2"]
    assert {row["state"] for row in rows} == {"done"}
    for row, trial in zip(rows, searched.trials, strict=True):
        assert trial.score is not None
        assert float(row["dice_mean"]) == pytest.approx(trial.score.mean)
        assert float(row["training.learning_rate"]) == pytest.approx(trial.values["training.learning_rate"])


def test_the_same_search_comes_to_the_same(balls: Path, searched: Tuned, tmp_path: Path) -> None:
    tune(balls, tmp_path / "again")
    assert without_times(tmp_path / "again") == without_times(searched.folder)
    other = tune(balls, tmp_path / "other", seed=1, trials=2)
    assert other.trials[1].values != searched.trials[1].values


def test_the_command_searches_and_its_best_settings_train(balls: Path, tmp_path: Path) -> None:
    def run(*arguments: object) -> str:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.stderr
        return result.stdout

    (tmp_path / "test.txt").write_text("ball_7\n")
    (tmp_path / "base.toml").write_text("[training]\nweight_decay = 0.02\n\n[network]\nwidths = [8, 16]\n")
    common = ["--labels", "ball=1", "--leave-out", tmp_path / "test.txt", "--steps", 3, "--device", "cpu"]
    common += ["--threads", 1]
    out = tmp_path / "out"
    said = run("tune", balls, "-o", out, *common, "--config", tmp_path / "base.toml", "--context", 3, "--trials", 4)
    said = " ".join(said.split())
    assert "so this number is too good: train with --config" in said
    assert "score on the cases you left out" in said
    searched_for = set(rows_of(out)[0]) - {"trial", "state", "steps", "seconds", "note"}
    assert {name for name in searched_for if not name.startswith("dice_")} == {
        "training.learning_rate",
        "training.foreground_share",
        "augment.strength",
        "augment.mirror",
    }
    best = read_settings(out / "best.toml")
    assert (best.slices.context, best.network.widths, best.training.weight_decay) == (3, (8, 16), 0.02)
    run("train", balls, "-o", tmp_path / "run", *common, "--config", out / "best.toml")
    with (tmp_path / "run" / "validation" / "scores.csv").open() as file:
        reached = [float(row["dice"]) for row in csv.DictReader(file)]
    highest = max(float(row["dice_mean"]) for row in rows_of(out))
    assert sum(reached) / len(reached) == pytest.approx(highest, abs=1e-9)


def test_what_was_left_out_is_never_opened(balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = shutil.copytree(balls, tmp_path / "data")
    for path in data.glob("*/ball_7.nii.gz"):
        path.write_bytes(b"the test part")
    with pytest.raises(medfcn.MedfcnError, match="ball_7"):
        tune(data, tmp_path / "with")
    opened: list[str] = []
    real = os.open

    def watched(path: Any, *arguments: Any, **choices: Any) -> int:
        opened.append(str(path))
        return real(path, *arguments, **choices)

    monkeypatch.setattr("os.open", watched)
    out = tmp_path / "without"
    tuned = tune(data, out, trials=2, leave_out=["ball_7"])
    assert any("ball_6" in path for path in opened)
    assert not any("ball_7" in path for path in opened)
    for name in files_in(out):
        assert b"ball_7" not in (out / name).read_bytes(), name
    assert "the cases you left out" in tuned.to_text()


def test_slices_are_prepared_once_for_all_trials(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medfcn.training import prepare

    written: list[Any] = []
    real = prepare.write_case

    def counted(*arguments: Any) -> None:
        written.append(arguments[1])
        real(*arguments)

    monkeypatch.setattr(prepare, "write_case", counted)
    tuned = tune(balls, tmp_path / "out", only=["context", "width"], space=medfcn.tuning.space.SPACE)
    assert len({str(trial.values) for trial in tuned.trials}) > 1
    assert len(written) == len(set(written)) == 7


def test_folds_score_every_case_out_of_fold(balls: Path, tmp_path: Path) -> None:
    tuned = tune(balls, tmp_path / "out", trials=2, folds=2)
    run = medfcn.train(balls, tmp_path / "run", labels="ball=1", steps=3, device="cpu", threads=1, folds=2)
    dices = case_dices(run.validation)
    score = tuned.trials[0].score
    assert score is not None
    assert len(dices) == tuned.validation_cases == 8
    assert (score.mean, score.worst) == pytest.approx((sum(dices) / 8, min(dices)))
    assert score.steps == 6
    assert "8 validation cases out of fold" in tuned.to_text()
    assert files_in(tmp_path / "out") == ["best.toml", "study.db", "trials.csv"]


def test_a_trial_that_fails_is_noted_and_the_search_goes_on(balls: Path, tmp_path: Path) -> None:
    tuned = tune(balls, tmp_path / "out", trials=6, only=None, space=RATES, seed=1)
    states = [row["state"] for row in rows_of(tmp_path / "out")]
    assert states[0] == "done"
    assert "failed" in states
    assert len(states) == 6
    failed = next(row for row in rows_of(tmp_path / "out") if row["state"] == "failed")
    assert "is nan" in failed["note"] or "is inf" in failed["note"]
    assert failed["dice_mean"] == ""
    assert tuned.best == tuned.trials[0]
    assert "no trial was better than the defaults" in tuned.to_text()
    again = [row for row in rows_of(tmp_path / "out") if row["note"] == "as trial 0"]
    assert {row["dice_mean"] for row in again} <= {rows_of(tmp_path / "out")[0]["dice_mean"]}


@pytest.mark.parametrize("error", [TrainingError("out of GPU memory"), MemoryError()])
def test_a_search_in_which_nothing_can_be_trained_says_why(
    error: Exception, balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr("medfcn.tuning.search.run_trial", fails)
    with pytest.raises(
        TrainingError, match=r"none of the 2 trials could be trained; the first: out of (GPU )?memory"
    ):
        tune(balls, tmp_path / "out", trials=2)
    assert [row["state"] for row in rows_of(tmp_path / "out")] == ["failed"] * 2


def test_a_full_disk_stops_the_search_and_it_goes_on_later(
    balls: Path, searched: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("medfcn.tuning.search.run_trial", full)
        with pytest.raises(OSError, match="No space left"):
            tune(balls, tmp_path / "out")
    tune(balls, tmp_path / "out", resume=True)
    assert without_times(tmp_path / "out") == without_times(searched.folder)


def test_a_search_that_was_stopped_goes_on_and_ends_as_it_would_have(
    balls: Path, searched: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    looks = [StopAfter(count) for count in (1, 0)]  # after the second step of the first trial, then after its third
    for stop in looks:
        with pytest.raises(TrainingStoppedError, match="resume=True"):
            tune(balls, out, stop=stop, resume=stop is not looks[0])
    assert (out / "search" / "trial_0" / "state").is_dir()
    steps: list[int] = []
    real = Trainer._step

    def counted(self: Trainer, total: int | None) -> None:
        steps.append(self.step)
        real(self, total)

    monkeypatch.setattr(Trainer, "_step", counted)
    tune(balls, out, resume=True)
    assert len(steps) == 6  # those of the first trial are not made again
    assert without_times(out) == without_times(searched.folder)
    assert [row["state"] for row in rows_of(out)].count("interrupted") == 2
    assert files_in(out) == ["best.toml", "study.db", "trials.csv"]


@pytest.fixture(scope="module")
def forks() -> Iterator[Nursery]:
    with nursery() as found:
        yield found


def test_a_search_that_was_killed_goes_on_and_ends_as_it_would_have(
    forks: Nursery, balls: Path, searched: Tuned, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    order = {"work": "tune", "dataset": str(balls), "output": str(out), "trials": 3, "steps": 3, "labels": "ball=1"}
    order |= {"only": ["learning_rate"]}
    child = forks.start(**order)
    while not list(out.glob("search/trial_1/state/*")):
        time.sleep(0.001)
    assert forks.kill(child) == []
    assert [row["state"] for row in rows_of(out)] == ["done"]
    assert forks.until_end(forks.start(**order)) == ["done 4"]
    assert [row["state"] for row in rows_of(out)] == ["done", "interrupted", "done", "done"]
    assert rows_of(out)[2]["note"] == "again for trial 1"
    assert without_times(out) == without_times(searched.folder)
    assert files_in(out) == ["best.toml", "study.db", "trials.csv"]


def test_a_trial_in_which_the_process_is_always_killed_is_given_up(balls: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tune(balls, out, trials=1)
    for _ in range(3):
        study = Study(out / "study.db", seed=0)
        study.begin({"training.learning_rate": 4e-3})
        study.next_trial((Searched("training.learning_rate", medfcn.tuning.space.SPACE[0].domain, ""),))
        study.close()  # and nothing more is heard of it
    tune(balls, out, trials=2, resume=True)
    rows = rows_of(out)
    assert [row["state"] for row in rows] == ["done", *["interrupted"] * 3, "failed"]
    assert rows[-1]["note"] == "its process was killed 3 times"
    assert len({row["training.learning_rate"] for row in rows[1:]}) == 1


def test_trials_are_added_to_a_finished_search(balls: Path, searched: Tuned, tmp_path: Path) -> None:
    tune(balls, tmp_path / "out", trials=1)
    tuned = tune(balls, tmp_path / "out", steps=None, threads=None, resume=True)  # as they were
    assert len(tuned.trials) == 3
    assert without_times(tmp_path / "out") == without_times(searched.folder)
    before = (tmp_path / "out" / "best.toml").read_bytes()
    assert tune(balls, tmp_path / "out", trials=2, resume=True).trials == tuned.trials
    assert (tmp_path / "out" / "best.toml").read_bytes() == before


def test_another_search_is_refused_by_name(balls: Path, searched: Tuned, tmp_path: Path) -> None:
    before = (searched.folder / "study.db").read_bytes()
    other = override(EVERY_STEP, "training", batch_size=16)
    for choices, said in (
        ({"seed": 1}, "seed is 1, was 0"),
        ({"steps": 4}, "the length is 4 steps, was 3 steps"),
        ({"settings": other}, r"the setting training\.batch_size is 16, was 32"),
        ({"only": ["width"]}, r"searched\.network\.width\.values is 0\.5, 1 and 2, was absent"),
        ({"leave_out": ["ball_7"]}, r"ball_7 is left out, was used for (training|validation)"),
        ({"folds": 2}, "folds is 2, was not set"),
    ):
        with pytest.raises(TrainingError, match=said):
            tune(balls, searched.folder, resume=True, **choices)
    assert (searched.folder / "study.db").read_bytes() == before


def test_an_output_is_kept_unless_it_is_to_be_replaced(balls: Path, searched: Tuned, tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError, match=r"contains a search; continue it \(resume=True\)"):
        tune(balls, searched.folder)
    with pytest.raises(MissingFileError, match="contains no search"):
        tune(balls, tmp_path / "out", resume=True)
    with pytest.raises(SettingsError, match="given together"):
        tune(balls, tmp_path / "out", resume=True, overwrite=True)
    assert not (tmp_path / "out").exists()
    folder = shutil.copytree(searched.folder, tmp_path / "copy")
    (folder / "notes.txt").write_text("keep me")
    assert len(tune(balls, folder, trials=1, overwrite=True).trials) == 1
    assert files_in(folder) == ["best.toml", "notes.txt", "study.db", "trials.csv"]
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "study.db").write_text("of someone else")
    with pytest.raises(OutputExistsError, match="none of them written by medfcn"):
        tune(balls, photos, overwrite=True)
    assert files_in(photos) == ["study.db"]


def test_a_broken_study_is_told_in_one_line(balls: Path, searched: Tuned, tmp_path: Path) -> None:
    folder = shutil.copytree(searched.folder, tmp_path / "broken")
    (folder / "study.db").write_bytes(b"not a data base, but a text that is long enough to look like one" * 20)
    with pytest.raises(TrainingError, match=r"study\.db cannot be read or written \(file is not a database\)"):
        tune(balls, folder, resume=True)


STUDIES = {
    "no score": "delete from trial_user_attributes where key = 'score'",
    "score": "update trial_user_attributes set value_json = '{\"mean\": 7}' where key = 'score'",
    "origin": "insert into trial_user_attributes (trial_id, key, value_json) values (1, 'origin', '\"x\"')",
    "repeats": "insert into trial_user_attributes (trial_id, key, value_json) values (1, 'repeats', '[1]')",
    "state": "update trials set state = 'ODD'",
    "number": "update trials set number = null",
    "values": "delete from trial_params",
    "distribution": "update trial_params set distribution_json = '{}'",
    "identity": "update study_user_attributes set value_json = '5' where key = 'identity'",
    "date": "update trials set datetime_start = 'never'",
}


@pytest.mark.parametrize("kind", list(STUDIES))
def test_what_a_study_cannot_contain_is_told_in_one_line(kind: str, searched: Tuned, tmp_path: Path) -> None:
    path = Path(shutil.copy(searched.folder / "study.db", tmp_path))
    with closing(sqlite3.connect(path)) as base, base:
        assert base.execute(STUDIES[kind]).rowcount

    def read() -> None:
        with closing(Study(path, seed=0)) as study:
            assert study.identity
            study.trials()
            study.begin({})

    with pytest.raises(TrainingError, match=r"study\.db") as caught:
        read()
    assert "\n" not in str(caught.value)
    assert "start again with overwrite=True" in str(caught.value)


def test_misuse_is_told_in_one_line(balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(*arguments: object) -> tuple[int, str]:
        words = ["tune", str(balls), "-o", str(tmp_path / "out"), *map(str, arguments)]
        result = CliRunner().invoke(main, words)
        assert not (tmp_path / "out").exists()
        return result.exit_code, result.stderr.strip().splitlines()[-1]

    for arguments, option, said in (
        (("--steps", 2, "--budget", "1m"), "budget", "budget and steps are given together; give one of them"),
        (("--only", "width,learning_rat"), "only", "'learning_rat' is not searched; did you mean 'learning_rate'?"),
        (("--only", "context", "--context", 3), "context", "slices.context is to be searched, and slices.context is"),
        (("--resume", "--overwrite"), "resume", "resume and overwrite are given together; give one of them"),
    ):
        code, line = told(*arguments)
        assert code == 2
        assert f"--{option}" in line
        assert said in line
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, line = told()
    assert (code, line) == (1, "medfcn: a search needs optuna, which is not installed; pip install 'medfcn[tune]'")


def test_a_library_call_can_search_another_space(balls: Path, tmp_path: Path) -> None:
    space = (Searched("training.batch_size", OneOf((16, 32)), "memory"),)
    tuned = tune(balls, tmp_path / "out", space=space, only=None, trials=3)
    assert {trial.values["training.batch_size"] for trial in tuned.trials} <= {16, 32}
    assert tuned.trials[0].values["training.batch_size"] == 32
    assert to_tables(tuned.settings)["training"]["batch_size"] == tuned.best.values["training.batch_size"]


class InThisProcess:
    """A cluster of two workers whose tasks run here, one after the other; the second task is lost with its worker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rounds: list[int] = []

    def places(self) -> dict[str, int]:
        return {"first": 0, "second": 1}

    def each(self, work: Callable[..., Any], shared: bytes, items: dict[str, tuple[Any, ...]]) -> Iterator[Any]:
        self.rounds.append(len(items))
        os.chdir(self.folder)  # as a worker that was started elsewhere
        for number, (name, values) in enumerate(items.items()):
            is_lost = (len(self.rounds), number) == (1, 1)
            yield name, LostError("its processes were killed") if is_lost else work(shared, *values)


def test_the_workers_of_a_cluster_train_a_trial_each(
    balls: Path, searched: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    (tmp_path / "elsewhere").mkdir()
    cluster, here = InThisProcess(tmp_path / "elsewhere"), Path.cwd()
    monkeypatch.setattr("medfcn.tuning.tune.connected", lambda address: nullcontext(cluster))
    try:
        tuned = tune(balls, tmp_path / "out", cluster="tcp://127.0.0.1:1")
    finally:
        os.chdir(here)
    assert cluster.rounds == [2, 1]
    assert [trial.state for trial in tuned.trials] == ["done", "failed", "done"]
    assert tuned.trials[1].problem == "its processes were killed"
    first, alone = tuned.trials[0].score, searched.trials[0].score
    assert first is not None
    assert alone is not None
    assert replace(first, seconds=0.0) == replace(alone, seconds=0.0)
    assert len({trial.values["training.learning_rate"] for trial in tuned.trials}) == 3
    assert files_in(tmp_path / "out") == files_in(searched.folder)
