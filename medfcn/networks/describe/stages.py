"""The stages of a network and their cost: parameters, multiply-adds, strides, receptive field.

The figures are counted in the network itself, built from its settings without memory for its weights.
"""

import dataclasses
import re
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import torch
from torch import nn

from medfcn.errors import SettingsError
from medfcn.networks.describe.receptive import receptive_field
from medfcn.networks.design import Design
from medfcn.networks.encoders import FlatLevel
from medfcn.networks.fcn import FCN, build_network
from medfcn.networks.presets import PRESETS, with_preset
from medfcn.networks.resnet import ResidualBlock
from medfcn.networks.upsampling import Upsample
from medfcn.settings import NetworkSettings
from medfcn.slices.sizes import stem_for, widths_for

Part = Literal["encoder", "score", "fusion", "head", "restore"]
"""The part of the network that a stage belongs to; see `FCN`."""

_LARGEST_EDGE = 16384


@dataclass(frozen=True)
class Stage:
    """A piece of a network, and the map that it gives.

    Attributes:
        part: The part of the network.
        name: The name in the paper of the design, such as `pool3`.
        made_of: Its operations in order; normalisation, ReLU and dropout are not listed.
        stride: Pixels of the slice per pixel of the map.
        channels: Channels of the map.
        size: Rows and columns of the map.
        parameters: Numbers that are learned.
        multiply_adds: Multiplications, each with an addition, for one slice.
        level: For a score or a fusion with a skip, the index of the encoder's map that goes in; else None.
        join: How a fusion meets the skip; None without a skip, and for other parts.
    """

    part: Part
    name: str
    made_of: tuple[str, ...]
    stride: int
    channels: int
    size: tuple[int, int]
    parameters: int
    multiply_adds: int
    level: int | None = None
    join: Literal["+", "concat"] | None = None


@dataclass(frozen=True)
class NetworkSummary:
    """A network for slices of one size.

    Attributes:
        name: The name of its preset.
        channels_in: Channels of the slices.
        size: Rows and columns of the slices.
        padded: The size after the padding inside the network, to whole pixels of its coarsest map.
        channels_out: Logits of a pixel.
        stages: In the order in which they run; a score comes before its fusion.
        encoder_strides: Strides of the encoder's maps, finest first.
        fused_strides: Strides of the fused maps, coarsest first; the logits come from the last.
        receptive_field: Pixels along an edge of the square that can change one logit, however large the slice is.
    """

    name: str
    channels_in: int
    size: tuple[int, int]
    padded: tuple[int, int]
    channels_out: int
    stages: tuple[Stage, ...]
    encoder_strides: tuple[int, ...]
    fused_strides: tuple[int, ...]
    receptive_field: int

    @property
    def parameters(self) -> int:
        """Numbers that are learned."""
        return sum(stage.parameters for stage in self.stages)

    @property
    def multiply_adds(self) -> int:
        """Multiplications, each with an addition, for one slice; see `summarise_network`."""
        return sum(stage.multiply_adds for stage in self.stages)

    @property
    def finest_stride(self) -> int:
        """Pixels of the slice per pixel of the last fused map."""
        return self.fused_strides[-1]

    @property
    def seen(self) -> tuple[int, int]:
        """Rows and columns of the slice that one logit sees at most."""
        return min(self.receptive_field, self.size[0]), min(self.receptive_field, self.size[1])

    def part(self, part: Part) -> tuple[Stage, ...]:
        """The stages of one part, in order."""
        return tuple(stage for stage in self.stages if stage.part == part)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values."""
        value = dataclasses.asdict(self)
        stages = value.pop("stages")
        totals = {name: getattr(self, name) for name in ("parameters", "multiply_adds", "finest_stride", "seen")}
        return {**value, **totals, "stages": stages}


def summarise_network(
    settings: NetworkSettings, *, size: tuple[int, int] = (256, 256), channels_in: int = 1, label_count: int = 1
) -> NetworkSummary:
    """Count the stages of the network of some settings, and the cost of one slice.

    Multiply-adds are those of convolutions, transposed convolutions and linear layers; taps that fall on padding
    count like others. Interpolation, pooling, normalisation and additions count nothing: they are few beside these.

    Args:
        settings: The network's parts; those left open are the preset's.
        size: Rows and columns of a slice. The preset `auto` has the widths and the stem of the plan for such slices.
        channels_in: Image channels times slices seen at once.
        label_count: Foreground labels.

    Raises:
        SettingsError: The parts do not fit each other.

    Example:
        >>> fcn8s = summarise_network(NetworkSettings(preset="fcn8s"), channels_in=3, label_count=20)
        >>> fcn8s.parameters, fcn8s.fused_strides, fcn8s.receptive_field
        (134489759, (32, 16, 8), 468)
    """
    chosen = with_preset(settings)
    if chosen.widths is None:
        stem = stem_for(min(size)) if chosen.stem_stride is None else chosen.stem_stride
        chosen = dataclasses.replace(chosen, stem_stride=stem, widths=widths_for(min(size), stem))
    design = Design.of(chosen, channels_in=channels_in, label_count=label_count)
    with torch.device("meta"):
        network = build_network(design).eval()
        stages = _stages(network, torch.empty(1, channels_in, *size))
    first = stages[0]
    return NetworkSummary(
        name=chosen.preset,
        channels_in=channels_in,
        size=size,
        padded=(first.size[0] * first.stride, first.size[1] * first.stride),
        channels_out=network.channels_out,
        stages=stages,
        encoder_strides=network.encoder.strides,
        fused_strides=network.fused_strides,
        receptive_field=receptive_field(chosen),
    )


def summarise_presets(*, width: float = 1.0, **slices: Any) -> tuple[NetworkSummary, ...]:
    """`summarise_network` for every preset, with `width` as the factor on its channels."""
    return tuple(summarise_network(dataclasses.replace(preset, width=width), **slices) for preset in PRESETS.values())


def slice_size(text: str) -> tuple[int, int]:
    """Rows and columns of a slice from a text such as `256x192`; one number is both.

    Raises:
        SettingsError: It is not one or two numbers from 1 to 16384.

    Example:
        >>> slice_size("256x192"), slice_size("96")
        ((256, 192), (96, 96))
    """
    match = re.fullmatch(r"\s*(\d{1,9})\s*(?:[x×]\s*(\d{1,9})\s*)?", text)
    height, width = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if min(height, width) < 1 or max(height, width) > _LARGEST_EDGE:
        raise SettingsError(
            f"size {text[:40]!r} is not one or two numbers from 1 to {_LARGEST_EDGE}; write for example 256x192",
            field="size",
        )
    return height, width


def multiply_adds_of(module: nn.Module, given: torch.Tensor, result: torch.Tensor) -> int:
    """Multiplications, each with an addition, of a layer that makes `result` from `given`; 0 for other layers.

    Example:
        >>> layer, given = nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 10, 10)
        >>> multiply_adds_of(layer, given, layer(given)) == 10 * 10 * 8 * 3 * 3 * 3
        True
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        return result.numel() * module.weight[0].numel()
    if isinstance(module, nn.ConvTranspose2d):
        return given.numel() * module.weight[0].numel()
    return 0


def _stages(network: FCN, slices: torch.Tensor) -> tuple[Stage, ...]:
    """The stages of a network, counted while it runs on slices that hold no numbers."""
    design, strides = network.design, network.encoder.strides
    names = _map_names(design, len(strides))
    shapes, multiply_adds = _counted(network, slices)

    def stage(part: Part, name: str, module: str, *, stride: int, **more: Any) -> Stage:
        found = network.get_submodule(module)
        channels, rows, columns = shapes[module]
        return Stage(
            part=part,
            name=name,
            stride=stride,
            channels=channels,
            size=(rows, columns),
            parameters=sum(weights.numel() for weights in found.parameters()),
            multiply_adds=sum(n for inner, n in multiply_adds.items() if f"{inner}.".startswith(f"{module}.")),
            **({"made_of": operations(found)} | more),
        )

    stages = [
        stage("encoder", name, f"encoder.levels.{level}", stride=strides[level]) for level, name in enumerate(names)
    ]
    # The map that each fusion joins, after the deepest one, which starts the fusion.
    levels = [len(strides) - 1]
    levels += [strides.index(stride) for stride in network.fused_strides[1:]] if design.skips else []
    scores = [
        stage("score", f"score of {names[level]}", f"scores.{step}", stride=strides[level], level=level)
        for step, level in enumerate(levels)
        if design.scores
    ]
    stages += scores[:1]
    join = "concat" if design.fusion == "concat" else "+"
    for step, stride in enumerate(network.fused_strides[1:]):
        fusion, module = network.fusions[step], f"fusions.{step}"
        raised, refined = (operations(fusion.get_submodule(part)) for part in ("upsample", "refine"))
        if not design.skips:
            stages.append(stage("fusion", "upsampling", module, stride=stride, made_of=(*raised, *refined)))
            continue
        level = levels[step + 1]
        stages += scores[step + 1 : step + 2]
        made_of = (*raised, join, *refined)
        name = f"fusion with {names[level]}"
        stages.append(stage("fusion", name, module, stride=stride, level=level, join=join, made_of=made_of))
    if not isinstance(network.head, nn.Identity):
        stages.append(stage("head", "head", "head", stride=network.fused_strides[-1]))
    if network.restore is not None:
        stages.append(stage("restore", "restore", "restore", stride=1))
    return tuple(stages)


def _counted(network: FCN, slices: torch.Tensor) -> tuple[dict[str, tuple[int, int, int]], dict[str, int]]:
    """Channels, rows and columns of the map of each module, and its own multiply-adds, by its name in the network."""
    shapes: dict[str, tuple[int, int, int]] = {}
    multiply_adds: dict[str, int] = {}

    def hook(name: str) -> Any:
        def count(module: nn.Module, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
            if isinstance(result, torch.Tensor):  # the encoder gives a list of maps
                shapes[name] = (result.shape[1], result.shape[2], result.shape[3])
                multiply_adds[name] = multiply_adds_of(module, given[0], result)

        return count

    hooks = [module.register_forward_hook(hook(name)) for name, module in network.named_modules() if name]
    with torch.inference_mode():
        network(slices)
    for each in hooks:
        each.remove()
    return shapes, multiply_adds


def _map_names(design: Design, count: int) -> tuple[str, ...]:
    """The names of the encoder's maps in the papers."""
    numbers = range(1, count + 1)
    if design.encoder == "vgg16":
        last = "fc7" if design.classifier_channels else "pool5"
        return ("conv1", *(f"pool{number}" for number in range(1, count - 1)), last)
    if design.encoder == "vgg16_blocks" or design.encoder.startswith("resnet"):
        return tuple(f"conv{number}" for number in numbers)
    if design.encoder == "pooled":
        return (*(f"level {number}" for number in range(1, count)), "pool")
    return tuple(f"level {number}" for number in numbers)


def operations(module: nn.Module) -> tuple[str, ...]:
    """The operations of a module in order, equal ones together; normalisation, ReLU and dropout are left out.

    Example:
        >>> operations(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.MaxPool2d(2)))
        ('2 × conv 3×3', 'max-pool 2×2')
    """
    runs = [(operation, len(list(run))) for operation, run in groupby(_single_operations(module))]
    return tuple(operation if count == 1 else f"{count} × {operation}" for operation, count in runs)


def _single_operations(module: nn.Module) -> list[str]:
    if isinstance(module, ResidualBlock):
        return ["bottleneck" if module.bottleneck else "basic block"]
    if isinstance(module, Upsample):
        return _upsampling(module)
    if isinstance(module, FlatLevel):
        skips = len(module.skips)
        return [*["conv 3×3"] * (1 + skips), *["skip conv 3×3"] * skips]
    if isinstance(module, nn.Conv2d):
        edge, step = module.kernel_size[0], module.stride[0]
        return [f"conv {edge}×{edge}" + (f" /{step}" if step > 1 else "")]
    if isinstance(module, nn.MaxPool2d):
        return [f"max-pool {module.kernel_size}×{module.kernel_size}"]
    return [operation for child in module.children() for operation in _single_operations(child)]


def _upsampling(module: Upsample) -> list[str]:
    factor = module.factor
    kinds = {
        "transposed": f"transposed conv {2 * factor}×{2 * factor}",
        "transposed_3x3": "transposed conv 3×3",
        "dilated": "transposed conv 4×4 dilated",
        "nearest_conv": "nearest + conv 3×3",
        "bilinear": "bilinear" if module.learned is None else "conv 1×1 + bilinear",
    }
    return [f"×{factor} {kinds[module.method]}"]
