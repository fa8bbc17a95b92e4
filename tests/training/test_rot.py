"""What rotted or was changed since a training stopped is made anew, or refused in one line."""

import dataclasses
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medfcn.errors import MedfcnError, TrainingError, TrainingStoppedError
from medfcn.files import sha256_of
from medfcn.runs.checkpoints import Checkpoints
from medfcn.training.differences import differences
from medfcn.training.finished import recorded_of
from medfcn.training.state import State
from tests.training.states import state_at
from tests.training.test_resume import StopAfter, Told, assert_same_run, last_state, marks, replace_tensors, train

STEPS = 4


@pytest.fixture(scope="module")
def short(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that nothing interrupted, and one that was stopped at step 2."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("short")
    train(balls, folder / "whole", steps=STEPS, report=False)
    with pytest.raises(TrainingStoppedError):
        train(balls, folder / "stopped", steps=STEPS, report=False, stop=StopAfter(1))
    assert [json.loads(mark.read_text())["step"] for mark in marks(folder / "stopped")] == [1, 2]
    return folder / "whole", folder / "stopped"


def first_of(run: Path, ending: str) -> Path:
    return sorted((run / "state").glob(f"*{ending}"))[0]


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def swap(path: Path) -> None:
    """Another case's."""
    path.write_bytes(sorted(path.parent.glob("*.images.npy"))[-1].read_bytes())


@pytest.mark.parametrize(
    ("ending", "damage"),
    [(".images.npy", cut), (".images.npy", swap), (".labels.npy", zeros), (".labels.npy", empty)],
    ids=["cut", "swapped", "zeros", "empty"],
)
def test_damaged_slices_are_prepared_anew_with_a_note(
    ending: str, damage: Callable[[Path], None], short: tuple[Path, Path], balls: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(short[1], tmp_path / "run")
    damage(first_of(run, ending))
    say = Told()
    train(balls, run, steps=STEPS, report=False, resume=True, progress=say)
    notes = [line for line in say.lines if "prepared slices are damaged" in line]
    assert len(notes) == 1
    assert notes[0].startswith("ball_")
    assert notes[0].endswith("; they are prepared anew")
    assert_same_run(run, short[0])


def test_facts_about_slices_that_are_gone_or_wrong_are_made_anew(
    short: tuple[Path, Path], balls: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(short[1], tmp_path / "run")
    names = json.loads((run / "state" / "ceilings.json").read_text())
    (run / "state" / "ceilings.json").write_text(json.dumps(dict.fromkeys(names, 7.0)))
    (run / "state" / "monai.json").write_text("[1]")
    train(balls, run, steps=STEPS, report=False, resume=True)
    assert_same_run(run, short[0])


def with_value(mark: Path, **changed: Any) -> None:
    """Put other values into a checkpoint, with its own hash."""
    content = mark.with_suffix(".pt")
    value = torch.load(content, weights_only=True)
    torch.save({**value, **changed}, content)
    replace_tensors(mark, content.read_bytes())


FORGED: list[dict[str, Any]] = [
    {"step": 5},
    {"step": -1},
    {"step": 10**30},
    {"step": True},
    {"total": 3},
    {"total": 10**9},
    {"total": 0},
    {"total": -4},
    {"updates": 10**6},
    {"updates": -1},
    {"best_dice": math.nan},
    {"best_dice": 2.0},
    {"best_step": 3},
    {"best_step": -3},
    {"losses": [math.nan]},
    {"losses": ["1"]},
    {"step_seconds": [-1.0]},
    {"step_seconds": [math.inf]},
    {"step_seconds": [0.1] * 40},
    {"total": None, "step_seconds": []},
    {"rows": [1]},
    {"rows": [("=1+1",)]},
    {"rows": [(math.inf,)]},
    {"changes": [(0, 9)]},
    {"changes": [(3, 4), (1, 2)]},
    {"changes": [1]},
    {"costs": [math.nan, 1.0]},
    {"costs": [1.0]},
    {"micro_batch": 0},
    {"micro_batch": -2},
    {"micro_batch": 10**6},
    {"seconds": math.nan},
    {"seconds": -1e9},
    {"seconds": 1e300},
    {"cpu_seconds": math.inf},
    {"supervised": {}},
    {"supervised": {"a": 1}},
    {"averaged": {1: torch.zeros(1)}},
    {"best": {"a": torch.zeros(1)}},
    {"optimiser": {}},
    {"optimiser": {"state": []}},
    {"optimiser": {"state": {}, "param_groups": []}},
    {"optimiser": {"state": {99: {}}, "param_groups": []}},
    {"optimiser": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": []}},
    {"optimiser": {"state": {0: 1}, "param_groups": []}},
]


@pytest.mark.parametrize("changed", FORGED, ids=lambda changed: f"{next(iter(changed))}")
def test_a_checkpoint_with_a_value_that_no_training_has_is_passed_over(
    changed: dict[str, Any], short: tuple[Path, Path], balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(short[1], tmp_path / "run")
    for mark in marks(run):
        with_value(mark, **changed)
    with pytest.raises(TrainingError, match="none of its 2 checkpoints can be used") as caught:
        train(balls, run, steps=STEPS, report=False, resume=True)
    assert caught.value.code == "CHECKPOINT_BROKEN"
    assert len(marks(run)) == 2


def test_the_checkpoint_before_a_forged_one_is_taken_whole(
    short: tuple[Path, Path], balls: Path, tmp_path: Path
) -> None:
    """Even one that is found out late, when the network has its weights already."""
    run = shutil.copytree(short[1], tmp_path / "run")
    optimiser = last_state(run).optimiser
    moments = {number: dict(of_one) for number, of_one in optimiser["state"].items()}
    moments[0]["exp_avg_sq"] = -moments[0]["exp_avg_sq"] - 1
    with_value(marks(run)[-1], optimiser={**optimiser, "state": moments})
    say = Told()
    train(balls, run, steps=STEPS, report=False, resume=True, progress=say)
    assert any("cannot be used: " in line for line in say.lines)
    assert "going on after step 1" in say.lines
    assert_same_run(run, short[0])


def test_rates_are_those_of_the_settings_and_not_of_the_checkpoint(
    short: tuple[Path, Path], balls: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(short[1], tmp_path / "run")
    optimiser = last_state(run).optimiser
    groups = [group | {"betas": (math.nan, 7.0), "weight_decay": 1e30} for group in optimiser["param_groups"]]
    with_value(marks(run)[-1], optimiser={**optimiser, "param_groups": groups})
    train(balls, run, steps=STEPS, report=False, resume=True)
    assert_same_run(run, short[0])


def test_weights_that_are_not_numbers_are_no_state(tmp_path: Path) -> None:
    good = state_at(3)
    for name in ("supervised", "averaged", "best"):
        for value in (math.nan, math.inf):
            bad = dataclasses.replace(good, **{name: {"weight": torch.full((2,), value)}})
            Checkpoints(tmp_path, "key", every_seconds=0).write(3, bad.save)
            with pytest.raises(ValueError, match=f"{name} has a value that no training has"):
                State.load(sorted(tmp_path.glob("*.pt"))[-1])


def test_a_checkpoint_that_says_only_when_its_batch_was_halved_last_is_read(tmp_path: Path) -> None:
    """Checkpoints of earlier versions have the step, those before them not even that."""
    good = state_at(3)
    Checkpoints(tmp_path, "key", every_seconds=0).write(3, good.save)
    path = sorted(tmp_path.glob("*.pt"))[-1]
    kept = torch.load(path, weights_only=True)
    del kept["parts"]
    for older, since in ((kept | {"halved_at": 2}, 2), (kept, 0)):
        torch.save(older, path)
        assert State.load(path).parts == [(since, good.micro_batch)]


IDENTITIES: list[tuple[str, Any]] = [
    ("threads", 10**9),
    ("threads", -1),
    ("threads", "2"),
    ("length", {"steps": -1}),
    ("length", {"steps": 10**30}),
    ("length", {"steps": 2.5}),
    ("length", {"budget_seconds": -1.0}),
    ("length", []),
    ("versions", []),
    ("plan", []),
    ("plan", {"intensities": 5}),
    ("transforms", 5),
    ("transforms", [{"name": 1}]),
    *(("labels", value) for value in (None, "a=1", [], {"entries": [5]}, {"entries": [{"name": "a", "values": {}}]})),
    *(("training", value) for value in (None, "x", [], {"case": "sha"}, {"case": [1]})),
    ("validation", 5),
]


@pytest.mark.parametrize(("name", "value"), IDENTITIES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(IDENTITIES)])
def test_an_identity_with_a_value_that_none_has_is_refused_in_one_line(
    name: str, value: Any, short: tuple[Path, Path], balls: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(short[1], tmp_path / "run")
    path = run / "state" / "training.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    before = sha256_of(path)
    with pytest.raises(MedfcnError, match=r"cannot be resumed: training\.json: ") as caught:
        train(balls, run, steps=None, threads=None, report=False, resume=True)
    assert "\n" not in str(caught.value)
    assert sha256_of(path) == before


class CutDuring(StopAfter):
    """Stops nothing, but cuts every prepared file of a kind off after some steps."""

    def __init__(self, looks: int, run: Path, ending: str) -> None:
        self.run, self.ending = run, ending
        super().__init__(looks)

    @property
    def is_asked(self) -> bool:
        if super().is_asked:
            for path in (self.run / "state").glob(f"*{self.ending}"):
                os.truncate(path, 64)
        return False

    @is_asked.setter
    def is_asked(self, value: bool) -> None:
        pass


@pytest.mark.parametrize("ending", [".images.npy", ".labels.npy", ".image.npy", ".mask.npy"])
def test_slices_that_are_cut_while_a_training_runs_are_one_line(ending: str, balls: Path, tmp_path: Path) -> None:
    """A memory map that reaches beyond the end of its file ends the process without a word."""
    run = tmp_path / "run"
    with pytest.raises(
        MedfcnError, match=r"^ball_\d: its prepared slices were cut off while they were in use: .* 64 of "
    ):
        train(balls, run, steps=STEPS, report=False, stop=CutDuring(1, run, ending))


@pytest.mark.parametrize(
    "content",
    [b"", b"case,use\n", b"\0" * 99, b"case\n\xe9\n", b'case\n"' + b"x" * 200_000, b"step\n1\n", b"[" * 200_000],
    ids=["empty", "heading", "zeros", "latin-1", "long field", "no case", "deep"],
)
def test_a_damaged_list_of_cases_is_no_other_error_and_no_endless_one(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_bytes(content)
    if content == b"case,use\n":
        assert recorded_of(tmp_path, "group") == {}
    else:
        with pytest.raises(TrainingError, match=r"cases\.csv: .*; copy the run again, or take another -o"):
            recorded_of(tmp_path, "group")
    # Nothing, beside cases that are asked for: the difference is told.
    changes = differences({"cases": {}}, {"cases": {"a": "P1"}})
    assert changes
    assert "none" in str(changes) or "absent" in str(changes)
