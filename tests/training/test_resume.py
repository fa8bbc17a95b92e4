"""Kill it, stop it, start it twice, damage what it left: a training ends as it would have ended, or says why not."""

import csv
import json
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import medfcn
from medfcn.cli import main
from medfcn.config import override
from medfcn.errors import MissingFileError, OutputExistsError, SettingsError, TrainingError, TrainingStoppedError
from medfcn.files import sha256_of
from medfcn.labels import LabelMap
from medfcn.progress import Lines, Silent
from medfcn.runs.checkpoints import Checkpoints
from medfcn.runs.folder import RunFolder
from medfcn.runs.stop import Stop, stop_on_signals
from medfcn.settings import Settings
from medfcn.training.gradients import Gradients
from medfcn.training.run import Run
from medfcn.training.start import Start
from medfcn.training.state import State
from medfcn.training.trainer import Trainer
from medfcn.training.validation import CaseDices
from tests.conftest import draw_ball, write_case
from tests.training.nursery import Nursery, nursery

EVERY_STEP = override(Settings(), "training", checkpoint_seconds=0.0, epoch_steps=10)


@pytest.fixture(scope="module")
def forks() -> Iterator[Nursery]:
    with nursery() as found:
        yield found


def train(data: Path, folder: Path, *, steps: int | None = 24, **choices: Any) -> Run:
    return medfcn.train(
        data, folder, **{"steps": steps, "settings": EVERY_STEP, "device": "cpu", "threads": 1} | choices
    )


def log_without_times(run: Path) -> list[dict[str, str]]:
    with (run / "log.csv").open() as file:
        return [
            {name: value for name, value in row.items() if not name.endswith("seconds")}
            for row in csv.DictReader(file)
        ]


def card_without_times(run: Path) -> dict[str, Any]:
    card = json.loads((run / "model.json").read_text())
    for name in ("seconds", "cpu_seconds"):
        card["training"].pop(name)
    card["settings"]["training"].pop("checkpoint_seconds")
    return card


def assert_same_run(run: Path, whole: Path) -> None:
    """Everything but times is the same, bit for bit, and nothing else lies there."""
    names = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) for folder in (run, whole)]
    assert names[0] == names[1]
    for name in names[1]:
        if name not in ("log.csv", "model.json", "options.json", "report.html") and (whole / name).is_file():
            assert sha256_of(run / name) == sha256_of(whole / name), name
    assert log_without_times(run) == log_without_times(whole)
    assert card_without_times(run) == card_without_times(whole)
    assert kept_options(run) == kept_options(whole)


def kept_options(run: Path) -> dict[str, Any]:
    """The options that decide the result; whence the data set is reached depends on where the run is."""
    kept: dict[str, Any] = json.loads((run / "options.json").read_text())
    kept["settings"]["training"].pop("checkpoint_seconds")
    return {name: value for name, value in kept.items() if name not in ("dataset", "groups")}


@pytest.fixture(scope="module")
def whole(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    torch.set_num_threads(1)
    return train(balls, tmp_path_factory.mktemp("whole") / "run").folder


class StopAfter(Stop):
    """Asks to stop when a training looks for the n-th time."""

    def __init__(self, looks: int) -> None:
        self.looks = looks
        super().__init__()

    @property
    def is_asked(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    @is_asked.setter
    def is_asked(self, value: bool) -> None:
        pass


def uninterrupted(forks: Nursery, folder: Path, order: dict[str, Any]) -> float:
    """Train without a kill; the seconds it took."""
    began = time.monotonic()
    child = forks.start(work="train", output=str(folder), checkpoint_seconds=60, **order)
    assert forks.until_end(child) == [f"done {order['steps']}"]
    return time.monotonic() - began


def step_saved(run: Path) -> int:
    """The step of the newest checkpoint, 0 without any."""
    try:
        return int(json.loads(marks(run)[-1].read_text())["step"])
    except (IndexError, OSError):
        return 0


def test_a_training_killed_five_times_ends_as_one_that_was_not(forks: Nursery, balls: Path, tmp_path: Path) -> None:
    order: dict[str, Any] = {"dataset": str(balls), "steps": 24}
    uninterrupted(forks, tmp_path / "whole", order)
    order |= {"output": str(tmp_path / "killed"), "checkpoint_seconds": 0}
    for step in sorted(random.sample(range(1, 17), 5)):
        child = forks.start(work="train", **order)
        while step_saved(tmp_path / "killed") < step:
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.05))
        assert forks.kill(child) == []
    assert forks.until_end(forks.start(work="train", **order)) == ["done 24"]
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
def test_after_a_hundred_kills_weights_and_logs_are_bitwise_those_of_trainings_without(
    forks: Nursery, balls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kills, resumes, trainings = 0, 0, 0
    while kills < 100:
        folder = tmp_path / str(trainings)
        order: dict[str, Any] = {"dataset": str(balls), "steps": random.randint(10, 60), "seed": trainings}
        longest = uninterrupted(forks, folder / "whole", order)
        order |= {"output": str(folder / "killed"), "checkpoint_seconds": 0}
        said: list[str] = []
        while not said:
            resumes += (folder / "killed").exists()
            child = forks.start(work="train", **order)
            if kills == 100:
                said = forks.until_end(child)
                break
            # At any moment: in the data check, between steps, in a save, while the run is written.
            time.sleep(random.uniform(0, longest))
            said = forks.kill(child)
            kills += not said
        assert said == [f"done {order['steps']}"]
        assert_same_run(folder / "killed", folder / "whole")
        shutil.rmtree(folder)
        trainings += 1
    with capsys.disabled():
        print(f"{kills} kills, {resumes} resumes, {trainings} trainings")


def saves_killed(forks: Nursery, folder: Path, kills: int) -> int:
    """Kill a process that does nothing but save; each state that it announced, or a later one, must be there.

    Returns the last step.
    """
    folder.mkdir()
    announced, longest = 0, 0.15
    checkpoints = Checkpoints(folder, "key", every_seconds=0)
    for number in range(kills):
        child = forks.start(work="save", folder=str(folder), first=announced + 1)
        time.sleep(random.uniform(0, longest))
        said = forks.kill(child)
        assert not any(line.startswith("failed") for line in said), said
        if not said:  # a busy machine takes longer to come to its first save
            longest = min(2 * longest, 3.0)
        before, announced = announced, max([announced, *(int(line.removeprefix("saved ")) for line in said)])
        found = checkpoints.latest(State.load, Lines(every_seconds=0))
        assert found is not None or announced == 0, f"kill {number}: nothing is there after step {announced}"
        if found is not None:
            step = found.step
            assert step in (announced, announced + 1), f"kill {number}: step {step} after {before} and {announced}"
            assert torch.equal(found.averaged["weight"], torch.full((200, 200), float(step))), f"kill {number}"
            announced = step
    assert announced > 0, "no state was saved"
    return announced


def test_a_kill_inside_a_save_leaves_a_whole_state(
    forks: Nursery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saves_killed(forks, tmp_path / "state", 10)
    assert "cannot be used" not in capsys.readouterr().err


@pytest.mark.slow
def test_two_hundred_kills_inside_saves_leave_no_unreadable_state(
    forks: Nursery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saves_killed(forks, tmp_path / "state", 200)
    assert "cannot be used" not in capsys.readouterr().err


@pytest.mark.parametrize("looks", [0, 3, 11, 23, 24])
def test_a_stopped_training_goes_on_where_it_was(looks: int, balls: Path, whole: Path, tmp_path: Path) -> None:
    settings = override(EVERY_STEP, "training", checkpoint_seconds=3600.0)  # nothing but the stop saves
    with pytest.raises(TrainingStoppedError, match=r"stopped after step \d+ of 24, which is saved; .* resume=True"):
        train(balls, tmp_path / "run", stop=StopAfter(looks), settings=settings)
    assert not (tmp_path / "run" / "model.json").exists()
    run = train(balls, tmp_path / "run", resume=True)
    assert run.steps == 24
    assert_same_run(run.folder, whole)


def test_another_arithmetic_after_a_stop_is_said_and_kept(
    balls: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Told(Silent):
        def say(self, message: str) -> None:
            told.append(message)

    def precision_of(run: Path) -> str:
        return str(json.loads((run / "model.json").read_text())["training"]["precision"])

    told: list[str] = []
    assert precision_of(whole) in ("float32", "bfloat16")
    monkeypatch.setattr("medfcn.training.stepping.has_fast_bfloat16", lambda device: False)
    with pytest.raises(TrainingStoppedError, match="after step"):
        train(balls, tmp_path / "run", stop=StopAfter(11))
    with pytest.raises(TrainingStoppedError, match="after step"):
        train(balls, tmp_path / "run", resume=True, stop=StopAfter(3), progress=Told())
    assert not any("the steps so far" in line for line in told)
    monkeypatch.setattr("medfcn.training.stepping.has_fast_bfloat16", lambda device: True)
    run = train(balls, tmp_path / "run", resume=True, progress=Told())
    said = "the steps so far were computed in float32, and this machine goes on in bfloat16"
    assert sum(said in line for line in told) == 1
    assert precision_of(run.folder) == "float32, then bfloat16"


def test_the_best_weights_before_an_interruption_are_still_the_best_after_it(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medfcn.training.schedule._STEPS_BETWEEN_VALIDATIONS", 4)
    dices = {14: 0.5, 16: 0.9, 18: 0.8, 20: 0.7, 22: 0.6, 24: 0.9}
    asked: list[int] = []

    def judge(outputs: Any, cases: Any, *, before_each: Callable[[], None]) -> CaseDices:
        asked.append(sorted(dices)[len(asked) % 6])
        return CaseDices(dices[asked[-1]], (dices[asked[-1]],))

    monkeypatch.setattr("medfcn.training.trainer.dices_of_cases", judge)
    whole = train(balls, tmp_path / "whole").folder
    assert json.loads((whole / "model.json").read_text())["training"]["best_step"] == 16
    with pytest.raises(TrainingStoppedError, match="after step 19"):
        train(balls, tmp_path / "run", stop=StopAfter(18))
    assert_same_run(train(balls, tmp_path / "run", resume=True).folder, whole)
    assert asked == sorted(dices) * 2


def test_a_loss_that_is_not_finite_is_met_again_and_leaves_the_state_before_it(
    balls: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Gradients.set_gradients

    def broken(self: Gradients, *arguments: Any, seed: int) -> torch.Tensor:
        loss = original(self, *arguments, seed=seed)
        return loss * torch.nan if seed & 0xFFFFFFFF == 13 else loss

    said = []
    with monkeypatch.context() as patched:
        patched.setattr(Gradients, "set_gradients", broken)
        for resume in (False, True):
            with pytest.raises(TrainingError, match="step 14: the loss is nan; its slices are of ball_") as caught:
                train(balls, tmp_path / "run", resume=resume)
            said.append(str(caught.value))
    assert said[0] == said[1]
    assert "a resume would meet this again" in said[0]
    assert said[0].endswith("or start again with a training.learning_rate below 0.004")
    assert step_saved(tmp_path / "run") == 13
    assert_same_run(train(balls, tmp_path / "run", resume=True).folder, whole)


def test_a_budget_counts_the_time_before_the_interruption_and_keeps_its_steps(balls: Path, tmp_path: Path) -> None:
    used, say = [0.0], Told()
    for budget, looks in (("1s", 4), (None, 25), (None, 1)):  # while steps are timed; in the timed validation; after
        stop = StopAfter(looks)
        with pytest.raises(TrainingStoppedError):
            train(balls, tmp_path / "run", steps=None, budget=budget, resume=budget is None, stop=stop, progress=say)
        state = last_state(tmp_path / "run")
        used.append(state.seconds)
        assert len(state.step_seconds) == state.step
    assert used == sorted(set(used))
    assert state.total == state.step == 30  # those that are timed are made, whatever the budget
    told = [line for line in say.lines if "budget" in line]
    assert len(told) == 1
    assert re.match(r"the budget of 1 s is used up: about \d+ s are needed for the 30 steps", told[0])
    run = train(balls, tmp_path / "run", steps=None, resume=True)
    assert run.seconds > used[-1]
    again = train(balls, tmp_path / "again", steps=run.steps)
    assert sha256_of(run.folder / "model.safetensors") == sha256_of(again.folder / "model.safetensors")


class Told(Lines):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def marks(run: Path) -> list[Path]:
    return sorted((run / "state").glob("checkpoint_*.json"))


def last_state(run: Path) -> State:
    return State.load(marks(run)[-1].with_suffix(".pt"))


@pytest.fixture
def stopped(balls: Path, tmp_path: Path) -> Path:
    """A run folder whose training was stopped at step 12."""
    with pytest.raises(TrainingStoppedError):
        train(balls, tmp_path / "stopped", stop=StopAfter(11))
    assert [json.loads(mark.read_text())["step"] for mark in marks(tmp_path / "stopped")] == [11, 12]
    return tmp_path / "stopped"


def test_what_differs_is_named_and_nothing_is_changed(stopped: Path, balls: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    other = shutil.copytree(balls, tmp_path / "other")
    write_case(other, "ball_3", *draw_ball(33))
    slower = override(EVERY_STEP, "training", learning_rate=1e-3)
    for choices, named in (
        ({"settings": slower}, r"the setting training\.learning_rate is 0\.001, was not set"),
        ({"seed": 1}, r"seed is 1, was 0"),
        ({"threads": 2}, r"threads is 2, was 1"),
        ({"steps": 25}, "the length is 25 steps, was 24 steps"),
        ({"labels": "ball=1"}, "the labels are ball=1, were label_1=1"),
        ({"dataset": other}, r"files of ball_3 have changed: the SHA-256 of one is [0-9a-f]{12}…, was [0-9a-f]{12}…"),
        ({"leave_out": ["ball_0"]}, r"ball_0 is left out, was used for (training|validation)"),
    ):
        with pytest.raises(TrainingError, match=named) as caught:
            train(**{"data": balls if "dataset" not in choices else other, "folder": stopped, "resume": True}
                  | {key: value for key, value in choices.items() if key != "dataset"})  # fmt: skip
        assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_other_first_weights_are_refused(stopped: Path, balls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Start.network

    def other(*arguments: Any, **choices: Any) -> Any:
        torch.manual_seed(99)
        return original(*arguments, **choices)

    monkeypatch.setattr(Start, "network", other)
    with pytest.raises(TrainingError, match=r"the hash of the first weights is [0-9a-f]{12}…, was [0-9a-f]{12}…"):
        train(balls, stopped, resume=True)
    assert len(marks(stopped)) == 2


def truncate(mark: Path) -> None:
    tensors = mark.with_suffix(".pt")
    tensors.write_bytes(tensors.read_bytes()[:-500])


def flip(mark: Path) -> None:
    tensors = mark.with_suffix(".pt")
    content = bytearray(tensors.read_bytes())
    content[len(content) // 2] ^= 1
    tensors.write_bytes(content)


def empty(mark: Path) -> None:
    mark.write_bytes(b"")


def lose(mark: Path) -> None:
    mark.with_suffix(".pt").unlink()


def other_format(mark: Path) -> None:
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"format": 99}))


def replace_tensors(mark: Path, content: bytes) -> None:
    """Put other bytes in a checkpoint's place, with their own hash."""
    mark.with_suffix(".pt").write_bytes(content)
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"sha256": sha256_of(mark.with_suffix(".pt"))}))


def put_other_keys(mark: Path) -> None:
    torch.save({"step": 12}, mark.with_suffix(".pt"))
    replace_tensors(mark, mark.with_suffix(".pt").read_bytes())


class Payload:
    """What an attacker would like to run."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch payload_ran",)


def put_code(mark: Path) -> None:
    torch.save({"step": Payload()}, mark.with_suffix(".pt"))
    replace_tensors(mark, mark.with_suffix(".pt").read_bytes())


def put_plain_pickle(mark: Path) -> None:
    replace_tensors(mark, pickle.dumps(Payload()))


DAMAGES = [truncate, flip, empty, lose, other_format, put_other_keys, put_code, put_plain_pickle]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_taken(
    damage: Callable[[Path], None], stopped: Path, balls: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    whole: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    damage(marks(stopped)[-1])
    say = Told()
    run = train(balls, stopped, resume=True, progress=say)
    assert [line for line in say.lines if "cannot be used: " in line and "\n" not in line]
    assert "going on after step 11" in say.lines
    assert_same_run(run.folder, whole)
    assert not (tmp_path / "payload_ran").exists()


@pytest.mark.parametrize("damage", [truncate, put_code], ids=lambda damage: damage.__name__)
def test_two_damaged_checkpoints_are_an_error_in_one_line_and_stay(
    damage: Callable[[Path], None], stopped: Path, balls: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for mark in marks(stopped):
        damage(mark)
    with pytest.raises(TrainingError, match=r"none of its 2 checkpoints can be used.*overwrite=True") as caught:
        train(balls, stopped, resume=True)
    assert "\n" not in str(caught.value)
    assert len(marks(stopped)) == 2
    assert not (tmp_path / "payload_ran").exists()


def test_a_broken_identity_is_an_error_in_one_line(stopped: Path, balls: Path) -> None:
    (stopped / "state" / "training.json").write_text("{")
    with pytest.raises(TrainingError, match=r"cannot be resumed: training\.json: "):
        train(balls, stopped, resume=True)


def test_a_finished_run_is_left_as_it_is(balls: Path, whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "run")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}
    say = Told()
    run = train(balls, folder, resume=True, progress=say)
    assert "is finished" in say.lines[-1]
    assert run.steps == 24
    assert run.validation.rows
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}
    assert after == before
    (folder / "state").mkdir()  # killed before the slices of patients were removed
    train(balls, folder, resume=True)
    assert not (folder / "state").exists()


def test_a_finished_run_is_not_passed_off_as_another_training(whole: Path, balls: Path) -> None:
    one = balls.parent / "groups_of_one.csv"
    one.write_text("id,group\n" + "".join(f"{path.name[:-7]},all\n" for path in (balls / "images").iterdir()))
    first = sorted((balls / "images").iterdir())[0].name[:-7]
    for choices, named in (
        ({"labels": "ball=1"}, "the labels are ball=1, were label_1=1"),
        (
            {"settings": override(EVERY_STEP, "training", epoch_steps=20)},
            r"the setting training\.epoch_steps is 20, was 10",
        ),
        ({"steps": 25}, "the length is 25 steps, was 24 steps"),
        (
            {"steps": None, "budget": "5m"},
            "the length is a budget of 5 min 0 s, was 24 steps",
        ),
        ({"seed": 1}, "seed is 1, was 0"),
        ({"leave_out": [first]}, f"the patient of {first} is absent, was {first}"),
        ({"groups": one}, f"the patient of {first} is all, was {first}"),
    ):
        with pytest.raises(TrainingError, match=f"cannot be resumed as something else: .*{named}"):
            train(balls, whole, resume=True, **choices)
    assert train(balls, whole, resume=True, steps=None, threads=None).steps == 24
    assert train(balls, whole, resume=True, labels=LabelMap.from_names({1: "label_1"})).steps == 24


def test_nothing_to_resume_is_said_in_one_line(balls: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    for folder in (tmp_path / "nowhere", tmp_path / "other"):
        with pytest.raises(MissingFileError, match="contains no stopped training"):
            train(balls, folder, resume=True)
    assert not (tmp_path / "nowhere").exists()
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["notes.txt"]
    with pytest.raises(SettingsError, match="resume and overwrite"):
        train(balls, tmp_path / "nowhere", resume=True, overwrite=True)


def test_a_stopped_training_is_named_when_it_is_in_the_way(stopped: Path, balls: Path, whole: Path) -> None:
    with pytest.raises(OutputExistsError, match=r"contains a stopped training; continue it \(resume"):
        train(balls, stopped)
    run = train(balls, stopped, overwrite=True)
    assert_same_run(run.folder, whole)


def test_one_that_was_killed_before_its_first_checkpoint_starts_over(
    balls: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(self: Trainer, total: int | None) -> None:
        raise Killed

    def keep(folder: Path) -> None:
        pass

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", killed)
        patched.setattr("medfcn.training.training.clear", keep)
        with pytest.raises(Killed):
            train(balls, tmp_path / "run")
    (tmp_path / "run" / ".log.csv.0123456789ab.part").touch()
    with pytest.raises(TrainingError, match="the length is 25 steps, was 24 steps"):
        train(balls, tmp_path / "run", resume=True, steps=25)
    say = Told()
    run = train(balls, tmp_path / "run", resume=True, progress=say)
    assert any("before its first checkpoint" in line for line in say.lines)
    assert_same_run(run.folder, whole)


def test_one_that_was_killed_while_slices_were_prepared_keeps_its_length(
    balls: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("medfcn.training.training.prepare", lambda *_, **__: pytest.exit("killed"))
        patched.setattr("medfcn.training.training.clear", lambda folder: None)
        with pytest.raises(pytest.exit.Exception):
            train(balls, tmp_path / "run")
    with pytest.raises(TrainingError, match="the length is 25 steps, was 24 steps"):
        train(balls, tmp_path / "run", resume=True, steps=25)
    run = train(balls, tmp_path / "run", resume=True, steps=None)
    assert run.steps == 24
    assert_same_run(run.folder, whole)


def test_an_error_before_the_first_checkpoint_leaves_nothing(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Trainer, total: int | None) -> None:
        raise TrainingError("no")

    monkeypatch.setattr(Trainer, "_step", fail)
    with pytest.raises(TrainingError):
        train(balls, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_of_two_jobs_on_one_folder_the_second_is_told_who_holds_it(balls: Path, tmp_path: Path, whole: Path) -> None:
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
from pathlib import Path
from medfcn.progress import Silent
from medfcn.runs.lock import locked
with locked(Path({str(tmp_path / "run")!r}), Silent()):
    print("held", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"held\n"
            for choices in ({}, {"overwrite": True}, {"resume": True}):
                with pytest.raises(TrainingError, match=rf"process {child.pid} on .*, since 20.*, is at work"):
                    train(balls, tmp_path / "run", **choices)
        finally:
            child.kill()
    assert (tmp_path / "run" / RunFolder.lock).is_file()
    run = train(balls, tmp_path / "run", resume=True)  # the lock ended with its process
    assert_same_run(run.folder, whole)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_leaves_and_says_how_to_go_on(
    number: int, status: int, balls: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "run.toml"
    config.write_text("[training]\nepoch_steps = 10\ncheckpoint_seconds = 3600.0\n")
    command = ["train", balls, "-o", tmp_path / "run", "--steps", 24, "--device", "cpu", "--config", config]
    command = [str(word) for word in (*command, "--threads", 1)]
    original = Trainer._step

    def step(self: Trainer, total: int | None) -> None:
        original(self, total)
        if self.step == 9:
            os.kill(os.getpid(), number)

    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", step)
        result = CliRunner().invoke(main, command)
    assert result.exit_code == status
    assert result.stderr.splitlines()[-1] == (
        "medfcn: stopped after step 9 of 24, which is saved; go on with the same command and --resume"
    )
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before
    result = CliRunner().invoke(main, [*command, "--resume"])
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "run" / "report.html").is_file()
    again = CliRunner().invoke(main, [*command, "--resume"])
    assert again.exit_code == 0, again.stderr
    assert "is finished" in again.stderr
    assert_same_run(tmp_path / "run", whole)


def test_a_signal_before_the_first_step_leaves_what_can_be_resumed(
    balls: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def terminated(*arguments: Any, **choices: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    with monkeypatch.context() as patched, stop_on_signals() as stop:
        patched.setattr("medfcn.training.train.survey", terminated)
        with pytest.raises(TrainingStoppedError, match="go on with the same call and resume=True") as caught:
            train(balls, tmp_path / "run", stop=stop)
    assert caught.value.signal_number == signal.SIGTERM
    say = Told()
    assert_same_run(train(balls, tmp_path / "run", resume=True, progress=say).folder, whole)
    assert any(line.endswith("before anything was recorded; it starts over, 24 steps long") for line in say.lines)


def test_a_training_of_lesions_that_was_stopped_at_one_view_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As medfcn planned lesions before: one view in thick slices."""
    rows, columns, slices = np.ogrid[-22:22, -22:22, -12:12]
    distance = np.sqrt(rows**2 + columns**2 + (1.5 * slices) ** 2)
    for number, radius in enumerate((5, 13, 14, 16, 16, 17)):
        mask = (distance < radius).astype(np.uint8)
        write_case(tmp_path / "data", f"case_{number}", (100 + 80 * mask + number).astype(np.int16), mask)
    with monkeypatch.context() as earlier:
        earlier.setattr("medfcn.slices.views._suits_all_views", lambda cases: False)
        whole = train(tmp_path / "data", tmp_path / "whole", steps=4)
        with pytest.raises(TrainingStoppedError):
            train(tmp_path / "data", tmp_path / "run", steps=4, stop=StopAfter(2))
    train(tmp_path / "data", tmp_path / "run", steps=4, resume=True)
    card, of_whole = (card_without_times(folder) for folder in (tmp_path / "run", whole.folder))
    assert card["plan"].pop("reasons")["views"] == "as set"
    of_whole["plan"].pop("reasons")
    assert card == of_whole
    assert (card["plan"]["views"], card["plan"]["movement"]) == (["axial"], "small")
    train(tmp_path / "data", tmp_path / "now", steps=1)
    assert len(card_without_times(tmp_path / "now")["plan"]["views"]) == 3


class AskedAtTheEnd(Told):
    """Asks to stop while the last validation is reported, after which no step is made."""

    def __init__(self, stop: Stop) -> None:
        super().__init__()
        self.stop = stop

    def say(self, message: str) -> None:
        super().say(message)
        if message.startswith("step 4 of 4:"):
            self.stop.ask()


def test_a_stop_during_the_last_validation_is_not_lost(balls: Path, tmp_path: Path) -> None:
    stop = Stop()
    with pytest.raises(TrainingStoppedError, match="stopped after step 4 of 4, which is saved; go on with the same"):
        train(balls, tmp_path / "run", steps=4, stop=stop, progress=AskedAtTheEnd(stop))
    assert not (tmp_path / "run" / "model.json").exists()
    train(balls, tmp_path / "run", steps=4, resume=True)
    train(balls, tmp_path / "whole", steps=4)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
