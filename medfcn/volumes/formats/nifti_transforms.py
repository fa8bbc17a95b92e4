"""The two transforms of a NIfTI header, and the choice between them."""

from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import GeometryError
from medfcn.volumes.formats.refusals import bad_field
from medfcn.volumes.geometry import (
    ASSUMED_DIRECTIONS,
    FARTHEST_MM,
    SHORTEST_MM,
    Affine,
    Shape,
    checked_affine,
    corner_displacement_mm,
    corner_displacement_voxels,
    directions_text,
    is_sheared,
    spacing_mm,
)
from medfcn.volumes.options import ReadOptions

DISAGREEMENT_VOXELS = 0.1
"""From this displacement of a corner on, qform and sform disagree."""
NOTED_EDGES = 0.02
"""From this displacement of a corner on, in shortest voxel edges, a reader that takes the other one is mentioned."""
SPACING_TOLERANCE = 0.01
"""Largest accepted difference of pixdim and the affine's spacing, relative to the spacing."""
_CODES = range(6)
LONGEST_QUATERNION = 1.0 + 2e-5
"""Squared length of b, c, d up to which they are taken for a rounded unit quaternion, and normalised."""
_EXPORT = "re-export the file"
_UNIT = 1.0 + 3.0 * float(np.finfo(np.float32).eps)
ROUNDING = 4.0 * float(np.finfo(np.float32).eps)
"""Largest change of b² + c² + d² from rounding to float32, with room for the rounding of the writer."""


@dataclass(frozen=True, eq=False)
class RawTransforms:
    """The fields of a header that place its voxels, as float64, in the file's own unit of length."""

    pixdim: NDArray[np.float64]
    """`(8,)`; the first is the handedness of the qform."""
    qform_code: int
    sform_code: int
    quaternion: NDArray[np.float64]
    """`(3,)`: b, c, d."""
    offset: NDArray[np.float64]
    """`(3,)`"""
    rows: NDArray[np.float64]
    """`(3, 4)`: srow_x, srow_y, srow_z."""

    def sform(self) -> Affine:
        """The sform's affine, checked."""
        if not np.isfinite(self.rows).all():
            raise bad_field("GRID_BROKEN", "srow", f"contains NaN or infinity (sform_code {self.sform_code})")
        return checked_affine(np.vstack([self.rows, [0.0, 0.0, 0.0, 1.0]]), field="srow")

    def qform(self, *, a: float | None = None) -> Affine:
        """The qform's affine, checked; with `a` in place of what b, c, d leave to length 1.

        Source:
            nifti1.h, "METHOD 2"; a norm of the quaternion up to 3 float32 roundings above 1 is taken as 1, see
            `repaired` for more.
        """
        for field, numbers in (("quatern", self.quaternion), ("qoffset", self.offset)):
            if not np.isfinite(numbers).all():
                found = f"contains NaN or infinity (qform_code {self.qform_code})"
                raise bad_field("GRID_BROKEN", field, found, self.remedy)
        handedness = float(self.pixdim[0])
        if handedness not in (-1.0, 0.0, 1.0):
            raise bad_field("GRID_PIXDIM", "pixdim[0]", f"is {handedness:g}; expected 1 or -1 (qfac)", self.remedy)
        length = self.quaternion_length
        if not length <= _UNIT:
            found = f"has the squared length {length:.6g}; expected at most 1"
            raise bad_field("GRID_BROKEN", "quatern", found, self.remedy)
        affine = np.eye(4)
        edges = self.pixdim[1:4] * [1.0, 1.0, -1.0 if handedness < 0 else 1.0]
        with np.errstate(invalid="ignore"):  # an infinite length is refused below
            affine[:3, :3] = rotation_of(self.quaternion, a) * edges
        affine[:3, 3] = self.offset
        return checked_affine(affine, field="qform")

    @property
    def remedy(self) -> str:
        """How to get past a broken qform."""
        return (
            "pass --xform sform to take the sform as it is, or re-export the file" if self.sform_code > 0 else _EXPORT
        )

    @property
    def quaternion_length(self) -> float:
        """The squared length of b, c, d."""
        return float(np.square(np.clip(self.quaternion, -9.0, 9.0)).sum())

    def repaired(self) -> "tuple[RawTransforms, tuple[str, ...]]":
        """The same without what other readers pass over, and a note on each change.

        A quaternion too long by rounding is normalised, as nifti1_io does. A voxel length that is NaN, zero or
        negative is none: that of the sform takes its place, where there is one.
        """
        quaternion, pixdim, notes = self.quaternion, self.pixdim.copy(), []
        length = self.quaternion_length
        if self.qform_code > 0 and _UNIT < length <= LONGEST_QUATERNION:
            quaternion = quaternion / np.sqrt(length)
            notes.append(f"the quaternion's squared length is {length:.8g}: normalised")
        absent = np.isnan(pixdim[:4])
        absent[1:] |= pixdim[1:4] <= 0.0
        if self.sform_code > 0 and absent.any():
            with suppress(GeometryError):
                sform = self.sform()
                handedness = 1.0 if np.linalg.det(sform[:3, :3]) > 0 else -1.0
                for axis in np.flatnonzero(absent):
                    pixdim[axis] = [handedness, *spacing_mm(sform)][axis]
                    notes.append(f"pixdim[{axis}] is {self.pixdim[axis]:g}: {pixdim[axis]:.6g} taken from the sform")
        return replace(self, quaternion=quaternion, pixdim=pixdim), tuple(notes)

    def assumed(self) -> Affine:
        """The grid of a file without transforms: spacing from pixdim, directions as ITK 5.4 assumes them, origin 0.

        nifti1.h, "METHOD 1", lets i run to the right, and no reader does.
        """
        return ASSUMED_DIRECTIONS @ np.diag([*self.pixdim[1:4], 1.0])

    def candidates(self) -> list[Affine]:
        """Every affine that a reader may have taken from these transforms."""
        found: list[Affine] = []
        usable, _ = self.repaired()
        for code, transform in ((self.sform_code, usable.sform), (self.qform_code, usable.qform)):
            if code != 0:
                with suppress(GeometryError):
                    found.append(transform())
        return found or [self.assumed()]


def rotation_of(quaternion: NDArray[np.float64], a: float | None = None) -> NDArray[np.float64]:
    """The `(3, 3)` rotation of a unit quaternion given by its b, c, d.

    Args:
        quaternion: b, c, d.
        a: What is missing to length 1, if it is known better than by subtraction.

    Example:
        >>> rotation_of(np.array([0.0, 0.0, 1.0])).tolist()
        [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    b, c, d = (float(part) for part in quaternion)
    if a is None:
        a = max(1.0 - (b * b + c * c + d * d), 0.0) ** 0.5
    scale = 2.0 / (a * a + b * b + c * c + d * d)
    return np.array(
        [
            [1 - scale * (c * c + d * d), scale * (b * c - a * d), scale * (b * d + a * c)],
            [scale * (b * c + a * d), 1 - scale * (b * b + d * d), scale * (c * d - a * b)],
            [scale * (b * d - a * c), scale * (c * d + a * b), 1 - scale * (b * b + c * c)],
        ]
    )


def quaternion_of(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """The b, c, d of a `(3, 3)` rotation, with a not negative.

    Source:
        Bar-Itzhack, Journal of Guidance, Control, and Dynamics 23(6), 2000: the eigenvector of the largest
        eigenvalue of a 4 x 4 matrix, which no rotation makes ill-conditioned.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation.tolist()
    matrix = np.array(
        [
            [xx - yy - zz, yx + xy, zx + xz, zy - yz],
            [yx + xy, yy - xx - zz, zy + yz, xz - zx],
            [zx + xz, zy + yz, zz - xx - yy, yx - xy],
            [zy - yz, xz - zx, yx - xy, xx + yy + zz],
        ]
    )
    b, c, d, a = np.linalg.eigh(matrix)[1][:, 3]
    return np.array([b, c, d]) * (-1.0 if a < 0 else 1.0)


def choose_affine(
    transforms: RawTransforms, shape: Shape, *, options: ReadOptions, millimetres: float
) -> tuple[Affine, tuple[str, ...]]:
    """The one affine, in millimetres, that a header's transforms agree on, and notes on what was chosen.

    Args:
        transforms: Both transforms of the header.
        shape: Of one volume.
        options: Which transform to use, and whether a grid may be assumed.
        millimetres: Length of the file's unit.

    Raises:
        GeometryError: There is none, it is broken, pixdim contradicts it, or qform and sform disagree by more
            than a tenth of a voxel and none was chosen.
    """
    transforms, repairs = transforms.repaired()
    by_sform = transforms.sform_code > 0 and options.xform == "sform"
    for axis, edge in enumerate(transforms.pixdim[1:4].tolist(), start=1):
        if not (by_sform or SHORTEST_MM <= edge <= FARTHEST_MM):
            found = f"is {edge:g}; expected a positive length"
            raise bad_field("GRID_PIXDIM", f"pixdim[{axis}]", found, transforms.remedy)
    for field, code in (("qform_code", transforms.qform_code), ("sform_code", transforms.sform_code)):
        if code not in _CODES:
            raise bad_field("GRID_BROKEN", field, f"is {code}; expected 0 to 5; the header is damaged")
    notes: tuple[str, ...] = ()
    if transforms.qform_code == 0 and transforms.sform_code == 0:
        if not options.assume_grid:
            found = "and sform_code are both 0, so left and right are not known"
            remedy = f"re-export the file, or pass --assume-grid to assume that {directions_text(ASSUMED_DIRECTIONS)}"
            raise bad_field("GRID_UNKNOWN", "qform_code", found, remedy)
        affine = transforms.assumed()
        notes = (f"both transform codes 0: assumed that {directions_text(affine)}",)
    elif transforms.sform_code == 0:
        affine = transforms.qform()
    elif transforms.qform_code == 0:
        affine, notes = _sform(transforms, shape, options)
    elif options.xform != "auto":
        affine, notes = _chosen(transforms, shape, options)
    else:
        affine, notes = _agreed(transforms, shape, options, millimetres)
    scaled = affine.copy()
    scaled[:3] *= millimetres
    return checked_affine(scaled), repairs + notes


def _chosen(transforms: RawTransforms, shape: Shape, options: ReadOptions) -> tuple[Affine, tuple[str, ...]]:
    """The requested transform, and a note if the other one says something else."""
    notes: tuple[str, ...] = ()
    if options.xform == "qform":
        chosen, other_form = transforms.qform(), transforms.sform
    else:
        (chosen, notes), other_form = _sform(transforms, shape, options), transforms.qform
    try:
        voxels = corner_displacement_voxels(chosen, other_form(), shape)
    except GeometryError:
        return chosen, (*notes, f"{options.xform} chosen, the other transform is broken")
    if voxels <= DISAGREEMENT_VOXELS:
        return chosen, notes
    return chosen, (*notes, f"{options.xform} chosen, the other transform is {voxels:.3g} voxels away")


def _agreed(
    transforms: RawTransforms, shape: Shape, options: ReadOptions, millimetres: float
) -> tuple[Affine, tuple[str, ...]]:
    """The sform, if the qform says the same; a note where they differ by little."""
    qform = transforms.qform()
    sform, notes = _sform(transforms, shape, options)
    voxels = corner_displacement_voxels(sform, qform, shape)
    if voxels > DISAGREEMENT_VOXELS and (a := _lost_to_rounding(transforms.quaternion, sform)) is not None:
        again = transforms.qform(a=a)
        if (other := corner_displacement_voxels(sform, again, shape)) < voxels:
            qform, voxels = again, other
    distance = corner_displacement_mm(sform, qform, _two_voxels(shape)) * millimetres
    if voxels <= DISAGREEMENT_VOXELS:
        if not notes and distance > NOTED_EDGES * min(spacing_mm(sform)) * millimetres:
            notes = (f"qform and sform differ by {distance:.3g} mm: sform taken",)
        return sform, notes
    distance = corner_displacement_mm(sform, qform, shape) * millimetres
    found = f"disagree by {distance:.3g} mm ({voxels:.3g} voxels)"
    remedy = "choose one with --xform sform or --xform qform, or re-export the file"
    if is_sheared(sform):
        found += "; the sform is sheared, as of a tilted gantry"
        remedy = "pass --xform sform to keep the tilt, or re-export the file"
    raise bad_field("GRID_QFORM_SFORM", "qform and sform", found, remedy)


def _two_voxels(shape: Shape) -> Shape:
    """The shape, with two voxels where there is one: an axis of one voxel has a direction too."""
    i, j, k = (max(size, 2) for size in shape)
    return i, j, k


def _lost_to_rounding(quaternion: NDArray[np.float64], sform: Affine) -> float | None:
    """The first part of the sform's quaternion, if b, c, d rounded to float32 leave room for it.

    Near half a turn (an LPS scan with a little tilt) `a` is the square root of a difference of nearly equal
    numbers: float32 leaves an error of up to 5e-4 in it, 0.3 mm at the edge of a head, which is nobody's
    disagreement.
    """
    rotation = sform[:3, :3] / np.array(spacing_mm(sform))
    if np.linalg.det(rotation) < 0:
        rotation[:, 2] *= -1.0
    best = quaternion_of(rotation)
    squared = max(1.0 - float(best @ best), 0.0)
    left = 1.0 - float(quaternion @ quaternion)
    if abs(squared - left) > ROUNDING:
        return None
    return float(np.sqrt(squared)) * (-1.0 if float(best @ quaternion) < 0 else 1.0)


def _sform(transforms: RawTransforms, shape: Shape, options: ReadOptions) -> tuple[Affine, tuple[str, ...]]:
    """The sform; pixdim must agree with the length of its voxels, unless the sform was asked for by name.

    The slices of a gantry tilt are farther apart along the leaning axis than across: pixdim often has the latter.
    A difference within the tolerance is noted where it moves the last voxel: ITK takes the spacing of pixdim.
    """
    sform = transforms.sform()
    edges, notes = spacing_mm(sform), list[str]()
    for axis, edge in enumerate(edges, start=1):
        claimed = float(transforms.pixdim[axis])
        off = abs(claimed - edge)
        found = f"is {claimed:.6g} but the sform's voxels are {edge:.6g} long"
        if off <= SPACING_TOLERANCE * edge or options.xform == "sform":
            if off * (_two_voxels(shape)[axis - 1] - 1) > NOTED_EDGES * min(edges):
                notes.append(f"pixdim[{axis}] {found}: sform taken")
            continue
        choice = "pass --xform sform to take the sform as it is"
        if is_sheared(sform):
            choice += ", its gantry tilt included"
        elif transforms.qform_code:
            choice += " or --xform qform to take the spacing of pixdim"
        raise bad_field("GRID_PIXDIM", f"pixdim[{axis}]", found, f"{choice}, or re-export the file")
    return sform, tuple(notes)
