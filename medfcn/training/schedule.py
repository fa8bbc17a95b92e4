"""How many steps a training takes, and the learning rate of each."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Length:
    """How long a training was asked to be: exactly one of these is set.

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


class StepClock:
    """Measures steps and fixes how many fit into a budget.

    The first steps of a training warm caches up and are not counted. The learning rate of the warm-up does not
    depend on the number of steps, so a training of `--budget` is repeated exactly by `--steps` with that number.

    Args:
        length: What was asked for.
        started: `time.monotonic()` when the command began; earlier by what a stopped training had used.
        step_seconds: Of the steps that a stopped training had made.
    """

    WARM = 5
    MEASURED = 25

    def __init__(self, length: Length, *, started: float, step_seconds: Sequence[float] = ()) -> None:
        self.length = length
        self.started = started
        self.step_seconds = list(step_seconds)
        self._last = time.monotonic()

    def begin(self) -> None:
        """Steps are timed from here on."""
        self._last = time.monotonic()

    def tick(self) -> None:
        """A step ended."""
        now = time.monotonic()
        self.step_seconds.append(now - self._last)
        self._last = now

    def is_measured(self) -> bool:
        """Whether enough warm steps were timed."""
        return len(self.step_seconds) >= self.WARM + self.MEASURED

    def fix_steps(self, *, reserve_seconds: float) -> int:
        """Steps of the whole training, those already made included.

        Args:
            reserve_seconds: What validation and saving will take.
        """
        if self.length.steps is not None or self.length.budget_seconds is None:
            return self.length.steps or 1
        return steps_in_budget(
            self.length.budget_seconds,
            spent_seconds=time.monotonic() - self.started,
            reserve_seconds=reserve_seconds,
            step_seconds=self.step_seconds[self.WARM :],
            done=len(self.step_seconds),
        )


def steps_in_budget(
    budget_seconds: float,
    *,
    spent_seconds: float,
    reserve_seconds: float,
    step_seconds: Sequence[float],
    done: int,
) -> int:
    """Steps that fit into what is left of a budget, at the median pace of those measured; at least those done.

    Example:
        >>> steps_in_budget(60, spent_seconds=10, reserve_seconds=5, step_seconds=[0.1] * 25, done=30)
        480
    """
    left = budget_seconds - spent_seconds - reserve_seconds
    return max(done, done + math.floor(left / median(step_seconds) + 1e-9))


def learning_rate(step: int, *, largest: float, warmup_steps: int, total_steps: int | None) -> float:
    """The learning rate of a step: a linear rise, then a cosine to nothing at the end.

    Args:
        step: From 0.
        largest: Reached at the end of the rise.
        warmup_steps: Steps of the rise.
        total_steps: Steps in all; may be None during the rise, which does not depend on it.

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
