"""The state of a training between two steps: the content of a checkpoint.

It is a file of tensors and plain numbers, read with `torch.load(weights_only=True)`, which runs no code.
"""

import dataclasses
import pickle
import struct
import warnings
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, BinaryIO, get_origin

import torch

from medfcn.memory_errors import raise_shortage
from medfcn.settings import BATCH_MOST
from medfcn.training.schedule import Schedule

STEPS_MOST = 2**31
"""Steps of a training, at most."""
_LARGEST, _SECONDS_MOST = 1e38, 1e10
_BROKEN = (
    *(RuntimeError, EOFError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, struct.error),
)
"""Errors of torch for files that are no checkpoint, beside an `UnpicklingError`."""


@dataclass(frozen=True)
class State:
    """The state of a training between two steps.

    Attributes:
        step: Number of steps made.
        total: Number of all steps; None while it is not yet fixed.
        is_judged: True if the validation and the log row that are due after this step are done.
        supervised: `state_dict` of the network with the heads of its training.
        averaged: `state_dict` of the averaged weights.
        updates: Number of steps in the average.
        optimiser: `state_dict` of the optimiser.
        best_dice: Validation Dice of the best weights so far; -1 without any.
        best_step: The step of the best weights.
        best: The best weights; empty without any.
        losses: Loss of each of the last steps, as many as a log row averages.
        step_seconds: Duration of each of the first steps, from which the number of steps is fixed.
        changes: As in `Schedule`; empty where `total` was known from the start and never changed.
        costs: What was timed beside the steps, in the order of `Costs`; empty before.
        rows: The rows of `log.csv`.
        micro_batch: Number of slices that go through the network at once.
        parts: Pairs of a step and that number from there on; empty as long as it is the whole batch. Checkpoints of
            earlier versions do not say from where on.
        seconds: Wall time used.
        cpu_seconds: User and system time used.
    """

    step: int
    total: int | None
    is_judged: bool
    supervised: dict[str, torch.Tensor]
    averaged: dict[str, torch.Tensor]
    updates: int
    optimiser: dict[str, Any]
    best_dice: float
    best_step: int
    best: dict[str, torch.Tensor]
    losses: list[float]
    step_seconds: list[float]
    rows: list[tuple[float | None, ...]]
    micro_batch: int
    seconds: float
    cpu_seconds: float
    parts: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    changes: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    costs: list[float] = dataclasses.field(default_factory=list)

    @property
    def schedule(self) -> Schedule | None:
        """The number of steps, and how it changed; None while it is not yet fixed."""
        if self.total is None:
            return None
        changes = tuple((step, total) for step, total in self.changes)
        return Schedule(changes or ((0, self.total),))

    def save(self, file: BinaryIO) -> None:
        """Write the state into a file."""
        torch.save(vars(self), file)

    @classmethod
    def load(cls, path: Path) -> "State":
        """Read the state from a file.

        Raises:
            ValueError: The file is broken, or contains something other than a state.
            MemoryShortError: There is no memory to read it.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns about files that are no checkpoints
                value = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError("it contains something other than tensors and numbers, which is not loaded") from error
        except _BROKEN as error:
            raise_shortage(error)
            raise ValueError(str(error) or type(error).__name__) from error
        if isinstance(value, dict):  # earlier medfcn shortened no training, and did not say when it halved a batch
            since = value.pop("halved_at", 0)
            value = {"changes": [], "costs": [], "parts": [(since, value.get("micro_batch"))]} | value
        if not isinstance(value, dict) or value.keys() != {item.name for item in dataclasses.fields(cls)}:
            raise ValueError("its keys are not those of a checkpoint")
        for item in dataclasses.fields(cls):
            kind: Any = item.type if isinstance(item.type, type | UnionType) else get_origin(item.type)
            if not isinstance(value[item.name], kind):
                raise ValueError(f"{item.name} cannot be a {type(value[item.name]).__name__}")
        state = cls(**value)
        state.require_sound()
        return state

    def require_sound(self) -> None:
        """Refuse numbers that no training has.

        Raises:
            ValueError: There is one.
        """
        last = self.step
        sound = {
            "total": self.total is None or _is_whole(self.total, least=1, most=STEPS_MOST),
            "step": _is_whole(self.step, least=0, most=STEPS_MOST if self.total is None else self.total),
            "updates": _is_whole(self.updates, least=last, most=last),
            "best_step": _is_whole(self.best_step, least=0, most=last),
            "best_dice": _is_number(self.best_dice, least=-1.0, most=1.0),
            "losses": all(_is_number(loss) for loss in self.losses),
            "step_seconds": self._are_timed(),
            "rows": all(
                isinstance(row, tuple) and all(value is None or _is_number(value) for value in row)
                for row in self.rows
            ),
            "changes": not self.changes or self._are_changes(),
            "costs": len(self.costs) in (0, 2) and all(_is_number(cost, least=0.0) for cost in self.costs),
            "micro_batch": _is_whole(self.micro_batch, least=1, most=BATCH_MOST),
            "parts": not self.parts or self._are_parts(),
            "seconds": _is_number(self.seconds, least=0.0, most=_SECONDS_MOST),
            "cpu_seconds": _is_number(self.cpu_seconds, least=0.0, most=_SECONDS_MOST),
            **{name: _are_weights(getattr(self, name)) for name in ("supervised", "averaged", "best")},
        }
        for name, is_sound in sound.items():
            if not is_sound:
                raise ValueError(f"{name} has a value that no training has")

    def _are_timed(self) -> bool:
        """True if each step was timed as long as their number is not fixed, and none more than was made."""
        count = len(self.step_seconds)
        is_count = count == self.step if self.total is None else count <= self.step
        return is_count and all(_is_number(seconds, least=0.0, most=_SECONDS_MOST) for seconds in self.step_seconds)

    def _are_changes(self) -> bool:
        pairs = _pairs_of(self.changes)
        return bool(pairs) and Schedule.parse(Schedule(tuple(pairs)).text).total == self.total

    def _are_parts(self) -> bool:
        pairs = _pairs_of(self.parts)
        follow = all(step < later and size > smaller > 0 for (step, size), (later, smaller) in pairwise(pairs))
        return bool(pairs) and follow and pairs[-1][0] <= self.step and pairs[-1][1] == self.micro_batch


def _pairs_of(values: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Pairs of whole numbers as they are; none where there is something else."""
    pairs = [value for value in values if isinstance(value, tuple) and len(value) == 2]
    whole = all(_is_whole(number, least=0, most=STEPS_MOST) for pair in pairs for number in pair)
    return pairs if len(pairs) == len(values) and whole else []


def _is_whole(value: object, *, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_number(value: object, *, least: float = -_LARGEST, most: float = _LARGEST) -> bool:
    return type(value) in (int, float) and least <= value <= most  # type: ignore[operator]


def _are_weights(weights: dict[str, torch.Tensor]) -> bool:
    return all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) and _is_finite(tensor)
        for name, tensor in weights.items()
    )


def _is_finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def require_same_shapes(weights: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> None:
    """Refuse weights of another network.

    Raises:
        ValueError: Names or shapes differ.
    """
    shapes = [{name: tensor.shape for name, tensor in each.items()} for each in (weights, others)]
    if shapes[0] != shapes[1]:
        raise ValueError("its weights are those of different networks")
