"""Until evaluation and reporting ask `LabelCodec` themselves: its old names."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.labels.codec import Bytes, LabelCodec
from medfcn.labels.label_map import LabelMap
from medfcn.labels.whole_numbers import CHUNK_VOXELS as CHUNK_VOXELS
from medfcn.labels.whole_numbers import values_in as values_of

__all__ = ["CHUNK_VOXELS", "Bytes", "is_any_of", "original_values", "places_of", "values_of", "written_values"]


def places_of(mask: NDArray[Any], places: Mapping[int, int]) -> Bytes:
    """See `LabelCodec.encode`."""
    return LabelCodec(places).encode(mask)


def is_any_of(mask: NDArray[Any], values: Iterable[int]) -> NDArray[np.bool_]:
    """See `LabelMap.mask_of`."""
    return LabelCodec(dict.fromkeys(values, 1)).encode(mask).view(np.bool_)


def parts_of_labels(labels: LabelMap) -> list[list[int]]:
    """See `LabelMap.mask_of`."""
    return [np.flatnonzero(of_label).tolist() for of_label in labels.membership.T]


def written_values(labels: LabelMap) -> dict[int, int]:
    """See `LabelMap.written_codec`."""
    return dict(labels.written_codec.indices)


def original_values(labels: LabelMap) -> dict[int, int]:
    """See `LabelMap.reference_codec`."""
    return dict(labels.reference_codec.without_ignored.indices)
