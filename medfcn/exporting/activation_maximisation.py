"""Slices in which a network finds its labels, made from noise by the network's own gradients.

In plain noise a trained network finds nothing, so that a comparison of masks would prove little.

Source:
    Simonyan, Vedaldi, Zisserman, Deep inside convolutional networks: visualising image classification models and
    saliency maps, ICLR workshop 2014.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from medfcn.inference.model import Model
from medfcn.networks.further_looks import sampled, ways_of
from medfcn.slices.slicing import neighbours

_STEPS, _RATE = 30, 0.1
_EDGE = 128
"""Pixels of an edge that are made at most; more are slow."""
_RADIUS = 0.2
"""Radius of the disc in which labels shall be found, in edges: the first in the middle, others as rings around it."""
_SHIFT = 12
"""Pixels by which slices are moved from step to step, so that labels are found wherever a tile begins."""
_MARGIN, _MOST_MARGIN = 1.0, 4.0
"""A logit is this much above all others where a label is found clearly; more than the second is not asked for."""
_ENOUGH = 0.6
"""Share of the disc in which it shall be."""
_MOST_SPREAD = 3.0


def dreamt_slices(model: Model, noise: NDArray[np.float64]) -> NDArray[np.float32]:
    """Neighbouring slices in which a model finds its labels, turned as it looks at them.

    Args:
        model: On the CPU.
        noise: `(n, C, h, w)` to begin with; rows and columns from `dreamt_size`.

    Returns:
        As many, with a mean of 0 and a standard deviation of 1.
    """
    angles = (0.0, *model.card.plan.turns)
    random = np.random.default_rng(0)
    near = neighbours(np.arange(len(noise)), len(noise), model.card.plan.context)
    slices = _scaled(torch.from_numpy(noise.astype(np.float32)))
    wanted = _rings((noise.shape[2], noise.shape[3]), len(model.card.labels.entries))
    for _ in range(_STEPS):
        with torch.enable_grad():
            given = slices.requires_grad_()
            shift = tuple(random.integers(-_SHIFT, _SHIFT + 1, 2).tolist())
            margins = torch.cat(list(_margins(model, given, near, wanted, angles, shift)))
            if float((margins > _MARGIN).float().mean()) > _ENOUGH:
                break
            (gradient,) = torch.autograd.grad(margins.clamp(max=_MOST_MARGIN).mean(), given)
        step = gradient / gradient.std().clamp_min(1e-12)
        slices = _scaled(given.detach() + _RATE * step.clamp(-_MOST_SPREAD, _MOST_SPREAD))
    result: NDArray[np.float32] = slices.detach().numpy()
    return result


def dreamt_size(model: Model) -> tuple[int, int]:
    """Rows and columns of the slices that are made for a model."""
    if not model.network.takes_any_size:
        return model.card.plan.window
    height, width = model.card.plan.trained
    return min(height, _EDGE), min(width, _EDGE)


def _margins(
    model: Model,
    slices: torch.Tensor,
    near: NDArray[np.intp],
    wanted: torch.Tensor,
    angles: tuple[float, ...],
    shift: tuple[int, int],
) -> Iterator[torch.Tensor]:
    """By how much the wanted label's logit is above all others, for each angle, in the pixels of the disc."""
    size = (slices.shape[2], slices.shape[3])
    for angle in angles:
        turned = sampled(slices, ways_of(size, angle, slices.device)[0]) if angle else slices
        seen = turned.roll(shift, (2, 3))
        logits = model.network(seen[torch.from_numpy(near)].flatten(1, 2))
        if model.head == "sigmoid":
            logits = torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)
        place = wanted.roll(shift, (0, 1)).expand(len(logits), 1, *size)
        own = logits.gather(1, place)
        others = logits.scatter(1, place, -torch.inf).amax(dim=1, keepdim=True)
        yield (own - others)[place > 0]


def _rings(size: tuple[int, int], labels: int) -> torch.Tensor:
    """`(h, w)`: the index of the label that shall be found, from 1; 0 outside of the disc."""
    rows, columns = (((torch.arange(edge) + 0.5) / edge - 0.5) / _RADIUS for edge in size)
    place = 1 + (labels * torch.hypot(rows[:, None], columns)).long()
    return torch.where(place > labels, 0, place)


def _scaled(slices: torch.Tensor) -> torch.Tensor:
    return ((slices - slices.mean()) / slices.std().clamp_min(1e-12)).clamp(-_MOST_SPREAD, _MOST_SPREAD)
