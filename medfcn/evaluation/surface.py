"""Distance between two mask surfaces in millimetres: Hausdorff, average and normalised distances.

All scores of a pair come from one pair of distance vectors (`surface_distances`): for every boundary element of each
mask, the distance to the nearest boundary element of the other. Distances are measured in space, on the whole volume,
with the given spacing; there is no default spacing.

Axes of length 1 take no part: a slice is measured in its plane. A face towards an ignored voxel is no boundary. A
face at an end of the volume is one unless `boundary_at_edges` is false; then the volume goes on as it ends.

An empty mask never scores well: with one mask empty, distances are `inf` and the normalised surface distance is 0;
with both empty they are `nan`. A mask that has voxels and no boundary left counts as an empty one. If neither has a
boundary, distances are `nan` where the masks are the same (nothing to measure), else `inf` and 0.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medfcn.errors import SettingsError
from medfcn.evaluation.boundary import Boundary, BoundaryPoints, element_sizes, label_boundaries, require_boundary
from medfcn.evaluation.ignored_boundary import open_voxels, share_not_open
from medfcn.evaluation.mask_pairs import (
    MaskPair,
    grid_of,
    occupied_box,
    pair_labels,
    pair_masks,
    without_flat_axes,
)
from medfcn.evaluation.nearest import nearest_mm
from medfcn.labels import IGNORED
from medfcn.labels.codec import Bytes

Vector = NDArray[np.float64]

# Spacings stored as float32 are off by up to 6e-8; a distance equal to the tolerance on paper must count as within.
_TIE = 1e-7


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances between the boundaries of a reference and a prediction, and the scores that follow from them.

    Attributes:
        reference_mm: `(n,)` from each boundary element of the reference to the nearest of the prediction; all `inf`
            when the prediction is empty.
        prediction_mm: `(m,)` from each boundary element of the prediction to the nearest of the reference.
        reference_sizes: `(n,)` size of each element: 1 for voxels, mm² (2D: mm) for surface elements.
        prediction_sizes: `(m,)`, likewise.
        boundary: The kind of boundary elements.
        apart_mm: The distance if neither mask has a boundary: `nan` where they are the same, `inf` where not.
    """

    reference_mm: Vector
    prediction_mm: Vector
    reference_sizes: Vector
    prediction_sizes: Vector
    boundary: Boundary
    apart_mm: float = math.nan

    @property
    def _directions(self) -> tuple[tuple[Vector, Vector], tuple[Vector, Vector]]:
        """Distances and sizes, from the reference and from the prediction."""
        return (self.reference_mm, self.reference_sizes), (self.prediction_mm, self.prediction_sizes)

    @property
    def _without_both(self) -> float | None:
        """The distance if a mask has no boundary: `inf` if one has none, `apart_mm` if both; else `None`."""
        if self.reference_mm.size and self.prediction_mm.size:
            return None
        return math.inf if self.reference_mm.size or self.prediction_mm.size else self.apart_mm

    def hausdorff_mm(self, *, percentile: float = 100.0, pooled: bool = False) -> float:
        """The largest distance, or the larger of the two directed percentiles.

        Args:
            percentile: In `[0, 100]`. Voxels: with linear interpolation. Surface elements: the first distance whose
                cumulative share of the surface reaches the percentile.
            pooled: One percentile over both directions together, as in MedPy, panoptica and BraTS.

        Raises:
            SettingsError: The percentile is outside `[0, 100]`.
        """
        if not 0 <= percentile <= 100:
            raise SettingsError(f"percentile: found {percentile}; expected 0 to 100", field="percentile")
        absent = self._without_both
        if absent is not None:
            return absent
        if percentile == 100:
            return max(float(distances.max()) for distances, _ in self._directions)
        take = _percentile if self.boundary == "voxels" else _weighted_percentile
        if pooled:
            distances, sizes = (np.concatenate(both) for both in zip(*self._directions, strict=True))
            return take(distances, sizes, percentile)
        return max(take(distances, sizes, percentile) for distances, sizes in self._directions)

    def assd_mm(self) -> float:
        """The mean distance over both boundaries together, each element counted by its size."""
        absent = self._without_both
        if absent is not None:
            return absent
        return sum(float(distances @ sizes) for distances, sizes in self._directions) / self._total_size

    def masd_mm(self) -> float:
        """The mean of the two directed mean distances."""
        absent = self._without_both
        if absent is not None:
            return absent
        return sum(float(distances @ sizes) / float(sizes.sum()) for distances, sizes in self._directions) / 2

    def nsd(self, *, tolerance_mm: float = 1.0) -> float:
        """The share of both boundaries within the tolerance of the other; a distance equal to it is within.

        Raises:
            SettingsError: The tolerance is not a length.
        """
        require_tolerance(tolerance_mm)
        absent = self._without_both
        if absent is not None:
            return math.nan if math.isnan(absent) else 0.0
        limit = tolerance_mm * (1 + _TIE)
        within = sum(float(sizes[distances <= limit].sum()) for distances, sizes in self._directions)
        return within / self._total_size

    @property
    def _total_size(self) -> float:
        return float(self.reference_sizes.sum() + self.prediction_sizes.sum())


def require_tolerance(tolerance_mm: float) -> None:
    """Refuse a tolerance that is not a length.

    Raises:
        SettingsError: It is negative or not finite.
    """
    if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise SettingsError(
            f"tolerance_mm: found {tolerance_mm}; expected 0 or a positive length", field="tolerance_mm"
        )


def _percentile(distances: Vector, sizes: Vector, percentile: float) -> float:
    """Linear interpolation between order statistics: the result of `numpy.percentile` at a fraction of its cost."""
    place = (distances.size - 1) * percentile / 100
    low = int(place)
    high = min(low + 1, distances.size - 1)
    ordered = np.partition(distances, (low, high))
    return float(ordered[low] + (ordered[high] - ordered[low]) * (place - low))


def _weighted_percentile(distances: Vector, sizes: Vector, percentile: float) -> float:
    """The first distance at which the cumulative size reaches the percentile."""
    order = np.argsort(distances)
    reached = np.cumsum(sizes[order])
    # A rounding error in the sum must not move a share of exactly 95 % to the next distance.
    goal = reached[-1] * (percentile / 100) * (1 - 1e-12)
    return float(distances[order[min(int(np.searchsorted(reached, goal)), distances.size - 1)]])


def surface_distances(
    reference: ArrayLike,
    prediction: ArrayLike,
    spacing_mm: ArrayLike,
    *,
    boundary: Boundary = "voxels",
    ignored: ArrayLike | None = None,
    boundary_at_edges: bool = True,
) -> SurfaceDistances:
    """Measure two masks of one label once, for every score.

    Args:
        reference: The reader's mask: booleans, or 0 and 1; 1D to 3D.
        prediction: The network's mask, on the same grid.
        spacing_mm: Voxel edge lengths along each axis; or, on a sheared grid, the linear part of the affine.
        boundary: `voxels` or `elements`; see `medfcn.evaluation.boundary`.
        ignored: Boolean, True for voxels that nobody labelled; none by default.
        boundary_at_edges: Faces at the ends of the volume are boundary.

    Raises:
        GeometryMismatchError: The masks differ in shape, or have too many axes for surface elements.
        LabelError: A mask contains other values than 0 and 1.
        SettingsError: The spacing is not one positive length for each axis.

    Example:
        >>> reference = np.array([[0, 1, 1, 0], [0, 0, 0, 0]], dtype=bool)
        >>> prediction = np.array([[0, 1, 1, 1], [0, 0, 0, 0]], dtype=bool)
        >>> distances = surface_distances(reference, prediction, (1.0, 2.0))
        >>> distances.hausdorff_mm(), distances.assd_mm(), distances.nsd(tolerance_mm=1.0)
        (2.0, 0.4, 0.8)
    """
    cut = _cut(pair_masks(reference, prediction), ignored, boundary_at_edges)
    return _measure(cut, spacing_mm, 1, boundary)[0]


def label_surface_distances(
    reference: ArrayLike,
    prediction: ArrayLike,
    spacing_mm: ArrayLike,
    *,
    labels: int,
    boundary: Boundary = "voxels",
    ignored: ArrayLike | None = None,
    boundary_at_edges: bool = True,
) -> tuple[SurfaceDistances, ...]:
    """Measure every label of two masks in one pass over the volume, whatever the number of labels.

    Args:
        reference: `uint8`, with `k` for the k-th label and 0 for the background.
        prediction: The same, on the same grid.
        spacing_mm: As in `surface_distances`.
        labels: The number of labels, 1 to 254.
        boundary: As in `surface_distances`, like the next two.
        ignored: Voxels that nobody labelled.
        boundary_at_edges: Faces at the ends of the volume are boundary.

    Returns:
        The distances of labels 1 to `labels`, in order.
    """
    return _measure(
        _cut(pair_labels(reference, prediction), ignored, boundary_at_edges), spacing_mm, labels, boundary
    )


def boundary_voxels(
    reference: ArrayLike, prediction: ArrayLike, *, labels: int, ignored: ArrayLike | None = None
) -> tuple[tuple[int, int], ...]:
    """Boundary voxels of each label in both masks, those at the ends of the volume included."""
    cut = _cut(pair_labels(reference, prediction), ignored, True)
    found = (cut.boundaries(mask, labels, "voxels") for mask in (cut.reference, cut.prediction))
    return tuple((first.positions.size, second.positions.size) for first, second in zip(*found, strict=True))


@dataclass(frozen=True)
class _Cut:
    """The part of two masks that contains all foreground, without axes of length 1.

    Attributes:
        reference: The part of the reference; `IGNORED` where nobody labelled.
        prediction: That of the prediction, likewise.
        axes: As in `MaskPair`.
        shape: That of the whole pair.
        at_ends: The ends of the volume are boundary.
        is_open: True for ignored voxels at which the surface ends; `None` without ignored voxels.
    """

    reference: Bytes
    prediction: Bytes
    axes: tuple[int, ...]
    shape: tuple[int, ...]
    at_ends: bool
    is_open: NDArray[np.bool_] | None

    @property
    def is_whole(self) -> bool:
        """True if every face between two labels, and at the ends, is boundary."""
        return self.at_ends and self.is_open is None

    def boundaries(self, mask: Bytes, labels: int, boundary: Boundary) -> tuple[BoundaryPoints, ...]:
        ignored = self.is_open is not None
        return label_boundaries(mask, labels, boundary, ignored=ignored, at_ends=self.at_ends)

    def sizes(self, points: BoundaryPoints, by_code: Vector | None) -> Vector:
        """The size of each element, from that of each code; ones for voxels."""
        if by_code is None:
            return np.ones(points.positions.size)
        sizes = by_code[points.codes]
        return sizes if self.is_open is None else sizes * share_not_open(self.is_open, points.indices())

    def apart_mm(self, label: int) -> float:
        """The distance between two masks of a label without a boundary."""
        if self.is_whole:
            return math.nan  # Neither has a voxel.
        return math.inf if bool(((self.reference == label) != (self.prediction == label)).any()) else math.nan


def _cut(pair: MaskPair, ignored: ArrayLike | None, at_ends: bool) -> _Cut:
    """Cut a pair to its foreground."""
    shape = pair.reference.shape
    box = occupied_box(pair) or (slice(0, 0),) * len(shape)
    if ignored is not None or not at_ends:
        # One voxel more: an end of the box must not be taken for an end of the volume.
        box = tuple(
            slice(max(part.start - 1, 0), min(part.stop + 1, length)) for part, length in zip(box, shape, strict=True)
        )
    masks = [mask[box] for mask in (pair.reference, pair.prediction)]
    is_open = None
    if ignored is not None:
        hidden = np.asarray(ignored, dtype=np.bool_).transpose(pair.axes)
        is_open = open_voxels(hidden, box)
        masks = [np.where(hidden[box], np.uint8(IGNORED), mask) for mask in masks]
    # A volume of a single voxel has no axis left, and no face that is boundary.
    has_axes = any(length != 1 for length in shape)
    kept = tuple(part for part, length in zip(masks[0].shape, shape, strict=True) if length != 1) or (-1,)
    reference, prediction = (mask.reshape(kept) for mask in masks)
    is_open = None if is_open is None else is_open.reshape(kept)
    return _Cut(reference, prediction, pair.axes, shape, at_ends and has_axes, is_open)


def _measure(cut: _Cut, spacing_mm: ArrayLike, labels: int, boundary: Boundary) -> tuple[SurfaceDistances, ...]:
    require_boundary(boundary)
    # The columns of the grid follow the axes of the pair.
    grid = grid_of(spacing_mm, len(cut.shape))[:, list(cut.axes)]
    grid = without_flat_axes(grid, cut.shape) if max(cut.shape) != 1 else np.eye(1)
    reference_points = cut.boundaries(cut.reference, labels, boundary)
    prediction_points = cut.boundaries(cut.prediction, labels, boundary)
    by_code = element_sizes(grid, ignored=not cut.is_whole) if boundary == "elements" else None
    found = []
    pairs = zip(reference_points, prediction_points, strict=True)
    for label, (first, second) in enumerate(pairs, start=1):
        apart_mm = math.nan if first.positions.size or second.positions.size else cut.apart_mm(label)
        distances = nearest_mm(first, second, grid)
        sizes = cut.sizes(first, by_code), cut.sizes(second, by_code)
        found.append(SurfaceDistances(*distances, *sizes, boundary, apart_mm))
    return tuple(found)


def hausdorff_mm(
    reference: ArrayLike,
    prediction: ArrayLike,
    spacing_mm: ArrayLike,
    *,
    percentile: float = 100.0,
    boundary: Boundary = "voxels",
    pooled: bool = False,
) -> float:
    """Distance between two mask surfaces, in millimetres.

    Args:
        reference: `(I, J, K)` or `(I, J)`, the reader's mask.
        prediction: The network's mask, on the same grid.
        spacing_mm: Voxel edge lengths along each axis.
        percentile: In `[0, 100]`; 95 ignores the worst twentieth of each surface.
        boundary: `voxels`, or `elements` weighted by surface.
        pooled: One percentile over both directions together instead of the larger of the two.

    Returns:
        Millimetres. `nan` when both masks are empty, `inf` when only one is.

    Raises:
        GeometryMismatchError: The masks differ in shape.
        LabelError: A mask contains other values than 0 and 1.
        SettingsError: The spacing, percentile or boundary is invalid.

    Source:
        Huttenlocher et al., IEEE TPAMI 15(9), 1993.

    Example:
        A lesion of one voxel, predicted three slices too high, in 2 mm slices:

        >>> reference, prediction = np.zeros((2, 5, 5, 8), dtype=bool)
        >>> reference[2, 2, 1] = prediction[2, 2, 4] = True
        >>> hausdorff_mm(reference, prediction, spacing_mm=(1.0, 1.0, 2.0))
        6.0
    """
    distances = surface_distances(reference, prediction, spacing_mm, boundary=boundary)
    return distances.hausdorff_mm(percentile=percentile, pooled=pooled)


def assd_mm(
    reference: ArrayLike, prediction: ArrayLike, spacing_mm: ArrayLike, *, boundary: Boundary = "voxels"
) -> float:
    """Average symmetric surface distance: the mean over both boundaries together; edges as in `hausdorff_mm`.

    Example:
        >>> assd_mm([0, 1], [1, 0], [2.0])
        2.0
    """
    return surface_distances(reference, prediction, spacing_mm, boundary=boundary).assd_mm()


def masd_mm(
    reference: ArrayLike, prediction: ArrayLike, spacing_mm: ArrayLike, *, boundary: Boundary = "voxels"
) -> float:
    """Mean average surface distance: the mean of the two directed means; edges as in `hausdorff_mm`.

    Example:
        >>> reference, prediction = [0, 1, 0, 0], [0, 1, 1, 1]
        >>> masd_mm(reference, prediction, [1.0]), round(assd_mm(reference, prediction, [1.0]), 3)
        (0.5, 0.667)
    """
    return surface_distances(reference, prediction, spacing_mm, boundary=boundary).masd_mm()


def nsd(
    reference: ArrayLike,
    prediction: ArrayLike,
    spacing_mm: ArrayLike,
    *,
    tolerance_mm: float = 1.0,
    boundary: Boundary = "elements",
) -> float:
    """Normalised surface distance (surface Dice): the share of both surfaces within the tolerance of the other.

    Args:
        reference: The reader's mask, 2D or 3D.
        prediction: The network's mask, on the same grid.
        spacing_mm: Voxel edge lengths along each axis.
        tolerance_mm: Distance up to which the surfaces agree.
        boundary: `elements` weighted by surface, or `voxels`.

    Returns:
        0 to 1; `nan` when both masks are empty, 0 when only one is.

    Raises:
        GeometryMismatchError: The masks differ in shape.
        LabelError: A mask contains other values than 0 and 1.
        SettingsError: The spacing, tolerance or boundary is invalid.

    Source:
        Nikolov et al., J Med Internet Res 23(7), 2021.

    Example:
        >>> reference, prediction = np.zeros((2, 8, 8), dtype=bool)
        >>> reference[2:5, 2:5] = prediction[2:5, 2:7] = True
        >>> [round(nsd(reference, prediction, (1.0, 1.0), tolerance_mm=tolerance), 3) for tolerance in (1.0, 2.0)]
        [0.867, 1.0]
    """
    distances = surface_distances(reference, prediction, spacing_mm, boundary=boundary)
    return distances.nsd(tolerance_mm=tolerance_mm)
