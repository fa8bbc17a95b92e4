"""Problems of a dataset, each with a stable code.

The codes are an interface: scripts look for them, so they stay when the words of a message change.
"""

import re
from dataclasses import dataclass
from typing import Literal

from medfcn.errors import GeometryMismatchError, LabelError, MedfcnError, MissingFileError

Severity = Literal["error", "warning"]

_BY_MESSAGE: tuple[tuple[str, str], ...] = (
    ("VOXELS_CONTRADICTED", r"reads other voxels"),
    ("FILE_EMPTY", r"an empty file"),
    ("FILE_NOT_REGULAR", r"a folder, not a file|pipe|socket|a device|not a regular file"),
    ("FILE_NAME", r"not named as a volume|named \.\w|magic says"),
    ("FILE_CUT_OFF", r"is cut off"),
    ("FILE_DAMAGED", r"is damaged near|compressed voxels"),
    ("FILE_SIZE", r"header describes"),
    ("FILE_UNREADABLE", r"cannot be (read|opened)"),
    ("FILE_KIND", r"not NIfTI|ANALYZE|CIFTI|nothing but zero"),
    ("HEADER_DAMAGED", r"given twice"),
    ("VOXELS_NOT_FINITE", r"NaN or infinite"),
    ("VOXELS_TYPE", r"datatype|bitpix|ElementType|: type is|ElementNumberOfChannels|BinaryData|kinds is"),
    ("VOXELS_SCALING", r"scl_(slope|inter) is"),
    ("SHAPE_4D", r"dim says 4D|has no volume"),
    ("SHAPE", r"\bdim\b|dimension is|NDims|sizes is|DimSize"),
    ("GRID_UNKNOWN", r"are both 0|does not say how the grid"),
    ("GRID_QFORM_SFORM", r"qform and sform disagree"),
    ("GRID_PIXDIM", r"pixdim"),
    ("GRID_UNITS", r"xyzt_units|space units"),
    ("GRID_BROKEN", r"srow|quatern|qform|sform|affine|space|TransformMatrix|Offset|ElementSpacing"),
    ("HEADER_OFFSET", r"vox_offset|byte skip|HeaderSize"),
    ("HEADER_DAMAGED", r"magic|header|encoding|voxels are in|endian"),
)


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
        """The problem on one line."""
        where = self.file or self.case or "dataset"
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.severity} {self.code} {where}: {self.found}{remedy}"


def problem_of(error: MedfcnError, *, case: str, file: str, role: str) -> Problem:
    """What an error says, as a problem.

    Args:
        error: One line: file, what was found, what to do.
        case: The case's id.
        file: The file, relative to the dataset's root.
        role: `"image"` or `"label"`.

    Example:
        >>> from medfcn.errors import GeometryError
        >>> error = GeometryError("a.nii: pixdim[1] is 0; re-export the file")
        >>> problem_of(error, case="a", file="a.nii", role="image").code
        'GRID_PIXDIM'
    """
    text = " ".join(str(error).split())
    _, colon, rest = text.partition(": ")
    found, _, remedy = (rest if colon else text).rpartition("; ")
    named = re.search(
        r"\b(dim(\[\d\])?|datatype|bitpix|vox_offset|xyzt_units|pixdim\[\d\]|[qs]form_code|srow|"
        r"quatern\w*|scl_slope|scl_inter|magic|intent_code|qform and sform)",
        text,
    )
    return Problem(
        code=_code_of(error, text, role),
        severity="error",
        case=case,
        file=file,
        field=named.group(1) if named else role,
        found=found or rest or text,
        remedy=remedy,
    )


def _code_of(error: MedfcnError, text: str, role: str) -> str:
    if isinstance(error, MissingFileError):
        return "FILE_MISSING"
    if isinstance(error, GeometryMismatchError):
        what = "SHAPE" if "shape" in text and "lies" not in text else "GRID"
        return f"{role.upper()}_{what}_DIFFERS"
    if isinstance(error, LabelError):
        return "LABEL_VALUES"
    for code, pattern in _BY_MESSAGE:
        if re.search(pattern, text):
            return code
    return "VOLUME_REFUSED"
