"""Auxiliary tasks: other questions about a slice, so that the network's features know more of the labels' shape.

Their targets follow from those of the segmentation; nobody needs to draw more.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from medfcn.networks.losses import require_setting, weighted_mean
from medfcn.networks.shared_batch import SharedBatch
from medfcn.networks.targets import certain_voxels, label_masks


def signed_distances(inside: Tensor, clip_pixels: float = 10.0) -> Tensor:
    """Signed distance of each pixel to the border of a label, in units of `clip_pixels`.

    The border runs half a pixel from the centres on either side of it: a pixel whose nearest pixel across is d away
    (centre to centre, Euclidean) is d − ½ from it, and two neighbours across a straight border are at +½ and −½. The
    edge of the slice is no border.

    Args:
        inside: `(N, L, H, W)` bool, as from `label_masks`: ignored pixels count as outside of every label.
        clip_pixels: Larger distances become this one, in pixels, above 0.

    Returns:
        `(N, L, H, W)` float32 in `[−1, 1]`, positive inside; −1 throughout in a slice without the label, 1 where the
        label fills the slice.

    Raises:
        SettingsError: `clip_pixels` is not positive.

    Source:
        Dangi, Linte, Yaniv, Medical Physics 46(12), 2019, regress such maps beside the segmentation. Rows and columns
        one after the other give exact distances: Felzenszwalb, Huttenlocher, Theory of Computing 8, 2012.

    Example:
        >>> signed_distances(torch.tensor([[[[False, False, False, True, True]]]]), clip_pixels=2.0).tolist()
        [[[[-1.0, -0.75, -0.25, 0.25, 0.75]]]]
    """
    # The squared distance to the nearest pixel of a set is the minimum over rows of (rows off)² + (the distance along
    # that row)². So one pass along the rows and one along the columns give it exactly. Distances of `beyond` pixels
    # or more are clipped in the end, so neither pass looks further than that.
    require_setting("clip_pixels", clip_pixels, clip_pixels > 0, "a positive number of pixels")
    beyond = math.ceil(clip_pixels + 0.5)
    # Whole numbers are exact; the largest one is the sum of two squares.
    dtype = torch.int16 if 2 * beyond**2 < torch.iinfo(torch.int16).max else torch.int64
    # (2, N, L, H, W): the distance to the nearest pixel outside (0 there), and to the nearest inside.
    distances = torch.stack([inside, ~inside]).to(dtype) * beyond
    across = _nearest_in_rows(distances, beyond)
    squares = _nearest_in_columns(across * across, beyond)
    magnitudes = torch.where(inside, squares[0], squares[1]).float().sqrt_().sub_(0.5).div_(clip_pixels).clamp_(max=1)
    return torch.where(inside, magnitudes, -magnitudes)


def _nearest_in_rows(distances: Tensor, beyond: int) -> Tensor:
    """The minimum over j of distances[..., i + j] + |j|, up to `beyond`.

    Strides of 1, 2, 4 … add up to any j, so that log₂(beyond) steps are enough.
    """
    stride = 1
    while stride < min(beyond, distances.shape[-1]):
        nearest = distances.clone()
        _lower(nearest[..., stride:], distances[..., :-stride] + stride)
        _lower(nearest[..., :-stride], distances[..., stride:] + stride)
        distances = nearest
        stride *= 2
    return distances


def _nearest_in_columns(squares: Tensor, beyond: int) -> Tensor:
    """The minimum over j of squares[..., i + j, :] + j², for |j| < `beyond`."""
    nearest = squares.clone()
    for offset in range(1, min(beyond, squares.shape[-2])):
        raised = squares + offset**2
        _lower(nearest[..., offset:, :], raised[..., :-offset, :])
        _lower(nearest[..., :-offset, :], raised[..., offset:, :])
    return nearest


def _lower(values: Tensor, bounds: Tensor) -> None:
    """Make `values` no larger than `bounds`, in place."""
    torch.minimum(values, bounds, out=values)


class AuxiliaryLoss(nn.Module):
    """The loss of a network's auxiliary heads, a weighted sum.

    - Presence: binary cross-entropy of "this slice contains the label". A pair of slice and label is left out if the
      slice contains ignored voxels and no voxel of the label, because the ignored ones may be of the label.
    - Distances: smooth L1 of the signed distance to the label's border. Ignored voxels are left out, and so is every
      voxel whose distance would change if the ignored ones around it were the label instead of outside.

    Args:
        presence_weight: Weight of the presence loss, from 0.
        distance_weight: Weight of the distance loss, from 0.
        label_count: Labels L.
        clip_pixels: As in `signed_distances`.
        members: For labels that overlap, as in `label_masks`.
        shared: The other processes that have the batch's other slices, as in `SegmentationLoss`.
        unions: As in `SegmentationLoss`: a voxel of a union counts as ignored for its labels.

    Raises:
        SettingsError: A weight is negative.

    Source:
        Smooth L1: Girshick, Fast R-CNN, ICCV 2015.
    """

    def __init__(
        self,
        *,
        presence_weight: float,
        distance_weight: float,
        label_count: int,
        clip_pixels: float = 10.0,
        members: Tensor | None = None,
        shared: SharedBatch | None = None,
        unions: Tensor | None = None,
    ) -> None:
        super().__init__()
        for name, weight in (("presence_weight", presence_weight), ("distance_weight", distance_weight)):
            require_setting(name, weight, weight >= 0, "a number from 0")
        self.presence_weight = presence_weight
        self.distance_weight = distance_weight
        self.label_count = label_count
        self.clip_pixels = clip_pixels
        self.shared = shared
        self.members: Tensor | None
        self.register_buffer("members", members, persistent=False)
        self.unions: Tensor | None
        self.register_buffer("unions", unions, persistent=False)

    def forward(self, presence_logits: Tensor | None, distances: Tensor | None, targets: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            presence_logits: `(N, L)`, of any floating type; None for a network without this head.
            distances: `(N, L, H, W)`, in the units of `signed_distances`; None for a network without this head.
            targets: `(N, H, W)` integers: 0 for background, k for the k-th label (or row of `members`), `IGNORED`.

        Returns:
            A float32 scalar; 0 without heads, and where nothing is known.
        """
        loss = torch.zeros((), device=targets.device)
        if targets.numel() == 0:
            return loss + sum(head[:0].float().sum() for head in (presence_logits, distances) if head is not None)
        masks = label_masks(targets, self.label_count, self.members)
        known = certain_voxels(targets, self.label_count, self.unions)
        if presence_logits is not None and self.presence_weight > 0:
            loss = loss + self.presence_weight * self._presence_loss(presence_logits.float(), masks, known)
        if distances is not None and self.distance_weight > 0:
            loss = loss + self.distance_weight * self._distance_loss(distances.float(), masks, known)
        return loss

    def _distance_loss(self, distances: Tensor, masks: Tensor, known: Tensor | None) -> Tensor:
        wanted = signed_distances(masks, self.clip_pixels)
        # Adding pixels to a label never lowers a signed distance. So a distance that is the same with all and with
        # none of the ignored pixels is the same with any of them; at an ignored pixel itself the two differ in sign.
        certain = None if known is None else signed_distances(masks | ~known, self.clip_pixels) == wanted
        losses = functional.smooth_l1_loss(distances, wanted, reduction=self._reduction(known))
        return weighted_mean(losses, certain, self.shared)

    def _presence_loss(self, logits: Tensor, masks: Tensor, known: Tensor | None) -> Tensor:
        present = masks.flatten(2).any(dim=2)
        certain = None if known is None else present | known.flatten(2).all(dim=2)
        losses = functional.binary_cross_entropy_with_logits(
            logits, present.float(), reduction=self._reduction(known)
        )
        return weighted_mean(losses, certain, self.shared)

    def _reduction(self, known: Tensor | None) -> str:
        """`mean`, in one step, where a plain mean is all that is needed."""
        return "mean" if known is None and self.shared is None else "none"
