"""The mask of a case on its own grid, put together a slab at a time."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.inference.decide import Foreground, certainty_of
from medfcn.scratch import put, scratch_array
from medfcn.slices.grid import GridMap, from_stored_order
from medfcn.slices.voxels import Ranges


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
        shape = grid.native_shape
        self._grid, self._threshold = grid, threshold
        self._indices = scratch_array(shape, np.uint8, purpose="the mask")
        self._certainty = scratch_array(shape, np.int8, purpose="the mask's certainty") if certainty else None
        self._probabilities: NDArray[np.float32] | None = None
        if probabilities:
            of_labels = scratch_array((*shape, labels), np.float32, purpose="the probabilities")
            self._probabilities = np.moveaxis(of_labels, 3, 0)

    def add(
        self,
        place: Ranges,
        probabilities: NDArray[np.float32],
        indices: NDArray[np.uint8],
        foreground: Foreground | None = None,
    ) -> None:
        """Add a slab.

        Args:
            place: Its place along R, A and S.
            probabilities: `(L, r, a, s)`.
            indices: `(r, a, s)`.
            foreground: That of the indices, if it is known.
        """
        self._put(self._indices, place, indices)
        if self._certainty is not None:
            self._put(self._certainty, place, certainty_of(probabilities, indices, self._threshold, foreground))
        if self._probabilities is not None:
            self._put(self._probabilities, (slice(None), *place), probabilities)

    def collected(self) -> Decided:
        """All slabs; what no slab reached is background."""
        return Decided(self._indices, self._certainty, self._probabilities)

    def _put(self, array: NDArray[Any], place: Ranges, values: NDArray[Any]) -> None:
        put(from_stored_order(array, self._grid)[place], values)
