"""Further looks at the part of a slice around what a network found, turned by some angles; all answers are averaged.

A network that was trained on parts of slices sees whole ones at once in prediction. What it finds there takes a small
part of them. To look at that part again, as large as in training, costs a fraction of the first look for each angle,
and errors that depend on how the organ lies are averaged.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from medfcn.networks.design import Head
from medfcn.networks.sliding import Network, slab_ends

_BORDER = 4
"""Pixels along the edges of a part whose answers do not count: the network saw too little around them."""
_LEAST = 1e-12


class TurnedNetwork:
    """A network that looks at what it found once more for each of some angles.

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

    def __call__(self, slices: torch.Tensor) -> torch.Tensor:
        """Logits of slices: inside of the part those of the mean probabilities, elsewhere those of the first look.

        The part is the same in all slices of a group, which are neighbours, so that one of them in which nothing was
        found is looked at again too. Where nothing was found in any, one look is all.
        """
        logits = self.network(slices).float()
        groups = [slice(*ends) for ends in slab_ends(len(slices), len(slices), self.together or len(slices))]
        found = [self._found(logits[group]) for group in groups]
        seen = [
            (group, _corner(counts, self.part)) for group, counts in zip(groups, found, strict=True) if counts.any()
        ]
        if not seen:
            return logits
        height, width = (min(edge, size) for edge, size in zip(self.part, logits.shape[-2:], strict=True))
        device = logits.device
        boxes = [
            (group, ..., slice(row, row + height), slice(column, column + width)) for group, (row, column) in seen
        ]
        own = torch.tensor((height / 2, width / 2), device=device)
        corners = [torch.tensor(corner, device=device) for _, corner in seen]
        totals = [self._probabilities(logits[box]) for box in boxes]
        weight = torch.ones((1, 1, height, width), device=device)
        for angle in self.angles:
            there, back = (own + _turned((height, width), sign * angle).to(device) for sign in (1, -1))
            parts = [
                _sampled(slices[group], corner + there) for (group, _), corner in zip(seen, corners, strict=True)
            ]
            answers = self.network(torch.cat(parts).contiguous(memory_format=torch.channels_last)).float()
            inside = _inside(back)
            for total, answer in zip(totals, torch.split(answers, [len(part) for part in parts]), strict=True):
                total += _sampled(self._probabilities(answer), back) * inside
            weight += inside
        logits = logits.clone()
        for box, total in zip(boxes, totals, strict=True):
            logits[box] = self._logits(total / weight)
        return logits

    def _found(self, logits: torch.Tensor) -> torch.Tensor:
        """`(H, W)`: in how many slices a label is more probable than the background."""
        background = 0.0 if self.head == "sigmoid" else logits[:, 0]
        labels = logits if self.head == "sigmoid" else logits[:, 1:]
        return (labels.amax(dim=1) > background).sum(dim=0)

    def _probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(logits) if self.head == "sigmoid" else torch.softmax(logits, dim=1)

    def _logits(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Logits that give these probabilities."""
        if self.head == "sigmoid":
            return torch.logit(probabilities, eps=1e-7)
        return probabilities.clamp_min(_LEAST).log()


def _corner(found: torch.Tensor, part: tuple[int, int]) -> tuple[int, int]:
    """First row and column of the part around the mean place of what was found, `(H, W)` counts; at most a slice."""
    part = min(part[0], found.shape[0]), min(part[1], found.shape[1])
    places = (torch.arange(size, device=found.device) + 0.5 for size in found.shape)
    means = [float((found.sum(dim=1 - axis) * place).sum() / found.sum()) for axis, place in enumerate(places)]
    row, column = (
        min(max(round(mean - edge / 2), 0), size - edge)
        for mean, edge, size in zip(means, part, found.shape, strict=True)
    )
    return row, column


def _turned(part: tuple[int, int], angle: float) -> torch.Tensor:
    """`(h, w, 2)` places of the pixels of a part that is turned around its middle, rows first, in pixels from it."""
    rows, columns = (torch.arange(edge) - (edge - 1) / 2 for edge in part)
    cosine, sine = float(np.cos(np.deg2rad(angle))), float(np.sin(np.deg2rad(angle)))
    down, across = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([cosine * down - sine * across, sine * down + cosine * across], dim=-1)


def _sampled(images: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """`(n, C, H, W)` images, all at the same `(h, w, 2)` places, rows first, in pixels from a corner; zero beyond."""
    size = torch.tensor(images.shape[-2:], device=images.device)
    grid = (places * 2 / size - 1).flip(-1).float().expand(len(images), -1, -1, -1)
    return functional.grid_sample(images.float(), grid, mode="bilinear", align_corners=False)


def _inside(places: torch.Tensor) -> torch.Tensor:
    """`(1, 1, h, w)`: 1 where `(h, w, 2)` places are inside of a part as large as they are many, else 0."""
    size = torch.tensor(places.shape[:2], device=places.device)
    return ((places > _BORDER) & (places < size - _BORDER)).all(dim=-1)[None, None].float()
