"""Messages and progress of a long command: bars on a terminal, plain lines in a log, JSON for a program.

Every message is also a record of Python's `logging`, of the level INFO under the name `medfcn`; steps of work are
records of the level DEBUG under `medfcn.progress`. No handler is added and no level is set, so nothing of it is seen
unless the host program asks for it. There are no records above INFO, which Python would print by itself.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Literal, Protocol, TextIO, get_args

from medfcn.errors import for_reader
from medfcn.text import duration, for_command, printable

Kind = Literal["auto", "bars", "lines", "json", "none"]
"""How a command reports: `auto` takes bars on a terminal, else lines."""
KINDS: tuple[str, ...] = get_args(Kind)
_MESSAGES, _STEPS = logging.getLogger("medfcn"), logging.getLogger("medfcn.progress")


class Task:
    """A piece of work with a known number of steps; this one reports to `logging` alone."""

    def __init__(self, name: str = "", total: int = 0) -> None:
        self.name, self.total = name, total
        self.done = 0

    def advance(self, note: str = "") -> None:
        """Report that one more step is done, with a note."""
        self.done += 1
        _STEPS.debug("%s: %d of %d%s", self.name, self.done, self.total, f"  {note}" if note else "")


class Progress(Protocol):
    """Where messages and progress go. Results go elsewhere: to stdout, or to a caller.

    A reporter may have a method `warn` too; see the function `warn`.
    """

    def say(self, message: str) -> None:
        """Report a line of text."""

    def task(self, name: str, total: int) -> AbstractContextManager[Task]:
        """A context manager around `total` steps of work."""


def warn(progress: Progress, message: str) -> None:
    """Report a line without which the outcome would be misread; `--progress none` shows it too.

    Args:
        progress: Its method `warn` gets the line, or `say` if it has none.
        message: The line.
    """
    getattr(progress, "warn", progress.say)(message)


def reporting(progress: Progress | None) -> Progress:
    """The reporter of a call: by default one that only logs; a caller's own is told of arguments, not of options.

    Example:
        >>> class Printer(Silent):
        ...     def say(self, message: str) -> None:
        ...         print(message)
        >>> reporting(Printer()).say("give --labels")
        give labels=
    """
    if progress is None:
        return Silent()
    return progress if type(progress) in (Silent, Quiet, Lines, JsonLines, Bars, _OfCaller) else _OfCaller(progress)


class _OfCaller:
    """A caller's own reporter."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def say(self, message: str) -> None:
        self.progress.say(for_reader(message))

    def warn(self, message: str) -> None:
        warn(self.progress, for_reader(message))

    def task(self, name: str, total: int) -> AbstractContextManager[Task]:
        return self.progress.task(name, total)


class Silent:
    """Reports to `logging` alone, which prints nothing unless it is told to; the default of library calls."""

    def say(self, message: str) -> None:
        """Log one line."""
        _logged(message)

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """Log the steps."""
        yield Task(name, total)


class Quiet(Silent):
    """Shows warnings alone, on standard error."""

    def warn(self, message: str) -> None:
        """Write one line."""
        Lines().say(message)


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
        self.write(_logged(message))

    def write(self, message: str) -> None:
        """Write one line that is no message, but the state of a task."""
        with suppress(BrokenPipeError):  # nobody reads it any more, which is no reason to stop the work
            print(printable(message), file=self.stream or sys.stderr, flush=True)

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """Write lines with the number of steps done and the time left."""
        yield _LineTask(self, name, total)


_FEWEST_STEPS = 3
"""Steps before which no time left is told."""


class _LineTask(Task):
    def __init__(self, lines: Lines, name: str, total: int) -> None:
        super().__init__(name, total)
        self.lines = lines
        self.first = self.reported = time.monotonic()

    def advance(self, note: str = "") -> None:
        super().advance(note)
        now = time.monotonic()
        if self.done == 1:  # with what is loaded before it, it says nothing of the others
            self.first = now
        if now - self.reported >= self.lines.every_seconds:
            self.reported = now
            left = ""
            if self.done >= _FEWEST_STEPS:
                left = f", {duration((now - self.first) / (self.done - 1) * (self.total - self.done))} left"
            self.lines.write(f"{self.name}: {self.done} of {self.total}{left}{'  ' + note if note else ''}")


class JsonLines:
    """One JSON object a line for each event, for programs.

    `{"event": "message", "text": …}`; `{"event": "begin", "task": …, "total": …}`; `{"event": "step", "task": …,
    "done": …, "total": …, "note": …, "seconds_left": …}`, at most ten a second and always the last one; `{"event":
    "end", "task": …, "done": …}`; and `{"event": "error", "code": …, "text": …}` before a command ends in one.

    Args:
        stream: Where the lines are written, standard error by default.
    """

    EVERY_SECONDS = 0.1

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream

    def say(self, message: str) -> None:
        """Write a message."""
        self.write("message", text=_logged(message))

    def write(self, event: str, **facts: object) -> None:
        """Write an event, whole, in one line."""
        line = json.dumps({"event": event, **facts})
        with suppress(BrokenPipeError):
            (self.stream or sys.stderr).write(f"{line}\n")
            (self.stream or sys.stderr).flush()

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """Write the steps that are done."""
        self.write("begin", task=name, total=total)
        task = _JsonTask(self, name, total)
        try:
            yield task
        finally:
            self.write("end", task=name, done=task.done)


class _JsonTask(Task):
    def __init__(self, lines: JsonLines, name: str, total: int) -> None:
        super().__init__(name, total)
        self.lines = lines
        self.started = time.monotonic()
        self.reported = -lines.EVERY_SECONDS

    def advance(self, note: str = "") -> None:
        super().advance(note)
        now = time.monotonic()
        if now - self.reported < self.lines.EVERY_SECONDS and self.done < self.total:
            return
        self.reported = now
        left = round((now - self.started) / self.done * (self.total - self.done), 1)
        self.lines.write(
            "step", task=self.name, done=self.done, total=self.total, note=note, seconds_left=max(0.0, left)
        )


class Bars:
    """Bars on a terminal, by rich."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)

    def say(self, message: str) -> None:
        """Write one line above the bars."""
        self.console.print(printable(_logged(message)), markup=False, soft_wrap=True)

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
            yield _BarTask(bars, name, total)


class _BarTask(Task):
    def __init__(self, bars: Any, name: str, total: int) -> None:
        super().__init__(name, total)
        self.bars, self.number = bars, bars.add_task(name, total=total, note="")

    def advance(self, note: str = "") -> None:
        super().advance(note)
        self.bars.update(self.number, advance=1, note=printable(note))


def _logged(message: str) -> str:
    """A message in the form of whoever reads it, as `logging` has it now too."""
    text = for_command(for_reader(message))
    _MESSAGES.info("%s", printable(text))
    return text


def process_count() -> int:
    """Number of processes that `torchrun` started for one command; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def process_rank() -> int:
    """Number of this process, from 0. The first one reports for all."""
    return int(os.environ.get("RANK", 0)) if process_count() > 1 else 0


def for_terminal(kind: Kind = "auto") -> Progress:
    """The reporter of a command; one that prints nothing in all processes but the first."""
    if process_rank():
        return Silent()
    if kind == "none":
        return Quiet()
    if kind == "json":
        return JsonLines()
    return Bars() if kind == "bars" or (kind == "auto" and sys.stderr.isatty()) else Lines()
