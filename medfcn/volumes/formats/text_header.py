"""Parts that the text headers of NRRD and MetaImage files have in common."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.volumes.formats.refusals import bad_field
from medfcn.volumes.geometry import Affine, Shape


@dataclass(frozen=True, eq=False)
class TextHeader:
    """The content of an NRRD or MetaImage header."""

    shape: Shape
    voxel_type: np.dtype[Any]
    """With the byte order of the file."""
    affine: Affine | None
    """To RAS+ millimetres; None where the header does not say."""
    voxel_path: Path
    voxel_offset: int
    """Where the voxels begin in that file."""
    compression: str
    """`""`, `"gzip"` or `"zlib"`."""


def voxel_file(header: Path, name: str, *, field: str) -> Path:
    """The file that a detached header names; it must be beside the header.

    Raises:
        VolumeError: The name leads elsewhere, or stands for several files.
    """
    if not name or any(mark in name for mark in "/\\\0%") or name.split()[0] in ("LIST", "LOCAL"):
        raise bad_field("HEADER_DAMAGED", field, f"is {name!r}; expected one file beside the header")
    return header.with_name(name)


def three_positive(text: str, *, field: str) -> Shape:
    """Three sizes of a volume.

    Raises:
        VolumeError: There are more or fewer, or one is not a positive whole number.
    """
    numbers = text.split()
    if len(numbers) != 3 or not all(n.isascii() and n.isdigit() and len(n) < 10 and int(n) > 0 for n in numbers):
        raise bad_field("SHAPE", field, f"is {text!r}; expected three positive sizes", "export it as 3D")
    return int(numbers[0]), int(numbers[1]), int(numbers[2])


def numbers_of(text: str, count: int, *, field: str) -> NDArray[np.float64]:
    """Some numbers in a text, separated by blanks.

    Raises:
        GeometryError: There are not that many, or they are no numbers.
    """
    try:
        numbers = np.array([float(part) for part in text.split()])
    except ValueError:
        numbers = np.array([])
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise bad_field("GRID_BROKEN", field, f"is {text!r}; expected {count} numbers")
    return numbers
