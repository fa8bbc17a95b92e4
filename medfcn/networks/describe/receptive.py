"""How far a logit sees: the receptive field, measured on a thin copy of the network."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from medfcn.networks.fcn import FCN, build_network
from medfcn.networks.presets import with_preset
from medfcn.settings import NetworkSettings

_THINNEST = 1 / 1024
"""Factor on the channels of the copy: the field does not depend on them."""
_IMPULSES_AT_ONCE = 8


def receptive_field(settings: NetworkSettings, widths: tuple[int, ...]) -> int:
    """Pixels along an edge of the square of the slice that can change one logit.

    Logits at different places between two pixels of the coarsest map see differently far; this is the largest field.
    It may be larger than any slice: then a logit sees as much as there is. What a normalisation carries along in its
    statistics is not counted. Every part of every network is the same along H and W, and so is the field.

    It is measured, not added up: a copy with few channels, in which every convolution gives 1 where one of its taps
    is above 0 and else 0, is shown bright rows one by one, and gives a logit above 0 exactly where the row is seen.

    Args:
        settings: The network's parts; those left open are the preset's.
        widths: Channels of each encoder level; only their number matters.

    Raises:
        SettingsError: The parts do not fit each other.

    Example:
        >>> receptive_field(NetworkSettings(preset="plain"), (64, 64, 32, 16))
        11
    """
    network = _thin_copy(with_preset(settings), widths)
    stride = network.encoder.strides[-1]
    rows = 16 * stride
    with _one_thread():
        while (field := _field_within(network, rows)) is None:
            rows *= 2
    return field


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread of torch: sharing out such thin maps costs several times what computing them does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _thin_copy(settings: NetworkSettings, widths: tuple[int, ...]) -> FCN:
    """The network with few channels, in which what is seen can only add to a logit."""
    thin = dataclasses.replace(settings, width=_THINNEST, normalisation="none", head="sigmoid")
    with torch.device("meta"):  # nothing is drawn from the caller's random numbers
        network = build_network(thin, widths=widths, channels_in=1, label_count=1).eval()
    network.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(lambda _module, _given, result: (result > 0).to(result.dtype))
    return network


def _field_within(network: FCN, rows: int) -> int | None:
    """The field, found in a strip of so many rows; None where the strip is too short for it."""
    stride = network.encoder.strides[-1]
    first, last = torch.full((stride,), rows), torch.full((stride,), -rows)
    middle = rows // 2 // stride * stride
    for start in range(middle, middle + stride, _IMPULSES_AT_ONCE):
        bright = torch.arange(start, min(start + _IMPULSES_AT_ONCE, middle + stride))
        strip = torch.zeros(len(bright), 1, rows, 2 * stride)
        strip[torch.arange(len(bright)), 0, bright] = 1.0
        with torch.inference_mode():
            reached = (network(strip) > 0).any(dim=3).any(dim=1)
        if reached[:, 0].any() or reached[:, -1].any():
            return None
        # The network repeats itself every `stride` rows, so the impulses of one period tell of every logit.
        impulse, logit = reached.nonzero(as_tuple=True)
        offsets = bright[impulse] - logit
        first.scatter_reduce_(0, logit % stride, offsets, "amin")
        last.scatter_reduce_(0, logit % stride, offsets, "amax")
    return int((last - first).max()) + 1
