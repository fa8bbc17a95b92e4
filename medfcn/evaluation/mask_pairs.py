"""Two masks prepared for comparison: checked, one byte per voxel, in the same memory order.

Nothing here knows a metric. A mask of one label is boolean, or numbers that are all 0 or 1; a mask of several labels
is `uint8`, with 0 for the background.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medfcn.errors import GeometryMismatchError, LabelError, SettingsError
from medfcn.labels import IGNORED
from medfcn.labels.codec import Bytes
from medfcn.labels.whole_numbers import CHUNK_VOXELS


@dataclass(frozen=True)
class MaskPair:
    """A reference and a prediction on one grid, both C-contiguous `uint8`.

    Attributes:
        reference: The labels of the reader's mask.
        prediction: The labels of the network's mask.
        axes: `axes[n]` is the axis of the caller's arrays that became axis `n` here. Axes are ordered as the voxels
            are stored in memory, so that both masks are read in order.
    """

    reference: Bytes
    prediction: Bytes
    axes: tuple[int, ...]


def pair_masks(reference: ArrayLike, prediction: ArrayLike) -> MaskPair:
    """Prepare two masks of one label.

    Args:
        reference: Boolean, or numbers that are all 0 or 1.
        prediction: The same, of the same shape.

    Raises:
        GeometryMismatchError: The shapes differ.
        LabelError: A mask contains other values than 0 and 1.

    Example:
        >>> pair_masks([[True, False]], [[0.0, 1.0]]).prediction
        array([[0, 1]], dtype=uint8)
    """
    first, second = np.asarray(reference), np.asarray(prediction)
    _require_same_shape(first, second)
    return _in_memory_order(_one_label(first, "reference"), _one_label(second, "prediction"))


def pair_labels(reference: ArrayLike, prediction: ArrayLike) -> MaskPair:
    """Prepare two `uint8` masks of several labels.

    Raises:
        GeometryMismatchError: The shapes differ.
        LabelError: A mask is not `uint8`.
    """
    first, second = np.asarray(reference), np.asarray(prediction)
    _require_same_shape(first, second)
    for name, array in (("reference", first), ("prediction", second)):
        if array.dtype not in (np.dtype(np.uint8), np.dtype(np.bool_)):
            raise LabelError(
                f"{name}: labels are {array.dtype}; expected uint8 with k for the k-th label, as LabelMap.encode "
                "returns"
            )
    return _in_memory_order(first.view(np.uint8), second.view(np.uint8))


def _require_same_shape(reference: NDArray[Any], prediction: NDArray[Any]) -> None:
    if reference.shape != prediction.shape:
        raise GeometryMismatchError(
            f"prediction shape {prediction.shape} differs from reference shape {reference.shape}; "
            "put both masks on one grid",
            code="SHAPE_DIFFERS",
        )
    if reference.ndim == 0:
        raise GeometryMismatchError("reference: found a single number; expected an array of voxels", code="SHAPE")


def _one_label(mask: NDArray[Any], name: str) -> Bytes:
    """The mask as 0 and 1; several labels are refused, not merged."""
    if mask.dtype == np.bool_:
        return mask.view(np.uint8)
    if mask.dtype.kind not in "iuf":
        raise LabelError(f"{name}: values are {mask.dtype}; expected a mask of booleans, or of 0 and 1")
    mask_bytes: Bytes = mask.astype(np.uint8, copy=False) if mask.dtype.kind in "iu" else (mask == 1).view(np.uint8)
    in_range = mask.dtype == np.uint8 or np.array_equal(mask_bytes, mask)
    if not in_range or (mask_bytes.size and int(mask_bytes.max()) > 1):
        other = mask[(mask != 0) & (mask != 1)].flat[0]
        raise LabelError(
            f"{name}: contains the value {other}; expected only 0 and 1, pass one label as `mask == {other}`"
        )
    return mask_bytes


def _in_memory_order(reference: Bytes, prediction: Bytes) -> MaskPair:
    axes = tuple(sorted(range(reference.ndim), key=lambda axis: -abs(reference.strides[axis])))
    if all(left < right for left, right in pairwise(axes)):
        axes = tuple(range(reference.ndim))
    return MaskPair(
        np.ascontiguousarray(reference.transpose(axes)),
        np.ascontiguousarray(prediction.transpose(axes)),
        axes,
    )


def without_ignored(reference: Bytes, prediction: Bytes) -> tuple[Bytes, Bytes]:
    """Copies of two masks with the background wherever the reference ignores a voxel.

    Args:
        reference: Indices of labels, or `IGNORED`.
        prediction: Indices of labels, of the same shape.

    Example:
        >>> masks = np.array([[1, 255, 0], [1, 1, 1]], dtype=np.uint8)
        >>> [mask.tolist() for mask in without_ignored(*masks)]
        [[1, 0, 0], [1, 0, 1]]
    """
    ignored = reference == IGNORED
    reference, prediction = reference.copy(order="K"), prediction.copy(order="K")
    reference[ignored] = prediction[ignored] = 0
    return reference, prediction


def words_of(mask: Bytes) -> NDArray[np.uint64]:
    """A flat C-contiguous mask as 64-bit words of 8 voxels, without the last `size % 8` voxels."""
    flat = mask.reshape(-1)
    return flat[: flat.size // 8 * 8].view(np.uint64)


def occupied_box(pair: MaskPair) -> tuple[slice, ...] | None:
    """A box around every foreground voxel of both masks; `None` when both are empty.

    Most of a volume is background in both masks; 64-bit words pass over eight voxels of it at a time. A word that
    reaches into the next row counts for both rows, so the box may be a little larger than needed.

    Example:
        >>> mask = np.zeros((4, 5, 16), dtype=bool)
        >>> mask[1:3, 2, 4:6] = True
        >>> occupied_box(pair_masks(mask, mask))
        (slice(1, 3, None), slice(2, 3, None), slice(4, 6, None))
    """
    # First the occupied rows along the last axis, `(I, J)` of an `(I, J, K)` mask; then the extent within them.
    shape = pair.reference.shape
    row = max(shape[-1], 1)
    is_occupied = np.zeros(pair.reference.size // row, dtype=bool)
    reference, prediction = words_of(pair.reference), words_of(pair.prediction)
    step = CHUNK_VOXELS // 8
    for start in range(0, reference.size, step):
        first = (
            np.flatnonzero((reference[start : start + step] | prediction[start : start + step]) != 0) + start
        ) * 8
        # A word covers several rows if they are shorter than it.
        for voxel in (*range(0, 7, row), 7):
            is_occupied[(first + voxel) // row] = True
    tail = reference.size * 8
    if (pair.reference.reshape(-1)[tail:] | pair.prediction.reshape(-1)[tail:]).any():
        is_occupied[tail // row :] = True
    if not is_occupied.any():
        return None
    rows = is_occupied.reshape(shape[:-1])
    axes = range(rows.ndim)
    box = tuple(_extent(np.asarray(rows.any(axis=tuple(other for other in axes if other != axis)))) for axis in axes)
    along = tuple(axes)
    columns = np.bitwise_or.reduce(pair.reference[box], axis=along) | np.bitwise_or.reduce(
        pair.prediction[box], axis=along
    )
    return (*box, _extent(columns != 0))


def _extent(is_occupied: NDArray[np.bool_]) -> slice:
    """The slice from the first to the last occupied place."""
    first = int(is_occupied.argmax())
    return slice(first, is_occupied.size - int(is_occupied[::-1].argmax()))


def grid_of(spacing_mm: ArrayLike, dimensions: int) -> NDArray[np.float64]:
    """The `(n, n)` matrix that takes a step in voxels to a step in millimetres.

    Args:
        spacing_mm: `n` voxel edge lengths, or the `(n, n)` linear part of an affine.
        dimensions: `n`, the number of axes of the masks.

    Raises:
        SettingsError: The spacing is not `n` positive numbers or an invertible matrix.

    Example:
        >>> grid_of((1.0, 2.0), 2)
        array([[1., 0.],
               [0., 2.]])
    """
    values = np.asarray(spacing_mm, dtype=np.float64)
    if values.shape == (dimensions,) and bool(np.isfinite(values).all() and (values > 0).all()):
        return np.diag(values)
    if values.shape == (dimensions, dimensions) and bool(np.isfinite(values).all()) and np.linalg.det(values) != 0:
        return values
    raise SettingsError(
        f"spacing_mm: found {values.tolist()}; expected {dimensions} positive lengths in mm, one "
        f"for each axis, or the {dimensions} x {dimensions} linear part of an affine",
        field="spacing_mm",
    )


def without_flat_axes(grid: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The grid of the axes that are longer than 1; distances along them are the same.

    Args:
        grid: `(n, n)` matrix from a step in voxels to a step in millimetres.
        shape: `n` lengths, at least one of them above 1.

    Example:
        >>> without_flat_axes(np.diag([1.0, 2.0, 5.0]), (30, 40, 1))
        array([[1., 0.],
               [0., 2.]])
    """
    kept = [axis for axis, length in enumerate(shape) if length != 1]
    if len(kept) == len(shape):
        return grid
    columns = grid[:, kept]
    lengths = edge_lengths(columns)
    # On a sheared grid: the same steps in coordinates of the plane that they span.
    return np.asarray(np.linalg.qr(columns)[1]) if lengths is None else np.diag(lengths)


def edge_lengths(grid: NDArray[np.float64]) -> tuple[float, ...] | None:
    """Voxel edges in mm if the axes of `grid` are at right angles; `None` on a sheared grid.

    Turning a grid in space changes no distance, so the spacing is enough for an oblique grid without shear. A
    cosine of 1e-5 between two axes is about the precision of an affine stored as `float32`.
    """
    if grid.shape == (len(grid),) * 2 and np.count_nonzero(grid) == len(grid) and grid.diagonal().all():
        return tuple(np.abs(grid.diagonal()).tolist())
    gram = grid.T @ grid
    lengths = np.sqrt(np.diag(gram))
    cosines = gram / np.outer(lengths, lengths) - np.eye(len(lengths))
    return None if bool((np.abs(cosines) > 1e-5).any()) else tuple(float(length) for length in lengths)
