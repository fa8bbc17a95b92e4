"""Further looks at the part of some slices around what a network found, turned by some angles; answers are averaged.

MONAI Bundles carry this module as it is, so it needs torch alone.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

_BORDER = 4
"""Pixels along the edges of a part whose answers do not count: the network saw too little around them."""
_LEAST = 1e-12


def looked_again(
    network: Callable[[torch.Tensor], torch.Tensor],
    slices: torch.Tensor,
    logits: torch.Tensor,
    size: torch.Tensor,
    *,
    angles: Sequence[float],
    part: tuple[int, int],
    head: str,
) -> torch.Tensor:
    """Logits of slices that share a place of the part: those of the mean probabilities in it, elsewhere as given.

    All steps are the same whatever the slices show, so that exporters can follow them. Where nothing was found in any
    slice, the result is the logits that were given.

    Args:
        network: Maps `(n, C, h, w)` parts to `(n, K, h, w)` logits.
        slices: `(N, C, H, W)`, at least as large as the part.
        logits: `(N, K, H, W)` of the first look.
        size: `(2,)` rows and columns of the slices themselves; those behind are zeros with which they were filled up.
        angles: Degrees by which the part is turned around its middle, each for one more look.
        part: `(h, w)` pixels of it.
        head: `sigmoid` or `softmax`: the meaning of the logits.
    """
    rows, columns = (torch.arange(edge, device=logits.device) for edge in logits.shape[-2:])
    found = found_in(logits, head) * ((rows < size[0])[:, None] & (columns < size[1]))
    if not torch.compiler.is_exporting() and not found.any():
        return logits
    corner = corner_of(found, part, size)
    down, across = (torch.arange(edge, device=logits.device) + corner[axis] for axis, edge in enumerate(part))
    total = probabilities_of(logits.index_select(2, down).index_select(3, across), head)
    weight = torch.ones((1, 1, *part), device=logits.device)
    ways = [ways_of(part, angle, logits.device) for angle in angles]
    answers = network(torch.cat([sampled(slices, corner + there) for there, _ in ways])).float()
    for answer, (_, back) in zip(answers.reshape(len(ways), -1, *answers.shape[1:]).unbind(), ways, strict=True):
        inside = inside_of(back)
        total = total + sampled(probabilities_of(answer, head), back) * inside
        weight = weight + inside
    mean = logits_of(total / weight, head)
    down, across = rows - corner[0], columns - corner[1]
    in_part = ((down >= 0) & (down < part[0]))[:, None] & (across >= 0) & (across < part[1])
    down, across = down.clamp(0, part[0] - 1), across.clamp(0, part[1] - 1)
    return torch.where(in_part & found.any(), mean.index_select(2, down).index_select(3, across), logits)


def found_in(logits: torch.Tensor, head: str) -> torch.Tensor:
    """`(H, W)`: in how many slices a label is more probable than the background."""
    background = 0.0 if head == "sigmoid" else logits[:, 0]
    labels = logits if head == "sigmoid" else logits[:, 1:]
    return (labels.amax(dim=1) > background).sum(dim=0)


def probabilities_of(logits: torch.Tensor, head: str) -> torch.Tensor:
    """Those of the labels, with that of the background first if there is a logit for it."""
    return torch.sigmoid(logits) if head == "sigmoid" else torch.softmax(logits, dim=1)


def logits_of(probabilities: torch.Tensor, head: str) -> torch.Tensor:
    """Logits that give these probabilities."""
    return torch.logit(probabilities, eps=1e-7) if head == "sigmoid" else probabilities.clamp_min(_LEAST).log()


def corner_of(found: torch.Tensor, part: tuple[int, int], size: torch.Tensor) -> torch.Tensor:
    """`(2,)` first row and column of the part around the mean place of what was found, inside of the slice.

    Args:
        found: `(H, W)` counts; where there are none, the part is in the first corner.
        part: `(h, w)` pixels of the part, at most those of the slice.
        size: `(2,)` rows and columns of the slice.
    """
    count = found.sum().clamp_min(1)
    places = [torch.arange(edge, device=found.device) + 0.5 for edge in found.shape]
    means = [(found.sum(dim=1 - axis) * place).sum() / count for axis, place in enumerate(places)]
    edges = torch.tensor(part, device=found.device)
    return torch.minimum((torch.stack(means) - edges / 2).round().long().clamp_min(0), size - edges)


def ways_of(part: tuple[int, int], angle: float, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """`(h, w, 2)` places of the pixels of a part that is turned around its middle, and of one that is turned back.

    Rows are first; places are in pixels from the part's corner.
    """
    rows, columns = (torch.arange(edge, device=device) - (edge - 1) / 2 for edge in part)
    down, across = torch.meshgrid(rows, columns, indexing="ij")
    middle = torch.tensor((part[0] / 2, part[1] / 2), device=device)
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    there, back = (
        middle + torch.stack([cosine * down - turn * across, turn * down + cosine * across], dim=-1)
        for turn in (sine, -sine)
    )
    return there, back


def sampled(images: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """`(n, C, H, W)` images, all at the same `(h, w, 2)` places, rows first, in pixels from a corner; zero beyond."""
    return sampled_on(grid_of(places, images.shape[-2], images.shape[-1]), images)


def grid_of(places: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """`(h, w, 2)` places in images of a size, as torch wants them: columns first, in [-1, 1] from edge to edge."""
    down, across = places.float().unbind(dim=-1)
    return torch.stack([across * 2 / width - 1, down * 2 / height - 1], dim=-1)


def sampled_on(grid: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """`(n, C, H, W)` images, all at the places of the same `(h, w, 2)` grid; zero beyond."""
    grids = grid.expand(images.shape[0], -1, -1, -1)
    return functional.grid_sample(images.float(), grids, mode="bilinear", align_corners=False)


def inside_of(places: torch.Tensor) -> torch.Tensor:
    """`(1, 1, h, w)`: 1 where `(h, w, 2)` places are inside of a part as large as they are many, else 0."""
    size = torch.tensor(places.shape[:2], device=places.device)
    return ((places > _BORDER) & (places < size - _BORDER)).all(dim=-1)[None, None].float()
