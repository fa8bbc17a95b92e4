"""What a network reached on cases that it had not seen: a part of its card.

These few numbers travel with a network, so that several networks can be judged together: the folds of a
cross-validation pool what each reached on the cases kept from it, whichever machine trained it.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LARGEST_LOG_ML = 50.0
"""Of a volume's logarithm: far beyond anything that is scanned."""


@dataclass(frozen=True)
class UnseenLabel:
    """One label on unseen cases, and in the references of the training.

    Attributes:
        scores: For each unseen case with a mask and a Dice, the Dice that the probabilities expect (`soft_dice`) and
            the true one.
        absent_share: Share of the training references that do not hold the label.
        log_ml: Mean and standard deviation of the logarithm of its volume in ml, over the training references that
            hold it; None for fewer than two.
        one_part: For each unseen case the Dice with all connected parts, and with the largest alone; empty where that
            is no choice.
    """

    scores: tuple[tuple[float, float], ...] = ()
    absent_share: float = 0.0
    log_ml: tuple[float, float] | None = None
    one_part: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Unseen:
    """All labels on unseen cases.

    Attributes:
        labels: In the order of the card's labels.
        thresholds: That were tried, rising; empty where the threshold is no choice.
        threshold_dices: `(cases, thresholds)` mean Dice over the labels with each, before parts are taken away.
    """

    labels: tuple[UnseenLabel, ...]
    thresholds: tuple[float, ...] = ()
    threshold_dices: tuple[tuple[float, ...], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values, which `from_json` turns back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Any, *, labels: int) -> "Unseen":
        """The inverse of `to_json`.

        Args:
            value: Whatever stands in a file.
            labels: How many labels the model has.

        Raises:
            TypeError: It is not of that form.
            ValueError: A number cannot be.
        """
        _require_keys(value, cls)
        found = tuple(_label(item) for item in _list(value["labels"]))
        if len(found) != labels:
            raise ValueError(f"unseen.labels: {len(found)} for {labels} labels")
        thresholds = _shares(value["thresholds"])
        if list(thresholds) != sorted(set(thresholds)) or {0.0, 1.0} & set(thresholds):
            raise ValueError("unseen.thresholds do not rise within 0 and 1")
        dices = tuple(_shares(row, length=len(thresholds)) for row in _list(value["threshold_dices"]))
        return cls(found, thresholds, dices)


def _label(value: Any) -> UnseenLabel:
    _require_keys(value, UnseenLabel)
    log_ml = value["log_ml"]
    return UnseenLabel(
        scores=_pairs(value["scores"]),
        absent_share=_shares([value["absent_share"]])[0],
        log_ml=None if log_ml is None else _log_volume(log_ml),
        one_part=_pairs(value["one_part"]),
    )


def _log_volume(value: Any) -> tuple[float, float]:
    mean, spread = (_number(item) for item in _list(value))
    if not (abs(mean) <= _LARGEST_LOG_ML and 0 <= spread <= _LARGEST_LOG_ML):
        raise ValueError("unseen.log_ml is no volume")
    return mean, spread


def _pairs(value: Any) -> tuple[tuple[float, float], ...]:
    rows = (_shares(row, length=2) for row in _list(value))
    return tuple((first, second) for first, second in rows)


def _shares(value: Any, *, length: int | None = None) -> tuple[float, ...]:
    """Numbers from 0 to 1."""
    numbers = tuple(_number(item) for item in _list(value))
    if length is not None and len(numbers) != length:
        raise ValueError(f"unseen: a row of {len(numbers)} numbers, not {length}")
    if not all(0 <= number <= 1 for number in numbers):
        raise ValueError("unseen: a number is not in 0 to 1")
    return numbers


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError("unseen: a value is no number")
    return float(value)


def _list(value: Any) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError("unseen: a value is no list")
    return value


def _require_keys(value: Any, kind: type[Unseen] | type[UnseenLabel]) -> None:
    if not isinstance(value, Mapping) or set(value) != {item.name for item in dataclasses.fields(kind)}:
        raise TypeError("unseen: keys are missing or unknown")
