"""A case turned upright and cropped to its masks: the arrays that the page and the pictures show.

Nothing here decides what is right. Scores are computed elsewhere, from the voxels of the files.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import GeometryMismatchError
from medfcn.labels import IGNORED
from medfcn.volumes import Volume, require_same_grid
from medfcn.volumes.formats.stored import is_of_one_value, of_one_value
from medfcn.volumes.geometry import Spacing, axis_assignment

Triple = tuple[int, int, int]

_MARGIN_MM = 12.0
_SAMPLED_VOXELS = 2_000_000


@dataclass(frozen=True, eq=False)
class CaseVolumes:
    """The volumes of a case that can be shown; any of them may be missing.

    Attributes:
        image: The image.
        reference: The reader's mask. Its values are indices of the labels, or of the overlaps where labels overlap,
            from 1; 0 is background, and `IGNORED` (255) is a voxel that the reference ignores.
        prediction: The network's mask, in the same values, without `IGNORED`.
        notes: Facts that a reader needs, such as the reason why a volume is missing.
        has_reference: True if the case needs a reference, so that differences from it are errors.
        hashes: The SHA-256 of the files, by kind of volume.
        uncertainty: For each voxel the entropy, in bits, of the label of which the model is least sure.
    """

    image: Volume | None = None
    reference: Volume | None = None
    prediction: Volume | None = None
    notes: tuple[str, ...] = ()
    has_reference: bool = True
    hashes: Mapping[str, str] = field(default_factory=dict)
    uncertainty: Volume | None = None


ReadCase = Callable[[str], CaseVolumes]
"""Returns the volumes of a case by its id."""


@dataclass(frozen=True)
class SliceOfCase:
    """One slice across an axis of an upright case.

    Attributes:
        axis: 0 for sagittal, 1 for coronal, 2 for axial.
        index: Its index in the cropped volume.
        area_mm2: Area of the voxels for which it was chosen: those that differ, or those of a mask.
        point: One of these voxels, near their middle.
    """

    axis: int
    index: int
    area_mm2: float
    point: Triple


@dataclass(frozen=True, eq=False)
class UprightCase:
    """A case whose axes run towards right, anterior and superior, as nearly as its grid allows, and cropped.

    Attributes:
        image: `(X, Y, Z)`, any numbers.
        reference: `(X, Y, Z)` indices of labels, and `IGNORED`.
        prediction: `(X, Y, Z)` indices of labels.
        edges_mm: Lengths of a voxel's edges.
        full_shape: Shape of the upright volume before cropping.
        offset: Start of the crop in it.
        to_file: `(4, 4)`; takes indices of the crop to those of the file.
        to_world: `(4, 4)`; takes indices of the crop to RAS+ millimetres.
        is_oblique: True if the slices are only near the named planes.
        window: Grey values that are shown black and white.
        has_reference: True if differences between the masks are errors.
        notes: Facts that a reader needs.
        uncertainty: `(X, Y, Z)` bits of entropy.
    """

    image: NDArray[Any] | None
    reference: NDArray[np.uint8] | None
    prediction: NDArray[np.uint8] | None
    edges_mm: Spacing
    full_shape: Triple
    offset: Triple
    to_file: NDArray[np.float64]
    to_world: NDArray[np.float64]
    is_oblique: bool
    window: tuple[float, float]
    has_reference: bool
    notes: tuple[str, ...]
    uncertainty: NDArray[Any] | None = None

    @property
    def shape(self) -> Triple:
        """The shape of the crop."""
        given = next(array for array in (self.image, self.reference, self.prediction) if array is not None)
        return given.shape[0], given.shape[1], given.shape[2]

    def wrong(self) -> NDArray[np.bool_]:
        """True where the masks differ. A missing mask is an empty one; ignored voxels never differ."""
        nothing = of_one_value(np.uint8(0), self.shape)
        reference = nothing if self.reference is None else self.reference
        prediction = nothing if self.prediction is None else self.prediction
        return _different(reference, prediction)

    @cached_property
    def worst_slices(self) -> tuple[SliceOfCase, ...]:
        """The axial, coronal and sagittal slice in which the masks differ most.

        Where nothing differs, those with most of the reference, and their area is 0. Without a reference, those with
        most of the prediction.
        """
        wrong = self.wrong()
        if self.has_reference and not wrong.any():
            return tuple(replace(at, area_mm2=0.0) for at in self._fullest_slices(self._labelled(self.reference)))
        return self._fullest_slices(wrong)

    def largest_slices(self) -> tuple[SliceOfCase, ...]:
        """The axial, coronal and sagittal slice with most of the reference, or of the prediction if it is empty."""
        labelled = self._labelled(self.reference)
        return self._fullest_slices(labelled if labelled.any() else self._labelled(self.prediction))

    def _labelled(self, mask: NDArray[np.uint8] | None) -> NDArray[np.bool_]:
        return of_one_value(np.False_, self.shape) if mask is None else _is_labelled(mask)

    def _fullest_slices(self, chosen: NDArray[np.bool_]) -> tuple[SliceOfCase, ...]:
        """The slice of each plane with most of the chosen voxels; the middle one if there are none."""
        slices = []
        for axis in (2, 1, 0):
            across = tuple(other for other in range(3) if other != axis)
            voxels = _sums(chosen, across)
            area = voxels * math.prod(self.edges_mm[other] for other in across)
            index = int(area.argmax()) if area.any() else self.shape[axis] // 2
            slices.append(SliceOfCase(axis, index, float(area[index]), _middle_of(chosen, axis, index)))
        return tuple(slices)


def _is_labelled(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """True where a mask contains a label."""
    if is_of_one_value(mask):
        return of_one_value(mask.flat[0] not in (0, IGNORED), mask.shape)
    labelled: NDArray[np.bool_] = mask - np.uint8(1) < IGNORED - 1  # 0 becomes 255: one pass, as masks may be large
    return labelled


def _different(reference: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """True where two masks differ and the reference is not ignored."""
    if is_of_one_value(reference) and is_of_one_value(prediction):
        drawn = reference.flat[0]
        return of_one_value(drawn not in (IGNORED, prediction.flat[0]), reference.shape)
    different: NDArray[np.bool_] = (reference != prediction) & (reference != IGNORED)
    return different


def _sums(chosen: NDArray[np.bool_], across: tuple[int, ...]) -> NDArray[np.int64]:
    """The number of voxels that are True, along one axis."""
    if is_of_one_value(chosen):
        (axis,) = {0, 1, 2} - set(across)
        return np.full(chosen.shape[axis], int(chosen.flat[0]) * math.prod(chosen.shape[other] for other in across))
    sums: NDArray[np.int64] = chosen.sum(axis=across)
    return sums


def _middle_of(chosen: NDArray[np.bool_], axis: int, index: int) -> Triple:
    """The chosen voxel of a slice that is nearest to their middle."""
    here = np.argwhere(chosen[(slice(None),) * axis + (index,)])
    if not here.size:
        point = [length // 2 for length in chosen.shape]
    else:
        nearest = here[np.linalg.norm(here - here.mean(axis=0), axis=1).argmin()]
        point = [int(value) for value in np.insert(nearest, axis, index)]
    point[axis] = index
    return point[0], point[1], point[2]


def upright_case(volumes: CaseVolumes, *, margin_mm: float = _MARGIN_MM) -> UprightCase | None:
    """Turn a case upright and crop it to its masks with a margin; `None` when there is nothing to show.

    Voxels are re-ordered, never interpolated. What is not on the grid of the reference (without one, of the
    prediction) is left out, with a note.

    Example:
        >>> mask = np.zeros((40, 40, 40), dtype=np.uint8)
        >>> mask[20, 30, 10] = 1
        >>> case = upright_case(CaseVolumes(prediction=Volume(mask, np.diag([-1.0, 1, 1, 1]))), margin_mm=2)
        >>> case.shape, (case.to_file @ [2, 2, 2, 1])[:3].tolist(), (case.to_world @ [2, 2, 2, 1])[:3].tolist()
        ((5, 5, 5), [20.0, 30.0, 10.0], [-20.0, 30.0, 10.0])
    """
    reference, prediction = volumes.reference, volumes.prediction
    notes = list(volumes.notes)
    grid = next((volume for volume in (reference, prediction, volumes.image) if volume is not None), None)
    if grid is None:
        return None
    image = _on_grid("image", volumes.image, grid, notes)
    prediction = _on_grid("prediction", prediction, grid, notes)
    uncertainty = _on_grid("uncertainty", volumes.uncertainty, grid, notes)
    # `order[w]` is the file's axis nearest to world axis w; `flips` reverses those that run against it.
    axes, signs = axis_assignment(grid.affine)
    order = tuple(int(np.argsort(axes)[world]) for world in range(3))
    flips = tuple(slice(None, None, signs[axis]) for axis in order)

    def turned(volume: Volume | None) -> NDArray[Any] | None:
        return None if volume is None else volume.array.transpose(order)[flips]

    masks = [
        None if mask is None else mask.astype(np.uint8, copy=False) for mask in map(turned, (reference, prediction))
    ]
    edges = (grid.spacing_mm[order[0]], grid.spacing_mm[order[1]], grid.spacing_mm[order[2]])
    full = (grid.shape[order[0]], grid.shape[order[1]], grid.shape[order[2]])
    box = _box([mask for mask in masks if mask is not None], full, edges, margin_mm)
    to_file = np.zeros((4, 4))
    to_file[3, 3] = 1.0
    for upright, axis in enumerate(order):
        start, sign = box[upright].start, signs[axis]
        to_file[axis, upright] = sign
        to_file[axis, 3] = start if sign > 0 else grid.shape[axis] - 1 - start
    crops = [None if array is None else array[box] for array in (turned(image), *masks, turned(uncertainty))]
    return UprightCase(
        image=crops[0],
        reference=crops[1],
        prediction=crops[2],
        edges_mm=edges,
        full_shape=full,
        offset=(box[0].start, box[1].start, box[2].start),
        to_file=to_file,
        to_world=grid.affine @ to_file,
        is_oblique=grid.is_oblique,
        window=(0.0, 1.0) if crops[0] is None else _window(crops[0]),
        has_reference=volumes.has_reference,
        notes=tuple(notes),
        uncertainty=crops[3],
    )


def _on_grid(kind: str, volume: Volume | None, grid: Volume, notes: list[str]) -> Volume | None:
    """A volume in the order of the masks' axes; None, with a note, where it is on another grid."""
    if volume is None:
        return None
    volume = volume.reordered_to(grid)
    try:
        require_same_grid(volume, grid)
    except GeometryMismatchError as error:
        notes.append(f"the {kind} is not shown: {error}")
        return None
    return volume


def _box(
    masks: Sequence[NDArray[np.uint8]], shape: Triple, edges_mm: Spacing, margin_mm: float
) -> tuple[slice, slice, slice]:
    """The box around both masks with a margin; the whole volume if they are empty."""
    box, along = [], [np.zeros(length, dtype=bool) for length in shape]
    for mask in masks:
        labelled = _is_labelled(mask)
        for axis, inside in enumerate(along):
            inside |= _sums(labelled, tuple(other for other in range(3) if other != axis)) > 0
    for axis, length in enumerate(shape):
        at = np.flatnonzero(along[axis])
        if not at.size:
            box.append(slice(0, length))
            continue
        margin = math.ceil(margin_mm / edges_mm[axis])
        box.append(slice(max(int(at[0]) - margin, 0), min(int(at[-1]) + margin + 1, length)))
    return box[0], box[1], box[2]


def sampled(image: NDArray[Any]) -> NDArray[np.float64]:
    """Enough voxels of an image for percentiles; finite ones only."""
    step = max(1, math.ceil((image.size / _SAMPLED_VOXELS) ** (1 / 3)))
    values = image[::step, ::step, ::step].astype(np.float64).reshape(-1)
    values = values[np.isfinite(values)]
    return values if values.size else np.zeros(1)


def _window(image: NDArray[Any]) -> tuple[float, float]:
    low, high = np.percentile(sampled(image), (1.0, 99.5))
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1.0)
