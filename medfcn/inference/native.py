"""The mask of a case on its own grid, put together a slab at a time."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from medfcn.inference.decide import certainty_of
from medfcn.slices.grid import GridMap, to_stored_order

_Value = TypeVar("_Value", np.uint8, np.int8, np.float32)


@dataclass(frozen=True)
class Decided:
    """A case's mask before components are removed, in the order that its file stores.

    Attributes:
        indices: `(I, J, K)` indices of labels or overlaps.
        certainty: `(I, J, K)`, as `certainty_of`; None unless it was asked for.
        probabilities: `(L, I, J, K)`; None unless they were asked for.
    """

    indices: NDArray[np.uint8]
    certainty: NDArray[np.int8] | None
    probabilities: NDArray[np.float32] | None


class SlabCollector:
    """Puts the slabs of a case together.

    Args:
        grid: Of the case.
        labels: L, the number of labels.
        threshold: The probability from which a voxel is foreground.
        certainty: Collect the certainty too: one byte a voxel.
        probabilities: Collect the probabilities of all labels too.
    """

    def __init__(
        self, grid: GridMap, labels: int, threshold: float, *, certainty: bool, probabilities: bool = False
    ) -> None:
        shape = tuple(grid.native_shape[axis] for axis in grid.axes)
        self._grid, self._threshold = grid, threshold
        self._indices = np.zeros(shape, dtype=np.uint8)
        self._certainty = np.zeros(shape, dtype=np.int8) if certainty else None
        self._probabilities = np.zeros((labels, *shape), dtype=np.float32) if probabilities else None

    def add(self, rows: slice, probabilities: NDArray[np.float32], indices: NDArray[np.uint8]) -> None:
        """Add the rows of a slab, with `(L, rows, A, S)` probabilities and `(rows, A, S)` indices."""
        self._indices[rows] = indices
        if self._certainty is not None:
            self._certainty[rows] = certainty_of(probabilities, indices, self._threshold)
        if self._probabilities is not None:
            self._probabilities[:, rows] = probabilities

    def collected(self) -> Decided:
        """All slabs; what no slab reached is background."""
        certainty, probabilities = self._certainty, self._probabilities
        return Decided(
            self._stored(self._indices),
            None if certainty is None else self._stored(certainty),
            None if probabilities is None else self._stored(probabilities),
        )

    def _stored(self, array: NDArray[_Value]) -> NDArray[_Value]:
        return np.ascontiguousarray(to_stored_order(array, self._grid))
