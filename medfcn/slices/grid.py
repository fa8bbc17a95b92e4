"""The way from a volume's own grid to the network grid, and back.

The network grid is the volume's own grid with its axes re-ordered to right, anterior, superior and its
spacing changed along some of them. Nothing is rotated, so an oblique volume keeps its own planes, and each
axis can be resampled by itself. Positions follow from millimetres, not from the ratio of shapes: both grids
share their centre, and a voxel of the network grid lies at

    native = (network + 1/2 - N/2) * spacing_network / spacing_native + n/2 - 1/2

along an axis with `n` native and `N` network voxels. Centring both makes the two ends of an axis alike, so
that a volume stored with an axis reversed gives the same arrays bit for bit.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import GeometryError

Floats = NDArray[np.float32]

_SLAB_VOXELS = 1 << 14
"""Voxels resampled at a time: 64 kB stay in a core's nearest caches; sixteen times as many took 2.5 times as long."""
_DECIDED_VOXELS = 1 << 21
"""Values on the native grid that exist at a time while a mask is decided."""
_KEEP_VOXELS = 0.05
"""Below this displacement at a volume's edge, two spacings are one and nothing is resampled."""
_GROWTH_MOST, _VOXELS_MANY = 64, 2**28
"""A network grid of more voxels than the latter, and of so many times the volume's, comes from a unit mistaken."""


@dataclass(frozen=True)
class GridMap:
    """How one volume's grid maps onto its network grid.

    Attributes:
        native_shape: Voxels along the volume's own axes.
        axes: The native axis that runs along R, A and S.
        flips: Whether that native axis runs the other way (towards L, P or I).
        spacing_native_mm: Voxel edge lengths before resampling, in R, A, S order.
        spacing_mm: Voxel edge lengths of the network grid, in R, A, S order.
        shape: Voxels of the network grid, in R, A, S order.
    """

    native_shape: tuple[int, int, int]
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    spacing_native_mm: tuple[float, float, float]
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]

    @property
    def native_voxel(self) -> NDArray[np.float64]:
        """`(4, 4)` matrix from a voxel of the network grid to the native voxel it lies at."""
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1
        for world, axis in enumerate(self.axes):
            size, sign = self.native_shape[axis], -1 if self.flips[world] else 1
            ratio = self.spacing_mm[world] / self.spacing_native_mm[world]
            matrix[axis, world] = sign * ratio
            start = (0.5 - self.shape[world] / 2) * ratio + (size / 2 - 0.5)
            matrix[axis, 3] = (size - 1 - start) if self.flips[world] else start
        return matrix

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values, which `from_json` turns back."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**{key: tuple(item) for key, item in value.items()})


def map_to_network(
    shape: tuple[int, int, int],
    orientation: str,
    spacing_mm: tuple[float, float, float],
    target_mm: tuple[float | None, float | None, float | None],
) -> GridMap:
    """Plan the way of one volume to the network grid.

    Args:
        shape: The volume's voxels along its own axes.
        orientation: Where its axes point, such as `"LPS"`.
        spacing_mm: Its voxel edge lengths along its own axes.
        target_mm: Wanted edge lengths in R, A, S order; `None` keeps the volume's own.

    Raises:
        GeometryError: `orientation` does not name each of the three directions once, or the network grid would
            have 64 times the volume's voxels and more than 268 million.

    Example:
        >>> grid = map_to_network((10, 20, 30), "LSA", (1.0, 3.0, 0.5), (None, 1.0, None))
        >>> grid.axes, grid.flips, grid.spacing_mm, grid.shape
        ((0, 2, 1), (True, False, False), (1.0, 1.0, 3.0), (10, 15, 20))
    """
    pairs = ("RL", "AP", "SI")
    found = [[axis for axis, letter in enumerate(orientation) if letter in pair] for pair in pairs]
    if any(len(axes) != 1 for axes in found):
        raise GeometryError(
            f"orientation {orientation!r} does not name each of R/L, A/P and S/I once; check the affine"
        )
    axes = (found[0][0], found[1][0], found[2][0])
    flips = (orientation[axes[0]] == "L", orientation[axes[1]] == "P", orientation[axes[2]] == "I")
    native = (spacing_mm[axes[0]], spacing_mm[axes[1]], spacing_mm[axes[2]])
    sizes = (shape[axes[0]], shape[axes[1]], shape[axes[2]])
    new_spacing, new_shape = [], []
    for size, own, wanted in zip(sizes, native, target_mm, strict=True):
        if wanted is None or abs(wanted / own - 1) * size < 2 * _KEEP_VOXELS:
            new_spacing.append(own)
            new_shape.append(size)
        else:
            new_spacing.append(float(wanted))
            new_shape.append(max(1, round(size * own / wanted)))
    if math.prod(new_shape) > max(_GROWTH_MOST * math.prod(shape), _VOXELS_MANY):
        wanted_mm = tuple(own if wanted is None else wanted for own, wanted in zip(native, target_mm, strict=True))
        raise GeometryError(
            f"voxels of {_lengths(native)} mm are far larger than the {_lengths(wanted_mm)} mm of the network grid; "
            "check the unit of length in the header"
        )
    return GridMap(
        native_shape=shape,
        axes=axes,
        flips=flips,
        spacing_native_mm=native,
        spacing_mm=(new_spacing[0], new_spacing[1], new_spacing[2]),
        shape=(new_shape[0], new_shape[1], new_shape[2]),
    )


def to_network_grid(array: NDArray[Any], grid: GridMap) -> NDArray[Any]:
    """Bring an array from its volume's grid to the network grid.

    Args:
        array: `(..., I, J, K)` on the native grid. Floating types are interpolated linearly; all other types
            are resampled as labels, by the largest linearly interpolated share (ties to the smaller value).
        grid: From `map_to_network`.

    Returns:
        `(..., R, A, S)`: float32 for floating input, the input's type for labels.
    """
    turned = from_stored_order(array, grid)
    if np.issubdtype(array.dtype, np.floating):
        # Contiguous, so that sums over it do not depend on how the file ordered its axes.
        values = np.array(turned, dtype=np.float32, order="C")
        return _resample(values, grid.shape, grid.spacing_native_mm, grid.spacing_mm)
    return _resample_labels(turned, grid.shape, grid.spacing_native_mm, grid.spacing_mm)


def to_native_grid(array: NDArray[Any], grid: GridMap) -> NDArray[Any]:
    """Bring an array (probabilities) from the network grid back to the volume's own.

    Args:
        array: `(..., R, A, S)` on the network grid. Types as in `to_network_grid`.
        grid: The map that brought the volume there.

    Returns:
        `(..., I, J, K)` on the native grid: float32 for floating input, the input's type for labels.
    """
    sizes = (grid.native_shape[grid.axes[0]], grid.native_shape[grid.axes[1]], grid.native_shape[grid.axes[2]])
    if np.issubdtype(array.dtype, np.floating):
        values = _resample(array.astype(np.float32, copy=False), sizes, grid.spacing_mm, grid.spacing_native_mm)
    else:
        values = _resample_labels(array, sizes, grid.spacing_mm, grid.spacing_native_mm)
    return to_stored_order(values, grid)


def native_slabs(array: Floats, grid: GridMap) -> Iterator[tuple[slice, Floats]]:
    """As `to_native_grid`, a few rows at a time: what is decided voxel by voxel never needs all values at once.

    Args:
        array: `(C, R, A, S)` on the network grid.
        grid: The map that brought the volume there.

    Yields:
        A range of rows along R, and `(C, rows, A, S)` float32 on the native grid, still in R, A, S order; see
        `to_stored_order`. The ranges depend on the native shape and C alone.
    """
    first, second, third = (grid.native_shape[axis] for axis in grid.axes)
    taps = _taps_between(array.shape[-3:], (first, second, third), grid.spacing_mm, grid.spacing_native_mm)
    array = np.ascontiguousarray(array)
    thickness = max(1, _DECIDED_VOXELS // max(1, len(array) * second * third))
    fine = max(1, _SLAB_VOXELS // max(1, second * third))
    for start in range(0, first, thickness):
        rows = slice(start, min(start + thickness, first))
        slab = np.empty((len(array), rows.stop - rows.start, second, third), dtype=np.float32)
        for volume, into in zip(array, slab, strict=True):
            for part in range(rows.start, rows.stop, fine):
                stop = min(part + fine, rows.stop)
                into[part - start : stop - start] = _resample_rows(volume, taps, slice(part, stop))
        yield rows, slab


def from_stored_order(array: NDArray[Any], grid: GridMap) -> NDArray[Any]:
    """`(..., I, J, K)` values of the native grid with their axes in R, A, S order, a view."""
    leading = array.ndim - 3
    turned = np.transpose(array, (*range(leading), *(leading + axis for axis in grid.axes)))
    return _flip(turned, grid)


def to_stored_order(array: NDArray[Any], grid: GridMap) -> NDArray[Any]:
    """`(..., R, A, S)` values of the native grid with their axes as the volume stores them, a view."""
    leading = array.ndim - 3
    back = np.argsort(grid.axes)
    return np.transpose(_flip(array, grid), (*range(leading), *(leading + int(axis) for axis in back)))


def _flip(array: NDArray[Any], grid: GridMap) -> NDArray[Any]:
    """Turn round those of the last three axes, in R, A, S order, that the volume stores the other way."""
    return np.flip(array, tuple(array.ndim - 3 + axis for axis in range(3) if grid.flips[axis]))


def _resample(
    array: Floats, shape: tuple[int, ...], spacing_from: tuple[float, ...], spacing_to: tuple[float, ...]
) -> Floats:
    """Linear interpolation along the last three axes, where their spacing or size changes."""
    sizes = array.shape[-3:]
    if sizes == shape and spacing_from == spacing_to:
        return array
    taps = _taps_between(sizes, shape, spacing_from, spacing_to)
    # numpy takes from a contiguous array only, and would copy a whole turned volume for every slab.
    volumes = np.ascontiguousarray(array).reshape(-1, *sizes)
    result = np.empty((len(volumes), *shape), dtype=np.float32)
    thickness = max(1, _SLAB_VOXELS // max(1, sizes[1] * sizes[2]))
    for volume, into in zip(volumes, result, strict=True):
        for start in range(0, shape[0], thickness):
            rows = slice(start, min(start + thickness, shape[0]))
            into[rows] = _resample_rows(volume, taps, rows)
    return result.reshape(*array.shape[:-3], *shape)


@dataclass(frozen=True)
class _Taps:
    """For each voxel of one axis, the two voxels of another that it lies between, and the share of the upper."""

    below: NDArray[np.intp]
    above: NDArray[np.intp]
    weight: Floats


def _taps_between(
    sizes: tuple[int, ...], shape: tuple[int, ...], spacing_from: tuple[float, ...], spacing_to: tuple[float, ...]
) -> tuple[_Taps | None, ...]:
    """For each axis its taps; None where it stays as it is."""
    return tuple(
        None if old == new and of == to else _taps(old, new, to / of)
        for old, new, of, to in zip(sizes, shape, spacing_from, spacing_to, strict=True)
    )


def _taps(size_from: int, size_to: int, ratio: float) -> _Taps:
    """Where the voxels of one axis lie on another; both share their centre, and the outermost values hold beyond."""
    from_centre = np.arange(size_to, dtype=np.float64) + (0.5 - size_to / 2)
    held = np.clip(from_centre * ratio + (size_from / 2 - 0.5), 0, size_from - 1)
    below = np.minimum(held.astype(np.intp), max(size_from - 2, 0))
    return _Taps(below, np.minimum(below + 1, size_from - 1), (held - below).astype(np.float32))


def _resample_rows(volume: Floats, taps: Sequence[_Taps | None], rows: slice) -> Floats:
    """The rows of a resampled volume: a slab small enough to stay in the processor's cache between its axes."""
    first = taps[0]
    slab = volume[rows]
    if first is not None:
        slab = _mix(volume, 0, _Taps(first.below[rows], first.above[rows], first.weight[rows]))
    changed = [(axis, taps[axis]) for axis in (1, 2)]
    # The axis that shrinks more goes first: less is left to do for the other.
    for axis, tap in sorted(
        changed, key=lambda item: 1.0 if item[1] is None else len(item[1].below) / slab.shape[item[0]]
    ):
        if tap is not None:
            slab = _mix(slab, axis, tap)
    return slab


def _mix(array: Floats, axis: int, taps: _Taps) -> Floats:
    """Two-tap linear interpolation along one axis."""
    lower: Floats = np.take(array, taps.below, axis=axis)
    upper: Floats = np.take(array, taps.above, axis=axis)
    upper -= lower
    upper *= taps.weight.reshape((-1,) + (1,) * (array.ndim - axis - 1))
    upper += lower
    return upper


def _resample_labels(
    labels: NDArray[Any], sizes: tuple[int, int, int], spacing_from: tuple[float, ...], spacing_to: tuple[float, ...]
) -> NDArray[Any]:
    if spacing_from == spacing_to and sizes == labels.shape[-3:]:
        return np.ascontiguousarray(labels)
    shape = labels.shape[:-3] + sizes
    best = np.full(shape, -1.0, dtype=np.float32)
    result = np.zeros(shape, dtype=labels.dtype)
    for value in np.unique(labels):
        share = _resample((labels == value).astype(np.float32), sizes, spacing_from, spacing_to)
        larger = share > best
        best[larger] = share[larger]
        result[larger] = value
    return result


def _lengths(lengths_mm: tuple[float, ...]) -> str:
    return " × ".join(f"{length:.3g}" for length in lengths_mm)
