"""Choices at the end of a training: the weights of views, the components to keep, the threshold.

Everything follows from the network's probabilities for the validation cases (`Outputs`). If these cases are a fold,
nothing is chosen on them here: the numbers that are kept choose for the mean of all folds, and say what Dice to
expect of its masks (`medfcn.training.held_out`, `medfcn.inference.postprocessing`).
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from medfcn.inference.card import Card
from medfcn.inference.model import Model
from medfcn.inference.postprocessing import best_threshold, is_no_loss, is_no_loss_together
from medfcn.training.held_out import held_out_numbers, label_pairs, open_thresholds, rounded_pairs, together_pairs
from medfcn.training.judged_case import Cuts, JudgedCase, judge_cases, judge_training
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
from medfcn.training.strokes import are_strokes_held
from medfcn.training.validation import Outputs
from medfcn.training.view_weights import choose_view_weights
from medfcn.volumes import Volume

JUDGED_MOST = 24
"""Most training cases on which a fold chooses the components to keep."""
_JUDGED_FOR_STROKES = 8
"""Most training cases on which strokes choose them, beside the validation cases, which may be few."""


@dataclass(frozen=True)
class Settled:
    """A finished model and its masks.

    Attributes:
        card: With everything that the validation cases chose, and the numbers that are kept of them.
        masks: Of the validation cases, by id, as a user would get them.
    """

    card: Card
    masks: dict[str, Volume]


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
    cuts = Cuts(always_cut(card) or eligible, is_strokes_alone or may_be_cut_together(card, prepared))
    voxels = prepared.survey.label_voxels
    is_scored = any(sum(voxels[case.id]) for case in cases)
    if not is_fold and not labels.overlapping and is_scored:
        card = dataclasses.replace(card, view_weights=choose_view_weights(outputs, cases))
    thresholds = open_thresholds(card) if is_scored else ()
    judged = judge_cases(card, outputs, cases, cuts, thresholds)
    on_training = judged
    if is_fold and (eligible or cuts.together):
        on_training = judge_training(card, model, prepared, Cuts(eligible, cuts.together), JUDGED_MOST)
    elif by_strokes:
        open_cuts = Cuts(eligible, cuts.together)
        on_training = judged + judge_training(card, model, prepared, open_cuts, _JUDGED_FOR_STROKES)
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
    found = held_out_numbers(card, prepared, judged, eligible if is_fold else (), compared)
    threshold = None if is_fold else best_threshold([found.unseen])
    if threshold is not None:
        card = dataclasses.replace(card, threshold=threshold)
        again = judge_cases(card, outputs, cases, Cuts(cuts.labels), ())
        judged = [
            dataclasses.replace(new, by_threshold=old.by_threshold) for new, old in zip(again, judged, strict=True)
        ]
        found = held_out_numbers(card, prepared, judged, ())
    return Settled(dataclasses.replace(card, unseen=found.unseen, shapes=found.shapes), found.masks)


def _are_strokes_together(judged: Sequence[JudgedCase]) -> bool:
    """True if the strokes of each label lie in one component of all; those of one do not speak for another."""
    shares = list(zip(*(one.held_together for one in judged), strict=True))
    return bool(shares) and all(are_strokes_held(of_label) for of_label in shares)


def _is_better_together(judged: Sequence[JudgedCase]) -> bool:
    """True if one component of all labels together may be kept, does not lower the mean Dice, and no label loses.

    A gain of one label is no reason to lose another (`is_no_loss_together`). Equal Dice is enough: it is asked only
    where the references say that every label lies in that component (`may_be_cut_together`, or that strokes of each
    do), so a mask without islands here speaks neither for them nor against a cut of islands later.
    """
    by_label = tuple(label_pairs(judged, place) for place in range(len(judged[0].dices))) if judged else ()
    return is_no_loss_together(together_pairs(judged), by_label)


def _choose_components(card: Card, eligible: tuple[int, ...], judged: Sequence[JudgedCase]) -> tuple[int, ...]:
    """Indices of the labels of which only the largest component is kept.

    `prediction.largest_part` decides if it is set. Otherwise a label is cut to its largest component if it is one
    component in nearly all references (or its strokes are in one of its masks), some mask finds something of it, and
    its mean Dice does not fall.
    """
    return always_cut(card) or tuple(
        label
        for label in eligible
        if is_no_loss(rounded_pairs((case.dices[label - 1], case.largest[label - 1]) for case in judged))
    )
