"""What a stopped training needs to go on: the last two checkpoints, in `state/` of its run folder.

A checkpoint is a file of tensors and plain numbers, read with `torch.load(weights_only=True)`, which runs no code;
and a small JSON with its hash, which is written after it and makes it count. `training.json` says what must be the
same for a training to go on. Everything is written whole or not at all, and nothing is removed before what replaces
it is there, so a kill at any moment leaves at least one good checkpoint once there was one.
"""

import dataclasses
import json
import pickle
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_origin

import torch

from medfcn.errors import TrainingError
from medfcn.files import atomic_write, sha256_of, write_json
from medfcn.progress import Progress
from medfcn.text import printable

_FORMAT = 1
_KEPT = 2
_SAVING_SHARE = 1 / 20
"""Share of the time that saving may take; where it takes long, it is done less often."""


@dataclass(frozen=True)
class State:
    """Where a training stands between two steps.

    Attributes:
        step: Steps made.
        total: Steps in all; None while they are not yet known.
        is_judged: Whether the validation and the log row that are due after this step are done.
        supervised: `state_dict` of the network with the heads of its training.
        averaged: Of the averaged weights.
        updates: How many steps they have seen.
        optimiser: `state_dict` of the optimiser.
        best_dice: Of the best weights so far, -1 without any.
        best_step: The step they are from.
        best: The weights; empty without any.
        losses: Of the last steps, as many as a log row averages.
        step_seconds: Of the first steps, from which their number is fixed.
        rows: Of `log.csv`.
        micro_batch: Slices that go through the network at once.
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

    @classmethod
    def from_plain(cls, value: Any) -> "State":
        """The inverse of `vars`; TypeError or ValueError where a value does not fit."""
        if not isinstance(value, dict) or value.keys() != {item.name for item in dataclasses.fields(cls)}:
            raise ValueError("its keys are not those of a checkpoint")
        for item in dataclasses.fields(cls):
            kind: Any = item.type if isinstance(item.type, type | UnionType) else get_origin(item.type)
            if not isinstance(value[item.name], kind):
                raise TypeError(f"{item.name} cannot be a {type(value[item.name]).__name__}")
        return cls(**value)


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: The run folder's `state/`.
        key: Of what must be the same for a training to go on from here; see `identity.py`.
        every_seconds: Seconds between two of them at least; 0 writes one after every step.
    """

    def __init__(self, folder: Path, key: str, *, every_seconds: float) -> None:
        self.folder = folder
        self.every_seconds = every_seconds
        self._key = key
        self._written = time.monotonic()
        self._saving_seconds = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next one."""
        pause = max(self.every_seconds, self._saving_seconds / _SAVING_SHARE if self.every_seconds else 0.0)
        return time.monotonic() - self._written >= pause

    def write(self, state: State) -> None:
        """Keep a state, and of those before it only the last."""
        began = time.monotonic()
        number = 1 + max(map(_number, _marks(self.folder)), default=0)
        mark = self.folder / f"checkpoint_{number:06d}.json"
        with atomic_write(mark.with_suffix(".pt")) as file:
            torch.save({name: getattr(state, name) for name in vars(state)}, file)
        content = {
            "format": _FORMAT,
            "step": state.step,
            "training_sha256": self._key,
            "sha256": sha256_of(mark.with_suffix(".pt")),
        }
        write_json(mark, content)
        for old in _marks(self.folder)[:-_KEPT]:
            old.unlink()
        kept = {path.stem for path in _marks(self.folder)}
        for tensors in self.folder.glob("checkpoint_*.pt"):
            if tensors.stem not in kept:
                tensors.unlink()
        self._written = time.monotonic()
        self._saving_seconds = self._written - began

    def latest(self, progress: Progress) -> State | None:
        """The newest state that is whole; None when none was written yet.

        Args:
            progress: Is told of one that is passed over.

        Raises:
            TrainingError: There are checkpoints, and none can be trusted.
        """
        marks = _marks(self.folder)[::-1]
        for mark in marks:
            name = f"state/{mark.stem}"
            try:
                return self._read(mark)
            except (ValueError, TypeError, KeyError, RuntimeError, EOFError, OSError) as error:
                what = (str(error).splitlines()[0] if str(error) else type(error).__name__)
            except pickle.UnpicklingError:
                what = "it holds something else than tensors and numbers, which is not loaded"
            progress.say(f"{name} cannot be used: {what}; trying the checkpoint before it")
        if marks:
            raise TrainingError(
                f"{self.folder.parent}: none of its {len(marks)} checkpoints can be used, {name}: {what}; start "
                "again with --overwrite"
            )
        return None

    def _read(self, mark: Path) -> State:
        content = json.loads(mark.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ValueError(f"its format is not {_FORMAT}")
        if content.get("training_sha256") != self._key:
            raise ValueError("it belongs to another training")
        tensors = mark.with_suffix(".pt")
        if content.get("sha256") != sha256_of(tensors):
            raise ValueError("its SHA-256 is not the one that was written down")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files that are no checkpoints, which are refused
            return State.from_plain(torch.load(tensors, map_location="cpu", weights_only=True))


def has_checkpoints(folder: Path) -> bool:
    """Whether a run folder's `state/` holds any."""
    return bool(_marks(folder))


def _marks(folder: Path) -> list[Path]:
    """The JSON files of the checkpoints, oldest first."""
    found = [path for path in folder.glob("checkpoint_*.json") if path.stem.partition("_")[2].isdecimal()]
    return sorted(found, key=_number)


def _number(mark: Path) -> int:
    return int(mark.stem.partition("_")[2])
