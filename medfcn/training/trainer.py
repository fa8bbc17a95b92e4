"""The loop of a training: steps, and after some of them a validation, a row of the log and a checkpoint."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np
import torch

from medfcn.errors import TrainingError, TrainingStoppedError
from medfcn.inference.card import Card
from medfcn.inference.model import Model
from medfcn.networks.network import SliceNetwork
from medfcn.progress import Progress
from medfcn.runs.checkpoints import Checkpoints
from medfcn.runs.stop import Stop
from medfcn.settings import Settings
from medfcn.training.budget import StepClock
from medfcn.training.distributed import Machine, versions
from medfcn.training.prepare import Prepared
from medfcn.training.record import Log
from medfcn.training.schedule import Length, validation_steps
from medfcn.training.state import State
from medfcn.training.stepping import Stepper
from medfcn.training.validation import Outputs, ScoredCase, mean_dice

_TIMED_MOST = 24
"""Validation cases that are timed; more take as long each."""


@dataclass(frozen=True)
class Outcome:
    """Result of the steps of a training.

    Attributes:
        model: With the weights that were best on the validation cases.
        steps: Optimiser steps made.
        best_step: The step of those weights.
        is_chosen: True if the validation cases chose them; otherwise they are the last ones.
        micro_batch: Number of slices that went through the network at once, in the end.
        outputs: The model's probabilities for the validation cases, if it was validated in this process.
    """

    model: Model
    steps: int
    best_step: int
    is_chosen: bool
    micro_batch: int
    outputs: Outputs | None


@dataclass
class Best:
    """The weights with the largest validation Dice so far.

    Attributes:
        dice: Their Dice; -1 without any.
        step: Their step; 0 without any.
        weights: The weights; empty without any.
        outputs: Their probabilities for the validation cases; None without any, and after a resume.
    """

    dice: float = -1.0
    step: int = 0
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    outputs: Outputs | None = None

    def replace(self, dice: float, step: int, weights: dict[str, torch.Tensor], outputs: Outputs | None) -> None:
        """Take better weights."""
        if self.outputs is not None:
            self.outputs.remove()
        self.dice, self.step, self.weights, self.outputs = dice, step, weights, outputs


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
    ) -> None:
        self.prepared = prepared
        self.settings = settings
        self.machine = machine
        self.log = log
        self.progress = progress
        self.stepper = Stepper(prepared, settings, machine, network, progress)
        self.step, self.is_judged = 0, True
        self.total: int | None = None
        self.best = Best()
        self.losses: deque[float] = deque(maxlen=settings.training.epoch_steps)
        self.step_seconds: list[float] = []
        self._checkpoints: Checkpoints | None = None
        self._stop = Stop()
        partly = prepared.survey.partly_labelled(prepared.split.validation)
        self._of_what = f" of the labelled voxels alone ({partly})" if partly else ""

    def run(self, length: Length, *, checkpoints: Checkpoints | None = None, stop: Stop | None = None) -> Outcome:
        """Train for a length, and keep the weights that were best on the validation cases.

        In a fold, nothing is chosen on the validation cases: the last weights are kept. A trainer that was given a
        state continues from there, and ends as it would have ended without the interruption.

        Args:
            length: The requested length.
            checkpoints: Where to save states.
            stop: Looked at between two steps.

        Raises:
            TrainingStoppedError: `stop` was asked to.
            TrainingError: The loss is not finite, or memory runs out.
        """
        self._checkpoints, self._stop = checkpoints, stop or Stop()
        try:
            with self._stop.looking():
                self.stepper.gradients.join()
                self.total = total = self.total or length.steps or self._measure(length)
                self._continue(total)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                "out of GPU memory; set a smaller slices.window, network.width or prediction.batch_size, or take "
                "another --device",
                code="OUT_OF_MEMORY",
            ) from error
        best = self.best
        if best.weights:
            self.stepper.averaged.network.load_state_dict(best.weights)
        micro_batch = self.stepper.gradients.micro_batch
        return Outcome(self._model(), total, best.step or total, best.step > 0, micro_batch, best.outputs)

    def _measure(self, length: Length) -> int:
        """Make the first steps of a budget, and fix their number from the time they take.

        The warm-up makes them the same for every number.
        """
        clock = StepClock(length, started=self.log.started, step_seconds=self.step_seconds)
        while not clock.is_measured():
            clock.begin()
            self._step(None)
            clock.tick()
            self.step_seconds = clock.step_seconds
            self._leave_if_asked()
            if self._checkpoints is not None and self._checkpoints.is_due:
                self._save()
        world = self.machine.world
        self.total = world.broadcast(self._fit(clock) if world.is_first else None)
        self._save()
        return self.total

    def _fit(self, clock: StepClock) -> int:
        """The number of steps of a budget, once steps are timed; one validation is timed here."""
        cases = self.prepared.validation
        timed = cases[:_TIMED_MOST]
        began = time.monotonic()
        _, outputs = self._validate(timed)
        seconds = (time.monotonic() - began) / len(timed) * len(cases)
        if outputs is not None:
            outputs.remove()
        return clock.fit(
            validation_seconds=seconds,
            validations=lambda total: len(self._validation_steps(total)),
            progress=self.progress,
        )

    def _validation_steps(self, total: int) -> set[int]:
        """The steps after which to validate; none in a fold, where nothing is chosen."""
        return set() if self.prepared.split.fold else validation_steps(total)

    def _continue(self, total: int) -> None:
        """Make all steps that are not made yet, and do what is due after each."""
        validate_after = self._validation_steps(total)
        with self.progress.task("train", total) as task:
            for _ in range(self.step):
                task.advance()
            while True:
                if not self.is_judged:
                    self._judge(total, validate=self.step in validate_after)
                if self.step == total:
                    return
                self._step(total)
                task.advance(f"loss {self.losses[-1]:.3f}")
                self._leave_if_asked()

    def _step(self, total: int | None) -> None:
        """Make one optimiser step."""
        self.losses.append(self.stepper.make(self.step, total))
        self.step, self.is_judged = self.step + 1, False

    def _judge(self, total: int, *, validate: bool) -> None:
        """Do what is due after a step, in the first process; the others wait if it may take long."""
        if self.machine.world.is_first:
            self._record(total, validate=validate)
        self.is_judged = True
        if validate:
            self.machine.world.wait()

    def _record(self, total: int, *, validate: bool) -> None:
        """A validation, a row of the log, a checkpoint: those that are due."""
        step, epoch_steps, dice = self.step, self.settings.training.epoch_steps, None
        if validate:
            dice, outputs = self._validate(self.prepared.validation)
            if dice is not None and dice > max(self.best.dice, 0):  # one that scores nothing chooses nothing
                self.best.replace(dice, step, self.stepper.weights(), outputs)
            elif step == total and not self.best.step:
                self.best.outputs = outputs  # nothing was chosen, so that the last weights are kept
            elif outputs is not None:
                outputs.remove()
        if step % epoch_steps == 0 or step == total or validate:
            recent = float(np.mean(list(self.losses)))
            self.log.add(
                step=step,
                epoch=step / epoch_steps,
                loss=recent,
                learning_rate=self.stepper.learning_rate(step - 1, total),
                validation_dice=dice,
            )
            if validate:
                scored = "no label to validate on" if dice is None else f"validation Dice {dice:.4f}{self._of_what}"
                self.progress.say(f"step {step} of {total}: mean loss {recent:.3f}, {scored}")
        self.is_judged = True
        if self._checkpoints is not None and (validate or step == total or self._checkpoints.is_due):
            self._save()

    def _validate(self, cases: Sequence[ScoredCase]) -> tuple[float | None, Outputs | None]:
        """Mean Dice of the averaged weights (see `mean_dice`), and their probabilities."""
        outputs = Outputs(self._model(), self.prepared.state / f"outputs_{self.step}", cases)
        return mean_dice(outputs, cases, before_each=self._leave_validation_if_asked), outputs

    def _model(self) -> Model:
        prepared, transforms = self.prepared, self.prepared.survey.transforms
        card = Card(
            labels=prepared.survey.labels,
            channels=prepared.survey.dataset.channel_names,
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
        of = "" if self.total is None else f" of {self.total}"
        how = "" if self._checkpoints is None else ", which is saved; go on with the same command and --resume"
        return TrainingStoppedError(f"stopped after step {self.step}{of}{how}", signal_number=signal_number)

    def _save(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.write(self.step, self.state().save)

    def state(self) -> State:
        """The state between two steps; its tensors are those in use."""
        return State(
            step=self.step,
            total=self.total,
            is_judged=self.is_judged,
            best_dice=self.best.dice,
            best_step=self.best.step,
            best=self.best.weights,
            losses=list(self.losses),
            step_seconds=list(self.step_seconds),
            **self.stepper.state(),
            **self.log.state(),
        )

    def restore(self, state: State) -> None:
        """Continue from a state; the time used before counts.

        Raises:
            TrainingError: It is the state of another network.
        """
        self.stepper.restore(state)
        self.log.restore(state)
        self.step, self.total, self.is_judged = state.step, state.total, state.is_judged
        self.best = Best(state.best_dice, state.best_step, state.best)
        self.losses.extend(state.losses)
        self.step_seconds = list(state.step_seconds)
