"""The length of a training, its validations, and the learning rate of each step."""

import math
from dataclasses import dataclass

_VALIDATIONS_MOST = 6
_STEPS_BETWEEN_VALIDATIONS = 500


@dataclass(frozen=True)
class Length:
    """The requested length of a training: exactly one of these is set.

    Attributes:
        budget_seconds: Wall time of the whole command, from the data check to the saved weights.
        steps: Optimiser steps.
    """

    budget_seconds: float | None = None
    steps: int | None = None

    @property
    def text(self) -> str:
        """For people.

        Example:
            >>> Length(steps=80).text, Length(budget_seconds=600.0).text
            ('80 steps long', '600 s long')
        """
        return f"{self.budget_seconds:g} s long" if self.steps is None else f"{self.steps} steps long"


def validation_steps(total: int) -> set[int]:
    """The steps after which to validate, in the second half of a training.

    They follow from the number of steps alone, so that a repetition does the same.

    Example:
        >>> sorted(validation_steps(300)), sorted(validation_steps(1500))
        ([300], [1000, 1250, 1500])
    """
    count = max(1, min(_VALIDATIONS_MOST, total // _STEPS_BETWEEN_VALIDATIONS))
    return {total - round(index * total / (2 * count)) for index in range(count)}


def learning_rate(step: int, *, largest: float, warmup_steps: int, total_steps: int | None) -> float:
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
    share = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return largest * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
