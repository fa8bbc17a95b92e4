"""Tables of labels beside masks, as viewers read them: `labels.txt` of ITK-SNAP and `labels.ctbl` of 3D Slicer.

Source:
    ITK-SNAP, "Save Label Descriptions": the header that it writes above its columns. 3D Slicer, developer guide,
    Colors: the legacy colour table, `value name R G B A`, where a name has no space.
"""

from collections.abc import Sequence
from pathlib import Path

from medfcn.files import write_bytes
from medfcn.volumes.formats.nifti_labels import TableLabel

_MARK = "# Written by medfcn"
_RULE = "#" * 48
_SNAP = f"""{_RULE}
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
# Fields:
#    IDX:   Zero-based index
#    -R-:   Red color component (0..255)
#    -G-:   Green color component (0..255)
#    -B-:   Blue color component (0..255)
#    -A-:   Label transparency (0.00 .. 1.00)
#    VIS:   Label visibility (0 or 1)
#    IDX:   Label mesh visibility (0 or 1)
#  LABEL:   Label description
{_MARK}
{_RULE}
"""


def itk_snap_table(labels: Sequence[TableLabel]) -> str:
    """The text of `labels.txt`."""
    lines = ['    0     0    0    0        0  0  0    "Clear Label"']
    for label in labels:
        red, green, blue = label.rgb
        name = label.line.replace('"', "'")
        lines.append(f'{label.value:5d} {red:5d} {green:4d} {blue:4d}        1  1  1    "{name}"')
    return _SNAP + "\n".join(lines) + "\n"


def slicer_table(labels: Sequence[TableLabel]) -> str:
    """The text of `labels.ctbl`."""
    lines = [_MARK, f"# {len(labels) + 1} values", "0 background 0 0 0 0"]
    for label in labels:
        lines.append(" ".join(map(str, (label.value, "_".join(label.line.split()) or "_", *label.rgb, 255))))
    return "\n".join(lines) + "\n"


def write_label_tables(labels: Sequence[TableLabel], *, itk_snap: Path, slicer: Path) -> None:
    """Write both tables, unless they are there already, or somebody's own are.

    Args:
        labels: The labels.
        itk_snap: The file for ITK-SNAP.
        slicer: The file for 3D Slicer.
    """
    for path, text in ((itk_snap, itk_snap_table(labels)), (slicer, slicer_table(labels))):
        try:
            found = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            found = _MARK
        if _MARK in found and found != text:
            write_bytes(path, text.encode())
