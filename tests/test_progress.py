"""The lines that tell how far a task is."""

import io

import pytest

from medfcn import progress
from medfcn.progress import Lines


def test_the_time_left_is_told_from_the_third_step_and_without_what_was_loaded_before_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with Lines(stream, every_seconds=0.0).task("prepare", 10) as task:
        for seconds in (100.0, 102.0, 104.0):  # the first one with the start of the processes
            now[0] = seconds
            task.advance()
    assert stream.getvalue().splitlines() == [
        "prepare: 1 of 10",
        "prepare: 2 of 10",
        "prepare: 3 of 10, 14 s left",
    ]
