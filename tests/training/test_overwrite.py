"""A run that is to be replaced is there until the new one is complete."""

from pathlib import Path
from typing import Any

import pytest

from medfcn.errors import DatasetError, TrainingStoppedError
from medfcn.runs.folder import RunFolder
from medfcn.training import training
from tests.training.test_resume import StopAfter, Told, train


def weights(run: Path) -> bytes:
    return RunFolder(run).weights.read_bytes()


@pytest.fixture
def old(balls: Path, tmp_path: Path) -> Path:
    run = tmp_path / "run"
    train(balls, run, steps=2, report=False)
    return run


def test_a_training_that_fails_before_its_first_checkpoint_leaves_the_old_run(
    old: Path, balls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}

    def fails(*arguments: Any, **choices: Any) -> None:
        assert not RunFolder(old).is_finished
        raise DatasetError("a file is gone")

    monkeypatch.setattr(training, "prepare", fails)
    with pytest.raises(DatasetError):
        train(balls, old, steps=3, report=False, overwrite=True)
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before


def test_a_stopped_training_keeps_the_old_run_until_it_is_resumed_to_its_end(old: Path, balls: Path) -> None:
    before, say = weights(old), Told()
    aside = RunFolder(old).replaced
    with pytest.raises(TrainingStoppedError):
        train(balls, old, steps=3, report=False, overwrite=True, stop=StopAfter(1), progress=say)
    assert weights(aside) == before
    assert [line for line in say.lines if line.startswith("the run that was here is kept in ")]
    # A second attempt replaces the first, not the run that is whole.
    with pytest.raises(TrainingStoppedError):
        train(balls, old, steps=3, report=False, overwrite=True, stop=StopAfter(1))
    assert weights(aside) == before
    train(balls, old, steps=3, report=False, resume=True)
    assert weights(old) != before
    assert not aside.exists()
