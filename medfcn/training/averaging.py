"""An exponential moving average of a network's weights."""

import copy

import torch
from torch import nn

from medfcn.networks.network import SliceNetwork


class AveragedWeights:
    """Keeps a running mean of a network's weights and of its normalisation statistics.

    At first the mean follows quickly (as the mean of few steps), then with the given decay.

    Args:
        network: Copied at once; later changes arrive through `update`.
        decay: Share of the old mean at each step; 0 follows the network exactly.

    Source:
        Polyak, Juditsky, SIAM J. Control Optim. 30(4), 1992; the warm-up is that of TensorFlow's
        ExponentialMovingAverage.
    """

    def __init__(self, network: SliceNetwork, *, decay: float) -> None:
        self.network: SliceNetwork = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take one step's weights into the mean."""
        self.updates += 1
        keep = min(self.decay, self.updates / (self.updates + 9))
        means: list[torch.Tensor] = list(self.network.parameters())
        values: list[torch.Tensor] = list(network.parameters())
        torch._foreach_lerp_(means, values, 1 - keep)
        for kept, new in zip(self.network.buffers(), network.buffers(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - keep)
            else:
                kept.copy_(new)
