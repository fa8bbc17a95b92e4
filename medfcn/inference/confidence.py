"""The Dice to expect of a mask without a reference, and whether a reader should look at the mask.

Three steps:

1. While a mask is decided, each network's probabilities and its own mask give the Dice that the probabilities
   themselves expect, `2 sum(p in the mask) / (sum(p) + voxels of the mask)`. Where a network's views and mirror
   images disagree, its probabilities are in the middle, which lowers this Dice. The masks of several networks also
   give their agreement.
2. Networks are too sure of themselves. A rising curve leads from the Dice they expected to the Dice they reached, on
   cases that they had not seen (`Unseen`). It is a line on the logit scale, for which ten cases are enough.
3. The expected Dice of a mask is the mean of its networks' curve values, but never more than their agreement:
   networks of the same training agree with each other at least as much as with a reader. A fold's curve never uses
   cases of its own training. No case is unseen by all folds, so nothing can calibrate their agreement, and it is only
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
"""With fewer unseen cases of a label, nothing is expected of its masks."""
_EMPTY_SHARE = 0.1
"""If the label is absent from this share of the training references, a mask without it needs no review."""
_FAR_SPREADS, _LEAST_SPREAD = 4.0, 0.1
"""Largest distance of a volume's logarithm from the training's, in standard deviations, and the least of these."""
_CLIP = 1e-4
_SLOPE_SPREAD, _SHIFT_SPREAD = 0.5, 2.0
"""Standard deviations around the curve that changes nothing, before any case is seen."""
_SLOPES = (0.1, 5.0)
"""The curve always rises, and never becomes a step."""


@dataclass(frozen=True)
class Doubt:
    """The quality of a mask according to the probabilities behind it, uncalibrated.

    Attributes:
        soft_dice: `(M, L)` Dice that the probabilities of each of M models expect of its own mask, for L labels; nan
            where that mask is empty.
        agreement: `(L,)` Dice between the models' masks, over all pairs; nan for a single model, and where all masks
            are empty.
    """

    soft_dice: NDArray[np.float64]
    agreement: NDArray[np.float64]


class DoubtMeter:
    """Adds up a volume, slab by slab, and gives its `Doubt`.

    Args:
        models: M, the number of models.
        labels: L, the number of labels.
        members: `(A + 1, L)` for labels that overlap: the labels in the background and in each of A overlaps.
    """

    def __init__(self, models: int, labels: int, *, members: NDArray[np.bool_] | None = None) -> None:
        self._members = members
        # (A + 1, L): 1 where an index contains a label. Without overlaps, A is L.
        self._contains = np.eye(labels + 1, dtype=np.int64)[:, 1:] if members is None else members.astype(np.int64)
        # (M, L) sums over voxels: of the probabilities inside the mask, of all that count, and of the mask itself.
        self._inside, self._mass, self._voxels = np.zeros((3, models, labels))
        # (L,) sums over pairs of masks: twice the voxels in both, and the voxels of each.
        self._shared, self._both = np.zeros((2, labels))

    def add(self, probabilities: Sequence[NDArray[np.float32]], indices: Sequence[NDArray[np.uint8]]) -> None:
        """Add a slab.

        Args:
            probabilities: `(L, ...)` for each model.
            indices: `(...)` for each model: its own mask, as indices of labels or overlaps.
        """
        for model, (values, mask) in enumerate(zip(probabilities, indices, strict=True)):
            flat = values.reshape(len(values), -1)  # (L, V)
            for label, of_label in enumerate(flat):
                self._mass[model, label] += of_label[of_label >= _LEAST_PROBABILITY].sum(dtype=np.float64)
            # The foreground is a small part of most slabs: its F voxels are taken out once.
            at = np.flatnonzero(mask)  # (F,)
            foreground = mask.reshape(-1)[at]
            self._voxels[model] += np.bincount(foreground, minlength=len(self._contains)) @ self._contains
            if self._members is None:
                # Each foreground voxel has one label, so one probability: summed by label in a single pass.
                inside = flat[foreground.astype(np.intp) - 1, at]
                self._inside[model] += np.bincount(foreground, weights=inside, minlength=len(self._contains))[1:]
            else:
                for label, of_label in enumerate(flat):
                    self._inside[model, label] += of_label[at[self._members[foreground, label]]].sum(dtype=np.float64)
        if len(indices) > 1:
            self._compare(indices)

    def _compare(self, indices: Sequence[NDArray[np.uint8]]) -> None:
        """Count the voxels that pairs of models share, for each label."""
        at = np.flatnonzero(np.logical_or.reduce([mask > 0 for mask in indices]))
        count = len(self._contains)
        masks = [mask.reshape(-1)[at].astype(np.intp) for mask in indices]
        for one, other in combinations(masks, 2):
            # (A + 1, A + 1): voxels by the index in the one mask and in the other.
            joint = np.bincount(one * count + other, minlength=count * count).reshape(count, count)
            self._shared += 2 * np.einsum("al,ab,bl->l", self._contains, joint, self._contains)
            self._both += (joint.sum(axis=0) + joint.sum(axis=1)) @ self._contains

    def doubt(self) -> Doubt:
        """The scores of all slabs so far."""
        with np.errstate(invalid="ignore", divide="ignore"):
            soft = np.where(self._voxels > 0, 2 * self._inside / (self._mass + self._voxels), np.nan)
            return Doubt(np.minimum(soft, 1.0), self._shared / self._both)


@dataclass(frozen=True)
class Curve:
    """A rising map from the Dice that probabilities expect to the Dice that unseen cases had.

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
    """The curve that fits some cases; with few or similar cases it stays near the one that changes nothing.

    A logistic regression of fractions with two parameters: a Dice of 0 or 1 needs no clipping, and the mean of the
    expected Dice is that of the true one. The scatter of the cases decides how much they count.

    Args:
        soft_dice: The expected Dice of cases outside of the training, at least one.
        dice: The true Dice of the same cases.

    Example:
        Networks that expect more than they reach:

        >>> curve = fit_curve([0.90, 0.93, 0.95, 0.96, 0.97] * 4, [0.70, 0.80, 0.85, 0.88, 0.90] * 4)
        >>> curve(np.array([0.91, 0.97])).round(2).tolist()
        [0.74, 0.91]
    """
    x, y = _logit(np.array(soft_dice)), np.array(dice)
    # Around the mean of x, the line's height (shift) and its slope hardly depend on each other.
    centre, noise = float(x.mean()), 0.05
    shift, slope = 0.0, 1.0
    # The line depends on the noise, and the noise on the line: three rounds settle both.
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
    """Shift and slope of the most probable line, by Newton's method.

    The loss is the cross-entropy of the line's values, plus a penalty for leaving shift 0 and slope 1, which counts
    more the larger the noise. A step that does not lower the loss is halved.

    Args:
        x: `(N,)` expected Dice of N cases on the logit scale, less `centre`.
        y: `(N,)` their true Dice.
        centre: See above.
        noise: The variance of `y` around the line, over that of a coin with the same mean.
        slope: A fixed slope; only the shift is fitted.
    """
    design = np.stack([np.ones_like(x), x], axis=1)  # (N, 2)
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
    inside = np.clip(share, _CLIP, 1 - _CLIP)
    odds: NDArray[np.float64] = np.log(inside / (1 - inside))
    return odds


def _expit(value: NDArray[np.float64]) -> NDArray[np.float64]:
    share: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(value, -500, 500)))
    return share


@dataclass(frozen=True)
class Assessment:
    """The expected quality of one label of a mask.

    Attributes:
        expected_dice: 0 to 1. As Dice is defined, 0 for an empty mask, however few unseen cases are known; nan for an
            empty mask of a label that was often absent in training, and for any other where too few are known.
        review: True if a reader should look at it; None if too few unseen cases are known to say.
        reasons: The reasons for a review, a line each; an empty mask needs none.
    """

    expected_dice: float
    review: bool | None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelConfidence:
    """The rules by which the masks of one label are judged.

    Attributes:
        curve: None if too few unseen cases are known.
        limit: A mask with a lower expected Dice is to be reviewed.
        floor: So is one with a lower expected Dice than this, whatever the limit.
        is_often_empty: True if masks without the label need no review.
        log_ml: Mean and standard deviation of the logarithm of its volume in training; None if unknown.
    """

    curve: Curve | None
    limit: float
    is_often_empty: bool
    log_ml: tuple[float, float] | None
    floor: float = 0.0

    @classmethod
    def of(
        cls, unseen: Sequence[UnseenLabel], *, review_share: float, review_floor: float = 0.0
    ) -> "LabelConfidence":
        """The rules that follow from the unseen cases of one or several networks; at least one."""
        scores = np.array([pair for of_model in unseen for pair in of_model.scores]).reshape(-1, 2)
        curve, limit = None, math.nan
        if len(scores) >= _FEWEST_CASES:
            curve = fit_curve(scores[:, 0].tolist(), scores[:, 1].tolist())
            limit = float(np.quantile(curve(scores[:, 0]), review_share))
        empty = float(np.mean([of_model.absent_share for of_model in unseen])) >= _EMPTY_SHARE
        volumes = [of_model.log_ml for of_model in unseen if of_model.log_ml is not None]
        log_ml = None if not volumes else (float(np.mean([v[0] for v in volumes])), max(v[1] for v in volumes))
        return cls(curve, limit, empty, log_ml, review_floor)

    def assess(
        self, soft_dice: NDArray[np.float64], agreement: float, volume_ml: float, odd: Sequence[str] = ()
    ) -> Assessment:
        """Judge a mask.

        Args:
            soft_dice: `(M,)`; see `Doubt`.
            agreement: See `Doubt`.
            volume_ml: The volume of the label in the mask.
            odd: What is odd about its shape, a line each.
        """
        if not volume_ml > 0:
            return Assessment(math.nan if self.is_often_empty else 0.0, review=not self.is_often_empty)
        reasons = list(odd)
        if self.log_ml is not None:
            spreads = (math.log(volume_ml) - self.log_ml[0]) / max(self.log_ml[1], _LEAST_SPREAD)
            if abs(spreads) > _FAR_SPREADS:
                size = "larger" if spreads > 0 else "smaller"
                reasons.append(f"its {volume_ml:.3g} ml are far {size} than in training")
        # A model whose own mask is empty, where that of the mean of all is not, expects a Dice of 0.
        values = soft_dice if self.curve is None else self.curve(soft_dice)
        expected = float(np.nan_to_num(values, nan=0.0).mean())
        expected = expected if math.isnan(agreement) else min(expected, agreement)
        if self.curve is not None and expected < self.limit:
            reasons.insert(0, f"its expected Dice is {expected:.3f}, among the lowest (below {self.limit:.3f})")
        elif expected < self.floor:
            by = "" if self.curve else "by its probabilities alone, "
            reasons.insert(0, f"{by}its expected Dice is {expected:.3f}, below {self.floor:g}")
        is_judged = self.curve is not None or bool(reasons)
        return Assessment(
            math.nan if self.curve is None else expected, bool(reasons) if is_judged else None, tuple(reasons)
        )


@lru_cache(maxsize=16)
def label_confidences(
    unseen: tuple[Unseen, ...], review_share: float, review_floor: float = 0.0
) -> tuple[LabelConfidence, ...]:
    """The rules of each label, from the unseen cases of some models.

    Args:
        unseen: At least one, all of the same labels.
        review_share: The share of these cases that would be reviewed.
        review_floor: Masks with a lower expected Dice are to be reviewed too.
    """
    of_labels = zip(*(of_model.labels for of_model in unseen), strict=True)
    return tuple(
        LabelConfidence.of(of_label, review_share=review_share, review_floor=review_floor) for of_label in of_labels
    )


def assess_mask(
    doubt: Doubt | None,
    volumes_ml: Mapping[str, float],
    unseen: Sequence[Unseen],
    *,
    review_share: float,
    review_floor: float = 0.0,
    odd: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Assessment]:
    """The expected quality of each label of a mask.

    Args:
        doubt: The doubt of the probabilities; None if no network ran, and the mask is empty.
        volumes_ml: The volume of each label in the mask, in the labels' order.
        unseen: The results of the models on unseen cases, as far as known.
        review_share: The share of the unseen cases that would be reviewed.
        review_floor: A mask with a lower expected Dice is to be reviewed too.
        odd: By label, what is odd about the shape of its mask, a line each.

    Returns:
        The assessments by label; empty if no results are known, and no shape is odd.
    """
    odd = odd or {}
    if not unseen:
        lines = {name: tuple(odd.get(name, ())) for name in volumes_ml}
        found = {name: Assessment(math.nan, True if why else None, why) for name, why in lines.items()}
        return found if any(lines.values()) else {}
    if doubt is None:
        return {name: Assessment(0.0, review=True) for name in volumes_ml}
    rules = label_confidences(tuple(unseen), review_share, review_floor)
    rows = zip(rules, doubt.soft_dice.T, doubt.agreement.tolist(), volumes_ml.items(), strict=True)
    return {name: rule.assess(soft, alike, volume, odd.get(name, ())) for rule, soft, alike, (name, volume) in rows}
