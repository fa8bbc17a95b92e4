"""Results of a network on unseen cases: a part of its card.

These few numbers travel with a network, so that several networks can be judged together: the folds of a
cross-validation pool the results on their validation cases, whichever machine trained them.
"""

from typing import Annotated

from msgspec import Meta, Struct

Share = Annotated[float, Meta(ge=0, le=1)]
_LogVolume = Annotated[float, Meta(ge=-50, le=50)]
"""Logarithm of a volume in ml; the bounds are far beyond anything that is scanned."""
_Spread = Annotated[float, Meta(ge=0, le=50)]


class UnseenLabel(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One label on unseen cases, and in the training references.

    Attributes:
        scores: For each unseen case with a mask and a Dice, the Dice that the probabilities expect (`soft_dice`) and
            the true one.
        absent_share: Share of the training references without the label.
        log_ml: Mean and standard deviation of the logarithm of its volume in ml, over the training references that
            contain it; None for fewer than two.
        one_part: For each unseen case the Dice with all components, and with the largest alone; empty if that is no
            choice.
        together: The same with one component of all labels together.
    """

    scores: tuple[tuple[Share, Share], ...]
    absent_share: Share
    log_ml: tuple[_LogVolume, _Spread] | None
    one_part: tuple[tuple[Share, Share], ...]
    together: tuple[tuple[Share, Share], ...] = ()


class Unseen(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All labels on unseen cases.

    Attributes:
        labels: In the order of the card's labels.
        thresholds: The thresholds that were tried, rising; empty if the threshold is no choice.
        threshold_dices: `(cases, thresholds)` mean Dice over the labels with each, before components are removed.
        together: For each unseen case the mean Dice over the labels with all components, and with one of all labels
            together; empty if that is no choice.

    Raises:
        ValueError: The thresholds do not rise between 0 and 1, or a row of Dice has another number of them.
    """

    labels: tuple[UnseenLabel, ...]
    thresholds: tuple[Share, ...]
    threshold_dices: tuple[tuple[Share, ...], ...]
    together: tuple[tuple[Share, Share], ...] = ()

    def __post_init__(self) -> None:
        if list(self.thresholds) != sorted(set(self.thresholds)) or {0.0, 1.0} & set(self.thresholds):
            raise ValueError("thresholds do not rise between 0 and 1")
        if any(len(row) != len(self.thresholds) for row in self.threshold_dices):
            raise ValueError("threshold_dices has a row of another length than thresholds")
