"""The last two checkpoints of a training, in `state/` of its run folder.

A checkpoint is two files: its content, and after it a small JSON file with the hash of the content, which makes it
valid. Both are written whole or not at all, and an old checkpoint is removed only after the next one is complete: a
kill at any moment leaves at least one valid checkpoint, once there was one.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from medfcn.decoding import read_json
from medfcn.errors import TrainingError
from medfcn.files import atomic_write, sha256_of, write_json
from medfcn.memory_errors import raise_shortage
from medfcn.progress import Progress, warn

_Content = TypeVar("_Content")
_FORMAT = 1
_KEPT = 2
_SAVING_SHARE = 1 / 20
"""Largest share of the time that saving may take; if it takes long, checkpoints are written less often."""


@dataclass(frozen=True)
class _Mark:
    """The JSON file of a checkpoint."""

    format: int
    step: int
    training_sha256: str
    sha256: str


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: The run folder's `state/`.
        key: A hash of everything that must be the same for a training to continue from here.
        every_seconds: Shortest time between two checkpoints; 0 writes one after every step.
    """

    def __init__(self, folder: Path, key: str, *, every_seconds: float) -> None:
        self.folder = folder
        self.every_seconds = every_seconds
        self._key = key
        self._written = time.monotonic()
        self._saving_seconds = 0.0

    @property
    def is_due(self) -> bool:
        """True if it is time for the next one."""
        pause = max(self.every_seconds, self._saving_seconds / _SAVING_SHARE if self.every_seconds else 0.0)
        return time.monotonic() - self._written >= pause

    def write(self, step: int, save: Callable[[BinaryIO], None]) -> None:
        """Keep a checkpoint, and the one before it.

        Args:
            step: Number of steps made.
            save: Writes the content into a file.
        """
        began = time.monotonic()
        number = 1 + max(map(_number, _marks(self.folder)), default=0)
        mark = self.folder / f"checkpoint_{number:06d}.json"
        content = mark.with_suffix(".pt")
        with atomic_write(content) as file:
            save(file)
        try:
            write_json(mark, asdict(_Mark(_FORMAT, step, self._key, sha256_of(content))))
        except BaseException:
            content.unlink()
            raise
        for old in _marks(self.folder)[:-_KEPT]:
            old.unlink()
        kept = {path.stem for path in _marks(self.folder)}
        for content in self.folder.glob("checkpoint_*.pt"):
            if content.stem not in kept:
                content.unlink()
        self._written = time.monotonic()
        self._saving_seconds = self._written - began

    def latest(self, load: Callable[[Path], _Content], progress: Progress) -> _Content | None:
        """The content of the newest valid checkpoint; None before the first.

        Args:
            load: Reads the content of a file; raises a `ValueError` if it cannot be used.
            progress: Where a checkpoint that is not valid is reported.

        Raises:
            TrainingError: There are checkpoints, and none is valid.
            MemoryShortError: There is no memory to read one.
        """
        marks = _marks(self.folder)[::-1]
        for mark in marks:
            name = f"{self.folder.name}/{mark.stem}"
            try:
                return load(self._verified(mark))
            except (ValueError, OSError, RuntimeError) as error:
                raise_shortage(error)
                problem = str(error).splitlines()[0] if str(error) else type(error).__name__
            warn(progress, f"{name} cannot be used: {problem}; trying the checkpoint before it")
        if marks:
            raise TrainingError(
                f"{self.folder.parent}: none of its {len(marks)} checkpoints can be used, {name}: {problem}; start "
                "again with --overwrite",
                code="CHECKPOINT_BROKEN",
            )
        return None

    def _verified(self, mark: Path) -> Path:
        """The content's file, once its hash is verified."""
        found = read_json(mark, _Mark, error=TrainingError, remedy="it is broken")
        if found.format != _FORMAT:
            raise ValueError(f"its format is not {_FORMAT}")
        if found.training_sha256 != self._key:
            raise ValueError("it belongs to another training")
        content = mark.with_suffix(".pt")
        if found.sha256 != sha256_of(content):
            raise ValueError("its SHA-256 is not the one that was recorded")
        return content


def has_checkpoints(folder: Path) -> bool:
    """True if a run folder's `state/` contains any."""
    return bool(_marks(folder))


def _marks(folder: Path) -> list[Path]:
    """The JSON files of the checkpoints, oldest first."""
    found = [path for path in folder.glob("checkpoint_*.json") if path.stem.partition("_")[2].isdecimal()]
    return sorted(found, key=_number)


def _number(mark: Path) -> int:
    return int(mark.stem.partition("_")[2])
