"""Classifiers in torchvision's layout: their encoder gives what they give, and what does not fit is refused."""

import re

import pytest
import torch
from torch import nn

from medfcn.errors import ModelError
from medfcn.networks.design import Design
from medfcn.networks.encoders import Encoder, build_encoder
from medfcn.networks.fcn import build_network
from medfcn.networks.presets import with_preset
from medfcn.networks.pretrained import convolutional_kernel, encoder_weights, start_encoder
from medfcn.settings import NetworkSettings
from tests.networks.torchvision_layout import ResNet, Vgg16, filled

State = dict[str, torch.Tensor]
EIGHTH = {"width": 0.125}
"""Of the channels; the layout is the same, and a test takes a second."""


@pytest.fixture(scope="module")
def vgg16() -> Vgg16:
    return filled(Vgg16(divisor=8))


@pytest.fixture(scope="module")
def vgg16_bn() -> Vgg16:
    return filled(Vgg16(divisor=8, batch_norm=True))


def images(height: int, width: int, *, channels: int = 3, count: int = 1) -> torch.Tensor:
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(1))


def started(state: State, *, image_channels: int = 3, context: int = 1, **parts: object) -> Encoder:
    """The encoder of some settings with a state dict's weights."""
    settings = with_preset(NetworkSettings(**parts))  # type: ignore[arg-type]
    encoder = build_encoder(Design.of(settings, channels_in=image_channels * context))
    weights = encoder_weights(state, settings, source="weights.pth")
    start_encoder(encoder, weights, image_channels=image_channels, context=context)
    return encoder.eval()


CODES = {
    "give a state dict of": "WEIGHTS_UNKNOWN",
    "key is": "WEIGHTS_KEYS",
    "keys are": "WEIGHTS_KEYS",
    "NaN": "WEIGHTS_NOT_FINITE",
    "has the type": "WEIGHTS_TYPE",
}
"""The code of a refusal by words of its message; else `WEIGHTS_MISFIT`."""


def refused(state: State, match: str, **parts: object) -> str:
    settings = with_preset(NetworkSettings(**parts))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=match) as caught:
        encoder_weights(state, settings, source="weights.pth")
    text = str(caught.value)
    assert text.startswith("weights.pth: ")
    assert text.isprintable()
    assert len(text) < 400
    assert caught.value.code == next((code for words, code in CODES.items() if words in text), "WEIGHTS_MISFIT")
    return text


def fully_convolutional_logits(encoder: Encoder, last: nn.Linear, slices: torch.Tensor) -> torch.Tensor:
    """The encoder with fc6 as a valid convolution, then the classifier's last layer as a 1 × 1 one."""
    fc6 = next(
        module for module in encoder.modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (7, 7)
    )
    assert fc6.padding == (3, 3)
    fc6.padding = (0, 0)
    kernel = convolutional_kernel(last.weight, channels=last.in_features)
    logits = nn.functional.conv2d(encoder(slices)[-1], kernel, last.bias)
    fc6.padding = (3, 3)
    return logits


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    assert expected.std() > 0.05  # something to be wrong about
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "batch_norm"])
@torch.inference_mode()
def test_the_convolutionalised_network_gives_the_classifiers_logits(batch_norm: bool) -> None:
    classifier = filled(Vgg16(divisor=8, batch_norm=batch_norm))
    encoder = started(
        classifier.state_dict(), preset="fcn8s", normalisation="batch" if batch_norm else "none", **EIGHTH
    )
    slices = images(224, 224, count=2)
    logits = fully_convolutional_logits(encoder, classifier.classifier[6], slices)
    assert relative_error(logits[:, :, 0, 0], classifier(slices)) < 1e-4


@torch.inference_mode()
def test_a_classifier_of_full_width_gives_its_logits_too() -> None:
    classifier = filled(Vgg16(classes=1000))
    encoder = started(classifier.state_dict(), preset="fcn8s")
    slices = images(224, 224)
    expected = classifier(slices)
    logits = fully_convolutional_logits(encoder, classifier.classifier[6], slices)
    assert relative_error(logits[:, :, 0, 0], expected) < 1e-4


@torch.inference_mode()
def test_padded_by_three_the_middle_of_the_map_is_the_classifiers(vgg16: Vgg16) -> None:
    encoder = started(vgg16.state_dict(), preset="fcn32s", **EIGHTH)
    slices = images(224, 224)
    fc7 = encoder(slices)[-1]
    assert fc7.shape[-2:] == (7, 7)
    assert (
        relative_error(fc7[:, :, 3, 3] @ vgg16.classifier[6].weight.T + vgg16.classifier[6].bias, vgg16(slices))
        < 1e-4
    )


@torch.inference_mode()
def test_on_a_larger_image_it_is_the_head_slid_over_the_features(vgg16: Vgg16) -> None:
    encoder = started(vgg16.state_dict(), preset="fcn8s", **EIGHTH)
    slices = images(288, 352)
    features = vgg16.features(slices)
    windows = [features[..., row : row + 7, column : column + 7] for row in range(3) for column in range(5)]
    slid = torch.stack([vgg16.classifier(window.flatten(1)) for window in windows], dim=-1)
    logits = fully_convolutional_logits(encoder, vgg16.classifier[6], slices)
    assert relative_error(logits, slid.reshape(1, -1, 3, 5)) < 1e-4


@torch.inference_mode()
def test_one_channel_gives_what_the_rgb_copy_of_a_grey_image_gives(vgg16: Vgg16) -> None:
    colour = started(vgg16.state_dict(), preset="fcn8s", **EIGHTH)
    grey = started(vgg16.state_dict(), preset="fcn8s", image_channels=1, **EIGHTH)
    slices = images(96, 64, channels=1)
    for found, expected in zip(grey(slices), colour(slices.expand(-1, 3, -1, -1)), strict=True):
        assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize(("image_channels", "context"), [(1, 3), (1, 5), (2, 1), (2, 3), (3, 3)])
@torch.inference_mode()
def test_equal_slices_and_equal_channels_give_what_one_gives(vgg16: Vgg16, image_channels: int, context: int) -> None:
    """With three channels the slices are equal and the channels, which are colours, are not."""
    encoder = started(vgg16.state_dict(), preset="fcn8s", image_channels=image_channels, context=context, **EIGHTH)
    colour = started(vgg16.state_dict(), preset="fcn8s", **EIGHTH)
    one = images(64, 64, channels=3 if image_channels == 3 else 1)
    # As the sampler and the inferer lay them: slice by slice, each with all its channels.
    stack = one.repeat(1, context, 1, 1) if image_channels == 3 else one.repeat(1, context * image_channels, 1, 1)
    assert relative_error(encoder(stack)[-1], colour(one.expand(-1, 3, -1, -1))[-1]) < 1e-4


@torch.inference_mode()
def test_every_slice_of_a_stack_and_every_channel_is_looked_at(vgg16: Vgg16) -> None:
    encoder = started(vgg16.state_dict(), preset="fcn8s", image_channels=2, context=3, **EIGHTH)
    stack = images(64, 64, channels=6)
    whole = encoder(stack)[0]
    for channel in range(6):
        without = stack.clone()
        without[:, channel] = 0
        assert not torch.allclose(encoder(without)[0], whole, atol=1e-3)


@pytest.mark.parametrize("normalisation", ["none", "batch"])
@torch.inference_mode()
def test_blocks_before_their_pooling_are_the_classifiers(normalisation: str) -> None:
    classifier = filled(Vgg16(divisor=8, batch_norm=normalisation == "batch"))
    encoder = started(classifier.state_dict(), preset="vgg_concat", normalisation=normalisation, **EIGHTH)
    slices = images(64, 96)
    maps = encoder(slices)
    given, found = slices, iter(maps)
    for layer in classifier.features:
        if isinstance(layer, nn.MaxPool2d):
            assert relative_error(next(found), given) < 1e-4
        given = layer(given)
    assert next(found, None) is None


@pytest.mark.parametrize("depth", [18, 34, 50])
@torch.inference_mode()
def test_a_resnets_last_map_is_the_classifiers(depth: int) -> None:
    classifier = filled(ResNet(depth, divisor=8))
    encoder = started(classifier.state_dict(), preset=f"resnet{depth}_8s", **EIGHTH)
    slices = images(96, 128)
    maps = encoder(slices)
    assert relative_error(maps[-1], classifier.features(slices)) < 1e-4
    logits = maps[-1].mean(dim=(2, 3)) @ classifier.fc.weight.T + classifier.fc.bias
    assert relative_error(logits, classifier(slices)) < 1e-4


@torch.inference_mode()
def test_the_whole_network_starts_from_the_encoder_and_trains(vgg16_bn: Vgg16) -> None:
    settings = with_preset(NetworkSettings(preset="vgg_concat", width=0.125))
    network = build_network(Design.of(settings, label_count=2))
    weights = encoder_weights(vgg16_bn.state_dict(), settings, source="weights.pth")
    start_encoder(network.encoder, weights, image_channels=1, context=1)
    assert network.eval()(images(50, 70, channels=1)).shape == (1, 3, 50, 70)
    assert torch.equal(network.state_dict()["encoder.levels.1.1.0.weight"], vgg16_bn.features[7].weight)


def test_half_precision_is_read_as_float32_and_counters_may_be_missing(vgg16_bn: Vgg16) -> None:
    state = {key: tensor.half() for key, tensor in vgg16_bn.state_dict().items() if "num_batches_tracked" not in key}
    settings = with_preset(NetworkSettings(preset="score_decoder", width=0.125))
    tensors = encoder_weights(state, settings, source="weights.pth").tensors
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    started(state, preset="score_decoder", **EIGHTH)


def test_features_alone_are_enough_where_there_is_no_fc6(vgg16: Vgg16) -> None:
    state = {key: tensor for key, tensor in vgg16.state_dict().items() if key.startswith("features.")}
    started(state, preset="fcn8s", classifier_channels=0, **EIGHTH)
    text = refused(state, "4 keys are missing, first classifier.0.weight", preset="fcn8s", **EIGHTH)
    assert "set network.classifier_channels = 0" in text


def without(state: State, *patterns: str) -> State:
    return {key: item for key, item in state.items() if not any(re.fullmatch(each, key) for each in patterns)}


def test_missing_keys_are_counted_and_the_first_is_named(vgg16: Vgg16, vgg16_bn: Vgg16) -> None:
    state = vgg16.state_dict()
    refused(
        without(state, r"features\.28\.bias"), "1 key is missing, first features.28.bias", preset="fcn8s", **EIGHTH
    )
    refused(
        without(state, r"features\.(0|5)\..*"), "4 keys are missing, first features.0.w", preset="fcn8s", **EIGHTH
    )
    state = vgg16_bn.state_dict()
    lacking = without(state, r"features\.1\.running_var", r"features\.0\.bias")
    refused(lacking, "2 keys are missing, first features.1.running_var", preset="vgg_concat", **EIGHTH)
    state = filled(ResNet(18, divisor=8)).state_dict()
    lacking = without(state, r"layer2\.0\.downsample\.0\.weight")
    refused(lacking, "1 key is missing, first layer2.0.downsample.0.weight", preset="resnet18_8s", **EIGHTH)


def test_keys_that_nothing_knows_are_named(vgg16: Vgg16) -> None:
    odd = vgg16.state_dict() | {"attention.\x1b[31m": torch.zeros(1), "more": torch.zeros(1)}
    refused(odd, r"2 keys are not known, first attention\.\\x1b", preset="fcn8s", **EIGHTH)


def test_a_shape_that_differs_is_told_with_the_one_wanted(vgg16: Vgg16) -> None:
    state = vgg16.state_dict()
    text = refused(state, r"features.0.weight has the shape \(8, 3, 3, 3\), the encoder takes", preset="fcn8s")
    assert "(64, 3, 3, 3)" in text
    refused(state, r"\(8, 3, 3, 3\)", preset="fcn8s", widths=(4, 8, 16, 16, 16))
    refused(
        state,
        r"classifier.0.weight .* \(512, 3136\), .* \(8, 3136\)",
        preset="fcn8s",
        classifier_channels=64,
        **EIGHTH,
    )
    flat = state | {"classifier.0.weight": state["classifier.0.weight"].reshape(512, 64, 7, 7)}
    refused(flat, r"classifier.0.weight has the shape \(512, 64, 7, 7\)", preset="fcn8s", **EIGHTH)
    endless = state | {"features.0.weight": torch.zeros(1).expand(2**40, 2**20)}
    refused(endless, "features.0.weight has the shape", preset="fcn8s", **EIGHTH)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["features.10.weight", "classifier.3.bias"])
def test_weights_that_are_not_finite_are_refused(vgg16: Vgg16, key: str, value: float) -> None:
    broken = vgg16.state_dict()
    broken[key] = broken[key].clone()
    broken[key].view(-1)[-1] = value
    refused(broken, f"{key} contains NaN or infinite weights", preset="fcn8s", **EIGHTH)


def test_whole_numbers_are_no_weights(vgg16: Vgg16) -> None:
    state = vgg16.state_dict() | {"features.2.bias": torch.zeros(8, dtype=torch.int64)}
    refused(state, "features.2.bias has the type torch.int64", preset="fcn8s", **EIGHTH)


def test_another_encoder_is_told_with_the_presets_that_fit(vgg16: Vgg16, vgg16_bn: Vgg16) -> None:
    text = refused(vgg16.state_dict(), "the preset auto has the encoder strided")
    assert "take one of the presets fcn32s, fcn16s, fcn8s" in text
    text = refused(vgg16_bn.state_dict(), "contains VGG-16 with batch norm", preset="resnet18_8s")
    assert "take one of the presets vgg_concat, score_decoder" in text
    resnet = filled(ResNet(34, divisor=8)).state_dict()
    assert refused(resnet, "contains ResNet-34", preset="resnet18_8s").endswith("presets resnet34_8s")


def test_normalisation_must_be_that_of_the_file(vgg16: Vgg16, vgg16_bn: Vgg16) -> None:
    text = refused(vgg16.state_dict(), "contains VGG-16 without batch normalisation", preset="vgg_concat", **EIGHTH)
    assert "give a file of VGG-16 with batch normalisation" in text
    text = refused(vgg16_bn.state_dict(), "contains VGG-16 with batch normalisation", preset="fcn8s", **EIGHTH)
    assert text.endswith('set network.normalisation = "batch"')
    text = refused(vgg16.state_dict(), '"group"', preset="vgg_concat", normalisation="group", **EIGHTH)
    assert text.endswith('; set network.normalisation = "none"')
    resnet = filled(ResNet(18, divisor=8)).state_dict()
    text = refused(resnet, "contains ResNet-18", preset="resnet18_8s", normalisation="instance", **EIGHTH)
    assert text.endswith('set network.normalisation = "batch"')


def test_other_networks_are_not_taken_for_ones_that_fit() -> None:
    resnet152 = {f"layer{stage}.{index}.conv3.weight": torch.zeros(1) for stage in (1, 2, 3, 4) for index in range(3)}
    refused(resnet152, "a ResNet of 3, 3, 3, 3 bottleneck blocks", preset="resnet50_8s")
    basic50 = filled(ResNet(18, divisor=8, blocks=(3, 4, 6, 4))).state_dict()
    refused(basic50, "a ResNet of 3, 4, 6, 4 basic blocks", preset="resnet34_8s")
    alexnet = {"features.0.weight": torch.zeros(4, 3, 11, 11), "features.3.weight": torch.zeros(4, 4, 5, 5)}
    refused(alexnet, "not VGG-16, which has no convolution features.3.weight", preset="fcn8s")
    vgg19 = filled(Vgg16(divisor=64)).state_dict() | {"features.16.weight": torch.zeros(8, 8, 3, 3)}
    refused(vgg19, "no convolution features.16.weight", preset="fcn8s")
    refused({"module.conv1.weight": torch.zeros(1)}, "its first key is module.conv1.weight", preset="fcn8s")
    refused({}, "it is empty", preset="fcn8s")
