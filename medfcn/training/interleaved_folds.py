"""Folds that share a budget, trained in laps: each makes some steps, then the next, until all have made as many.

So one pace is measured for all of them, and a machine that slows down shortens all of them alike. A fold pauses as if
it was stopped, and goes on as if it was resumed, which changes no bit of its result.
"""

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack

import torch

from medfcn.errors import TrainingStoppedError
from medfcn.progress import Progress, warn
from medfcn.systems import allow_open_files
from medfcn.text import counted
from medfcn.training.budget import END_MARGIN, Costs, Lap, StepClock, Watch, pace_of, shortened_text, too_short
from medfcn.training.fold_steps import Agreement
from medfcn.training.run import Run
from medfcn.training.schedule import Length, Schedule
from medfcn.training.training import Training

_PAUSES_SHARE = 0.02
"""Largest share of the time that pauses may take; a lap has as many steps as that needs."""
_LEFT_IN_LAP = 0.25
"""Share of the remaining steps in a lap."""
_KEPT_SHARE = 0.04
"""Share of the budget that is kept beside that of any training: what is lost late cannot be shared by all folds."""
_PAUSES_MOST = 2
"""Pauses of each fold for which time is kept."""
_MEASURED = StepClock.WARM + StepClock.MEASURED
_MEASURED_SHARE, _MEASURED_LEAST = 0.5, 3
"""Largest share of the time left in which the first steps are measured; fewest steps that are, in any case."""


class InterleavedFolds:
    """The trainings of some folds, one lap of each after the other.

    Args:
        trainings: Not prepared yet, in the order of their folds.
        agreement: Where the number of steps is recorded.
        length: The budget of all of them together.
        started: `time.monotonic()` when the command began.
        progress: Where messages go.
    """

    def __init__(
        self,
        trainings: Sequence[Training],
        agreement: Agreement,
        length: Length,
        *,
        started: float,
        progress: Progress,
    ) -> None:
        self.trainings = trainings
        self.agreement = agreement
        self.length = length
        self.started = started
        self.progress = progress
        self.pause_seconds = 0.0
        self.step = 0
        self._threads: int | None = None
        self._is_told = False

    def run(self) -> list[Run]:
        """Prepare and train all to the end; the runs in the order of the trainings."""
        agreed = self.agreement.look()
        if agreed is not None:
            self.started -= agreed.seconds
        with ExitStack() as clearing:
            for training in self.trainings:
                clearing.enter_context(training.cleared_in_vain())
                training.begin()
            allow_open_files()  # the slices of every fold are open at once
            for training in self.trainings:
                self.progress.say(f"fold {training.split.fold}")
                training.prepare()
            until = _MEASURED
            if agreed is None or agreed.schedule is None:
                watch, schedule = self._measure()
                until = self.step
            else:
                watch, schedule, until = self._watch(agreed.costs, ()), agreed.schedule, agreed.until or until
            runs = self._lap(min(until, schedule.total), schedule, watch)
            while not runs:
                schedule = self._shortened(until, schedule, watch)
                until = self._next(until, schedule, watch)
                runs = self._lap(min(until, schedule.total), schedule, watch)
            return runs

    def _measure(self) -> tuple[Watch, Schedule]:
        """Make the first steps of every fold, and fix the number of all from the time they take."""
        began, count, budget = time.monotonic(), len(self.trainings), self.length.budget_seconds or 0.0
        made, last = self._measured(self.trainings[0]), self.trainings[-1]
        for training in self.trainings[1:-1]:
            self._one(training, Lap(made))
        self._one(last, Lap(made, times_end=True))
        costs, each = last.costs or Costs(), [training.step_seconds for training in self.trainings]
        together = [sum(seconds) for seconds in zip(*each, strict=True)]
        pauses = time.monotonic() - began - sum(together) - costs.validation_seconds
        self.step, self.pause_seconds = made, max(0.0, pauses / count)
        clock = StepClock(self.length, started=self.started, step_seconds=together)
        kept = _KEPT_SHARE * budget + count * _PAUSES_MOST * self.pause_seconds
        ends = Costs(0.0, count * costs.end_seconds + kept)
        total, needed = clock.fit(ends, validations=lambda total: 0)
        warmup = self.trainings[0].job.settings.training.warmup_steps
        self.agreement.note(validation_seconds=costs.validation_seconds, end_seconds=costs.end_seconds)
        schedule = self.agreement.agree(Schedule.of(total, since=made if warmup < made else 0))
        if needed > budget and not self._is_told:
            warn(self.progress, too_short(budget, needed, total, folds=count))
        fit = "" if needed > budget else " fit the budget"
        pace = 1000 * pace_of(together[StepClock.WARM :]) / count
        self.progress.say(
            f"{total} steps in each of {counted(count, 'fold')}{fit}: {pace:.0f} ms a step, "
            f"{costs.end_seconds:.1f} s for the end of each; {self._repeated(schedule)}"
        )
        return self._watch(costs, together[StepClock.WARM :]), schedule

    def _measured(self, first: Training) -> int:
        """The number of steps that are measured in each fold: fewer where many would take most of the budget.

        They are made in the first fold, where it is noticed soonest that a budget is too short.
        """
        count, budget = len(self.trainings), self.length.budget_seconds or 0.0
        least = max(math.ceil(_MEASURED / count), StepClock.WARM + _MEASURED_LEAST)
        self._one(first, Lap(least))
        pace = pace_of(first.step_seconds[StepClock.WARM :])
        left = budget - (time.monotonic() - self.started)
        made = max(len(first.step_seconds), min(_MEASURED, math.floor(_MEASURED_SHARE * left / (count * pace))))
        self._one(first, Lap(made))
        needed = time.monotonic() - self.started + (count - 1) * made * pace
        if needed > budget:
            self._is_told = True
            warn(self.progress, too_short(budget, needed, made, folds=count, with_end=False))
        return made

    def _watch(self, costs: Costs, step_seconds: Sequence[float]) -> Watch:
        """The watch over all folds; a step of it is one of each."""
        ends = Costs(0.0, len(self.trainings) * costs.end_seconds)
        return Watch.over(self.length, self.started, ends, step_seconds)

    def _lap(self, until: int, schedule: Schedule, watch: Watch) -> list[Run]:
        """A lap of every fold; their runs after the last one."""
        count, steps = len(self.trainings), max(0, until - self.step)
        runs: list[Run] = []
        self.agreement.note(until=until, seconds=time.monotonic() - self.started)
        began = time.monotonic()
        for number, training in enumerate(self.trainings):
            allowed = None
            if until == schedule.total:
                # All that was kept is given away here: a fold that is shortened now is shorter than the others.
                end = self.started + (self.length.budget_seconds or 0.0)
                ends = watch.costs.end_seconds / (1 + END_MARGIN) * (count - number) / count
                later = (count - number - 1) / count * steps * watch.pace(steps)
                allowed = end - time.monotonic() - ends - later
            run = self._one(training, Lap(until, schedule, allowed))
            runs += [] if run is None else [run]
        if self.step and not runs:  # after a resume it is not known how many steps were made
            for _ in range(steps):
                watch.add((time.monotonic() - began) / steps)
        self.step = until
        return runs

    def _one(self, training: Training, lap: Lap) -> Run | None:
        """A lap of one fold; if it is stopped, the time used so far is recorded."""
        try:
            run = training.lap(lap, threads=self._threads)
        except TrainingStoppedError:
            self.agreement.note(seconds=time.monotonic() - self.started)
            raise
        self._threads = training.job.threads
        return run

    def _shortened(self, step: int, schedule: Schedule, watch: Watch) -> Schedule:
        """The number of steps that all folds can still make in time."""
        total = watch.total(schedule, step, validations=0)
        if total == schedule.total:
            return schedule
        after = self.agreement.agree(schedule.shortened(step, total))
        count = len(self.trainings)
        pace = watch.pace(schedule.total - step) / count
        warn(self.progress, f"{shortened_text(schedule.total, after, pace, folds=count)}; {self._repeated(after)}")
        return after

    def _next(self, step: int, schedule: Schedule, watch: Watch) -> int:
        """The step at which the next lap ends."""
        left = schedule.total - step
        pauses = len(self.trainings) * self.pause_seconds / max(1e-9, _PAUSES_SHARE * watch.pace(left))
        steps = max(1, math.ceil(_LEFT_IN_LAP * left), math.ceil(min(pauses, left)))
        return schedule.total if left < 1.5 * steps else step + steps

    def _repeated(self, schedule: Schedule) -> str:
        """The options that repeat the trainings."""
        return f"repeat with --steps {schedule.text} --threads {self._threads or torch.get_num_threads()}"
