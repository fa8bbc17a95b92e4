"""Auxiliary tasks: what else a network may be asked of a slice, so that its features know more of the labels' shape.

Their targets follow from the segmentation's own; nobody draws anything more.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from medfcn.errors import SettingsError
from medfcn.networks.losses import known_voxels, label_masks, weighted_mean
from medfcn.networks.shared_batch import SharedBatch


def presence_targets(targets: Tensor, label_count: int, *, members: Tensor | None = None) -> Tensor:
    """Whether each slice holds each label.

    Args:
        targets: `(N, H, W)` integers: 0 for background, k for the k-th label (or row of `members`), `IGNORED`.
        label_count: Labels L.
        members: Which labels hold for each target, as in `label_masks`.

    Returns:
        `(N, L)` float32, 1 or 0.

    Example:
        >>> presence_targets(torch.tensor([[[0, 2]], [[0, 255]]]), 2).tolist()
        [[0.0, 1.0], [0.0, 0.0]]
    """
    return label_masks(targets, label_count, members).flatten(2).any(dim=2).float()


def distance_targets(
    targets: Tensor, label_count: int, *, clip_pixels: float = 10.0, members: Tensor | None = None
) -> Tensor:
    """Signed distance of each pixel to each label's border, in units of `clip_pixels`.

    The border runs half a pixel from the centres on either side of it: a pixel whose nearest pixel across is d away
    (centre to centre, Euclidean) is d − ½ from it, so that two neighbours across a straight border are at +½ and −½.
    The edge of the slice is no border. Ignored pixels count as outside of every label.

    Args:
        targets: `(N, H, W)` integers: 0 for background, k for the k-th label (or row of `members`), `IGNORED`.
        label_count: Labels L.
        clip_pixels: Distances beyond this say no more, in pixels, above 0.
        members: Which labels hold for each target, as in `label_masks`.

    Returns:
        `(N, L, H, W)` float32 in `[−1, 1]`, positive inside; −1 throughout in a slice without the label, 1 where the
        label fills the slice.

    Raises:
        SettingsError: `clip_pixels` is not positive.

    Source:
        Dangi, Linte, Yaniv, Medical Physics 46(12), 2019, regress such maps beside the segmentation. Exact by
        separating rows from columns: Felzenszwalb, Huttenlocher, Theory of Computing 8, 2012; clipping bounds how
        far either needs to look.

    Example:
        >>> distance_targets(torch.tensor([[[0, 0, 0, 1, 1]]]), 1, clip_pixels=2.0).tolist()
        [[[[-1.0, -0.75, -0.25, 0.25, 0.75]]]]
    """
    return _signed_distances(label_masks(targets, label_count, members), clip_pixels)


def _signed_distances(inside: Tensor, clip_pixels: float) -> Tensor:
    """`distance_targets` of `(N, L, H, W)` bool masks."""
    if not clip_pixels > 0:
        raise SettingsError(f"setting clip_pixels: {clip_pixels!r} is not a positive number of pixels; change it")
    # A pixel across that is `beyond` or more away is clipped; nearer ones are fewer than that many rows, columns off.
    beyond = math.ceil(clip_pixels + 0.5)
    dtype = torch.int16 if 2 * beyond**2 < torch.iinfo(torch.int16).max else torch.int64
    # Both at once: how far it is to the nearest pixel outside (0 there), and to the nearest inside.
    distances = torch.stack([inside, ~inside]).to(dtype) * beyond
    across = _nearest_in_rows(distances, beyond)
    squares = _nearest_in_columns(across * across, beyond)
    magnitudes = torch.where(inside, squares[0], squares[1]).float().sqrt_().sub_(0.5).div_(clip_pixels).clamp_(max=1)
    return torch.where(inside, magnitudes, -magnitudes)


def _nearest_in_rows(distances: Tensor, beyond: int) -> Tensor:
    """Min over j of distances[..., i + j] + |j|, up to `beyond`: in strides of 1, 2, 4 …, which add up to any j."""
    stride = 1
    while stride < min(beyond, distances.shape[-1]):
        nearest = distances.clone()
        _lower(nearest[..., stride:], distances[..., :-stride] + stride)
        _lower(nearest[..., :-stride], distances[..., stride:] + stride)
        distances = nearest
        stride *= 2
    return distances


def _nearest_in_columns(squares: Tensor, beyond: int) -> Tensor:
    """Min over j of squares[..., i + j, :] + j², for |j| < `beyond`."""
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

    - Presence: binary cross-entropy of "this slice holds the label". Where a slice holds ignored voxels and none of
      the label, the label may be under them: that pair of slice and label is left out.
    - Distances: smooth L1 of the signed distance to the label's border. Ignored voxels are left out, and so is every
      voxel whose distance would be another if the ignored ones around it were the label instead of outside.

    Args:
        presence_weight: Weight of the presence loss, from 0.
        distance_weight: Weight of the distance loss, from 0.
        label_count: Labels L.
        clip_pixels: As in `distance_targets`.
        members: Which labels hold for each target, as in `label_masks`.
        may_ignore: False promises that no target is ever `IGNORED`, which spares a GPU the masks.
        shared: Other processes that have the batch's other slices, as in `SegmentationLoss`.

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
        may_ignore: bool = True,
        shared: SharedBatch | None = None,
    ) -> None:
        super().__init__()
        for name, weight in (("presence_weight", presence_weight), ("distance_weight", distance_weight)):
            if not weight >= 0:
                raise SettingsError(f"setting {name}: {weight!r} is not a number from 0; change it")
        self.presence_weight = presence_weight
        self.distance_weight = distance_weight
        self.label_count = label_count
        self.clip_pixels = clip_pixels
        self.may_ignore = may_ignore
        self.shared = shared
        self.members: Tensor | None
        self.register_buffer("members", members, persistent=False)

    def forward(self, presence_logits: Tensor | None, distances: Tensor | None, targets: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            presence_logits: `(N, L)`, of any floating type; None for a network without this head.
            distances: `(N, L, H, W)`, in the units of `distance_targets`; None for a network without this head.
            targets: `(N, H, W)` integers: 0 for background, k for the k-th label (or row of `members`), `IGNORED`.

        Returns:
            A float32 scalar; 0 without heads, and where nothing is known.
        """
        loss = torch.zeros((), device=targets.device)
        if targets.numel() == 0:
            return loss + sum(head[:0].float().sum() for head in (presence_logits, distances) if head is not None)
        masks = label_masks(targets, self.label_count, self.members)
        known = known_voxels(targets, may_ignore=self.may_ignore)
        if presence_logits is not None and self.presence_weight > 0:
            loss = loss + self.presence_weight * self._presence_loss(presence_logits.float(), masks, known)
        if distances is not None and self.distance_weight > 0:
            loss = loss + self.distance_weight * self._distance_loss(distances.float(), masks, known)
        return loss

    def _distance_loss(self, distances: Tensor, masks: Tensor, known: Tensor | None) -> Tensor:
        wanted = _signed_distances(masks, self.clip_pixels)
        if known is None and self.shared is None:
            return functional.smooth_l1_loss(distances, wanted)
        losses = functional.smooth_l1_loss(distances, wanted, reduction="none")
        if known is None:
            return weighted_mean(losses, None, self.shared)
        # Adding pixels to a label never lowers a signed distance, so what is the same with all and with none of the
        # ignored ones is the same with any of them. At an ignored voxel itself the two differ in sign.
        certain = _signed_distances(masks | ~known, self.clip_pixels) == wanted
        return weighted_mean(losses, certain, self.shared)

    def _presence_loss(self, logits: Tensor, masks: Tensor, known: Tensor | None) -> Tensor:
        present = masks.flatten(2).any(dim=2)
        if known is None and self.shared is None:
            return functional.binary_cross_entropy_with_logits(logits, present.float())
        losses = functional.binary_cross_entropy_with_logits(logits, present.float(), reduction="none")
        if known is None:
            return weighted_mean(losses, None, self.shared)
        certain = present | known.flatten(1).all(dim=1, keepdim=True)
        return weighted_mean(losses, certain, self.shared)
