"""A state dict of VGG-16 or ResNet in torchvision's key layout → the encoder of a preset.

Fully connected layers become convolutions, and the kernels of red, green and blue are folded into the image channels
that the network has. Such weights were trained on images with mean 0 and standard deviation 1 (ImageNet's, channel by
channel). medfcn feeds its networks volumes with mean 0 and standard deviation 1, so nothing is rescaled.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from medfcn.errors import ModelError
from medfcn.networks.blocks import ConvBlock
from medfcn.networks.design import Design
from medfcn.networks.encoders import VGG16_CONVOLUTIONS, Encoder, build_encoder
from medfcn.networks.presets import PRESETS
from medfcn.networks.resnet import STAGES
from medfcn.settings import NetworkSettings
from medfcn.text import counted, listed

_RGB = 3
_UNUSED = re.compile(r"(.*\.)?num_batches_tracked|classifier\..*|fc\.(weight|bias)")
"""Keys that may be there without being used: counters, and what comes after the encoder."""


@dataclass(frozen=True)
class EncoderWeights:
    """Weights with the encoder's own names and shapes; only the first kernel still has three channels.

    Attributes:
        tensors: Name to float32 tensor.
        first: The name of the kernel that sees the slices.
    """

    tensors: Mapping[str, torch.Tensor]
    first: str


@dataclass(frozen=True)
class _Architecture:
    """The network that the keys of a state dict belong to.

    Attributes:
        title: Its name, for messages.
        encoders: Names of the encoders that can take its weights.
        batch_norm: True if it has batch normalisation.
    """

    title: str
    encoders: tuple[str, ...]
    batch_norm: bool


def convolutional_kernel(weight: torch.Tensor, *, channels: int) -> torch.Tensor:
    """The convolution kernel that gives for a square map what a fully connected layer gives for the flattened map.

    Args:
        weight: `(O, channels · E · E)` of a layer that sees a `(channels, E, E)` map.
        channels: Channels of that map.

    Returns:
        `(O, channels, E, E)`.

    Source:
        Long, Shelhamer, Darrell, CVPR 2015, section 3.1.

    Example:
        >>> convolutional_kernel(torch.zeros(4096, 512 * 7 * 7), channels=512).shape
        torch.Size([4096, 512, 7, 7])
    """
    edge = round((weight.shape[1] / channels) ** 0.5)
    return weight.reshape(len(weight), channels, edge, edge)


def fold_rgb(kernel: torch.Tensor, *, image_channels: int, context: int) -> torch.Tensor:
    """The first kernel for slices of `image_channels` channels, instead of red, green and blue.

    Three image channels take the place of red, green and blue. Any other number of channels share the sum of the
    three kernels evenly: equal channels give what a grey RGB image gives. Neighbouring slices share the kernel of one
    slice: a stack of equal slices gives what the slice alone gives.

    Args:
        kernel: `(O, 3, E, E)`.
        image_channels: Channels of a volume.
        context: Slices seen at once.

    Returns:
        `(O, context · image_channels, E, E)`, slice by slice as the network gets them.

    Example:
        >>> fold_rgb(torch.ones(1, 3, 1, 1), image_channels=1, context=3).flatten().tolist()
        [1.0, 1.0, 1.0]
    """
    if image_channels != _RGB:
        kernel = kernel.sum(dim=1, keepdim=True).repeat(1, image_channels, 1, 1) / image_channels
    return kernel.repeat(1, context, 1, 1) / context


def start_encoder(encoder: Encoder, weights: EncoderWeights, *, image_channels: int, context: int) -> None:
    """Put weights into the encoder that they were converted for.

    Args:
        encoder: Its parameters and statistics are replaced.
        weights: From `encoder_weights`.
        image_channels: Channels of a volume; see `fold_rgb`.
        context: Slices seen at once.
    """
    kernel = fold_rgb(weights.tensors[weights.first], image_channels=image_channels, context=context)
    encoder.load_state_dict({**encoder.state_dict(), **weights.tensors, weights.first: kernel})


def encoder_weights(state: Mapping[str, torch.Tensor], settings: NetworkSettings, *, source: str) -> EncoderWeights:
    """Convert a state dict in torchvision's layout for the encoder of some settings.

    The classifier is left out, except VGG-16's first two layers where the encoder has them as fc6 and fc7. VGG-16 has
    biases before its batch normalisations, and medfcn has none there: they are subtracted from the running means,
    which is the same.

    Args:
        state: Key to tensor: VGG-16 without or with batch normalisation, or ResNet-18, 34 or 50.
        settings: From `with_preset`.
        source: The name of the state dict, for messages.

    Raises:
        ModelError: It is of another network, its keys or shapes are not those of the encoder, or a weight is NaN.
    """
    found = _architecture(state, source)
    _require_encoder(found, settings, source)
    with torch.device("meta"):
        encoder = build_encoder(Design.of(settings, channels_in=_RGB))
    shapes = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    keys = dict(_vgg16_keys(encoder, found) if "vgg16" in found.encoders else _resnet_keys(shapes))
    biases = {name: _bias_before(key) for name, key in keys.items() if key.startswith("features.")}
    biases = {name: key for name, key in biases.items() if name.endswith(".running_mean")}
    _require_keys(state, dict.fromkeys([*keys.values(), *biases.values()]), source)
    tensors = {}
    for name, key in keys.items():
        tensor = _checked(state[key], key, _shape_in_file(shapes[name], key), source)
        if name in biases:
            tensor = tensor - _checked(state[biases[name]], biases[name], shapes[name], source)
        is_kernel = key.startswith("classifier.") and len(shapes[name]) > 1
        tensors[name] = convolutional_kernel(tensor, channels=shapes[name][1]) if is_kernel else tensor
    return EncoderWeights(tensors, first=next(iter(keys)))


def _architecture(state: Mapping[str, torch.Tensor], source: str) -> _Architecture:
    """The network that the keys belong to; missing keys are found later."""
    if any(re.fullmatch(r"features\.\d+\.(weight|bias)", key) for key in state):
        return _vgg(state, source)
    if any(key.startswith("layer1.") for key in state):
        return _resnet(state, source)
    first = f", its first key is {next(iter(state))}" if state else ", it is empty"
    raise ModelError(
        f"{source}: neither VGG-16 (features.0.weight …) nor ResNet (layer1.0.conv1.weight …) in torchvision's key "
        f"layout{first}; give a state dict of one of these",
        code="WEIGHTS_UNKNOWN",
    )


def _vgg(state: Mapping[str, torch.Tensor], source: str) -> _Architecture:
    batch_norm = any(re.fullmatch(r"features\.\d+\.running_mean", key) for key in state)
    known = {f"features.{position}.weight" for position in _positions(batch_norm=batch_norm)}
    others = [
        key
        for key, tensor in state.items()
        if re.fullmatch(r"features\.\d+\.weight", key) and tensor.ndim == 4 and key not in known
    ]
    if others:
        raise ModelError(
            f"{source}: not VGG-16, which has no convolution {others[0]}; give a state dict of VGG-16",
            code="WEIGHTS_UNKNOWN",
            field=others[0],
        )
    title = "VGG-16 with batch normalisation" if batch_norm else "VGG-16 without batch normalisation"
    return _Architecture(title, ("vgg16", "vgg16_blocks"), batch_norm)


def _resnet(state: Mapping[str, torch.Tensor], source: str) -> _Architecture:
    blocks = [re.match(r"layer([1-4])\.(\d{1,4})\.", key) for key in state]
    stages = tuple(
        1 + max((int(block[2]) for block in blocks if block and block[1] == str(stage)), default=-1)
        for stage in range(1, 5)
    )
    is_bottleneck = any(".conv3." in key for key in state)
    for depth, counts in STAGES.items():
        if stages == counts and is_bottleneck == (depth == 50):
            return _Architecture(f"ResNet-{depth}", (f"resnet{depth}",), True)
    raise ModelError(
        f"{source}: a ResNet of {listed(stages)} {'bottleneck' if is_bottleneck else 'basic'} blocks, "
        "which is none of ResNet-18, 34 and 50; give a state dict of one of these",
        code="WEIGHTS_UNKNOWN",
    )


def _require_encoder(found: _Architecture, settings: NetworkSettings, source: str) -> None:
    """Raise ModelError if the weights are of another encoder; it names the preset or normalisation that fits."""
    wanted = "batch" if found.batch_norm else "none"
    if settings.encoder not in found.encoders:
        fits = [name for name, preset in PRESETS.items() if preset.encoder in found.encoders]
        fits.sort(key=lambda name: PRESETS[name].normalisation != wanted)
        raise ModelError(
            f"{source}: contains {found.title}, the preset {settings.preset} has the encoder {settings.encoder}; "
            f"take one of the presets {listed(fits, limit=20)}",
            code="WEIGHTS_MISFIT",
            field="network.preset",
        )
    if settings.normalisation == wanted:
        return
    advice = f'set network.normalisation = "{wanted}"'
    if settings.normalisation == "batch":
        advice = f"give a file of VGG-16 with batch normalisation, or {advice}"
    raise ModelError(
        f'{source}: contains {found.title}, the network has network.normalisation = "{settings.normalisation}"; '
        f"{advice}",
        code="WEIGHTS_MISFIT",
        field="network.normalisation",
    )


def _positions(*, batch_norm: bool) -> Iterator[int]:
    """The indices of the convolutions in VGG-16's `features`; a ReLU, perhaps a normalisation, follows each."""
    position = 0
    for count in VGG16_CONVOLUTIONS:
        for _ in range(count):
            yield position
            position += 3 if batch_norm else 2
        position += 1  # pooling


def _vgg16_keys(encoder: Encoder, found: _Architecture) -> Iterator[tuple[str, str]]:
    """The encoder's names with torchvision's, in the order of the layers."""
    blocks = [name for name, module in encoder.named_modules() if isinstance(module, ConvBlock)]
    positions = list(_positions(batch_norm=found.batch_norm))
    for block, position in zip(blocks, positions, strict=False):
        yield f"{block}.0.weight", f"features.{position}.weight"
        if not found.batch_norm:
            yield f"{block}.0.bias", f"features.{position}.bias"
            continue
        for part in ("weight", "bias", "running_mean", "running_var"):
            yield f"{block}.1.{part}", f"features.{position + 1}.{part}"
    for block, position in zip(blocks[len(positions) :], (0, 3), strict=False):
        for part in ("weight", "bias"):
            yield f"{block}.0.{part}", f"classifier.{position}.{part}"


def _bias_before(key: str) -> str:
    """The key of the bias of the convolution before a batch normalisation."""
    return f"features.{int(key.split('.')[1]) - 1}.bias"


def _resnet_keys(names: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """The encoder's names with torchvision's: `levels.0` is the stem, and `levels.1` begins with a pooling."""
    for name in names:
        if name.endswith("num_batches_tracked"):
            continue
        _, level, index, rest = name.split(".", maxsplit=3)
        if level == "0":
            yield name, f"{('conv1', 'bn1')[int(index)]}.{rest}"
        else:
            yield name, f"layer{level}.{int(index) - (level == '1')}.{rest}"


def _require_keys(state: Mapping[str, torch.Tensor], needed: Mapping[str, object], source: str) -> None:
    missing = [key for key in needed if key not in state]
    odd = [key for key in state if key not in needed and not _UNUSED.fullmatch(key)]
    wrong, what, advice = missing, "missing", "give the whole state dict"
    if not missing:
        wrong, what, advice = odd, "not known", "give a state dict in torchvision's layout"
    elif all(key.startswith("classifier.") for key in missing):
        advice += ", or set network.classifier_channels = 0 to do without fc6 and fc7"
    if wrong:
        verb = "is" if len(wrong) == 1 else "are"
        raise ModelError(
            f"{source}: {counted(len(wrong), 'key')} {verb} {what}, first {wrong[0]}; {advice}",
            code="WEIGHTS_KEYS",
            field=wrong[0],
        )


def _shape_in_file(shape: tuple[int, ...], key: str) -> tuple[int, ...]:
    """The shape in torchvision's layout of a tensor that has `shape` in the encoder."""
    if key.startswith("classifier.") and len(shape) > 1:
        return (shape[0], shape[1] * shape[2] * shape[3])
    return shape


def _checked(tensor: torch.Tensor, key: str, shape: tuple[int, ...], source: str) -> torch.Tensor:
    """The tensor as float32, where it has the shape and is finite; the shape first, which bounds the work."""
    if tuple(tensor.shape) != shape:
        raise ModelError(
            f"{source}: {key} has the shape {tuple(tensor.shape)}, the encoder takes {shape}; leave "
            "network.width, widths and classifier_channels as the preset has them",
            code="WEIGHTS_MISFIT",
            field=key,
        )
    if not tensor.is_floating_point():
        raise ModelError(
            f"{source}: {key} has the type {tensor.dtype}, expected floating point; save the weights as these",
            code="WEIGHTS_TYPE",
            field=key,
        )
    tensor = tensor.detach().float()
    if not torch.isfinite(tensor).all():
        raise ModelError(
            f"{source}: {key} contains NaN or infinite weights; get the file again",
            code="WEIGHTS_NOT_FINITE",
            field=key,
        )
    return tensor
