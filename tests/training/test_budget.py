"""A budget is a limit: on a clock that tests set, whatever the machine does, and to the bit when it is repeated."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import medfcn
from medfcn.cli import main
from medfcn.config import override
from medfcn.errors import SettingsError, TrainingError, TrainingStoppedError
from medfcn.files import sha256_of
from medfcn.progress import Lines
from medfcn.runs.stop import Stop
from medfcn.settings import Settings
from medfcn.training.budget import Costs, Watch
from medfcn.training.fold_steps import Agreement
from medfcn.training.run import Run
from medfcn.training.schedule import Schedule
from medfcn.training.trainer import Trainer

SETTINGS = override(
    override(Settings(), "network", widths=(4, 8)),
    "training",
    batch_size=2,
    epoch_steps=10,
    checkpoint_seconds=3600.0,
)
WEIGHTS = "model.safetensors"
VALIDATION_SECONDS, END_SECONDS = 1.0, 4.0

Pace = Callable[[str, int], float]
"""Seconds of a step: of a fold (empty without), and the number of steps before it."""


class Clock:
    """A clock on which nothing but steps, validations and the end of a training takes time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pace: Pace = lambda fold, step: 0.1
        self.stop_at: tuple[str, int] | None = None
        self.stop = Stop()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("time.monotonic", lambda: found.now)
    monkeypatch.setattr("medfcn.training.trainer.case_seconds", lambda *_: 0.05)
    step, validate, work = Trainer._step, Trainer._validate, medfcn.training.training.write_run

    def timed_step(trainer: Trainer, schedule: Schedule | None) -> None:
        fold = trainer.prepared.split.fold[:1]
        found.now += found.pace(fold, trainer.step)
        step(trainer, schedule)
        if found.stop_at == (fold, trainer.step):
            found.stop.ask()

    def timed_validate(trainer: Trainer, cases: Any) -> Any:
        found.now += VALIDATION_SECONDS * len(cases) / len(trainer.prepared.validation)
        return validate(trainer, cases)

    def timed_write(*arguments: Any) -> Any:
        found.now += END_SECONDS
        return work(*arguments)

    monkeypatch.setattr(Trainer, "_step", timed_step)
    monkeypatch.setattr(Trainer, "_validate", timed_validate)
    monkeypatch.setattr("medfcn.training.training.write_run", timed_write)
    return found


class Told(Lines):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)

    def with_words(self, words: str) -> list[str]:
        return [line for line in self.lines if words in line]


def train(data: Path, folder: Path, **choices: Any) -> Run:
    return medfcn.train(
        data, folder, **{"settings": SETTINGS, "device": "cpu", "threads": 1, "report": False} | choices
    )


def facts(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "model.json").read_text())["training"]
    return found


def schedules(run: Path, count: int) -> list[str]:
    """The steps of every fold, as `--steps` repeats them."""
    each = [facts(run / f"fold_{number}") for number in range(1, count + 1)]
    return [str(one.get("schedule", one["steps"])) for one in each]


def test_a_machine_that_keeps_its_pace_shortens_nothing(balls: Path, tmp_path: Path, clock: Clock) -> None:
    began = clock.now
    run = train(balls, tmp_path / "run", budget="20s")
    assert 16 < clock.now - began <= 20
    assert "schedule" not in facts(run.folder)
    assert run.schedule == str(run.steps)
    began = clock.now
    assert train(balls, tmp_path / "late", budget="14s", started=began - 4.0).steps < run.steps
    assert clock.now - began <= 10  # what a script did before is part of its budget


def test_half_the_pace_shortens_in_time_and_is_repeated_bit_for_bit(
    balls: Path, tmp_path: Path, clock: Clock
) -> None:
    say, began = Told(), clock.now
    clock.pace = lambda fold, step: 0.1 if step < 70 else 0.2
    run = train(balls, tmp_path / "run", budget="20s", progress=say)
    assert 16 < clock.now - began <= 20
    changes = Schedule.parse(run.schedule).changes
    assert changes[0][0] == 0
    assert 70 < changes[1][0] < run.steps < changes[0][1]
    assert len(changes) < 8
    assert facts(run.folder)["schedule"] == run.schedule
    told = say.with_words("slower than measured")
    assert told[-1].endswith(f"repeat with steps={run.schedule!r} threads=1")
    with (run.folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert int(rows[-1]["step"]) == run.steps
    assert float(rows[-1]["learning_rate"]) < 5e-5
    assert rows[-1]["validation_dice"]
    again = train(balls, tmp_path / "again", steps=run.schedule)
    assert sha256_of(again.folder / WEIGHTS) == sha256_of(run.folder / WEIGHTS)
    assert facts(again.folder)["schedule"] == run.schedule
    plain = train(balls, tmp_path / "plain", steps=run.steps)
    assert sha256_of(plain.folder / WEIGHTS) != sha256_of(run.folder / WEIGHTS)
    assert train(balls, again.folder, steps=run.schedule, resume=True).steps == run.steps
    with pytest.raises(TrainingError, match=r"the length is \d+ steps, was [\d,@]+ steps"):
        train(balls, again.folder, steps=run.steps, resume=True)


def test_a_training_that_was_shortened_and_stopped_ends_as_without_the_stop(
    balls: Path, tmp_path: Path, clock: Clock
) -> None:
    clock.pace = lambda fold, step: 0.1 if step < 70 else 0.2
    whole = train(balls, tmp_path / "whole", budget="20s")
    last, _ = Schedule.parse(whole.schedule).changes[-1]
    clock.stop_at = "", last + 1
    with pytest.raises(TrainingStoppedError, match=f"after step {last + 1} of {whole.steps}"):
        train(balls, tmp_path / "run", budget="20s", stop=clock.stop)
    run = train(balls, tmp_path / "run", resume=True)
    assert run.schedule == whole.schedule
    assert sha256_of(run.folder / WEIGHTS) == sha256_of(whole.folder / WEIGHTS)


def test_a_warm_up_below_the_measured_steps_is_repeated_too(balls: Path, tmp_path: Path, clock: Clock) -> None:
    settings = override(SETTINGS, "training", warmup_steps=10)
    run = train(balls, tmp_path / "run", budget="8s", settings=settings)
    assert run.schedule == f"{run.steps}@30"
    again = train(balls, tmp_path / "again", steps=run.schedule, settings=settings)
    assert sha256_of(again.folder / WEIGHTS) == sha256_of(run.folder / WEIGHTS)


def test_folds_of_one_budget_have_the_same_steps_whatever_pace_each_meets(
    balls: Path, tmp_path: Path, clock: Clock
) -> None:
    say, began, paces = Told(), clock.now, {"1": 0.5, "2": 0.1, "3": 0.3}
    clock.pace = lambda fold, step: paces[fold]
    run = train(balls, tmp_path / "run", budget="60s", folds=3, progress=say)
    assert 40 < clock.now - began <= 60
    assert len(set(schedules(run.folder, 3))) == 1
    steps = facts(run.folder / "fold_1")["steps"]
    assert steps > 30
    assert run.steps == 3 * steps
    assert run.schedule == str(steps)
    assert say.with_words(f"{steps} steps in each of 3 folds fit the budget: 300 ms a step")
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "fold_1", "fold_2", "fold_3", "options.json", "steps.json", "validation",
    ]  # fmt: skip
    recorded = sum(facts(run.folder / f"fold_{number}")["seconds"] for number in (1, 2, 3))
    assert recorded == pytest.approx(clock.now - began - 3 * END_SECONDS, abs=0.5)
    again = train(balls, tmp_path / "again", steps=steps, folds=3)
    for number in (1, 2, 3):
        name = f"fold_{number}/{WEIGHTS}"
        assert sha256_of(run.folder / name) == sha256_of(again.folder / name)


def test_folds_are_shortened_alike_when_the_machine_slows_down(balls: Path, tmp_path: Path, clock: Clock) -> None:
    say, began = Told(), clock.now
    clock.pace = lambda fold, step: 0.2 if clock.now - began < 25 else 0.4
    run = train(balls, tmp_path / "run", budget="60s", folds=3, progress=say)
    assert 40 < clock.now - began <= 60
    (text,) = set(schedules(run.folder, 3))
    assert "@" in text
    assert say.with_words("shortened from")[-1].endswith(
        f"steps in each of 3 folds; repeat with steps={text!r} threads=1"
    )
    again = train(balls, tmp_path / "again", steps=text, folds=3)
    for number in (1, 2, 3):
        name = f"fold_{number}/{WEIGHTS}"
        assert sha256_of(run.folder / name) == sha256_of(again.folder / name)


def test_folds_that_were_stopped_go_on_with_their_common_steps(balls: Path, tmp_path: Path, clock: Clock) -> None:
    whole = train(balls, tmp_path / "whole", budget="24s", folds=2)
    steps, began = int(whole.schedule), clock.now
    for stop_at in (("2", 17), ("1", steps - 3), ("2", steps - 1)):
        clock.stop_at, clock.stop = stop_at, Stop()
        budget = "24s" if stop_at[1] == 17 else None
        with pytest.raises(TrainingStoppedError, match=f"after step {stop_at[1]}"):
            train(balls, tmp_path / "run", budget=budget, folds=2, resume=budget is None, stop=clock.stop)
    run = train(balls, tmp_path / "run", folds=2, resume=True)
    assert clock.now - began <= 24
    assert schedules(run.folder, 2) == [str(steps)] * 2
    for number in (1, 2):
        name = f"fold_{number}/{WEIGHTS}"
        assert sha256_of(run.folder / name) == sha256_of(whole.folder / name)


def test_a_fold_that_is_slow_at_the_very_end_is_shortened_alone_and_the_scores_say_so(
    balls: Path, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medfcn.training.interleaved_folds._LEFT_IN_LAP", 1.0)  # one lap after the measured steps
    clock.pace = lambda fold, step: 0.2
    total, began = train(balls, tmp_path / "before", budget="60s", folds=3).steps // 3, clock.now
    clock.pace = lambda fold, step: 2.0 if fold == "2" and step > total - 10 else 0.2
    run = train(balls, tmp_path / "run", budget="60s", folds=3)
    assert clock.now - began <= 60
    each = [facts(run.folder / f"fold_{number}")["steps"] for number in (1, 2, 3)]
    assert each[1] < each[0] == total
    notes = json.loads((run.folder / "validation" / "summary.json").read_text())["notes"]
    assert any(f"do not have the same number of steps: fold_1 {each[0]}, fold_2 {each[1]}" in note for note in notes)


def test_few_steps_are_measured_where_many_would_take_the_budget(balls: Path, tmp_path: Path, clock: Clock) -> None:
    began = clock.now
    clock.pace = lambda fold, step: 0.8
    run = train(balls, tmp_path / "run", budget="60s", folds=3)
    assert schedules(run.folder, 3) == [str(run.steps // 3)] * 3
    assert 10 <= run.steps // 3 < 30
    assert clock.now - began <= 60


def test_a_fold_takes_the_number_that_the_first_one_found(balls: Path, tmp_path: Path, clock: Clock) -> None:
    say = Told()
    clock.pace = lambda fold, step: {"1": 0.1, "2": 0.05, "3": 0.3}[fold]
    first = train(balls, tmp_path / "run", budget="20s", fold="1/3", progress=say)
    told = say.with_words("all folds take")
    assert told == [
        f"all folds take {first.steps} steps; those that do not share {tmp_path / 'run'} need steps={first.steps}"
    ]
    second = train(balls, tmp_path / "run", budget="20s", fold="2/3", progress=say)
    assert second.steps == first.steps
    assert ", as another fold found; here " in say.with_words("all folds take")[-1]
    elsewhere = train(balls, tmp_path / "elsewhere", fold="2/3", steps=first.schedule)
    assert sha256_of(elsewhere.folder / WEIGHTS) == sha256_of(second.folder / WEIGHTS)
    began = clock.now
    third = train(balls, tmp_path / "run", budget="20s", fold="3/3", progress=say)
    assert clock.now - began <= 20  # a slower machine: its budget is a limit too
    assert third.steps < first.steps
    with pytest.raises(TrainingError, match="have a budget of 20 s each, this one of 30 s"):
        Agreement(tmp_path / "run", 30.0).look()


def test_a_fold_of_given_steps_fits_beside_one_of_a_budget_that_made_as_many(
    balls: Path, tmp_path: Path, clock: Clock
) -> None:
    first = train(balls, tmp_path / "run", budget="10s", fold="1/2")
    with pytest.raises(TrainingError, match=f"fold_1: .*the length is {first.steps + 1} steps, was a budget of 10 s"):
        train(balls, tmp_path / "run", fold="2/2", steps=first.steps + 1)
    run = train(balls, tmp_path / "run", fold="2/2", steps=first.steps)
    assert (tmp_path / "run" / "validation" / "scores.csv").is_file()
    assert run.steps == first.steps
    assert train(balls, tmp_path / "run", folds=2, steps=first.steps, resume=True).steps == 2 * first.steps


def test_a_number_of_folds_that_are_gone_is_forgotten(balls: Path, tmp_path: Path, clock: Clock) -> None:
    first = train(balls, tmp_path / "run", budget="10s", fold="1/2")
    longer = train(balls, tmp_path / "run", budget="15s", fold="1/2", overwrite=True)
    assert longer.steps > first.steps
    train(balls, tmp_path / "run", steps=2, folds=2, overwrite=True)
    assert not (tmp_path / "run" / "steps.json").exists()
    clock.pace = lambda fold, step: {}[f"no step {step} of fold {fold}"] if step == 3 else 0.1
    with pytest.raises(KeyError, match="no step 3 of fold 1"):
        train(balls, tmp_path / "failed", budget="10s", folds=2)
    assert not (tmp_path / "failed").exists()


def test_a_budget_that_is_too_short_for_the_folds_is_told_before_any_work(balls: Path, tmp_path: Path) -> None:
    words = ("train", balls, "-o", tmp_path / "run", "--folds", 5, "--budget", 8)
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].endswith(
        "budget 8 s: 5 folds have 1.6 s each, less than the end of a training takes (2 s); give a longer budget, or "
        "fewer folds"
    )
    assert not (tmp_path / "run").exists()


def test_a_short_disturbance_long_before_the_end_shortens_nothing() -> None:
    now = 100.0
    watch = Watch(now + 1000, Costs(end_seconds=100.0), [0.1] * 25)
    schedule = Schedule.of(9000)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("time.monotonic", lambda: now)
        assert watch.total(schedule, 30, validations=0) == 9000
        for step in range(30, 2030):
            watch.add(0.1)
            now += 0.1
            if step == 1000:
                watch.add(20.0)
                now += 1.0
            assert watch.total(schedule, step + 1, validations=0) == 9000
        now += 200.0
        assert 5800 < watch.total(schedule, 2030, validations=0) < 7000
        assert watch.total(schedule, 2030, validations=20) == watch.total(schedule, 2030, validations=0)
        now += 10_000
        assert watch.total(schedule, 2030, validations=0) == 2031


def test_steps_are_read_as_they_are_written() -> None:
    for text in ("1", "900", "900@30", "900,650@300", "900@30,650@300,640@600"):
        assert Schedule.parse(text).text == text
    assert Schedule.parse(7) == Schedule.of(7)
    for text in (
        "0",
        "-3",
        "1.5",
        "",
        "900,",
        "900,650",
        "900,950@300",
        "900,650@700",
        "900@950",
        "650@300,900",
        "٣",
    ):
        with pytest.raises(SettingsError, match="expected a number from 1 on"):
            Schedule.parse(text)
