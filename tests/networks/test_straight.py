"""Layers that are called straight: the same logits to the bit, of the same weights."""

import pytest
import torch
from torch import nn

from medfcn.networks.folding import folded
from medfcn.networks.network import SliceNetwork
from medfcn.networks.straight import straight
from tests.networks.designs import ALL, build, lived_in


def logits_of(network: SliceNetwork, slices: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return network(slices).clone()


@pytest.mark.parametrize("is_folded", [False, True])
@pytest.mark.parametrize("preset", ALL)
def test_a_network_whose_layers_are_called_straight_gives_the_same_bits(preset: str, *, is_folded: bool) -> None:
    network = lived_in(build(preset)).eval()
    network = folded(network) if is_folded else network
    slices = torch.randn(2, 1, 40, 72, generator=torch.Generator().manual_seed(1))
    layers, before = list(network.modules()), logits_of(network, slices)
    twin = straight(network)
    assert torch.equal(logits_of(twin, slices), before)
    assert twin is not network
    plain = (nn.Sequential, nn.Identity, nn.Conv2d, nn.ConvTranspose2d, nn.ReLU)
    assert not [module for module in twin.modules() if type(module) in plain]
    assert list(network.modules()) == layers  # it stays as it was
    assert torch.equal(logits_of(network, slices), before)


def test_a_straight_network_has_the_weights_of_the_other() -> None:
    network = lived_in(build("auto")).eval()
    slices = torch.randn(2, 1, 40, 72, generator=torch.Generator().manual_seed(1))
    twin = straight(network)
    before = logits_of(twin, slices)
    with torch.no_grad():
        next(network.parameters()).mul_(2)
    after = logits_of(twin, slices)
    assert torch.equal(after, logits_of(network, slices))
    assert not torch.equal(after, before)


def test_dropout_of_a_network_in_training_stays() -> None:
    network = build("auto").train()
    assert straight(network) is network
