"""A volume: voxels and their grid, together and read-only."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from medfcn.errors import GeometryMismatchError, VolumeError, naming
from medfcn.scratch import parts
from medfcn.volumes import geometry
from medfcn.volumes.formats.nifti import nibabel_image
from medfcn.volumes.formats.nifti_header import NiftiGeometry
from medfcn.volumes.formats.nifti_labels import TableLabel
from medfcn.volumes.formats.nifti_writing import write_nifti
from medfcn.volumes.geometry import (
    NEAR_GRID_VOXELS,
    Affine,
    Shape,
    Spacing,
    checked_affine,
    corner_displacement_mm,
    corner_displacement_voxels,
)


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels on a grid in RAS+ millimetres.

    Args:
        array: `(I, J, K)` numbers or booleans; kept as a read-only view, in native byte order. Volumes that
            were read are contiguous along `i` (Fortran order), as their files are.
        affine: `(4, 4)` float64; takes `(i, j, k, 1)` to RAS+ millimetres.
        name: The file's name without folder and extension, for messages.
        header: The geometry fields of the file this grid was read from, to be written back as they were.
        sha256: Hash of the bytes of the file it was read from; for two files (a `.hdr`/`.img` pair), of the
            two hashes, one after the other.
        notes: Assumptions, choices and filled voxels of the reading, for a caller to show once.
        labels: Values, names and colours of a mask that was predicted; `save` writes them.

    Raises:
        VolumeError: `array` is not three-dimensional, is empty, or does not contain real numbers.
        GeometryError: `affine` is not the affine of a grid.

    Example:
        >>> volume = Volume(np.zeros((2, 3, 4)), np.diag([-1.0, 1.0, 2.5, 1.0]), name="case_017")
        >>> volume.shape, volume.spacing_mm, volume.orientation, volume.voxel_ml
        ((2, 3, 4), (1.0, 1.0, 2.5), 'LAS', 0.0025)
    """

    array: NDArray[Any]
    affine: Affine
    name: str = ""
    header: NiftiGeometry | None = None
    sha256: str = ""
    notes: tuple[str, ...] = ()
    labels: tuple[TableLabel, ...] = ()

    def __post_init__(self) -> None:
        array = np.asarray(self.array)
        with naming(self.name or "volume"):
            if array.dtype.kind not in "biuf":
                found = f"voxels of type {array.dtype} are not real numbers; give integers or floats"
                raise VolumeError(found, code="VOXELS_TYPE")
            if array.ndim != 3 or array.size == 0:
                found = f"array shape {array.shape} is not that of a volume; expected (I, J, K)"
                raise VolumeError(found, code="SHAPE")
            affine = checked_affine(self.affine)
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        array = array.view()
        array.flags.writeable = False
        affine.flags.writeable = False
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "affine", affine)

    def __reduce__(self) -> tuple[Any, ...]:
        # Through the constructor, so that a copy in another process is read-only too.
        return type(self), (self.array, self.affine, self.name, self.header, self.sha256, self.notes, self.labels)

    def __repr__(self) -> str:
        edges = " x ".join(f"{edge:.4g}" for edge in self.spacing_mm)
        return f"Volume({self.name!r}, {self.array.dtype} {self.shape}, {edges} mm, {self.orientation})"

    @property
    def shape(self) -> Shape:
        """`(I, J, K)`."""
        return self.array.shape[0], self.array.shape[1], self.array.shape[2]

    @property
    def spacing_mm(self) -> Spacing:
        """Voxel edge lengths along `i`, `j`, `k`."""
        return geometry.spacing_mm(self.affine)

    @property
    def orientation(self) -> str:
        """Where the axes mostly point, such as `"RAS"`."""
        return geometry.orientation_of(self.affine)

    @property
    def voxel_ml(self) -> float:
        """The volume of one voxel in millilitres, shear included."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def is_constant(self) -> bool:
        """True if every voxel has the same value; ends at the first slice with another one."""
        first = self.array[0, 0, 0]
        if not any(self.array.strides):  # of one place in memory
            return True
        return all(bool((part == first).all()) for _, part in parts(self.array))

    @property
    def is_oblique(self) -> bool:
        """True if the axes are not along those of the world."""
        return geometry.is_oblique(self.affine)

    @property
    def is_sheared(self) -> bool:
        """True if the axes are not at right angles."""
        return geometry.is_sheared(self.affine)

    def with_array(self, array: ArrayLike) -> "Volume":
        """Other voxels on the same grid, such as a mask on its image's.

        Raises:
            GeometryMismatchError: `array` has another shape.
        """
        other = np.asarray(array)
        if other.shape != self.shape:
            found = f"{self.name or 'volume'}: array shape {other.shape} differs from the grid's {self.shape}"
            raise GeometryMismatchError(found, code="SHAPE_DIFFERS")
        return replace(self, array=other, sha256="", notes=(), labels=())

    def reordered_to(self, grid: "Volume") -> "Volume":
        """The same voxels in the order in which another volume stores the same place.

        Axes are exchanged and reversed, and no voxel is interpolated. `notes` say so.

        Args:
            grid: The volume whose order is wanted, such as the image of this label.

        Returns:
            This volume where it is in that order already, and where no order brings it to within half a voxel:
            `require_same_grid` refuses it then.

        Example:
            >>> image = Volume(np.zeros((2, 3, 1)), np.eye(4))
            >>> along_y_first = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
            >>> Volume(np.arange(6).reshape(3, 2, 1), along_y_first).reordered_to(image).array[..., 0].tolist()
            [[0, 2, 4], [1, 3, 5]]
        """
        if _is_near(grid, self):
            return self
        order, signs = geometry.axis_order(grid.affine, self.affine)
        to_self = np.zeros((4, 4))
        to_self[3, 3] = 1.0
        for axis, (source, sign) in enumerate(zip(order, signs, strict=True)):
            to_self[source, axis] = sign
            to_self[source, 3] = 0.0 if sign > 0 else self.shape[source] - 1.0
        flips = tuple(slice(None, None, sign) for sign in signs)
        array = np.asfortranarray(self.array.transpose(order)[flips])
        note = f"stored in the order {self.orientation}, not {grid.orientation} as what it belongs to: re-ordered"
        other = replace(self, array=array, affine=self.affine @ to_self, header=None, notes=(*self.notes, note))
        return other if _is_near(grid, other) else self

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """The voxels, for `numpy.asarray(volume)`; read-only unless `copy` is true."""
        if copy is None:  # numpy 1 knows no such value
            return np.asarray(self.array, dtype=dtype)
        return np.array(self.array, dtype=dtype, copy=copy)

    def to_nibabel(self) -> Any:
        """The same volume as a nibabel image: its voxels, and a header with its geometry and nothing else."""
        return nibabel_image(self.array, self.affine, self.header)

    def save(
        self, path: str | os.PathLike[str], *, overwrite: bool = False, labels: Sequence[TableLabel] | None = None
    ) -> Path:
        """Write the volume as `.nii.gz` or `.nii`, whole or not at all.

        A volume on the grid of the file it was read from gets that file's dim, pixdim, qform, sform, codes and
        units byte for byte, in the same byte order, and no text or extension but `labels`. A volume made from an
        array and an affine gets an sform with code 2, and a qform where there is no shear. Integers are stored in
        the smallest unsigned type that holds them (signed if any is negative), floats as float32 or float64. Equal
        volumes give equal bytes. The file is read back and compared before it takes its final name.

        Args:
            path: The file.
            overwrite: Replace an existing file.
            labels: For a mask, values, names and colours: the header gets a label table, which viewers show, and the
                intent code of labels. None takes the volume's own, which a predicted mask has; `()` writes neither.

        Returns:
            The path.

        Raises:
            OutputExistsError: The file exists, and `overwrite` is false.
            VolumeError: The name does not end in `.nii` or `.nii.gz`.
            OSError: The disk is full, may not be written to, or returned other bytes.
        """
        table = self.labels if labels is None else labels
        return write_nifti(path, self.array, self.affine, self.header, overwrite=overwrite, labels=table)


class NibabelImage(Protocol):
    """Any image of nibabel, as far as medfcn reads it."""

    dataobj: Any
    """The voxels, or a proxy that reads them."""
    affine: Any
    """`(4, 4)`, or None."""
    header: Any


VolumeLike = str | os.PathLike[str] | Volume | NibabelImage | tuple[ArrayLike, ArrayLike]
"""Anything that `as_volume` turns into a volume: a path, a `Volume`, a nibabel image, or an array with its affine."""


def _is_near(grid: Volume, other: Volume) -> bool:
    """True if a volume has the shape of another, and its corners are less than half a voxel away."""
    if grid.shape != other.shape:
        return False
    return corner_displacement_voxels(grid.affine, other.affine, grid.shape) < NEAR_GRID_VOXELS


def require_same_grid(image: "Volume", label: "Volume") -> float:
    """Check that a label is on its image's grid.

    Up to a displacement of 0.05 voxels the grids are the same. Up to 0.5 voxels the label is accepted, and the
    caller records the displacement. From 0.5 voxels on it is refused, and so is a label in another order
    of axes: see `Volume.reordered_to`.

    Returns:
        The largest displacement of a corner, in voxels of the image.

    Raises:
        GeometryMismatchError: The shapes differ, or the corners are half a voxel or more apart.
    """
    who = image.name or "the image"
    other = f"label {label.name}" if label.name and label.name != image.name else "label"
    if image.shape != label.shape:
        raise GeometryMismatchError(
            f"{who}: {other} shape {label.shape} differs from image shape {image.shape}; "
            "re-export the label on the image's grid",
            code="SHAPE_DIFFERS",
        )
    voxels = corner_displacement_voxels(image.affine, label.affine, image.shape)
    # Written so that a displacement that is not a number is refused as well.
    if voxels < NEAR_GRID_VOXELS:
        return voxels
    distance = corner_displacement_mm(image.affine, label.affine, image.shape)
    turned = f", orientation {label.orientation} against {image.orientation}"
    raise GeometryMismatchError(
        f"{who}: {other} is {distance:.3g} mm ({voxels:.3g} voxels) away from the image"
        f"{turned if label.orientation != image.orientation else ''}; "
        "resample or re-export the label on the image's grid"
    )
