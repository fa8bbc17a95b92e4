"""What a long command says while it works: bars on a terminal, plain lines in a log, nothing in a script."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

from medfcn.text import duration, printable


class Task(Protocol):
    """A piece of work with a known length."""

    def advance(self, note: str = "") -> None:
        """One more step is done; `note` says something of it."""


class Progress(Protocol):
    """Where messages and progress go. Results go elsewhere: to stdout, or to a caller."""

    def say(self, message: str) -> None:
        """A line of text."""

    def task(self, name: str, total: int) -> AbstractContextManager[Task]:
        """A context manager around `total` steps of work."""


class Silent:
    """Says nothing; what library calls use unless told otherwise."""

    def say(self, message: str) -> None:
        """Nothing."""

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """Nothing but the work."""
        yield _Quiet()


class _Quiet:
    def advance(self, note: str = "") -> None:
        pass


class Lines:
    """Plain lines, at most one every few seconds for each task; for logs and pipes.

    Args:
        stream: Where to, standard error unless given.
        every_seconds: The least time between two lines of one task.
    """

    def __init__(self, stream: TextIO | None = None, *, every_seconds: float = 15.0) -> None:
        self.stream = stream or sys.stderr
        self.every_seconds = every_seconds

    def say(self, message: str) -> None:
        """One line."""
        print(printable(message), file=self.stream, flush=True)

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """Lines with the share done and the time left."""
        yield _LineTask(self, name, total)


class _LineTask:
    def __init__(self, lines: Lines, name: str, total: int) -> None:
        self.lines, self.name, self.total = lines, name, total
        self.done = 0
        self.started = self.said = time.monotonic()

    def advance(self, note: str = "") -> None:
        self.done += 1
        now = time.monotonic()
        if now - self.said < self.lines.every_seconds:
            return
        self.said = now
        left = (now - self.started) / self.done * (self.total - self.done)
        self.lines.say(
            f"{self.name}: {self.done} of {self.total}, {duration(left)} left{'  ' + note if note else ''}"
        )


class Bars:
    """Bars on a terminal, by rich."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)

    def say(self, message: str) -> None:
        """One line, above the bars."""
        self.console.print(printable(message), markup=False, soft_wrap=True)

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """A bar with the time left."""
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
            number = bars.add_task(name, total=total, note="")
            yield _BarTask(bars, number)


class _BarTask:
    def __init__(self, bars: object, number: object) -> None:
        self.bars, self.number = bars, number

    def advance(self, note: str = "") -> None:
        self.bars.update(self.number, advance=1, note=printable(note))  # type: ignore[attr-defined]


def process_count() -> int:
    """How many processes `torchrun` started for one command; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def process_rank() -> int:
    """Which of them this is, from 0. The first speaks for all."""
    return int(os.environ.get("RANK", 0)) if process_count() > 1 else 0


def for_terminal() -> Progress:
    """Bars where standard error is a terminal, plain lines elsewhere; nothing in all processes but the first."""
    if process_rank():
        return Silent()
    return Bars() if sys.stderr.isatty() else Lines()
