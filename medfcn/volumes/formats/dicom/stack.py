"""Slices → one grid: the order and the affine that follow from each slice's own position and orientation.

Positions are measured along the normal of the slices. A stack that is not even is refused with its millimetres; the
stated slice thickness is no spacing and decides nothing where there are two slices or more.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import GeometryError
from medfcn.text import listed
from medfcn.volumes.formats.dicom.header import Frame
from medfcn.volumes.geometry import ASSUMED_DIRECTIONS, Affine, orientation_of

_SAID_MM = 1e-3
"""A larger distance of a slice from its place in the stack is noted."""
_LEAST_SHARE, _MOST_SHARE = 0.02, 0.05
"""A slice may be this share of the spacing away from its even place: the larger one where positions are rounded to
few digits. Joints between the beds of a whole-body PET need 0.013, positions in tenths of a millimetre up to 0.05."""
_UNIT = 1e-3
"""Tolerance of the length of a direction cosine, and of two that are at right angles."""


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices in order, and their grid.

    Attributes:
        frames: From the lowest position along the normal to the highest.
        affine: To RAS+ millimetres; `i` runs along a row of pixels, `j` along a column, `k` along the normal.
        notes: Assumptions, and how far slices are from their even places.
    """

    frames: tuple[Frame, ...]
    affine: Affine
    notes: tuple[str, ...] = ()


def stack_of(frames: Sequence[Frame], *, shape: tuple[int, int], keep_shear: bool = False) -> Stack:
    """The stack of some slices of one volume.

    Args:
        frames: In any order; at least one.
        shape: `(columns, rows)` of each.
        keep_shear: Accept slices whose positions leave their normal (gantry tilt), as a sheared grid.

    Raises:
        GeometryError: They have several orientations or pixel spacings, or are not one even stack.
    """
    row, column = require_one_orientation(frames, shape)
    normal = np.cross(row, column)
    frames = sorted(frames, key=lambda frame: float(normal @ np.array(frame.position)))
    positions = np.array([frame.position for frame in frames])
    along = positions @ normal
    row_mm, column_mm = frames[0].spacing
    notes: list[str] = []
    if len(frames) == 1:
        thickness = frames[0].thickness
        if thickness is None:
            found = (
                "one slice, and neither SpacingBetweenSlices nor SliceThickness is stated; export the series again"
            )
            raise GeometryError(found, code="GRID_UNKNOWN", field="SliceThickness")
        step, origin = normal * thickness, positions[0]
        notes.append(f"one slice, taken as {thickness:g} mm thick as its header says")
    else:
        origin, step, off = _line(positions)
        _require_even(frames, along, off)
        step = _along_normal(step, normal, len(frames), float(np.median(np.diff(along))), keep_shear, notes)
        if off.max() > _SAID_MM:
            worst = frames[int(off.argmax())].name
            notes.append(f"slices are up to {off.max():.3g} mm ({worst}) from the even stack that they are taken as")
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1], lps[:3, 2], lps[:3, 3] = row * column_mm, column * row_mm, step, origin
    return Stack(tuple(frames), ASSUMED_DIRECTIONS @ lps, tuple(notes))


def normal_of(frame: Frame) -> NDArray[np.float64]:
    """The normal of a slice: of its rows and columns, by the right hand."""
    cosines = np.array(frame.orientation)
    return np.cross(cosines[:3], cosines[3:])


def tolerance_mm(frames: Sequence[Frame], spacing: float) -> float:
    """How far a slice may be from its even place."""
    rounding = 0.6 * 10.0 ** -max(frame.decimals for frame in frames)
    return min(max(rounding, _LEAST_SHARE * spacing), _MOST_SHARE * spacing)


def require_one_orientation(
    frames: Sequence[Frame], shape: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Direction cosines of rows and of columns, which all slices share.

    Raises:
        GeometryError: They differ by more than a twentieth of a pixel at the far corner, or are no cosines.
    """
    cosines = np.array([frame.orientation for frame in frames])
    spacings = np.array([frame.spacing for frame in frames])
    if float(np.ptp(spacings, axis=0).max()) > 1e-4 * float(spacings.min()):
        numbers = Counter("x".join(f"{mm:g}" for mm in frame.spacing) for frame in frames)
        texts = (f"{text} mm in {count}" for text, count in numbers.items())
        message = f"slices of several pixel spacings ({listed(texts)} slices); give one volume"
        raise GeometryError(message, code="SLICES_MIXED", field="PixelSpacing")
    extent = max(shape[0] * spacings[0, 1], shape[1] * spacings[0, 0])
    if float(np.ptp(cosines, axis=0).max()) * extent > _MOST_SHARE * float(spacings.min()):
        raise GeometryError(_mixed(frames), code="SLICES_MIXED", field="ImageOrientationPatient")
    mean = cosines.mean(axis=0)
    row, column = mean[:3], mean[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1.0) for length in lengths) > _UNIT or abs(float(row @ column)) > _UNIT:
        found = "are not of length 1 and at right angles; export the series again"
        raise GeometryError(
            f"the directions of ImageOrientationPatient {found}", code="GRID_BROKEN", field="ImageOrientationPatient"
        )
    return row, column


def _mixed(frames: Sequence[Frame]) -> str:
    """Slices of several orientations, in words: how many of each, and an example."""
    groups: dict[tuple[float, ...], list[Frame]] = {}
    for frame in frames:
        groups.setdefault(tuple(round(number, 2) + 0.0 for number in frame.orientation), []).append(frame)
    texts = (f"{len(part)} {_plane(part[0])} ({part[0].name})" for part in groups.values())
    return f"slices of several orientations: {listed(texts)}; give one volume, each in a series or folder of its own"


def _plane(frame: Frame) -> str:
    matrix = np.eye(4)
    cosines = np.array(frame.orientation)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 2] = cosines[:3], cosines[3:], normal_of(frame)
    if abs(np.linalg.det(matrix)) < 0.5:
        return "of broken directions"
    return {"S": "axial", "I": "axial", "A": "coronal", "P": "coronal"}.get(orientation_of(matrix)[2], "sagittal")


def _line(positions: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The even line through some positions by least squares: origin, step, and each one's distance from its place."""
    places = np.arange(len(positions), dtype=np.float64)
    centred = places - places.mean()
    mean = positions.mean(axis=0)
    step = centred @ (positions - mean) / float(centred @ centred)
    origin = mean - places.mean() * step
    off = np.linalg.norm(positions - origin - places[:, None] * step, axis=1)
    return origin, step, off


def _require_even(frames: Sequence[Frame], along: NDArray[np.float64], off: NDArray[np.float64]) -> None:
    """Refuse doubled, missing and unevenly spaced slices, and those that are beside the line of the others."""
    gaps = np.diff(along)
    spacing = float(np.median(gaps))
    allowed = tolerance_mm(frames, spacing) if spacing > 0 else 0.0
    same = np.flatnonzero(gaps <= max(allowed, 1e-6))
    if len(same):
        first = int(same[0])
        others = f" (and {len(same) - 1} more)" if len(same) > 1 else ""
        raise GeometryError(
            f"two slices at {along[first]:.2f} mm: {frames[first].name}, {frames[first + 1].name}{others}; keep one",
            code="SLICE_DOUBLED",
            field="ImagePositionPatient",
        )
    if off.max() <= allowed:
        return
    wide = np.flatnonzero(np.abs(gaps - spacing) > allowed)
    if not len(wide):
        worst = int(off.argmax())
        raise GeometryError(
            f"{frames[worst].name} at {along[worst]:.2f} mm is {off[worst]:.3g} mm beside the line of the others; "
            "export the series again",
            code="SLICES_UNEVEN",
            field="ImagePositionPatient",
        )
    first = int(wide[0])
    where = (
        f"between {frames[first].name} at {along[first]:.2f} mm and {frames[first + 1].name} at "
        f"{along[first + 1]:.2f} mm"
    )
    times = gaps[wide] / spacing
    whole = np.round(times)
    if (whole >= 2).all() and (np.abs(times - whole) * spacing <= whole * allowed).all():
        missing = int((whole - 1).sum())
        others = f" (and in {len(wide) - 1} more gaps)" if len(wide) > 1 else ""
        raise GeometryError(
            f"{missing} slice{'s are' if missing > 1 else ' is'} missing, {where}{others}: the others are "
            f"{spacing:.2f} mm apart; export the whole series",
            code="SLICE_MISSING",
            field="ImagePositionPatient",
        )
    raise GeometryError(
        f"slices are unequally spaced, {gaps.min():.2f} to {gaps.max():.2f} mm: {gaps[first]:.2f} mm {where}; export "
        "an evenly spaced series",
        code="SLICES_UNEVEN",
        field="ImagePositionPatient",
    )


def _along_normal(
    step: NDArray[np.float64],
    normal: NDArray[np.float64],
    count: int,
    spacing: float,
    keep_shear: bool,
    notes: list[str],
) -> NDArray[np.float64]:
    """The step from slice to slice, if it is along their normal or a shear is to be kept.

    Raises:
        GeometryError: It is not.
    """
    aside = step - normal * float(step @ normal) / float(normal @ normal)
    drift = float(np.linalg.norm(aside)) * (count - 1)
    if drift <= _MOST_SHARE * spacing:
        return step
    degrees = float(np.degrees(np.arctan2(np.linalg.norm(aside), step @ normal)))
    found = (
        f"positions leave the normal of the slices by {drift:.2f} mm over the stack (gantry tilt of {degrees:.1f}°)"
    )
    if not keep_shear:
        raise GeometryError(
            f"{found}; pass --xform sform to keep it as a sheared grid, or correct the tilt",
            code="GANTRY_TILT",
            field="ImagePositionPatient",
        )
    notes.append(f"{found}: kept as a sheared grid")
    return step
