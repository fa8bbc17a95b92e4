"""Worker processes, which can be begun before their work is known: they load the libraries while the command does.

A process takes two CPU seconds to load torch. Those of a command that was asked for several begin with the command,
so that all load at the same time, each on a core of its own.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

_CODE = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command
sys.path[:] = json.loads(sys.argv[2])
from medfcn.libraries import loading
with loading(for_good=True):
    from medfcn.inference.worker import serve
serve(int(sys.argv[1]))
"""


class Process(Protocol):
    """The needed part of a `subprocess.Popen`."""

    pid: int

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends; gives its exit status."""

    def kill(self) -> None:
        """End it at once."""


@dataclass(frozen=True)
class Worker:
    """A worker process.

    Attributes:
        own: This process's end of the socket between them.
        process: The worker.
    """

    own: socket.socket
    process: Process


_waiting: list[Worker] = []
"""Workers that have no work yet."""


@contextmanager
def workers_begun(count: int) -> Iterator[None]:
    """Begin some workers now, for work that is known later. Those that nobody took by the end are ended.

    Args:
        count: Number of workers. Where the system gives no process, there are fewer.
    """
    try:
        with suppress(OSError):
            for _ in range(count):
                _waiting.append(paired(start_worker))
        yield
    finally:
        end_waiting()


def take_waiting() -> Worker | None:
    """A worker that was begun in advance and has no work yet; None if there is none."""
    return _waiting.pop(0) if _waiting else None


def end_waiting() -> None:
    """End the workers that were begun in advance and have no work."""
    while worker := take_waiting():
        worker.own.close()
        worker.process.kill()
        worker.process.wait()


def paired(start: Callable[[int], Process]) -> Worker:
    """A new worker, and a socket that leads to it.

    Args:
        start: Starts it, and is given the number of its end of the socket.
    """
    own, its = socket.socketpair()
    try:
        with its:
            return Worker(own, start(its.fileno()))
    except BaseException:
        own.close()
        raise


def start_worker(descriptor: int) -> subprocess.Popen[bytes]:
    """A Python process that imports what this one would, and nothing from the current folder besides."""
    command = [sys.executable, "-P", "-c", _CODE, str(descriptor), json.dumps(sys.path)]
    return subprocess.Popen(
        command, pass_fds=[descriptor], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, close_fds=True
    )
