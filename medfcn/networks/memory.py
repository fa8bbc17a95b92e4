"""The memory that the maps of a network take, and the batches that fit a bound."""

import math

import torch
from torch import nn

from medfcn.networks.design import AnyDesign
from medfcn.networks.fcn import build_network

_LARGEST_BYTES = 2**30
"""Memory for the maps of a batch. It is the same on every machine, so that masks are."""
_HELD_SHARE = 0.25
"""Share of a slice's maps that are in memory at once in prediction: 0.16 to 0.26 was measured in four presets, at
256×256 and 512×512."""
_VALUE_BYTES = 4
_FEW_PIXELS, _FEW_PIXELS_BYTES = 2**19, 512
"""A batch of so few pixels fits with every preset (fcn8s takes 1.5 kB a pixel). It is not counted, as counting loads
torch's symbolic shapes, which takes longer than a small volume; this many bytes a pixel are then assumed."""


def map_bytes(design: AnyDesign, size: tuple[int, int]) -> int:
    """Bytes of all maps that a network makes of one slice; its weights take no memory here.

    Args:
        design: The network.
        size: Rows and columns of the slice.

    Example:
        >>> from medfcn.networks.design import Design
        >>> from medfcn.settings import NetworkSettings
        >>> design = Design.of(NetworkSettings(), widths=(4, 8), channels_in=1, label_count=1)
        >>> map_bytes(design, (64, 64)) == 4 * map_bytes(design, (32, 32))
        True
    """
    made: list[int] = []

    def count(module: nn.Module, given: object, result: object) -> None:
        made.append(_VALUE_BYTES * result.numel() if isinstance(result, torch.Tensor) else 0)

    with torch.device("meta"), torch.inference_mode():
        network = build_network(design).eval()
        for module in network.modules():
            if not any(module.children()):
                module.register_forward_hook(count)
        network(torch.empty(1, design.channels_in, *size))
    return sum(made)


def fitting_batch(wanted: int, design: AnyDesign, size: tuple[int, int]) -> tuple[int, int]:
    """The number of slices that go through a network at once: as many as wanted, or as fit into a GiB; at least one.

    Args:
        wanted: The largest number.
        design: The network.
        size: Rows and columns of the largest slice.

    Returns:
        The number, and the bytes of their maps.
    """
    pixels = wanted * math.prod(size)
    if pixels <= _FEW_PIXELS:
        return wanted, pixels * _FEW_PIXELS_BYTES
    each = max(1.0, _HELD_SHARE * map_bytes(design, size))
    count = max(1, min(wanted, math.floor(_LARGEST_BYTES / each)))
    return count, math.ceil(count * each)
