"""The header of a MetaImage file.

Source:
    MetaIO documentation, itk.org/Wiki/ITK/MetaIO/Documentation; its world is LPS, in millimetres.
"""

from pathlib import Path

import numpy as np

from medfcn.errors import VolumeError
from medfcn.text import shown
from medfcn.volumes.formats.sniff import describe_bytes
from medfcn.volumes.formats.text_header import TextHeader, numbers_of, three_positive, voxel_file
from medfcn.volumes.geometry import Affine, checked_affine
from medfcn.volumes.names import extension_of

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_YES_NO = {"true": True, "false": False, "1": True, "0": False}


def parse_metaimage(path: Path, raw: bytes) -> TextHeader:
    """Read a MetaImage header, or say which of its fields cannot be trusted.

    Args:
        path: The `.mha` or `.mhd` file.
        raw: Its first bytes.
    """
    name = shown(path)
    fields, end = _fields(raw, name)
    if "NDims" not in fields:
        raise VolumeError(f"{name}: named {extension_of(path)} but is {describe_bytes(raw)}")
    if fields["NDims"] != "3":
        raise VolumeError(f"{name}: NDims is {fields['NDims']}; a volume has three; export it as 3D")
    if fields.get("ElementNumberOfChannels", "1") != "1":
        raise VolumeError(f"{name}: ElementNumberOfChannels is not 1; export one channel")
    if fields.get("ElementType", "") not in _TYPES:
        raise VolumeError(
            f"{name}: ElementType is {fields.get('ElementType', 'absent')!r}; "
            "expected one of numbers, such as MET_SHORT"
        )
    for field in ("BinaryData", "CompressedData", "BinaryDataByteOrderMSB", "ElementByteOrderMSB"):
        if fields.get(field, "True").lower() not in _YES_NO:
            raise VolumeError(f"{name}: {field} is {fields[field]!r}; expected True or False")
    if not _YES_NO[fields.get("BinaryData", "True").lower()]:
        raise VolumeError(f"{name}: BinaryData is False (voxels as text); save it as binary")
    if fields.get("HeaderSize", "0") != "0":
        raise VolumeError(f"{name}: HeaderSize is not 0; save it without")
    source = fields.get("ElementDataFile")
    if source is None:
        raise VolumeError(f"{name}: the header has no end (ElementDataFile); the file is cut off, copy it again")
    local = source == "LOCAL"
    is_big = _YES_NO[fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False")).lower()]
    return TextHeader(
        shape=three_positive(fields.get("DimSize", "").split(), name=name, field="DimSize"),
        voxel_type=np.dtype(_TYPES[fields["ElementType"]]).newbyteorder(">" if is_big else "<"),
        affine=_affine(fields, name),
        voxel_path=path if local else voxel_file(path, source),
        voxel_offset=end if local else 0,
        compression="zlib" if _YES_NO[fields.get("CompressedData", "False").lower()] else "",
    )


def _fields(raw: bytes, name: str) -> tuple[dict[str, str], int]:
    """The `field = value` lines up to ElementDataFile, and where they end."""
    fields: dict[str, str] = {}
    position = 0
    while position < len(raw):
        newline = raw.find(b"\n", position)
        if newline < 0:
            break
        line = raw[position:newline].decode("latin-1")
        position = newline + 1
        field, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            break
        if field in fields:
            raise VolumeError(f"{name}: the field {field!r} is given twice; re-export the file")
        fields[field] = value
        if field == "ElementDataFile":
            break
    return fields, position


def _affine(fields: dict[str, str], name: str) -> Affine | None:
    matrix = next((f for f in ("TransformMatrix", "Orientation", "Rotation") if f in fields), None)
    origin = next((f for f in ("Offset", "Position", "Origin") if f in fields), None)
    if matrix is None or origin is None or "ElementSpacing" not in fields:
        return None
    # Each row of TransformMatrix is the direction of one voxel axis.
    directions = numbers_of(fields[matrix], 9, name=name, field=matrix).reshape(3, 3).T
    affine = np.eye(4)
    affine[:3, :3] = directions * numbers_of(fields["ElementSpacing"], 3, name=name, field="ElementSpacing")
    affine[:3, 3] = numbers_of(fields[origin], 3, name=name, field=origin)
    return checked_affine(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, name=name)
