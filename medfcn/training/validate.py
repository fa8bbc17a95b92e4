"""Scores of a network on the validation cases: whole volumes, on their own grids, as a user would get them."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from medfcn.datasets import Case
from medfcn.evaluation import ScoreTable
from medfcn.evaluation.overlap import count_labels
from medfcn.inference.model import Model
from medfcn.labels import LabelMap
from medfcn.slices.components import keep_largest
from medfcn.training.prepare import Prepared, read_case

_ONE_PART_SHARE = 0.98
"""A reference counts as one part when its largest part holds this share of it."""
_ONE_PART_CASES = 0.95
"""Share of the training references that must be one part for a label to be taken for one."""
_JUDGED_MOST = 24
"""Training cases on which that is tried."""


def mean_dice(model: Model, cases: Sequence[Case], prepared: Prepared, *, before_each: Callable[[], None]) -> float:
    """Mean Dice over cases and labels, those empty in both masks left out; 0 if all are.

    Args:
        model: What is validated.
        cases: On which.
        prepared: What they are part of.
        before_each: Called before each case; what it raises ends the validation.
    """
    dices: list[float] = []
    for case in cases:
        before_each()
        dices += dices_of(*_reference_and_prediction(model, case, prepared), prepared.survey.labels)
    return _mean(dices)


def choose_one_part(model: Model, prepared: Prepared) -> tuple[int, ...]:
    """Positions (from 1) of the labels of which only the largest connected part should be kept.

    A label qualifies when it is one part in nearly all training references, and when taking the smaller parts away
    does not lower its mean Dice on the validation cases; on training cases, where the validation cases are a fold,
    whose scores are to be those of unseen cases. `prediction.largest_part` overrides this. Of labels that
    overlap every part is kept: what is taken away from one would be taken from others too.
    """
    wanted = model.card.settings.prediction.largest_part
    labels = prepared.survey.labels
    if wanted == "always" and not labels.overlapping:
        return tuple(range(1, len(labels.entries) + 1))
    eligible = perhaps_one_part(model, prepared)
    if not eligible:
        return ()
    plain = Model(model.network, dataclasses.replace(model.card, one_part=()), device=model.device)
    before: list[list[float]] = []
    after: list[list[float]] = []
    split = prepared.split
    for case in prepared.cases(split.training[:_JUDGED_MOST] if split.fold else split.validation):
        reference, prediction = _reference_and_prediction(plain, case, prepared)
        before.append(dices_of(reference, prediction, labels))
        after.append(dices_of(reference, keep_largest(prediction, eligible), labels))
    return tuple(
        value
        for value in eligible
        if _mean(dices[value - 1] for dices in after) >= _mean(dices[value - 1] for dices in before)
    )


def perhaps_one_part(model: Model, prepared: Prepared) -> tuple[int, ...]:
    """Positions (from 1) of the labels that are one part in nearly all training references, if that is open."""
    labels = prepared.survey.labels
    if labels.overlapping or model.card.settings.prediction.largest_part != "auto":
        return ()
    shares = [prepared.survey.fingerprints[case_id].largest_shares for case_id in prepared.split.training]
    eligible = []
    for position in range(len(labels.entries)):
        present = [share[position] for share in shares if not math.isnan(share[position])]
        whole = sum(share >= _ONE_PART_SHARE for share in present)
        if present and whole >= _ONE_PART_CASES * len(present):
            eligible.append(position + 1)
    return tuple(eligible)


def never_found(table: ScoreTable) -> tuple[str, ...]:
    """A line for each label that references hold and no mask does, as after too few steps.

    Args:
        table: Scores of the validation cases.
    """
    lines = []
    for label in table.labels:
        rows = [row for row in table.rows if row.label == label]
        held = sum(row.is_miss for row in rows)
        if held and not any(row.true_positives + row.false_positives for row in rows):
            lines.append(
                f"{label}: found in none of the {len(rows)} validation cases, of which {held} "
                "hold it; train longer, with a larger --budget or more --steps"
            )
    return tuple(lines)


def _reference_and_prediction(
    model: Model, case: Case, prepared: Prepared
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Both masks of a case, as positions of the labels, or parts."""
    labels = prepared.survey.labels
    read = read_case(case, labels, prepared.survey.options)
    return read.labels, labels.written_codec.encode(model.predict(list(read.images)).array)


def dices_of(reference: NDArray[np.uint8], prediction: NDArray[np.uint8], labels: LabelMap) -> list[float]:
    """The Dice of each label of two masks of positions; nan where both are empty."""
    counts = count_labels(reference, prediction, labels=len(labels.entries), members=labels.members)
    return [of_label.dice for of_label in counts]


def _mean(scores: Iterable[float]) -> float:
    held = [score for score in scores if not math.isnan(score)]
    return float(np.mean(held)) if held else 0.0
