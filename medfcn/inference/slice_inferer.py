"""The slices of a case along a view → probabilities of the labels, some slices at a time.

Slices pass through a network in batches, and in slabs that take little memory; see `medfcn.networks.sliding`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray

from medfcn.inference.card import Card
from medfcn.inference.probabilities import between_slices, foreground
from medfcn.networks.design import Head, planned_design
from medfcn.networks.folding import folded
from medfcn.networks.memory import fitting_batch, require_maps
from medfcn.networks.network import SliceNetwork, channels_last
from medfcn.networks.own_statistics import some_slices, with_own_statistics
from medfcn.networks.sliding import (
    REACH,
    MirroredNetwork,
    Network,
    Slabs,
    Slices,
    Sliding,
    logits_in_slabs,
    stacked,
    tile_of,
)
from medfcn.networks.turned import TurnedNetwork
from medfcn.runs.arithmetic import Arithmetic
from medfcn.settings import View
from medfcn.slices.slicing import VIEW_AXIS, spread
from medfcn.slices.voxels import Ranges

_SLAB_MAP_BYTES, _SLAB_BYTES = 1 << 25, 1 << 26
"""The maps of a network, and its logits, that are in memory at once on a CPU, unless those of two slices take more.
They are the same on every machine."""
_OWN_SLICES = 8
"""Slices of each view by which a network is fitted to a volume, at most."""
_GROUP_VALUES = 1 << 21
"""Probabilities that are worked on at a time, unless one slice has more."""


def fitting_slices(card: Card, network: SliceNetwork) -> tuple[int, int]:
    """The slices that go through a model's network at once, and the bytes of their maps; see `fitting_batch`."""
    design = planned_design(card.settings.network, card.plan, card.labels)
    return fitting_batch(card.settings.prediction.batch_size, design, _reach(card, network), network)


def _reach(card: Card, network: SliceNetwork) -> tuple[int, int]:
    """Rows and columns of the largest slice that is as one of training."""
    beyond = REACH if network.takes_any_size else 1.0
    height, width = (math.ceil(beyond * edge) for edge in card.plan.window)
    return height, width


@dataclass(frozen=True)
class SliceInferer:
    """A model's network on the slices of a view.

    Attributes:
        card: That of the model.
        network: The network, in evaluation mode on `device`.
        runner: The network as a library runs it: slices to logits.
        arithmetic: That library and its precision.
        device: The device that it runs on.
        head: The way from logits to probabilities.
        batch: From `fitting_slices`.
    """

    card: Card
    network: SliceNetwork
    runner: Network
    arithmetic: Arithmetic
    device: torch.device
    head: Head
    batch: tuple[int, int]

    @property
    def _whole(self) -> float:
        """A slice up to so many times the window goes through in one piece."""
        return self.card.plan.whole if self.network.takes_any_size else 1.0

    @property
    def _reach(self) -> tuple[int, int]:
        return _reach(self.card, self.network)

    def view_slabs(
        self, slices: Slices, view: View, *, tta: bool | None = None
    ) -> Iterator[tuple[Ranges, NDArray[np.float32]]]:
        """The probabilities of one view, some slices at a time.

        Args:
            slices: Those of a case along the view.
            view: One of the views that the network was trained on.
            tta: Average over mirror images; None does as the model's settings say.

        Yields:
            A place along L, R, A and S, and the `(L, r, a, s)` float32 probabilities there. The places depend on the
            model and the case's shape alone.
        """
        plan, prediction = self.card.plan, self.card.settings.prediction
        use_tta = prediction.tta if tta is None else tta
        mirrors: list[tuple[int, ...]] = [()]
        if use_tta:
            for axis in plan.mirrored(view):
                mirrors += [(*axes, 2 + axis) for axes in mirrors]
        count, _, *size = slices.shape
        sliding = self._sliding(count, (size[0], size[1]), plan.apart_along(view))
        looking = self._fitted(slices) if plan.own_statistics and 0 not in slices.shape else self.runner
        if plan.turns:
            together = self._slab((size[0], size[1]))
            looking = TurnedNetwork(looking, angles=plan.turns, part=plan.trained, head=self.head, together=together)
        networks = [MirroredNetwork(looking, axes) for axes in mirrors]
        axis, labels = VIEW_AXIS[view], len(self.card.labels.entries)
        thickness = max(1, _GROUP_VALUES // max(1, labels * math.prod(size)))
        parts = self._seen(slices, networks, sliding, thickness)
        if sliding.apart > 1 and count:
            parts = between_slices(parts, spread(count, sliding.apart), thickness)
        for start, shares in parts:
            place = [slice(None)] * 4
            place[1 + axis] = slice(start, start + len(shares))
            yield tuple(place), stacked(shares, view)

    def _fitted(self, slices: Slices) -> Network:
        """The network with the volume's own statistics along a view; see `medfcn.networks.own_statistics`."""
        plan, (batch_size, held) = self.card.plan, self.batch
        beyond = self._beyond((slices.shape[2], slices.shape[3]))
        few = max(2, int(min(_OWN_SLICES, batch_size) / beyond))
        if self.device.type == "cpu":
            require_maps(few, math.ceil(beyond * held / batch_size))
        seen = some_slices(slices, plan.window, count=few, context=plan.context, whole=self._whole)
        tensor = torch.from_numpy(seen).to(self.device).contiguous(memory_format=torch.channels_last)
        fitted = with_own_statistics(self.network, tensor, plan.own_statistics)
        return folded(fitted) if self.arithmetic.folded else channels_last(fitted)

    def _seen(
        self, slices: Slices, networks: Sequence[Network], sliding: Sliding, thickness: int
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The mean probabilities of some networks for the slices that they see, at most so many at a time."""
        for slab, logits in logits_in_slabs(slices, networks, sliding):
            for start in range(0, slab.stop - slab.start, thickness):
                seen = (foreground(each[start : start + thickness], self.head) for each in logits)
                total: NDArray[np.float32] = reduce(np.add, seen)
                shares = total / np.float32(len(networks)) if len(networks) > 1 else total
                yield slab.start + start, shares

    def _sliding(self, count: int, size: tuple[int, int], apart: int) -> Sliding:
        """The way through some slices of a size, in slabs that take little memory."""
        plan, prediction = self.card.plan, self.card.settings.prediction
        batch_size, held = self.batch
        slab, slice_bytes = batch_size, 0
        beyond = self._beyond(size)
        if self.device.type == "cpu" or beyond > 1:
            slab = self._slab(size)
        if self.device.type == "cpu":
            slice_bytes = math.ceil(beyond * held / batch_size)
            require_maps(min(count, 2 * slab - 1, batch_size), slice_bytes)
        return Sliding(
            plan.window,
            context=plan.context,
            batch_size=batch_size,
            tile_overlap=prediction.tile_overlap,
            whole=self._whole,
            device=self.device,
            precision=self.arithmetic.precision,
            slab=slab,
            is_even=not plan.turns,  # what is looked at again follows from the slices that come together
            slice_bytes=slice_bytes,
            apart=apart,
        )

    def _beyond(self, size: tuple[int, int]) -> float:
        """How many times the pixels of `_reach` go through the network at once for a slice; 1 if they are fewer."""
        window = self.card.plan.window
        height, width = map(max, size, window)
        return max(1.0, math.prod(tile_of((height, width), window, self._whole)) / math.prod(self._reach))

    @property
    def slabs(self) -> Slabs:
        """The slices that go through the network at once on a CPU, and share a place of further looks everywhere."""
        batch_size, held = self.batch
        classes = len(self.card.labels.entries) + (self.head == "softmax")
        most = _SLAB_MAP_BYTES * batch_size // max(1, held)
        return Slabs(batch_size, most, _SLAB_BYTES // (4 * classes), max(2, most) * math.prod(self._reach))

    def _slab(self, size: tuple[int, int]) -> int:
        """Slices of a size that go through the network at once on a CPU; see `slabs`."""
        window = self.card.plan.window
        height, width = map(max, size, window)
        return self.slabs.of((height, width), tile_of((height, width), window, self._whole))
