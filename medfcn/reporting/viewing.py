"""A case made small enough to be looked at in a page: upright, cropped to its masks, windowed, compressed.

Nothing here decides what is right: scores come from elsewhere, from voxels that were never thinned.
"""

import base64
import itertools
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import GeometryMismatchError
from medfcn.labels import IGNORED
from medfcn.volumes import Volume, require_same_grid
from medfcn.volumes.geometry import Spacing, axis_assignment

__all__ = ["CaseVolumes", "ReadCase", "UprightCase", "WorstSlice", "packed_case", "upright_case"]

Triple = tuple[int, int, int]

_MARGIN_MM = 12.0
_MOST_MASK_VOXELS = 8_000_000
_SAMPLED_VOXELS = 2_000_000


@dataclass(frozen=True, eq=False)
class CaseVolumes:
    """What can be shown of a case; anything may be missing.

    Attributes:
        image: What the reader looked at.
        reference: Places in the list of labels, or of parts where labels overlap, from 1; 0 is background, and
            `IGNORED` (255) what nobody labelled.
        prediction: The same, found, without `IGNORED`.
        notes: What a reader must know of them, such as why one is missing.
        has_reference: Whether a reference is due, so that differences from it are errors.
        hashes: The SHA-256 of the files they were read from, by what they are.
    """

    image: Volume | None = None
    reference: Volume | None = None
    prediction: Volume | None = None
    notes: tuple[str, ...] = ()
    has_reference: bool = True
    hashes: Mapping[str, str] = field(default_factory=dict)


ReadCase = Callable[[str], CaseVolumes]
"""Reads the volumes of a case by its id, when it is their turn."""


@dataclass(frozen=True)
class WorstSlice:
    """The slice across an axis in which the masks differ most; without a reference, that with most mask.

    Attributes:
        axis: 0 for sagittal, 1 for coronal, 2 for axial.
        index: In the cropped volume.
        area_mm2: How much differs, or is found when there is no reference.
        point: A voxel of it, in the middle of what differs.
    """

    axis: int
    index: int
    area_mm2: float
    point: Triple


@dataclass(frozen=True, eq=False)
class UprightCase:
    """A case whose axes run towards right, anterior and superior, as nearly as its grid does, and cropped.

    Attributes:
        image: `(X, Y, Z)`, any numbers.
        reference: `(X, Y, Z)` places in the list of labels, and `IGNORED`.
        prediction: The same, found, without `IGNORED`.
        edges_mm: Lengths of a voxel's edges.
        full_shape: Of the upright volume before cropping.
        offset: Where the crop begins in it.
        to_file: `(4, 4)`; takes indices of the crop to those of the file.
        to_world: `(4, 4)`; takes indices of the crop to RAS+ millimetres.
        is_oblique: Whether the slices are only near the named planes.
        window: Grey values to be shown black and white.
        has_reference: Whether differences between the masks are errors.
        notes: What a reader must know.
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

    @property
    def shape(self) -> Triple:
        """Of the crop."""
        given = next(array for array in (self.image, self.reference, self.prediction) if array is not None)
        return given.shape[0], given.shape[1], given.shape[2]

    def wrong(self) -> NDArray[np.bool_]:
        """Where the masks differ; an absent mask is an empty one, and nothing differs from what nobody labelled."""
        nothing = np.zeros(self.shape, dtype=np.uint8)
        drawn = nothing if self.reference is None else self.reference
        found = nothing if self.prediction is None else self.prediction
        different: NDArray[np.bool_] = (drawn != found) & (drawn != IGNORED)
        return different

    def worst_slices(self) -> tuple[WorstSlice, ...]:
        """The worst slice of each plane: axial, coronal, sagittal.

        Where nothing differs, those with most mask, and their area is 0.
        """
        wrong = self.wrong()
        is_right = self.has_reference and not wrong.any()
        if is_right and self.reference is not None:
            wrong = _is_drawn(self.reference)
        worst = []
        for axis in (2, 1, 0):
            across = tuple(other for other in range(3) if other != axis)
            area = wrong.sum(axis=across) * math.prod(self.edges_mm[other] for other in across)
            index = int(area.argmax()) if area.any() else self.shape[axis] // 2
            point = _middle_of(wrong, axis, index)
            worst.append(WorstSlice(axis, index, 0.0 if is_right else float(area[index]), point))
        return tuple(worst)


def _is_drawn(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where a mask holds a label."""
    drawn: NDArray[np.bool_] = (mask > 0) & (mask != IGNORED)
    return drawn


def _middle_of(wrong: NDArray[np.bool_], axis: int, index: int) -> Triple:
    """A voxel that differs in a slice, as near to the middle of those that do as there is one."""
    here = np.argwhere(np.take(wrong, index, axis=axis))
    if not here.size:
        point = [length // 2 for length in wrong.shape]
    else:
        nearest = here[np.linalg.norm(here - here.mean(axis=0), axis=1).argmin()]
        point = [int(value) for value in np.insert(nearest, axis, index)]
    point[axis] = index
    return point[0], point[1], point[2]


def upright_case(volumes: CaseVolumes, *, margin_mm: float = _MARGIN_MM) -> UprightCase | None:
    """Turn a case upright and crop it to its masks with a margin; `None` when there is nothing to show.

    Voxels are re-ordered, never interpolated. An image that does not lie on its masks' grid is left out, with a
    note.

    Example:
        >>> mask = np.zeros((40, 40, 40), dtype=np.uint8)
        >>> mask[20, 30, 10] = 1
        >>> case = upright_case(CaseVolumes(prediction=Volume(mask, np.diag([-1.0, 1, 1, 1]))), margin_mm=2)
        >>> case.shape, (case.to_file @ [2, 2, 2, 1])[:3].tolist(), (case.to_world @ [2, 2, 2, 1])[:3].tolist()
        ((5, 5, 5), [20.0, 30.0, 10.0], [-20.0, 30.0, 10.0])
    """
    image, reference, prediction = volumes.image, volumes.reference, volumes.prediction
    notes = list(volumes.notes)
    grid = next((volume for volume in (reference, prediction, image) if volume is not None), None)
    if grid is None:
        return None
    if image is not None:
        try:
            require_same_grid(image, grid)
        except GeometryMismatchError as error:
            notes.append(f"the image is not shown: {error}")
            image = None
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
    cropped = turned(image)
    cropped = None if cropped is None else cropped[box]
    return UprightCase(
        image=cropped,
        reference=None if masks[0] is None else masks[0][box],
        prediction=None if masks[1] is None else masks[1][box],
        edges_mm=edges,
        full_shape=full,
        offset=(box[0].start, box[1].start, box[2].start),
        to_file=to_file,
        to_world=grid.affine @ to_file,
        is_oblique=grid.is_oblique,
        window=(0.0, 1.0) if cropped is None else _window(cropped),
        has_reference=volumes.has_reference,
        notes=tuple(notes),
    )


def _box(
    masks: Sequence[NDArray[np.uint8]], shape: Triple, edges_mm: Spacing, margin_mm: float
) -> tuple[slice, slice, slice]:
    """Around both masks, with a margin; everything when they are empty."""
    box = []
    for axis, length in enumerate(shape):
        others = tuple(other for other in range(3) if other != axis)
        inside = np.zeros(length, dtype=bool)
        for mask in masks:
            inside |= _is_drawn(mask).any(axis=others)
        at = np.flatnonzero(inside)
        if not at.size:
            box.append(slice(0, length))
            continue
        margin = math.ceil(margin_mm / edges_mm[axis])
        box.append(slice(max(int(at[0]) - margin, 0), min(int(at[-1]) + margin + 1, length)))
    return box[0], box[1], box[2]


def _sampled(image: NDArray[Any]) -> NDArray[np.float64]:
    """Enough voxels to tell percentiles from."""
    step = max(1, math.ceil((image.size / _SAMPLED_VOXELS) ** (1 / 3)))
    values = image[::step, ::step, ::step].astype(np.float64).reshape(-1)
    values = values[np.isfinite(values)]
    return values if values.size else np.zeros(1)


def _window(image: NDArray[Any]) -> tuple[float, float]:
    low, high = np.percentile(_sampled(image), (1.0, 99.5))
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1.0)


def packed_case(case: UprightCase, *, most_bytes: int) -> dict[str, Any]:
    """A case as plain values for a page: numbers, and volumes as base64 of zlib-compressed bytes.

    Volumes are stored with `x` running fastest. The image has 8 bits over a range twice as wide as its window; it is
    thinned by whole factors (means of blocks) until everything fits. Masks keep every voxel as long as they are
    below 8 million and take less than half of the bytes; beyond that a block holds the largest label in it, so that
    nothing small is lost; one without a label is ignored where any of its voxels is.

    Args:
        case: What to pack.
        most_bytes: For the base64 text of all volumes together.
    """
    worst = case.worst_slices()
    start = max(worst, key=lambda at: at.area_mm2).point
    factors, masks = _packed_masks(case, most_bytes // 2)
    left = most_bytes - sum(len(text) for text in masks.values() if text is not None)
    return {
        "shape": list(case.shape),
        "edges": [round(edge, 6) for edge in case.edges_mm],
        "full": list(case.full_shape),
        "offset": list(case.offset),
        "toFile": [round(float(value), 6) for value in case.to_file[:3].reshape(-1)],
        "toWorld": [round(float(value), 6) for value in case.to_world[:3].reshape(-1)],
        "oblique": case.is_oblique,
        "window": list(case.window),
        "start": list(start),
        "worst": [{"axis": at.axis, "index": at.index, "area": at.area_mm2, "point": list(at.point)} for at in worst],
        "maskFactors": list(factors),
        "image": None if case.image is None else _packed_image(case.image, case, left),
        **masks,
        "notes": list(case.notes),
    }


def _packed_masks(case: UprightCase, most_bytes: int) -> tuple[Triple, dict[str, str | None]]:
    """Both masks, thinned alike until they fit."""
    most_voxels = _MOST_MASK_VOXELS
    while True:
        factors = _factors(case.shape, case.edges_mm, most_voxels)
        masks = {
            name: None if mask is None else _compressed(_block_labels(mask, factors))
            for name, mask in (("reference", case.reference), ("prediction", case.prediction))
        }
        if sum(len(text) for text in masks.values() if text is not None) <= most_bytes or most_voxels <= 1000:
            return factors, masks
        most_voxels = min(most_voxels, math.prod(_thinned(case.shape, factors))) // 2


def _factors(shape: Triple, edges_mm: Spacing, most_voxels: float) -> Triple:
    """How many voxels along each axis become one, the shortest edges first."""
    factors = [1, 1, 1]
    while math.prod(_thinned(shape, factors)) > most_voxels:
        lengths = [
            edge * factor if length > factor else math.inf
            for edge, factor, length in zip(edges_mm, factors, shape, strict=True)
        ]
        factors[lengths.index(min(lengths))] += 1
    return factors[0], factors[1], factors[2]


def _thinned(shape: Sequence[int], factors: Sequence[int]) -> Triple:
    lengths = [-(-length // factor) for length, factor in zip(shape, factors, strict=True)]
    return lengths[0], lengths[1], lengths[2]


def _packed_image(image: NDArray[Any], case: UprightCase, most_bytes: int) -> dict[str, Any]:
    low, high = case.window
    values = _sampled(image)
    bottom = max(float(values.min()), low - (high - low) / 2)
    top = min(float(values.max()), high + (high - low) / 2)
    if not top > bottom:
        bottom, top = low, high
    allowed = max(most_bytes, 1)
    while True:
        factors = _factors(case.shape, case.edges_mm, allowed)
        thin = _block_means(image, factors)
        grey = np.clip(np.rint((thin - bottom) * (255.0 / (top - bottom))), 0, 255).astype(np.uint8)
        text = _compressed(grey)
        if len(text) <= most_bytes or grey.size <= 1000:
            return {"shape": list(grey.shape), "factors": list(factors), "low": bottom, "high": top, "bytes": text}
        allowed = int(grey.size * min(0.9, 0.97 * most_bytes / len(text)))


def _blocks(array: NDArray[Any], factors: Triple) -> Iterator[NDArray[Any]]:
    """The first voxels of all blocks, the second ones, and so on; at the edges some blocks are short."""
    for firsts in itertools.product(*(range(factor) for factor in factors)):
        yield array[tuple(slice(first, None, factor) for first, factor in zip(firsts, factors, strict=True))]


def _block_means(image: NDArray[Any], factors: Triple) -> NDArray[np.float32]:
    total = np.zeros(_thinned(image.shape, factors), dtype=np.float32)
    counts = np.zeros(total.shape, dtype=np.float32)
    for part in _blocks(image, factors):
        here = tuple(slice(0, length) for length in part.shape)
        total[here] += np.nan_to_num(part.astype(np.float32))
        counts[here] += 1
    total /= counts
    return total


def _block_labels(mask: NDArray[np.uint8], factors: Triple) -> NDArray[np.uint8]:
    ignored = mask == IGNORED
    if not ignored.any():
        return _block_maxima(mask, factors)
    labels = _block_maxima(np.where(ignored, 0, mask).astype(np.uint8), factors)
    labels[(labels == 0) & (_block_maxima(ignored.astype(np.uint8), factors) > 0)] = IGNORED
    return labels


def _block_maxima(mask: NDArray[np.uint8], factors: Triple) -> NDArray[np.uint8]:
    largest = np.zeros(_thinned(mask.shape, factors), dtype=np.uint8)
    for part in _blocks(mask, factors):
        here = tuple(slice(0, length) for length in part.shape)
        np.maximum(largest[here], part, out=largest[here])
    return largest


def _compressed(array: NDArray[np.uint8]) -> str:
    return base64.b64encode(zlib.compress(array.tobytes(order="F"), 6)).decode("ascii")
