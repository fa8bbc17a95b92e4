"""A case on which a training chooses: its mask, and its Dice with every component and with those that may be kept."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfcn.files import make_inner_folder
from medfcn.inference.card import Card
from medfcn.inference.confidence import DoubtMeter
from medfcn.inference.model import Model
from medfcn.labels import IGNORED, LabelMap
from medfcn.slices.components import OnePart, keep_one_part, keep_together
from medfcn.slices.grid import from_stored_order
from medfcn.slices.preprocess import grid_of
from medfcn.training.prepare import Prepared
from medfcn.training.strokes import share_held
from medfcn.training.validation import Outputs, ScoredCase, decide_case, dices_of


@dataclass(frozen=True)
class Cuts:
    """The components that may be removed.

    Attributes:
        labels: Indices of the labels of which one component may be kept.
        together: True if one component of all labels together may be.
    """

    labels: tuple[int, ...]
    together: bool = False

    def __bool__(self) -> bool:
        return bool(self.labels) or self.together


@dataclass(frozen=True)
class JudgedCase:
    """The mask of a case before components of single labels are removed.

    Attributes:
        case: The case.
        whole: The mask.
        outside: Places in it, flattened, outside the component to keep of the labels that may be cut.
        removed: By index of these labels, the share of the mask that these places are.
        disputed: Those whose largest component is not the most certain one.
        soft_dice: `(L,)` Dice that the probabilities expect.
        dices: `(L,)` true Dice.
        largest: `(L,)` true Dice of masks of one component, of the labels that may be cut to it.
        held: `(L,)` share of the voxels that are rightly labelled which these masks keep; nan without any.
        held_together: `(L,)` the same, of a mask of one component of all labels together; empty if that is no choice.
        by_threshold: `(T,)` mean Dice over the labels.
        together: The same of its mask of one component of all labels together; None if that is no choice.
    """

    case: ScoredCase
    whole: OnePart
    outside: NDArray[np.intp]
    removed: Mapping[int, float]
    disputed: tuple[int, ...]
    soft_dice: list[float]
    dices: list[float]
    largest: list[float]
    held: list[float]
    held_together: list[float]
    by_threshold: tuple[float, ...]
    together: "JudgedCase | None" = None

    def cut(self, labels: tuple[int, ...]) -> OnePart:
        """The mask with some labels cut to one component; these are among those that may be."""
        kept, values = self.whole.indices.copy(), self.whole.indices.reshape(-1)[self.outside]
        kept.reshape(-1)[self.outside[np.isin(values, labels)]] = 0
        removed = {label: share for label, share in self.removed.items() if label in labels}
        part = OnePart(kept, removed, tuple(label for label in self.disputed if label in labels))
        return part.after(self.whole)


def judge_training(card: Card, model: Model, prepared: Prepared, cuts: Cuts, most: int) -> list[JudgedCase]:
    """Training cases, on which a fold chooses because its validation cases must stay unseen."""
    folder = prepared.state / "training"
    make_inner_folder(folder)
    ids = prepared.split.training[:most]
    found = prepared.survey
    cases = [ScoredCase.of(found.read(case_id), prepared.plan, folder, found.transforms) for case_id in ids]
    return judge_cases(card, Outputs(model, folder / "outputs", cases), cases, cuts, ())


def judge_cases(
    card: Card,
    outputs: Outputs,
    cases: Sequence[ScoredCase],
    cuts: Cuts,
    thresholds: tuple[float, ...],
) -> list[JudgedCase]:
    """Judge cases.

    Args:
        card: Of the network; its view weights and thresholds apply.
        outputs: Of the network, for the cases.
        cases: The cases.
        cuts: The components that may be removed.
        thresholds: Those to try; none leaves `by_threshold` empty.
    """
    model = outputs.model.with_card(dataclasses.replace(card, one_part=()))
    return [judge_case(model, outputs, case, cuts, thresholds) for case in cases]


def judge_case(
    model: Model, outputs: Outputs, case: ScoredCase, cuts: Cuts, thresholds: tuple[float, ...]
) -> JudgedCase:
    """Judge one case; see `judge_cases`."""
    card, labels = model.card, model.card.labels
    reference = case.reference(labels)
    meter = DoubtMeter(1, len(labels.entries), members=labels.members)
    tally = ThresholdTally(from_stored_order(reference, grid_of(case.blank, card.plan)), labels, thresholds)
    visit = tally.add if thresholds else None
    decided = decide_case(model, outputs, case, meter=meter, visit=visit, certainty=bool(cuts))
    soft_dice: list[float] = meter.doubt().soft_dice[0].tolist()
    by_threshold = tuple(tally.mean_dices().tolist()) if thresholds else ()

    def held(indices: NDArray[np.uint8], kept: NDArray[np.uint8]) -> list[float]:
        return [share_held(reference, indices, kept, label) for label in range(1, len(labels.entries) + 1)]

    def judged(whole: OnePart, together: JudgedCase | None = None) -> JudgedCase:
        indices, part = whole.indices, keep_one_part(whole.indices, cuts.labels, decided.certainty)
        drawn = case.drawn(labels)
        dices = dices_of(reference, indices, labels, drawn)
        return JudgedCase(
            case=case,
            whole=whole,
            outside=np.flatnonzero(indices != part.indices),
            removed=part.removed,
            disputed=part.disputed,
            soft_dice=soft_dice,
            dices=dices,
            largest=dices_of(reference, part.indices, labels, drawn) if cuts.labels else dices,
            held=held(indices, part.indices),
            held_together=[] if together is None else held(indices, together.whole.indices),
            by_threshold=by_threshold,
            together=together,
        )

    together = judged(keep_together(decided.indices, decided.certainty)) if cuts.together else None
    return judged(OnePart(decided.indices, {}), together)


class ThresholdTally:
    """Counts voxels of one case for several thresholds, slab by slab.

    Where labels overlap, each is decided alone: combinations that no overlap has are not excluded.

    Args:
        reference: Indices of labels or overlaps, with the axes of the probabilities; ignored voxels are not counted.
        labels: The labels to segment.
        thresholds: Rising.
    """

    def __init__(self, reference: NDArray[np.uint8], labels: LabelMap, thresholds: Sequence[float]) -> None:
        count = len(labels.entries)
        self._reference = reference
        self._limits = np.array(thresholds, dtype=np.float32)
        self._membership = labels.membership
        # (L, T + 1, 2): voxels by the number of thresholds that they reach, outside and inside the reference.
        self._counts = np.zeros((count, len(self._limits) + 1, 2), dtype=np.int64)
        self._reference_voxels = np.zeros(count, dtype=np.int64)

    def add(self, rows: slice, probabilities: NDArray[np.float32]) -> None:
        """Add the rows of a slab with `(L, rows, ...)` probabilities."""
        reference = self._reference[rows]
        known = reference != IGNORED
        indices = reference[known]
        for label, of_label in enumerate(probabilities):
            inside, values = self._membership[indices, label], of_label[known]
            found = np.flatnonzero(values >= self._limits[0])
            reached = np.searchsorted(self._limits, values[found], side="right")
            pairs = np.bincount(2 * reached + inside[found], minlength=2 * len(self._limits) + 2)
            self._counts[label] += pairs.reshape(-1, 2)
            self._reference_voxels[label] += np.count_nonzero(inside)

    def mean_dices(self) -> NDArray[np.float64]:
        """`(T,)` mean Dice over the labels; a label that is empty in both masks counts as 1."""
        above = self._counts[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]  # (L, T, 2)
        sizes = above.sum(axis=2) + self._reference_voxels[:, None]
        dices: NDArray[np.float64] = np.where(sizes > 0, 2 * above[..., 1] / np.maximum(sizes, 1), 1.0).mean(axis=0)
        return dices
