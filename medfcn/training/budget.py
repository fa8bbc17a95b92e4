"""The number of steps that fit a budget of time, and fewer where the machine slows down."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from medfcn.errors import SettingsError
from medfcn.text import counted
from medfcn.training.schedule import Length, Schedule

_SLOWEST_SHARE = 0.1
"""Share of the steps, the slowest ones, that say nothing of the pace: the machine did something else in them."""
_SLACK = 0.02
"""Share of the budget that is kept for a machine that slows down."""
_SLACK_ONCE_SLOW = 0.05
"""Share of the time left that is kept when a training is shortened, so that it is not shortened step by step."""
_PATIENCE = 5
"""A training is shortened again after a fifth of the steps left, when more is known of the new pace."""
_URGENT = 1.25
"""Or at once, if the steps would take this many times the time that is left."""
END_MARGIN = 0.2
"""Share by which the end may take longer than was measured: nothing can be shortened any more then."""
_FIXED_END_SECONDS = 2.0
"""For files, whatever their number."""


@dataclass(frozen=True)
class Costs:
    """The time that a training needs besides its steps.

    Attributes:
        validation_seconds: For one validation.
        end_seconds: From the last step to the report, for validation cases and files.
    """

    validation_seconds: float = 0.0
    end_seconds: float = 0.0

    @classmethod
    def of(cls, *, validation_seconds: float, case_seconds: float, cases: int, judged: int, is_fold: bool) -> "Costs":
        """The costs of a training from what was timed.

        Args:
            validation_seconds: Duration of one validation.
            case_seconds: Time to read and to score one case.
            cases: Number of validation cases.
            judged: Number of training cases that are predicted at the end.
            is_fold: The validation cases are predicted at the end alone, and are in two reports.
        """
        predicted = validation_seconds * (1 + judged / max(1, cases)) if is_fold else 2 * validation_seconds
        read = (3 if is_fold else 2) * cases + judged
        end = predicted + read * case_seconds + _FIXED_END_SECONDS
        return cls(validation_seconds, (1 + END_MARGIN) * end)


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

    def fit(
        self,
        costs: Costs,
        *,
        validations: Callable[[int], int],
        looks: Callable[[int], float] = lambda total: 0.0,
    ) -> tuple[int, float]:
        """The steps that the budget allows, with validations and the end of the training in it.

        Args:
            costs: Everything but steps.
            validations: Number of validations in so many steps.
            looks: Seconds of the looks of the curve in so many steps.

        Returns:
            The number, and the seconds that are needed in any case, which may exceed the budget.
        """
        budget = self.length.budget_seconds or 0.0
        reserve = costs.end_seconds + _SLACK * budget
        first = self.fix_steps(reserve_seconds=reserve)
        reserve += validations(first) * costs.validation_seconds + looks(first)
        total = self.fix_steps(reserve_seconds=reserve)
        return total, time.monotonic() - self.started + reserve


class Watch:
    """Finds the number of steps that a machine which slows down can still make in time.

    The next steps are expected to take as long as the last ones: as many as are still to be made. So a short
    disturbance long before the end changes little, and one that lasts is followed.

    Args:
        deadline: `time.monotonic()` by which everything has to be done.
        costs: Everything but steps.
        step_seconds: Durations of steps that were made before.
    """

    def __init__(self, deadline: float, costs: Costs, step_seconds: Sequence[float] = ()) -> None:
        self.deadline = deadline
        self.costs = costs
        self.step_seconds = list(step_seconds)

    @classmethod
    def over(cls, length: Length, started: float, costs: Costs, step_seconds: Sequence[float]) -> "Watch":
        """The watch over a budget that counts from `started`."""
        return cls(started + (1 - _SLACK / 2) * (length.budget_seconds or 0.0), costs, step_seconds)

    def add(self, seconds: float) -> None:
        """Tell the duration of a step."""
        self.step_seconds.append(seconds)

    def pace(self, steps: int) -> float:
        """Seconds of each of the next steps; 0 before any was made."""
        recent = self.step_seconds[-max(steps, StepClock.MEASURED) :]
        return pace_of(recent) if recent else 0.0

    def total(self, schedule: Schedule, step: int, *, validations: int, look_seconds: float = 0.0) -> int:
        """The number of all steps now; that of the schedule if it fits, else at least one more than were made.

        Args:
            schedule: The number so far.
            step: Number of steps made.
            validations: Number of validations that are still to be made.
            look_seconds: Time for the looks of the curve that are still to be made.
        """
        left, (last, _) = schedule.total - step, schedule.changes[-1]
        reserve = self.costs.end_seconds + validations * self.costs.validation_seconds + look_seconds
        seconds, pace = self.deadline - time.monotonic() - reserve, self.pace(left)
        is_early = bool(last) and step - last < left // _PATIENCE
        if left * pace <= (_URGENT if is_early else 1.0) * seconds:
            return schedule.total
        fitting = math.floor((1 - _SLACK_ONCE_SLOW) * seconds / pace) if seconds > 0 else 0
        return min(schedule.total, step + max(1, fitting))


@dataclass(frozen=True)
class Lap:
    """A part of a training that pauses, while others of the same number of steps are trained.

    Attributes:
        until: The step after which to pause.
        schedule: The number of steps of all; None while the first steps are timed.
        allowed_seconds: Time for the steps of the last lap, which is shortened if need be; None before.
        times_end: Find the `Costs` after the lap.
    """

    until: int
    schedule: Schedule | None = None
    allowed_seconds: float | None = None
    times_end: bool = False


def require_possible_budget(seconds: float, *, folds: int) -> None:
    """Refuse a budget that leaves the folds less time than the end of a training takes, before any work.

    Raises:
        SettingsError: It does.
    """
    if seconds < folds * _FIXED_END_SECONDS:
        raise SettingsError(
            f"budget {seconds:g} s: {counted(folds, 'fold')} have {seconds / folds:.1f} s each, less than the end "
            f"of a training takes ({_FIXED_END_SECONDS:g} s); give a longer budget, or fewer folds",
            field="budget",
        )


def too_short(
    budget_seconds: float, needed_seconds: float, steps: int, *, folds: int = 1, with_end: bool = True
) -> str:
    """The sentence about a budget that does not last for the steps that are measured.

    Args:
        budget_seconds: The budget.
        needed_seconds: What is needed at least.
        steps: Steps that are measured, in each fold.
        folds: Number of folds.
        with_end: The seconds contain the end of the trainings.
    """
    each, end = ("", "training") if folds == 1 else (f" in each of {counted(folds, 'fold')}", "trainings")
    what = f"and for the end of the {end}" if with_end else f"and more for the end of the {end}"
    return (
        f"the budget of {budget_seconds:g} s is used up: about {needed_seconds:.0f} s are needed for the {steps} "
        f"steps that are measured{each} {what}; it ends after them, so give a longer budget"
    )


def shortened_text(before: int, schedule: Schedule, pace: float, *, folds: int = 1) -> str:
    """The sentence about a training that was just shortened."""
    step, total = schedule.changes[-1]
    each = "" if folds == 1 else f" in each of {counted(folds, 'fold')}"
    return (
        f"slower than measured, {1000 * pace:.0f} ms a step: after step {step} shortened from {before} to {total} "
        f"steps{each}"
    )


def pace_of(step_seconds: Sequence[float]) -> float:
    """Seconds of a step: the mean without the slowest tenth."""
    kept = max(1, len(step_seconds) - math.floor(_SLOWEST_SHARE * len(step_seconds)))
    return fmean(sorted(step_seconds)[:kept])


def steps_in_budget(
    budget_seconds: float,
    *,
    spent_seconds: float,
    reserve_seconds: float,
    step_seconds: Sequence[float],
    done: int,
) -> int:
    """Steps that fit into the rest of a budget, at the pace of those measured; at least those made.

    Args:
        budget_seconds: Wall time of the whole command.
        spent_seconds: Of it, used so far.
        reserve_seconds: Of it, kept for validations and the end.
        step_seconds: Wall time of each measured step.
        done: Steps made so far.

    Example:
        >>> steps_in_budget(60, spent_seconds=10, reserve_seconds=5, step_seconds=[0.1] * 25, done=30)
        480
    """
    left = budget_seconds - spent_seconds - reserve_seconds
    return max(done, done + math.floor(left / pace_of(step_seconds) + 1e-9))
