"""The loop of a training: steps, and after some of them a validation, a row of the log and a checkpoint."""

import dataclasses
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version

import numpy as np
import torch

from medfcn.errors import MemoryShortError, TrainingStoppedError
from medfcn.inference.card import Card
from medfcn.inference.model import Model
from medfcn.memory_errors import is_memory_error, shortage
from medfcn.networks.network import SliceNetwork
from medfcn.progress import Progress, warn
from medfcn.runs.checkpoints import Checkpoints
from medfcn.runs.stop import Stop
from medfcn.settings import Settings
from medfcn.training.budget import Costs, Lap, StepClock, Watch, pace_of, shortened_text, too_short
from medfcn.training.curve import Curve
from medfcn.training.curve_looks import CurveLooks, Due, scored_text
from medfcn.training.distributed import Machine, versions
from medfcn.training.final_choices import JUDGED_MOST
from medfcn.training.fold_steps import Agreement
from medfcn.training.outcome import Best, Outcome
from medfcn.training.prepare import Prepared
from medfcn.training.record import CURVE_DICE, VALIDATION_DICE, Log
from medfcn.training.schedule import Length, Schedule, validation_steps
from medfcn.training.state import State
from medfcn.training.stepping import Stepper
from medfcn.training.validation import CaseDices, Outputs, ScoredCase, case_seconds, dices_of_cases

_TIMED_MOST = 24
"""Validation cases that are timed; more take as long each."""
_WATCHED_EVERY = 10
"""Steps between two looks at the clock that several processes take together."""


class Trainer:
    """One training, from its first step to its last, in this process and in those that share its batches.

    The first process alone validates, writes and reports; the others make the same steps.

    Args:
        prepared: Cases, plan and slices.
        settings: All settings.
        machine: Device, seed, clock and processes.
        network: As it starts; in other processes than the first, of the same shape.
        log: Gets a row for each epoch.
        progress: Where messages go.
        curve: The validation slices that are looked at on the way; None looks at none.
    """

    def __init__(
        self,
        prepared: Prepared,
        settings: Settings,
        machine: Machine,
        network: SliceNetwork,
        *,
        log: Log,
        progress: Progress,
        curve: Curve | None = None,
    ) -> None:
        self.prepared = prepared
        self.settings = settings
        self.machine = machine
        self.log = log
        self.progress = progress
        self.stepper = Stepper(prepared, settings, machine, network, progress)
        self.step, self.is_judged = 0, True
        self.schedule: Schedule | None = None
        self.costs: Costs | None = None
        self.best = Best()
        self.losses: deque[float] = deque(maxlen=settings.training.epoch_steps)
        self.step_seconds: list[float] = []
        self._checkpoints: Checkpoints | None = None
        self._stop = Stop()
        self._of_what = prepared.survey.of_labelled(prepared.split.validation)
        self._watch: Watch | None = None
        self._agreement: Agreement | None = None
        self._name = "train"
        self.looks = CurveLooks(curve, log, progress)

    def run(
        self,
        length: Length,
        *,
        checkpoints: Checkpoints | None = None,
        stop: Stop | None = None,
        agreement: Agreement | None = None,
    ) -> Outcome:
        """Train for a length, and keep the weights that were best on the validation cases.

        In a fold, nothing is chosen on the validation cases: the last weights are kept. A trainer that was given a
        state continues from there, and ends as it would have ended without the interruption.

        Args:
            length: The requested length.
            checkpoints: Where to save states.
            stop: Looked at between two steps.
            agreement: With the other folds, on the number of steps that a budget gives.

        Raises:
            TrainingStoppedError: `stop` was asked to.
            TrainingError: The loss is not finite, or memory runs out.
        """
        with self._at_work(checkpoints, stop):
            self._agreement = agreement
            self.schedule = self.schedule or length.schedule or self._measure(length)
            if length.budget_seconds is not None:
                self.costs = self.costs or self._time_costs()
                self.machine.world.wait()
                self._watch = Watch.over(length, self.log.started, self.costs, self.step_seconds[StepClock.WARM :])
            self._continue(self.schedule.total)
        return self._outcome()

    def run_lap(
        self, lap: Lap, *, checkpoints: Checkpoints | None = None, stop: Stop | None = None
    ) -> Outcome | None:
        """Train until a lap ends, and save the state; as `run` otherwise.

        Returns:
            The outcome after the last step; None before.
        """
        with self._at_work(checkpoints, stop):
            self._name = f"fold {self.prepared.split.fold}"
            self._take_up(lap.schedule)
            if self.schedule is None:
                self._time_steps(lap.until)
                self.costs = self._time_costs() if lap.times_end else None
            else:
                if lap.allowed_seconds is not None:
                    deadline = time.monotonic() + lap.allowed_seconds
                    self._watch = Watch(deadline, Costs(), self.step_seconds[StepClock.WARM :])
                self._continue(lap.until)
            if self.schedule is None or self.step < self.schedule.total:
                self._save()
                return None
        return self._outcome()

    @contextmanager
    def _at_work(self, checkpoints: Checkpoints | None, stop: Stop | None) -> Iterator[None]:
        self._checkpoints, self._stop = checkpoints, stop or Stop()
        try:
            with self._stop.looking():
                self.stepper.gradients.join()
                yield
        except MemoryShortError:
            raise
        except Exception as error:
            if not is_memory_error(error):
                raise
            raise MemoryShortError(
                f"{shortage(error)}; set a smaller slices.window, network.width or prediction.batch_size, or take "
                "another --device"
            ) from error

    def _outcome(self) -> Outcome:
        best, schedule = self.best, self.schedule or Schedule.of(self.step)
        if best.weights:
            self.stepper.averaged.network.load_state_dict(best.weights)
        chosen = best.step > 0
        return Outcome(
            self._model(),
            schedule,
            best.step or schedule.total,
            chosen,
            tuple(self.stepper.parts),
            best.outputs,
        )

    def _take_up(self, schedule: Schedule | None) -> None:
        """Take the number of steps of all folds. One that has its own already is shortened, and never made longer."""
        if self.schedule is None or schedule is None:
            self.schedule = self.schedule or schedule
        elif schedule.total > self.step:
            self.schedule = self.schedule.shortened(self.step, schedule.total)

    def _time_steps(self, until: int) -> StepClock:
        """Make and time the first steps of a budget.

        The warm-up makes them the same for every number.
        """
        clock = StepClock(Length(), started=self.log.started, step_seconds=self.step_seconds)
        while self.step < until:
            clock.begin()
            self._step(None)
            clock.tick()
            self.step_seconds = clock.step_seconds
            self._leave_if_asked()
            if self._checkpoints is not None and self._checkpoints.is_due:
                self._save()
        return clock

    def _measure(self, length: Length) -> Schedule:
        """Make the first steps of a budget, and fix their number from the time they take."""
        clock, world = self._time_steps(StepClock.WARM + StepClock.MEASURED), self.machine.world
        clock.length = length
        if world.is_first:
            self.costs = self._time_costs()
            total, needed = clock.fit(
                self.costs,
                validations=lambda total: len(self._validation_steps(total)),
                looks=lambda total: self.looks.seconds(len(self.looks.steps(total)), pace=0.0),
            )
            found = self._schedule(total)
            self.schedule = self._agreement.agree(found) if self._agreement else found
            self._report_steps(length.budget_seconds or 0.0, needed, found)
        self.schedule = world.broadcast(self.schedule)
        self._save()
        return self.schedule

    def _report_steps(self, budget_seconds: float, needed_seconds: float, found: Schedule) -> None:
        """Report the number of steps that was just fixed, or that the budget is too short."""
        total, pace = found.total, pace_of(self.step_seconds[StepClock.WARM :])
        if needed_seconds > budget_seconds:
            warn(self.progress, too_short(budget_seconds, needed_seconds, total))
        elif self.schedule == found:
            seconds = 0.0 if self.costs is None else self.costs.validation_seconds
            self.progress.say(
                f"{total} steps fit the budget: {1000 * pace:.0f} ms a step, {seconds:.1f} s a validation; "
                f"{self._repeated()}"
            )
        if self._agreement is not None and self.schedule is not None:
            other = "" if self.schedule == found else f", as another fold found; here {total} would fit the budget"
            self.progress.say(
                f"all folds take {self.schedule.text} steps{other}; those that do not share {self._agreement.run} "
                f"need --steps {self.schedule.text}"
            )

    def _time_costs(self) -> Costs:
        """Time a validation, and a case of the end."""
        cases, split = self.prepared.validation, self.prepared.split
        if not cases:  # another process has them
            return Costs()
        timed = cases[:_TIMED_MOST]
        self.looks.look(self._model(), self.step)
        began = time.monotonic()
        _, outputs = self._validate(timed)
        seconds = (time.monotonic() - began) / len(timed) * len(cases)
        if outputs is not None:
            outputs.remove()
        return Costs.of(
            validation_seconds=seconds,
            case_seconds=case_seconds(self.prepared.survey, timed),
            cases=len(cases),
            judged=min(JUDGED_MOST, len(split.training)),
            is_fold=bool(split.fold),
        )

    def _schedule(self, total: int) -> Schedule:
        """So many steps, which were fixed now; the learning rate may have waited for it, above its warm-up."""
        return Schedule.of(total, since=self.step if self.step > self.settings.training.warmup_steps else 0)

    def _repeated(self) -> str:
        """The options that repeat the training."""
        steps = "" if self.schedule is None else f"--steps {self.schedule.text} "
        return f"repeat with {steps}--threads {torch.get_num_threads()}"

    def _validation_steps(self, schedule: Schedule | int) -> set[int]:
        """The steps after which to validate; none in a fold, where nothing is chosen."""
        if self.prepared.split.fold:
            return set()
        return validation_steps(schedule) if isinstance(schedule, int) else schedule.validation_steps()

    def _continue(self, until: int) -> None:
        """Make the steps that are not made yet, and do what is due after each."""
        while self.schedule is not None and (self.step < min(until, self.schedule.total) or not self.is_judged):
            self._follow(self.schedule, min(until, self.schedule.total))
        self._leave_if_asked()  # during the last validation, after which nothing else looks

    def _follow(self, schedule: Schedule, until: int) -> None:
        """Make steps until one of them, or until the training is shortened."""
        validate_after, look_after = self._validation_steps(schedule), self.looks.steps(schedule)
        self.looks.report(look_after)
        with self.progress.task(self._name, schedule.total) as task:
            for _ in range(self.step):
                task.advance()
            while True:
                began = time.monotonic()
                if not self.is_judged:
                    due = self.looks.due(self.step, validations=validate_after, looks=look_after)
                    self._judge(schedule, due)
                    if due != Due():
                        began = time.monotonic()
                if self.step >= until or self._is_shortened(schedule, validate_after, look_after):
                    return
                self._step(schedule)
                task.advance(f"loss {self.losses[-1]:.3f}")
                self._leave_if_asked()
                if self._watch is not None:
                    self._watch.add(time.monotonic() - began)

    def _is_shortened(self, schedule: Schedule, validate_after: set[int], look_after: set[int]) -> bool:
        """Shorten a training that would not end in time."""
        watch, world = self._watch, self.machine.world
        if watch is None or (world.size > 1 and self.step % _WATCHED_EVERY):
            return False
        total = schedule.total
        if world.is_first:
            validations, looks = (sum(step > self.step for step in steps) for steps in (validate_after, look_after))
            look_seconds = self.looks.seconds(looks, pace=watch.pace(schedule.total - self.step))
            total = watch.total(schedule, self.step, validations=validations, look_seconds=look_seconds)
            if self._agreement is not None and not self.step % _WATCHED_EVERY:
                agreed = self._agreement.schedule()
                total = min(total, agreed.total) if agreed is not None and agreed.total > self.step else total
        total = world.broadcast(total)
        if total == schedule.total:
            return False
        self.schedule = schedule.shortened(self.step, total)
        if self._agreement is not None and world.is_first:
            self._agreement.agree(self.schedule)
        pace = watch.pace(schedule.total - self.step)
        warn(self.progress, f"{shortened_text(schedule.total, self.schedule, pace)}; {self._repeated()}")
        self._save()
        return True

    def _step(self, schedule: Schedule | None) -> None:
        """Make one optimiser step."""
        self.losses.append(self.stepper.make(self.step, schedule))
        self.step, self.is_judged = self.step + 1, False

    def _judge(self, schedule: Schedule, due: Due) -> None:
        """Do what is due after a step, in the first process; the others wait if it may take long."""
        if self.machine.world.is_first:
            self._record(schedule, due)
        self.is_judged = True
        if due.validation:
            self.machine.world.wait()

    def _record(self, schedule: Schedule, due: Due) -> None:
        """A validation, a look at the curve, a row of the log, a checkpoint: those that are due."""
        step, total, validate = self.step, schedule.total, due.validation
        dices = self.looks.look(self._model(), step, is_drawn=due.picture) if due.look else {}
        if validate:
            scores, outputs = self._validate(self.prepared.validation)
            dices |= self.log.named(VALIDATION_DICE, scores.dice, scores.of_labels)
            dice = scores.dice
            if dice is not None and dice > max(self.best.dice, 0):  # one that scores nothing chooses nothing
                self.best.replace(dice, step, self.stepper.weights(), outputs)
            elif step == total and not self.best.step:
                self.best.outputs = outputs  # nothing was chosen, so that the last weights are kept
            elif outputs is not None:
                outputs.remove()
        epoch_steps = self.settings.training.epoch_steps
        if step % epoch_steps == 0 or step == total or due != Due():
            recent = float(np.mean(list(self.losses)))
            self.log.add(
                step=step,
                epoch=step / epoch_steps,
                loss=recent,
                learning_rate=self.stepper.learning_rate(step - 1, schedule),
                dices=dices,
            )
            if due != Due():
                column, names = VALIDATION_DICE if validate else CURVE_DICE, self.prepared.survey.labels.names
                scored = scored_text(column, dices, names)
                of_what = "" if dices[column] is None else self._of_what
                self.progress.say(f"step {step} of {total}: mean loss {recent:.3f}, {scored}{of_what}")
        self.is_judged = True
        if self._checkpoints is not None and (validate or step == total or self._checkpoints.is_due):
            self._save()

    def _validate(self, cases: Sequence[ScoredCase]) -> tuple[CaseDices, Outputs | None]:
        """The Dice of the averaged weights, and their probabilities."""
        outputs = Outputs(self._model(), self.prepared.state / f"outputs_{self.step}", cases)
        return dices_of_cases(outputs, cases, before_each=self._leave_validation_if_asked), outputs

    def _model(self) -> Model:
        prepared, transforms = self.prepared, self.prepared.survey.transforms
        card = Card(
            labels=prepared.survey.labels,
            channels=prepared.survey.dataset.channel_names,
            dropped=prepared.survey.dropped,
            plan=prepared.plan,
            settings=self.settings,
            one_part=(),
            components="largest and most certain",
            weights_sha256="",
            versions=versions(monai=prepared.monai or (version("monai") if self.settings.network.monai else "")),
            transforms=() if transforms is None else tuple(transforms.to_json()),
        )
        return Model(self.stepper.averaged.network, card, device=self.machine.device, transforms=transforms)

    def _leave_if_asked(self) -> None:
        """Save and leave after a step, if any process was asked to."""
        number = self.machine.world.largest(self._asked())
        if number:
            self._save()
            self.machine.world.wait()
            raise self._stopped(number)

    def _leave_validation_if_asked(self) -> None:
        """Save and leave between two cases; the other processes only wait, and end with this one."""
        number = self._asked()
        if number:
            self._save()
            raise self._stopped(number)

    def _asked(self) -> int:
        """The number of the signal that asked this process to stop; 0 for none."""
        return self._stop.signal_number if self._stop.is_asked else 0

    def _stopped(self, signal_number: int) -> TrainingStoppedError:
        of = "" if self.schedule is None else f" of {self.schedule.total}"
        how = "" if self._checkpoints is None else ", which is saved; go on with the same command and --resume"
        return TrainingStoppedError(f"stopped after step {self.step}{of}{how}", signal_number=signal_number)

    def _save(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.write(self.step, self.state().save)

    def state(self) -> State:
        """The state between two steps; its tensors are those in use."""
        return State(
            step=self.step,
            total=None if self.schedule is None else self.schedule.total,
            is_judged=self.is_judged,
            best_dice=self.best.dice,
            best_step=self.best.step,
            best=self.best.weights,
            losses=list(self.losses),
            step_seconds=list(self.step_seconds),
            **self.stepper.state(),
            **self.log.state(),
            changes=[] if self.schedule is None or self.schedule.is_plain else list(self.schedule.changes),
            costs=[] if self.costs is None else list(dataclasses.astuple(self.costs)),
        )

    def restore(self, state: State) -> None:
        """Continue from a state; the time used before counts.

        Raises:
            TrainingError: It is the state of another network.
        """
        self.stepper.restore(state)
        self.log.restore(state)
        self.step, self.schedule, self.is_judged = state.step, state.schedule, state.is_judged
        self.costs = Costs(*state.costs) if state.costs else None
        self.best = Best(state.best_dice, state.best_step, state.best)
        self.losses.extend(state.losses)
        self.step_seconds = list(state.step_seconds)
