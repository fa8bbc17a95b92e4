"""Messages and progress of a long command: bars on a terminal, plain lines in a log, nothing in a script."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TextIO

from medfcn.text import duration, printable


class Task:
    """A piece of work with a known number of steps; this one reports nothing."""

    def advance(self, note: str = "") -> None:
        """Report that one more step is done, with a note."""


class Progress(Protocol):
    """Where messages and progress go. Results go elsewhere: to stdout, or to a caller."""

    def say(self, message: str) -> None:
        """Report a line of text."""

    def task(self, name: str, total: int) -> AbstractContextManager[Task]:
        """A context manager around `total` steps of work."""


class Silent:
    """Reports nothing; the default of library calls."""

    def say(self, message: str) -> None:
        """Do nothing."""

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """Report nothing of the work."""
        yield Task()


class Lines:
    """Plain lines, at most one every few seconds for each task; for logs and pipes.

    Args:
        stream: Where the lines are written, standard error by default.
        every_seconds: The shortest time between two lines of one task.
    """

    def __init__(self, stream: TextIO | None = None, *, every_seconds: float = 15.0) -> None:
        self.stream = stream
        self.every_seconds = every_seconds

    def say(self, message: str) -> None:
        """Write one line."""
        print(printable(message), file=self.stream or sys.stderr, flush=True)

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """Write lines with the number of steps done and the time left."""
        yield _LineTask(self, name, total)


class _LineTask(Task):
    def __init__(self, lines: Lines, name: str, total: int) -> None:
        self.lines, self.name, self.total = lines, name, total
        self.done = 0
        self.started = self.reported = time.monotonic()

    def advance(self, note: str = "") -> None:
        self.done += 1
        now = time.monotonic()
        if now - self.reported >= self.lines.every_seconds:
            self.reported = now
            left = duration((now - self.started) / self.done * (self.total - self.done))
            self.lines.say(f"{self.name}: {self.done} of {self.total}, {left} left{'  ' + note if note else ''}")


class Bars:
    """Bars on a terminal, by rich."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)

    def say(self, message: str) -> None:
        """Write one line above the bars."""
        self.console.print(printable(message), markup=False, soft_wrap=True)

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """Show a bar with the time left."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with RichProgress(*columns, console=self.console, transient=True) as bars:
            yield _BarTask(bars, bars.add_task(name, total=total, note=""))


class _BarTask(Task):
    def __init__(self, bars: Any, number: int) -> None:
        self.bars, self.number = bars, number

    def advance(self, note: str = "") -> None:
        self.bars.update(self.number, advance=1, note=printable(note))


def process_count() -> int:
    """Number of processes that `torchrun` started for one command; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def process_rank() -> int:
    """Number of this process, from 0. The first one reports for all."""
    return int(os.environ.get("RANK", 0)) if process_count() > 1 else 0


def for_terminal() -> Progress:
    """Bars if standard error is a terminal, else plain lines; nothing in all processes but the first."""
    if process_rank():
        return Silent()
    return Bars() if sys.stderr.isatty() else Lines()
