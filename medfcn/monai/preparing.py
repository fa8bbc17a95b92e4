"""A case to the slices that a network is trained on, by a `Compose` of medfcn's transforms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfcn.monai.loading import image_tensor, label_tensor
from medfcn.monai.transforms import SliceVolumed, network_transforms
from medfcn.settings import View
from medfcn.slices.plan import Plan
from medfcn.volumes import Volume

_KEYS = ("image", "label")


@dataclass(frozen=True)
class CaseSlices:
    """A case on the network grid.

    Attributes:
        label: `(R, A, S)` indices.
        along: For each view, `(N, C, H, W)` slices of the image and `(N, H, W)` of the label.
    """

    label: NDArray[np.uint8]
    along: Mapping[View, tuple[NDArray[np.float32], NDArray[np.uint8]]]


def slices_of(
    images: Sequence[Volume], reference: NDArray[np.uint8], plan: Plan, members: NDArray[np.bool_] | None
) -> CaseSlices:
    """Bring a case to the network grid and cut it into slices.

    Args:
        images: One volume for each channel.
        reference: `(I, J, K)` indices of the labels, or overlaps.
        plan: How volumes become slices.
        members: For labels that overlap; see `ToNetworkGridd`.
    """
    sample = {"image": image_tensor(images), "label": label_tensor(reference, images[0].affine)}
    on_grid = network_transforms(plan, _KEYS, members=members)(sample)
    along = {}
    for view in plan.views:
        cut = SliceVolumed(_KEYS, view)(on_grid)
        along[view] = (cut["image"].numpy(), cut["label"].numpy()[:, 0])
    return CaseSlices(on_grid["label"].numpy()[0], along)
