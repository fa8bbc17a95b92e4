"""The network takes slices of any size, trains in every part, and moves its logits with its input."""

import math
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medfcn.errors import SettingsError
from medfcn.networks.design import Design
from medfcn.networks.fcn import EXPECTED_FOREGROUND, FCN, build_network
from medfcn.networks.losses import LossOptions, SegmentationLoss
from medfcn.networks.network import channels_last
from medfcn.networks.presets import PRESETS
from medfcn.networks.upsampling import Upsample, Upsampling, bilinear_kernel
from medfcn.settings import NetworkSettings
from tests.networks.designs import lived_in

BOTH: tuple[Upsampling, Upsampling] = ("transposed", "bilinear")


def _network(
    *, widths: tuple[int, ...] = (4, 6, 8), channels: int = 1, labels: int = 1, upsampling: Upsampling = "transposed"
) -> FCN:
    torch.manual_seed(0)
    chosen = NetworkSettings(score_channels=5, upsampling=upsampling)
    return build_network(Design.of(chosen, widths=widths, channels_in=channels, label_count=labels))


def _outspoken(network: FCN) -> FCN:
    """As after some training, with logits large enough for a difference between them to be seen."""
    network = lived_in(network)
    network.head.weight.data.mul_(10)
    return network


NETWORKS = {
    widths: _network(widths=widths, channels=2, labels=2).eval() for widths in [(4,), (4, 6), (4, 6, 8, 8, 8)]
}


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from(sorted(NETWORKS)))
@settings(max_examples=60, deadline=None)
def test_logits_have_the_size_of_the_slices(height: int, width: int, widths: tuple[int, ...]) -> None:
    with torch.inference_mode():
        logits = NETWORKS[widths](torch.ones(2, 2, height, width))
    assert logits.shape == (2, 3, height, width)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("upsampling", BOTH)
@pytest.mark.parametrize("labels", [1, 3])
def test_every_parameter_gets_a_gradient(upsampling: Upsampling, labels: int) -> None:
    network = _network(channels=3, labels=labels, upsampling=upsampling)
    slices = torch.randn(4, 3, 21, 26, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(4 * 21 * 26).reshape(4, 21, 26) % (labels + 1)
    SegmentationLoss(LossOptions(), head="sigmoid" if labels == 1 else "softmax")(network(slices), targets).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_one_label_has_one_logit_and_several_have_one_each_and_the_background() -> None:
    slices = torch.zeros(1, 1, 16, 16)
    assert [_network(labels=count).eval()(slices).shape[1] for count in (1, 2, 5)] == [1, 3, 6]


@pytest.mark.parametrize("upsampling", BOTH)
@pytest.mark.parametrize("axis", [2, 3])
def test_moving_the_slice_by_the_stride_moves_the_logits(upsampling: Upsampling, axis: int) -> None:
    network = _outspoken(_network(upsampling=upsampling))
    stride = network.encoder.strides[-1]
    assert stride == 4
    slices = torch.randn(1, 1, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        still, moved = network(slices), network(slices.roll(stride, axis))
    inner = (..., slice(36, 60), slice(36, 60))
    assert still[inner].std() > 1e-2
    assert torch.allclose(moved[inner], still.roll(stride, axis)[inner], atol=1e-5)
    assert not torch.allclose(moved[inner], still[inner], atol=1e-2)


def test_padding_to_whole_strides_is_not_seen_far_inside() -> None:
    network = _outspoken(_network())
    slices = torch.randn(1, 1, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole, cut = network(slices), network(slices[..., :93, :94])
    assert torch.allclose(whole[..., :60, :60], cut[..., :60, :60], atol=1e-5)


@pytest.mark.parametrize("stride", [2, 4])
def test_the_bilinear_kernel_interpolates_in_the_interior(stride: int) -> None:
    coarse = torch.randn(1, 1, 9, 7, generator=torch.Generator().manual_seed(0))
    layer = nn.ConvTranspose2d(1, 1, 2 * stride, stride=stride, padding=stride // 2, bias=False)
    layer.weight.data.copy_(bilinear_kernel(stride)[None, None])
    fine = nn.functional.interpolate(coarse, scale_factor=stride, mode="bilinear", align_corners=False)
    inner = (..., slice(stride, -stride), slice(stride, -stride))
    assert torch.allclose(layer(coarse)[inner], fine[inner], atol=1e-6)


def test_learned_upsampling_starts_as_bilinear_interpolation() -> None:
    coarse = torch.randn(2, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    learned, fixed = (Upsample(3, 3, method=method)(coarse, (15, 12)) for method in BOTH)
    assert learned.shape == fixed.shape == (2, 3, 15, 12)
    inner = (..., slice(2, -2), slice(2, -2))
    assert torch.allclose(learned[inner], fixed[inner], atol=1e-6)
    assert not list(Upsample(3, 3, method="bilinear").parameters())


@pytest.mark.parametrize("stem", [2, 4])
def test_a_joined_step_to_full_size_starts_as_a_head_and_linear_interpolation(stem: Literal[2, 4]) -> None:
    chosen = NetworkSettings(widths=(4, 8), stem_stride=stem, score_channels=3, restoring="joined")
    network = build_network(Design.of(chosen, label_count=7))
    assert network.restore is not None
    features = torch.randn(2, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    layer = network.restore.learned
    assert isinstance(layer, nn.ConvTranspose2d)
    assert layer.bias is not None
    with torch.no_grad():
        fine = network.restore(features, (8 * stem, 6 * stem)) - layer.bias[:, None, None]
        # All taps that reach a pixel sum to the weight of a 1×1 convolution.
        weights = layer.weight.sum(dim=(2, 3)).T / stem**2
        coarse = nn.functional.conv2d(features, weights[..., None, None])
        expected = nn.functional.interpolate(coarse, scale_factor=stem, mode="bilinear", align_corners=False)
    inner = (..., slice(stem, -stem), slice(stem, -stem))
    assert torch.allclose(fine[inner], expected[inner], atol=1e-6)
    assert 0 < float(weights.std()) < 0.2
    # Where features say nothing, every pixel expects the same, at the border too.
    with torch.no_grad():
        shares = network.restore(torch.zeros(1, 3, 4, 4), (4 * stem, 4 * stem)).softmax(dim=1)
    assert torch.allclose(shares[:, 0], torch.tensor(1 - EXPECTED_FOREGROUND))
    assert torch.allclose(shares[:, 1:], torch.tensor(EXPECTED_FOREGROUND / 7))


@pytest.mark.parametrize(
    "settings",
    [
        NetworkSettings(preset="fcn8s", width=1 / 64, restoring="joined"),
        NetworkSettings(widths=(4, 8), stem_stride=2, head_kernel=3, restoring="joined"),
        NetworkSettings(widths=(4, 8), stem_stride=2, upsampling="dilated", restoring="joined"),
    ],
    ids=("scores", "head", "upsampling"),
)
def test_a_network_without_the_two_layers_cannot_join_them(settings: NetworkSettings) -> None:
    with pytest.raises(SettingsError, match=r"network\.restoring: 'joined' takes the place of a head") as caught:
        build_network(Design.of(settings, label_count=20))
    assert caught.value.field == "network.restoring"


def test_nothing_is_joined_where_the_head_is_at_full_size() -> None:
    usual, joined = (
        build_network(Design.of(NetworkSettings(widths=(4, 8), restoring=how), label_count=20)).state_dict()
        for how in ("learned", "joined")
    )
    assert {name: values.shape for name, values in usual.items()} == {
        name: values.shape for name, values in joined.items()
    }


@pytest.mark.parametrize("widths", [(8, 16), (16, 32, 64), (16, 32, 64, 128)])
def test_a_fresh_network_neither_blows_up_nor_dies_out(widths: tuple[int, ...]) -> None:
    network = _network(widths=widths, channels=1)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module is not network.head and module.weight.numel() > 2000:
            fan_in = module.weight[0].numel()
            assert float(module.weight.detach().std()) == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
    logits = network(torch.randn(4, 1, 48, 48, generator=torch.Generator().manual_seed(0)))
    assert 0.01 < float(logits.detach().std()) < 1.5
    assert float(logits.detach().mean()) == pytest.approx(-math.log(1 / EXPECTED_FOREGROUND - 1), abs=1)


def test_channels_last_gives_the_same_logits() -> None:
    slices = torch.randn(2, 1, 33, 40, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain = _outspoken(_network())(slices)
        other = channels_last(_outspoken(_network()))(slices.contiguous(memory_format=torch.channels_last))
    assert torch.allclose(plain, other, atol=1e-5)


def test_dropout_is_for_training_only() -> None:
    chosen = NetworkSettings(score_channels=5, dropout=0.5)
    network = build_network(Design.of(chosen, widths=(4, 8), channels_in=1, label_count=1))
    slices = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    network.eval()
    assert torch.equal(network(slices), network(slices))
    network.train()
    assert not torch.equal(network(slices), network(slices))


def test_the_network_overfits_two_slices() -> None:
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(44), indexing="ij")
    targets = torch.stack(
        [((rows - 15) ** 2 + (columns - 20) ** 2 < 80).long(), ((rows - 25) ** 2 + (columns - 12) ** 2 < 50).long()]
    )
    slices = targets[:, None] + 0.7 * torch.randn(2, 1, 40, 44, generator=torch.Generator().manual_seed(0))
    network, loss = _network(widths=(8, 16, 16)), SegmentationLoss(LossOptions(), head="sigmoid")
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        value = loss(network(slices), targets)
        value.backward()
        optimiser.step()
    found = network(slices)[:, 0] > 0
    dice = 2 * (found & (targets == 1)).sum() / (found.sum() + targets.sum())
    assert dice > 0.97


def test_a_slope_lets_negatives_through() -> None:
    leaky, plain = (
        build_network(
            Design.of(NetworkSettings(negative_slope=slope), widths=(4, 6, 8), channels_in=1, label_count=2)
        )
        for slope in (0.1, None)
    )
    kinds = [{type(part) for part in network.modules()} & {nn.ReLU, nn.LeakyReLU} for network in (leaky, plain)]
    assert kinds == [{nn.LeakyReLU}, {nn.ReLU}]
    assert {part.negative_slope for part in leaky.modules() if isinstance(part, nn.LeakyReLU)} == {0.1}
    assert {preset.negative_slope for preset in PRESETS.values()} == {0.0}
    # A feature that is negative everywhere still tells the head of the slice, and learns.
    leaky.load_state_dict(plain.state_dict())
    for network, speaks in ((leaky, True), (plain, False)):
        last = network.fusions[-1].refine[0][1]
        assert isinstance(last, nn.BatchNorm2d)
        nn.init.constant_(last.bias, -100.0)
        network.eval()(torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))).std().backward()
        assert (last.weight.grad is not None and bool(last.weight.grad.abs().max() > 0)) == speaks


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize(("labels", "overlapping"), [(1, False), (3, False), (3, True)])
def test_the_first_logits_expect_little_foreground(preset: str, labels: int, *, overlapping: bool) -> None:
    torch.manual_seed(0)
    network = build_network(
        Design.of(
            NetworkSettings(preset=preset, width=1 / 8),  # type: ignore[arg-type]
            widths=PRESETS[preset].widths or (8, 16, 32),
            channels_in=1,
            label_count=labels,
            overlapping=overlapping,
        )
    )
    for last in network.scores if network.scores_are_logits else [network.head]:
        assert isinstance(last, nn.Conv2d)
        nn.init.zeros_(last.weight)
    logits = network(torch.ones(1, 1, 64, 64)).detach()[0, :, 32, 32]
    found = logits.sigmoid() if len(logits) == labels else logits.softmax(dim=0)[1:]
    torch.testing.assert_close(found, torch.full((labels,), EXPECTED_FOREGROUND / labels))
