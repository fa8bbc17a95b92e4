"""The number of steps that fit a budget of time."""

import math
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch

from medfcn.progress import Progress
from medfcn.training.schedule import Length


class StepClock:
    """Measures steps, and fixes how many fit into a budget.

    The first steps of a training warm caches up and are not counted. The learning rate of the warm-up does not
    depend on the number of steps, so `--steps` with the number that was fixed repeats a training of `--budget`.

    Args:
        length: The requested length.
        started: `time.monotonic()` when the command began; earlier by the time that a stopped training had used.
        step_seconds: Duration of each step that a stopped training had made.
    """

    WARM = 5
    MEASURED = 25

    def __init__(self, length: Length, *, started: float, step_seconds: Sequence[float] = ()) -> None:
        self.length = length
        self.started = started
        self.step_seconds = list(step_seconds)
        self._last = time.monotonic()

    def begin(self) -> None:
        """Start the time of a step."""
        self._last = time.monotonic()

    def tick(self) -> None:
        """End the time of a step."""
        now = time.monotonic()
        self.step_seconds.append(now - self._last)
        self._last = now

    def is_measured(self) -> bool:
        """True if enough warm steps were timed."""
        return len(self.step_seconds) >= self.WARM + self.MEASURED

    def fix_steps(self, *, reserve_seconds: float) -> int:
        """Steps of the whole training, those already made included.

        Args:
            reserve_seconds: Time for validations and for the end of the training.
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

    def fit(self, *, validation_seconds: float, validations: Callable[[int], int], progress: Progress) -> int:
        """The steps that the budget allows, with validations and the end of the training in it.

        Args:
            validation_seconds: Duration of one validation.
            validations: Number of validations in so many steps.
            progress: Where the number is reported, or that the budget is too short.
        """
        budget = self.length.budget_seconds or 0.0
        # The last validation also measures surfaces and writes masks; 2 % is kept for a machine that slows down.
        reserve = 2 * validation_seconds + 2.0 + 0.02 * budget
        reserve += validations(self.fix_steps(reserve_seconds=reserve)) * validation_seconds
        total = self.fix_steps(reserve_seconds=reserve)
        needed = time.monotonic() - self.started + reserve
        if needed > budget:
            progress.say(
                f"the budget of {budget:g} s is used up: about {needed:.0f} s are needed for the {total} steps that "
                "were measured and for the end of the training; it ends after them, so give a longer budget"
            )
            return total
        progress.say(
            f"{total} steps fit the budget: {1000 * median(self.step_seconds[self.WARM :]):.0f} ms a step, "
            f"{validation_seconds:.1f} s a validation; repeat with --steps {total} --threads "
            f"{torch.get_num_threads()}"
        )
        return total


def steps_in_budget(
    budget_seconds: float,
    *,
    spent_seconds: float,
    reserve_seconds: float,
    step_seconds: Sequence[float],
    done: int,
) -> int:
    """Steps that fit into the rest of a budget, at the median pace of those measured; at least those made.

    Example:
        >>> steps_in_budget(60, spent_seconds=10, reserve_seconds=5, step_seconds=[0.1] * 25, done=30)
        480
    """
    left = budget_seconds - spent_seconds - reserve_seconds
    return max(done, done + math.floor(left / median(step_seconds) + 1e-9))
