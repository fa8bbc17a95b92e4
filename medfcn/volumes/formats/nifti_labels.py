"""The label table in the header of a NIfTI mask: values, names and colours, as an extension.

It is the extension that TotalSegmentator writes and 3D Slicer shows: the label table of Caret and the Connectome
Workbench, in an extension of code 0. Names and colours are those of the model's labels, nothing of the source.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medfcn.text import without_breaks
from medfcn.volumes.formats.nifti_header import ByteOrder

LABEL_INTENT = 1002
"""The intent code of a volume whose values are labels: viewers must not interpolate between them."""
_STEP = 16
"""An extension's length is a multiple of it."""


class TableLabel(NamedTuple):
    """One value of a mask.

    Attributes:
        value: The value.
        name: The label that it stands for.
        colour: Its colour, as `#E69F00`.
    """

    value: int
    name: str
    colour: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green and blue, 0 to 255.

        Example:
            >>> TableLabel(1, "organ", "#E69F00").rgb
            (230, 159, 0)
        """
        red, green, blue = bytes.fromhex(self.colour[1:])
        return red, green, blue

    @property
    def line(self) -> str:
        """The name on one line."""
        return without_breaks(self.name)


def label_extension(labels: Sequence[TableLabel], byte_order: ByteOrder) -> bytes:
    """The extension with a label table; empty for no label.

    Args:
        labels: The labels.
        byte_order: That of the header.
    """
    if not labels:
        return b""
    lines = "".join(_line(label) for label in labels)
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<CaretExtension><VolumeInformation Index="0">\n<LabelTable>\n'
        f"{lines}</LabelTable>\n<StudyMetaDataLinkSet></StudyMetaDataLinkSet>"
        "<VolumeType><![CDATA[Label]]></VolumeType></VolumeInformation></CaretExtension>\n"
    ).encode()
    length = -(-(len(text) + 8) // _STEP) * _STEP
    head = np.array([length, 0], dtype=f"{byte_order}i4").tobytes()
    return head + text.ljust(length - 8, b"\0")


def _line(label: TableLabel) -> str:
    red, green, blue = (f"{part / 255:.4f}" for part in label.rgb)
    name = label.line.replace("]]>", "]]]]><![CDATA[>")
    return (
        f'<Label Key="{label.value}" Red="{red}" Green="{green}" Blue="{blue}" Alpha="1"><![CDATA[{name}]]></Label>\n'
    )
