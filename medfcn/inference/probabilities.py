"""Logits → probabilities of the labels; those between slices that are seen; their mean over views."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray

from medfcn.errors import ModelError
from medfcn.inference.card import Card
from medfcn.networks.design import Head
from medfcn.settings import View

_VALUES = 1 << 20
"""Logits that are turned into probabilities at a time."""


def foreground(logits: NDArray[np.float32], head: Head) -> NDArray[np.float32]:
    """`(n, K, H, W)` logits of slices to `(n, L, H, W)` probabilities of the labels, in the memory of the logits.

    Raises:
        ModelError: They are not finite.
    """
    tensor = torch.from_numpy(logits)
    rows = max(1, _VALUES // max(1, math.prod(tensor.shape) // tensor.shape[2]))
    for start in range(0, tensor.shape[2], rows):
        part = tensor[:, :, start : start + rows]
        own = part.contiguous()  # the order of values in memory decides their last digits
        if head == "sigmoid":
            own.sigmoid_()
        else:
            own = torch.softmax(own, dim=1)
        if own.data_ptr() != part.data_ptr():
            part.copy_(own)
    shares = logits if head == "sigmoid" else logits[:, 1:]
    if not all(np.isfinite(share).all() for of_slice in shares for share in of_slice):
        raise ModelError(
            "the network gives NaN for this volume; look at its intensities, or train again", code="VOXELS_NOT_FINITE"
        )
    return shares


def between_slices(
    parts: Iterable[tuple[int, NDArray[np.float32]]], shown: NDArray[np.intp], thickness: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The probabilities of all slices, where only some were seen: between these they are interpolated linearly.

    Args:
        parts: Some slices that were seen at a time, in order: the place of the first in `shown`, and the
            `(n, L, H, W)` probabilities.
        shown: `(N,)` numbers of the slices that were seen, from the first slice to the last.
        thickness: The most slices to give at a time.

    Yields:
        The number of a slice, and the `(n, L, H, W)` probabilities of those from it on.
    """
    last: NDArray[np.float32] | None = None
    for first, shares in parts:
        known = shares if last is None else np.concatenate([last, shares])
        at = shown[first + len(shares) - len(known) : first + len(shares)]
        begin = at[0] if last is None else at[0] + 1
        for start in range(begin, at[-1] + 1, thickness):
            wanted = np.arange(start, min(start + thickness, at[-1] + 1))
            below = np.searchsorted(at, wanted, side="right") - 1
            above = np.minimum(below + 1, len(at) - 1)
            weights = (wanted - at[below]) / np.maximum(at[above] - at[below], 1)
            found = known[below]
            found += (known[above] - found) * weights.astype(np.float32)[:, None, None, None]
            yield start, found
        last = shares[-1:].copy()


def view_shares(card: Card) -> dict[View, np.float32]:
    """The weight of each view in the mean, in the order of the card; views of weight 0 are left out."""
    weights = dict(zip(card.plan.views, card.view_weights or (1.0,) * len(card.plan.views), strict=True))
    return {view: np.float32(weight / sum(weights.values())) for view, weight in weights.items() if weight > 0}


def mean_of_views(card: Card, probabilities: Callable[[View], NDArray[np.float32]]) -> NDArray[np.float32]:
    """The weighted mean of the views' probabilities.

    Args:
        card: Says which views there are, and their weights.
        probabilities: Called with each view whose weight is not 0, in the order of the card; `(L, R, A, S)`.
    """
    parts = ((share, probabilities(view)) for view, share in view_shares(card).items())
    # In place, except where an array only maps a file.
    scaled = (np.multiply(part, share, out=part if part.flags.writeable else None) for share, part in parts)
    return reduce(lambda total, part: np.add(total, part, out=total), scaled)
