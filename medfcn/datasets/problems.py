"""Problems of a data set, each with a stable code.

The codes are an interface: scripts look for them, so they stay when the words of a message change. The code of a file
that is refused is that of its error (`MedfcnError.code`); the others are given where the problem is found.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from medfcn.errors import GeometryMismatchError, MedfcnError, for_reader
from medfcn.text import one_line, shown
from medfcn.volumes.names import stem_of

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, or that a user should know, about one file of a case.

    Args:
        code: The kind of problem; it stays when the words change.
        severity: Errors stop training; warnings do not.
        case: The case's id; empty where it concerns the data set.
        file: Relative to the data set's root; empty where it concerns several.
        field: The header field, channel or column that it is about.
        found: What is wrong.
        remedy: What to do.
    """

    code: str
    severity: Severity
    case: str
    file: str
    field: str
    found: str
    remedy: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "found", for_reader(self.found))
        object.__setattr__(self, "remedy", for_reader(self.remedy))

    @property
    def line(self) -> str:
        """The problem on one line that is safe to print, as the message of an error is."""
        where = self.file or self.case or "dataset"
        remedy = f"; {self.remedy}" if self.remedy else ""
        return one_line(f"{self.severity} {self.code} {where}: {self.found}{remedy}")


@dataclass(frozen=True)
class CaseProblems:
    """Collects the problems of one case.

    Args:
        case: Its id.
        root: The folder that files are shown relative to.
        found: The problems.
    """

    case: str
    root: Path
    found: list[Problem] = field(default_factory=list)

    def error(self, code: str, file: Path, field: str, found: str, remedy: str) -> None:
        """Add what stops training."""
        self.found.append(Problem(code, "error", self.case, relative_to(self.root, file), field, found, remedy))

    def warn(self, code: str, file: Path, field: str, found: str, remedy: str) -> None:
        """Add what does not stop training."""
        self.found.append(Problem(code, "warning", self.case, relative_to(self.root, file), field, found, remedy))

    def refuse(self, error: MedfcnError, file: Path, role: str) -> None:
        """Add an error that was raised for a file; see `problem_of`."""
        self.found.append(problem_of(error, case=self.case, file=relative_to(self.root, file), role=role))


def relative_to(root: Path, path: Path) -> str:
    """A path as it may be written down: relative to a root, or the bare name of a file outside it."""
    text = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return os.fsencode(text).decode("utf-8", "backslashreplace")  # a name need not be UTF-8


def problem_of(error: MedfcnError, *, case: str, file: str, role: str) -> Problem:
    """The problem that an error reports.

    Args:
        error: Its message is one line: file, what was found, what to do.
        case: The case's id.
        file: The file, relative to the data set's root.
        role: `"image"`, `"label"` or `"channel"`; goes in front of the code of two grids that differ, and stands
            for the field where the error names none.

    Example:
        >>> from medfcn.errors import GeometryError
        >>> error = GeometryError("a.nii: pixdim[1] is 0; re-export it", code="GRID_PIXDIM", field="pixdim[1]")
        >>> problem_of(error, case="a", file="a.nii", role="image").line
        'error GRID_PIXDIM a.nii: pixdim[1] is 0; re-export it'
    """
    text = str(error)
    found, _, remedy = _without_names(text, (shown(file), stem_of(file), case)).rpartition("; ")
    code = f"{role.upper()}_{error.code}" if isinstance(error, GeometryMismatchError) else error.code
    return Problem(code, "error", case, file, error.field or role, found or remedy, remedy if found else "")


def _without_names(text: str, names: Collection[str]) -> str:
    """A message without the names in front of it, of which there may be several; without another one if none is."""
    starts = tuple(one_line(f"{name}: ") for name in names if name)
    if not text.startswith(starts):
        return text.partition(": ")[2] or text
    while start := next(filter(text.startswith, starts), ""):
        text = text.removeprefix(start)
    return text
