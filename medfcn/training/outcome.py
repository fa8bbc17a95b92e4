"""The result of the steps of a training: a model, and the weights that were the best so far."""

from dataclasses import dataclass, field

import torch

from medfcn.inference.model import Model
from medfcn.training.schedule import Schedule
from medfcn.training.validation import Outputs


@dataclass(frozen=True)
class Outcome:
    """Result of the steps of a training.

    Attributes:
        model: With the weights that were best on the validation cases.
        schedule: The number of optimiser steps made, and how it changed on the way.
        best_step: The step of those weights.
        is_chosen: True if the validation cases chose them; otherwise they are the last ones.
        parts: Pairs of a step and the number of slices that went through the network at once from there on; empty if
            it was always the whole batch.
        outputs: The model's probabilities for the validation cases, if it was validated in this process.
    """

    model: Model
    schedule: Schedule
    best_step: int
    is_chosen: bool
    parts: tuple[tuple[int, int], ...]
    outputs: Outputs | None

    @property
    def steps(self) -> int:
        """Optimiser steps made."""
        return self.schedule.total


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
