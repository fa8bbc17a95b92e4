"""The Dice to expect of a mask without a reference, and whether a reader should look at the mask.

Three steps:

1. While a mask is decided, each network's probabilities and its own mask give the Dice that the probabilities
   themselves expect, `2 sum(p in the mask) / (sum(p) + voxels of the mask)`. Where a network's views and mirror
   images disagree, its probabilities are in the middle, which lowers this Dice. The masks of several networks also
   give their agreement.
2. Networks are too sure of themselves. A rising curve leads from the Dice they expected to the Dice they reached, on
   cases that they had not seen (`Unseen`); see `medfcn.inference.expected_dice`.
3. The expected Dice of a mask is the mean of its networks' curve values, but never more than their agreement:
   networks of the same training agree with each other at least as much as with a reader. A fold's curve never uses
   cases of its own training. No case is unseen by all folds, so nothing can calibrate their agreement, and it is only
   a bound.

Source:
    Step 1: the soft Dice confidence of Borges, Pacheco, Silva, arXiv 2402.10665, which under independent calibrated
    probabilities is within narrow bounds of the expected Dice. Agreement as a proxy of the Dice: Roy et al.,
    NeuroImage 195, 2019 (Bayesian QuickNAT); disagreement as the error to expect: Jiang et al., ICLR 2022.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from medfcn.inference.decide import Foreground
from medfcn.inference.expected_dice import Curve, fit_curves, lower_limits
from medfcn.inference.held_out import Unseen, UnseenLabel

_LEAST_PROBABILITY = 0.05
"""A lower probability does not count: in a large image the many voxels far away would weigh as much as the organ."""
_FEW = 0.25
"""Up to this share numpy is faster with places than with a mask."""
_FEWEST_CASES = 5
"""With fewer unseen cases of a label, nothing is expected of its masks."""
_EMPTY_SHARE = 0.1
"""If the label is absent from this share of the training references, a mask without it needs no review."""
_FAR_SPREADS, _LEAST_SPREAD = 4.0, 0.1
"""Largest distance of a volume's logarithm from the training's, in standard deviations, and the least of these."""


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

    def add(
        self,
        probabilities: Sequence[NDArray[np.float32]],
        indices: Sequence[NDArray[np.uint8]],
        foreground: Sequence[Foreground],
    ) -> None:
        """Add a slab.

        Args:
            probabilities: `(L, ...)` for each model.
            indices: `(...)` for each model: its own mask, as indices of labels or overlaps.
            foreground: That of each of these masks.
        """
        for model, (values, seen) in enumerate(zip(probabilities, foreground, strict=True)):
            flat = values.reshape(len(values), -1)  # (L, V)
            for label, of_label in enumerate(flat):
                self._mass[model, label] += _mass_of(of_label)
            self._voxels[model] += np.bincount(seen.indices, minlength=len(self._contains)) @ self._contains
            if self._members is None:
                # Each foreground voxel has one label, so one probability: summed by label in a single pass.
                inside = np.bincount(seen.indices, weights=seen.own(values), minlength=len(self._contains))
                self._inside[model] += inside[1:]
            else:
                for label, of_label in enumerate(flat):
                    within = seen.at[self._members[seen.indices, label]]
                    self._inside[model, label] += of_label[within].sum(dtype=np.float64)
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


def _mass_of(probabilities: NDArray[np.float32]) -> float:
    """The sum of the probabilities that count."""
    counts = probabilities >= _LEAST_PROBABILITY
    few = np.count_nonzero(counts) < _FEW * counts.size
    return float(probabilities[np.flatnonzero(counts) if few else counts].sum(dtype=np.float64))


@dataclass(frozen=True)
class Assessment:
    """The expected quality of one label of a mask.

    Attributes:
        expected_dice: 0 to 1. As Dice is defined, 0 for an empty mask, however few unseen cases are known; nan for an
            empty mask of a label that was often absent in training, and for any other where too few are known.
        review: True if a reader should look at it; None if too few unseen cases are known to say.
        reasons: The reasons for a review, a line each; an empty mask needs none, except where all of it was removed.
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
        cls, unseen: Sequence[UnseenLabel], curve: Curve | None, *, limit: float, floor: float
    ) -> "LabelConfidence":
        """The rules that follow from the unseen cases of one or several networks; at least one.

        Args:
            unseen: The label in each of them.
            curve: Fitted to its cases.
            limit: See the attribute.
            floor: See the attribute.
        """
        empty = float(np.mean([of_model.absent_share for of_model in unseen])) >= _EMPTY_SHARE
        volumes = [of_model.log_ml for of_model in unseen if of_model.log_ml is not None]
        log_ml = None if not volumes else (float(np.mean([v[0] for v in volumes])), max(v[1] for v in volumes))
        return cls(curve, limit, empty, log_ml, floor)

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
            review = bool(odd) or not self.is_often_empty
            return Assessment(math.nan if self.is_often_empty else 0.0, review, tuple(odd))
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
        limit = self.floor if self.curve is None else max(self.limit, self.floor)
        if expected < limit:
            by = "" if self.curve else "by its probabilities alone, "
            reasons.insert(0, f"{by}its expected Dice is {expected:.3f}, below {limit:.3g}")
        is_judged = self.curve is not None or bool(reasons)
        return Assessment(
            math.nan if self.curve is None else expected, bool(reasons) if is_judged else None, tuple(reasons)
        )


def scores_of(unseen: Sequence[UnseenLabel]) -> NDArray[np.float64]:
    """`(N, 2)` expected and true Dice of a label in the unseen cases of some models, taken together."""
    return np.array([pair for of_model in unseen for pair in of_model.scores], dtype=np.float64).reshape(-1, 2)


@lru_cache(maxsize=16)
def label_confidences(
    unseen: tuple[Unseen, ...], review_share: float, review_floor: float = 0.0
) -> tuple[LabelConfidence, ...]:
    """The rules of each label, from the unseen cases of some models.

    A case is reviewed if one of its labels is, so the labels divide the share among themselves.

    Args:
        unseen: At least one, all of the same labels.
        review_share: The share of cases like these that is to be reviewed for what is expected of them.
        review_floor: Masks with a lower expected Dice are to be reviewed too.
    """
    of_labels, scores = _of_labels(unseen)
    known = [place for place, pairs in enumerate(scores) if len(pairs) >= _FEWEST_CASES]
    curves = dict(zip(known, fit_curves([scores[place] for place in known]), strict=True))
    expected = [curve(scores[place][:, 0]) for place, curve in curves.items()]
    limits = dict(zip(known, lower_limits(expected, review_share / max(len(of_labels), 1)), strict=True))
    return tuple(
        LabelConfidence.of(of_label, curves.get(place), limit=limits.get(place, math.nan), floor=review_floor)
        for place, of_label in enumerate(of_labels)
    )


@lru_cache(maxsize=16)
def mean_limit(unseen: tuple[Unseen, ...], review_share: float) -> float:
    """The mean expected Dice of all labels below which a case is to be reviewed, though no label is below its own.

    Labels share `review_share`, so a single one must be far off. Where all are somewhat low, their mean is as
    rare: it has the whole share. Of cases like the unseen ones, 10 to 16 in a hundred have one or the other where the
    share is a tenth: the more, the less labels are low together.

    Args:
        unseen: As in `label_confidences`.
        review_share: As there.

    Returns:
        nan for a single label, for too few unseen cases, and where one of them lacks a label: there is no mean then.
    """
    _, scores = _of_labels(unseen)
    is_even = all(len({len(of_label.scores) for of_label in of_model.labels}) == 1 for of_model in unseen)
    if len(scores) < 2 or not is_even or len(scores[0]) < _FEWEST_CASES:
        return math.nan
    expected = [curve(pairs[:, 0]) for curve, pairs in zip(fit_curves(scores), scores, strict=True)]
    return lower_limits([np.mean(expected, axis=0)], review_share)[0]


def _of_labels(unseen: Sequence[Unseen]) -> tuple[list[tuple[UnseenLabel, ...]], list[NDArray[np.float64]]]:
    """The results of each label in some models, and the scores of its unseen cases."""
    of_labels = list(zip(*(of_model.labels for of_model in unseen), strict=True))
    return of_labels, [scores_of(of_label) for of_label in of_labels]


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
        review_share: The share of cases like the unseen ones that is to be reviewed.
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
    found = {name: rule.assess(soft, alike, volume, odd.get(name, ())) for rule, soft, alike, (name, volume) in rows}
    return _with_mean(found, rules, mean_limit(tuple(unseen), review_share))


def _with_mean(found: dict[str, Assessment], rules: Sequence[LabelConfidence], limit: float) -> dict[str, Assessment]:
    """The assessments; where no label is below its own limit and their mean is, the nearest to its own says so."""
    above = {name: one.expected_dice - rule.limit for (name, one), rule in zip(found.items(), rules, strict=True)}
    mean = float(np.mean([one.expected_dice for one in found.values()]))
    if not mean < limit or min(above.values()) < 0:
        return found
    name = min(above, key=above.__getitem__)
    line = f"the mean expected Dice of all labels is {mean:.3f}, below {limit:.3g}"
    return found | {name: replace(found[name], review=True, reasons=(line, *found[name].reasons))}
