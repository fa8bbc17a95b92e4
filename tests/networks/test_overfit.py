"""Every preset learns two slices by heart, as exactly as the stride of its output allows."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, label
from torch import nn
from torch.nn import functional

from medfcn.networks.losses import LossOptions, SegmentationLoss
from medfcn.training.schedule import learning_rate
from tests.networks.designs import ALL, STRIDES, build

EDGE = 160
WITHIN = 0.01


@cache
def two_slices() -> tuple[torch.Tensor, torch.Tensor]:
    """`(2, 1, 160, 160)` noisy slices with a brighter organ of irregular outline, and `(2, 160, 160)` targets."""
    random = np.random.default_rng(5)
    rows, columns = np.meshgrid(np.arange(EDGE), np.arange(EDGE), indexing="ij")
    masks = []
    for _ in range(2):
        place = random.uniform(65, 95, 2)
        bump = np.exp(-((rows - place[0]) ** 2 + (columns - place[1]) ** 2) / (2 * 24.0**2))
        bumpy = gaussian_filter(random.normal(size=(EDGE, EDGE)), 7)
        parts, _count = label(bump + 0.22 * bumpy / bumpy.std() > 0.55)
        masks.append(parts == 1 + np.bincount(parts.ravel())[1:].argmax())
    organ = np.stack(masks)
    grain = gaussian_filter(random.normal(size=organ.shape), (0, 1, 1))
    image = organ + 0.9 * grain + 0.2 * random.normal(size=organ.shape)
    image = (image - image.mean()) / image.std()
    return torch.from_numpy(image).float()[:, None], torch.from_numpy(organ).long()


def dice(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Of both slices together, one logit a pixel."""
    found = logits[:, 0] > 0
    return float(2 * (found & (targets == 1)).sum() / (found.sum() + targets.sum()))


@cache
def best_dice(stride: int) -> float:
    """The best Dice of logits that are interpolated linearly from a map of that stride.

    The map is optimised by itself, without any network, by the gradient of the soft Dice. Where a network restores
    the size by a transposed convolution that learns, it can reach this much and more: the convolution starts as this
    very interpolation (in the interior, where the organ is) and need not change.
    """
    _, targets = two_slices()
    coarse = torch.zeros(2, 1, EDGE // stride, EDGE // stride, requires_grad=True)
    optimiser, loss = torch.optim.Adam([coarse], lr=0.3), SegmentationLoss(LossOptions("dice"), head="sigmoid")
    best, steps = 0.0, 300
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.3 * 0.5 * (1 + math.cos(math.pi * step / steps))
        fine = functional.interpolate(coarse, scale_factor=stride, mode="bilinear", align_corners=False)
        best = max(best, dice(fine.detach(), targets))
        optimiser.zero_grad()
        loss(fine, targets).backward()
        optimiser.step()
    return best


@dataclass(frozen=True)
class Recipe:
    """How a preset is trained here.

    Attributes:
        rate: The largest learning rate; it rises over 20 steps and falls as a cosine.
        steps: Optimiser steps.
        width: Factor on the channels.
        parts: Changed from the preset.
    """

    rate: float
    steps: int
    width: float = 1 / 8
    parts: tuple[tuple[str, Any], ...] = ()


def overfit(preset: str, recipe: Recipe) -> float:
    """The Dice in evaluation mode, as a user gets it, after training on the two slices."""
    slices, targets = two_slices()
    network = build(preset, width=recipe.width, **dict(recipe.parts))
    loss = SegmentationLoss(LossOptions("ce_dice"), head="sigmoid")
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=0.02)
    torch.manual_seed(0)  # of the dropout
    for step in range(recipe.steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, largest=recipe.rate, warmup_steps=20, total_steps=recipe.steps)
        optimiser.zero_grad()
        loss(network(slices), targets).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
    with torch.inference_mode():
        return dice(network.eval()(slices), targets)


RECIPES = {
    "auto": Recipe(1e-2, 100, width=1 / 2),
    "fcn32s": Recipe(4e-3, 100),
    "fcn16s": Recipe(4e-3, 140),
    "fcn8s": Recipe(4e-3, 140),
    "fcn4s": Recipe(4e-3, 160),
    "fcn2s": Recipe(4e-3, 160),
    "fcn1s": Recipe(4e-3, 160),
    "vgg_concat": Recipe(1e-2, 240),
    "compact": Recipe(1e-2, 90, width=1 / 4),
    "plain": Recipe(1e-2, 160, width=1 / 2),
    "score_decoder": Recipe(1e-2, 400),
    "resnet18_8s": Recipe(4e-3, 160),
    "resnet34_8s": Recipe(4e-3, 140),
    "resnet50_8s": Recipe(4e-3, 160),
}
IN_EVERY_RUN = ("auto", "compact", "fcn8s", "vgg_concat", "resnet18_8s")


@pytest.mark.parametrize(
    "preset", [pytest.param(name, marks=() if name in IN_EVERY_RUN else pytest.mark.slow) for name in ALL]
)
def test_two_slices_are_learnt_by_heart(preset: str) -> None:
    reached, allowed = overfit(preset, RECIPES[preset]), best_dice(STRIDES[preset][1])
    assert reached >= allowed - WITHIN, f"{preset}: Dice {reached:.4f}, its stride allows {allowed:.4f}"


def test_the_organs_are_large_and_the_bounds_fall_with_the_stride() -> None:
    _, targets = two_slices()
    assert int(targets.sum(dim=(1, 2)).min()) >= 1500
    bounds = [best_dice(stride) for stride in (1, 4, 8, 16, 32)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] == 1
    assert 0.8 < bounds[-1] < 0.95
