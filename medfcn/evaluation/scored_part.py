"""The part of two masks on which all scores are those of the whole volume, where the volume is large.

Background around the foreground of both masks changes the number of true negatives and nothing else. And where each
mask has one value everywhere, a few voxels of each tell everything but the counts.
"""

from dataclasses import dataclass, replace
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from medfcn.evaluation.mask_pairs import MaskPair, occupied_box
from medfcn.evaluation.overlap import VoxelCounts
from medfcn.volumes.formats.stored import LARGE_BYTES, is_of_one_value

_FEW = 3
"""Voxels along an axis that have both ends and a voxel between them, as any longer axis does."""


@dataclass(frozen=True)
class ScoredPart:
    """A part of a reference and a prediction.

    Attributes:
        reference: The part of the reference.
        prediction: That of the prediction.
        voxels: Voxels of the whole.
        is_uniform: Each mask has one value everywhere; the part is a few voxels of them. Otherwise the part contains
            all that is not 0 in either, and a voxel more in each direction where there is one.
    """

    reference: NDArray[Any]
    prediction: NDArray[Any]
    voxels: int
    is_uniform: bool = False

    @classmethod
    def of(cls, reference: NDArray[Any], prediction: NDArray[Any]) -> Self:
        """The part of two masks on one grid; small ones are their own part.

        Args:
            reference: Values, of which 0 is background.
            prediction: The same, of the same shape.

        Example:
            >>> from medfcn.volumes.formats.stored import of_one_value
            >>> empty, mask = of_one_value(np.uint8(0), (300, 300, 300)), np.zeros((300, 300, 300), dtype=np.uint16)
            >>> ScoredPart.of(empty, empty).reference.shape
            (3, 3, 3)
            >>> mask[0, 100:110, 200] = 1
            >>> ScoredPart.of(mask, empty).prediction.shape
            (2, 12, 3)
        """
        voxels, masks = reference.size, (reference, prediction)
        if voxels < LARGE_BYTES or reference.shape != prediction.shape:
            return cls(*masks, voxels)
        if all(map(is_of_one_value, masks)):
            few = tuple(slice(min(length, _FEW)) for length in reference.shape)
            return cls(reference[few], prediction[few], voxels, is_uniform=True)
        found = [box for box in map(_box, masks) if box is not None]
        sides = zip(*found, strict=True) if found else ((slice(0, 1),),) * reference.ndim
        box = tuple(
            slice(max(min(side.start for side in along) - 1, 0), min(max(side.stop for side in along) + 1, length))
            for along, length in zip(sides, reference.shape, strict=True)
        )
        return cls(reference[box], prediction[box], voxels)

    @property
    def masks(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The two parts."""
        return self.reference, self.prediction

    def whole(self, counts: VoxelCounts) -> VoxelCounts:
        """The counts of the whole, from those of the part."""
        true, extra, lost = counts.true_positives, counts.false_positives, counts.false_negatives
        if self.is_uniform:
            return VoxelCounts(*(self.voxels if count else 0 for count in (true, extra, lost, counts.true_negatives)))
        return replace(counts, true_negatives=counts.true_negatives + self._outside)

    def whole_matrix(self, matrix: NDArray[np.int64]) -> NDArray[np.int64]:
        """The confusion matrix of the whole, from that of the part."""
        if self.is_uniform:
            return np.where(matrix > 0, self.voxels, 0)
        whole = matrix.copy()
        whole[0, 0] += self._outside
        return whole

    def whole_count(self, labelled: int) -> int:
        """The labelled voxels of the whole, from those of the part."""
        if self.is_uniform:
            return self.voxels if labelled else 0
        return labelled + self._outside

    @property
    def _outside(self) -> int:
        return self.voxels - prod(self.reference.shape)


def _box(mask: NDArray[Any]) -> tuple[slice, ...] | None:
    """A box around all that is not 0; None if everything is."""
    if is_of_one_value(mask):
        return tuple(slice(0, length) for length in mask.shape) if mask.flat[0] else None
    axes = tuple(sorted(range(mask.ndim), key=lambda axis: -abs(mask.strides[axis])))
    as_bytes = np.ascontiguousarray(mask.transpose(axes)).view(np.uint8)
    found = occupied_box(MaskPair(as_bytes, as_bytes, axes))
    if found is None:
        return None
    *sides, last = found
    size = mask.dtype.itemsize
    sides.append(slice(last.start // size, -(-last.stop // size)))
    return tuple(sides[axes.index(axis)] for axis in range(mask.ndim))
