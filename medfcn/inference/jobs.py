"""How many processes a batch gets: as many as requested, else those for which there are cores, memory and work.

A process takes seconds to start. So a batch begins in one, and others join it once the first cases have shown that
there is work for them.
"""

from collections.abc import Callable, Collection, Sequence

import torch

from medfcn.cores import usable_cores
from medfcn.datasets import Case
from medfcn.inference.batch import Outcome
from medfcn.memory import free_bytes
from medfcn.systems import PASSES_SOCKETS, peak_bytes
from medfcn.text import counted

_PAYS_SECONDS = 12.0
"""Other processes join if one would need so long for the rest."""
_EACH_SECONDS = 6.0
"""Work that a process needs, so that it is worth its start."""
_LONG_SECONDS = 6.0
"""A first case that took so long is not long because the libraries warmed up."""


class Jobs:
    """The number of processes of a batch.

    Args:
        cases: The cases.
        requested: Number of processes; None lets the batch find it.
        threads: Threads of each process.
        device: The device of this process.
        done: Ids of the cases whose masks are there already, most likely: no process begins for them.
        waiting: The number of cases that no process holds; None takes all that have no outcome.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        requested: int | None,
        *,
        threads: int,
        device: torch.device,
        done: Collection[str] = (),
        waiting: Callable[[], int] | None = None,
    ) -> None:
        self._cases = {case.id: _bytes_of(case) for case in cases}
        self._done = set(done)
        self._waiting = waiting
        self._requested = requested if PASSES_SOCKETS else None
        self._threads, self._device = threads, device
        self._is_decided = len(cases) < 2 or not PASSES_SOCKETS
        self._seconds: list[float] = []
        self._start_bytes = peak_bytes()
        self._largest_done = 0
        self.line = ""
        """Why there are so many, in words; empty while there is one."""
        if requested is not None and requested > 1 and not PASSES_SOCKETS:
            self.line = "predicts in one process: this system passes no sockets to others"

    def wanted(self) -> int:
        """Number of processes to have now, this one included."""
        if self._is_decided or self._requested is None:
            return 1
        return self._as_requested(len(self._cases.keys() - self._done))

    def _as_requested(self, left: int) -> int:
        count = min(self._requested or 1, left)
        self._is_decided = count > 1
        return self._said(max(1, count), "as requested")

    def after(self, outcome: Outcome) -> int:
        """Number of processes to have after this process has ended a case."""
        done = self._cases.pop(outcome.case, 0)
        if self._is_decided or outcome.kind != "predicted":
            return 1
        if self._requested is not None:  # the masks that are there were not what was asked for
            return self._as_requested(1 + self._unheld()) if outcome.case in self._done else 1
        self._largest_done = max(self._largest_done, done)
        self._seconds.append(outcome.seconds)
        if len(self._seconds) < 2 and outcome.seconds < _LONG_SECONDS:
            return 1
        seconds = min(self._seconds) * len(self._cases)
        if seconds < _PAYS_SECONDS:
            return 1
        self._is_decided = True
        cores, memory = self._most_by_cores(), self._most_by_memory()
        count = min(cores, memory, 1 + int(seconds / _EACH_SECONDS), 1 + self._unheld())
        rooms = f"{counted(cores, 'GPU' if self._device.type == 'cuda' else 'core')}, memory for {memory}"
        return self._said(max(1, count), f"{rooms}; --jobs N sets the number")

    def _unheld(self) -> int:
        """Cases for which another process could begin."""
        return max(0, len(self._cases) - 1) if self._waiting is None else self._waiting()

    def _said(self, count: int, why: str) -> int:
        if count > 1:
            self.line = f"predicts in {count} processes of {counted(self._threads, 'thread')}: {why}"
        return count

    def _most_by_cores(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.device_count() if self._device.index is None else 1
        return max(1, usable_cores() // self._threads)

    def _most_by_memory(self) -> int:
        """Processes for which there is memory, if each takes what this one took, for the largest of the volumes."""
        free = free_bytes()
        if free is None:
            return self._most_by_cores()
        growth = max(1.0, max(self._cases.values(), default=0) / max(1, self._largest_done))
        of_cases = (peak_bytes() - self._start_bytes) * growth
        return 1 + max(0, int((free - of_cases) / (self._start_bytes + of_cases)))


def _bytes_of(case: Case) -> int:
    """Bytes of a case's files, as far as they are there; a folder is a series of files."""
    files = [file for path in case.images for file in (path.iterdir() if path.is_dir() else [path])]
    return sum(file.stat().st_size for file in files if file.is_file())


def devices_of(count: int, device: torch.device) -> list[str | None]:
    """The device of each of `count` workers; None for that of the batch."""
    gpus = torch.cuda.device_count() if device.type == "cuda" and device.index is None else 0
    return [f"cuda:{number % gpus}" if gpus > 1 else None for number in range(1, count + 1)]
