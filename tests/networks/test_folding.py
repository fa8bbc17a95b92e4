"""Batch normalisation folded into convolutions: the same logits, with fewer layers."""

import pytest
import torch
from torch import nn

from medfcn.networks.design import Design
from medfcn.networks.fcn import build_network
from medfcn.networks.folding import folded
from medfcn.settings import NetworkSettings, Upsampling
from tests.networks.designs import ALL, build, lived_in


def norms_of(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("preset", ALL)
def test_a_folded_network_gives_the_same_logits_without_batch_norm_after_convolutions(preset: str) -> None:
    network = lived_in(build(preset)).eval()
    slices = torch.randn(2, 1, 40, 72, generator=torch.Generator().manual_seed(1))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    twin = folded(network)
    with torch.inference_mode():
        ours, theirs = network(slices), twin(slices)
    assert norms_of(twin) <= min(len(network.fusions), norms_of(network))  # those after upsampling stay
    assert float((ours - theirs).abs().max()) < 1e-5 * float(ours.abs().max())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("upsampling", ["transposed", "transposed_3x3", "dilated"])
def test_a_head_of_many_labels_is_folded_into_the_step_to_full_size(upsampling: Upsampling) -> None:
    settings = NetworkSettings(widths=(4, 8), stem_stride=2, score_channels=3, upsampling=upsampling)
    network = lived_in(build_network(Design.of(settings, label_count=9))).eval()
    assert isinstance(network.head, nn.Conv2d)
    slices = torch.randn(2, 1, 21, 30, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network.head.bias.copy_(torch.linspace(-9, 9, 10))  # type: ignore[union-attr]  # it has one
        ours, theirs = network(slices), (twin := folded(network))(slices)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-5 * float(ours.abs().max()))  # the border too
    assert twin.get_parameter("restore.learned.weight").shape[:2] == (4, 10)
    assert network.get_parameter("restore.learned.weight").shape[:2] == (10, 10)  # it stays as it was


def test_a_head_of_few_labels_stays() -> None:
    settings = NetworkSettings(widths=(4, 8), stem_stride=2, score_channels=9)
    network = build_network(Design.of(settings, label_count=9))
    assert isinstance(folded(network).get_submodule("head"), nn.Conv2d)


def test_norms_that_use_the_batch_stay() -> None:
    network = lived_in(build("auto")).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = module.running_var = None
    assert norms_of(folded(network)) == norms_of(network) > 0


def test_a_convolution_that_two_places_share_stays() -> None:
    network = lived_in(build("auto")).eval()
    level = network.encoder.levels[0]
    level[1][0] = level[0][0] = nn.Conv2d(16, 16, 3, padding=1, bias=False)
    assert norms_of(folded(network)) == 2


class _Shared(nn.Module):
    """An activation is in two places, of which the second is between a convolution and its norm."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.ReLU()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), shared, nn.Conv2d(4, 4, 3), shared, nn.BatchNorm2d(4)
        )

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(slices)
        return result


def test_a_norm_after_an_activation_that_two_places_share_stays() -> None:
    torch.manual_seed(1)
    network = _Shared()
    for _ in range(3):
        network(torch.randn(4, 1, 16, 16))
    network.eval()
    slices = torch.randn(2, 1, 16, 16)
    twin = folded(network)  # type: ignore[arg-type]
    assert norms_of(twin) == 1
    with torch.inference_mode():
        ours, theirs = network(slices), twin(slices)
    assert float((ours - theirs).abs().max()) < 1e-5 * float(ours.abs().max())
