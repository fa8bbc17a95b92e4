"""Requests to stop."""

import signal
import threading
from typing import Any

import pytest
from click.testing import CliRunner

from medfcn.cli import main
from medfcn.runs.stop import Stop, stop_on_signals


def test_ignored_signals_stay_ignored_and_other_threads_change_none() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_on_signals():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    handlers: list[Any] = []

    def look() -> None:
        with stop_on_signals():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]


def test_a_signal_does_not_hide_the_error_that_ended_a_training() -> None:
    """`torchrun` sends SIGTERM to the processes that are left when one was killed; the reason is theirs to tell."""
    with stop_on_signals() as stop:
        with pytest.raises(RuntimeError, match="the reason"), stop.looking():
            raise RuntimeError("the reason")
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_asked
        assert stop.signal_number == signal.SIGTERM
        with stop.looking():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    with stop_on_signals() as stop:
        with pytest.raises(RuntimeError), stop.looking():
            raise RuntimeError
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_one_request_serves_the_whole_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal outside of the loop ends the process with that signal's status, in `train` as in `predict`."""

    def terminated(*, stop: Stop, **_: Any) -> None:
        assert not stop.is_asked
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("medfcn.verbs.train", terminated)
    result = CliRunner().invoke(main, ["train", "DATA", "-o", "RUN"])
    assert result.exit_code == 128 + signal.SIGTERM
    assert "ended by SIGTERM; no partial files were left behind" in result.stderr
