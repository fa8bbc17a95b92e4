"""The header of a MetaImage file.

Source:
    MetaIO documentation, itk.org/Wiki/ITK/MetaIO/Documentation; its world is LPS, in millimetres.
"""

from pathlib import Path

import numpy as np

from medfcn.volumes.formats.refusals import bad_field, other_kind
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
    fields, end = _fields(raw)
    if "NDims" not in fields:
        raise other_kind(raw, f"named {extension_of(path)} but is ", code="FILE_NAME")
    if fields["NDims"] != "3":
        raise bad_field("SHAPE", "NDims", f"is {fields['NDims']}; a volume has three", "export it as 3D")
    channels = fields.get("ElementNumberOfChannels", "1")
    if channels != "1":
        raise bad_field("VOXELS_TYPE", "ElementNumberOfChannels", f"is {channels}; expected 1", "export one channel")
    if fields.get("ElementType", "") not in _TYPES:
        found = f"is {fields.get('ElementType', 'absent')!r}; expected one of numbers, such as MET_SHORT"
        raise bad_field("VOXELS_TYPE", "ElementType", found)
    if not _is_true(fields, "BinaryData", "True"):
        raise bad_field("VOXELS_TYPE", "BinaryData", "is False (voxels as text)", "save it as binary")
    if fields.get("HeaderSize", "0") != "0":
        raise bad_field("HEADER_OFFSET", "HeaderSize", f"is {fields['HeaderSize']}; expected 0", "save it without")
    _refuse_other_scales(fields)
    if "ElementDataFile" not in fields:
        found = "is absent: the header has no end"
        raise bad_field("FILE_CUT_OFF", "ElementDataFile", found, "the file is cut off, copy it again")
    local = fields["ElementDataFile"] in ("LOCAL", "Local", "local")
    is_big = _is_true(fields, "ElementByteOrderMSB", "False")
    is_big = _is_true(fields, "BinaryDataByteOrderMSB", str(is_big))
    return TextHeader(
        shape=three_positive(fields.get("DimSize", ""), field="DimSize"),
        voxel_type=np.dtype(_TYPES[fields["ElementType"]]).newbyteorder(">" if is_big else "<"),
        affine=_affine(fields),
        voxel_path=path if local else voxel_file(path, fields["ElementDataFile"], field="ElementDataFile"),
        voxel_offset=end if local else 0,
        compression="zlib" if _is_true(fields, "CompressedData", "False") else "",
    )


def _refuse_other_scales(fields: dict[str, str]) -> None:
    """Refuse lengths and intensities that SimpleITK would take as they are written, though the header says otherwise.

    Raises:
        VolumeError: There are some.
    """
    unit = fields.get("DistanceUnits", "mm")
    if unit.lower() not in ("mm", "?", ""):
        raise bad_field("GRID_UNITS", "DistanceUnits", f"is {unit}; expected mm")
    for field, usual in (("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)):
        if numbers_of(fields.get(field, str(usual)), 1, field=field)[0] != usual:
            found = f"is {fields[field]}, which readers of MetaImage files leave out"
            raise bad_field("VOXELS_SCALING", field, found, "re-export the file with the scaled voxels")
    lengths = fields.get("ElementSpacing", "1 1 1")
    if not (numbers_of(lengths, 3, field="ElementSpacing") > 0).all():
        raise bad_field("GRID_BROKEN", "ElementSpacing", f"is {lengths!r}; expected three positive lengths")


def _is_true(fields: dict[str, str], field: str, default: str) -> bool:
    value = _YES_NO.get(fields.get(field, default).lower())
    if value is None:
        raise bad_field("HEADER_DAMAGED", field, f"is {fields[field]!r}; expected True or False")
    return value


def _fields(raw: bytes) -> tuple[dict[str, str], int]:
    """The `field = value` lines up to ElementDataFile, and where they end."""
    fields: dict[str, str] = {}
    position = 0
    while (newline := raw.find(b"\n", position)) >= 0:
        line = raw[position:newline].decode("latin-1")
        position = newline + 1
        field, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            break
        if field in fields:
            raise bad_field("HEADER_DAMAGED", field, "is given twice")
        fields[field] = value
        if field == "ElementDataFile":
            break
    return fields, position


def _affine(fields: dict[str, str]) -> Affine | None:
    matrix = next((f for f in ("TransformMatrix", "Orientation", "Rotation") if f in fields), None)
    origin = next((f for f in ("Offset", "Position", "Origin") if f in fields), None)
    if matrix is None or origin is None or "ElementSpacing" not in fields:
        return None
    # Each row of TransformMatrix is the direction of one voxel axis.
    directions = numbers_of(fields[matrix], 9, field=matrix).reshape(3, 3).T
    affine = np.eye(4)
    affine[:3, :3] = directions * numbers_of(fields["ElementSpacing"], 3, field="ElementSpacing")
    affine[:3, 3] = numbers_of(fields[origin], 3, field=origin)
    return checked_affine(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
