"""One optimiser step after the other: a network, its batches, its optimiser and the average of its weights."""

import copy
import math
from typing import Any

import torch
from torch import nn

from medfcn.errors import TrainingError
from medfcn.inference.devices import fastest_threads, has_bfloat16, has_fast_bfloat16
from medfcn.labels.partial_labels import union_table
from medfcn.memory_errors import raise_shortage
from medfcn.networks.design import planned_design
from medfcn.networks.memory import fitting_part, trained_slice_bytes
from medfcn.networks.network import SliceNetwork, channels_last
from medfcn.networks.objective import Objective
from medfcn.networks.supervision import SupervisedFCN
from medfcn.progress import Progress, warn
from medfcn.settings import Settings
from medfcn.text import listed
from medfcn.training.averaging import AveragedWeights
from medfcn.training.batches import Batches
from medfcn.training.distributed import Machine
from medfcn.training.gradients import Gradients
from medfcn.training.optimiser import build_optimiser, largest_rate, moments_of, set_training_mode
from medfcn.training.prepare import Prepared
from medfcn.training.schedule import Schedule, learning_rate
from medfcn.training.state import State, require_same_shapes


class Stepper:
    """Everything that an optimiser step reads and changes, in this process.

    Args:
        prepared: The plan and the slices.
        settings: All settings.
        machine: Device, seed and processes.
        network: As it starts; in other processes than the first, of the same shape.
        progress: Where messages go.
    """

    def __init__(
        self, prepared: Prepared, settings: Settings, machine: Machine, network: SliceNetwork, progress: Progress
    ) -> None:
        self.training = settings.training
        self.machine = machine
        plan, labels, device = prepared.plan, prepared.survey.labels, machine.device
        label_count, training, world = len(labels.entries), settings.training, machine.world
        share = world.share(plan.batch_size)
        self.batch_size = plan.batch_size
        self.batches = Batches(prepared, settings, seed=machine.seed, share=share, device=device)
        self.supervised = SupervisedFCN(
            channels_last(network.to(device)),
            label_count=label_count,
            deep=training.deep_supervision,
            presence=training.presence_weight > 0,
            distances=training.distance_weight > 0,
        ).to(device)
        self.averaged = AveragedWeights(self.supervised.network, decay=training.ema_decay)
        self.optimiser = build_optimiser(self.supervised, training)
        self._parameters = list(self.supervised.parameters())
        self.supervised.eval()  # the first step sets the mode of training
        self.largest_rate = largest_rate(self.supervised.network, settings.network, training)
        members = None if labels.members is None else torch.tensor(labels.members)
        drawn = prepared.survey.unions
        unions = torch.tensor(union_table(drawn, label_count)) if drawn else None
        objective = Objective.of(settings, label_count, members=members, shared=world.shared, unions=unions)
        self.objective = objective.to(device)
        wanted = training.precision
        self.use_bfloat16 = wanted == "bfloat16" or (wanted == "auto" and has_fast_bfloat16(device))
        if self.use_bfloat16 and not has_bfloat16(device):
            self.use_bfloat16 = False
            warn(progress, f"the device {device.type} has no bfloat16 here: the network computes in float32")
        self.precision = "bfloat16" if self.use_bfloat16 else "float32"
        design = planned_design(settings.network, plan, labels)
        slice_bytes = trained_slice_bytes(plan.batch_size, design, plan.trained) if device.type == "cpu" else 0
        part = fitting_part(plan.batch_size, slice_bytes) if world.size == 1 else plan.batch_size
        self.parts = [(0, part)] if part < plan.batch_size else []
        if self.parts:
            progress.say(f"{part} slices of a batch of {plan.batch_size} go through the network at a time")
        self.gradients = Gradients(
            self.supervised,
            self.objective,
            micro_batch=part,
            slice_bytes=slice_bytes,
            use_bfloat16=self.use_bfloat16,
            progress=progress,
            world=world,
        )

    def fastest_threads(self) -> int:
        """The number of CPU threads with which a step takes less time; the network is left as it is.

        Where several processes share a machine's cores, the number that each was given.
        """
        if self.machine.device.type != "cpu" or self.machine.world.size > 1:
            return torch.get_num_threads()
        supervised = copy.deepcopy(self.supervised).train()
        self.gradients.make_room(self.batch_size, self.machine.device)
        images, targets = (part[: self.gradients.micro_batch] for part in self.batches.of(0))

        def work() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.use_bfloat16):
                outputs = supervised(images)
            self.objective(outputs, targets).backward()

        return fastest_threads(work)

    def learning_rate(self, step: int, schedule: Schedule | None) -> float:
        """The learning rate of a step, from 0; the number of all steps may be unknown during the warm-up."""
        warmup = self.training.warmup_steps
        return learning_rate(step, largest=self.largest_rate, warmup_steps=warmup, total_steps=schedule)

    def make(self, step: int, schedule: Schedule | None) -> float:
        """Make one step; its loss.

        Args:
            step: Number of steps made before.
            schedule: The number of all steps; may be unknown during the warm-up.

        Raises:
            TrainingError: The loss or the gradient is not finite, or memory runs out.
        """
        images, targets = self.batches.of(step)
        for group in self.optimiser.param_groups:
            group["lr"] = group["scale"] * self.learning_rate(step, schedule)
        if not self.supervised.training:
            set_training_mode(self.supervised, self.training)
        training, gradients = self.training, self.gradients
        for since, size in training.micro_batches:
            if step >= since:
                gradients.micro_batch = min(gradients.micro_batch, size)
        loss = gradients.set_gradients(images, targets, seed=(self.machine.seed << 32) + step)
        if gradients.micro_batch < (self.parts[-1][1] if self.parts else self.batch_size):
            self.parts.append((step, gradients.micro_batch))
        found = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(found)
        value, size = torch.stack([loss, norm]).tolist()  # together, so that a GPU is waited for once
        if not math.isfinite(value) or not math.isfinite(size):
            problem = f"the gradient's norm is {size}" if math.isfinite(value) else f"the loss is {value}"
            raise TrainingError(
                f"step {step + 1}: {problem}; its slices are of {listed(self.batches.cases(step))}; a resume would "
                "meet this again: look at these volumes, or start again with a training.learning_rate below "
                f"{self.largest_rate:g}",
                code="LOSS_NOT_FINITE",
            )
        if size > self.training.gradient_clip:
            torch._foreach_mul_(found, self.training.gradient_clip / (size + 1e-6))
        self.optimiser.step()
        self.averaged.update()
        return float(value)

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the averaged weights."""
        return {name: tensor.detach().clone() for name, tensor in self.averaged.network.state_dict().items()}

    def state(self) -> dict[str, Any]:
        """The part of a `State` that is kept here; its tensors are those in use."""
        return {
            "supervised": self.supervised.state_dict(),
            "averaged": self.averaged.network.state_dict(),
            "updates": self.averaged.updates,
            "optimiser": self.optimiser.state_dict(),
            "micro_batch": self.gradients.micro_batch,
            "parts": list(self.parts),
        }

    def restore(self, state: State) -> None:
        """Continue from a state.

        Raises:
            TrainingError: It is the state of another network.
        """
        try:
            self.supervised.load_state_dict(state.supervised)
            self.averaged.network.load_state_dict(state.averaged)
            if state.best:
                require_same_shapes(state.best, state.averaged)
            # The rates and decays are those of the settings, which are the same.
            groups = self.optimiser.state_dict()["param_groups"]
            moments = moments_of(state.optimiser, self.optimiser)
            if state.step and not moments:
                raise ValueError("the moments of the optimiser are missing")
            self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
            if state.micro_batch > self.batch_size:
                raise ValueError("micro_batch is larger than the batch")
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise_shortage(error)
            raise TrainingError(
                "the saved state does not fit the network; start again with --overwrite", code="CHECKPOINT_BROKEN"
            ) from error
        self.averaged.updates = state.updates
        self.gradients.micro_batch, self.parts = state.micro_batch, list(state.parts)
