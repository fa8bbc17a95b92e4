"""The header of an NRRD file.

Source:
    Definition of NRRD file format, teem.sourceforge.net/nrrd/format.html.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from medfcn.volumes.formats.refusals import bad_field, other_kind
from medfcn.volumes.formats.text_header import TextHeader, numbers_of, three_positive, voxel_file
from medfcn.volumes.geometry import Affine, checked_affine
from medfcn.volumes.names import extension_of

_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("signed long long", "signed long long int"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
_SPACES = {
    **dict.fromkeys(("right-anterior-superior", "ras"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-posterior-superior", "lps"), (-1.0, -1.0, 1.0)),
}


def parse_nrrd(path: Path, raw: bytes) -> TextHeader:
    """Read an NRRD header, or say which of its fields cannot be trusted.

    Args:
        path: The `.nrrd` or `.nhdr` file.
        raw: Its first bytes.
    """
    if not raw.startswith(b"NRRD000"):
        raise other_kind(raw, f"named {extension_of(path)} but is ", code="FILE_NAME")
    fields, end = _fields(raw)
    if fields.get("dimension") != "3":
        found = f"is {fields.get('dimension', 'absent')}; a volume has three"
        raise bad_field("SHAPE", "dimension", found, "export it as 3D")
    kinds = fields.get("kinds", "domain domain domain").lower()
    if not set(kinds.split()) <= {"domain", "space"}:
        raise bad_field("VOXELS_TYPE", "kinds", f"is {kinds!r}; expected three domains")
    if fields.get("type", "").lower() not in _TYPES:
        raise bad_field("VOXELS_TYPE", "type", f"is {fields.get('type', 'absent')!r}; expected a number")
    encoding = {"raw": "", "gzip": "gzip", "gz": "gzip"}.get(fields.get("encoding", "").lower())
    if encoding is None:
        found = f"is {fields.get('encoding', 'absent')!r}"
        raise bad_field("HEADER_DAMAGED", "encoding", found, "save it with encoding raw or gzip")
    for field in ("line skip", "byte skip", "lineskip", "byteskip"):
        if fields.get(field, "0") != "0":
            raise bad_field("HEADER_OFFSET", field, f"is {fields[field]!r}; expected 0", "save it without")
    detached = fields.get("data file", fields.get("datafile"))
    if extension_of(path).endswith(".nhdr") and detached is None:
        raise bad_field("HEADER_DAMAGED", "data file", "is absent; expected the name of a file beside it")
    if detached is None and end is None:
        raise bad_field("FILE_CUT_OFF", "the header", "has no end", "the file is cut off, copy it again")
    return TextHeader(
        shape=three_positive(fields.get("sizes", ""), field="sizes"),
        voxel_type=_voxel_type(fields),
        affine=_affine(fields),
        voxel_path=path if detached is None else voxel_file(path, detached, field="data file"),
        voxel_offset=0 if detached is not None else end or 0,
        compression=encoding,
    )


def _voxel_type(fields: dict[str, str]) -> np.dtype[Any]:
    voxel_type = np.dtype(_TYPES[fields["type"].lower()])
    order = {"little": "<", "big": ">"}.get(fields.get("endian", "").lower())
    if order is None and voxel_type.itemsize > 1:
        raise bad_field("HEADER_DAMAGED", "endian", "is not stated as little or big")
    return voxel_type.newbyteorder(">" if order == ">" else "<")


def _fields(raw: bytes) -> tuple[dict[str, str], int | None]:
    """The `field: value` lines, and where the blank line that ends them ends."""
    blank = re.search(rb"\n\r?\n", raw)
    end = blank.end() if blank else None
    fields: dict[str, str] = {}
    for line in raw[: end or len(raw)].decode("latin-1").splitlines()[1:]:
        field, colon, value = line.partition(": ")
        if line.startswith("#") or not colon or ":=" in field:
            continue
        if fields.setdefault(field.strip().lower(), value.strip()) != value.strip():
            raise bad_field("HEADER_DAMAGED", field.strip().lower(), "is given twice")
    return fields, end


def _affine(fields: dict[str, str]) -> Affine | None:
    if not {"space", "space directions", "space origin"} <= set(fields):
        return None
    space = fields["space"].lower()
    if space not in _SPACES:
        raise bad_field("GRID_BROKEN", "space", f"is {space!r}; expected left-posterior-superior or the like")
    for field in ("space units", "units"):  # the second is for axes that lie in no space
        units = set(fields.get(field, "").replace('"', " ").split()) - {"mm", "???"}
        if units:
            raise bad_field("GRID_UNITS", field, f"is {', '.join(sorted(units))}; expected mm")
    columns = re.findall(r"\(([^)]*)\)", fields["space directions"])
    if len(columns) != 3 or "none" in fields["space directions"]:
        raise bad_field("GRID_BROKEN", "space directions", "are not three vectors")
    affine = np.eye(4)
    for axis, column in enumerate(columns):
        affine[:3, axis] = numbers_of(column.replace(",", " "), 3, field="space directions")
    affine[:3, 3] = numbers_of(re.sub(r"[(),]", " ", fields["space origin"]), 3, field="space origin")
    return checked_affine(np.diag([*_SPACES[space], 1.0]) @ affine)
