"""`timing.csv`: how long each case took, and on which machine; the one table that differs from run to run."""

import csv
import platform
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from medfcn.errors import WriteError
from medfcn.files import csv_text, write_csv
from medfcn.memory import memory_limit

_WRITE_SECONDS = 30.0
"""Time between two writings while cases are predicted, so that a killed process loses little."""


class Timing(NamedTuple):
    """One predicted case.

    Attributes:
        case: The case's id.
        seconds: Time from asking for its volumes to its last file.
        host: The machine's name.
        shard: The part of the cases that the process worked on; empty if it worked on all.
        memory_mb: The most that a process might take; empty without a limit.
    """

    case: str
    seconds: float
    host: str
    shard: str = ""
    memory_mb: str = ""


class Timings:
    """The times of a folder's cases; those of masks that are kept stay.

    Args:
        path: The table; None writes none.
        shard: The part of the cases of this process.
    """

    def __init__(self, path: Path | None, shard: str = "") -> None:
        self._path, self._shard = path, shard
        self._new: dict[str, Timing] = {}
        self._written = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.write()
        else:  # the error that ended the work is the one to report
            with suppress(WriteError):
                self.write()

    def add(self, case: str, seconds: float, host: str = "") -> None:
        """Note that a case was predicted, on this machine or another host."""
        most = memory_limit()
        memory_mb = "" if most is None else str(most >> 20)
        self._new[case] = Timing(case, round(seconds, 3), host or platform.node(), self._shard, memory_mb)
        if time.monotonic() - self._written > _WRITE_SECONDS:
            self.write()

    def take(self, timings: Iterable[Timing]) -> None:
        """Add the rows of another table."""
        self._new |= {timing.case: timing for timing in timings}

    def write(self) -> None:
        """Write the table, with the rows that other processes have added meanwhile."""
        if self._path is not None and self._new:
            rows = {timing.case: timing for timing in read_timings(self._path)} | self._new
            write_csv(self._path, Timing._fields, [rows[case] for case in sorted(rows)])
            self._written = time.monotonic()


def read_timings(path: Path) -> list[Timing]:
    """The rows of a table; none if it is missing, or not one of these."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        if tuple(rows[0]) not in (Timing._fields, Timing._fields[:-1]):  # earlier medfcn knew no limit
            return []
        return [
            Timing(csv_text(case), float(seconds), *map(csv_text, further)) for case, seconds, *further in rows[1:]
        ]
    except (OSError, ValueError, IndexError, csv.Error):
        return []
