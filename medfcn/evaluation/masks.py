"""Two masks made ready to be compared: checked, one byte a voxel, in the same memory order.

Nothing here knows a metric. A mask of one label is boolean, or numbers that are all 0 or 1; a mask of several
labels is `uint8`, with 0 for the background.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medfcn.errors import GeometryMismatchError, LabelError, SettingsError

Bytes = NDArray[np.uint8]

# What one step of a pass over a volume works on: small enough to stay in a second-level cache.
CHUNK_VOXELS = 1 << 19


@dataclass(frozen=True)
class MaskPair:
    """A reference and a prediction on one grid, both C-contiguous `uint8`.

    Attributes:
        reference: The labels drawn by the reader.
        prediction: The labels from the network.
        axes: `axes[n]` is the axis of the caller's arrays that became axis `n` here, so that memory is walked
            in the order it lies in.
    """

    reference: Bytes
    prediction: Bytes
    axes: tuple[int, ...]


def pair_masks(reference: ArrayLike, prediction: ArrayLike) -> MaskPair:
    """Make two masks of one label ready.

    Args:
        reference: Boolean, or numbers that are all 0 or 1.
        prediction: The same, of the same shape.

    Raises:
        GeometryMismatchError: The shapes differ.
        LabelError: A mask holds other values than 0 and 1.

    Example:
        >>> pair_masks([[True, False]], [[0.0, 1.0]]).prediction
        array([[0, 1]], dtype=uint8)
    """
    first, second = np.asarray(reference), np.asarray(prediction)
    _require_same_shape(first, second)
    return _in_memory_order(_one_label(first, "reference"), _one_label(second, "prediction"))


def pair_labels(reference: ArrayLike, prediction: ArrayLike) -> MaskPair:
    """Make two `uint8` masks of several labels ready.

    Raises:
        GeometryMismatchError: The shapes differ.
        LabelError: A mask is not `uint8`.
    """
    first, second = np.asarray(reference), np.asarray(prediction)
    _require_same_shape(first, second)
    for name, array in (("reference", first), ("prediction", second)):
        if array.dtype not in (np.dtype(np.uint8), np.dtype(np.bool_)):
            raise LabelError(
                f"{name}: labels are {array.dtype}; expected uint8 with k for the k-th label, "
                "encode them with LabelMap.encode first"
            )
    return _in_memory_order(first.view(np.uint8), second.view(np.uint8))


def _require_same_shape(reference: NDArray[Any], prediction: NDArray[Any]) -> None:
    if reference.shape != prediction.shape:
        raise GeometryMismatchError(
            f"prediction shape {prediction.shape} differs from reference shape {reference.shape}; "
            "put both masks on one grid"
        )
    if reference.ndim == 0:
        raise GeometryMismatchError("reference: found a single number; expected an array of voxels")


def _one_label(mask: NDArray[Any], name: str) -> Bytes:
    """The mask as 0 and 1; several labels must not be merged in silence."""
    if mask.dtype == np.bool_:
        return mask.view(np.uint8)
    if mask.dtype.kind not in "iuf":
        raise LabelError(f"{name}: values are {mask.dtype}; expected a mask of booleans, or of 0 and 1")
    mask_bytes: Bytes = mask.astype(np.uint8, copy=False) if mask.dtype.kind in "iu" else (mask == 1).view(np.uint8)
    in_range = mask.dtype == np.uint8 or np.array_equal(mask_bytes, mask)
    if not in_range or (mask_bytes.size and int(mask_bytes.max()) > 1):
        other = mask[(mask != 0) & (mask != 1)].flat[0]
        raise LabelError(
            f"{name}: holds the value {other}; expected only 0 and 1, pass one label as `mask == {other}`"
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


def occupied_words(pair: MaskPair) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Where either mask has anything, eight voxels at a time.

    Most of a volume is background in both masks; comparing 64-bit words passes over it eight voxels a step.

    Yields:
        For each chunk of the flat masks, the index of its first word and the indices, within the chunk, of
        the words that are not zero in both. The last `size % 8` voxels belong to no word.
    """
    reference, prediction = words_of(pair.reference), words_of(pair.prediction)
    step = CHUNK_VOXELS // 8
    for start in range(0, reference.size, step):
        either = reference[start : start + step] | prediction[start : start + step]
        yield start, np.flatnonzero(either)


def words_of(mask: Bytes) -> NDArray[np.uint64]:
    """The flat mask as 64-bit words, without the last `size % 8` voxels."""
    flat = mask.reshape(-1)
    return flat[: flat.size // 8 * 8].view(np.uint64)


def occupied_box(pair: MaskPair) -> tuple[slice, ...] | None:
    """A box that holds every foreground voxel of both masks; `None` when both are empty.

    Along the last axis the box may be up to seven voxels wider than needed on each side.

    Example:
        >>> mask = np.zeros((4, 5, 64), dtype=bool)
        >>> mask[1:3, 2, 8:16] = True
        >>> occupied_box(pair_masks(mask, mask))
        (slice(1, 3, None), slice(2, 3, None), slice(8, 16, None))
    """
    shape = pair.reference.shape
    row = max(shape[-1], 1)
    lows, highs = [math.inf] * 2, [-math.inf] * 2
    rows: list[NDArray[np.intp]] = []
    for start, words in occupied_words(pair):
        if words.size:
            first = (words + start) * 8
            first_row, last_row = first // row, (first + 7) // row
            # Rows shorter than a word lie between its first and its last voxel.
            rows += [_distinct((first + voxel) // row) for voxel in (*range(0, 7, row), 7)]
            straddles = bool((first_row != last_row).any())
            column = first - first_row * row
            lows[0] = min(lows[0], 0 if straddles else int(column.min()))
            highs[0] = max(highs[0], row if straddles else int(column.max()) + 8)
    tail = pair.reference.size // 8 * 8
    rest = np.flatnonzero(pair.reference.reshape(-1)[tail:] | pair.prediction.reshape(-1)[tail:]) + tail
    if rest.size:
        rows.append(rest // row)
        lows[0] = min(lows[0], int((rest % row).min()))
        highs[0] = max(highs[0], int((rest % row).max()) + 1)
    if not rows:
        return None
    outer = np.unravel_index(_distinct(np.concatenate(rows)), shape[:-1]) if len(shape) > 1 else ()
    box = [slice(int(index.min()), int(index.max()) + 1) for index in outer]
    return (*box, slice(int(lows[0]), min(int(highs[0]), row)))


def _distinct(ascending: NDArray[np.intp]) -> NDArray[np.intp]:
    """Drop repeats that follow one another."""
    keep = np.ones(ascending.size, dtype=bool)
    np.not_equal(ascending[1:], ascending[:-1], out=keep[1:])
    return ascending[keep]


def grid_of(spacing_mm: ArrayLike, dimensions: int) -> NDArray[np.float64]:
    """The `(n, n)` matrix that takes a step in voxels to a step in millimetres.

    Args:
        spacing_mm: `n` voxel edge lengths, or already the `(n, n)` linear part of an affine.
        dimensions: The `n` of the masks.

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
        f"for each axis, or the {dimensions} x {dimensions} linear part of an affine"
    )


def edge_lengths(grid: NDArray[np.float64], *, tolerance: float = 1e-5) -> tuple[float, ...] | None:
    """Voxel edges in mm when the axes of `grid` stand at right angles; `None` on a sheared grid.

    Turning a grid in space changes no distance, so an oblique grid without shear is as good as its spacing.
    The tolerance is on the cosine between two axes, about what an affine stored as `float32` can hold.
    """
    gram = grid.T @ grid
    lengths = np.sqrt(np.diag(gram))
    cosines = gram / np.outer(lengths, lengths) - np.eye(len(lengths))
    return None if bool((np.abs(cosines) > tolerance).any()) else tuple(float(length) for length in lengths)
