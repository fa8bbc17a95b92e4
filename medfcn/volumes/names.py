"""How files are named: case ids, extensions, and names that are safe to print on one line."""

import os
import re
import unicodedata
from pathlib import PurePath

NIFTI_EXTENSIONS = (".nii.gz", ".nii", ".hdr.gz", ".hdr", ".img.gz", ".img")
OTHER_EXTENSIONS = (".seg.nrrd", ".seg.nhdr", ".nrrd", ".nhdr", ".mha", ".mhd")
"""The longer of two that end alike comes first; 3D Slicer names segmentations `.seg.nrrd`."""

_EXTENSIONS = NIFTI_EXTENSIONS + OTHER_EXTENSIONS
_CHANNEL = re.compile(r"_(\d{4})$")


def extension_of(name: str | os.PathLike[str]) -> str:
    """The extension of a volume file in lower case, `.nii.gz` counted as one; empty if it is not one.

    Example:
        >>> extension_of("A.NII.GZ"), extension_of("b.mha"), extension_of("notes.txt")
        ('.nii.gz', '.mha', '')
    """
    lowered = _last(name).lower()
    if not lowered.endswith(_EXTENSIONS):
        return ""
    return next((end for end in _EXTENSIONS if lowered.endswith(end) and len(lowered) > len(end)), "")


def stem_of(name: str | os.PathLike[str]) -> str:
    """A volume's file name without its folder and its extension.

    Example:
        >>> stem_of("images/case_017.nii.gz"), stem_of("v1.2.nii"), stem_of("case_017.seg.nrrd")
        ('case_017', 'v1.2', 'case_017')
    """
    base = _last(name)
    return base[: len(base) - len(extension_of(base))]


def case_id_of(name: str | os.PathLike[str]) -> tuple[str, int | None]:
    """The case a file belongs to and its channel, if its name ends in `_0000`, `_0001` and so on.

    Example:
        >>> case_id_of("case_017_0001.nii.gz"), case_id_of("case_017.nii.gz")
        (('case_017', 1), ('case_017', None))
    """
    stem = stem_of(name)
    found = _CHANNEL.search(stem)
    if found is None or found.start() == 0:
        return stem, None
    return stem[: found.start()], int(found.group(1))


def is_hidden(name: str | os.PathLike[str]) -> bool:
    """True if a file is hidden (`.x`, and the `._x` files that macOS leaves beside others)."""
    return _last(name).startswith(".")


def _last(name: str | os.PathLike[str]) -> str:
    """The last part of a path."""
    return name.name if isinstance(name, PurePath) else PurePath(name).name


def twin_key(name: str) -> str:
    """A form in which two names are equal if a person or another file system cannot distinguish them.

    Example:
        >>> twin_key("Mu\\u0308ller") == twin_key("M\\u00fcller")
        True
    """
    return unicodedata.normalize("NFC", name)
