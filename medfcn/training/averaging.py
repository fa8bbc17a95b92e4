"""An exponential moving average of a network's weights."""

import copy

import torch

from medfcn.networks.network import SliceNetwork


class AveragedWeights:
    """Keeps a running mean of a network's weights and of its normalisation statistics.

    At first the mean follows quickly (as the mean of few steps), then with the given decay.

    Args:
        network: Copied at once; later changes of its tensors, in place, arrive through `update`.
        decay: Share of the old mean at each step; 0 follows the network exactly.

    Source:
        Polyak, Juditsky, SIAM J. Control Optim. 30(4), 1992; the warm-up is that of TensorFlow's
        ExponentialMovingAverage.
    """

    def __init__(self, network: SliceNetwork, *, decay: float) -> None:
        self.network: SliceNetwork = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        self._source = network
        # Walking through the modules at each step would take longer than the arithmetic of a small network.
        self._means: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._counts: list[tuple[torch.Tensor, torch.Tensor]] = []

    @torch.no_grad()
    def update(self) -> None:
        """Take one step's weights into the mean."""
        self.updates += 1
        keep = min(self.decay, self.updates / (self.updates + 9))
        if not self._means:
            self._list_tensors()
        torch._foreach_lerp_(self._means, self._values, 1 - keep)
        for kept, new in self._counts:
            kept.copy_(new)

    def _list_tensors(self) -> None:
        """Find the tensors of both networks; from now on they stay the same objects."""
        pairs = list(zip(self.network.parameters(), self._source.parameters(), strict=True))
        for kept, new in zip(self.network.buffers(), self._source.buffers(), strict=True):
            if kept.is_floating_point():
                pairs.append((kept, new))  # type: ignore[arg-type]
            else:
                self._counts.append((kept, new))
        self._means, self._values = ([pair[side].detach() for pair in pairs] for side in (0, 1))
