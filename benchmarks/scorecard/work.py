"""One row of the scorecard at work: its counter and failures, kept in a file, so that it goes on where it was."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SAVE_SECONDS = 5.0


class NotMeasuredError(Exception):
    """The row cannot be measured with this build or on this machine; the text says why."""


@dataclass
class Work:
    """The state of one row.

    Attributes:
        folder: A scratch folder, empty at the beginning.
        seconds: Wall seconds for this call; None goes on to the end.
        least: How many times are aimed for; a smaller number in the quick part.
        done: How many times so far.
        failures: What went wrong, one line each.
        facts: Other numbers that the row adds up.
        lines: A list to print.
    """

    folder: Path
    seconds: float | None
    least: int
    done: int = 0
    failures: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    save: Callable[[], None] = lambda: None

    def loop(self) -> Iterator[int]:
        """The numbers that are not done yet, until all are, or time is up."""
        saved = time.monotonic()
        while self.done < self.least and not self.is_over:
            yield self.done
            self.done += 1
            if time.monotonic() - saved > _SAVE_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()

    @property
    def is_over(self) -> bool:
        """True if the time for this call is used up."""
        return self.seconds is not None and time.monotonic() - self.began > self.seconds

    def fail(self, line: object) -> None:
        """Keep a failure."""
        self.failures.append(" ".join(str(line).split())[:400])

    def add(self, name: str, count: float = 1) -> None:
        """Add to one of the other numbers."""
        self.facts[name] = self.facts.get(name, 0) + count

    def place(self, name: str) -> Path:
        """A new folder in the scratch folder."""
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path


@dataclass(frozen=True)
class Row:
    """A row of the scorecard.

    Attributes:
        number: As in the table.
        what: What is tried.
        aim: What is wanted.
        count: How many times in full.
        quick: How many times in the quick part; 0 leaves the row out.
        run: Does it, and returns the figure.
    """

    number: int
    what: str
    aim: str
    count: int
    quick: int
    run: Callable[[Work], str]


@dataclass(frozen=True)
class Result:
    """The state of a row that was begun.

    Attributes:
        number: Of the row.
        done: How many times.
        count: How many were wanted.
        figure: The figure in words; empty if it cannot be measured.
        failures: What went wrong.
        facts: Other numbers.
        lines: A list to print.
        why: Why it is not measured.
    """

    number: int
    done: int
    count: int
    figure: str = ""
    failures: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    why: str = ""

    @property
    def met(self) -> str:
        """A word for the table."""
        if self.why:
            return "not measured"
        if self.failures:
            return "no"
        return "yes" if self.done >= self.count else f"so far ({self.done} of {self.count})"


def read_result(path: Path) -> Result | None:
    """What was kept of a row; None before it was begun."""
    if not path.is_file():
        return None
    kept = json.loads(path.read_text())
    return Result(**kept | {"failures": tuple(kept["failures"]), "lines": tuple(kept["lines"])})


def write_result(path: Path, result: Result) -> None:
    """Keep a row, whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(vars(result), indent=1))
    part.replace(path)
