"""Every preset is what its source says, takes slices of any size, and comes back from its run folder."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from medfcn.errors import SettingsError
from medfcn.inference.card import Card
from medfcn.inference.model import Model
from medfcn.labels import LabelMap
from medfcn.networks.design import Design
from medfcn.networks.encoders import FlatLevel
from medfcn.networks.fcn import FCN, build_network, coarsest_stride
from medfcn.networks.presets import PRESETS, with_preset
from medfcn.settings import NetworkSettings, Settings
from tests.inference.models import tiny_plan
from tests.networks.designs import ALL, AUTO_WIDTHS, STRIDES, build, lived_in, noise

THIN = {preset: build(preset, width=1 / 32, labels=2).eval() for preset in ALL}
UNNORMALISED = ("fcn32s", "fcn16s", "fcn8s", "fcn4s", "fcn2s", "fcn1s")


# Any size in, the same size out


@given(st.sampled_from(ALL), st.integers(1, 100), st.integers(1, 100))
@settings(max_examples=150, deadline=None)
def test_logits_have_the_size_of_the_slices(preset: str, height: int, width: int) -> None:
    _require_size(preset, height, width)


@pytest.mark.parametrize("preset", ALL)
@pytest.mark.parametrize("size", [(1, 1), (1, 512), (511, 1), (33, 31), (257, 129), (512, 512)])
def test_the_smallest_the_largest_and_odd_slices_are_taken(preset: str, size: tuple[int, int]) -> None:
    _require_size(preset, *size)


def _require_size(preset: str, height: int, width: int) -> None:
    network = THIN[preset]
    with torch.inference_mode():
        maps = network.maps(noise(1, 1, height, width))
        logits = network.logits(maps, (height, width))
    assert logits.shape == (1, 3, height, width)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    assert network.encoder.strides[-1] == STRIDES[preset][0]
    assert maps.deepest.shape[-2:] == tuple(max(2, -(-edge // STRIDES[preset][0])) for edge in (height, width))


@pytest.mark.parametrize("preset", ALL)
def test_padding_is_zeros_at_the_far_ends(preset: str) -> None:
    slices, stride = noise(1, 1, 37, 70), STRIDES[preset][0]
    padded = torch.zeros(1, 1, *(max(2, -(-edge // stride)) * stride for edge in (37, 70)))
    padded[..., :37, :70] = slices
    with torch.inference_mode():
        assert torch.equal(THIN[preset](slices), THIN[preset](padded)[..., :37, :70])


@pytest.mark.parametrize("preset", ALL)
@pytest.mark.parametrize("normalisation", ["batch", "instance", "group", "none"])
def test_a_single_pixel_can_be_trained_on(preset: str, normalisation: str) -> None:
    """Batch and instance normalisation refuse a map of one pixel, which is why the deepest has at least 2×2."""
    network = build(preset, width=1 / 32, normalisation=normalisation)
    logits = network(torch.ones(1, 1, 1, 1))
    logits.sum().backward()
    assert logits.shape == (1, 1, 1, 1)
    assert torch.isfinite(logits).all()


# What the presets are


def conv(channels_in: int, channels_out: int, kernel: int) -> int:
    """Parameters of a convolution with a bias."""
    return kernel * kernel * channels_in * channels_out + channels_out


def up(channels: int, kernel: int) -> int:
    """Parameters of a transposed convolution, which has no bias."""
    return kernel * kernel * channels * channels


VGG16 = (
    *(conv(3, 64, 3), conv(64, 64, 3)),
    *(conv(64, 128, 3), conv(128, 128, 3)),
    *(conv(128, 256, 3), conv(256, 256, 3), conv(256, 256, 3)),
    *(conv(256, 512, 3), conv(512, 512, 3), conv(512, 512, 3)),
    *(conv(512, 512, 3), conv(512, 512, 3), conv(512, 512, 3)),
)
BACKBONE = sum(VGG16) + conv(512, 4096, 7) + conv(4096, 4096, 1) + conv(4096, 21, 1)
POOL4, POOL3, POOL2, POOL1, FULL = (
    conv(512, 21, 1),
    conv(256, 21, 1),
    conv(128, 21, 1),
    conv(64, 21, 1),
    conv(64, 21, 1),
)


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("fcn32s", BACKBONE + up(21, 64)),
        ("fcn16s", BACKBONE + POOL4 + up(21, 4) + up(21, 32)),
        ("fcn8s", BACKBONE + POOL4 + POOL3 + 2 * up(21, 4) + up(21, 16)),
        ("fcn4s", BACKBONE + POOL4 + POOL3 + POOL2 + 3 * up(21, 4) + up(21, 8)),
        ("fcn2s", BACKBONE + POOL4 + POOL3 + POOL2 + POOL1 + 4 * up(21, 4) + up(21, 4)),
        ("fcn1s", BACKBONE + POOL4 + POOL3 + POOL2 + POOL1 + FULL + 5 * up(21, 4)),
    ],
)
def test_the_fcns_have_the_parameters_of_the_paper(preset: str, parameters: int) -> None:
    assert parameters_of(_full_size(preset)) == parameters


def test_fcn8s_for_pascal_voc_has_134_489_759_parameters() -> None:
    assert sum(VGG16) == 14_714_688
    assert parameters_of(_full_size("fcn8s")) == 134_489_759
    assert parameters_of(_full_size("fcn16s")) == 134_815_994
    assert parameters_of(_full_size("fcn32s")) == 136_152_917


@pytest.mark.parametrize(
    ("preset", "parameters"),
    # Those of torchvision's models, less the fully connected layer.
    [
        ("resnet18_8s", 11_689_512 - 513_000),
        ("resnet34_8s", 21_797_672 - 513_000),
        ("resnet50_8s", 25_557_032 - 2_049_000),
    ],
)
def test_the_resnets_have_the_parameters_of_the_paper(preset: str, parameters: int) -> None:
    network = _full_size(preset)
    assert parameters_of(network.encoder) == parameters
    skips = {"resnet50_8s": (2048, 1024, 512)}.get(preset, (512, 256, 128))
    decoder = sum(conv(channels, 21, 1) for channels in skips) + 2 * up(21, 4) + up(21, 16)
    assert parameters_of(network) == parameters + decoder


def _full_size(preset: str, width: float = 1.0) -> FCN:
    with torch.device("meta"):
        return build(preset, width=width, channels=3, labels=20)


def parameters_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def layers(network: FCN, size: int) -> list[tuple[str, int, int, int, int]]:
    """Every convolution as it runs: kind, channels in and out, kernel, and the edge of what comes out."""
    found: list[tuple[str, int, int, int, int]] = []

    def note(module: nn.Module, _: object, output: torch.Tensor) -> None:
        assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        kind = "conv" if isinstance(module, nn.Conv2d) else "up"
        found.append((kind, module.in_channels, module.out_channels, module.kernel_size[0], output.shape[-1]))

    handles = [
        module.register_forward_hook(note)
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    ]
    with torch.device("meta"):
        network.eval()(torch.empty(1, 3, size, size))
    for handle in handles:
        handle.remove()
    return found


def _vgg16(size: int) -> list[tuple[str, int, int, int, int]]:
    widths, counts = (64, 128, 256, 512, 512), (2, 2, 3, 3, 3)
    found, before = [], 3
    for block, (width, count) in enumerate(zip(widths, counts, strict=True)):
        for index in range(count):
            found.append(("conv", before if index == 0 else width, width, 3, size >> block))
        before = width
    return found


def test_fcn8s_is_the_papers() -> None:
    assert layers(_full_size("fcn8s"), 128) == [
        *_vgg16(128),
        ("conv", 512, 4096, 7, 4),  # fc6
        ("conv", 4096, 4096, 1, 4),  # fc7
        ("conv", 4096, 21, 1, 4),
        ("conv", 512, 21, 1, 8),  # of pool4
        ("up", 21, 21, 4, 8),
        ("conv", 256, 21, 1, 16),  # of pool3
        ("up", 21, 21, 4, 16),
        ("up", 21, 21, 16, 128),
    ]
    dropouts = [module for module in build("fcn8s").modules() if isinstance(module, nn.Dropout)]
    assert [module.p for module in dropouts] == [0.5, 0.5]


def test_vgg_concat_joins_what_goes_into_pool4_and_pool3() -> None:
    network = _full_size("vgg_concat")
    assert layers(network, 128) == [
        *_vgg16(128),
        ("conv", 512, 512, 3, 16),  # of repeated pixels: a transposed convolution of stride 1
        ("conv", 1024, 512, 3, 16),
        ("conv", 512, 512, 3, 16),
        ("conv", 512, 256, 3, 32),
        ("conv", 512, 256, 3, 32),
        ("conv", 256, 256, 3, 32),
        ("conv", 256, 21, 1, 32),  # then interpolated by 4
    ]
    assert network.encoder.strides == (1, 2, 4, 8, 16)
    refined = [
        module for fusion in network.fusions for module in fusion.modules() if isinstance(module, nn.Dropout2d)
    ]
    assert [module.p for module in refined] == [0.5] * 4
    convolutions = [module for module in network.encoder.modules() if isinstance(module, nn.Conv2d)]
    normalised = [module for module in network.encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(convolutions) == len(normalised) == 13


def test_compact_concatenates_the_feature_of_the_same_size_three_times() -> None:
    assert layers(_full_size("compact"), 64) == [
        ("conv", 3, 64, 3, 64),
        ("conv", 64, 128, 3, 32),
        ("conv", 128, 256, 3, 16),
        ("up", 256, 256, 3, 16),
        ("up", 512, 128, 3, 32),
        ("up", 256, 64, 3, 64),
        ("conv", 128, 21, 1, 64),
    ]


def test_plain_has_five_convolutions_and_three_skips_at_full_resolution() -> None:
    network = _full_size("plain")
    assert layers(network, 64) == [
        ("conv", 3, 64, 3, 64),
        ("conv", 64, 64, 3, 64),
        ("conv", 64, 64, 3, 64),  # a skip, and so on
        ("conv", 64, 32, 3, 64),
        ("conv", 64, 32, 3, 64),
        ("conv", 32, 16, 3, 64),
        ("conv", 32, 16, 3, 64),
        ("conv", 16, 21, 3, 64),
    ]
    assert not any(isinstance(module, nn.MaxPool2d) for module in network.modules())


def test_each_skip_of_plain_takes_the_features_that_its_convolution_takes() -> None:
    network = build("plain", width=1.0).eval()
    level = network.encoder.levels[0]
    assert isinstance(level, FlatLevel)
    seen: dict[nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}
    for part in (*level.convolutions, *level.skips):
        part.register_forward_hook(lambda module, given, output: seen.update({module: (given[0], output)}))
    with torch.inference_mode():
        whole = level(noise(1, 1, 9, 7))
    for convolution, skip in zip(level.convolutions, level.skips, strict=True):
        assert seen[convolution][0] is seen[skip][0]
        assert seen[convolution][1].shape == seen[skip][1].shape
    last = (seen[level.convolutions[-1]][1], seen[level.skips[-1]][1])
    assert torch.equal(whole, last[0] + last[1])


def test_score_decoder_goes_through_a_score_map() -> None:
    network = _full_size("score_decoder")
    assert layers(network, 128) == [
        *_vgg16(128),
        ("conv", 512, 21, 1, 8),
        ("up", 21, 256, 4, 16),
        ("up", 256, 128, 4, 32),
        ("conv", 128, 21, 1, 32),
        ("up", 21, 21, 8, 128),
    ]
    assert sum(isinstance(part, nn.ReLU) for fusion in network.fusions for part in fusion.modules()) == 2


@pytest.mark.parametrize("preset", ALL)
def test_each_preset_is_complete_and_tells_its_strides(preset: str) -> None:
    chosen = PRESETS[preset]
    parts = {part.name for part in dataclasses.fields(chosen)} - {
        "monai",
        "monai_arguments",
        "restoring",
    }  # the plan decides the last
    open_parts = {name for name in parts if getattr(chosen, name) is None}
    assert open_parts == ({"widths", "stem_stride"} if preset == "auto" else set())
    assert chosen.preset == preset
    assert with_preset(with_preset(chosen)) == with_preset(NetworkSettings(preset=preset)) == chosen  # type: ignore[arg-type]
    assert coarsest_stride(chosen) == (None if preset == "auto" else STRIDES[preset][0])
    assert (THIN[preset].fused_strides[0], THIN[preset].fused_strides[-1]) == STRIDES[preset]


@pytest.mark.parametrize("preset", ALL)
@pytest.mark.parametrize(
    ("labels", "head", "channels"), [(1, "auto", 1), (3, "auto", 4), (3, "sigmoid", 3), (1, "softmax", 2)]
)
def test_heads_are_one_logit_softmax_or_sigmoids(preset: str, labels: int, head: str, channels: int) -> None:
    network = build(preset, width=1 / 32, labels=labels, head=head).eval()
    assert network(noise(1, 1, 32, 32)).shape == (1, channels, 32, 32)


@pytest.mark.parametrize("preset", ALL)
def test_width_scales_all_channels_but_the_classes(preset: str) -> None:
    half, whole = (_convolutions(_full_size(preset, width)) for width in (0.5, 1.0))
    for thin, thick in zip(half, whole, strict=True):
        for narrow, wide in ((thin.in_channels, thick.in_channels), (thin.out_channels, thick.out_channels)):
            assert narrow * 2 == wide or narrow == wide == 21 or narrow == wide == 3


def _convolutions(network: FCN) -> list[nn.Conv2d | nn.ConvTranspose2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]


# Laws


def test_with_all_skips_zeroed_fcn8s_is_fcn32s_with_composed_upsampling() -> None:
    fine, coarse = (build(preset, width=1 / 16, labels=3).eval() for preset in ("fcn8s", "fcn32s"))
    fine.encoder.load_state_dict(coarse.encoder.state_dict())
    fine.scores[0].load_state_dict(coarse.scores[0].state_dict())
    for score in fine.scores[1:]:
        for parameter in score.parameters():
            nn.init.zeros_(parameter)
    slices = noise(1, 1, 150, 97)
    with torch.inference_mode():
        deepest = coarse.scores[0](coarse.encoder(functional.pad(slices, (0, 31, 0, 10)))[-1])
        composed = _times(8, _times(2, _times(2, deepest)))[..., :150, :97]
        logits = fine(slices)
        assert logits.std() > 0
        assert torch.allclose(logits, composed, atol=1e-5 * float(composed.abs().max()))
        # And FCN-32s itself is the same coarse map in one step.
        assert torch.allclose(coarse(slices), _times(32, deepest)[..., :150, :97], atol=1e-5)


def _times(factor: int, scores: torch.Tensor) -> torch.Tensor:
    """A transposed convolution with Long et al.'s bilinear kernel, written another way: zeros between, then tents."""
    batch, channels, height, width = scores.shape
    spread = torch.zeros(batch, channels, height * factor, width * factor)
    spread[..., ::factor, ::factor] = scores
    centre = factor - 0.5
    tent = torch.tensor([1 - abs(place - centre) / factor for place in range(2 * factor)])
    kernel = (tent[:, None] * tent).expand(channels, 1, -1, -1)
    whole = functional.conv2d(functional.pad(spread, [2 * factor] * 4), kernel, groups=channels)
    start = factor // 2 + 1
    return whole[..., start : start + height * factor, start : start + width * factor]


@pytest.mark.parametrize("preset", ALL)
@pytest.mark.parametrize("axis", [2, 3])
def test_moving_the_slice_by_the_stride_moves_the_logits(preset: str, axis: int) -> None:
    """Away from the ends, which lie further off than any receptive field (899 pixels in ResNet-34)."""
    network, stride = lived_in(build(preset, width=1 / 16, labels=2)), STRIDES[preset][0]
    shape = [1, 1, 64, 64]
    shape[axis] = 1536
    slices = noise(*shape)
    with torch.inference_mode():
        still, moved = network(slices), network(slices.roll(stride, axis))
    inner = [slice(None)] * 4
    inner[axis] = slice(512, 1024)
    before, after = still.roll(stride, axis)[tuple(inner)], moved[tuple(inner)]
    size = float(before.std())
    assert size > 1e-3
    assert torch.allclose(after, before, atol=1e-4 * size)
    own = float(before.std(dim=(0, 2, 3)).mean())  # the labels' logits begin apart
    assert not torch.allclose(after, still[tuple(inner)], atol=1e-1 * own)


@pytest.mark.parametrize("preset", UNNORMALISED)
def test_without_normalisation_no_slice_sees_the_rest_of_its_batch(preset: str) -> None:
    network = build(preset, dropout=0.0)
    slices = noise(3, 1, 64, 64)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    with torch.inference_mode():
        assert torch.allclose(network(slices)[1:2], network(slices[1:2]), atol=1e-6)


@pytest.mark.parametrize("preset", ALL)
@pytest.mark.parametrize("normalisation", ["batch", "instance", "group", "none"])
def test_a_fresh_network_neither_blows_up_nor_dies_out(preset: str, normalisation: str) -> None:
    network = build(preset, width=1 / 4, labels=2, normalisation=normalisation)
    with torch.inference_mode():
        logits = network(noise(2, 1, 64, 64))
    assert 0.01 < float(logits.std()) < 2
    assert float(logits.mean().abs()) < 2


# A run folder


@pytest.mark.parametrize("preset", ALL)
@pytest.mark.parametrize("labels", ["organ=1", "left=1,right=2"])
def test_a_network_comes_back_from_its_run_folder(preset: str, labels: str, tmp_path: Path) -> None:
    chosen, names = with_preset(NetworkSettings(preset=preset, width=1 / 32)), LabelMap.parse(labels)  # type: ignore[arg-type]
    plan = tiny_plan(widths=chosen.widths or AUTO_WIDTHS)
    torch.manual_seed(1)
    network = lived_in(
        build_network(Design.of(chosen, widths=plan.widths, channels_in=1, label_count=len(names.entries)))
    )
    card = Card(
        labels=names,
        channels=("t1",),
        plan=plan,
        settings=Settings(network=chosen),
        one_part=(),
        weights_sha256="",
        versions={"medfcn": "test"},
    )
    model = Model(network, card, device=torch.device("cpu"))
    model.save(tmp_path)
    loaded = Model.load(tmp_path, device="cpu")
    slices = noise(2, 1, 50, 41)
    with torch.inference_mode():
        assert torch.equal(loaded.network(slices), model.network(slices))
    assert loaded.card == model.card
    state, other = model.network.state_dict(), loaded.network.state_dict()
    assert list(state) == list(other)
    assert all(torch.equal(state[name], other[name]) for name in state)


# Parts put together in other ways


FUSIONS, NORMALISATIONS = ("add", "concat"), ("batch", "instance", "group", "none")
UPSAMPLINGS = ("transposed", "transposed_3x3", "bilinear", "nearest_conv", "dilated")


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_every_fusion_upsampling_and_normalisation_learns(fusion: str, upsampling: str, normalisation: str) -> None:
    network = build(
        "auto", width=1 / 2, fusion=fusion, upsampling=upsampling, normalisation=normalisation, widths=(8, 12, 16)
    )
    slices, wanted = noise(2, 1, 21, 26), (noise(2, 1, 21, 26, seed=1) > 0).float()
    loss = functional.binary_cross_entropy_with_logits(network(slices), wanted)
    loss.backward()
    power = sum(float(part.grad.square().sum()) for part in network.parameters() if part.grad is not None)
    with torch.no_grad():
        for part in network.parameters():
            assert part.grad is not None
            part -= 1e-4 / power * part.grad
        later = functional.binary_cross_entropy_with_logits(network(slices), wanted)
    # A small step down the gradient lowers the loss by the step times the gradient's square.
    assert float(loss.detach() - later) == pytest.approx(1e-4, rel=0.3)


parts = st.fixed_dictionaries(
    {},
    optional={
        "encoder": st.sampled_from(["strided", "pooled", "flat", "vgg16", "vgg16_blocks", "resnet18", "resnet50"]),
        "widths": st.lists(st.integers(1, 6), min_size=1, max_size=6).map(tuple),
        "classifier_channels": st.sampled_from([0, 5]),
        "scores": st.booleans(),
        "score_channels": st.sampled_from([0, 3]),
        "decoder_widths": st.lists(st.integers(1, 5), max_size=5).map(tuple),
        "skips": st.booleans(),
        "fusion": st.sampled_from(FUSIONS),
        "upsampling": st.sampled_from(UPSAMPLINGS),
        "refinements": st.integers(0, 2),
        "head_kernel": st.sampled_from([1, 3]),
        "finest_stride": st.sampled_from([1, 2, 4, 8, 16, 32, 64]),
        "normalisation": st.sampled_from(NORMALISATIONS),
        "dropout": st.sampled_from([0.0, 0.5]),
        "decoder_dropout": st.sampled_from([0.0, 0.5]),
        "head": st.sampled_from(["auto", "sigmoid", "softmax"]),
    },
)


@given(st.sampled_from(ALL), parts, st.integers(1, 3))
@settings(max_examples=250, deadline=None)
def test_any_choice_of_parts_trains_or_is_refused_in_one_line(
    preset: str, chosen: dict[str, object], labels: int
) -> None:
    message, network = "", None
    try:
        network = build(preset, width=1.0 if "widths" in chosen else 1 / 32, labels=labels, **chosen)
    except SettingsError as error:
        message = str(error)
    if network is None:
        assert message.startswith("setting network.")
        assert "\n" not in message
        return
    logits = network(noise(2, 1, 19, 33))
    assert logits.shape[-2:] == (19, 33)
    logits.square().mean().backward()
    assert torch.isfinite(logits).all()


@given(st.sampled_from(ALL), parts)
@settings(max_examples=100, deadline=None)
def test_settings_that_travel_with_the_weights_stay_as_they_are(preset: str, chosen: dict[str, object]) -> None:
    try:
        complete = with_preset(NetworkSettings(preset=preset, **chosen))  # type: ignore[arg-type]
    except SettingsError:
        assume(False)
    assert with_preset(complete) == complete
    assert all(getattr(complete, name) == value for name, value in chosen.items())


@pytest.mark.parametrize("encoder", ["strided", "pooled", "flat", "vgg16", "vgg16_blocks", "resnet18", "resnet50"])
def test_every_encoder_drops_features_in_training_when_told_to(encoder: str) -> None:
    fusion = {"flat": {}}.get(encoder, {"finest_stride": 4})
    network = build("auto", width=1 / 4, encoder=encoder, dropout=0.5, **fusion)
    slices = noise(2, 1, 32, 32)
    with torch.inference_mode():
        network.eval()
        assert torch.equal(network(slices), network(slices))
        for module in network.modules():
            module.train(isinstance(module, nn.Dropout | nn.Dropout2d))
        assert not torch.equal(network(slices), network(slices))


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "unknown preset": (lambda: build("fcn8"), r"network.preset: there is no 'fcn8'; did you mean 'fcn8s'\?"),
    "another unknown preset": (lambda: build("resnet18"), r"did you mean 'resnet18_8s'\?"),
    "far from any preset": (lambda: build("%"), r"there is no '%'; known are auto, fcn32s"),
    "four widths for VGG-16": (
        lambda: build("fcn8s", widths=(8, 8, 8, 8)),
        r"network.widths: \(8, 8, 8, 8\) has 4 numbers, the encoder vgg16 takes 5",
    ),
    "five widths for a ResNet": (lambda: build("resnet18_8s", widths=(8,) * 5), r"encoder resnet18 takes 4"),
    "the plan's widths for VGG-16": (
        lambda: build_network(Design.of(PRESETS["fcn8s"], widths=(4, 6), channels_in=1, label_count=1)),
        r"network.widths: \(4, 6\) has 2 numbers, the encoder vgg16 takes 5",
    ),
    "a ResNet has no map at stride 1": (
        lambda: build("resnet18_8s", finest_stride=1),
        r"network.finest_stride: 1 is not a stride of the encoder's maps, which are 2, 4, 8, 16, 32",
    ),
    "finer than pixels of VGG-16's blocks": (
        lambda: build("vgg_concat", finest_stride=32),
        r"network.finest_stride: 32 is not a stride of the encoder's maps, which are 1, 2, 4, 8, 16",
    ),
    "a stride that is no power of two": (lambda: build("fcn8s", finest_stride=3), r"network.finest_stride: 3 is not"),
    "one decoder width for two steps": (
        lambda: build("vgg_concat", decoder_widths=(64,)),
        r"network.decoder_widths: has 1 number, and from stride 16 to 4 there are 2 steps",
    ),
    "addition of maps as they are": (
        lambda: build("vgg_concat", fusion="add"),
        r"network.fusion: 'add' needs score maps",
    ),
    "addition of other channels": (
        lambda: build("fcn8s", width=1.0, decoder_widths=(8, 8), widths=(4,) * 5, classifier_channels=4),
        r"network.decoder_widths: maps of 8, 8 channels cannot be added to score maps of 1",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_parts_that_do_not_fit_are_refused_in_one_line_that_says_what_to_do(wrong: str) -> None:
    make, message = WRONG[wrong]
    with pytest.raises(SettingsError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"setting {caught.value.field}: ")
    assert caught.value.code == ("SETTING_UNKNOWN" if "there is no" in str(caught.value) else "SETTING_INVALID")


def test_without_skips_and_scores_the_decoder_still_reaches_full_size() -> None:
    network = build("auto", width=1 / 4, scores=False, skips=False)
    assert network(noise(1, 1, 40, 24)).shape == (1, 1, 40, 24)
    assert network.fused_channels == (network.encoder.channels[-1],) * 5
    assert [tuple(fused.shape[-2:]) for fused in network.maps(noise(1, 1, 32, 32)).fused] == [
        (2, 2),
        (4, 4),
        (8, 8),
        (16, 16),
        (32, 32),
    ]


def test_a_thin_shortcut_is_the_strided_convolution() -> None:
    """Of few channels it is computed another way, with the same result."""
    from medfcn.networks.resnet import Shortcut

    thin = Shortcut(4, 6, 1, 2)
    given = noise(2, 4, 7, 10)
    with torch.no_grad():
        expected = torch.nn.functional.conv2d(given, thin.weight, thin.bias, stride=2)
        assert torch.allclose(thin(given), expected, atol=1e-6)
