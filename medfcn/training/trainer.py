"""A data set → a run folder.

`train` composes: read and check every case, split by group, plan, prepare slices, then a plain torch loop, and
write the weights that were best on the validation cases with everything needed to use them.
"""

import copy
import math
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch
from torch import nn

from medfcn.config import Settings
from medfcn.errors import TrainingError
from medfcn.inference.card import Card
from medfcn.inference.devices import fastest_threads, has_fast_bfloat16
from medfcn.inference.model import Model
from medfcn.networks.fcn import FCN, channels_last
from medfcn.networks.objective import Objective
from medfcn.networks.supervision import SupervisedFCN
from medfcn.progress import Progress
from medfcn.slices.augment import Augmenter
from medfcn.slices.sampler import SliceSampler
from medfcn.training.averaging import AveragedWeights
from medfcn.training.optimiser import build_optimiser, largest_rate, set_training_mode
from medfcn.training.prepare import Prepared
from medfcn.training.record import Log
from medfcn.training.schedule import Length, StepClock, learning_rate
from medfcn.training.validate import mean_dice

_VALIDATIONS_MOST = 6
_STEPS_BETWEEN_VALIDATIONS = 500


@dataclass(frozen=True)
class Machine:
    """What a training runs on.

    Attributes:
        device: Where the network is.
        seed: Of every random number.
        started: `time.monotonic()` when the command began; budgets count from here.
    """

    device: torch.device
    seed: int
    started: float


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Attributes:
        model: With the weights that were best on the validation cases.
        steps: Optimiser steps made.
        best_step: The step those weights are from.
    """

    model: Model
    steps: int
    best_step: int


class Trainer:
    """One training, from its first step to its last.

    Args:
        prepared: Cases, plan and slices.
        settings: All settings.
        machine: Device, seed and clock.
        network: As it starts.
        log: Gets a row for each epoch.
        progress: Where messages go.
    """

    def __init__(
        self,
        prepared: Prepared,
        settings: Settings,
        machine: Machine,
        network: FCN,
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
        self.sampler = SliceSampler(
            prepared.store,
            window=plan.window,
            context=plan.context,
            batch_size=plan.batch_size,
            foreground_share=settings.training.foreground_share,
            seed=machine.seed,
        )
        self.augmenter = Augmenter(settings.augment, plan.window, self.label_count, plan.mirror_axes, machine.seed)
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
        self.largest_rate = largest_rate(settings.network, training)
        self.objective = Objective.of(settings, self.label_count).to(device)
        wanted = training.precision
        self.use_bfloat16 = wanted == "bfloat16" or (wanted == "auto" and has_fast_bfloat16(device))

    def fastest_threads(self) -> int:
        """The number of CPU threads with which a step takes less time; the network is left as it is."""
        if self.machine.device.type != "cpu":
            return torch.get_num_threads()
        supervised = copy.deepcopy(self.supervised).train()
        images, targets = self._batch(0)

        def work() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.use_bfloat16):
                outputs = supervised(images)
            self.objective(outputs, targets).backward()

        return fastest_threads(work)

    def run(self, length: Length) -> Outcome:
        """Train for a length, and keep the weights that were best on the validation cases."""
        clock = StepClock(length, started=self.machine.started)
        total: int | None = None
        if length.steps is not None:
            total = length.steps
        losses: list[float] = []
        step = 0
        clock.begin()
        # The first steps are timed before their number is known; the warm-up makes them the same either way.
        while total is None:
            losses.append(self._step(step, None))
            clock.tick()
            step += 1
            if clock.is_measured():
                total = self._fix_steps(clock, length)
        return self._finish(step, total, losses)

    def _fix_steps(self, clock: StepClock, length: Length) -> int:
        """How many steps the budget allows, once steps and a validation were timed."""
        began = time.monotonic()
        self._validate()
        validation_seconds = time.monotonic() - began
        budget = length.budget_seconds or 0.0
        # The last validation also measures surfaces and writes masks; 2 % is kept for a machine that slows down.
        reserve = 2 * validation_seconds + 2.0 + 0.02 * budget
        total = clock.fix_steps(reserve_seconds=reserve)
        counted = len(self._validation_steps(total))
        total = clock.fix_steps(reserve_seconds=reserve + counted * validation_seconds)
        step_seconds = float(np.median(clock.step_seconds[clock.WARM :]))
        self.progress.say(
            f"{total} steps fit the budget: {1000 * step_seconds:.0f} ms a step, {validation_seconds:.1f} s a "
            f"validation; repeat with --steps {total} --threads {torch.get_num_threads()}"
        )
        return total

    def _validation_steps(self, total: int) -> set[int]:
        """After which steps to validate; follows from their number alone, so that a repetition does the same."""
        count = max(1, min(_VALIDATIONS_MOST, total // _STEPS_BETWEEN_VALIDATIONS))
        return {total - round(index * total / (2 * count)) for index in range(count)}

    def _finish(self, step: int, total: int, losses: list[float]) -> Outcome:
        epoch_steps = self.settings.training.epoch_steps
        validate_after = self._validation_steps(total)
        best_dice, best_step, best_state = -1.0, total, self._state()
        with self.progress.task("train", total) as task:
            for _ in range(step):
                task.advance()
            while step < total:
                losses.append(self._step(step, total))
                step += 1
                dice = None
                if step in validate_after:
                    dice = self._validate()
                    if dice > best_dice:
                        best_dice, best_step, best_state = dice, step, self._state()
                if step % epoch_steps == 0 or step == total or dice is not None:
                    recent = float(np.mean(losses[-epoch_steps:]))
                    self.log.add(
                        step=step,
                        epoch=step / epoch_steps,
                        loss=recent,
                        learning_rate=self._learning_rate(step - 1, total),
                        validation_dice=dice,
                    )
                    if dice is not None:
                        self.progress.say(f"step {step} of {total}: loss {recent:.3f}, validation Dice {dice:.4f}")
                task.advance(f"loss {losses[-1]:.3f}")
        self.averaged.network.load_state_dict(best_state)
        return Outcome(self._model(), steps=total, best_step=best_step)

    def _learning_rate(self, step: int, total: int | None) -> float:
        warmup = self.settings.training.warmup_steps
        return learning_rate(step, largest=self.largest_rate, warmup_steps=warmup, total_steps=total)

    def _step(self, step: int, total: int | None) -> float:
        """One optimiser step; returns its loss."""
        images, targets = self._batch(step)
        for group in self.optimiser.param_groups:
            group["lr"] = group["scale"] * self._learning_rate(step, total)
        set_training_mode(self.supervised, self.settings.training)
        # Dropout draws from here, so that a step does not depend on those before it.
        torch.manual_seed((self.machine.seed << 32) + step)
        with torch.autocast(self.machine.device.type, torch.bfloat16, enabled=self.use_bfloat16):
            outputs = self.supervised(images)
        loss = self.objective(outputs, targets)
        value = float(loss.detach())
        if not math.isfinite(value):
            names = ", ".join(sorted(set(self.sampler.batch(step).cases))[:8])
            raise TrainingError(
                f"step {step + 1}: the loss is {value}; its slices are of {names}; look at these volumes, or lower "
                "training.learning_rate"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.supervised.parameters(), self.settings.training.gradient_clip)
        self.optimiser.step()
        self.averaged.update(self.supervised.network)
        return value

    def _batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The augmented images and targets of a step, on the device."""
        device = self.machine.device
        batch = self.sampler.batch(step)
        images = torch.from_numpy(batch.images).to(device)
        targets = torch.from_numpy(batch.targets).to(device)
        images, targets = self.augmenter(images, targets, step=step, views=batch.views)
        return images.contiguous(memory_format=torch.channels_last), targets

    def _state(self) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.averaged.network.state_dict().items()}

    def _validate(self) -> float:
        return mean_dice(self._model(), self.prepared)

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


def versions() -> dict[str, str]:
    """Of medfcn and what its numbers depend on."""
    names = ("medfcn", "torch", "monai", "numpy", "nibabel")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
