"""Problems of a dataset, each with a stable code.

The codes are an interface: scripts look for them, so they stay when the words of a message change.
"""

from dataclasses import dataclass
from typing import Literal

from medfcn.errors import GeometryMismatchError, MedfcnError
from medfcn.text import one_line, shown
from medfcn.volumes.names import stem_of

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, or that a user should know, about one file of a case.

    Args:
        code: What it is, in words that do not change.
        severity: Errors stop training; warnings do not.
        case: The case's id; empty where it concerns the dataset.
        file: Relative to the dataset's root; empty where it concerns more than one.
        field: The header field, or what else it is about.
        found: What was found.
        remedy: What to do.
    """

    code: str
    severity: Severity
    case: str
    file: str
    field: str
    found: str
    remedy: str

    @property
    def line(self) -> str:
        """The problem on one line that is safe to print, as the message of an error is."""
        where = self.file or self.case or "dataset"
        remedy = f"; {self.remedy}" if self.remedy else ""
        return one_line(f"{self.severity} {self.code} {where}: {self.found}{remedy}")


def problem_of(error: MedfcnError, *, case: str, file: str, role: str) -> Problem:
    """The problem that an error reports.

    Args:
        error: Its message is one line: file, what was found, what to do.
        case: The case's id.
        file: The file, relative to the dataset's root.
        role: `"image"`, `"label"` or `"channel"`; goes in front of the code of two grids that differ, and stands
            for the field where the error names none.

    Example:
        >>> from medfcn.errors import GeometryError
        >>> error = GeometryError("a.nii: pixdim[1] is 0; re-export it", code="GRID_PIXDIM", field="pixdim[1]")
        >>> problem_of(error, case="a", file="a.nii", role="image").line
        'error GRID_PIXDIM a.nii: pixdim[1] is 0; re-export it'
    """
    text = str(error)
    names = (one_line(f"{name}: ") for name in (shown(file), stem_of(file), case))
    start = next(filter(text.startswith, names), text.partition(": ")[0] + ": ")
    found, _, remedy = text.removeprefix(start).rpartition("; ")
    code = f"{role.upper()}_{error.code}" if isinstance(error, GeometryMismatchError) else error.code
    return Problem(code, "error", case, file, error.field or role, found or remedy, remedy if found else "")
