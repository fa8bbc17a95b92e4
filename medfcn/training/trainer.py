"""The steps of a training, from prepared slices and a network to the weights that were best.

A plain torch loop; after some steps the first process validates, adds a row to the log and saves what resuming
needs.
"""

import copy
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from medfcn.errors import TrainingError, TrainingStoppedError
from medfcn.inference.card import Card
from medfcn.inference.devices import fastest_threads, has_fast_bfloat16
from medfcn.inference.model import Model
from medfcn.networks.network import SliceNetwork, channels_last
from medfcn.networks.objective import Objective
from medfcn.networks.supervision import SupervisedFCN
from medfcn.progress import Progress
from medfcn.runs.checkpoints import Checkpoints
from medfcn.runs.stop import Stop
from medfcn.settings import Settings
from medfcn.training.averaging import AveragedWeights
from medfcn.training.batches import Batches
from medfcn.training.distributed import Machine, versions
from medfcn.training.gradients import Gradients
from medfcn.training.optimiser import build_optimiser, largest_rate, set_training_mode
from medfcn.training.prepare import Prepared
from medfcn.training.record import Log, cpu_seconds
from medfcn.training.schedule import Length, StepClock, learning_rate
from medfcn.training.state import State
from medfcn.training.validate import mean_dice

_VALIDATIONS_MOST = 6
_STEPS_BETWEEN_VALIDATIONS = 500
_TIMED_MOST = 24
"""Validation cases that are timed; more take as long each."""


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Attributes:
        model: With the weights that were best on the validation cases.
        steps: Optimiser steps made.
        best_step: The step those weights are from.
        micro_batch: Slices that went through the network at once, in the end.
    """

    model: Model
    steps: int
    best_step: int
    micro_batch: int


class Trainer:
    """One training, from its first step to its last, in this process and in those it shares its batches with.

    The first process alone validates, writes and speaks; the others make the same steps.

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
        plan, device = prepared.plan, machine.device
        self.label_count = len(prepared.survey.labels.entries)
        share = machine.world.share(plan.batch_size)
        self.batches = Batches(prepared, settings, seed=machine.seed, share=share, device=device)
        members = prepared.survey.labels.members
        training = settings.training
        self.supervised = SupervisedFCN(
            channels_last(network.to(device)),
            label_count=self.label_count,
            deep=training.deep_supervision,
            presence=training.presence_weight > 0,
            distances=training.distance_weight > 0,
        ).to(device)
        self.averaged = AveragedWeights(self.supervised.network, decay=training.ema_decay)
        self.optimiser = build_optimiser(self.supervised, training)
        self.largest_rate = largest_rate(self.supervised.network, settings.network, training)
        self.objective = Objective.of(
            settings,
            self.label_count,
            members=None if members is None else torch.tensor(members),
            shared=machine.world.shared,
        ).to(device)
        wanted = training.precision
        self.use_bfloat16 = wanted == "bfloat16" or (wanted == "auto" and has_fast_bfloat16(device))
        self.gradients = Gradients(
            self.supervised,
            self.objective,
            micro_batch=plan.batch_size,
            use_bfloat16=self.use_bfloat16,
            progress=progress,
            world=machine.world,
        )
        self.step, self.is_judged = 0, True
        self.total: int | None = None
        self.best_dice, self.best_step = -1.0, 0
        self.best: dict[str, torch.Tensor] = {}
        self.losses: deque[float] = deque(maxlen=training.epoch_steps)
        self.step_seconds: list[float] = []
        self._checkpoints: Checkpoints | None = None
        self._stop = Stop()

    def fastest_threads(self) -> int:
        """The number of CPU threads with which a step takes less time; the network is left as it is.

        Where several processes share a machine's cores, the number that each was given.
        """
        if self.machine.device.type != "cpu" or self.machine.world.size > 1:
            return torch.get_num_threads()
        supervised = copy.deepcopy(self.supervised).train()
        images, targets = self.batches.of(0)

        def work() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.use_bfloat16):
                outputs = supervised(images)
            self.objective(outputs, targets).backward()

        return fastest_threads(work)

    def run(self, length: Length, *, checkpoints: Checkpoints | None = None, stop: Stop | None = None) -> Outcome:
        """Train for a length, and keep the weights that were best on the validation cases.

        Without a choice of weights on the validation cases, the last are kept. A trainer that was given a state goes
        on from there, and ends where it would have ended without the interruption.

        Args:
            length: How long.
            checkpoints: Where to save what resuming needs.
            stop: Looked at between two steps.

        Raises:
            TrainingStoppedError: `stop` was asked to.
            TrainingError: The loss is not finite, or memory runs out.
        """
        self._checkpoints, self._stop = checkpoints, stop or Stop()
        try:
            with self._stop.looking():
                self.gradients.join()
                total = self.total or length.steps or self._measure(length)
                self.total = total
                self._go_on(total)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                "out of GPU memory; set a smaller slices.window, network.width or prediction.batch_size, or take "
                "another --device"
            ) from error
        if self.best:
            self.averaged.network.load_state_dict(self.best)
        return Outcome(self._model(), total, self.best_step or total, self.gradients.micro_batch)

    def _measure(self, length: Length) -> int:
        """Make the first steps of a budget, and fix their number from the time they take.

        The warm-up makes them the same whatever the number.
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
        self.total = world.broadcast(self._fix_steps(clock, length) if world.is_first else None)
        self._save()
        return self.total

    def _fix_steps(self, clock: StepClock, length: Length) -> int:
        """How many steps the budget allows, once steps and a validation were timed."""
        timed = self.prepared.split.validation[:_TIMED_MOST]
        began = time.monotonic()
        self._validate(timed)
        validation_seconds = (time.monotonic() - began) / len(timed) * len(self.prepared.split.validation)
        budget = length.budget_seconds or 0.0
        # The last validation also measures surfaces and writes masks; 2 % is kept for a machine that slows down.
        reserve = 2 * validation_seconds + 2.0 + 0.02 * budget
        total = clock.fix_steps(reserve_seconds=reserve)
        counted = len(self._validation_steps(total))
        reserve += counted * validation_seconds
        total = clock.fix_steps(reserve_seconds=reserve)
        needed = time.monotonic() - clock.started + reserve
        if needed > budget:
            self.progress.say(
                f"a budget of {budget:g} s was asked for and is used up: about {needed:.0f} s are needed for the "
                f"{total} steps that were measured and what follows; it ends after them, so give a longer budget"
            )
            return total
        step_seconds = float(np.median(clock.step_seconds[clock.WARM :]))
        self.progress.say(
            f"{total} steps fit the budget: {1000 * step_seconds:.0f} ms a step, {validation_seconds:.1f} s a "
            f"validation; repeat with --steps {total} --threads {torch.get_num_threads()}"
        )
        return total

    def _validation_steps(self, total: int) -> set[int]:
        """After which steps to validate; follows from their number alone, so that a repetition does the same.

        Never in a fold: nothing would follow from it.
        """
        if self.prepared.split.fold:
            return set()
        count = max(1, min(_VALIDATIONS_MOST, total // _STEPS_BETWEEN_VALIDATIONS))
        return {total - round(index * total / (2 * count)) for index in range(count)}

    def _go_on(self, total: int) -> None:
        """All steps that are not made yet, and what is due after each."""
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

    def _judge(self, total: int, *, validate: bool) -> None:
        """What is due after a step, in the first process; the others wait where it may take long."""
        if self.machine.world.is_first:
            self._record(total, validate=validate)
        self.is_judged = True
        if validate:
            self.machine.world.wait()

    def _record(self, total: int, *, validate: bool) -> None:
        """What is due after a step: a validation, a row of the log, a checkpoint."""
        step, epoch_steps = self.step, self.settings.training.epoch_steps
        dice = self._validate(self.prepared.split.validation) if validate else None
        if dice is not None and dice > self.best_dice:
            self.best_dice, self.best_step, self.best = dice, step, self._weights()
        if step % epoch_steps == 0 or step == total or validate:
            recent = float(np.mean(list(self.losses)))
            self.log.add(
                step=step,
                epoch=step / epoch_steps,
                loss=recent,
                learning_rate=self._learning_rate(step - 1, total),
                validation_dice=dice,
            )
            if dice is not None:
                self.progress.say(f"step {step} of {total}: mean loss {recent:.3f}, validation Dice {dice:.4f}")
        self.is_judged = True
        if self._checkpoints is not None and (validate or step == total or self._checkpoints.is_due):
            self._save()

    def _save(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.write(self.step, self.state().save)

    def _leave_if_asked(self) -> None:
        """Save and leave after a step, when any process was asked to."""
        number = self.machine.world.largest(self._asked())
        if number:
            self._save()
            self.machine.world.wait()
            raise self._stopped(number)

    def _leave_validation_if_asked(self) -> None:
        """Save and leave in between; the other processes only wait, and end with this one."""
        number = self._asked()
        if number:
            self._save()
            raise self._stopped(number)

    def _asked(self) -> int:
        """The number of the signal that asked this process to stop, 0 for none."""
        return self._stop.signal_number if self._stop.is_asked else 0

    def _stopped(self, signal_number: int) -> TrainingStoppedError:
        of = "" if self.total is None else f" of {self.total}"
        how = "" if self._checkpoints is None else ", which is saved; go on with the same command and --resume"
        return TrainingStoppedError(f"stopped after step {self.step}{of}{how}", signal_number=signal_number)

    def state(self) -> State:
        """Where the training stands; its tensors are those in use."""
        seconds, used = self.time_used()
        return State(
            step=self.step,
            total=self.total,
            is_judged=self.is_judged,
            supervised=self.supervised.state_dict(),
            averaged=self.averaged.network.state_dict(),
            updates=self.averaged.updates,
            optimiser=self.optimiser.state_dict(),
            best_dice=self.best_dice,
            best_step=self.best_step,
            best=self.best,
            losses=list(self.losses),
            step_seconds=list(self.step_seconds),
            rows=list(self.log.rows),
            micro_batch=self.gradients.micro_batch,
            seconds=seconds,
            cpu_seconds=used,
        )

    def time_used(self) -> tuple[float, float]:
        """Wall and CPU seconds so far, those before an interruption included."""
        return time.monotonic() - self.log.started, self.log.cpu_before + cpu_seconds()

    def restore(self, state: State) -> None:
        """Go on from a state, with the time used before counted in.

        Raises:
            TrainingError: It is not a state of this network.
        """
        try:
            self.supervised.load_state_dict(state.supervised)
            self.averaged.network.load_state_dict(state.averaged)
            self.optimiser.load_state_dict(state.optimiser)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise TrainingError("the saved state does not fit the network; start again with --overwrite") from error
        self.averaged.updates = state.updates
        self.gradients.micro_batch = state.micro_batch
        self.step, self.total, self.is_judged = state.step, state.total, state.is_judged
        self.best_dice, self.best_step, self.best = state.best_dice, state.best_step, state.best
        self.losses.extend(state.losses)
        self.step_seconds = list(state.step_seconds)
        self.log.rows = [tuple(row) for row in state.rows]
        self.log.started -= state.seconds
        self.log.cpu_before = state.cpu_seconds - self.machine.cpu_started

    def _learning_rate(self, step: int, total: int | None) -> float:
        warmup = self.settings.training.warmup_steps
        return learning_rate(step, largest=self.largest_rate, warmup_steps=warmup, total_steps=total)

    def _step(self, total: int | None) -> None:
        """One optimiser step."""
        step = self.step
        images, targets = self.batches.of(step)
        for group in self.optimiser.param_groups:
            group["lr"] = group["scale"] * self._learning_rate(step, total)
        set_training_mode(self.supervised, self.settings.training)
        loss = self.gradients.set_gradients(images, targets, seed=(self.machine.seed << 32) + step)
        norm = nn.utils.clip_grad_norm_(self.supervised.parameters(), self.settings.training.gradient_clip)
        value, size = torch.stack([loss, norm]).tolist()  # together, so that a GPU is waited for once
        if not math.isfinite(value) or not math.isfinite(size):
            names = ", ".join(self.batches.cases(step)[:8])
            what = f"the gradient's norm is {size}" if math.isfinite(value) else f"the loss is {value}"
            raise TrainingError(
                f"step {step + 1}: {what}; its slices are of {names}; resumed as it is, the training would meet this "
                "again: look at these volumes, or start again with a training.learning_rate below "
                f"{self.largest_rate:g}"
            )
        self.optimiser.step()
        self.averaged.update(self.supervised.network)
        self.losses.append(value)
        self.step, self.is_judged = step + 1, False

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.averaged.network.state_dict().items()}

    def _validate(self, ids: Sequence[str]) -> float:
        cases = self.prepared.cases(ids)
        return mean_dice(self._model(), cases, self.prepared, before_each=self._leave_validation_if_asked)

    def _model(self) -> Model:
        prepared = self.prepared
        card = Card(
            labels=prepared.survey.labels,
            channels=prepared.survey.dataset.channel_names,
            plan=prepared.plan,
            settings=self.settings,
            one_part=(),
            weights_sha256="",
            versions=versions(),
        )
        return Model(self.averaged.network, card, device=self.machine.device)
