"""Neighbourhoods of surface elements that contain ignored voxels: which are boundary, and what their size is.

A face towards an ignored voxel is no boundary. So a neighbourhood is an element of the boundary only if one of its
faces lies between a voxel of the label and a labelled voxel that is not of it. An ignored voxel continues the nearest
labelled voxels of the neighbourhood (nearest by the number of faces on the way): across a slice that is left out, the
contour goes straight on, and nothing is drawn between the slices. Where the nearest voxels differ, the size is the
mean of both choices.

Ignored voxels that lie between two labelled voxels along no axis are open: there the surface ends. The size of a
neighbourhood counts by its share of voxels that are not open.
"""

from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=3)
def is_element(voxels: int) -> NDArray[np.bool_]:
    """`(4**voxels,)`: True for a code with a face between a voxel of the label and a labelled one that is not.

    Args:
        voxels: Voxels of a neighbourhood: 2, 4 or 8. The lower half of the bits of a code says which voxels are of
            the label, the upper half which are ignored.

    Example:
        Two voxels, of which the second is of the label; the first is background, then ignored:

        >>> is_element(2)[[0b0010, 0b0110]].tolist()
        [True, False]
    """
    inside, outside = _labelled(voxels)
    found = np.zeros(4**voxels, dtype=np.bool_)
    for one, other in product(range(voxels), repeat=2):
        if _faces_between(one, other) == 1:
            found |= inside[one] & outside[other]
    return found


def sizes_with_ignored(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The size of each code of `is_element`, from the sizes of the neighbourhoods without ignored voxels.

    Args:
        sizes: `(2**voxels,)`, by the voxels that are of the label.

    Returns:
        `(4**voxels,)`; 0 for codes that are no element.

    Example:
        In two dimensions: a border that ends at two ignored voxels goes straight on.

        >>> sizes_with_ignored(np.arange(16.0))[[0b0000_0101, 0b1100_0001]].tolist()
        [5.0, 5.0]
    """
    voxels = len(sizes).bit_length() - 1
    fewest, most = _fillings(voxels)
    return np.where(is_element(voxels), (sizes[fewest] + sizes[most]) / 2, 0.0)


def _faces_between(one: int, other: int) -> int:
    """Faces on the way from one voxel of a neighbourhood to another: the axes along which they differ."""
    return (one ^ other).bit_count()


def _labelled(voxels: int) -> tuple[list[NDArray[np.bool_]], list[NDArray[np.bool_]]]:
    """For each voxel, which codes have it in the label, and which have it labelled but not in the label."""
    codes = np.arange(4**voxels)
    in_label = [(codes >> voxel & 1).astype(np.bool_) for voxel in range(voxels)]
    ignored = [(codes >> (voxel + voxels) & 1).astype(np.bool_) for voxel in range(voxels)]
    pairs = list(zip(in_label, ignored, strict=True))
    return [ours & ~hidden for ours, hidden in pairs], [~ours & ~hidden for ours, hidden in pairs]


@lru_cache(maxsize=3)
def _fillings(voxels: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """For each code, the voxels of the label once ignored ones continue the nearest: the fewest, the most."""
    inside, outside = _labelled(voxels)
    fewest, most = np.zeros((2, 4**voxels), dtype=np.intp)
    for voxel in range(voxels):
        ours, others = inside[voxel].copy(), outside[voxel].copy()
        for faces in range(1, voxels.bit_length()):
            is_open = ~(ours | others)
            for near in range(voxels):
                if _faces_between(voxel, near) == faces:
                    ours |= is_open & inside[near]
                    others |= is_open & outside[near]
        fewest |= (ours & ~others).astype(np.intp) << voxel
        most |= ours.astype(np.intp) << voxel
    return fewest, most


def open_voxels(ignored: NDArray[np.bool_], box: tuple[slice, ...]) -> NDArray[np.bool_]:
    """Ignored voxels in a box that lie between two labelled voxels along no axis of the volume.

    Example:
        >>> open_voxels(np.array([False, True, False, True]), (slice(0, 4),)).tolist()
        [False, False, False, True]
    """
    hidden = ignored[box]
    found = hidden.copy()
    for axis, part in enumerate(box):
        sides = []
        for beyond, backwards in ((slice(0, part.start), False), (slice(part.stop, None), True)):
            outside = ignored[(*box[:axis], beyond, *box[axis + 1 :])]
            labelled = np.flip(~hidden, axis) if backwards else ~hidden
            seen = np.logical_or.accumulate(labelled, axis=axis) | ~outside.all(axis=axis, keepdims=True)
            sides.append(np.flip(seen, axis) if backwards else seen)
        found &= ~(sides[0] & sides[1])
    return found


def share_not_open(is_open: NDArray[np.bool_], indices: list[NDArray[np.int64]]) -> NDArray[np.float64]:
    """`(n,)` shares of the voxels around corners that are not open, from the `(n,)` corner indices for each axis."""
    padded = np.pad(is_open, 1)
    around = [
        padded[tuple(index + step for index, step in zip(indices, steps, strict=True))]
        for steps in product((0, 1), repeat=is_open.ndim)
    ]
    shares: NDArray[np.float64] = 1 - np.mean(around, axis=0)
    return shares
