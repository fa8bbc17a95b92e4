"""Logits → probabilities of the labels, and their mean over views."""

from collections.abc import Callable
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray

from medfcn.errors import ModelError
from medfcn.inference.card import Card
from medfcn.networks.design import Head
from medfcn.settings import View


def foreground(logits: NDArray[np.float32], head: Head) -> NDArray[np.float32]:
    """`(K, R, A, S)` logits to `(L, R, A, S)` probabilities of the labels.

    Raises:
        ModelError: They are not finite.
    """
    tensor = torch.from_numpy(logits)
    shares = torch.sigmoid(tensor) if head == "sigmoid" else torch.softmax(tensor, dim=0)[1:]
    probabilities: NDArray[np.float32] = shares.numpy()
    if not np.isfinite(probabilities).all():
        raise ModelError(
            "the network gives NaN for this volume; look at its intensities, or train again", code="VOXELS_NOT_FINITE"
        )
    return probabilities


def mean_of_views(card: Card, probabilities: Callable[[View], NDArray[np.float32]]) -> NDArray[np.float32]:
    """The weighted mean of the views' probabilities.

    Args:
        card: Says which views there are, and their weights.
        probabilities: Called with each view whose weight is not 0, in the order of the card; `(L, R, A, S)`.
    """
    weights = dict(zip(card.plan.views, card.view_weights or (1.0,) * len(card.plan.views), strict=True))
    shares = {view: np.float32(weight / sum(weights.values())) for view, weight in weights.items() if weight > 0}
    parts = ((share, probabilities(view)) for view, share in shares.items())
    # In place, except where an array only maps a file.
    scaled = (np.multiply(part, share, out=part if part.flags.writeable else None) for share, part in parts)
    return reduce(lambda total, part: np.add(total, part, out=total), scaled)
