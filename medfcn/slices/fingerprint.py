"""The figures of a data set from which a plan is made."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfcn.labels import IGNORED
from medfcn.labels.sparse_labels import count_labelled, is_partly_labelled
from medfcn.labels.whole_numbers import value_counts
from medfcn.slices.appearance import Appearance, appearance_of
from medfcn.slices.components import largest_share, together_shares
from medfcn.slices.grid import from_stored_order, map_to_network
from medfcn.slices.shape import MaskShape, shapes_of
from medfcn.volumes import Volume

_FOREGROUND_SAMPLE = 10_000
"""Foreground voxels kept from each case for intensity percentiles; evenly spaced, so nothing is random."""


@dataclass(frozen=True)
class CaseFingerprint:
    """One case's figures.

    Attributes:
        id: The case.
        shape: Voxels in R, A, S order.
        spacing_mm: Voxel edge lengths in R, A, S order.
        extent_mm: Edges of the box around the foreground in R, A, S order; zeros without foreground.
        minimum: The smallest intensity of each channel.
        foreground: For each channel up to 10,000 intensities of foreground voxels.
        label_voxels: Voxels of each label, in the order of the labels.
        largest_shares: For each label the share of its voxels in its largest component; nan where it is absent.
        right_shares: For each label the share of its voxels in the half of the volume towards the patient's right;
            nan where it is absent.
        appearance: The look of the images.
        ignored_voxels: Voxels that nobody labelled.
        shapes: The shape of each label.
        together_shares: For each label the share of its voxels in the largest component of all labels together; nan
            where it is absent.
    """

    id: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    extent_mm: tuple[float, float, float]
    minimum: tuple[float, ...]
    foreground: tuple[NDArray[np.float32], ...]
    label_voxels: tuple[int, ...]
    largest_shares: tuple[float, ...]
    right_shares: tuple[float, ...]
    appearance: Appearance
    ignored_voxels: int = 0
    shapes: tuple[MaskShape, ...] = ()
    together_shares: tuple[float, ...] = ()

    @property
    def is_partly_labelled(self) -> bool:
        """True if less than half of the case is labelled, so that its labels are only parts of organs."""
        voxels = math.prod(self.shape)
        return is_partly_labelled(voxels - self.ignored_voxels, voxels)


def fingerprint_case(
    case_id: str,
    images: Iterable[Volume],
    labels: NDArray[np.uint8],
    label_count: int,
    *,
    members: NDArray[np.bool_] | None = None,
) -> CaseFingerprint:
    """Compute one case's figures.

    Args:
        case_id: The case.
        images: One volume per channel, on one grid.
        labels: `(I, J, K)` on that grid: 0 for background, k for the k-th label; `IGNORED` counts as neither.
        label_count: Labels L.
        members: `(A + 1, L)` for labels that overlap: the labels that a value of 0 … A stands for.
    """
    channels = list(images)
    first = channels[0]
    shape = (int(first.shape[0]), int(first.shape[1]), int(first.shape[2]))
    grid = map_to_network(shape, first.orientation, first.spacing_mm, (None, None, None))
    foreground = (labels > 0) & (labels != IGNORED)
    samples = []
    for channel in channels:
        values = channel.array[foreground]
        step = max(1, -(-len(values) // _FOREGROUND_SAMPLE))
        samples.append(values[::step].astype(np.float32))
    rows = np.eye(label_count + 1, dtype=bool)[:, 1:] if members is None else members
    counts = value_counts(labels, len(rows)) @ rows
    masks = [
        labels == index + 1 if members is None else np.isin(labels, np.flatnonzero(rows[:, index]))
        for index in range(label_count)
    ]
    shares = tuple(largest_share(mask) for mask in masks)
    return CaseFingerprint(
        id=case_id,
        shape=grid.shape,
        spacing_mm=grid.spacing_mm,
        extent_mm=_extent_mm(from_stored_order(foreground, grid), grid.spacing_native_mm),
        minimum=tuple(float(channel.array.min()) for channel in channels),
        foreground=tuple(samples),
        label_voxels=tuple(int(count) for count in counts),
        largest_shares=shares,
        right_shares=tuple(_right_share(from_stored_order(mask, grid)) for mask in masks),
        ignored_voxels=labels.size - count_labelled(labels),
        shapes=shapes_of(from_stored_order(labels, grid), rows, grid.spacing_native_mm),
        appearance=appearance_of(channels),
        together_shares=shares if label_count == 1 else together_shares(labels, rows),
    )


def _right_share(mask: NDArray[np.bool_]) -> float:
    """The share of an `(R, A, S)` mask in the right half of its volume; a slice in the very middle counts half."""
    along = mask.sum(axis=(1, 2))
    total = int(along.sum())
    if not total:
        return float("nan")
    size = len(along)
    right = along[-(size // 2) :].sum() if size > 1 else 0
    middle = along[size // 2] if size % 2 else 0
    return float((right + middle / 2) / total)


def _extent_mm(foreground: NDArray[np.bool_], spacing_mm: tuple[float, ...]) -> tuple[float, float, float]:
    """The edges of the box around an `(R, A, S)` mask."""
    edges = []
    for others, spacing in zip(((1, 2), (0, 2), (0, 1)), spacing_mm, strict=True):
        inside = np.flatnonzero(foreground.any(axis=others))
        edges.append((int(inside[-1] - inside[0]) + 1 if len(inside) else 0) * spacing)
    return edges[0], edges[1], edges[2]
