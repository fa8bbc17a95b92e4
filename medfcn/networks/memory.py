"""The memory that the maps of a network take, and the batches that fit a bound, in prediction and in training."""

import math

import torch
from torch import nn

from medfcn.memory import require_memory
from medfcn.networks.design import AnyDesign
from medfcn.networks.fcn import FCN, build_network
from medfcn.text import counted

_LARGEST_BYTES = 2**30
"""Memory for the maps of a batch. It is the same on every machine, so that masks are."""
_HELD_SHARE = 0.25
"""Share of a slice's maps that are in memory at once in prediction: 0.16 to 0.26 was measured in four presets, at
256×256 and 512×512."""
_TRAINED_SHARE = 0.8
"""Share of a slice's maps that a training step takes at its peak, gradients included: 0.70 to 0.75 was measured in
`auto` and `plain`, at 256×256 and 512×512."""
_LARGEST_TRAINED_BYTES = 2**32
"""Memory for the maps and gradients of a batch in training; the same on every machine, so that weights are."""
_VALUE_BYTES = 4
_FEW_PIXELS, _FEW_PIXELS_BYTES, _FEW_PIXELS_TRAINED = 2**19, 512, 1536
"""A batch of so few pixels fits with every preset (fcn8s takes 1.5 kB a pixel). It is not counted: `map_bytes` loads
torch's symbolic shapes, which takes longer than a small volume. This many bytes a pixel are then assumed, and as many
in training."""
RESERVE_BYTES = 2**25
"""Memory that a network needs besides its maps, for oneDNN's buffers and its threads. torch 2.13.0 ends the process
where it finds none: at up to 30 MB, as was measured."""


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
    with torch.device("meta"), torch.inference_mode():
        network = build_network(design).eval()
        return _counted(network, torch.empty(1, design.channels_in, *size))


def map_bytes_of(network: FCN, channels: int, size: tuple[int, int]) -> int:
    """As `map_bytes`, of a network that is in memory: its maps of the smallest slice, times the pixels.

    This loads nothing: torch's shapes without values load its compiler.

    Args:
        network: In evaluation mode.
        channels: Of a slice.
        size: Rows and columns of the slice.
    """
    stride = network.encoder.strides[-1]
    rows, columns = (max(2, math.ceil(edge / stride)) for edge in size)  # as slices are padded
    with torch.inference_mode():
        like = next(network.parameters())
        least = _counted(network, torch.zeros(1, channels, 2 * stride, 2 * stride, device=like.device))
    return least * rows * columns // 4


def _counted(network: nn.Module, slices: torch.Tensor) -> int:
    """Bytes of all maps that a network makes of some slices."""
    made: list[int] = []

    def count(module: nn.Module, given: object, result: object) -> None:
        made.append(_VALUE_BYTES * result.numel() if isinstance(result, torch.Tensor) else 0)

    hooks = [module.register_forward_hook(count) for module in network.modules() if not any(module.children())]
    try:
        network(slices)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(made)


def fitting_batch(
    wanted: int, design: AnyDesign, size: tuple[int, int], network: nn.Module | None = None
) -> tuple[int, int]:
    """The number of slices that go through a network at once: as many as wanted, or as fit into a GiB; at least one.

    Args:
        wanted: The largest number.
        design: The network.
        size: Rows and columns of the largest slice.
        network: That of the design, where it is in memory: its maps are then counted sooner.

    Returns:
        The number, and the bytes of their maps.
    """
    pixels = wanted * math.prod(size)
    if pixels <= _FEW_PIXELS:
        return wanted, pixels * _FEW_PIXELS_BYTES
    maps = map_bytes_of(network, design.channels_in, size) if isinstance(network, FCN) else map_bytes(design, size)
    each = max(1.0, _HELD_SHARE * maps)
    count = max(1, min(wanted, math.floor(_LARGEST_BYTES / each)))
    return count, math.ceil(count * each)


def require_maps(count: int, slice_bytes: int) -> None:
    """Refuse to put slices through a network where the memory for its maps is not there.

    Args:
        count: Slices at once.
        slice_bytes: Bytes of the maps of one.

    Raises:
        MemoryShortError: There is less, `RESERVE_BYTES` included.
    """
    require_memory(count * slice_bytes + RESERVE_BYTES, f"the network's maps of {counted(count, 'slice')}")


def require_weights(design: AnyDesign, *, copies: int) -> None:
    """Refuse a network whose weights do not fit into memory, before they are made.

    Args:
        design: The network.
        copies: How often the weights are in memory, as gradients and averages are.

    Raises:
        MemoryShortError: There is less.
    """
    with torch.device("meta"):
        numbers = sum(weights.numel() for weights in build_network(design).parameters())
    purpose = f"training {numbers:,} weights of the network (network.width, network.widths)"
    require_memory(copies * _VALUE_BYTES * numbers, purpose)


def trained_slice_bytes(wanted: int, design: AnyDesign, size: tuple[int, int]) -> int:
    """Bytes that a slice takes in a training step.

    Args:
        wanted: Slices of a batch.
        design: The network.
        size: Rows and columns of a slice.
    """
    if wanted * math.prod(size) <= _FEW_PIXELS:
        return math.prod(size) * _FEW_PIXELS_TRAINED
    return math.ceil(_TRAINED_SHARE * map_bytes(design, size))


def fitting_part(wanted: int, slice_bytes: int) -> int:
    """The slices of a training batch that go through the network at once; halved until they fit, at least 1.

    Args:
        wanted: Slices of a batch.
        slice_bytes: From `trained_slice_bytes`.

    Example:
        >>> fitting_part(32, 2**20), fitting_part(32, 2**28), fitting_part(32, 2**40)
        (32, 16, 1)
    """
    while wanted > 1 and wanted * slice_bytes > _LARGEST_TRAINED_BYTES:
        wanted = (wanted + 1) // 2
    return wanted
