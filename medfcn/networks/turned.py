"""A network that looks again, turned, at the part of a slice around what it found; all answers are averaged.

A network that was trained on parts of slices sees whole ones at once in prediction. What it finds there takes a small
part of them. To look at that part again, as large as in training, costs a fraction of the first look for each angle,
and errors that depend on how the organ lies are averaged.
"""

from collections.abc import Sequence

import torch

from medfcn.networks.design import Head
from medfcn.networks.further_looks import (
    corner_of,
    found_in,
    grid_of,
    inside_of,
    logits_of,
    probabilities_of,
    sampled,
    sampled_on,
    ways_of,
)
from medfcn.networks.sliding import Network, slab_ends

_Way = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Places of a turned part, the grid of the way back, and what is inside of the part there."""


class TurnedNetwork:
    """A network that looks at what it found once more for each of some angles.

    `looked_again` does the same for one group of slices, always in the same steps: for exports.

    Args:
        network: Maps `(N, C, H, W)` slices to `(N, K, H, W)` logits.
        angles: Degrees by which the part is turned around its middle, each for one more look.
        part: `(h, w)` pixels of it, as in training; at most those of a slice are taken.
        head: The meaning of the logits.
        together: Neighbouring slices that share a place of the part, about; see `slab_ends`. It does not depend on
            the device, while the slices that come at once do. None takes all that come at once.
    """

    def __init__(
        self,
        network: Network,
        *,
        angles: Sequence[float],
        part: tuple[int, int],
        head: Head,
        together: int | None = None,
    ) -> None:
        self.network = network
        self.angles = tuple(angles)
        self.part = part
        self.head = head
        self.together = together
        self._ways: tuple[tuple[tuple[int, int], torch.device], list[_Way]] | None = None

    def __call__(self, slices: torch.Tensor) -> torch.Tensor:
        """Logits of slices: inside of the part those of the mean probabilities, elsewhere those of the first look.

        The part is the same in all slices of a group, which are neighbours, so that one of them in which nothing was
        found is looked at again too. Where nothing was found in any, one look is all.
        """
        logits = self.network(slices).float()
        groups = [slice(*ends) for ends in slab_ends(len(slices), len(slices), self.together or len(slices))]
        found = [found_in(logits[group], self.head) for group in groups]
        height, width = part = min(self.part[0], logits.shape[-2]), min(self.part[1], logits.shape[-1])
        device, size = logits.device, torch.tensor(logits.shape[-2:], device=logits.device)
        seen = [
            (group, corner_of(counts, part, size))
            for group, counts in zip(groups, found, strict=True)
            if counts.any()
        ]
        if not seen:
            return logits
        boxes = [
            (group, ..., slice(row, row + height), slice(column, column + width))
            for group, (row, column) in ((group, corner.tolist()) for group, corner in seen)
        ]
        totals = [probabilities_of(logits[box], self.head) for box in boxes]
        weight = torch.ones((1, 1, height, width), device=device)
        for there, back, inside in self._ways_of(part, device):
            parts = [sampled(slices[group], corner + there) for group, corner in seen]
            answers = self.network(torch.cat(parts).contiguous(memory_format=torch.channels_last)).float()
            for total, answer in zip(totals, torch.split(answers, [len(each) for each in parts]), strict=True):
                total += sampled_on(back, probabilities_of(answer, self.head)) * inside
            weight += inside
        logits = logits.clone()
        for box, total in zip(boxes, totals, strict=True):
            logits[box] = logits_of(total / weight, self.head)
        return logits

    def _ways_of(self, part: tuple[int, int], device: torch.device) -> list[_Way]:
        """Those of each angle; kept, as the parts of one volume after the other mostly have one size."""
        if self._ways is None or self._ways[0] != (part, device):
            ways = (ways_of(part, angle, device) for angle in self.angles)
            kept = [(there, grid_of(back, *part), inside_of(back)) for there, back in ways]
            self._ways = ((part, device), kept)
        return self._ways[1]
