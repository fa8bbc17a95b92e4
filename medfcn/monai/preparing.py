"""A case to the slices that a network is trained on, by a `Compose` of medfcn's transforms."""

from collections.abc import Sequence

import numpy as np
from monai.transforms import InvertibleTransform
from numpy.typing import NDArray

from medfcn.monai.loading import image_tensor, label_tensor
from medfcn.monai.transforms import SliceVolumed, network_transforms
from medfcn.slices.case_slices import CaseSlices
from medfcn.slices.plan import Plan
from medfcn.volumes import Volume

_KEYS = ("image", "label")


class Slicer:
    """Brings cases to the network grid and cuts them into slices.

    Args:
        plan: How volumes become slices.
        members: For labels that overlap; see `ToNetworkGridd`.
    """

    def __init__(self, plan: Plan, members: NDArray[np.bool_] | None) -> None:
        self.plan = plan
        self._to_grid = network_transforms(plan, _KEYS, members=members)
        self._cuts = {view: SliceVolumed(_KEYS, view) for view in plan.views}
        for transform in (*self._to_grid.transforms, *self._cuts.values()):
            if isinstance(transform, InvertibleTransform):
                transform.tracing = False  # nothing is inverted here

    def __call__(self, images: Sequence[Volume], reference: NDArray[np.uint8]) -> CaseSlices:
        """The slices of a case.

        Args:
            images: One volume for each channel.
            reference: `(I, J, K)` indices of the labels, or overlaps.
        """
        sample = {"image": image_tensor(images), "label": label_tensor(reference, images[0].affine)}
        on_grid, along = self._to_grid(sample), {}
        for view, cut in self._cuts.items():
            slices = cut(on_grid)
            along[view] = (slices["image"].numpy(), slices["label"].numpy()[:, 0])
        return CaseSlices(on_grid["label"].numpy()[0], along)
