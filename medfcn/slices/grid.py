"""The way from a volume's own grid to the network grid, and back.

The network grid is the volume's own grid with its axes re-ordered to right, anterior, superior and its spacing
changed along some of them. Nothing is rotated: an oblique volume keeps its own planes, and each axis can be resampled
by itself. Positions follow from millimetres, not from the ratio of shapes. Both grids share their centre, and a voxel
of the network grid is at

    native = (network + 1/2 - N/2) * spacing_network / spacing_native + n/2 - 1/2

along an axis with `n` native and `N` network voxels. Because both are centred, the two ends of an axis are alike: a
volume that is stored with an axis reversed gives the same arrays bit for bit.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import GeometryError
from medfcn.memory import require_memory
from medfcn.scratch import parts

Floats = NDArray[np.float32]

_SLAB_VOXELS = 1 << 14
"""Voxels resampled at a time: 64 kB stay in a core's nearest caches; sixteen times as many took 2.5 times as long."""
_DECIDED_VOXELS = 1 << 21
"""Values on the native grid that are in memory at a time while a mask is decided."""
_KEEP_VOXELS = 0.05
"""Two spacings count as equal, and nothing is resampled, if they differ by less than this many voxels at the edge."""
_GROWTH_MOST, _VOXELS_MANY = 64, 16_000_000
"""A network grid of more than 64 times the volume's voxels and of more than 16 million comes from a wrong unit."""


@dataclass(frozen=True)
class GridMap:
    """The map from one volume's grid to its network grid.

    Attributes:
        native_shape: Voxels along the volume's own axes.
        axes: For R, A and S, the native axis that runs along it.
        flips: For R, A and S, true if that native axis runs the other way (towards L, P or I).
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
        """`(4, 4)` matrix from a voxel of the network grid to its place on the native grid, in voxels."""
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1
        for world, axis in enumerate(self.axes):
            size, sign = self.native_shape[axis], -1 if self.flips[world] else 1
            ratio = self.spacing_mm[world] / self.spacing_native_mm[world]
            matrix[axis, world] = sign * ratio
            start = (0.5 - self.shape[world] / 2) * ratio + (size / 2 - 0.5)
            matrix[axis, 3] = (size - 1 - start) if self.flips[world] else start
        return matrix

    def keeps(self, axis: int) -> bool:
        """True if nothing is resampled along an axis: 0 is R, 1 is A, 2 is S."""
        same = self.spacing_native_mm[axis] == self.spacing_mm[axis]
        return same and self.native_shape[self.axes[axis]] == self.shape[axis]

    def part(self, axis: int, count: int) -> Self:
        """The map of a slab of slices along an axis that is not resampled."""
        native, shape = list(self.native_shape), list(self.shape)
        native[self.axes[axis]] = shape[axis] = count
        return replace(self, native_shape=(native[0], native[1], native[2]), shape=(shape[0], shape[1], shape[2]))

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values; `from_json` is the inverse."""
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
    """Work out the map of one volume to the network grid.

    Args:
        shape: The volume's voxels along its own axes.
        orientation: The directions of its axes, such as `"LPS"`.
        spacing_mm: Its voxel edge lengths along its own axes.
        target_mm: Edge lengths of the network grid in R, A, S order; `None` keeps the volume's own.

    Raises:
        GeometryError: `orientation` does not name each of the three directions once, or the network grid would
            have 64 times the volume's voxels and more than 16 million.

    Example:
        >>> grid = map_to_network((10, 20, 30), "LSA", (1.0, 3.0, 0.5), (None, 1.0, None))
        >>> grid.axes, grid.flips, grid.spacing_mm, grid.shape
        ((0, 2, 1), (True, False, False), (1.0, 1.0, 3.0), (10, 15, 20))
    """
    pairs = ("RL", "AP", "SI")
    found = [[axis for axis, letter in enumerate(orientation) if letter in pair] for pair in pairs]
    if any(len(axes) != 1 for axes in found):
        raise GeometryError(
            f"orientation {orientation!r} does not name each of R/L, A/P and S/I once; check the affine",
            field="orientation",
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
            "check the unit of length in the header",
            code="GRID_UNITS",
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
        array: `(..., I, J, K)` on the native grid. Floating types are interpolated linearly. All other types are
            labels: a voxel takes the label with the largest linearly interpolated share (ties to the smaller value).
        grid: From `map_to_network`.

    Returns:
        `(..., R, A, S)`: float32 for floating input, the input's type for labels.
    """
    needed = array.size // math.prod(grid.native_shape) * math.prod(grid.shape) * array.itemsize
    require_memory(needed, f"the network grid of {'×'.join(map(str, grid.shape))} voxels")
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
    first, second, third = (grid.native_shape[axis] for axis in grid.axes)
    sizes = (first, second, third)
    if np.issubdtype(array.dtype, np.floating):
        values = _resample(array.astype(np.float32, copy=False), sizes, grid.spacing_mm, grid.spacing_native_mm)
    else:
        values = _resample_labels(array, sizes, grid.spacing_mm, grid.spacing_native_mm)
    return to_stored_order(values, grid)


def network_part(array: NDArray[Any], grid: GridMap, ranges: tuple[slice, ...]) -> Floats:
    """A part of what `to_network_grid` makes of intensities, the same to the bit, from the voxels around it alone.

    Args:
        array: `(I, J, K)` numbers on the native grid.
        grid: From `map_to_network`.
        ranges: A range of the network grid along R, A and S.

    Returns:
        `(s, a, r)` float32: contiguous, with the axes in reverse, as NIfTI files store them.
    """
    sizes = tuple(grid.native_shape[axis] for axis in grid.axes)
    taps = _taps_between(sizes, grid.shape, grid.spacing_native_mm, grid.spacing_mm)
    near, local = [], []
    for axis, (wanted, tap) in enumerate(zip(ranges, taps, strict=True)):
        if tap is None:
            near.append(wanted)
            continue
        below, above = tap.below[wanted], tap.above[wanted]
        near.append(slice(int(below.min()), int(above.max()) + 1))
        size = grid.shape[axis] / sizes[axis]
        local.append(
            (axis > 0, size, 2 - axis, _Taps(below - near[-1].start, above - near[-1].start, tap.weight[wanted]))
        )
    part = _floats(from_stored_order(array, grid)[tuple(near)].T)
    # As in `_resample_rows`: R first, then the axis that shrinks more.
    for _, _, axis, tap in sorted(local, key=lambda item: item[:2]):
        part = _mix(part, axis, tap)
    return part


def as_stored(array: NDArray[Any], grid: GridMap) -> NDArray[Any] | None:
    """A view of the numbers of which `network_part` makes floats, if these are the same numbers.

    Args:
        array: `(I, J, K)` numbers on the native grid.
        grid: From `map_to_network`.

    Returns:
        `(S, A, R)`; None if an axis is resampled, or float32 does not hold all numbers of the array's type.
    """
    if not (all(map(grid.keeps, range(3))) and np.can_cast(array.dtype, np.float32)):
        return None
    return from_stored_order(array, grid).T


def _floats(array: NDArray[Any]) -> Floats:
    """A contiguous float32 copy, made part by part in the order of an array that may lie in a file."""
    result = np.empty(array.shape, dtype=np.float32)
    with np.errstate(over="ignore"):  # see `stack_channels`
        for place, part in parts(array):
            result[place] = part
    return result


def native_slabs(array: Floats, grid: GridMap) -> Iterator[tuple[slice, Floats]]:
    """As `to_native_grid`, a few rows at a time: a mask is decided voxel by voxel and never needs all values at once.

    Args:
        array: `(C, R, A, S)` on the network grid.
        grid: The map that brought the volume there.

    Yields:
        A range of rows along R, and `(C, rows, A, S)` float32 on the native grid, still in R, A, S order; see
        `to_stored_order`. The ranges depend on the native shape and C alone. Where nothing is resampled they are
        views of the array, not to be written to.
    """
    first, second, third = (grid.native_shape[axis] for axis in grid.axes)
    taps = _taps_between(array.shape[-3:], (first, second, third), grid.spacing_mm, grid.spacing_native_mm)
    array = np.ascontiguousarray(array)
    # Two sizes of slab: `thickness` rows of all channels fit into memory, `fine` rows of one channel into the caches.
    thickness = max(1, _DECIDED_VOXELS // max(1, len(array) * second * third))
    fine = max(1, _SLAB_VOXELS // max(1, second * third))
    for start in range(0, first, thickness):
        rows = slice(start, min(start + thickness, first))
        if not any(taps):
            yield rows, array[:, rows]
            continue
        slab = np.empty((len(array), rows.stop - rows.start, second, third), dtype=np.float32)
        for volume, into in zip(array, slab, strict=True):
            for part in range(rows.start, rows.stop, fine):
                stop = min(part + fine, rows.stop)
                into[part - start : stop - start] = _resample_rows(volume, taps, slice(part, stop))
        yield rows, slab


def from_stored_order(array: NDArray[Any], grid: GridMap) -> NDArray[Any]:
    """A view of `(..., I, J, K)` values of the native grid, with the axes in R, A, S order."""
    leading = array.ndim - 3
    turned = np.transpose(array, (*range(leading), *(leading + axis for axis in grid.axes)))
    return _flip(turned, grid)


def to_stored_order(array: NDArray[Any], grid: GridMap) -> NDArray[Any]:
    """A view of `(..., R, A, S)` values of the native grid, with the axes in the order that the volume stores."""
    leading = array.ndim - 3
    back = np.argsort(grid.axes)
    return np.transpose(_flip(array, grid), (*range(leading), *(leading + int(axis) for axis in back)))


def _flip(array: NDArray[Any], grid: GridMap) -> NDArray[Any]:
    """Reverse those of the last three axes, in R, A, S order, that the volume stores the other way."""
    return np.flip(array, tuple(array.ndim - 3 + axis for axis in range(3) if grid.flips[axis]))


def _resample(
    array: Floats, shape: tuple[int, ...], spacing_from: tuple[float, ...], spacing_to: tuple[float, ...]
) -> Floats:
    """Linear interpolation along the last three axes, where their spacing or size changes.

    Args:
        array: `(..., a, b, c)`.
        shape: The new sizes of the last three axes.
        spacing_from: The spacing of `array` along them.
        spacing_to: The new spacing.
    """
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
    """For each voxel of a new axis, the two voxels of the old axis that it lies between.

    Attributes:
        below: `(N,)` index of the lower one.
        above: `(N,)` index of the upper one.
        weight: `(N,)` share of the upper one, in `[0, 1]`.
    """

    below: NDArray[np.intp]
    above: NDArray[np.intp]
    weight: Floats


def _taps_between(
    sizes: tuple[int, ...], shape: tuple[int, ...], spacing_from: tuple[float, ...], spacing_to: tuple[float, ...]
) -> tuple[_Taps | None, ...]:
    """The taps of each axis; None for an axis that stays as it is."""
    return tuple(
        None if old == new and of == to else _taps(old, new, to / of)
        for old, new, of, to in zip(sizes, shape, spacing_from, spacing_to, strict=True)
    )


def _taps(size_from: int, size_to: int, ratio: float) -> _Taps:
    """The taps between two axes that share their centre; beyond the ends the outermost values continue.

    Args:
        size_from: Voxels of the old axis.
        size_to: Voxels of the new axis.
        ratio: New spacing divided by the old one.
    """
    # Positions of the new voxels from the common centre, in new voxels; then on the old axis, in old voxels.
    from_centre = np.arange(size_to, dtype=np.float64) + (0.5 - size_to / 2)
    place = np.clip(from_centre * ratio + (size_from / 2 - 0.5), 0, size_from - 1)
    below = np.minimum(place.astype(np.intp), max(size_from - 2, 0))
    return _Taps(below, np.minimum(below + 1, size_from - 1), (place - below).astype(np.float32))


def _resample_rows(volume: Floats, taps: Sequence[_Taps | None], rows: slice) -> Floats:
    """Some rows of a resampled volume.

    The caller asks for few rows at a time, so that they stay in the processor's cache from one axis to the next.

    Args:
        volume: `(a, b, c)`, whole.
        taps: For each axis.
        rows: Rows of the result, along its first axis.

    Returns:
        `(rows, b', c')`.
    """
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
    """The label with the largest linearly interpolated share of each voxel; see `to_network_grid`.

    Labels are tried from the smallest to the largest, and only a larger share replaces the best one so far.
    """
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
