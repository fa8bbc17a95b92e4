"""How good a mask is without a reference: the Dice to expect, and whether a reader should look.

Three steps:

1. While a mask is decided, each network's probabilities and its own mask give the Dice that the probabilities
   themselves expect, `2 sum(p in the mask) / (sum(p) + voxels of the mask)`; what a network's views and mirror images
   disagree on has probabilities in the middle, and so lowers it. Several networks' masks also give their agreement.
2. Networks are too sure of themselves. What they expected and what they reached on cases that they had not seen
   (`Unseen`) gives a rising curve from the one to the other: a line on the logit scale, which bears ten cases.
3. A mask's expected Dice is the mean of its networks' curve values, and never more than their agreement: networks
   trained alike agree with each other at least as much as with a reader. A fold's curve is never taken from cases
   that it was trained on. No case is unseen by all folds, so that nothing can calibrate their agreement: it is only
   a bound.

Source:
    Step 1: the soft Dice confidence of Borges, Pacheco, Silva, arXiv 2402.10665, which under independent calibrated
    probabilities is within narrow bounds of the expected Dice. Agreement as a proxy of the Dice: Roy et al.,
    NeuroImage 195, 2019 (Bayesian QuickNAT); disagreement as the error to expect: Jiang et al., ICLR 2022. Step 2:
    fractional logit, Papke, Wooldridge, J. Appl. Econometrics 11, 1996.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from medfcn.inference.held_out import Unseen, UnseenLabel

_LEAST_PROBABILITY = 0.05
"""A lower probability does not count: in a large image the many voxels far away would weigh as much as the organ."""
_FEWEST_CASES = 5
"""Unseen cases of a label without which nothing is expected of its masks."""
_EMPTY_SHARE = 0.1
"""From this share of training references without a label on, a mask without it is nothing to look at."""
_FAR_SPREADS, _LEAST_SPREAD = 4.0, 0.1
"""How many standard deviations of its logarithm a volume may lie from the training's, and the least of these."""
_CLIP = 1e-4
_SLOPE_SPREAD, _SHIFT_SPREAD = 0.5, 2.0
"""Standard deviations around the curve that changes nothing, before any case is seen."""
_SLOPES = (0.1, 5.0)
"""The curve always rises, and never becomes a step."""


@dataclass(frozen=True)
class Doubt:
    """What the probabilities behind a mask say of it, uncalibrated.

    Attributes:
        soft_dice: `(models, labels)` Dice that each model's probabilities expect of its own mask; nan where that is
            empty.
        agreement: `(labels,)` Dice between the models' masks, over all pairs; nan for a single model, and where all
            are empty.
    """

    soft_dice: NDArray[np.float64]
    agreement: NDArray[np.float64]


class DoubtMeter:
    """Sums over a volume, slab by slab, what becomes its `Doubt`.

    Args:
        models: How many.
        labels: How many.
        members: `(A + 1, L)` for labels that overlap: which of them hold in each part.
    """

    def __init__(self, models: int, labels: int, *, members: NDArray[np.bool_] | None = None) -> None:
        self._members = members
        self._rows = np.eye(labels + 1, dtype=np.int64)[:, 1:] if members is None else members.astype(np.int64)
        self._inside, self._mass, self._voxels = np.zeros((3, models, labels))
        self._shared, self._both = np.zeros((2, labels))

    def add(self, probabilities: Sequence[NDArray[np.float32]], positions: Sequence[NDArray[np.uint8]]) -> None:
        """Add a slab.

        Args:
            probabilities: For each model `(L, ...)`.
            positions: For each model `(...)` labels or parts that it finds, 0 for background.
        """
        for model, (values, found) in enumerate(zip(probabilities, positions, strict=True)):
            flat, at = values.reshape(len(values), -1), np.flatnonzero(found)
            for label, of_label in enumerate(flat):
                self._mass[model, label] += of_label[of_label >= _LEAST_PROBABILITY].sum(dtype=np.float64)
            drawn = found.reshape(-1)[at]
            self._voxels[model] += np.bincount(drawn, minlength=len(self._rows)) @ self._rows
            if self._members is None:
                inside = flat[drawn.astype(np.intp) - 1, at]
                self._inside[model] += np.bincount(drawn, weights=inside, minlength=len(self._rows))[1:]
            else:
                for label, of_label in enumerate(flat):
                    self._inside[model, label] += of_label[at[self._members[drawn, label]]].sum(dtype=np.float64)
        if len(positions) > 1:
            self._compare(positions)

    def _compare(self, positions: Sequence[NDArray[np.uint8]]) -> None:
        """Count the voxels that pairs of models share, of each label."""
        at = np.flatnonzero(np.logical_or.reduce([found > 0 for found in positions]))
        count = len(self._rows)
        each = [found.reshape(-1)[at].astype(np.intp) for found in positions]
        for one, other in combinations(each, 2):
            joint = np.bincount(one * count + other, minlength=count * count).reshape(count, count)
            self._shared += 2 * np.einsum("al,ab,bl->l", self._rows, joint, self._rows)
            self._both += (joint.sum(axis=0) + joint.sum(axis=1)) @ self._rows

    def doubt(self) -> Doubt:
        """What was summed, as scores."""
        with np.errstate(invalid="ignore", divide="ignore"):
            soft = np.where(self._voxels > 0, 2 * self._inside / (self._mass + self._voxels), np.nan)
            return Doubt(np.minimum(soft, 1.0), self._shared / self._both)


@dataclass(frozen=True)
class Curve:
    """A rising map from the Dice that probabilities expect to the one that unseen cases had.

    Attributes:
        intercept: On the logit scale.
        slope: On the logit scale, above 0.
    """

    intercept: float
    slope: float

    def __call__(self, soft_dice: NDArray[np.float64]) -> NDArray[np.float64]:
        """Expected Dice, 0 to 1; nan for nan."""
        return _expit(self.intercept + self.slope * _logit(soft_dice))


def fit_curve(soft_dice: Sequence[float], dice: Sequence[float]) -> Curve:
    """The curve that fits some cases, drawn towards the one that changes nothing where they are few or alike.

    A logistic regression of fractions with two parameters: a Dice of 0 or 1 needs no clipping, and the mean of the
    expected Dice is that of the true one. How firmly the cases speak follows from how they scatter.

    Args:
        soft_dice: Of cases that were not trained on, at least one.
        dice: Of the same cases.

    Example:
        Networks that expect more than they reach:

        >>> curve = fit_curve([0.90, 0.93, 0.95, 0.96, 0.97] * 4, [0.70, 0.80, 0.85, 0.88, 0.90] * 4)
        >>> curve(np.array([0.91, 0.97])).round(2).tolist()
        [0.74, 0.91]
    """
    x, y = _logit(np.array(soft_dice)), np.array(dice)
    centre, noise = float(x.mean()), 0.05
    shift, slope = 0.0, 1.0
    for _ in range(3):
        shift, slope = _penalised(x - centre, y, centre, noise)
        expected = _expit(centre + shift + slope * (x - centre))
        noise = float(np.clip(np.mean((y - expected) ** 2 / (expected * (1 - expected))), 1e-3, 1.0))
    if not _SLOPES[0] <= slope <= _SLOPES[1]:
        slope = float(np.clip(slope, *_SLOPES))
        shift, _ = _penalised(x - centre, y, centre, noise, slope=slope)
    return Curve(intercept=centre + shift - slope * centre, slope=slope)


def _penalised(
    x: NDArray[np.float64], y: NDArray[np.float64], centre: float, noise: float, *, slope: float | None = None
) -> tuple[float, float]:
    """Shift and slope of the most probable line, by Newton's method with halved steps; a given slope is kept."""
    design = np.stack([np.ones_like(x), x], axis=1)
    before = np.array([0.0, 1.0])
    weight = noise / np.array([_SHIFT_SPREAD, _SLOPE_SPREAD]) ** 2
    free = np.array([True, slope is None])
    line = np.array([0.0, 1.0 if slope is None else slope])

    def loss(at: NDArray[np.float64]) -> float:
        value = centre + design @ at
        return float((np.logaddexp(0, value) - y * value).sum() + (weight * (at - before) ** 2).sum() / 2)

    for _ in range(50):
        expected = _expit(centre + design @ line)
        gradient = design.T @ (expected - y) + weight * (line - before)
        curvature = design.T @ (design * (expected * (1 - expected))[:, None]) + np.diag(weight)
        step = np.zeros(2)
        step[free] = np.linalg.solve(curvature[np.ix_(free, free)], gradient[free])
        size = 1.0
        while loss(line - size * step) > loss(line) and size > 1e-6:
            size /= 2
        line = line - size * step
        if np.abs(step).max() < 1e-9:
            break
    return float(line[0]), float(line[1])


def _logit(share: NDArray[np.float64]) -> NDArray[np.float64]:
    held = np.clip(share, _CLIP, 1 - _CLIP)
    odds: NDArray[np.float64] = np.log(held / (1 - held))
    return odds


def _expit(value: NDArray[np.float64]) -> NDArray[np.float64]:
    share: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(value, -500, 500)))
    return share


@dataclass(frozen=True)
class Assessment:
    """What to expect of one label of a mask.

    Attributes:
        expected_dice: 0 to 1. As Dice is defined, 0 for an empty mask; nan for one where the training often had no
            such label, and where too few unseen cases are known.
        review: Whether a reader should look at it; None where too few unseen cases are known to say.
        reasons: Why, a line each; an empty mask needs none.
    """

    expected_dice: float
    review: bool | None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelConfidence:
    """How one label's masks are judged.

    Attributes:
        curve: None where too few unseen cases are known.
        limit: The expected Dice below which a mask is to be reviewed.
        is_often_empty: Whether masks without the label are nothing to look at.
        log_ml: Mean and standard deviation of the logarithm of its volume in training; None where unknown.
    """

    curve: Curve | None
    limit: float
    is_often_empty: bool
    log_ml: tuple[float, float] | None

    @classmethod
    def of(cls, unseen: Sequence[UnseenLabel], *, review_share: float) -> "LabelConfidence":
        """From what one or several networks reached on cases that they had not seen; at least one."""
        scores = np.array([pair for of_model in unseen for pair in of_model.scores]).reshape(-1, 2)
        curve, limit = None, math.nan
        if len(scores) >= _FEWEST_CASES:
            curve = fit_curve(scores[:, 0].tolist(), scores[:, 1].tolist())
            limit = float(np.quantile(curve(scores[:, 0]), review_share))
        empty = float(np.mean([of_model.absent_share for of_model in unseen])) >= _EMPTY_SHARE
        volumes = [of_model.log_ml for of_model in unseen if of_model.log_ml is not None]
        log_ml = None if not volumes else (float(np.mean([v[0] for v in volumes])), max(v[1] for v in volumes))
        return cls(curve, limit, empty, log_ml)

    def assess(self, soft_dice: NDArray[np.float64], agreement: float, volume_ml: float) -> Assessment:
        """Judge a mask.

        Args:
            soft_dice: `(models,)`; see `Doubt`.
            agreement: See `Doubt`.
            volume_ml: Of the mask.
        """
        if not volume_ml > 0:
            return Assessment(math.nan if self.is_often_empty else 0.0, review=not self.is_often_empty)
        reasons = []
        if self.log_ml is not None:
            spreads = (math.log(volume_ml) - self.log_ml[0]) / max(self.log_ml[1], _LEAST_SPREAD)
            if abs(spreads) > _FAR_SPREADS:
                what = "larger" if spreads > 0 else "smaller"
                reasons.append(f"its {volume_ml:.3g} ml are far {what} than in training")
        expected = math.nan
        if self.curve is not None:
            # A model that finds nothing where the mean of all does expects a Dice of 0.
            expected = float(np.nan_to_num(self.curve(soft_dice), nan=0.0).mean())
            expected = expected if math.isnan(agreement) else min(expected, agreement)
            if expected < self.limit:
                reasons.insert(0, f"its expected Dice is {expected:.3f}, among the lowest (below {self.limit:.3f})")
        is_judged = self.curve is not None or bool(reasons)
        return Assessment(expected, bool(reasons) if is_judged else None, tuple(reasons))


@lru_cache(maxsize=16)
def label_confidences(unseen: tuple[Unseen, ...], review_share: float) -> tuple[LabelConfidence, ...]:
    """How each label's masks are judged, by what some models reached on cases that they had not seen.

    Args:
        unseen: At least one, all of the same labels.
        review_share: Share of such cases that would be reviewed.
    """
    of_labels = zip(*(of_model.labels for of_model in unseen), strict=True)
    return tuple(LabelConfidence.of(of_label, review_share=review_share) for of_label in of_labels)


def assess_mask(
    doubt: Doubt | None, volumes_ml: Mapping[str, float], unseen: Sequence[Unseen], *, review_share: float
) -> dict[str, Assessment]:
    """What to expect of each label of a mask.

    Args:
        doubt: What the probabilities say; None where no network was asked, and the mask is empty.
        volumes_ml: Of the mask, by label, in the labels' order.
        unseen: Of the models that made it, as far as known.
        review_share: Share of the unseen cases that would be reviewed.

    Returns:
        By label; nothing where nothing is known.
    """
    if not unseen:
        return {}
    judges = label_confidences(tuple(unseen), review_share)
    if doubt is None:
        return {name: Assessment(0.0, review=True) for name in volumes_ml}
    rows = zip(judges, doubt.soft_dice.T, doubt.agreement.tolist(), volumes_ml.items(), strict=True)
    return {name: judge.assess(soft, alike, volume) for judge, soft, alike, (name, volume) in rows}
