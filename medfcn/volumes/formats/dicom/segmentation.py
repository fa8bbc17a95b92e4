"""DICOM segmentations: each segment as a mask on the grid of an image, whatever frames were left out.

A frame is placed by its own position and orientation. Pixels that no frame covers are background.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import GeometryMismatchError, LabelError, VolumeError, naming
from medfcn.text import counted, shown
from medfcn.volumes.formats.dicom.header import dataset_of
from medfcn.volumes.formats.dicom.library import guarded
from medfcn.volumes.formats.dicom.pixels import iter_bits, iter_frames
from medfcn.volumes.geometry import ASSUMED_DIRECTIONS, NEAR_GRID_VOXELS, SAME_GRID_VOXELS, Affine, Shape

_DAMAGED = "its header cannot be read as a segmentation"


@dataclass(frozen=True, eq=False)
class SegmentFrame:
    """One frame of a segmentation.

    Attributes:
        index: Its number in the file, from 0.
        segment: The number of the segment that it shows; 0 where its pixels are numbers of segments.
        affine: `(4, 4)`, takes (column, row, 0, 1) to RAS+ millimetres.
    """

    index: int
    segment: int
    affine: Affine


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The header of a segmentation.

    Attributes:
        path: The file.
        names: Number of each segment by its name.
        kind: `BINARY`, `FRACTIONAL` or `LABELMAP`.
        full: The number of a pixel that is wholly inside; 1 unless fractional.
        bits: Bits of a stored pixel.
        shape: `(columns, rows)`.
        frames: In the order in which they are stored.
    """

    path: Path
    names: Mapping[str, int]
    kind: str
    full: int
    bits: int
    shape: tuple[int, int]
    frames: tuple[SegmentFrame, ...]


def read_segmentation(path: Path) -> Segmentation:
    """The header of a segmentation; that of the file read last is kept.

    Raises:
        VolumeError: It is damaged, or a frame says neither where it is nor which segment it shows.
    """
    found = path.stat()
    return _read_header(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=4)
def _read_header(path: Path, size: int, time: int) -> Segmentation:
    with naming(shown(path)), guarded(_DAMAGED, "export it again"):
        content = dataset_of(path)
        kind = str(content.get("SegmentationType", "") or "")
        if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
            raise VolumeError(
                f"SegmentationType is {kind or 'not stated'}; export it again", field="SegmentationType"
            )
        full = int(content.MaximumFractionalValue) if kind == "FRACTIONAL" else 1
        return Segmentation(
            path,
            _names_of(content),
            kind,
            full,
            int(content.BitsAllocated),
            (int(content.Columns), int(content.Rows)),
            tuple(_frames_of(content, kind)),
        )


def _names_of(content: Any) -> dict[str, int]:
    names: dict[str, int] = {}
    for item in content.get("SegmentSequence") or ():
        number = int(item.SegmentNumber)
        if number == 0:  # the background of a label map
            continue
        name = str(item.get("SegmentLabel", "") or "").strip() or f"segment {number}"
        names[name if name not in names else f"{name} {number}"] = number
    if not names:
        raise LabelError("has no segments; export it again", field="SegmentSequence")
    return names


def _frames_of(content: Any, kind: str) -> list[SegmentFrame]:
    shared = next(iter(content.get("SharedFunctionalGroupsSequence") or ()), None)
    frames = []
    for index, own in enumerate(content.get("PerFrameFunctionalGroupsSequence") or ()):
        item = partial(_item, own, shared, index)
        segment = 0 if kind == "LABELMAP" else int(item("SegmentIdentificationSequence").ReferencedSegmentNumber)
        cosines = np.array([float(number) for number in item("PlaneOrientationSequence").ImageOrientationPatient])
        rows_mm, columns_mm = (float(number) for number in item("PixelMeasuresSequence").PixelSpacing)
        lps = np.eye(4)
        lps[:3, 0], lps[:3, 1] = cosines[:3] * columns_mm, cosines[3:] * rows_mm
        lps[:3, 2] = np.cross(cosines[:3], cosines[3:])
        lps[:3, 3] = [float(number) for number in item("PlanePositionSequence").ImagePositionPatient]
        frames.append(SegmentFrame(index, segment, ASSUMED_DIRECTIONS @ lps))
    return frames


def _item(own: Any, shared: Any, index: int, name: str) -> Any:
    """A functional group of a frame: its own, or the one that all share."""
    found = own.get(name) or (shared.get(name) if shared is not None else None)
    if not found:
        raise VolumeError(f"frame {index + 1} has no {name}; export it again", code="GRID_UNKNOWN", field=name)
    return found[0]


def segment_mask(path: Path, name: str, affine: Affine, shape: Shape) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """The voxels of one segment on the grid of an image, and notes.

    A fractional pixel is inside from half of the largest number on.

    Args:
        path: The segmentation.
        name: Of the segment; see `Segmentation.names`.
        affine: Of the grid.
        shape: Of the grid.

    Raises:
        GeometryMismatchError: A frame is not on the grid.
        VolumeError: The file is damaged.
    """
    found = read_segmentation(path)
    number = found.names[name]
    mask = np.zeros(shape, dtype=bool, order="F")
    wanted = [frame for frame in found.frames if frame.segment in (0, number)]
    farthest, outside = 0.0, 0
    with naming(shown(path)), guarded("its pixels cannot be decoded", "copy it again", "FILE_DAMAGED"):
        numbers = [frame.index for frame in wanted]
        planes = iter_bits(path, numbers, found.shape) if found.bits == 1 else iter_frames(path, numbers)
        for frame, plane in zip(wanted, planes, strict=True):
            inside = plane == number if found.kind == "LABELMAP" else 2 * plane.astype(np.int64) >= found.full
            places, off = _places(frame, affine, found.shape)
            farthest = max(farthest, off)
            if inside.any():
                rows, columns = np.nonzero(inside)
                voxels = places(columns, rows)
                fits = ((voxels >= 0) & (voxels < np.array(shape)[:, None])).all(axis=0)
                outside += int((~fits).sum())
                mask[tuple(voxels[:, fits])] = True
    notes = []
    if farthest >= SAME_GRID_VOXELS:
        notes.append(f"{shown(path)}: up to {farthest:.2g} voxels from the image's grid")
    if outside:
        notes.append(f"{shown(path)}: {counted(outside, 'voxel')} of {name} outside the image")
    return mask, tuple(notes)


def _places(frame: SegmentFrame, affine: Affine, shape: tuple[int, int]) -> tuple[Any, float]:
    """A function from columns and rows of a frame to voxels of a grid, and how far off they are in voxels.

    Raises:
        GeometryMismatchError: Half a voxel or more.
    """
    to_grid = np.linalg.solve(affine, frame.affine)
    turned = np.rint(to_grid[:3, :2])
    start = np.rint(to_grid[:3, 3])
    corners = np.array([[0.0, 0], [shape[0] - 1, 0], [0, shape[1] - 1], [shape[0] - 1, shape[1] - 1]]).T
    exact = to_grid[:3, :2] @ corners + to_grid[:3, 3:]
    off = float(np.linalg.norm(exact - (turned @ corners + start[:, None]), axis=0).max())
    if not off < NEAR_GRID_VOXELS:
        raise GeometryMismatchError(
            f"frame {frame.index + 1} is not on the image's grid ({off:.2g} voxels away); export the segmentation on "
            "the grid of its image"
        )
    whole, origin = turned.astype(int), start.astype(int)
    return lambda columns, rows: whole @ np.stack([columns, rows]) + origin[:, None], off
