"""The shape of a mask: pieces far from the rest, slices missing inside it, and flat ends.

Networks that fail on a part of a volume leave such masks. Some organs have these shapes too (a pair of kidneys, one
half of an organ), so a figure says something only beside those of references; see `medfcn.inference.shapes`.
"""

import math
from collections.abc import Mapping
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from medfcn.scratch import parts
from medfcn.slices.boxes import boxes_of
from medfcn.slices.connected import Components, Connected

_Share = Annotated[float, Meta(ge=0, le=1)]
_FEWEST_VOXELS = 64
"""Smaller masks have no shape to speak of."""
_END_PARTS = 10
"""An end is a tenth of the slices, and at least one: a network rounds the edge of a cut off a little."""
_TINY = 1e-9


class MaskShape(Struct, frozen=True, forbid_unknown_fields=True):
    """Figures of one label's mask, each from 0 (nothing odd) to 1; or limits of these.

    Attributes:
        removed: Share of its voxels that was removed, of a label of which one component is kept.
        far: Share of its voxels in pieces that are farther from the largest piece than this is wide: in mm, the gap
            between the boxes around both is more than the radius of a ball of the volume of the largest.
        dips: Across R, A and S: by how much a slice's area is below those on both sides, in parts of the largest
            area. An empty slice in the middle of an organ gives 1.
        stops: At its left, right, posterior, anterior, inferior and superior end: the area of the slices there, in
            parts of the largest area; above that of an ellipsoid of its length, which is 0. A ball cut in half gives
            1 at the cut. The end of the volume does not count.
    """

    removed: _Share = 0.0
    far: _Share = 0.0
    dips: tuple[_Share, _Share, _Share] = (0.0, 0.0, 0.0)
    stops: tuple[_Share, _Share, _Share, _Share, _Share, _Share] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def shapes_of(
    indices: NDArray[np.uint8],
    membership: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    known_parts: Mapping[int, Components] | None = None,
) -> tuple[MaskShape, ...]:
    """The shape of each label of a mask.

    Args:
        indices: `(R, A, S)` indices of labels or overlaps; any above those count as background.
        membership: `(A + 1, L)`: the labels in the background and in each of A labels or overlaps.
        spacing_mm: Voxel edge lengths along R, A and S.
        known_parts: The components of the voxels of an index, of those that were looked for before.

    Example:
        A ball of 8 voxels radius, the same without two of its slices, and its upper half:

        >>> r, a, s = np.ogrid[-10:11, -10:11, -10:11]
        >>> ball = r**2 + a**2 + s**2 <= 64
        >>> one_label = np.eye(2, dtype=bool)[:, 1:]
        >>> for mask in (ball, ball & (s != 1) & (s != 2), ball & (s > 0)):
        ...     (shape,) = shapes_of(mask.astype(np.uint8), one_label, (1.0, 1.0, 1.0))
        ...     print(round(shape.dips[2], 1), [round(stop, 1) for stop in shape.stops[4:]])
        0.0 [0.0, 0.0]
        0.9 [0.0, 0.0]
        0.0 [1.0, 0.0]
    """
    areas = _areas(indices, len(membership) - 1)
    members = [np.flatnonzero(of_label).tolist() for of_label in membership.T]
    nothing = tuple(np.zeros(size, dtype=np.intp) for size in indices.shape)
    known = [
        [sum((areas[index][axis] for index in within), start=nothing[axis]) for axis in range(3)]
        for within in members
    ]
    large = [place for place, along in enumerate(known) if members[place] and along[0].sum() >= _FEWEST_VOXELS]
    parts_of: dict[tuple[int, ...], Components] = {
        (index,): components for index, components in (known_parts or {}).items()
    }
    unknown = [place for place in large if tuple(members[place]) not in parts_of]
    found = Connected(indices, [members[place] for place in unknown])
    parts_of |= {tuple(members[place]): found.of(number) for number, place in enumerate(unknown)}
    shapes = [MaskShape()] * len(members)
    for place in large:
        shapes[place] = _shape_of(known[place], parts_of[tuple(members[place])], spacing_mm)
    return tuple(shapes)


def _areas(indices: NDArray[np.uint8], most: int) -> dict[int, tuple[NDArray[np.intp], ...]]:
    """The voxels of each index in each slice along R, A and S."""
    areas = {index: tuple(np.zeros(size, dtype=np.intp) for size in indices.shape) for index in range(1, most + 1)}
    for place, part in parts(indices):
        for index, box in boxes_of(part, most).items():
            mask = part[box] == index
            for axis, others in enumerate(((1, 2), (0, 2), (0, 1))):
                first = (place[axis].start or 0) + box[axis].start
                areas[index][axis][first : first + mask.shape[axis]] += np.count_nonzero(mask, axis=others)
    return areas


def _shape_of(
    whole: list[NDArray[np.intp]], components: Components, spacing_mm: tuple[float, float, float]
) -> MaskShape:
    """The shape of a mask.

    Args:
        whole: Its voxels in each slice of the volume along R, A and S.
        components: Its components.
        spacing_mm: Voxel edge lengths along these axes.
    """
    places = [np.flatnonzero(along) for along in whole]
    areas = [along[place[0] : place[-1] + 1] for along, place in zip(whole, places, strict=True)]
    ends = [(place[0] == 0, place[-1] == len(along) - 1) for along, place in zip(whole, places, strict=True)]
    pixels_mm2 = [math.prod(spacing_mm) / thickness for thickness in spacing_mm]
    (left, right), (posterior, anterior), (inferior, superior) = (
        [0.0 if at_end else _stop(along[::step], *sizes) for at_end, step in zip(cut, (1, -1), strict=True)]
        for along, cut, *sizes in zip(areas, ends, spacing_mm, pixels_mm2, strict=True)
    )
    dips = [_dip(along) for along in areas]
    return MaskShape(
        far=_far(components, spacing_mm),
        dips=(dips[0], dips[1], dips[2]),
        stops=(left, right, posterior, anterior, inferior, superior),
    )


def _dip(areas: NDArray[np.intp]) -> float:
    """The deepest dip between larger slices, in parts of the largest slice."""
    before, after = np.maximum.accumulate(areas), np.maximum.accumulate(areas[::-1])[::-1]
    return float((np.minimum(before, after) - areas).max() / areas.max())


def _stop(areas: NDArray[np.intp], thickness_mm: float, pixel_mm2: float) -> float:
    """How flat the end is that `areas` begin with: the largest figure of the slices of its first tenth."""
    largest = int(areas.max())
    half_mm = max(len(areas) * thickness_mm / 2, math.sqrt(largest * pixel_mm2 / math.pi))
    depth = thickness_mm * np.arange(1, len(areas) // _END_PARTS + 2) / half_mm
    # The area of an ellipsoid so deep below its pole: an end that is no larger may be round.
    beyond = (1 - np.minimum(depth, 1)) ** 2
    shares = areas[: len(depth)] / largest
    return float(np.where(beyond > 0, 1 - (1 - shares) / np.maximum(beyond, _TINY), 0.0).max(initial=0.0))


def _far(found: Components, spacing_mm: tuple[float, float, float]) -> float:
    """The share of the voxels in far pieces."""
    if len(found.sizes) == 1:
        return 0.0
    sizes, starts, stops = found.sizes, found.starts, found.stops
    main = int(
        np.lexsort((*starts.T[::-1], -sizes))[0]
    )  # of equal ones the first, in whichever order they are stored
    gaps = np.maximum(0, np.maximum(starts - stops[main], starts[main] - stops)) * np.array(spacing_mm)  # (N, 3)
    radius_mm = (3 * sizes[main] * math.prod(spacing_mm) / (4 * math.pi)) ** (1 / 3)
    return float(sizes[np.linalg.norm(gaps, axis=1) > radius_mm].sum() / sizes.sum())
