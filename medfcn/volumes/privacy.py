"""Header text that looks like a patient's: its field is named, the text is never repeated.

A NIfTI header has room for free text, and its extensions for whole DICOM headers. medfcn writes none of it; this
module names the files that contain some, before a user shares them.
"""

import os
import re

import numpy as np

from medfcn.errors import MissingFileError, VolumeError
from medfcn.volumes.formats.nifti_header import ByteOrder, header_length, header_record
from medfcn.volumes.formats.streams import opened

_TEXT_FIELDS = ("descrip", "aux_file", "intent_name", "db_name", "data_type")
_MOST_EXTENSION = 1 << 20
_DICOM = 2
_EXTENSION_CODES = {2: "DICOM", 4: "AFNI", 6: "comment", 44: "dcm2niix or PyPR"}

_PERSONAL = re.compile(
    rb"""
    \w{2,}\^\w+                                     # a DICOM person name: Family^Given
    | \b(19|20)\d\d[-./]?(0[1-9]|1[0-2])[-./]?(0[1-9]|[12]\d|3[01])\b   # a date, year first
    | \b(0?[1-9]|[12]\d|3[01])[-./](0?[1-9]|1[0-2])[-./](19|20)?\d\d\b   # a date, day first
    | (?i:patient|\bname\s*[:=]|\bbirth|\bdob\b|\bmrn\b|\bsex\s*[:=]|\bhospital|\bphysician|\baddress)
    | \bid\s*[:=]\s*\w+
    | \b\d{7,}\b                                    # a record number
    """,
    re.VERBOSE,
)


def personal_text_fields(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names of a NIfTI header's text fields and extensions that look like patient data.

    Only names are returned: the text itself must not reach a log. A file that is no NIfTI file has none.

    Example:
        >>> looks_personal(b"FSL5.0"), looks_personal(b"DOE^JANE"), looks_personal(b"1974-03-02")
        (False, True, True)
    """
    try:
        with opened(path) as source:
            raw = source.read(4)
            length = header_length(raw)
            if length is None:
                return ()
            raw += source.read(length - len(raw))
            record, order = header_record(raw)
            offset = float(record["vox_offset"])
            has_extensions = offset == 0 or offset > length + 4
            extensions = source.read(_MOST_EXTENSION) if has_extensions else b""
    except (VolumeError, MissingFileError):  # whoever reads the file says so
        return ()
    names = tuple(
        name for name in _TEXT_FIELDS if name in (record.dtype.names or ()) and looks_personal(record[name].tobytes())
    )
    end = int(offset) - length if 0 < offset < 1 << 40 else len(extensions)
    return names + _personal_extensions(extensions[:end], order)


def looks_personal(text: bytes) -> bool:
    """True if bytes look like a name, a date, a record number or a label of one."""
    return _PERSONAL.search(text.replace(b"\0", b" ")) is not None


def _personal_extensions(content: bytes, byte_order: ByteOrder) -> tuple[str, ...]:
    """Names of extensions that look personal, of the first megabyte of them."""
    if len(content) < 12 or content[0] == 0:
        return ()
    found: list[str] = []
    position = 4
    while position + 8 <= len(content):
        size, code = (int(number) for number in np.frombuffer(content, f"{byte_order}i4", 2, position))
        if size < 8:
            break
        if code == _DICOM or looks_personal(content[position + 8 : position + size]):
            found.append(f"extension {code} ({_EXTENSION_CODES.get(code, 'other')})")
        position += size
    return tuple(dict.fromkeys(found))
