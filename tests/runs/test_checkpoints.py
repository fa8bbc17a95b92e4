"""Checkpoints: two are kept, the newest valid one is found, and saving stays cheap."""

from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest

from medfcn.errors import MemoryShortError, TrainingError
from medfcn.progress import Silent
from medfcn.runs.checkpoints import Checkpoints


def save(text: str, file: BinaryIO) -> None:
    file.write(text.encode())


def test_the_last_two_checkpoints_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "key", every_seconds=0)
    for step in range(1, 6):
        checkpoints.write(step, partial(save, f"after {step}"))
    assert len(list(tmp_path.glob("*.json"))) == len(list(tmp_path.glob("*.pt"))) == 2
    assert checkpoints.latest(Path.read_text, Silent()) == "after 5"
    assert Checkpoints(tmp_path / "none", "key", every_seconds=0).latest(Path.read_text, Silent()) is None
    with pytest.raises(TrainingError, match="belongs to another training"):
        Checkpoints(tmp_path, "other", every_seconds=0).latest(Path.read_text, Silent())


def test_a_checkpoint_that_cannot_be_read_is_reported_and_passed_over(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "key", every_seconds=0)
    for step in (1, 2):
        checkpoints.write(step, partial(save, f"after {step}"))
    marks = sorted(tmp_path.glob("*.json"))
    marks[1].write_text('{"format": "one"}')
    assert checkpoints.latest(Path.read_text, Silent()) == "after 1"
    marks[0].with_suffix(".pt").write_text("damaged")
    with pytest.raises(TrainingError, match=r"none of its 2 checkpoints can be used, .*its SHA-256") as raised:
        checkpoints.latest(Path.read_text, Silent())
    assert raised.value.code == "CHECKPOINT_BROKEN"


def test_saving_takes_a_twentieth_of_the_time_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("medfcn.runs.checkpoints.time.monotonic", lambda: clock[0])
    checkpoints = Checkpoints(tmp_path, "key", every_seconds=60)

    def slow(file: BinaryIO) -> None:
        clock[0] += 10
        file.write(b"state")

    assert not checkpoints.is_due
    clock[0] = 60
    assert checkpoints.is_due
    checkpoints.write(1, slow)
    clock[0] += 199
    assert not checkpoints.is_due
    clock[0] += 1
    assert checkpoints.is_due


def test_a_checkpoint_for_which_there_is_no_memory_is_not_called_broken(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "key", every_seconds=0)
    checkpoints.write(1, partial(save, "after 1"))

    def full(path: Path) -> str:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 268435456 bytes")

    with pytest.raises(MemoryShortError, match="256 MB more are needed"):
        checkpoints.latest(full, Silent())
