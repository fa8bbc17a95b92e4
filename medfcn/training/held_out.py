"""The validation cases at the end of a training: their masks, and what `model.json` keeps of how good they are.

Where the validation cases are a fold nothing is chosen on them here: what is kept chooses for the mean of all folds,
and says what to expect of its masks (`medfcn.inference.rules`, `medfcn.inference.confidence`).
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfcn.datasets import Case
from medfcn.inference.card import Card
from medfcn.inference.held_out import Unseen, UnseenLabel
from medfcn.inference.model import Model
from medfcn.inference.rules import THRESHOLDS, best_threshold
from medfcn.labels import IGNORED, LabelMap
from medfcn.slices.components import keep_largest
from medfcn.training.prepare import Prepared, read_case
from medfcn.training.validate import dices_of, perhaps_one_part
from medfcn.volumes import Volume

_DIGITS = 5
"""Of the numbers that are kept."""


@dataclass(frozen=True)
class _Judged:
    """A validation case.

    Attributes:
        mask: As a user would get it.
        soft_dice: `(L,)` Dice that the probabilities expect.
        dices: `(L,)` true ones.
        one_part: `(L,)` Dice with all parts and with the largest alone.
        by_threshold: `(T,)` mean Dice over the labels.
    """

    mask: Volume
    soft_dice: tuple[float, ...]
    dices: tuple[float, ...]
    one_part: tuple[tuple[float, float], ...]
    by_threshold: tuple[float, ...]


def judge_unseen(model: Model, prepared: Prepared) -> tuple[Card, Mapping[str, Volume]]:
    """The masks of the validation cases, and the model's card with what they say of it.

    Outside of folds they also choose the threshold, where it is open and the gain is clear; the masks are then those
    with it.

    Args:
        model: Its card says which labels are kept in one part.
        prepared: What it was trained on.

    Returns:
        The card, and the masks by case id.
    """
    cases = prepared.cases(prepared.split.validation)
    judged = {case.id: _judge(model, case, prepared) for case in cases}
    unseen = _unseen(model, prepared, tuple(judged.values()))
    threshold = None if prepared.split.fold else best_threshold([unseen])
    if threshold is not None:
        card = dataclasses.replace(model.card, threshold=threshold)
        model = Model(model.network, card, device=model.device)
        judged = {case.id: _judge(model, case, prepared) for case in cases}
        unseen = _unseen(model, prepared, tuple(judged.values()))
    return dataclasses.replace(model.card, unseen=unseen), {case_id: one.mask for case_id, one in judged.items()}


def _judge(model: Model, case: Case, prepared: Prepared) -> _Judged:
    labels, options = prepared.survey.labels, prepared.survey.options
    read, tried = read_case(case, labels, options), perhaps_one_part(model, prepared)
    plain = Model(model.network, dataclasses.replace(model.card, one_part=()), device=model.device)
    thresholds = _open_thresholds(model.card)
    found = plain.predict_case(list(read.images), keep_probabilities=bool(thresholds))
    positions = labels.written_codec.encode(found.mask.array)
    every = dices_of(read.labels, positions, labels)
    kept = keep_largest(positions, model.card.one_part) if model.card.one_part else positions
    largest = dices_of(read.labels, keep_largest(positions, tried), labels) if tried else every
    by_threshold: tuple[float, ...] = ()
    if found.probabilities is not None:
        by_threshold = tuple(dices_by_threshold(read.labels, found.probabilities, labels, thresholds).tolist())
    return _Judged(
        mask=found.mask.with_array(labels.decode(kept)),
        soft_dice=(math.nan,) * len(every) if found.doubt is None else tuple(found.doubt.soft_dice[0].tolist()),
        dices=tuple(dices_of(read.labels, kept, labels)),
        one_part=tuple(zip(every, largest, strict=True)),
        by_threshold=by_threshold,
    )


def _open_thresholds(card: Card) -> tuple[float, ...]:
    """The thresholds to try; none where the threshold is set, or where the largest probability decides."""
    decides = len(card.labels.entries) == 1 or card.labels.overlapping
    return THRESHOLDS if decides and card.settings.prediction.threshold == "auto" else ()


def dices_by_threshold(
    reference: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    labels: LabelMap,
    thresholds: Sequence[float],
) -> NDArray[np.float64]:
    """A case's mean Dice over labels with each of some thresholds; a label that neither mask holds counts as right.

    Where labels overlap each is decided by itself: what cannot hold together is not looked at here.

    Args:
        reference: `(I, J, K)` positions of labels or parts; what it ignores counts nowhere.
        probabilities: `(L, I, J, K)`.
        labels: What is segmented.
        thresholds: Rising.

    Returns:
        `(T,)`, one for each threshold.
    """
    limits, count = np.array(thresholds, dtype=np.float32), len(labels.entries)
    known = reference != IGNORED
    drawn_parts = reference[known]
    dices = np.empty((count, len(limits)))
    for label, of_label in enumerate(probabilities):
        drawn, values = labels.membership[drawn_parts, label], of_label[known]
        # How many thresholds each voxel reaches, of those that reach any: (not drawn, drawn) by that number.
        found = np.flatnonzero(values >= limits[0])
        reached = np.searchsorted(limits, values[found], side="right")
        counts = np.bincount(2 * reached + drawn[found], minlength=2 * len(limits) + 2).reshape(-1, 2)
        above = counts[::-1].cumsum(axis=0)[::-1][1:]
        sizes = above.sum(axis=1) + np.count_nonzero(drawn)
        dices[label] = np.where(sizes > 0, 2 * above[:, 1] / np.maximum(sizes, 1), 1.0)
    mean: NDArray[np.float64] = dices.mean(axis=0)
    return mean


def _unseen(model: Model, prepared: Prepared, judged: Sequence[_Judged]) -> Unseen:
    """What the card keeps."""
    tried = perhaps_one_part(model, prepared) if prepared.split.fold else ()
    training = [prepared.survey.fingerprints[case_id] for case_id in prepared.split.training]
    of_labels = []
    for label in range(len(prepared.survey.labels.entries)):
        volumes_ml = [
            shape.label_voxels[label] * math.prod(shape.spacing_mm) / 1000
            for shape in training
            if shape.label_voxels[label]
        ]
        logs = np.log(volumes_ml)
        of_labels.append(
            UnseenLabel(
                scores=_pairs((case.soft_dice[label], case.dices[label]) for case in judged),
                absent_share=round(1 - len(volumes_ml) / len(training), _DIGITS),
                log_ml=(float(logs.mean()), float(logs.std(ddof=1))) if len(logs) > 1 else None,
                one_part=_pairs(case.one_part[label] for case in judged) if label + 1 in tried else (),
            )
        )
    by_threshold = tuple(tuple(round(dice, _DIGITS) for dice in case.by_threshold) for case in judged)
    return Unseen(tuple(of_labels), _open_thresholds(model.card), by_threshold if any(by_threshold) else ())


def _pairs(found: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Those of which both are numbers."""
    return tuple((round(one, _DIGITS), round(other, _DIGITS)) for one, other in found if not math.isnan(one + other))
