"""Limits of one call: CPU seconds, and memory beside what was in use before it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_SECONDS, MOST_MB = 2.0, 64.0
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_mb() -> float:
    """The most resident memory since `forget_peak`; needs Linux."""
    return int(_STATUS.read_text().partition("VmHWM:")[2].split()[0]) / 1024


def forget_peak() -> None:
    """Let the peak begin anew."""
    _CLEAR.write_text("5")


@contextmanager
def limits(what: str) -> Iterator[None]:
    """Fail where the lines below take more than two seconds of CPU time or 64 MB."""
    forget_peak()
    before, began = peak_mb(), time.process_time()
    yield
    seconds, megabytes = time.process_time() - began, peak_mb() - before
    assert seconds <= MOST_SECONDS, f"{what}: {seconds:.1f} s"
    assert megabytes <= MOST_MB, f"{what}: {megabytes:.0f} MB"
