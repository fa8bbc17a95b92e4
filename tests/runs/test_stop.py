"""Requests to stop."""

import signal
import threading
from typing import Any

from medfcn.runs.stop import stop_on_signals


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
