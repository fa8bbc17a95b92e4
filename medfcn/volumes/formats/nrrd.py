"""The header of an NRRD file.

Source:
    Definition of NRRD file format, teem.sourceforge.net/nrrd/format.html.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from medfcn.errors import GeometryError, VolumeError
from medfcn.text import shown
from medfcn.volumes.formats.sniff import describe_bytes
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
    **dict.fromkeys(("ulonglong", "unsigned long long", "uint64", "uint64_t"), "u8"),
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
    name = shown(path)
    if not raw.startswith(b"NRRD000"):
        raise VolumeError(f"{name}: named {extension_of(path)} but is {describe_bytes(raw)}")
    fields, end = _fields(raw, name)
    if fields.get("dimension") != "3":
        found = fields.get("dimension", "absent")
        raise VolumeError(f"{name}: dimension is {found}; a volume has three; export it as 3D")
    kinds = fields.get("kinds", "domain domain domain").lower().split()
    if not set(kinds) <= {"domain", "space"}:
        raise VolumeError(f"{name}: kinds is {(' '.join(kinds))!r}; expected three domains")
    if fields.get("type", "").lower() not in _TYPES:
        raise VolumeError(f"{name}: type is {fields.get('type', 'absent')!r}; expected a number")
    encoding = {"raw": "", "gzip": "gzip", "gz": "gzip"}.get(fields.get("encoding", "").lower())
    if encoding is None:
        found = fields.get("encoding", "absent")
        raise VolumeError(f"{name}: encoding is {found!r}; save it with encoding raw or gzip")
    if any(fields.get(field, "0") != "0" for field in ("line skip", "byte skip", "lineskip", "byteskip")):
        raise VolumeError(f"{name}: line skip or byte skip is not 0; save it without")
    detached = fields.get("data file", fields.get("datafile"))
    if extension_of(path) == ".nhdr" and detached is None:
        raise VolumeError(f"{name}: names no data file; expected one beside it")
    if detached is None and end is None:
        raise VolumeError(f"{name}: the header has no end; the file is cut off, copy it again")
    return TextHeader(
        shape=three_positive(fields.get("sizes", "").split(), name=name, field="sizes"),
        voxel_type=_voxel_type(fields, name),
        affine=_affine(fields, name),
        voxel_path=path if detached is None else voxel_file(path, detached),
        voxel_offset=0 if detached is not None else end or 0,
        compression=encoding,
    )


def _voxel_type(fields: dict[str, str], name: str) -> np.dtype[Any]:
    voxel_type = np.dtype(_TYPES[fields["type"].lower()])
    order = {"little": "<", "big": ">"}.get(fields.get("endian", "").lower())
    if order is None and voxel_type.itemsize > 1:
        raise VolumeError(f"{name}: endian is not stated as little or big; re-export the file")
    return voxel_type.newbyteorder(">" if order == ">" else "<")


def _fields(raw: bytes, name: str) -> tuple[dict[str, str], int | None]:
    """The `field: value` lines, and where the blank line that ends them ends."""
    blank = re.search(rb"\n\r?\n", raw)
    end = blank.end() if blank else None
    fields: dict[str, str] = {}
    for line in raw[: end or len(raw)].decode("latin-1").splitlines()[1:]:
        field, colon, value = line.partition(": ")
        if line.startswith("#") or not colon or ":=" in line.split(": ")[0]:
            continue
        if fields.setdefault(field.strip().lower(), value.strip()) != value.strip():
            raise VolumeError(f"{name}: the field {field!r} is given twice; re-export the file")
    return fields, end


def _affine(fields: dict[str, str], name: str) -> Affine | None:
    if "space" not in fields or "space directions" not in fields:
        return None
    space = fields["space"].lower()
    if space not in _SPACES:
        raise GeometryError(f"{name}: space is {space!r}; expected left-posterior-superior or the like")
    units = set(re.findall(r'"([^"]*)"', fields.get("space units", ""))) - {"mm", ""}
    if units:
        raise GeometryError(f"{name}: space units is {(', '.join(units))}; expected mm")
    columns = re.findall(r"\(([^)]*)\)", fields["space directions"])
    if len(columns) != 3 or "none" in fields["space directions"]:
        raise GeometryError(f"{name}: space directions are not three vectors; re-export it")
    affine = np.eye(4)
    for axis, column in enumerate(columns):
        affine[:3, axis] = numbers_of(column.replace(",", " "), 3, name=name, field="space directions")
    origin = fields.get("space origin")
    if origin is None:
        return None
    affine[:3, 3] = numbers_of(re.sub(r"[(),]", " ", origin), 3, name=name, field="space origin")
    return checked_affine(np.diag([*_SPACES[space], 1.0]) @ affine, name=name)
