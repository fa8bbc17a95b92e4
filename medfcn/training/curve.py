"""The curve of a training: Dice on a few validation slices, often and cheaply. Nothing is chosen by it.

A look sends about as many pixels through the network as one step of a training on whole windows does, and only
forward. There are at most three looks for every hundred steps, fewer where a look has more pixels than a step: where
one slice alone has more, and where training sees parts of slices. So all looks together take less than 3 % of the
time of the steps, on any machine, and no clock decides when they are: a repetition looks after the same steps. The
network is only read, so weights and masks are those of a training without a curve.

The Dice of a look is that of slices on the network grid, all slices together. It shows the course of a training; the
Dice of a validation is of whole volumes on their own grid. The cases take turns at the labels: a mean that lacked one
would be that of the labels that are learned first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medfcn.evaluation.overlap import count_labels
from medfcn.inference.decide import decide
from medfcn.inference.model import Model
from medfcn.labels import IGNORED, LabelMap
from medfcn.labels.partial_labels import Drawn
from medfcn.networks.sliding import tile_of
from medfcn.settings import View
from medfcn.slices.case_slices import to_network
from medfcn.slices.plan import Plan
from medfcn.slices.preprocess import grid_of
from medfcn.slices.slicing import VIEW_AXIS, in_plane_axes
from medfcn.training.prepare import Prepared
from medfcn.training.validation import ScoredCase, mean_of

_CASES_MOST = 8
"""Cases of a look; more make each look at fewer slices."""
_SLICES_LEAST = 3
"""Slices of a case in a look, while there are several cases."""


@dataclass(frozen=True)
class Block:
    """Neighbouring slices of a validation case: those with most of the labels whose turn it is.

    Attributes:
        image: `(C, r, a, s)` input of the network; at both ends the neighbours that the network sees beside.
        reference: `(r, a, s)` indices of labels or overlaps, of the slices between.
        margin: Slices of `image` at either end that `reference` lacks.
        drawn: The indices of the labels that a reader drew in the case; empty where all of them are.
    """

    image: NDArray[np.float32]
    reference: NDArray[np.uint8]
    margin: tuple[int, int]
    drawn: Drawn = ()


@dataclass(frozen=True)
class Look:
    """Result of one look.

    Attributes:
        dice: Mean Dice over the labels; None if no slice has one.
        of_labels: Dice of each label, in their order; nan for one that no slice and no prediction has.
        indices: `(r, a, s)` predicted indices of each block.
    """

    dice: float | None
    of_labels: tuple[float, ...]
    indices: tuple[NDArray[np.uint8], ...]


class Curve:
    """The slices of a training's looks.

    Args:
        prepared: The validation cases, the plan and the labels.
        tile_overlap: Share of a tile that its neighbour covers too, where slices are cut into tiles.

    Attributes:
        cases: The cases whose slices are looked at; none without validation cases.
        cost: The pixels of a look, at most, in those of a training step.
    """

    def __init__(self, prepared: Prepared, *, tile_overlap: float) -> None:
        plan, self.labels = prepared.plan, prepared.survey.labels
        self.view: View = plan.views[0]
        self.context, self._plan, cases = plan.context, plan, prepared.validation
        first, second = in_plane_axes(self.view)
        sizes = [(case.image.shape[1 + first], case.image.shape[1 + second]) for case in cases]
        most_pixels = plan.batch_size * math.prod(plan.window)
        largest = max((_pixels(size, plan, tile_overlap) for size in sizes), default=1)
        room = max(1, most_pixels // largest)
        count = max(1, min(len(cases), _CASES_MOST, room // (_SLICES_LEAST + plan.context - 1)))
        self.cases = tuple(cases[place * len(cases) // count] for place in range(count)) if cases else ()
        self.thickness = max(1, room // count - (plan.context - 1))
        trained_pixels = plan.batch_size * math.prod(plan.trained)  # fewer where training sees parts of slices
        self.cost = count * (self.thickness + plan.context - 1) * largest / trained_pixels

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The slices of each case; read when the first look is due, for a short training has none."""
        blocks, waiting = list[Block](), self._all_labels
        for case in self.cases:
            blocks.append(_block(case, self._plan, self.labels, self.view, self.thickness, waiting))
            waiting = waiting & ~self._held_by([blocks[-1]])
            waiting = waiting if waiting.any() else self._all_labels
        return tuple(blocks)

    @property
    def absent(self) -> tuple[str, ...]:
        """The names of the labels that none of the slices has."""
        return tuple(
            name for name, is_held in zip(self.labels.names, self._held_by(self.blocks), strict=True) if not is_held
        )

    @property
    def _all_labels(self) -> NDArray[np.bool_]:
        return np.ones(len(self.labels.entries), dtype=np.bool_)

    def _held_by(self, blocks: Sequence[Block]) -> NDArray[np.bool_]:
        """True for each label that is in the references of some blocks."""
        found = [np.unique(block.reference) for block in blocks]
        indices = np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.uint8)
        held: NDArray[np.bool_] = self.labels.membership[indices[indices != IGNORED]].any(axis=0)
        return held

    @property
    def slices(self) -> int:
        """The number of slices that are scored."""
        return sum(block.reference.shape[VIEW_AXIS[self.view]] for block in self.blocks)

    def look(self, model: Model) -> Look:
        """Score a network on the slices."""
        axis, found, model = VIEW_AXIS[self.view], [], model.looking_once
        for block in self.blocks:
            likely = model.view_probabilities(block.image, self.view, tta=False)
            stop = likely.shape[1 + axis] - block.margin[1]
            inner = likely.take(range(block.margin[0], stop), axis=1 + axis)
            found.append(decide(inner, model.rules.threshold, model.head, self.labels.members))
        return self.scored(found)

    def scored(self, found: Sequence[NDArray[np.uint8]]) -> Look:
        """The Dice of predicted indices of each block; a label is scored where it is drawn."""
        overlap = np.zeros((len(self.labels.entries), 2), dtype=np.int64)  # of each label: 2 TP, and both sizes
        is_scored = False
        for block, indices in zip(self.blocks, found, strict=True):
            labelled = (block.reference > 0) & (block.reference != IGNORED)
            is_scored = is_scored or bool(labelled.any())
            members, count = self.labels.members, len(self.labels.entries)
            for place, counts in enumerate(count_labels(block.reference, indices, labels=count, members=members)):
                if not block.drawn or place + 1 in block.drawn:
                    twice = 2 * counts.true_positives
                    overlap[place] += twice, twice + counts.false_positives + counts.false_negatives
        dices = tuple(int(twice) / int(sizes) if sizes else math.nan for twice, sizes in overlap)
        return Look(mean_of(dices) if is_scored else None, dices, tuple(found))


def _fullest(
    slices: NDArray[np.uint8], labels: LabelMap, thickness: int, waiting: NDArray[np.bool_]
) -> tuple[int, int]:
    """The first and the last (excluded) of so many slices that have most of the labels.

    First counts how many labels whose turn it is are there with half of their largest area or more, then how many
    voxels are labelled.
    """
    member = labels.membership
    known = [np.bincount(each[each != IGNORED].ravel(), minlength=len(member)) for each in slices]
    areas = np.stack(known) @ member.astype(np.int64)  # (slices, labels)
    is_large = (areas > 0) & (2 * areas >= areas.max(axis=0))
    starts = range(max(1, len(slices) - thickness + 1))
    spans = [slice(start, start + thickness) for start in starts]
    scores = [(int((is_large[span].any(axis=0) & waiting).sum()), int(areas[span].sum())) for span in spans]
    start = max(starts, key=scores.__getitem__)
    return start, min(len(slices), start + thickness)


def _pixels(size: tuple[int, int], plan: Plan, overlap: float) -> int:
    """The pixels that go through the network for a slice of a size: its own, or those of its window or its tiles."""
    height, width = map(max, size, plan.window)
    tile = tile_of((height, width), plan.window, plan.whole)
    stride = max(1e-6, 1 - overlap)
    tiles = (
        1 + math.ceil((edge - of_tile) / (stride * of_tile))
        for edge, of_tile in zip((height, width), tile, strict=True)
    )
    return math.prod(tiles) * math.prod(tile)


def _block(
    case: ScoredCase, plan: Plan, labels: LabelMap, view: View, thickness: int, waiting: NDArray[np.bool_]
) -> Block:
    """The slices of a case that have most of the labels whose turn it is."""
    axis = VIEW_AXIS[view]
    reference = to_network(case.reference(labels), grid_of(case.blank, plan), labels.members)
    start, stop = _fullest(np.moveaxis(reference, axis, 0), labels, thickness, waiting)
    count = reference.shape[axis]
    beside = plan.context // 2
    before, after = min(beside, start), min(beside, count - stop)
    return Block(
        np.ascontiguousarray(case.image.take(range(start - before, stop + after), axis=1 + axis)),
        np.ascontiguousarray(reference.take(range(start, stop), axis=axis)),
        (before, after),
        case.drawn(labels),
    )
