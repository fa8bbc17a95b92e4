"""The fully convolutional network: encoder → score maps at several strides → skip fusion → logits.

Source:
    Long, Shelhamer, Darrell, Fully convolutional networks for semantic segmentation, CVPR 2015. The preset `auto`
    continues the fusion to stride 1, because an organ in a slice may be a few pixels wide.
"""

import math
from dataclasses import dataclass
from typing import overload

import torch
from torch import nn
from torch.nn import functional

from medfcn.errors import SettingsError
from medfcn.networks.design import AnyDesign, Design, MonaiDesign, scaled_channels
from medfcn.networks.encoders import Encoder, build_encoder
from medfcn.networks.fusion import SkipFusion
from medfcn.networks.monai_nets import MonaiNetwork, window_multiple
from medfcn.networks.network import SliceNetwork
from medfcn.networks.presets import with_preset
from medfcn.networks.resnet import calm_residuals
from medfcn.networks.upsampling import Upsample, first_pixels, linear_kernel
from medfcn.settings import NetworkSettings
from medfcn.text import counted, listed

EXPECTED_FOREGROUND = 0.1
"""Share of the pixels that the first logits of a training give to all labels together."""


@dataclass(frozen=True)
class Maps:
    """The maps of a batch on the way to its logits.

    Attributes:
        deepest: The encoder's coarsest map.
        fused: Score maps (or decoder features), coarsest first; the logits come from the last.
    """

    deepest: torch.Tensor
    fused: tuple[torch.Tensor, ...]


class FCN(SliceNetwork):
    """A 2D fully convolutional network with skip fusion, not initialised yet; see `build_network`.

    Args:
        design: Its parts.

    Attributes:
        design: See above.
        channels_out: Logits of a pixel.
        fused_channels: Channels of each fused map, coarsest first.
        fused_strides: Input pixels per pixel of each.

    Raises:
        SettingsError: The decoder does not fit the encoder.
    """

    takes_any_size = True

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.design: Design = design
        self.channels_out = design.channels_out
        self.encoder = encoder = build_encoder(design)
        # Fusion that goes on to full size ends where the encoder begins.
        coarsest, finest = encoder.strides[-1], max(design.finest_stride, design.stem_stride)
        count = _step_count(encoder, finest, design)
        skips = [encoder.strides.index(coarsest >> (step + 1)) for step in range(count)] if design.skips else []
        score = design.score_channels if design.score_channels else self.channels_out
        widths = _decoder_widths(encoder, skips, count, score, design)
        self._finest = finest
        self._skips = tuple(skips)
        # The channels that the decoder sees of each encoder map.
        given = [score if design.scores else channels for channels in encoder.channels]
        levels = [len(encoder.strides) - 1, *skips]  # the deepest first
        self.scores = nn.ModuleList(
            nn.Conv2d(encoder.channels[level], score, 1) if design.scores else nn.Identity() for level in levels
        )
        channels = [given[-1]]
        self.fusions = nn.ModuleList()
        for step, width in enumerate(widths):
            skip = given[skips[step]] if skips else None
            fusion = SkipFusion(channels[-1], width, skip_channels=skip, design=design)
            self.fusions.append(fusion)
            channels.append(fusion.channels)
        self.fused_channels = tuple(channels)
        self.fused_strides = tuple(coarsest >> step for step in range(count + 1))
        # Score maps of one channel for each class are the logits themselves.
        self.scores_are_logits = design.scores and not design.score_channels and not design.refinements
        self.scores_are_logits &= all(width == self.channels_out for width in channels)
        self.head: nn.Module = nn.Identity()
        self.is_joined = finest > 1 and design.restoring == "joined"
        if self.is_joined:
            _require_joinable(design, scores_are_logits=self.scores_are_logits)
        elif not self.scores_are_logits:
            kernel = design.head_kernel
            self.head = nn.Conv2d(channels[-1], self.channels_out, kernel, padding=kernel // 2)
        self.restore: Upsample | None = None
        if finest > 1:
            method = "bilinear" if design.restoring == "bilinear" else design.upsampling
            width = channels[-1] if self.is_joined else self.channels_out
            self.restore = Upsample(width, self.channels_out, method=method, factor=finest, bias=self.is_joined)

    def maps(self, slices: torch.Tensor) -> Maps:
        """The encoder's coarsest map and every fused one, of `(N, C, H, W)` slices.

        Slices are padded with zeros at their far ends, until the coarsest map has whole pixels and at least 2×2.
        """
        return self.maps_of_padded(pad_to_multiple(slices, self.encoder.strides[-1]))

    def maps_of_padded(self, padded: torch.Tensor) -> Maps:
        """As `maps`, of slices whose edges are multiples of the coarsest stride already.

        Exporters (torch 2.13) freeze the padding at that of their example, so they take this.
        """
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
        if self.training:
            return first_pixels(logits, size)
        return logits[..., : size[0], : size[1]].float()  # exporters trace it: nothing is asked of the maps

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of slices.

        Args:
            slices: `(N, C, H, W)`, any H and W from 1.

        Returns:
            `(N, channels_out, H, W)` float32 logits.
        """
        return self.logits(self.maps(slices), (slices.shape[-2], slices.shape[-1]))


def require_joinable(design: Design) -> None:
    """Refuse to join the last two layers of a network that has no such layers: `network.restoring = "joined"`.

    Raises:
        SettingsError: It has none, or the parts of the network do not fit each other.
    """
    with torch.device("meta"):
        network = build_network(design)
    if network.restore is None:
        raise SettingsError.of(
            "network.restoring",
            "'joined' makes the logits in the step to full size, and this network's logits are at full size already; "
            "leave restoring out",
        )


def _require_joinable(design: Design, *, scores_are_logits: bool) -> None:
    """Refuse to join the last two layers of a network that does not have them in the usual form."""
    if scores_are_logits or design.head_kernel != 1 or design.upsampling != "transposed":
        raise SettingsError.of(
            "network.restoring",
            "'joined' takes the place of a head of 1×1 pixels and of a transposed convolution, and this network does "
            'not end in these; take "learned" or "bilinear"',
        )


def _step_count(encoder: Encoder, finest: int, design: Design) -> int:
    """How often the decoder doubles the resolution."""
    coarsest = encoder.strides[-1]
    if finest > coarsest or (design.skips and finest not in encoder.strides):
        raise SettingsError.of(
            "network.finest_stride",
            f"{finest} is not a stride of the encoder's maps, which are {listed(encoder.strides)}; take one of these",
        )
    count = (coarsest // finest).bit_length() - 1
    if design.decoder_widths and len(design.decoder_widths) != count:
        raise SettingsError.of(
            "network.decoder_widths",
            f"has {counted(len(design.decoder_widths), 'number')}, and from stride "
            f"{coarsest} to {finest} there are {counted(count, 'step')}; give one number for each",
        )
    return count


def _decoder_widths(encoder: Encoder, skips: list[int], count: int, score: int, design: Design) -> list[int]:
    """Channels after each upsampling."""
    widths = list(design.decoder_widths)
    if not widths and design.scores:
        return [score] * count
    if not widths:  # those of the map that each is fused with
        return [encoder.channels[level] for level in skips] or [encoder.channels[-1]] * count
    if skips and design.fusion == "add" and set(widths) != {score}:
        raise SettingsError.of(
            "network.decoder_widths",
            f"maps of {listed(widths)} channels cannot be added to score maps of "
            f'{score}; take () or network.fusion = "concat"',
        )
    return widths


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


@overload
def build_network(design: Design) -> FCN: ...
@overload
def build_network(design: AnyDesign) -> SliceNetwork: ...
def build_network(design: AnyDesign) -> SliceNetwork:
    """The network of a design, initialised at random: medfcn's own as in He et al., MONAI's as MONAI does it.

    On the device `meta` its weights have shapes and no values: those come from a file.

    Raises:
        SettingsError: The parts do not fit each other.
    """
    if isinstance(design, MonaiDesign):
        return MonaiNetwork(design)
    network = FCN(design)
    if design.negative_slope:
        _let_negatives_through(network, design.negative_slope)
    if not next(network.parameters()).is_meta:  # on `meta`, drawing random numbers would load a compiler
        start_at_random(network)
    return network


def coarsest_stride(settings: NetworkSettings) -> int | None:
    """Input pixels per pixel of the coarsest map; None where the plan's widths decide it.

    Example:
        >>> coarsest_stride(NetworkSettings(preset="fcn8s")), coarsest_stride(NetworkSettings())
        (32, None)
    """
    if settings.monai is not None:
        return window_multiple(settings)
    if with_preset(settings).widths is None:
        return None
    with torch.device("meta"):
        return build_encoder(Design.of(settings)).strides[-1]


def joinable_channels(settings: NetworkSettings) -> int | None:
    """Channels of the map from which the logits are made, where that layer and the one to full size can be one.

    None where the logits are made in another way.

    Example:
        >>> joinable_channels(NetworkSettings()), joinable_channels(NetworkSettings(preset="fcn8s"))
        (16, None)
    """
    if settings.monai is not None:
        return None
    chosen = with_preset(settings)
    last = (chosen.scores, chosen.decoder_widths, chosen.fusion, chosen.upsampling, chosen.head_kernel)
    if last != (True, (), "add", "transposed", 1):
        return None
    return scaled_channels(chosen.score_channels or 0, chosen.width) or None


def _let_negatives_through(network: nn.Module, slope: float) -> None:
    """Put leaky activations in the place of every ReLU.

    Source:
        Maas, Hannun, Ng, Rectifier nonlinearities improve neural network acoustic models, ICML 2013.
    """
    for module in list(network.modules()):
        for name, part in module.named_children():
            if isinstance(part, nn.ReLU):
                setattr(module, name, nn.LeakyReLU(slope, inplace=True))


def start_at_random(network: FCN) -> None:
    """He's initialisation of every convolution; upsampling starts as linear, and the first logits say background.

    Where the first logits are even, the features learn to tell the background from all labels alike, and ReLU may
    leave nothing of them where labels are: the labels are then never told apart. A bias that expects little
    foreground leaves the features nothing of the kind to learn.

    Args:
        network: Its last layer gives a logit for each label, or one more, first, for the background.

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
    if network.is_joined and network.restore is not None:
        _start_joined(network.restore, network)
        return
    last = network.scores if network.scores_are_logits else [network.head]
    with torch.no_grad():
        for part in last:
            if isinstance(part, nn.Conv2d):
                part.weight.mul_(0.1)
        coarsest = last[0]
        if isinstance(coarsest, nn.Conv2d) and coarsest.bias is not None:
            coarsest.bias.copy_(_first_logits(network.channels_out, network.design.label_count))


def _start_joined(restore: Upsample, network: FCN) -> None:
    """Start as a 1×1 convolution would, followed by linear interpolation; see `start_at_random`.

    The number that is added to a logit is added last, so that it is the same at the border, where interpolation
    takes what lies outside for zero.
    """
    layer = restore.learned
    if isinstance(layer, nn.ConvTranspose2d) and layer.bias is not None:
        head = nn.Conv2d(layer.in_channels, layer.out_channels, 1)
        nn.init.kaiming_normal_(head.weight, nonlinearity="relu")
        with torch.no_grad():
            layer.weight.copy_(0.1 * head.weight.transpose(0, 1) * linear_kernel("transposed", restore.factor))
            layer.bias.copy_(_first_logits(network.channels_out, network.design.label_count))


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
