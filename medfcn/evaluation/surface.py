"""Distance between two mask surfaces in millimetres: Hausdorff, average and normalised distances.

All scores of a pair come from one pair of distance vectors (`surface_distances`): for every boundary element of each
mask, the distance to the nearest boundary element of the other. Distances are measured in space, on the whole volume,
with the given spacing; there is no default spacing.

An empty mask never scores well: with one mask empty, distances are `inf` and the normalised surface distance is 0;
with both empty they are `nan`.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medfcn.errors import SettingsError
from medfcn.evaluation.boundary import Boundary, BoundaryPoints, element_sizes, label_boundaries
from medfcn.evaluation.mask_pairs import MaskPair, grid_of, occupied_box, pair_labels, pair_masks
from medfcn.evaluation.nearest import nearest_mm

__all__ = [
    "Boundary",
    "SurfaceDistances",
    "assd_mm",
    "hausdorff_mm",
    "label_surface_distances",
    "masd_mm",
    "nsd",
    "surface_distances",
]

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
    """

    reference_mm: Vector
    prediction_mm: Vector
    reference_sizes: Vector
    prediction_sizes: Vector
    boundary: Boundary

    @property
    def _directions(self) -> tuple[tuple[Vector, Vector], tuple[Vector, Vector]]:
        """Distances and sizes, from the reference and from the prediction."""
        return (self.reference_mm, self.reference_sizes), (self.prediction_mm, self.prediction_sizes)

    @property
    def _without_both(self) -> float | None:
        """The distance if a mask is empty: `inf` if one is, `nan` if both are; else `None`."""
        if self.reference_mm.size and self.prediction_mm.size:
            return None
        return math.inf if self.reference_mm.size or self.prediction_mm.size else math.nan

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
        if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
            raise SettingsError(
                f"tolerance_mm: found {tolerance_mm}; expected 0 or a positive length", field="tolerance_mm"
            )
        absent = self._without_both
        if absent is not None:
            return math.nan if math.isnan(absent) else 0.0
        limit = tolerance_mm * (1 + _TIE)
        within = sum(float(sizes[distances <= limit].sum()) for distances, sizes in self._directions)
        return within / self._total_size

    @property
    def _total_size(self) -> float:
        return float(self.reference_sizes.sum() + self.prediction_sizes.sum())


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
    reference: ArrayLike, prediction: ArrayLike, spacing_mm: ArrayLike, *, boundary: Boundary = "voxels"
) -> SurfaceDistances:
    """Measure two masks of one label once, for every score.

    Args:
        reference: The reader's mask: booleans, or 0 and 1; 2D or 3D (`voxels`: 1D too).
        prediction: The network's mask, on the same grid.
        spacing_mm: Voxel edge lengths along each axis; or, on a sheared grid, the linear part of the affine.
        boundary: `voxels` or `elements`; see `medfcn.evaluation.boundary`.

    Raises:
        GeometryMismatchError: The masks differ in shape, or have too few axes for surface elements.
        LabelError: A mask contains other values than 0 and 1.
        SettingsError: The spacing is not one positive length for each axis.

    Example:
        >>> reference = np.array([[0, 1, 1, 0]], dtype=bool)
        >>> prediction = np.array([[0, 1, 1, 1]], dtype=bool)
        >>> distances = surface_distances(reference, prediction, (1.0, 2.0))
        >>> distances.hausdorff_mm(), distances.assd_mm(), distances.nsd(tolerance_mm=1.0)
        (2.0, 0.4, 0.8)
    """
    return _measure(pair_masks(reference, prediction), spacing_mm, 1, boundary)[0]


def label_surface_distances(
    reference: ArrayLike,
    prediction: ArrayLike,
    spacing_mm: ArrayLike,
    *,
    labels: int,
    boundary: Boundary = "voxels",
) -> tuple[SurfaceDistances, ...]:
    """Measure every label of two masks in one pass over the volume, whatever the number of labels.

    Args:
        reference: `uint8`, with `k` for the k-th label and 0 for the background.
        prediction: The same, on the same grid.
        spacing_mm: As in `surface_distances`.
        labels: The number of labels, 1 to 255.
        boundary: As in `surface_distances`.

    Returns:
        The distances of labels 1 to `labels`, in order.
    """
    return _measure(pair_labels(reference, prediction), spacing_mm, labels, boundary)


def _measure(pair: MaskPair, spacing_mm: ArrayLike, labels: int, boundary: Boundary) -> tuple[SurfaceDistances, ...]:
    if boundary not in ("voxels", "elements"):
        raise SettingsError(f"boundary: found {boundary!r}; expected 'voxels' or 'elements'", field="boundary")
    # The columns of the grid follow the axes of the pair; the box leaves out the background around both masks.
    grid = grid_of(spacing_mm, pair.reference.ndim)[:, list(pair.axes)]
    box = occupied_box(pair) or (slice(0, 0),) * pair.reference.ndim
    reference_points = label_boundaries(pair.reference[box], labels, boundary)
    prediction_points = label_boundaries(pair.prediction[box], labels, boundary)
    sizes = element_sizes(grid) if boundary == "elements" else None
    pairs = zip(reference_points, prediction_points, strict=True)
    return tuple(_between(first, second, grid, sizes, boundary) for first, second in pairs)


def _between(
    reference: BoundaryPoints, prediction: BoundaryPoints, grid: Vector, sizes: Vector | None, boundary: Boundary
) -> SurfaceDistances:
    reference_mm, prediction_mm = nearest_mm(reference, prediction, grid)
    reference_sizes, prediction_sizes = (
        np.ones(points.positions.size) if sizes is None else sizes[points.codes] for points in (reference, prediction)
    )
    return SurfaceDistances(reference_mm, prediction_mm, reference_sizes, prediction_sizes, boundary)


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
