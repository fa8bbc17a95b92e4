"""The fully convolutional network: encoder → score maps at several strides → skip fusion → logits.

Source:
    Long, Shelhamer, Darrell, Fully convolutional networks for semantic segmentation, CVPR 2015. The preset `auto`
    carries the fusion on to stride 1, because an organ in a slice may be a few pixels wide.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from medfcn.errors import SettingsError
from medfcn.networks.encoders import (
    Encoder,
    flat_encoder,
    pooled_encoder,
    resnet_encoder,
    strided_encoder,
    vgg16_blocks_encoder,
    vgg16_encoder,
)
from medfcn.networks.fusion import SkipFusion
from medfcn.networks.presets import with_preset
from medfcn.networks.resnet import calm_residuals
from medfcn.networks.upsampling import Upsample
from medfcn.settings import NetworkSettings

EXPECTED_FOREGROUND = 0.1
"""Share of the pixels that the first logits of a training give to all labels together."""

Head = Literal["sigmoid", "softmax"]
"""Whether logits are each label's own, or shared out between the labels and the background."""


@dataclass(frozen=True)
class Maps:
    """What a network makes of a batch on the way to its logits.

    Attributes:
        deepest: The encoder's coarsest map.
        fused: Score maps (or decoder features), coarsest first; the last is what the logits come from.
    """

    deepest: torch.Tensor
    fused: tuple[torch.Tensor, ...]


class FCN(nn.Module):
    """A 2D fully convolutional network with skip fusion.

    Args:
        encoder: Gives feature maps, finest first, and tells their `channels` and `strides`.
        channels_out: Logits a pixel; see `channels_of_logits`.
        settings: Of a preset, with nothing left open.

    Attributes:
        fused_channels: Channels of each fused map, coarsest first.
        fused_strides: Input pixels per pixel of each.

    Raises:
        SettingsError: The decoder does not fit the encoder.
    """

    def __init__(self, encoder: Encoder, *, channels_out: int, settings: NetworkSettings) -> None:
        super().__init__()
        # Fusion that goes on to full size ends where the encoder begins.
        coarsest, finest = encoder.strides[-1], max(settings.finest_stride or 1, settings.stem_stride or 1)
        count = _step_count(encoder, finest, settings)
        skips = [encoder.strides.index(coarsest >> (step + 1)) for step in range(count)] if settings.skips else []
        score = _scaled(settings.score_channels, settings.width) if settings.score_channels else channels_out
        widths = _decoder_widths(encoder, skips, count, score, settings)
        self.encoder = encoder
        self.channels_out = channels_out
        self._finest = finest
        self._skips = tuple(skips)
        levels = [len(encoder.strides) - 1, *skips]  # the deepest first
        self.scores = nn.ModuleList(
            nn.Conv2d(encoder.channels[level], score, 1) if settings.scores else nn.Identity() for level in levels
        )
        channels = [score if settings.scores else encoder.channels[-1]]
        self.fusions = nn.ModuleList()
        for step, width in enumerate(widths):
            skip = (score if settings.scores else encoder.channels[skips[step]]) if skips else None
            fusion = SkipFusion(
                channels[-1],
                width,
                skip_channels=skip,
                activated=bool(settings.decoder_widths),
                settings=settings,
            )
            self.fusions.append(fusion)
            channels.append(fusion.channels)
        self.fused_channels = tuple(channels)
        self.fused_strides = tuple(coarsest >> step for step in range(count + 1))
        # Score maps of one channel for each class are the logits themselves.
        self.scores_are_logits = bool(settings.scores) and not settings.score_channels
        self.scores_are_logits &= not settings.refinements and all(width == channels_out for width in channels)
        kernel = settings.head_kernel or 1
        self.head: nn.Module = nn.Identity()
        if not self.scores_are_logits:
            self.head = nn.Conv2d(channels[-1], channels_out, kernel, padding=kernel // 2)
        self.restore: Upsample | None = None
        if finest > 1:
            method = settings.upsampling or "transposed"
            self.restore = Upsample(channels_out, channels_out, method=method, factor=finest)

    def maps(self, slices: torch.Tensor) -> Maps:
        """The encoder's coarsest map and every fused one, of `(N, C, H, W)` slices.

        Slices are padded with zeros at their far ends, until the coarsest map has whole pixels and at least 2×2.
        """
        padded = pad_to_multiple(slices, self.encoder.strides[-1])
        features = self.encoder(padded)
        fused = [self.scores[0](features[-1])]
        for step, fusion in enumerate(self.fusions):
            stride = self.fused_strides[step + 1]
            fine = self.scores[step + 1](features[self._skips[step]]) if self._skips else None
            fused.append(fusion(fused[-1], fine, (padded.shape[-2] // stride, padded.shape[-1] // stride)))
        return Maps(features[-1], tuple(fused))

    def logits(self, maps: Maps, size: tuple[int, int]) -> torch.Tensor:
        """`(N, channels_out, *size)` float32 logits from the last fused map."""
        logits: torch.Tensor = self.head(maps.fused[-1])
        if self.restore is not None:
            raised = (logits.shape[-2] * self._finest, logits.shape[-1] * self._finest)
            logits = self.restore(logits, raised)
        return logits[..., : size[0], : size[1]].float()

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of slices.

        Args:
            slices: `(N, C, H, W)`, any H and W from 1.

        Returns:
            `(N, channels_out, H, W)` float32 logits.
        """
        return self.logits(self.maps(slices), (slices.shape[-2], slices.shape[-1]))


def _step_count(encoder: Encoder, finest: int, settings: NetworkSettings) -> int:
    """How often the decoder doubles the resolution."""
    strides = [stride for stride in encoder.strides[:-1] if stride >= finest]
    coarsest = encoder.strides[-1]
    if finest > coarsest or (settings.skips and finest not in encoder.strides):
        raise SettingsError(
            f"setting network.finest_stride: {finest} is not a stride of the encoder's maps, which are "
            f"{', '.join(map(str, encoder.strides))}; take one of these"
        )
    count = len(strides) if settings.skips else (coarsest // finest).bit_length() - 1
    wanted = len(settings.decoder_widths or ())
    if wanted and wanted != count:
        raise SettingsError(
            f"setting network.decoder_widths: {settings.decoder_widths!r} has {wanted} numbers, from stride "
            f"{coarsest} to {finest} there are {count} steps; give as many"
        )
    return count


def _decoder_widths(
    encoder: Encoder, skips: list[int], count: int, score: int, settings: NetworkSettings
) -> list[int]:
    """Channels after each upsampling."""
    widths = [_scaled(width, settings.width) for width in settings.decoder_widths or ()]
    if not widths and settings.scores:
        return [score] * count
    if not widths:  # those of the map that each is fused with
        return [encoder.channels[level] for level in skips] or [encoder.channels[-1]] * count
    if skips and settings.fusion == "add" and set(widths) != {score}:
        raise SettingsError(
            f"setting network.decoder_widths: {settings.decoder_widths!r} make maps of {widths} channels, to which "
            f'score maps of {score} cannot be added; take () or network.fusion = "concat"'
        )
    return widths


def channels_last(network: FCN) -> FCN:
    """`network` with its weights laid out as convolutions like them best, on CPUs and GPUs alike."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch 2.13 leaves it out of its types
    return network


def pad_to_multiple(slices: torch.Tensor, multiple: int) -> torch.Tensor:
    """`slices` with zeros at the far ends, so that H and W are multiples of `multiple` and at least twice it.

    Example:
        >>> pad_to_multiple(torch.ones(1, 1, 5, 9), 4).shape
        torch.Size([1, 1, 8, 12])
    """
    height, width = slices.shape[-2:]
    target_height = max(-(-height // multiple), 2) * multiple
    target_width = max(-(-width // multiple), 2) * multiple
    if (target_height, target_width) == (height, width):
        return slices
    return functional.pad(slices, (0, target_width - width, 0, target_height - height))


def channels_of_logits(settings: NetworkSettings, label_count: int, *, overlapping: bool = False) -> int:
    """Logits a pixel: one for each label with the head `sigmoid`, one more, for the background, with `softmax`.

    Example:
        >>> [channels_of_logits(NetworkSettings(), count) for count in (1, 2)]
        [1, 3]
    """
    return label_count + (head_of(settings, label_count, overlapping=overlapping) == "softmax")


def head_of(settings: NetworkSettings, label_count: int, *, overlapping: bool = False) -> Head:
    """`sigmoid` or `softmax`; `auto` takes sigmoid for a single label or labels that overlap, softmax for several.

    Raises:
        SettingsError: Softmax is set for labels that overlap.
    """
    if overlapping and settings.head == "softmax":
        raise SettingsError(
            "setting network.head: 'softmax' lets one label hold at a time, and these labels overlap; take sigmoid "
            "or auto"
        )
    if settings.head != "auto":
        return settings.head
    return "sigmoid" if label_count == 1 or overlapping else "softmax"


def build_network(
    settings: NetworkSettings,
    *,
    widths: tuple[int, ...],
    channels_in: int,
    label_count: int,
    overlapping: bool = False,
) -> FCN:
    """The network of some settings, started at random (He) for a number of labels.

    Args:
        settings: Its parts; those left open are the preset's.
        widths: Channels of each encoder level, as the plan has them.
        channels_in: Image channels times slices seen at once.
        label_count: Foreground labels: one gives a single logit, several give one each and one for the background.
        overlapping: Whether several labels can hold at once: one logit each, and none for the background.

    Raises:
        SettingsError: The parts do not fit each other.
    """
    chosen = with_preset(dataclasses.replace(settings, widths=widths))
    encoder = build_encoder(chosen, widths=widths, channels_in=channels_in)
    channels_out = channels_of_logits(chosen, label_count, overlapping=overlapping)
    network = FCN(encoder, channels_out=channels_out, settings=chosen)
    if chosen.negative_slope:
        _let_negatives_through(network, chosen.negative_slope)
    if not next(network.parameters()).is_meta:  # an outline's come from a file; drawing them would load a compiler
        start_at_random(network, label_count=label_count)
    return network


def _let_negatives_through(network: nn.Module, slope: float) -> None:
    """Put leaky activations in the place of every ReLU.

    Source:
        Maas, Hannun, Ng, Rectifier nonlinearities improve neural network acoustic models, ICML 2013.
    """
    for module in list(network.modules()):
        for name, part in module.named_children():
            if isinstance(part, nn.ReLU):
                setattr(module, name, nn.LeakyReLU(slope, inplace=True))


def build_encoder(settings: NetworkSettings, *, widths: tuple[int, ...], channels_in: int) -> Encoder:
    """The encoder of complete settings, with the plan's widths times `settings.width`."""
    norm = settings.normalisation or "none"
    scaled = [_scaled(width, settings.width) for width in widths]
    dropout = settings.dropout or 0.0
    stem = settings.stem_stride or 1
    classifier = settings.classifier_channels or 0
    classifier = _scaled(classifier, settings.width) if classifier else 0
    builders: Mapping[str, Callable[[], Encoder]] = {
        "strided": lambda: strided_encoder(channels_in, scaled, norm, stem_stride=stem, dropout=dropout),
        "pooled": lambda: pooled_encoder(channels_in, scaled, norm, dropout=dropout),
        "flat": lambda: flat_encoder(channels_in, scaled, norm, dropout=dropout),
        "vgg16": lambda: vgg16_encoder(channels_in, scaled, norm, classifier=classifier, dropout=dropout),
        "vgg16_blocks": lambda: vgg16_blocks_encoder(channels_in, scaled, norm, dropout=dropout),
        "resnet18": lambda: resnet_encoder(channels_in, scaled, norm, depth=18, dropout=dropout),
        "resnet34": lambda: resnet_encoder(channels_in, scaled, norm, depth=34, dropout=dropout),
        "resnet50": lambda: resnet_encoder(channels_in, scaled, norm, depth=50, dropout=dropout),
    }
    return builders[str(settings.encoder)]()


def _scaled(channels: int | None, width: float) -> int:
    return max(1, round((channels or 0) * width))


def start_at_random(network: FCN, *, label_count: int) -> None:
    """He's initialisation of every convolution; upsampling starts as linear, and the first logits say background.

    Where the first logits are even, the features learn to tell the background from all labels alike, and ReLU may
    leave nothing of them where labels are: these are then never told apart. A bias that expects little foreground
    leaves them nothing of the kind to learn.

    Args:
        network: Whose last layer gives a logit for each label, or one more, first, for the background.
        label_count: Foreground labels.

    Source:
        He, Zhang, Ren, Sun, ICCV 2015. The bias: Lin, Goyal, Girshick, He, Dollár, Focal loss for dense object
        detection, ICCV 2017, section 3.3.
    """
    kept = {id(module.learned) for module in network.modules() if isinstance(module, Upsample)}
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and id(module) not in kept:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    calm_residuals(network)
    # Small first logits: the first steps do not have to undo a confident random guess.
    last = network.scores if network.scores_are_logits else [network.head]
    with torch.no_grad():
        for part in last:
            if isinstance(part, nn.Conv2d):
                part.weight.mul_(0.1)
        coarsest = last[0]
        if isinstance(coarsest, nn.Conv2d) and coarsest.bias is not None:
            coarsest.bias.copy_(_first_logits(network.channels_out, label_count))


def _first_logits(channels_out: int, label_count: int) -> torch.Tensor:
    """`(channels_out,)` logits that expect `EXPECTED_FOREGROUND` of the pixels to be of a label, of each as often.

    Example:
        >>> _first_logits(3, 2).softmax(dim=0)
        tensor([0.9000, 0.0500, 0.0500])
        >>> _first_logits(2, 2).sigmoid()
        tensor([0.0500, 0.0500])
    """
    share = EXPECTED_FOREGROUND / label_count
    if channels_out == label_count:
        return torch.full((label_count,), math.log(share / (1 - share)))
    logits = torch.tensor([1 - EXPECTED_FOREGROUND] + [share] * label_count).log()
    return logits - logits.mean()
