"""The DICOM series that a mask belongs to, as far as objects that refer to it need it."""

from __future__ import annotations

import copy
import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import GeometryMismatchError
from medfcn.files import atomic_write
from medfcn.labels import LabelMap
from medfcn.text import without_breaks
from medfcn.volumes import ReadOptions, Volume
from medfcn.volumes.formats.dicom.header import dataset_of
from medfcn.volumes.formats.dicom.library import guarded
from medfcn.volumes.formats.dicom.series import SeriesGrid, series_grid
from medfcn.volumes.geometry import SAME_GRID_VOXELS, corner_displacement_voxels

MAKER = "medfcn"


@dataclass(frozen=True, eq=False)
class Source:
    """A series, with the headers of its slices.

    Attributes:
        grid: Its slices in order, and their grid.
    """

    grid: SeriesGrid

    @classmethod
    def of(cls, path: Path, options: ReadOptions) -> Source:
        """The series that a case's image is.

        Raises:
            VolumeError: It is no series, or is refused.
        """
        return cls(series_grid(path, options=options))

    @cached_property
    def datasets(self) -> tuple[Any, ...]:
        """The header of each file, in the order of the slices."""
        files = dict.fromkeys(frame.path for frame in self.grid.stack.frames)
        with guarded("headers of the series cannot be read"):
            return tuple(dataset_of(path) for path in files)

    @property
    def is_multi_frame(self) -> bool:
        """True if slices are frames of one file."""
        return self.grid.stack.frames[0].index >= 0

    def slices_of(self, mask: Volume) -> NDArray[Any]:
        """A mask as `(slices, rows, columns)` in the order of the series' slices.

        Raises:
            GeometryMismatchError: It is on another grid.
        """
        shape, affine = self.grid.shape, self.grid.affine
        if mask.shape != shape or not corner_displacement_voxels(affine, mask.affine, shape) < SAME_GRID_VOXELS:
            raise GeometryMismatchError("the mask is not on the grid of its series; predict it again")
        return mask.array.transpose(2, 1, 0)

    def lps(self, voxels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions in LPS millimetres, `(N, 3)`, of voxel coordinates `(N, 3)`."""
        ras = voxels @ self.grid.affine[:3, :3].T + self.grid.affine[:3, 3]
        positions: NDArray[np.float64] = ras * np.array([-1.0, -1.0, 1.0])
        return positions


def same_patient(content: Any, source: Any) -> None:
    """Give an object the patient's fields of its source, and no other: none is made up, none is left empty anew."""
    for element in [element for element in content if element.tag.group == 0x0010]:
        if element.tag not in source:
            del content[element.tag]
    for element in source:
        if element.tag.group == 0x0010:
            content[element.tag] = copy.deepcopy(element)


def label_masks(mask: NDArray[Any], labels: LabelMap) -> Mapping[str, NDArray[np.bool_]]:
    """The voxels of each label of a predicted mask, by its name."""
    found = {}
    for place, name in enumerate(labels.names, start=1):
        values = [overlap.written for overlap in labels.overlaps if place in overlap.labels]
        found[name] = np.isin(mask, values)
    return found


def name_in_object(name: str) -> str:
    """A label's name as a DICOM long string: 64 characters at most, no line break, no backslash (it parts values).

    Example:
        >>> name_in_object("left\\nkidney"), name_in_object("a\\\\b")
        ('left kidney', 'a/b')
    """
    return without_breaks(name).replace("\\", "/")[:64]


def now() -> tuple[str, str]:
    """The date and the time as DICOM writes them."""
    here = datetime.now().astimezone()
    return here.strftime("%Y%m%d"), here.strftime("%H%M%S")


def software() -> tuple[str, str]:
    """The name and the version of this program."""
    return MAKER, version("medfcn")


def save_dicom(content: Any, path: Path) -> None:
    """Write a DICOM object, whole or not at all."""
    with atomic_write(path) as file, guarded("the object cannot be encoded", "report this"):
        content.save_as(file, enforce_file_format=True)


def uid_of(*parts: str) -> str:
    """A UID that follows from some texts: the same for the same ones, of the form `2.25.` and a UUID's number."""
    digest = hashlib.sha256("\n".join(parts).encode()).digest()[:16]
    return f"2.25.{uuid.UUID(bytes=digest, version=4).int}"
