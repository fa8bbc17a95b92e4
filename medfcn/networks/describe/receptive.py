"""The receptive field: the pixels that can change a logit, measured on a thin copy of the network."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from medfcn.networks.design import Design
from medfcn.networks.fcn import FCN, build_network
from medfcn.settings import NetworkSettings

_THINNEST = 1 / 1024
"""Factor on the channels of the copy; the field does not depend on them."""
_IMPULSES_AT_ONCE = 8


def receptive_field(settings: NetworkSettings) -> int:
    """Pixels along an edge of the square of the slice that can change one logit.

    Logits at different places between two pixels of the coarsest map have different fields; this is the largest. It
    may be larger than any slice: then a logit sees the whole slice. The statistics of a normalisation also carry
    values from one place to another; that is not counted. Every part of every network is the same along H and W, and
    so is the field.

    It is measured, not added up. A copy of the network has few channels, and each of its convolutions gives 1 where
    one of its taps is above 0, else 0. It is shown bright rows one by one: a logit is above 0 exactly where it sees
    the row.

    Args:
        settings: The network's parts; those left open are the preset's. Of the widths only their number matters.

    Raises:
        SettingsError: The parts do not fit each other, or the widths are left open.

    Example:
        >>> receptive_field(NetworkSettings(preset="plain"))
        11
    """
    network = _thin_copy(settings)
    stride = network.encoder.strides[-1]
    rows = 16 * stride
    with _one_thread():
        while (field := _field_within(network, rows)) is None:
            rows *= 2
    return field


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread of torch: to share such thin maps between threads costs more than to compute them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _thin_copy(settings: NetworkSettings) -> FCN:
    """The network with few channels, in which a pixel that is seen can only add to a logit."""
    thin = dataclasses.replace(settings, width=_THINNEST, normalisation="none", head="sigmoid")
    with torch.device("meta"):  # so that no random number of the caller is used
        network = build_network(Design.of(thin)).eval()
    network.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(lambda _module, _given, result: (result > 0).to(result.dtype))
    return network


def _field_within(network: FCN, rows: int) -> int | None:
    """The field, measured in a strip of so many rows; None if the strip is too short for it.

    The network repeats itself every `stride` rows. So bright rows of one period, in the middle of the strip, are
    enough: each logit belongs to one of `stride` kinds, and for each kind `first` and `last` collect how far, in
    rows, the first and the last bright row that it sees are from it.
    """
    stride = network.encoder.strides[-1]
    first, last = torch.full((stride,), rows), torch.full((stride,), -rows)
    middle = rows // 2 // stride * stride
    for start in range(middle, middle + stride, _IMPULSES_AT_ONCE):
        bright = torch.arange(start, min(start + _IMPULSES_AT_ONCE, middle + stride))
        strip = torch.zeros(len(bright), 1, rows, 2 * stride)  # (N, 1, H, W): one bright row in each slice
        strip[torch.arange(len(bright)), 0, bright] = 1.0
        with torch.inference_mode():
            reached = (network(strip) > 0).any(dim=3).any(dim=1)  # (N, H)
        if reached[:, 0].any() or reached[:, -1].any():
            return None
        impulse, logit = reached.nonzero(as_tuple=True)
        offsets = bright[impulse] - logit
        first.scatter_reduce_(0, logit % stride, offsets, "amin")
        last.scatter_reduce_(0, logit % stride, offsets, "amax")
    return int((last - first).max()) + 1
