"""A case packed for a page: volumes thinned until they fit, compressed, and written as text."""

import base64
import itertools
import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.labels import IGNORED
from medfcn.reporting.upright import Triple, UprightCase, sampled
from medfcn.volumes.formats.stored import is_of_one_value
from medfcn.volumes.geometry import Spacing

_MOST_MASK_VOXELS = 8_000_000


def packed_case(case: UprightCase, *, most_bytes: int) -> dict[str, Any]:
    """A case as values for JSON: numbers, and volumes as base64 of zlib-compressed bytes.

    Volumes are stored with `x` running fastest. The image has 8 bits over a range twice as wide as its window. It is
    thinned by whole factors (means of blocks) until everything fits. Masks keep every voxel as long as they have
    fewer than 8 million and take less than half of the bytes. Uncertainty is thinned as the image is, to an eighth of
    the bytes. Beyond that, a block gets the largest label in it, so
    that nothing small is lost; a block without a label is ignored if any of its voxels is.

    Args:
        case: The case.
        most_bytes: Limit for the base64 text of all volumes together.
    """
    worst = case.worst_slices
    start = max(worst, key=lambda at: at.area_mm2).point
    factors, masks = _packed_masks(case, most_bytes // 2)
    left = most_bytes - sum(len(text) for text in masks.values() if text is not None)
    doubt = None if case.uncertainty is None else _packed_grey(case.uncertainty, case, (0.0, 1.0), most_bytes // 8)
    left -= 0 if doubt is None else len(doubt["bytes"])
    return {
        "shape": list(case.shape),
        "edges": [round(edge, 6) for edge in case.edges_mm],
        "full": list(case.full_shape),
        "offset": list(case.offset),
        "toFile": [round(float(value), 6) for value in case.to_file[:3].reshape(-1)],
        "toWorld": [round(float(value), 6) for value in case.to_world[:3].reshape(-1)],
        "oblique": case.is_oblique,
        "window": list(case.window),
        "start": list(start),
        "worst": [{"axis": at.axis, "index": at.index, "area": at.area_mm2, "point": list(at.point)} for at in worst],
        "maskFactors": list(factors),
        "image": None if case.image is None else _packed_image(case.image, case, left),
        "uncertainty": doubt,
        **masks,
        "notes": list(case.notes),
    }


def _packed_masks(case: UprightCase, most_bytes: int) -> tuple[Triple, dict[str, str | None]]:
    """Both masks, thinned by the same factors until they fit."""
    most_voxels = _MOST_MASK_VOXELS
    while True:
        factors = _factors(case.shape, case.edges_mm, most_voxels)
        masks = {
            name: None if mask is None else _compressed(_block_labels(mask, factors))
            for name, mask in (("reference", case.reference), ("prediction", case.prediction))
        }
        if sum(len(text) for text in masks.values() if text is not None) <= most_bytes or most_voxels <= 1000:
            return factors, masks
        most_voxels = min(most_voxels, math.prod(_thinned(case.shape, factors))) // 2


def _factors(shape: Triple, edges_mm: Spacing, most_voxels: float) -> Triple:
    """Number of voxels along each axis that become one; the shortest edges grow first."""
    factors = [1, 1, 1]
    while math.prod(_thinned(shape, factors)) > most_voxels:
        lengths = [
            edge * factor if length > factor else math.inf
            for edge, factor, length in zip(edges_mm, factors, shape, strict=True)
        ]
        factors[lengths.index(min(lengths))] += 1
    return factors[0], factors[1], factors[2]


def _thinned(shape: Sequence[int], factors: Sequence[int]) -> Triple:
    lengths = [-(-length // factor) for length, factor in zip(shape, factors, strict=True)]
    return lengths[0], lengths[1], lengths[2]


def _packed_image(image: NDArray[Any], case: UprightCase, most_bytes: int) -> dict[str, Any]:
    low, high = case.window
    values = sampled(image)
    bottom = max(float(values.min()), low - (high - low) / 2)
    top = min(float(values.max()), high + (high - low) / 2)
    if not top > bottom:
        bottom, top = low, high
    return _packed_grey(image, case, (bottom, top), most_bytes)


def _packed_grey(
    array: NDArray[Any], case: UprightCase, ends: tuple[float, float], most_bytes: int
) -> dict[str, Any]:
    """A volume with 8 bits between two values, thinned by whole factors until it fits."""
    bottom, top = ends
    allowed = max(most_bytes, 1)
    while True:
        factors = _factors(case.shape, case.edges_mm, allowed)
        thin = _block_means(array, factors)
        # In float64: the steps of grey of an image of tiny values are smaller than any float32.
        share = (thin.astype(np.float64) - bottom) / (top - bottom)
        grey = np.clip(np.rint(share * 255.0), 0, 255).astype(np.uint8)
        text = _compressed(grey)
        if len(text) <= most_bytes or grey.size <= 1000:
            return {"shape": list(grey.shape), "factors": list(factors), "low": bottom, "high": top, "bytes": text}
        allowed = int(grey.size * min(0.9, 0.97 * most_bytes / len(text)))


def _blocks(array: NDArray[Any], factors: Triple) -> Iterator[NDArray[Any]]:
    """The first voxels of all blocks, then the second ones, and so on; at the edges some blocks are short."""
    for firsts in itertools.product(*(range(factor) for factor in factors)):
        yield array[tuple(slice(first, None, factor) for first, factor in zip(firsts, factors, strict=True))]


def _block_means(image: NDArray[Any], factors: Triple) -> NDArray[np.floating[Any]]:
    kind = np.float64 if image.dtype == np.float64 else np.float32  # its values may be too large or small for another
    total = np.zeros(_thinned(image.shape, factors), dtype=kind)
    counts = np.zeros(total.shape, dtype=kind)
    for part in _blocks(image, factors):
        here = tuple(slice(0, length) for length in part.shape)
        total[here] += np.nan_to_num(part.astype(kind))
        counts[here] += 1
    total /= counts
    return total


def _block_labels(mask: NDArray[np.uint8], factors: Triple) -> NDArray[np.uint8]:
    if is_of_one_value(mask):
        return np.full(_thinned(mask.shape, factors), mask.flat[0])
    ignored = mask == IGNORED
    if not ignored.any():
        return _block_maxima(mask, factors)
    labels = _block_maxima(np.where(ignored, 0, mask).astype(np.uint8), factors)
    labels[(labels == 0) & (_block_maxima(ignored.astype(np.uint8), factors) > 0)] = IGNORED
    return labels


def _block_maxima(mask: NDArray[np.uint8], factors: Triple) -> NDArray[np.uint8]:
    largest = np.zeros(_thinned(mask.shape, factors), dtype=np.uint8)
    for part in _blocks(mask, factors):
        here = tuple(slice(0, length) for length in part.shape)
        np.maximum(largest[here], part, out=largest[here])
    return largest


def _compressed(array: NDArray[np.uint8]) -> str:
    return base64.b64encode(zlib.compress(array.tobytes(order="F"), 6)).decode("ascii")
