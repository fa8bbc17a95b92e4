"""The boundary of every label of a mask in one pass: positions and sizes of its elements.

Two definitions:

- `voxels`: the foreground voxels with a neighbour across a face (2D: an edge) that has another label; outside the
  image is background, unless the ends of the image are no boundary. An element is a voxel centre and counts 1.
- `elements`: the corners between voxels whose 2 x 2 x 2 (2D: 2 x 2) neighbourhood is partly of the label. The size of
  an element is that of the piece of marching-cubes surface (2D: contour) within the neighbourhood.

A face towards an ignored voxel is no boundary (for surface elements see `medfcn.evaluation.ignored_boundary`).
Where the ends of the image are no boundary, all voxels outside count as ignored: the image goes on as it ends.

Source:
    Nikolov et al., "Clinically applicable segmentation of head and neck anatomy for radiotherapy", J Med
    Internet Res 23(7), 2021 (surface elements); Lorensen and Cline, SIGGRAPH 1987 (marching cubes).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import GeometryMismatchError, SettingsError
from medfcn.evaluation.ignored_boundary import is_element, sizes_with_ignored
from medfcn.labels import IGNORED
from medfcn.labels.codec import Bytes
from medfcn.labels.whole_numbers import CHUNK_VOXELS

Boundary = Literal["voxels", "elements"]
"""`voxels`: foreground voxels that touch the background; `elements`: pieces of the surface between voxels."""


Codes = NDArray[np.uint8] | NDArray[np.uint16]
"""Codes of neighbourhoods."""


def require_boundary(boundary: str, setting: str = "boundary") -> None:
    """Refuse an unknown boundary.

    Raises:
        SettingsError: It is neither `voxels` nor `elements`.
    """
    if boundary not in get_args(Boundary):
        raise SettingsError(f"{setting}: found {boundary!r}; expected 'voxels' or 'elements'", field=setting)


@dataclass(frozen=True)
class BoundaryPoints:
    """The boundary of one label of one mask.

    Attributes:
        positions: `(n,)` ascending positions on a C-ordered lattice of `shape`.
        codes: `(n,)`, for `elements`: the corners of the neighbourhood that are of the label, one bit each; with
            ignored voxels, as many higher bits for the corners that are ignored. Empty for `voxels`.
        shape: Shape of the lattice: one larger than the masks along each axis.
    """

    positions: NDArray[np.int64]
    codes: Codes
    shape: tuple[int, ...]

    def indices(self) -> list[NDArray[np.int64]]:
        """The `(n,)` lattice indices of all points, for each axis."""
        axes = []
        positions = self.positions
        for length in self.shape[:0:-1]:
            outer = positions // length
            axes.append(positions - outer * length)
            positions = outer
        return [positions, *reversed(axes)]


def label_boundaries(
    mask: Bytes, labels: int, boundary: Boundary, *, ignored: bool = False, at_ends: bool = True
) -> tuple[BoundaryPoints, ...]:
    """The boundaries of labels 1 to `labels`, in order.

    Args:
        mask: `uint8`, for `elements` with 1, 2 or 3 axes; `k` for the k-th label, 0 for the background.
        labels: The number of labels.
        boundary: The definition.
        ignored: The mask also contains `IGNORED`.
        at_ends: The ends of the mask are boundary.

    Returns:
        One set of points for each label; empty for a label that the mask does not contain.

    Raises:
        GeometryMismatchError: The mask has too many axes for surface elements.
    """
    shape = tuple(length + 1 for length in mask.shape)
    if boundary == "elements" and mask.ndim > 3:
        raise GeometryMismatchError(
            f"reference: has {mask.ndim} axes; surface elements are defined for up to 3", code="SHAPE"
        )
    find = _edge_voxels if boundary == "voxels" else _edge_corners
    hides = ignored or not at_ends
    found = [find(slab, labels, hides) for slab in _slabs(mask, 0 if at_ends else IGNORED)]
    if not found:
        nothing = BoundaryPoints(np.empty(0, np.int64), np.empty(0, np.uint8), shape)
        return (nothing,) * labels
    positions, owners, codes = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    if labels == 1:
        return (BoundaryPoints(positions, codes, shape),)
    # Sort by label; the sort is stable, so the positions of each label still ascend.
    order = np.argsort(owners, kind="stable")
    positions, codes = positions[order], codes[order] if codes.size else codes
    ends = np.cumsum(np.bincount(owners, minlength=labels + 1))
    return tuple(
        BoundaryPoints(positions[start:end], codes[start:end] if codes.size else codes, shape)
        for start, end in pairwise(ends)
    )


@dataclass(frozen=True)
class _Slab:
    """Some rows of the mask in a flat buffer, with padding all around.

    A mask is padded only in front of each axis: the padding of the next row is also the end of this one. So every
    neighbour of a voxel is a constant step away in flat memory, and comparing the whole slab with its neighbours is
    one operation on two views of the buffer. Memory behind the last row is read only at places that are padding in
    every row.

    Attributes:
        flat: The buffer: one row before the slab, the slab, and a margin behind it.
        strides: Steps in the buffer to the next voxel along each axis.
        size: Voxels of the slab, padding included.
        first_position: Position of its first voxel on the lattice.
    """

    flat: Bytes
    strides: tuple[int, ...]
    size: int
    first_position: int

    def at(self, shift: int, extra: int = 0) -> Bytes:
        """The slab, `shift` steps further in the buffer, with `extra` steps beyond its end."""
        start = self.strides[0] + shift
        return self.flat[start : start + self.size + extra]


def _slabs(mask: Bytes, outside: int) -> Iterator[_Slab]:
    """Slabs along the first axis; those without foreground are left out. `outside` is the value of the padding."""
    padded = tuple(length + 1 for length in mask.shape)
    strides = tuple(int(np.prod(padded[axis + 1 :])) for axis in range(mask.ndim))
    rows = min(padded[0], max(4, CHUNK_VOXELS // strides[0]))
    inner = (slice(1, None),) * (mask.ndim - 1)
    buffer = np.full((rows + 2) * strides[0] + sum(strides), outside, dtype=np.uint8)
    for first in range(0, padded[0], rows):
        last = min(first + rows, padded[0])
        body = buffer[: (last - first + 2) * strides[0]].reshape(-1, *padded[1:])
        # Row r of the body is padded row first - 1 + r, which is row first - 2 + r of the mask.
        low, high = max(first - 2, 0), min(last, mask.shape[0])
        offset = low - (first - 2)
        body[:offset] = outside
        body[(slice(offset, offset + high - low), *inner)] = mask[low:high]
        body[offset + high - low :] = outside
        if body.max():
            yield _Slab(buffer, strides, (last - first) * strides[0], first * strides[0])


_Found = tuple[NDArray[np.int64], Bytes, Codes]
"""`(n,)` positions, labels and codes of boundary elements; labels are empty where there is only one."""


def _edge_voxels(slab: _Slab, labels: int, hides: bool) -> _Found:
    """Positions and labels of the voxels that touch another label or the background.

    For each axis, `change` is not 0 where a voxel differs from the one before it. The voxel and the one before it are
    then both on an edge, if they are foreground; unless one of the two is ignored (only where `hides`).
    """
    here = slab.at(0)
    edge = np.zeros(slab.size, dtype=np.uint8)
    for stride in slab.strides:
        change = slab.at(-stride, stride) ^ slab.at(0, stride)
        if hides:
            change *= (slab.at(-stride, stride) != IGNORED) & (slab.at(0, stride) != IGNORED)
        edge |= change[:-stride]
        edge |= change[stride:]
    is_edge = edge != 0
    is_edge &= here != 0
    positions = np.flatnonzero(is_edge)
    owners = here[positions] if labels > 1 else np.empty(0, np.uint8)
    return positions + slab.first_position, owners, np.empty(0, np.uint8)


def _edge_corners(slab: _Slab, labels: int, hides: bool) -> _Found:
    """Positions, labels and codes of the corners between voxels that do not all have one label.

    `mixed` is widened axis by axis, from the last to the first: after an axis, it is not 0 where the voxels of a
    neighbourhood that is 2 wide along this axis and the later ones differ.
    """
    beyond = sum(slab.strides)
    mixed = np.zeros(slab.size + beyond, dtype=np.uint8)
    for stride in reversed(slab.strides):
        beyond -= stride
        wider = mixed
        mixed = wider[: slab.size + beyond] | wider[stride : slab.size + beyond + stride]
        mixed |= slab.at(0, beyond) ^ slab.at(stride, beyond)
    positions = np.flatnonzero(mixed != 0)
    steps = [sum(np.multiply(corner, slab.strides)) for corner in corners(len(slab.strides))]
    around = [slab.at(step).take(positions) for step in steps]
    if labels == 1 and not hides:
        codes = np.zeros(positions.size, dtype=np.uint8)
        for bit, label in enumerate(around):
            codes |= label << np.uint8(bit)
        return positions + slab.first_position, np.empty(0, np.uint8), codes
    return _split_by_label(positions + slab.first_position, around, hides)


def _split_by_label(positions: NDArray[np.int64], around: list[Bytes], hides: bool) -> _Found:
    """One element for each label that meets at a corner.

    Args:
        positions: `(n,)` mixed corners.
        around: The `(n,)` labels of each of the 2, 4 or 8 voxels around them.
        hides: Some may be ignored.

    The k-th voxel around a corner makes an element if none of the earlier ones has its label. So there are at most 8
    steps, whatever the number of labels.
    """
    ignored = np.zeros(positions.size, dtype=np.uint16)
    for bit, label in enumerate(around if hides else ()):
        ignored |= (label == IGNORED).astype(np.uint16) << np.uint16(bit + len(around))
    elements: list[_Found] = []
    for first, label in enumerate(around):
        is_new = (label != 0) & (label != IGNORED) if hides else label != 0
        for earlier in around[:first]:
            is_new &= earlier != label
        chosen = np.flatnonzero(is_new)
        owner = label[chosen]
        codes = np.zeros(chosen.size, dtype=np.uint8)
        for bit in range(first, len(around)):
            codes |= (around[bit][chosen] == owner).view(np.uint8) << np.uint8(bit)
        if hides:
            hidden_codes = codes | ignored[chosen]
            kept = is_element(len(around))[hidden_codes]
            elements.append((positions[chosen[kept]], owner[kept], hidden_codes[kept]))
        else:
            elements.append((positions[chosen], owner, codes))
    positions, owners, codes = (np.concatenate(arrays) for arrays in zip(*elements, strict=True))
    order = np.argsort(positions, kind="stable")
    return positions[order], owners[order], codes[order]


def corners(dimensions: int) -> list[tuple[int, ...]]:
    """The corners of a neighbourhood, in the order of the bits of its code.

    Example:
        >>> corners(2)
        [(0, 0), (0, 1), (1, 0), (1, 1)]
    """
    return list(product((0, 1), repeat=dimensions))


def element_sizes(grid: NDArray[np.float64], *, ignored: bool = False) -> NDArray[np.float64]:
    """The size of the surface element of each neighbourhood code.

    Args:
        grid: `(n, n)` matrix from voxel steps to millimetres, `n` 1, 2 or 3.
        ignored: The codes have bits for ignored voxels.

    Returns:
        `(4,)` ones, `(16,)` contour lengths in mm, or `(256,)` areas in mm² (with `ignored` the square of so many);
        0 where the neighbourhood is not mixed. An area is that of the classic marching-cubes triangles of the code or
        of its complement, whichever is smaller.

    Example:
        >>> element_sizes(np.diag([2.0, 1.0]))[[0b0001, 0b0011, 0b1001]].round(3)
        array([1.118, 1.   , 2.236])
    """
    return _element_sizes(tuple(map(tuple, grid.tolist())), ignored)


@lru_cache(maxsize=64)
def _element_sizes(rows: tuple[tuple[float, ...], ...], ignored: bool) -> NDArray[np.float64]:
    """The cached sizes: the volumes of a folder mostly share their spacing."""
    grid = np.array(rows)
    if len(grid) == 1:
        sizes = np.array([0.0, 1.0, 1.0, 0.0])
    else:
        sizes = _contour_lengths(grid) if len(grid) == 2 else _surface_areas(grid)
    if ignored:
        sizes = sizes_with_ignored(sizes)
    sizes.flags.writeable = False
    return sizes


def _contour_lengths(grid: NDArray[np.float64]) -> NDArray[np.float64]:
    rows, columns = np.linalg.norm(grid, axis=0)
    # The line that cuts off one corner joins the middles of two edges; on a sheared grid it has one of two lengths.
    same = np.linalg.norm(grid[:, 0] - grid[:, 1]) / 2
    other = np.linalg.norm(grid[:, 0] + grid[:, 1]) / 2
    lengths = np.zeros(16)
    for code in range(1, 15):
        at = [code >> bit & 1 for bit in range(4)]
        if at.count(1) == 2 and at[0] == at[1]:
            lengths[code] = columns
        elif at.count(1) == 2 and at[0] == at[2]:
            lengths[code] = rows
        elif at.count(1) == 2:
            lengths[code] = 2 * min(same, other)
        else:
            lone = at.index(1) if at.count(1) == 1 else at.index(0)
            lengths[code] = same if lone in (0, 3) else other
    return lengths


def _surface_areas(grid: NDArray[np.float64]) -> NDArray[np.float64]:
    owners, triangles = _marching_cubes_triangles()
    points = triangles @ grid.T
    normals = np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
    areas = np.bincount(owners, weights=np.linalg.norm(normals, axis=1) / 2, minlength=256)
    smaller: NDArray[np.float64] = np.minimum(areas, areas[::-1])
    return smaller


@lru_cache(maxsize=1)
def _marching_cubes_triangles() -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Triangles of all 256 neighbourhoods, as `(t,)` codes and `(t, 3, 3)` corner points in voxel steps.

    All neighbourhoods are put into one plate of 32 x 32 x 2 voxels, two voxels apart. scikit-image makes the surface
    of the plate; the triangles between neighbourhoods are left out.
    """
    from skimage.measure import marching_cubes

    codes = np.arange(256).reshape(16, 16)
    plate = np.zeros((32, 32, 2))
    for bit, (row, column, height) in enumerate(corners(3)):
        plate[row::2, column::2, height] = codes >> bit & 1
    points, faces, _, _ = marching_cubes(  # type: ignore[no-untyped-call]
        plate, 0.5, method="lorensen", allow_degenerate=True
    )
    triangles = np.asarray(points, dtype=np.float64)[faces]
    cells = np.floor(triangles.mean(axis=1)).astype(np.intp)
    is_ours = (cells[:, 0] % 2 == 0) & (cells[:, 1] % 2 == 0)
    cells = cells[is_ours]
    if len(np.unique(codes[cells[:, 0] // 2, cells[:, 1] // 2])) != 254:
        raise SettingsError(
            "scikit-image: its marching cubes leaves out neighbourhoods; install scikit-image >= 0.22",
            code="FAILED",
            field="scikit-image",
        )
    return codes[cells[:, 0] // 2, cells[:, 1] // 2], triangles[is_ours]
