"""The numbers of unseen cases that `model.json` keeps: they judge new masks, and choose for the mean of all folds."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np

from medfcn.inference.card import Card
from medfcn.inference.held_out import Unseen, UnseenLabel
from medfcn.inference.postprocessing import THRESHOLDS
from medfcn.inference.shapes import case_shapes, limits_of
from medfcn.slices.shape import MaskShape
from medfcn.training.judged_case import JudgedCase
from medfcn.training.prepare import Prepared
from medfcn.training.validation import dices_of, mean_of
from medfcn.volumes import Volume

_DIGITS = 5
"""Decimal places of the numbers that are kept."""


def open_thresholds(card: Card) -> tuple[float, ...]:
    """The thresholds to try; none if the setting fixes it, or if the largest probability decides."""
    decides = len(card.labels.entries) == 1 or card.labels.overlapping
    return THRESHOLDS if decides and card.settings.prediction.threshold == "auto" else ()


def together_pairs(judged: Sequence[JudgedCase]) -> tuple[tuple[float, float], ...]:
    """For each case the mean Dice over the labels of its whole mask, and of one component of all labels together.

    Empty if that is no choice. A case without any label counts with 0 twice: it tells nothing.
    """
    return rounded_pairs(
        (mean_of(one.dices), mean_of(one.together.dices)) for one in judged if one.together is not None
    )


def label_pairs(judged: Sequence[JudgedCase], place: int) -> tuple[tuple[float, float], ...]:
    """The same of one label, by its place; a case that lacks it has no Dice in one of its masks, or 0 twice."""
    return rounded_pairs((one.dices[place], one.together.dices[place]) for one in judged if one.together is not None)


@dataclass(frozen=True)
class HeldOut:
    """The numbers of the validation cases that the card keeps, and their masks by id."""

    unseen: Unseen
    shapes: tuple[MaskShape, ...]
    masks: dict[str, Volume]


def held_out_numbers(
    card: Card,
    prepared: Prepared,
    judged: Sequence[JudgedCase],
    tried: tuple[int, ...],
    compared: Sequence[JudgedCase] = (),
) -> HeldOut:
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
    figures = prepared.survey.fingerprints
    whole = [not figures[one.case.id].is_partly_labelled for one in judged]
    of_labels, limits = [], []
    for place in range(len(labels.entries)):
        references = _References.of(prepared, place)
        reached_here = [dices[place] for dices in compress(reached, whole)]
        scores = zip((one.soft_dice[place] for one in compress(judged, whole)), reached_here, strict=True)
        components = (
            (one.dices[place], one.largest[place])
            for one in judged
            if place + 1 in tried and figures[one.case.id].label_voxels[place]
        )
        of_labels.append(
            UnseenLabel(
                scores=rounded_pairs(scores),
                absent_share=references.absent_share,
                log_ml=references.log_ml,
                one_part=rounded_pairs(components),
                together=label_pairs(compared, place),
            )
        )
        predicted = zip(reached_here, (of_case[place] for of_case in compress(shapes, whole)), strict=True)
        limits.append(
            limits_of(references.shapes, [(dice, shape) for dice, shape in predicted if not math.isnan(dice)])
        )
    by_threshold = tuple(tuple(round(dice, _DIGITS) for dice in one.by_threshold) for one in compress(judged, whole))
    unseen = Unseen(
        tuple(of_labels), open_thresholds(card), by_threshold if any(by_threshold) else (), together_pairs(compared)
    )
    return HeldOut(unseen, tuple(limits), masks)


@dataclass(frozen=True)
class _References:
    """One label in the training references.

    Attributes:
        absent_share: Share without the label, of the references that tell it.
        log_ml: Mean and standard deviation of the logarithm of its volume in ml; None for fewer than two.
        shapes: Of the wholly labelled references that contain it.
    """

    absent_share: float
    log_ml: tuple[float, float] | None
    shapes: list[MaskShape]

    @classmethod
    def of(cls, prepared: Prepared, place: int) -> "_References":
        """Look at the label of this place, from 0."""
        figures, drawn = prepared.survey.fingerprints, prepared.survey.drawn
        training = [figures[case_id] for case_id in prepared.split.training]
        telling = [
            case
            for case in training
            if case.label_voxels[place]
            or not (case.is_partly_labelled or place + 1 not in drawn.get(case.id, (place + 1,)))
        ]
        absent = sum(not case.label_voxels[place] for case in telling)
        known = [case for case in training if case.label_voxels[place] and not case.is_partly_labelled]
        logs = np.log([case.label_voxels[place] * math.prod(case.spacing_mm) / 1000 for case in known])
        return cls(
            absent_share=round(absent / max(len(telling), 1), _DIGITS),
            log_ml=(float(logs.mean()), float(logs.std(ddof=1))) if len(logs) > 1 else None,
            shapes=[case.shapes[place] for case in known],
        )


def rounded_pairs(found: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """The pairs of which both are numbers."""
    return tuple((round(one, _DIGITS), round(other, _DIGITS)) for one, other in found if not math.isnan(one + other))
