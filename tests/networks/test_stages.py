"""What a summary counts is what a hand counts: parameters, multiply-adds, strides, receptive field."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import nn

from medfcn.errors import SettingsError
from medfcn.networks.describe.listing import network_text, overview_text, short_number
from medfcn.networks.describe.receptive import receptive_field
from medfcn.networks.describe.stages import NetworkSummary, slice_size, summarise_network, summarise_presets
from medfcn.networks.design import Design
from medfcn.networks.fcn import build_network
from medfcn.networks.presets import PRESETS
from medfcn.settings import NetworkSettings, Upsampling
from medfcn.slices.sizes import widths_for

VGG16 = [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]
"""Channels and 3×3 convolutions of each block (Simonyan, Zisserman, ICLR 2015, configuration D)."""


def preset(name: Any, **parts: Any) -> NetworkSettings:
    return NetworkSettings(preset=name, **parts)


def field_of(settings: NetworkSettings, levels: int = 1) -> int:
    widths = settings.widths or PRESETS[settings.preset].widths or (1,) * levels
    return receptive_field(dataclasses.replace(settings, widths=widths))


# Receptive fields by hand: an interval of pixels of a map is walked back to the interval of the map before it.


def conv(low: int, high: int, edge: int, stride: int = 1) -> tuple[int, int]:
    """Of a convolution or pooling padded by half its edge (pooling of 2 is not padded)."""
    padding = edge // 2 if edge % 2 else 0
    return low * stride - padding, high * stride - padding + edge - 1


def raised(low: int, high: int, factor: int) -> tuple[int, int]:
    """Of a transposed convolution of twice the factor f: p is reached by c if 0 ≤ p + f/2 - c·f < 2·f."""
    half = factor // 2
    return math.ceil((low + half - 2 * factor + 1) / factor), (high + half) // factor


def widest(walk: Any, period: int) -> int:
    return max(high - low + 1 for low, high in (walk(row, row) for row in range(period)))


def vgg16_fc7(low: int, high: int) -> tuple[int, int]:
    low, high = conv(low, high, 7)
    for _, count in reversed(VGG16):
        low, high = conv(low, high, 2, 2)
        for _ in range(count):
            low, high = conv(low, high, 3)
    return low, high


def fcn(stride: int) -> int:
    """FCN-32s, 16s, 8s …: what a logit sees through the deepest path, the widest of all."""

    def walk(low: int, high: int) -> tuple[int, int]:
        low, high = raised(low, high, stride) if stride > 1 else (low, high)
        for _ in range((32 // stride).bit_length() - 1):
            low, high = raised(low, high, 2)
        return vgg16_fc7(low, high)

    return widest(walk, 32)


def auto(levels: int) -> int:
    """Two 3×3 convolutions a level, the first of stride 2; one 3×3 convolution after each ×2."""

    def walk(low: int, high: int) -> tuple[int, int]:
        for _ in range(levels - 1):
            low, high = raised(*conv(low, high, 3), 2)
        for level in reversed(range(levels)):
            low, high = conv(*conv(low, high, 3), 3, 2 if level else 1)
        return low, high

    return widest(walk, 2**levels)


def test_a_pixel_of_fc7_sees_404_pixels_of_which_pool5_alone_sees_212() -> None:
    low, high = vgg16_fc7(0, 0)
    assert high - low + 1 == 404
    # fc6 widens it by 6 pixels of stride 32.
    assert 404 - 6 * 32 == 212


@pytest.mark.parametrize(
    ("name", "stride", "field"),
    [
        ("fcn32s", 32, 404 + 32),  # two neighbouring pixels of fc7
        ("fcn16s", 16, 404 + 2 * 32),  # two of stride 16, which lie under up to three of stride 32
        ("fcn8s", 8, 404 + 2 * 32),
        ("fcn4s", 4, 404 + 2 * 32),
        ("fcn1s", 1, 404 + 2 * 32),
    ],
)
def test_the_field_of_the_papers_networks(name: str, stride: int, field: int) -> None:
    assert fcn(stride) == field
    assert field_of(preset(name)) == field


def test_every_3x3_convolution_of_plain_adds_two_pixels() -> None:
    assert field_of(preset("plain")) == 1 + 2 * (4 + 1)
    assert field_of(preset("plain", widths=(8, 8))) == 1 + 2 * (2 + 1)
    assert field_of(preset("plain", widths=(8, 8), head_kernel=1)) == 1 + 2 * 2


@pytest.mark.parametrize(("levels", "field"), [(1, 5), (2, None), (3, None), (4, 79), (6, 319)])
def test_the_field_of_auto(levels: int, field: int | None) -> None:
    assert field in (None, auto(levels))
    assert field_of(NetworkSettings(), levels) == auto(levels)


def test_the_field_of_a_resnet_without_decoder_is_the_known_one() -> None:
    # 435 pixels for ResNet-18 and 899 for ResNet-34 (Araujo, Norris, Sim, Distill 2019), and linear interpolation
    # between two pixels of stride 32.
    for name, known in (("resnet18_8s", 435), ("resnet34_8s", 899)):
        assert field_of(preset(name, finest_stride=32, upsampling="bilinear")) == known + 32


UPSAMPLINGS: tuple[Upsampling, ...] = ("transposed", "transposed_3x3", "bilinear", "nearest_conv", "dilated")


@given(
    st.sampled_from(UPSAMPLINGS),
    st.sampled_from([(3, 4), (3, 4, 5), (2, 9, 2)]),
    st.integers(0, 2),
    st.sampled_from(["strided", "pooled"]),
    st.sampled_from(["add", "concat"]),
)
@examples(max_examples=25, deadline=None)
def test_the_field_is_what_the_gradient_of_a_logit_reaches(
    upsampling: Any, widths: tuple[int, ...], refinements: int, encoder: Any, fusion: Any
) -> None:
    """The other way round, and in full width: back from single logits, positive weights, average-pooling."""
    settings = NetworkSettings(
        encoder=encoder,
        widths=widths,
        upsampling=upsampling,
        refinements=refinements,
        fusion=fusion,
        normalisation="none",
    )
    network = build_network(Design.of(settings)).double().eval()
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(2))
    for name, parameter in network.named_parameters():
        nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 0.1)
    stride = network.encoder.strides[-1]
    slices = torch.ones(1, 1, 24 * stride, 24 * stride, dtype=torch.float64, requires_grad=True)
    logits = network(slices)
    fields = []
    for place in range(12 * stride, 13 * stride):
        (gradient,) = torch.autograd.grad(logits[0, 0, place, place], slices, retain_graph=True)
        rows, columns = gradient[0, 0].nonzero(as_tuple=True)
        fields += [int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1]
        assert 0 < rows.min() <= rows.max() < 24 * stride - 1
    assert receptive_field(settings) == max(fields)


def test_the_field_does_not_depend_on_widths_normalisation_or_labels() -> None:
    settings = NetworkSettings(widths=(4, 6, 8))
    expected = field_of(settings)
    for other in (
        dataclasses.replace(settings, widths=(64, 3, 1)),
        dataclasses.replace(settings, width=7.0),
        dataclasses.replace(settings, normalisation="instance"),
        dataclasses.replace(settings, score_channels=0, head="softmax", dropout=0.5),
    ):
        assert field_of(other) == expected


def test_measuring_the_field_leaves_random_numbers_and_threads_alone() -> None:
    torch.manual_seed(0)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    summarise_network(NetworkSettings(widths=(4, 6)), size=(32, 32))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_a_field_larger_than_the_slice_is_capped_in_what_is_seen() -> None:
    summary = summarise_network(preset("fcn8s"), size=(96, 500))
    assert (summary.receptive_field, summary.seen) == (468, (96, 468))


def test_fcn8s_has_the_parameters_of_the_paper() -> None:
    vgg16, before = 0, 3
    for width, count in VGG16:
        for _ in range(count):
            vgg16, before = vgg16 + before * width * 9 + width, width
    fully_connected = 512 * 4096 * 49 + 4096 + 4096 * 4096 + 4096
    scores = sum(channels * 21 + 21 for channels in (4096, 512, 256))
    upsamplings = 21 * 21 * (4 * 4 + 4 * 4 + 16 * 16)
    assert vgg16 + fully_connected + scores + upsamplings == 134_489_759
    assert summarise_network(preset("fcn8s"), channels_in=3, label_count=20).parameters == 134_489_759


def test_the_convolutions_of_vgg16_cost_15_3_thousand_million_multiply_adds_at_224_pixels() -> None:
    by_hand, before, edge = 0, 3, 224
    for width, count in VGG16:
        for _ in range(count):
            by_hand, before = by_hand + before * width * 9 * edge**2, width
        edge //= 2
    assert by_hand == 15_346_630_656
    summary = summarise_network(preset("fcn32s", classifier_channels=0), size=(224, 224), channels_in=3)
    assert sum(stage.multiply_adds for stage in summary.part("encoder")) == by_hand


def test_transposed_convolutions_count_every_tap_of_every_pixel_they_are_given() -> None:
    summary = summarise_network(preset("fcn8s"), size=(64, 96), label_count=20)
    fusions, (restore,) = summary.part("fusion"), summary.part("restore")
    assert [stage.multiply_adds for stage in fusions] == [2 * 3 * 21 * 21 * 16, 4 * 6 * 21 * 21 * 16]
    assert restore.multiply_adds == 8 * 12 * 21 * 21 * 16**2
    assert (
        summarise_network(preset("fcn8s", upsampling="bilinear"), size=(64, 96)).part("restore")[0].multiply_adds == 0
    )


def test_a_joined_step_to_full_size_is_one_layer_with_a_kernel_for_each_label_and_channel() -> None:
    settings = NetworkSettings(widths=(8, 16), stem_stride=2, restoring="joined")
    summary = summarise_network(settings, size=(64, 96), label_count=20)
    (restore,) = summary.part("restore")
    assert not summary.part("head")
    assert restore.made_of == ("×2 transposed conv 4×4",)
    assert restore.multiply_adds == 32 * 48 * 16 * 21 * 4**2
    assert restore.parameters == 16 * 21 * 4**2 + 21


@pytest.mark.parametrize("name", PRESETS)
def test_the_stages_are_the_network(name: Any) -> None:
    """Parameters of all stages are the network's own; sizes are those of its real maps."""
    settings = preset(name, width=1 / 64)
    summary = summarise_network(settings, size=(70, 45), channels_in=2, label_count=2)
    network = build_network(
        Design.of(settings, widths=PRESETS[name].widths or widths_for(45), channels_in=2, label_count=2)
    ).eval()
    assert summary.parameters == sum(weights.numel() for weights in network.parameters())
    with torch.inference_mode():
        maps = network.maps(torch.zeros(1, 2, 70, 45))
    last = [(stage.channels, *stage.size) for stage in summary.part("encoder")][-1]
    assert last == maps.deepest.shape[1:]
    fused = [(stage.channels, *stage.size) for stage in summary.part("fusion")]
    assert fused == [tuple(fused.shape[1:]) for fused in maps.fused[1:]]
    assert summary.fused_strides == network.fused_strides
    assert summary.finest_stride == (PRESETS[name].finest_stride or 1)
    for stage in summary.stages:
        assert stage.size == (summary.padded[0] // stage.stride, summary.padded[1] // stage.stride)


def test_padding_is_counted() -> None:
    exact, padded = (summarise_network(preset("fcn8s"), size=size) for size in [(64, 96), (33, 65)])
    assert padded.padded == (64, 96)
    assert padded.multiply_adds == exact.multiply_adds
    assert summarise_network(preset("fcn8s"), size=(1, 1)).padded == (64, 64)


def test_auto_has_the_widths_that_the_plan_gives_slices_of_that_size() -> None:
    assert [stage.channels for stage in summarise_network(NetworkSettings(), size=(300, 35)).part("encoder")] == [
        16,
        32,
        64,
        128,
    ]
    assert summarise_network(NetworkSettings(), size=(95, 256)).encoder_strides == (1, 2, 4, 8, 16)
    assert summarise_network(NetworkSettings(), size=(250, 250)).encoder_strides == (2, 4, 8, 16, 32)
    assert summarise_network(NetworkSettings(), size=(384, 384)).encoder_strides == (2, 4, 8, 16, 32, 64)
    assert summarise_network(NetworkSettings(), size=(385, 385)).encoder_strides == (4, 8, 16, 32, 64)


def test_all_presets_are_summarised_in_the_width_asked_for() -> None:
    thin = summarise_presets(size=(64, 64), width=1 / 64)
    assert [summary.name for summary in thin] == list(PRESETS)
    assert thin[3] == summarise_network(preset("fcn8s", width=1 / 64), size=(64, 64))
    assert all(summary.parameters < 40_000 for summary in thin)


def test_what_a_stage_is_made_of_is_said_in_order() -> None:
    stages = {stage.name: stage.made_of for stage in summarise_network(preset("fcn8s", refinements=2)).stages}
    assert stages["fc7"] == ("3 × conv 3×3", "max-pool 2×2", "conv 7×7", "conv 1×1")
    assert stages["fusion with pool4"] == ("×2 transposed conv 4×4", "+", "2 × conv 3×3")
    assert stages["restore"] == ("×8 transposed conv 16×16",)
    resnet = [stage.made_of for stage in summarise_network(preset("resnet50_8s")).part("encoder")]
    assert resnet[:3] == [("conv 7×7 /2",), ("max-pool 3×3", "3 × bottleneck"), ("4 × bottleneck",)]
    assert summarise_network(preset("plain")).stages[0].made_of == ("4 × conv 3×3", "3 × skip conv 3×3")


@pytest.mark.parametrize("text", ["", "0", "256x", "x256", "256x256x3", "-5", "2.5", "16385", "big", "1" * 5000])
def test_a_slice_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="write for example 256x192"):
        slice_size(text)


@given(st.integers(1, 16384), st.integers(1, 16384))
def test_a_slice_size_is_read_back(height: int, width: int) -> None:
    assert slice_size(f"{height}x{width}") == slice_size(f" {height} × {width} ") == (height, width)


@given(st.integers(0, 10**15))
def test_a_short_number_is_within_half_a_percent_and_has_three_digits(count: int) -> None:
    digits, _, unit = short_number(count).partition(" ")
    value = float(digits) * 1000 ** " kMGTP".index(unit or " ")
    assert value == pytest.approx(count, rel=5.1e-3)
    assert len(digits.replace(".", "")) <= 3 or count < 1000


def test_tables_are_aligned_and_hold_every_row() -> None:
    summary: NetworkSummary = summarise_network(preset("fcn8s"), size=(250, 180))
    text = network_text(summary)
    table = text[: text.index("\n\n")].splitlines()
    rows = [line for line in table if not line.startswith(" ")]  # the others go on with the row above them
    assert len(rows) == 1 + len(summary.stages) + 1
    assert len({len(line) for line in rows}) == 1
    assert max(map(len, table)) <= 80
    assert "A slice of 1 × 250 × 180, padded to 256 × 192; 1 logit a pixel" in text
    overview = overview_text([summary, summarise_network(preset("plain"), size=(250, 180))]).splitlines()
    assert len({len(line) for line in overview[:3]}) == 1
    assert overview[1].split()[:3] == ["fcn8s", "134,264,547", "20.7"]
