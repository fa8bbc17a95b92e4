"""Every preset, thin enough for a test; made by hand, so that no test waits for a training."""

from typing import Any

import torch
from torch import nn

from medfcn.networks.design import Design
from medfcn.networks.fcn import FCN, build_network
from medfcn.networks.presets import PRESETS, with_preset
from medfcn.settings import NetworkSettings

ALL = tuple(PRESETS)
AUTO_WIDTHS = (16, 32, 64, 128, 256)
"""Of the preset `auto`, whose widths are the plan's: as for a slice of 64 to 127 pixels."""
STRIDES = {
    "auto": (16, 1),
    "fcn32s": (32, 32),
    "fcn16s": (32, 16),
    "fcn8s": (32, 8),
    "fcn4s": (32, 4),
    "fcn2s": (32, 2),
    "fcn1s": (32, 1),
    "vgg_concat": (16, 4),
    "compact": (8, 1),
    "plain": (1, 1),
    "score_decoder": (16, 4),
    "resnet18_8s": (32, 8),
    "resnet34_8s": (32, 8),
    "resnet50_8s": (32, 8),
}
"""Input pixels per pixel of each preset's coarsest map, and of the map that its logits come from."""


def build(
    preset: str, *, width: float = 1 / 16, channels: int = 1, labels: int = 1, seed: int = 0, **parts: Any
) -> FCN:
    """A preset's network, thin, in training mode; the same for the same seed."""
    chosen = with_preset(NetworkSettings(preset=preset, width=width, **parts))  # type: ignore[arg-type]
    before = torch.random.get_rng_state()
    torch.manual_seed(seed)
    network = build_network(
        Design.of(chosen, widths=chosen.widths or AUTO_WIDTHS, channels_in=channels, label_count=labels)
    ).train()
    torch.random.set_rng_state(before)
    return network


def lived_in(network: FCN) -> FCN:
    """With normalisation statistics and factors as after some training, in evaluation mode."""
    random = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.3, 0.3),
            ):
                assert tensor is not None
                tensor.copy_(torch.rand(tensor.shape, generator=random) * (high - low) + low)
    return network.eval()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers, the same for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
