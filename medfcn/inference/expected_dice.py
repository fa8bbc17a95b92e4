"""From the Dice that probabilities expect to the Dice to expect: a line on the logit scale for each label.

The cases that a network has not seen are few, often six of three patients. Their mean says well how far the network
is too sure of itself. The slope of their line says little: it is that of one or two cases, and far from them, where
masks of another scanner or diagnosis are, it decides everything. So the line begins as a shift alone, with the slope
1, and leaves it only as far as many cases ask for it. All labels come from one network, which is too sure of each to
much the same degree: so each label's shift begins at that of all. A label whose own cases say clearly that it is
unlike the others keeps its own, and hardly moves theirs: one that the network never finds must not be promised what
the others reach, nor they be blamed for it.

Source:
    Fractional logit: Papke, Wooldridge, J. Appl. Econometrics 11, 1996. Shifts around a common one: the normal
    hierarchical model, Gelman et al., Bayesian Data Analysis, chapter 5, with a spread for each label by its own
    distance, as in limited translation (Efron, Morris, J. Am. Stat. Assoc. 67, 1972). The limit of the next case: the
    prediction interval of a normal sample.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CLIP = 1e-4
_SHIFT_SPREAD, _LABEL_SPREAD, _SLOPE_SPREAD = 2.0, 0.2, 0.1
"""Standard deviations before any case is seen: of the shift of all labels around 0, of each label's shift around that
of all (at least), and of the slope around 1. The last is what leaving out each validation patient in turn asked
for."""
_ROUNDS = 3
_SLOPES = (0.1, 5.0)
"""The curve always rises, and never becomes a step."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A rising map from the Dice that probabilities expect to the Dice that unseen cases had.

    Attributes:
        intercept: On the logit scale.
        slope: On the logit scale, above 0.
    """

    intercept: float
    slope: float

    def __call__(self, soft_dice: Floats) -> Floats:
        """Expected Dice, 0 to 1; nan for nan."""
        return _expit(self.intercept + self.slope * _logit(soft_dice))


@dataclass(frozen=True)
class _Fit:
    """A line around the mean of its cases, where its height (shift) and its slope hardly depend on each other.

    Attributes:
        centre: Mean of the cases' expected Dice on the logit scale.
        shift: The line's height there, above that of the curve that changes nothing.
        slope: The line's slope.
        doubt: Variance of the shift, from the scatter of the cases.
        noise: That scatter, as a multiple of what a Dice of 0 or 1 at random would have.
    """

    centre: float
    shift: float
    slope: float
    doubt: float
    noise: float

    @property
    def curve(self) -> Curve:
        return Curve(intercept=self.centre + self.shift - self.slope * self.centre, slope=self.slope)


def fit_curves(cases: Sequence[Floats]) -> list[Curve]:
    """The curve of each label of one network, or of its folds.

    Args:
        cases: For each label `(N, 2)`: the expected and the true Dice of cases outside of the training, N >= 1.

    Example:
        Networks that expect more than they reach:

        >>> of_label = np.array([(0.90, 0.70), (0.93, 0.80), (0.95, 0.85), (0.96, 0.88), (0.97, 0.90)] * 4)
        >>> fit_curves([of_label])[0](np.array([0.91, 0.97])).round(2).tolist()
        [0.74, 0.91]
    """
    alone = [_fitted(of_label) for of_label in cases]
    if len(alone) < 2:
        return [fit.curve for fit in alone]
    common, spreads = _common_shift(alone)
    return [
        _fitted(of_label, shift=common, spread=spread, noise=fit.noise).curve
        for of_label, fit, spread in zip(cases, alone, spreads, strict=True)
    ]


def _common_shift(alone: Sequence[_Fit]) -> tuple[float, list[float]]:
    """The shift that labels have in common, and how far each may lie from it.

    A label that is further away than its cases' scatter explains may lie as far away as it does, and counts less for
    what is common. This begins at the median, which one label cannot move.
    """
    common = float(np.median([fit.shift for fit in alone]))
    variances = [_LABEL_SPREAD**2] * len(alone)
    for _ in range(_ROUNDS):
        variances = [max(_LABEL_SPREAD**2, (fit.shift - common) ** 2 - fit.doubt) for fit in alone]
        weights = [1 / (fit.doubt + variance) for fit, variance in zip(alone, variances, strict=True)]
        total = sum(weight * fit.shift for weight, fit in zip(weights, alone, strict=True))
        common = total / (sum(weights) + _SHIFT_SPREAD**-2)
    return common, [math.sqrt(variance) for variance in variances]


def _fitted(cases: Floats, *, shift: float = 0.0, spread: float = _SHIFT_SPREAD, noise: float | None = None) -> _Fit:
    """The line of one label, near the shift and the slope 1 that it begins with.

    A logistic regression of fractions: a Dice of 0 or 1 needs no clipping. The scatter of the cases decides how much
    they count.

    Args:
        cases: `(N, 2)` expected and true Dice.
        shift: That it begins with.
        spread: How far it may go from there.
        noise: The scatter around the label's own line; None to find it. Around a line that the other labels hold
            back it would be too large, and hold the line back further.
    """
    x, y = _logit(cases[:, 0]), cases[:, 1]
    before, spreads = np.array([shift, 1.0]), np.array([spread, _SLOPE_SPREAD])
    centre, found = float(x.mean()), 0.05 if noise is None else noise
    line, expected = before, y
    # The line depends on the noise, and the noise on the line: three rounds settle both.
    for _ in range(_ROUNDS):
        line = _penalised(x - centre, y, centre, before, found / spreads**2)
        expected = _expit(centre + line[0] + line[1] * (x - centre))
        if noise is None:
            found = float(np.clip(np.mean((y - expected) ** 2 / (expected * (1 - expected))), 1e-3, 1.0))
    if not _SLOPES[0] <= line[1] <= _SLOPES[1]:
        before = np.array([shift, np.clip(line[1], *_SLOPES)])
        line = _penalised(x - centre, y, centre, before, found / np.array([spread, 1e-6]) ** 2)
    doubt = found / float((expected * (1 - expected)).sum())
    return _Fit(centre, float(line[0]), float(line[1]), doubt, found)


def _penalised(x: Floats, y: Floats, centre: float, before: Floats, weight: Floats) -> Floats:
    """Shift and slope of the most probable line, by Newton's method.

    The loss is the cross-entropy of the line's values, plus a penalty for leaving where it begins. A step that does
    not lower the loss is halved.

    Args:
        x: `(N,)` expected Dice of N cases on the logit scale, less `centre`.
        y: `(N,)` their true Dice.
        centre: See above.
        before: Shift and slope to begin with.
        weight: Of the penalty for leaving each.
    """
    design = np.stack([np.ones_like(x), x], axis=1)  # (N, 2)
    line = before

    def loss(at: Floats) -> float:
        value = centre + design @ at
        return float((np.logaddexp(0, value) - y * value).sum() + (weight * (at - before) ** 2).sum() / 2)

    for _ in range(50):
        expected = _expit(centre + design @ line)
        gradient = design.T @ (expected - y) + weight * (line - before)
        curvature = design.T @ (design * (expected * (1 - expected))[:, None]) + np.diag(weight)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while loss(line - size * step) > loss(line) and size > 1e-6:
            size /= 2
        line = line - size * step
        if np.abs(step).max() < 1e-9:
            break
    return line


def lower_limits(expected: Sequence[Floats], share: float) -> list[float]:
    """For each label of one network the expected Dice below which this share of further cases like some lies.

    On the logit scale, where the cases of a label are taken as a normal sample around its own mean, and all labels
    scatter alike: the spread of six cases of one label is that of one or two of them. The lowest of six is no limit
    for one in thirty; their spread is, and the t distribution knows how few they are.

    Args:
        expected: For each label the expected Dice of two cases at least.
        share: From 0 to 1.

    Example:
        >>> cases = np.array([0.86, 0.88, 0.90, 0.91, 0.92, 0.92])
        >>> [round(lower_limits([cases], share)[0], 2) for share in (0.1, 0.03)]
        [0.86, 0.82]
    """
    if not 0 < share < 1:
        return [float(share)] * len(expected)
    scales = [_logit(of_label) for of_label in expected]
    free = sum(len(x) - 1 for x in scales)
    spread = math.sqrt(sum((len(x) - 1) * float(x.var(ddof=1)) for x in scales) / max(free, 1))
    below = _student_quantile(max(free, 1), share) * spread
    return [float(_expit(x.mean() + below * math.sqrt(1 + 1 / len(x)))) for x in scales]


def _student_quantile(free: int, share: float) -> float:
    """The number below which this share of Student's t distribution lies.

    Args:
        free: Degrees of freedom, from 1.
        share: Between 0 and 1.

    Source:
        Abramowitz, Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4, which are exact for whole numbers;
        scipy would know it too, but its import takes 0.17 s of CPU time.

    Example:
        >>> round(_student_quantile(5, 0.1), 6), round(_student_quantile(2, 0.975), 6)
        (-1.475884, 4.302653)
    """
    odd = free % 2
    steps = np.arange(2 + odd, free - 1, 2)  # of the numbers in the series, each by the one before
    factors = np.cumprod(np.concatenate([[1.0], (steps - 1 + 0.0) / steps]))

    def beyond(angle: float) -> float:
        """The share that lies above `sqrt(free) * tan(angle)`; angles are from 0 to a right one."""
        cosine = math.cos(angle)
        series = float(factors @ cosine ** (2.0 * np.arange(len(factors)))) * math.sin(angle)
        if not odd:
            return (1 - series) / 2
        return 0.5 - (angle + (series * cosine if free > 1 else 0.0)) / math.pi

    low, high, tail = 0.0, math.pi / 2, min(share, 1 - share)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if beyond(middle) > tail else (low, middle)
    return math.copysign(math.sqrt(free) * math.tan((low + high) / 2), share - 0.5)


def _logit(share: Floats) -> Floats:
    inside = np.clip(share, _CLIP, 1 - _CLIP)
    odds: Floats = np.log(inside / (1 - inside))
    return odds


def _expit(value: Floats) -> Floats:
    share: Floats = 1 / (1 + np.exp(-np.clip(value, -500, 500)))
    return share
