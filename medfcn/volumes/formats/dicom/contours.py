"""RTSTRUCT: closed contours in millimetres as masks on the grid of an image, and names of its structures.

A voxel belongs to a structure if its centre is inside: contours of one plane are filled by even and odd, so that one
inside another is a hole, whether it is a contour of its own or joined to the outer one.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import GeometryMismatchError, LabelError, naming
from medfcn.text import counted, shown
from medfcn.volumes.formats.dicom.header import dataset_of
from medfcn.volumes.formats.dicom.library import guarded
from medfcn.volumes.geometry import ASSUMED_DIRECTIONS, Affine, Shape

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_FLAT_VOXELS = 0.1
_ON_SLICE_VOXELS = 0.05
_EDGE = 1e-6


@dataclass(frozen=True, eq=False)
class StructureSet:
    """The structures of an RTSTRUCT.

    Attributes:
        contours: For each structure by name, its closed contours, each `(points, 3)` in RAS+ millimetres.
        others: Number of contours that enclose nothing (points and open lines), by name.
    """

    contours: Mapping[str, tuple[NDArray[np.float64], ...]]
    others: Mapping[str, int]


def read_structure_set(path: Path) -> StructureSet:
    """The contours of a file; those of the file read last are kept.

    Raises:
        VolumeError: It is damaged, or names no structure.
    """
    found = path.stat()
    return _read(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=2)
def _read(path: Path, size: int, time: int) -> StructureSet:
    with naming(shown(path)), guarded("its contours cannot be read", "export it again"):
        content = dataset_of(path)
        names: dict[int, str] = {}
        for item in content.get("StructureSetROISequence") or ():
            number = int(item.ROINumber)
            name = str(item.get("ROIName", "") or "").strip() or f"structure {number}"
            names[number] = name if name not in names.values() else f"{name} {number}"
        if not names:
            raise LabelError("names no structures; export it again", field="StructureSetROISequence")
        contours: dict[str, tuple[NDArray[np.float64], ...]] = dict.fromkeys(names.values(), ())
        others: dict[str, int] = {}
        for item in content.get("ROIContourSequence") or ():
            name = names.get(int(item.ReferencedROINumber), "")
            given = list(item.get("ContourSequence") or ())
            closed = [one for one in given if str(one.get("ContourGeometricType", "")) in _CLOSED]
            if name:
                contours[name] += tuple(_points(one) for one in closed)
                others[name] = others.get(name, 0) + len(given) - len(closed)
        return StructureSet(contours, others)


def _points(contour: Any) -> NDArray[np.float64]:
    numbers = np.array([float(number) for number in contour.ContourData])
    return numbers.reshape(-1, 3) @ ASSUMED_DIRECTIONS[:3, :3]


def contour_mask(path: Path, name: str, affine: Affine, shape: Shape) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """The voxels of one structure on the grid of an image, and notes.

    Args:
        path: The RTSTRUCT.
        name: Of the structure.
        affine: Of the grid.
        shape: Of the grid.

    Raises:
        GeometryMismatchError: A contour is not in a plane of the image's slices, or none is inside the image.
        VolumeError: The file is damaged.
    """
    found = read_structure_set(path)
    mask = np.zeros(shape, dtype=bool, order="F")
    planes: defaultdict[float, list[NDArray[np.float64]]] = defaultdict(list)
    with naming(shown(path)):
        for number, contour in enumerate(found.contours[name], start=1):
            voxels = np.linalg.solve(affine, np.c_[contour, np.ones(len(contour))].T)[:3]
            depth = float(voxels[2].mean())
            if float(np.ptp(voxels[2])) > _FLAT_VOXELS:
                raise GeometryMismatchError(
                    f"contour {number} of {name} is not in the plane of a slice of its image; draw it on the slices"
                )
            planes[round(depth, 3)].append(voxels[:2])
    off = max((abs(depth - round(depth)) for depth in planes), default=0.0)
    outside = 0
    for depth, polygons in planes.items():
        k = int(np.floor(depth + 0.5))
        if 0 <= k < shape[2]:
            mask[:, :, k] |= filled(polygons, (shape[0], shape[1]))
        else:
            outside += len(polygons)
    if planes and outside == sum(map(len, planes.values())):
        found_where = f"{shown(path)}: no contour of {name} is inside the image"
        raise GeometryMismatchError(f"{found_where}; give the image that it was drawn on")
    notes = []
    if off > _ON_SLICE_VOXELS:
        notes.append(f"{shown(path)}: contours up to {off:.2g} slices beside the slices")
    if outside:
        notes.append(f"{shown(path)}: {counted(outside, 'contour')} of {name} outside the image")
    if found.others.get(name):
        notes.append(
            f"{shown(path)}: {counted(found.others[name], 'open contour')} or points of {name} enclose nothing"
        )
    return mask, tuple(notes)


def filled(polygons: Sequence[NDArray[np.float64]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels whose centres are inside an odd number of polygons, those on an edge included.

    Args:
        polygons: Each `(2, points)`, closed by its first point; the centre of a pixel has whole coordinates.
        shape: `(I, J)`.

    Example:
        >>> square = np.array([[0.6, 2.4, 2.4, 0.6], [0.6, 0.6, 2.4, 2.4]])
        >>> filled([square], (4, 4)).astype(int).tolist()
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    crossings = np.zeros((shape[0] + 1, shape[1]), dtype=np.int32)
    for points in polygons:
        starts, ends = points, np.roll(points, -1, axis=1)
        for (x0, y0), (x1, y1) in zip(starts.T, ends.T, strict=True):
            if y0 == y1:
                continue
            low, high = min(y0, y1), max(y0, y1)
            # From the lower end, without the upper one: a corner between two edges is crossed once.
            rows = np.arange(max(int(np.ceil(low - _EDGE)), 0), min(int(np.ceil(high - _EDGE)), shape[1]))
            x = x0 + (rows - y0) * (x1 - x0) / (y1 - y0)
            columns = np.clip(np.ceil(x - _EDGE), 0, shape[0]).astype(int)
            np.add.at(crossings, (columns, rows), 1)
    inside: NDArray[np.bool_] = (np.cumsum(crossings, axis=0)[:-1] % 2).astype(bool)
    return inside
