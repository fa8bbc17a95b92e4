"""The length of a training, its validations, and the learning rate of each step."""

import dataclasses
import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from medfcn.errors import SettingsError

_VALIDATIONS_MOST = 6
_STEPS_BETWEEN_VALIDATIONS = 500
_LOOKS_MOST, _LOOKS_SHARE = 40, 0.03
"""Looks at a few slices, for the curve: at most so many, and for a hundred steps at most so many hundredths."""
_PICTURES_MOST = 8
_CHANGE = re.compile(r"([0-9]{1,12})(?:@([0-9]{1,12}))?")


@dataclass(frozen=True)
class Schedule:
    """The number of steps of a training, and how it changed on the way.

    Attributes:
        changes: Pairs of a step and the number of all steps as it was known from there on. The first is
            `(0, total)` for a number that was known from the start. Each next one is a later step and a smaller
            number: a training that a slow machine shortened.

    Example:
        >>> Schedule.of(900).shortened(300, 650).text
        '900,650@300'
        >>> Schedule.parse("900,650@300").total
        650
    """

    changes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, total: int, *, since: int = 0) -> "Schedule":
        """So many steps, known since a step."""
        return cls(((since, total),))

    @classmethod
    def parse(cls, text: str | int) -> "Schedule":
        """The schedule of a text such as `900`, or `900,650@300`: 900 steps, after step 300 only 650.

        Raises:
            SettingsError: It is not such a text.
        """
        matches = [_CHANGE.fullmatch(part.strip()) for part in str(text).split(",")]
        changes = tuple((int(match[2] or 0), int(match[1])) for match in matches if match)
        follow = pairwise(changes)
        fall = all(step < later and later < total < before for (step, before), (later, total) in follow)
        if len(changes) < len(matches) or not fall or not changes[0][1] >= max(1, changes[0][0]):
            raise SettingsError(
                f"steps {str(text)!r}: expected a number from 1 on, or numbers that fall, each with the step after "
                "which it holds; write for example 900, or 900,650@300",
                field="steps",
            )
        return cls(changes)

    @property
    def total(self) -> int:
        """The number of all steps."""
        return self.changes[-1][1]

    @property
    def is_plain(self) -> bool:
        """True if the number was known from the start and never changed."""
        return len(self.changes) == 1 and not self.changes[0][0]

    @property
    def text(self) -> str:
        """The text that `parse` reads, for `--steps`."""
        return ",".join(f"{total}@{step}" if step else f"{total}" for step, total in self.changes)

    def shortened(self, step: int, total: int) -> "Schedule":
        """The schedule after a change; as it is if it has no more steps than `total`."""
        if total >= self.total:
            return self
        kept = tuple(change for change in self.changes if change[0] < step)
        return Schedule((*kept, (step, total)))

    def fallen(self, step: int, *, start: int) -> float:
        """The share of the learning rate's fall before a step, in `[0, 1]`.

        The fall is even until a change, and even again from there to the new end.

        Args:
            step: From 0.
            start: The first step of the fall.
        """
        reached, since, end = 0.0, start, None
        for changed, total in self.changes:
            if changed > step:
                break
            changed = max(changed, start)
            if end is not None:
                reached += (1 - reached) * (changed - since) / max(1, end - since)
            since, end = changed, total
        return reached if end is None else reached + (1 - reached) * (step - since) / max(1, end - since)

    def validation_steps(self) -> set[int]:
        """The steps after which to validate: those of each number, as long as it held."""
        return self._steps(validation_steps)

    def curve_steps(self, cost: float) -> set[int]:
        """The same of the curve; see `curve_steps`."""
        return self._steps(lambda total: curve_steps(total, cost=cost))

    def _steps(self, of_total: Callable[[int], set[int]]) -> set[int]:
        ends = [step for step, _ in self.changes[1:]] + [self.total]
        return {
            step
            for (since, total), end in zip(self.changes, ends, strict=True)
            for step in of_total(total)
            if since < step <= end
        }


@dataclass(frozen=True)
class Length:
    """The requested length of a training: a budget or a number of steps.

    Attributes:
        budget_seconds: Wall time of the whole command, from the data check to the report.
        steps: Optimiser steps.
        changes: As in `Schedule`, to repeat a training that was shortened; empty for a plain number of steps.
    """

    budget_seconds: float | None = None
    steps: int | None = None
    changes: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, schedule: Schedule) -> "Length":
        """The length of a schedule that is to be repeated."""
        return cls(steps=schedule.total, changes=() if schedule.is_plain else schedule.changes)

    @property
    def schedule(self) -> Schedule | None:
        """The steps; None for a budget."""
        if self.steps is None:
            return None
        return Schedule(self.changes) if self.changes else Schedule.of(self.steps)

    @property
    def text(self) -> str:
        """For people.

        Example:
            >>> Length(steps=80).text, Length(budget_seconds=600.0).text
            ('80 steps long', '600 s long')
        """
        return f"{self.budget_seconds:g} s long" if self.steps is None else f"{self.steps} steps long"

    def to_json(self) -> dict[str, Any]:
        """As it is recorded; without `changes` where there are none."""
        recorded = dataclasses.asdict(self)
        return recorded if self.changes else {name: recorded[name] for name in ("budget_seconds", "steps")}

    @classmethod
    def from_json(cls, recorded: dict[str, Any]) -> "Length":
        """The length that `to_json` recorded.

        Raises:
            TypeError: It is something else.
        """
        changes = tuple((int(step), int(total)) for step, total in recorded.get("changes", ()))
        return cls(**{**recorded, "changes": changes})


def validation_steps(total: int) -> set[int]:
    """The steps after which to validate, in the second half of a training.

    They follow from the number of steps alone, so that a repetition does the same.

    Example:
        >>> sorted(validation_steps(300)), sorted(validation_steps(1500))
        ([300], [1000, 1250, 1500])
    """
    count = max(1, min(_VALIDATIONS_MOST, total // _STEPS_BETWEEN_VALIDATIONS))
    return {total - round(index * total / (2 * count)) for index in range(count)}


def curve_steps(total: int, *, cost: float) -> set[int]:
    """The steps after which to look at a few validation slices, for the curve alone.

    At most three looks for every hundred steps, fewer if one costs more than a step; see `medfcn.training.curve`.

    Args:
        total: Number of all steps.
        cost: The pixels of a look, in those of a step.

    Example:
        >>> sorted(curve_steps(100, cost=1.0)), len(curve_steps(2000, cost=1.0)), curve_steps(30, cost=1.0)
        ([33, 67, 100], 40, set())
        >>> sorted(curve_steps(400, cost=4.0))
        [133, 267, 400]
    """
    count = min(_LOOKS_MOST, math.floor(_LOOKS_SHARE * total / max(1.0, cost) + 1e-9))
    return {round(number * total / count) for number in range(1, count + 1)}


def picture_steps(looks: Collection[int]) -> set[int]:
    """The looks that are also drawn: a few, evenly over the training, and the last.

    Example:
        >>> sorted(picture_steps(range(10, 401, 10)))
        [50, 100, 150, 200, 250, 300, 350, 400]
    """
    ordered = sorted(looks)
    count = min(_PICTURES_MOST, len(ordered))
    return {ordered[-(-number * len(ordered) // count) - 1] for number in range(1, count + 1)}


def learning_rate(step: int, *, largest: float, warmup_steps: int, total_steps: int | Schedule | None) -> float:
    """The learning rate of a step: a linear rise, then a cosine to 0 at the end.

    Args:
        step: From 0.
        largest: Reached at the end of the rise.
        warmup_steps: Steps of the rise.
        total_steps: Number of all steps; may be None during the rise, which does not depend on it.

    Example:
        >>> [round(learning_rate(step, largest=1, warmup_steps=10, total_steps=110), 2) for step in (0, 9, 60, 109)]
        [0.1, 1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        return largest * (step + 1) / warmup_steps
    if total_steps is None:
        return largest
    schedule = Schedule.of(total_steps) if isinstance(total_steps, int) else total_steps
    share = schedule.fallen(step, start=warmup_steps)
    return largest * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
