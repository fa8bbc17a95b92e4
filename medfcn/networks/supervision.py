"""The outputs of a network in training beside its logits: coarser predictions, and auxiliary tasks.

These heads teach the network; a saved model does not contain them.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from medfcn.networks.fcn import FCN
from medfcn.networks.network import SliceNetwork


@dataclass(frozen=True)
class Outputs:
    """The outputs that the losses compare with the targets.

    Attributes:
        logits: `(N, K, H, W)` float32 each, all at the slices' size, the finest first; only one without deep
            supervision.
        presence: `(N, L)` logits of "the slice contains the label"; None without that head.
        distances: `(N, L, H, W)` in [-1, 1]: signed distance to each label's border; None without that head.
    """

    logits: tuple[torch.Tensor, ...]
    presence: torch.Tensor | None = None
    distances: torch.Tensor | None = None


class SupervisedFCN(nn.Module):
    """A network with the heads of its training.

    Args:
        network: The network itself, which is saved. A network of MONAI has logits alone, and no other heads.
        label_count: Foreground labels.
        deep: Predict from every fused map, not only from the last (hierarchical predictions).
        presence: Also predict which labels a slice contains, from the mean and the largest of each coarsest feature.
        distances: Also predict the signed distance to each label's border, from the last fused map.

    Source:
        Deep supervision: Lee et al., AISTATS 2015. Distance as a second task: Dangi, Linte, Yaniv, Medical Physics
        46(12), 2019.
    """

    def __init__(
        self, network: SliceNetwork, *, label_count: int, deep: bool, presence: bool, distances: bool
    ) -> None:
        super().__init__()
        self.network = network
        self.coarse_heads = nn.ModuleList()
        self.presence: nn.Linear | None = None
        self.distances: nn.Conv2d | None = None
        if not isinstance(network, FCN):
            return
        coarser = network.fused_channels[:-1] if deep else ()
        self.coarse_heads = nn.ModuleList(
            nn.Identity() if network.scores_are_logits else nn.Conv2d(channels, network.channels_out, 1)
            for channels in coarser
        )
        deepest = network.encoder.channels[-1]
        if presence:
            self.presence = nn.Linear(2 * deepest, label_count)
        if distances:
            self.distances = nn.Conv2d(network.fused_channels[-1], label_count, 1)

    def forward(self, slices: torch.Tensor) -> Outputs:
        """Every output for a batch of `(N, C, H, W)` slices."""
        if not isinstance(self.network, FCN):
            return Outputs((self.network(slices),))
        size = (slices.shape[-2], slices.shape[-1])
        maps = self.network.maps(slices)
        logits = [self.network.logits(maps, size)]
        strides = self.network.fused_strides
        for head, fused, stride in reversed(list(zip(self.coarse_heads, maps.fused, strides, strict=False))):
            logits.append(_at_full_size(head(fused), stride, size))
        presence = None
        if self.presence is not None:
            means, most = maps.deepest.mean(dim=(2, 3)), maps.deepest.amax(dim=(2, 3))
            presence = self.presence(torch.cat([means, most], dim=1)).float()
        distances = None
        if self.distances is not None:
            last = torch.tanh(self.distances(maps.fused[-1]))
            distances = _at_full_size(last, strides[-1], size)
        return Outputs(tuple(logits), presence, distances)


def _at_full_size(coarse: torch.Tensor, stride: int, size: tuple[int, int]) -> torch.Tensor:
    """A map interpolated linearly to the padded slices' size, and cut to `size`."""
    if stride > 1:
        coarse = functional.interpolate(coarse, scale_factor=stride, mode="bilinear", align_corners=False)
    return coarse[..., : size[0], : size[1]].float()
