"""The connected components of a mask."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from medfcn.labels.whole_numbers import chunks, value_counts


@dataclass(frozen=True)
class Components:
    """The components of a mask that is not empty; voxels that share a face are connected.

    Attributes:
        box: The box around the mask.
        numbers: In the box, the component of each voxel, from 1, and 0 outside of the mask.
        sizes: `(N,)` voxels of each component, those of component k at k - 1.
    """

    box: tuple[slice, ...]
    numbers: NDArray[Any]
    sizes: NDArray[np.intp]

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> Self:
        """Number the components of a mask."""
        from skimage.measure import label

        box = tuple(_extent(mask, axis) for axis in range(mask.ndim))
        numbers = label(mask[box], connectivity=1)  # type: ignore[no-untyped-call]
        return cls(box, numbers, value_counts(numbers, int(numbers.max()) + 1)[1:])

    def sums_of(self, values: NDArray[np.int8]) -> NDArray[Any]:
        """`(N,)` sum of a whole number over the voxels of each component; exact, so in any order of axes the same."""
        sums = np.zeros(len(self.sizes) + 1)
        for numbers, some in chunks(self.numbers, values[self.box]):  # `np.bincount` widens both to 8 bytes a voxel
            sums += np.bincount(numbers, weights=some, minlength=len(sums))
        return sums[1:]

    @property
    def boxes(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """`(N, 3)` first voxel and end of the box around each component."""
        from scipy.ndimage import find_objects

        around = find_objects(self.numbers)
        return (
            np.array([[side.start for side in box] for box in around]),
            np.array([[side.stop for side in box] for box in around]),
        )


def _extent(mask: NDArray[np.bool_], axis: int) -> slice:
    """From the first to the last place along an axis where a mask that is not empty has a voxel."""
    places = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
    return slice(int(places[0]), int(places[-1]) + 1)


def largest_share(mask: NDArray[np.bool_]) -> float:
    """The share of a mask's voxels that is in its largest component; nan for an empty mask.

    Example:
        >>> mask = np.zeros((1, 1, 6), dtype=bool)
        >>> mask[..., :3] = mask[..., 5] = True
        >>> largest_share(mask)
        0.75
    """
    if not mask.any():
        return float("nan")
    sizes = Components.of(mask).sizes
    return float(sizes.max() / sizes.sum())


@dataclass(frozen=True)
class OnePart:
    """A mask of which some labels were cut to one component.

    Attributes:
        indices: `(I, J, K)`.
        removed: By index of these labels, the share of the voxels that was removed.
        disputed: The labels whose largest component is not the most certain one; both are kept.
    """

    indices: NDArray[np.uint8]
    removed: Mapping[int, float]
    disputed: tuple[int, ...] = ()


def keep_one_part(
    indices: NDArray[np.uint8], labels: tuple[int, ...], certainty: NDArray[np.int8] | None = None
) -> OnePart:
    """Remove all but the largest component of some labels, and but the most certain one where that is another.

    The larger of two components may be a neighbour that was misread with little certainty, so size alone must not
    remove the other. Components of equal size are all kept: which of them comes first would depend on how the file
    orders its axes.

    Args:
        indices: `(I, J, K)`: 0 for background, k for the k-th label.
        labels: The indices of these labels.
        certainty: `(I, J, K)`: the evidence for each voxel's label, whose sum says how certain a component is; None
            goes by size alone.
    """
    kept, removed, disputed = indices.copy(), {}, []
    for index in labels:
        mask = indices == index
        if not mask.any():
            continue
        found = Components.of(mask)
        stays = found.sizes == found.sizes.max()
        if certainty is not None and not stays.all():
            evidence = found.sums_of(certainty)
            if evidence[stays].max() < evidence.max():
                stays |= evidence == evidence.max()
                disputed.append(index)
        kept[found.box][np.isin(found.numbers, np.flatnonzero(~stays) + 1)] = 0
        removed[index] = float(found.sizes[~stays].sum() / found.sizes.sum())
    return OnePart(kept, removed, tuple(disputed))
