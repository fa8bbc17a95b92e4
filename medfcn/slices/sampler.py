"""Which slices make up a training batch, and where in them the window lies.

Every batch follows from the seed and its step alone: no state is carried from step to step, so a training
resumes, repeats and spreads over workers without changing what it sees.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfcn.labels import IGNORED
from medfcn.settings import View
from medfcn.slices.slicing import margin_before, neighbours
from medfcn.slices.store import SliceStore, StoredCase

MARGIN = 1.25
"""Pixels read along each edge, as a multiple of the window and at least: what rotation and shift bring in."""


@dataclass(frozen=True)
class SliceBatch:
    """Slices as they come from the store, before augmentation: those of a whole batch, or one process's share of it.

    Attributes:
        images: `(B, C·context, H, W)` float32, zero where the region reaches beyond a slice.
        targets: `(B, H, W)` uint8: 0 for background and beyond the slice, k for the k-th label, `IGNORED`.
        cases: The case of each slice, for messages.
        views: The plane of each slice of the whole batch.
    """

    images: NDArray[np.float32]
    targets: NDArray[np.uint8]
    cases: tuple[str, ...]
    views: tuple[View, ...]


class SliceSampler:
    """Draws training batches from a store, favouring slices that hold foreground.

    Every batch holds as many slices of each view, as far as its size can be shared evenly; what is left over falls to
    the views in turn.

    Args:
        store: The prepared cases.
        window: `(H, W)` pixels that the network is trained on; batches are larger by `MARGIN` for augmentation.
        context: Neighbouring slices seen at once, odd.
        batch_size: Slices in a batch.
        foreground_share: Share of the draws that take a slice with foreground and a window around it.
        seed: Of the whole training.
    """

    def __init__(
        self,
        store: SliceStore,
        *,
        window: tuple[int, int],
        context: int,
        batch_size: int,
        foreground_share: float,
        seed: int,
    ) -> None:
        self.store = store
        # As much on either side, so that a slice that is not moved keeps its pixels instead of half-way means.
        self.region = (_region_edge(window[0]), _region_edge(window[1]))
        self.window = window
        self.context = context
        self.batch_size = batch_size
        self.foreground_share = foreground_share
        self.seed = seed
        self.views = tuple(dict.fromkeys(case.view for case in store.cases))
        self._cases = {view: [case for case in store.cases if case.view == view] for view in self.views}
        self._with_foreground = {
            view: [case for case in cases if case.label_slices] for view, cases in self._cases.items()
        }

    def batch(self, step: int, share: range | None = None) -> SliceBatch:
        """The batch of a step, the same whenever and wherever it is asked for.

        Args:
            step: From 0.
            share: Which of its slices to read; None reads all. They are the same slices in any share.
        """
        share = range(self.batch_size) if share is None else share
        random = np.random.Generator(np.random.Philox(key=[self.seed, step]))
        channels = self.store.cases[0].images.shape[1] * self.context
        images = np.zeros((len(share), channels, *self.region), dtype=np.float32)
        targets = np.zeros((len(share), *self.region), dtype=np.uint8)
        # Even shares within every batch, rather than a coin for each slice, steady the batch's statistics.
        views = tuple(self.views[(step + index) % len(self.views)] for index in range(self.batch_size))
        names: list[str] = []
        for index, view in enumerate(views[: share.stop]):
            wants_foreground = (index + 0.5) / self.batch_size < self.foreground_share and self._with_foreground[view]
            case, number, corner = self._draw(random, view, wants_foreground=bool(wants_foreground))
            if index in share:  # what comes before it is drawn, so that its own draws are the same, and not read
                self._copy(case, number, corner, images[len(names)], targets[len(names)])
                names.append(case.id)
        return SliceBatch(images=images, targets=targets, cases=tuple(names), views=views)

    def _draw(
        self, random: np.random.Generator, view: View, *, wants_foreground: bool
    ) -> tuple[StoredCase, int, tuple[int, int]]:
        """A case, one of its slices and where in it the window begins; a smaller slice lies in its middle."""
        among = self._with_foreground[view] if wants_foreground else self._cases[view]
        case = among[random.integers(len(among))]
        size = case.labels.shape[1:]
        if wants_foreground:
            slices = case.label_slices[random.integers(len(case.label_slices))]
            number = int(slices[random.integers(len(slices))])
        else:
            number = int(random.integers(len(case.labels)))
        free = [max(size[axis] - self.window[axis], 0) for axis in range(2)]
        corner = [
            float(random.uniform(0, room)) if room else -float(margin_before(size[axis], self.window[axis]))
            for axis, room in enumerate(free)
        ]
        if wants_foreground and any(free):
            drawn = np.argwhere((case.labels[number] > 0) & (case.labels[number] != IGNORED))
            pixel = drawn[random.integers(len(drawn))]
            offset = random.uniform(0.25, 0.75, 2)
            corner = [
                float(np.clip(pixel[axis] - offset[axis] * self.window[axis], 0, room)) if room else corner[axis]
                for axis, room in enumerate(free)
            ]
        return case, number, (round(corner[0]), round(corner[1]))

    def _copy(
        self,
        case: StoredCase,
        number: int,
        corner: tuple[int, int],
        image: NDArray[np.float32],
        target: NDArray[np.uint8],
    ) -> None:
        """Lay the part of a slice around a window into the zeroed arrays of one batch entry."""
        into, out_of = [], []
        for axis in range(2):
            start = corner[axis] - (self.region[axis] - self.window[axis]) // 2
            stop = start + self.region[axis]
            held_start, held_stop = max(start, 0), min(stop, case.labels.shape[1 + axis])
            out_of.append(slice(held_start, held_stop))
            into.append(slice(held_start - start, held_stop - start))
        numbers = neighbours(np.array([number]), len(case.labels), self.context)[0]
        channels = case.images.shape[1]
        for position, neighbour in enumerate(numbers):
            image[position * channels : (position + 1) * channels, into[0], into[1]] = case.images[
                neighbour, :, out_of[0], out_of[1]
            ]
        target[into[0], into[1]] = case.labels[number, out_of[0], out_of[1]]


def _region_edge(window: int) -> int:
    """Pixels read along an edge: a whole number on each side of the window."""
    return window + 2 * int(np.ceil(window * (MARGIN - 1) / 2))
