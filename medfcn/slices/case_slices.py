"""A case becomes the slices that a network is trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfcn.settings import View
from medfcn.slices.grid import GridMap, to_network_grid
from medfcn.slices.overlaps import overlaps_to_network
from medfcn.slices.plan import Plan
from medfcn.slices.preprocess import grid_of, network_image
from medfcn.slices.slicing import slice_volume
from medfcn.volumes import Volume


@dataclass(frozen=True)
class CaseSlices:
    """A case on the network grid.

    Attributes:
        label: `(R, A, S)` indices.
        along: For each view, `(N, C, H, W)` slices of the image and `(N, H, W)` of the label.
    """

    label: NDArray[np.uint8]
    along: Mapping[View, tuple[NDArray[np.float32], NDArray[np.uint8]]]


@dataclass(frozen=True)
class PlainSlicer:
    """Brings cases to the network grid and cuts them into slices.

    `medfcn.monai.preparing.Slicer` is the same as a MONAI `Compose`; their slices are equal to the bit.

    Attributes:
        plan: How volumes become slices.
        members: For labels that overlap; see `to_network`.
    """

    plan: Plan
    members: NDArray[np.bool_] | None

    def __call__(self, images: Sequence[Volume], reference: NDArray[np.uint8]) -> CaseSlices:
        """The slices of a case.

        Args:
            images: One volume for each channel.
            reference: `(I, J, K)` indices of the labels, or overlaps.
        """
        image = network_image(images, self.plan)
        label = to_network(reference, grid_of(images[0], self.plan), self.members)
        along = {view: (slice_volume(image, view), slice_volume(label[None], view)[:, 0]) for view in self.plan.views}
        return CaseSlices(label, along)


def to_network(reference: NDArray[np.uint8], grid: GridMap, members: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """`(I, J, K)` indices on the network grid, `(R, A, S)`.

    Args:
        reference: Indices of labels, or overlaps.
        grid: The map to the network grid.
        members: For labels that overlap, `(A + 1, L)`; see `LabelMap.members`.
    """
    if members is not None:
        return overlaps_to_network(reference, grid, members)
    moved: NDArray[np.uint8] = to_network_grid(reference, grid)
    return moved
