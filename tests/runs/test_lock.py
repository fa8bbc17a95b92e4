"""The lock of a run folder."""

import fcntl
import threading
from pathlib import Path

import pytest

from medfcn.errors import OutputExistsError, TrainingError
from medfcn.progress import Silent
from medfcn.runs.folder import RunFolder
from medfcn.runs.lock import locked


def test_a_lock_leaves_nothing(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "run", Silent()):
        assert (tmp_path / "a" / "run" / RunFolder.lock).is_file()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OutputExistsError, match="is a file"), locked(tmp_path / "file", Silent()):
        pass


def test_a_lock_that_another_removed_meanwhile_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = fcntl.flock, []

    def flock(descriptor: int, operation: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            (tmp_path / "run" / RunFolder.lock).unlink()  # its holder ended between our opening and locking it
        original(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", flock)
    with locked(tmp_path / "run", Silent()):
        assert len(calls) == 2
        assert (tmp_path / "run" / RunFolder.lock).is_file()


def test_a_lock_has_one_holder_at_a_time(tmp_path: Path) -> None:
    inside, most = [0], [0]
    told: list[TrainingError] = []

    def visit() -> None:
        for _ in range(100):
            try:
                with locked(tmp_path / "a" / "run", Silent()):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    inside[0] -= 1
            except TrainingError as error:
                told.append(error)

    threads = [threading.Thread(target=visit) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1
    assert list(tmp_path.rglob(RunFolder.lock)) == []
