"""Choices at the end of a training, and what `model.json` keeps about unseen cases.

Everything follows from the network's probabilities for the validation cases (`Outputs`). If these cases are a fold,
nothing is chosen on them here: the numbers that are kept choose for the mean of all folds, and say what Dice to
expect of its masks (`medfcn.inference.postprocessing`, `medfcn.inference.confidence`).
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from medfcn.files import make_inner_folder
from medfcn.inference.card import Card
from medfcn.inference.confidence import DoubtMeter
from medfcn.inference.held_out import Unseen, UnseenLabel
from medfcn.inference.model import Model
from medfcn.inference.postprocessing import THRESHOLDS, best_threshold, is_no_loss_together
from medfcn.inference.shapes import case_shapes, limits_of
from medfcn.labels import IGNORED, LabelMap
from medfcn.slices.components import OnePart, keep_one_part, keep_together
from medfcn.slices.grid import from_stored_order
from medfcn.slices.preprocess import grid_of
from medfcn.slices.shape import MaskShape
from medfcn.training.one_component import (
    JUDGED_CASES,
    always_cut,
    are_together,
    is_one_component,
    labels_left_to_strokes,
    may_be_cut_together,
    one_component_labels,
)
from medfcn.training.prepare import Prepared
from medfcn.training.strokes import are_strokes_held, share_held
from medfcn.training.validation import Outputs, ScoredCase, decide_case, dices_of, mean_of
from medfcn.training.view_weights import choose_view_weights
from medfcn.volumes import Volume

_DIGITS = 5
"""Decimal places of the numbers that are kept."""
JUDGED_MOST = 24
"""Training cases on which that is tried in a fold."""
_JUDGED_FOR_STROKES = 8
"""Training cases on which that is tried beside the validation cases, which may be few."""


@dataclass(frozen=True)
class Settled:
    """A finished model and its masks.

    Attributes:
        card: With everything that the validation cases chose, and the numbers that are kept of them.
        masks: Of the validation cases, by id, as a user would get them.
    """

    card: Card
    masks: dict[str, Volume]


@dataclass(frozen=True)
class _Cuts:
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
class _Judged:
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
    together: "_Judged | None" = None

    def cut(self, labels: tuple[int, ...]) -> OnePart:
        """The mask with some labels cut to one component; these are among those that may be."""
        kept, values = self.whole.indices.copy(), self.whole.indices.reshape(-1)[self.outside]
        kept.reshape(-1)[self.outside[np.isin(values, labels)]] = 0
        removed = {label: share for label, share in self.removed.items() if label in labels}
        part = OnePart(kept, removed, tuple(label for label in self.disputed if label in labels))
        return part.after(self.whole)


def settle(model: Model, prepared: Prepared, outputs: Outputs) -> Settled:
    """Choose on the validation cases, except in a fold, and make their masks.

    Args:
        model: The trained network.
        prepared: The cases and the slices that it was trained on.
        outputs: Of the network, for the validation cases.
    """
    card, cases, is_fold = model.card, prepared.validation, bool(prepared.split.fold)
    labels, by_strokes = card.labels, labels_left_to_strokes(card, prepared)
    eligible = one_component_labels(card, prepared) + by_strokes
    is_strokes_alone = 1 < len(labels.entries) == len(by_strokes)
    cuts = _Cuts(always_cut(card) or eligible, is_strokes_alone or may_be_cut_together(card, prepared))
    voxels = prepared.survey.label_voxels
    is_scored = any(sum(voxels[case.id]) for case in cases)
    if not is_fold and not labels.overlapping and is_scored:
        card = dataclasses.replace(card, view_weights=choose_view_weights(outputs, cases))
    thresholds = _open_thresholds(card) if is_scored else ()
    judged = _judge(card, outputs, cases, cuts, thresholds)
    on_training = judged
    if is_fold and (eligible or cuts.together):
        on_training = _judge_training(card, model, prepared, _Cuts(eligible, cuts.together), JUDGED_MOST)
    elif by_strokes:
        open_cuts = _Cuts(eligible, cuts.together)
        on_training = judged + _judge_training(card, model, prepared, open_cuts, _JUDGED_FOR_STROKES)
    ids = [one.case.id for one in on_training]
    if is_strokes_alone:
        is_together = _are_strokes_together(on_training)
    else:
        is_together = are_together(prepared, ids, JUDGED_CASES)
    compared = judged if is_fold and (is_together or not is_strokes_alone) else []
    if is_together and _is_better_together(on_training):
        card = dataclasses.replace(card, together=True)
        judged, on_training = ([one.together or one for one in some] for some in (judged, on_training))
    refuted = {label for label in by_strokes if not are_strokes_held(one.held[label - 1] for one in on_training)}
    eligible = tuple(label for label in eligible if label not in refuted)
    tried = tuple(
        label for label in eligible if label in by_strokes or is_one_component(label, prepared, ids, JUDGED_CASES)
    )
    card = dataclasses.replace(card, one_part=_choose_components(card, tried, on_training))
    found = _unseen(card, prepared, judged, eligible if is_fold else (), compared)
    threshold = None if is_fold else best_threshold([found.unseen])
    if threshold is not None:
        card = dataclasses.replace(card, threshold=threshold)
        again = _judge(card, outputs, cases, _Cuts(cuts.labels), ())
        judged = [
            dataclasses.replace(new, by_threshold=old.by_threshold) for new, old in zip(again, judged, strict=True)
        ]
        found = _unseen(card, prepared, judged, ())
    return Settled(dataclasses.replace(card, unseen=found.unseen, shapes=found.shapes), found.masks)


def _open_thresholds(card: Card) -> tuple[float, ...]:
    """The thresholds to try; none if the setting fixes it, or if the largest probability decides."""
    decides = len(card.labels.entries) == 1 or card.labels.overlapping
    return THRESHOLDS if decides and card.settings.prediction.threshold == "auto" else ()


def _judge_training(card: Card, model: Model, prepared: Prepared, cuts: _Cuts, most: int) -> list[_Judged]:
    """Training cases, on which a fold chooses because its validation cases must stay unseen."""
    folder = prepared.state / "training"
    make_inner_folder(folder)
    ids = prepared.split.training[:most]
    found = prepared.survey
    cases = [ScoredCase.of(found.read(case_id), prepared.plan, folder, found.transforms) for case_id in ids]
    return _judge(card, Outputs(model, folder / "outputs", cases), cases, cuts, ())


def _judge(
    card: Card,
    outputs: Outputs,
    cases: Sequence[ScoredCase],
    cuts: _Cuts,
    thresholds: tuple[float, ...],
) -> list[_Judged]:
    model = outputs.model.with_card(dataclasses.replace(card, one_part=()))
    return [_judge_case(model, outputs, case, cuts, thresholds) for case in cases]


def _judge_case(
    model: Model, outputs: Outputs, case: ScoredCase, cuts: _Cuts, thresholds: tuple[float, ...]
) -> _Judged:
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

    def judged(whole: OnePart, together: _Judged | None = None) -> _Judged:
        indices, part = whole.indices, keep_one_part(whole.indices, cuts.labels, decided.certainty)
        drawn = case.drawn(labels)
        dices = dices_of(reference, indices, labels, drawn)
        return _Judged(
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


def _together_pairs(judged: Sequence[_Judged]) -> tuple[tuple[float, float], ...]:
    """For each case the mean Dice over the labels of its whole mask, and of one component of all labels together.

    Empty if that is no choice. A case without any label counts with 0 twice: it tells nothing.
    """
    return _pairs((mean_of(one.dices), mean_of(one.together.dices)) for one in judged if one.together is not None)


def _are_strokes_together(judged: Sequence[_Judged]) -> bool:
    """True if the strokes of each label lie in one component of all; those of one do not speak for another."""
    shares = list(zip(*(one.held_together for one in judged), strict=True))
    return bool(shares) and all(are_strokes_held(of_label) for of_label in shares)


def _label_pairs(judged: Sequence[_Judged], place: int) -> tuple[tuple[float, float], ...]:
    """The same of one label, by its place; a case that lacks it has no Dice in one of its masks, or 0 twice."""
    return _pairs((one.dices[place], one.together.dices[place]) for one in judged if one.together is not None)


def _is_better_together(judged: Sequence[_Judged]) -> bool:
    """True if one component of all labels together may be kept, does not lower the mean Dice, and no label loses.

    A gain of one label is no reason to lose another (`is_no_loss_together`). Equal Dice is enough: it is asked only
    where the references say that every label lies in that component (`may_be_cut_together`, or that strokes of each
    do), so a mask without islands here speaks neither for them nor against a cut of islands later.
    """
    by_label = tuple(_label_pairs(judged, place) for place in range(len(judged[0].dices))) if judged else ()
    return is_no_loss_together(_together_pairs(judged), by_label)


def _choose_components(card: Card, eligible: tuple[int, ...], judged: Sequence[_Judged]) -> tuple[int, ...]:
    """Indices of the labels of which only the largest component is kept.

    `prediction.largest_part` decides if it is set. Otherwise a label is cut to its largest component if it is one
    component in nearly all references (or its strokes are in one of its masks), and its mean Dice does not fall.
    """
    return always_cut(card) or tuple(
        label
        for label in eligible
        if mean_of(case.largest[label - 1] for case in judged) >= mean_of(case.dices[label - 1] for case in judged)
    )


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


@dataclass(frozen=True)
class _Found:
    """The numbers of the validation cases that the card keeps, and their masks by id."""

    unseen: Unseen
    shapes: tuple[MaskShape, ...]
    masks: dict[str, Volume]


def _unseen(
    card: Card,
    prepared: Prepared,
    judged: Sequence[_Judged],
    tried: tuple[int, ...],
    compared: Sequence[_Judged] = (),
) -> _Found:
    """The numbers that the card keeps of the validation cases, and their masks.

    Cases of which less than half is labelled say nothing about a whole organ: neither its volume nor the Dice of its
    mask, nor the best threshold. That they contain a label counts, that they lack it does not.

    Args:
        card: Says of which labels one component is kept.
        prepared: The training cases.
        judged: The validation cases.
        tried: Labels for which the mean of the folds is to choose whether one component is kept.
        compared: Of the validation cases, those by which it is to choose whether one component of all is kept.
    """
    labels, masks, reached, shapes = card.labels, {}, [], []
    for one in judged:
        part = one.cut(card.one_part)
        masks[one.case.id] = one.case.as_predicted(part.indices, labels, prepared.survey.transforms)
        again = (one.case.reference(labels), part.indices, labels, one.case.drawn(labels))
        reached.append(dices_of(*again) if card.one_part else one.dices)
        shapes.append(case_shapes(part, one.case.blank, labels))
    figures, drawn = prepared.survey.fingerprints, prepared.survey.drawn
    training = [figures[case_id] for case_id in prepared.split.training]
    whole = [not figures[one.case.id].is_partly_labelled for one in judged]
    of_labels, limits = [], []
    for place in range(len(labels.entries)):
        telling = [
            case
            for case in training
            if case.label_voxels[place]
            or not (case.is_partly_labelled or place + 1 not in drawn.get(case.id, (place + 1,)))
        ]
        absent = sum(not case.label_voxels[place] for case in telling)
        volumes_ml = [
            case.label_voxels[place] * math.prod(case.spacing_mm) / 1000
            for case in training
            if case.label_voxels[place] and not case.is_partly_labelled
        ]
        logs = np.log(volumes_ml)
        reached_here = [dices[place] for dices in compress(reached, whole)]
        scores = zip((one.soft_dice[place] for one in compress(judged, whole)), reached_here, strict=True)
        components = (
            (one.dices[place], one.largest[place])
            for one in judged
            if place + 1 in tried and figures[one.case.id].label_voxels[place]
        )
        of_labels.append(
            UnseenLabel(
                scores=_pairs(scores),
                absent_share=round(absent / max(len(telling), 1), _DIGITS),
                log_ml=(float(logs.mean()), float(logs.std(ddof=1))) if len(logs) > 1 else None,
                one_part=_pairs(components),
                together=_label_pairs(compared, place),
            )
        )
        known = [case.shapes[place] for case in training if case.label_voxels[place] and not case.is_partly_labelled]
        predicted = zip(reached_here, (of_case[place] for of_case in compress(shapes, whole)), strict=True)
        limits.append(limits_of(known, [(dice, shape) for dice, shape in predicted if not math.isnan(dice)]))
    by_threshold = tuple(tuple(round(dice, _DIGITS) for dice in one.by_threshold) for one in compress(judged, whole))
    unseen = Unseen(
        tuple(of_labels), _open_thresholds(card), by_threshold if any(by_threshold) else (), _together_pairs(compared)
    )
    return _Found(unseen, tuple(limits), masks)


def _pairs(found: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """The pairs of which both are numbers."""
    return tuple((round(one, _DIGITS), round(other, _DIGITS)) for one, other in found if not math.isnan(one + other))
