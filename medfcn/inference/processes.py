"""The processes that work on one batch on this machine: this one, and the workers that it starts.

Each has the models once, and takes the next case when it is free. The cases of a worker that is killed go to the
others, and another worker takes its place.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection

from medfcn.errors import WriteError
from medfcn.inference.batch import Outcome, Recipe
from medfcn.inference.desk import Desk
from medfcn.inference.worker import Broken, Order, Ready, Wanted
from medfcn.progress import Progress, warn
from medfcn.runs.passing import shareable

_CODE = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command
sys.path[:] = json.loads(sys.argv[2])
from medfcn.libraries import loading
with loading(for_good=True):
    from medfcn.inference.worker import serve
serve(int(sys.argv[1]))
"""
_END_SECONDS = 10.0
"""Time that a worker has to end in an orderly way."""


class Workers:
    """The workers of a batch; none at first. A context manager that ends them.

    Args:
        recipe: The batch.
        desk: Where they get their cases.
        progress: Where the loss of one is reported.
    """

    def __init__(self, recipe: Recipe, desk: Desk, progress: Progress) -> None:
        self._recipe, self._desk, self._progress = recipe, desk, progress
        self._threads: list[threading.Thread] = []
        self._running: dict[int, tuple[socket.socket, subprocess.Popen[bytes]]] = {}
        self._lock = threading.Lock()
        self._is_ending = False
        self.were_lost = False

    def __len__(self) -> int:
        """Number of workers, without those that took the place of others."""
        return len(self._threads)

    def start(self, devices: Sequence[str | None]) -> None:
        """Start a worker for each device; None is the device of the batch.

        Raises:
            SettingsError: The batch cannot be passed to another process.
        """
        for content in [shareable(Order(self._recipe, device), "the transforms") for device in devices]:
            thread = threading.Thread(target=self._keep, args=(len(self) + 1, content), daemon=True)
            self._threads.append(thread)
            thread.start()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        """End all workers. Those that do not end in time are killed."""
        with self._lock:
            self._is_ending = True
            running = list(self._running.values())
        for own, _process in running:
            with suppress(OSError):
                own.shutdown(socket.SHUT_RDWR)
        for _own, process in running:
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        for thread in self._threads:
            thread.join()

    def _keep(self, number: int, content: bytes) -> None:
        """Keep one worker at work as long as there are cases."""
        while True:
            own, its = socket.socketpair()
            with own:
                with its, self._lock:
                    if self._is_ending:
                        return
                    process = _start(its.fileno())
                    self._running[number] = own, process
                with Connection(os.dup(own.fileno())) as connection:
                    was_ready = self._answer(number, connection, content)
                status = process.wait()
                with self._lock:
                    del self._running[number]
                self._desk.lose(number)
            if status == 0 or self._is_ending:
                return
            self.were_lost = True
            if not was_ready:
                warn(self._progress, "a worker could not begin; the other processes go on without it")
            if not was_ready or not len(self._desk):
                return

    def _answer(self, number: int, connection: Connection, content: bytes) -> bool:
        """Answer a worker until it ends; True if it began."""
        was_ready = False
        with suppress(OSError, EOFError):
            connection.send_bytes(content)
            while True:
                message = connection.recv()
                if isinstance(message, Ready):
                    was_ready = True
                    self._desk.join(number)
                elif isinstance(message, Wanted):
                    connection.send(self._desk.take(number, is_needed=message.is_needed))
                elif isinstance(message, Outcome):
                    self._desk.give(number, message)
                elif isinstance(message, Broken):
                    self._hear(message, was_ready=was_ready)
        return was_ready

    def _hear(self, broken: Broken, *, was_ready: bool) -> None:
        if broken.is_write:
            self._desk.fail(WriteError(broken.problem, code=broken.code))
        elif was_ready:
            self._desk.fail(RuntimeError(f"a worker ended: {broken.problem}"))
        else:
            warn(self._progress, f"a worker could not begin: {broken.problem}")


def _start(descriptor: int) -> subprocess.Popen[bytes]:
    """A Python process that imports what this one would, and nothing from the current folder besides."""
    command = [sys.executable, "-P", "-c", _CODE, str(descriptor), json.dumps(sys.path)]
    return subprocess.Popen(
        command, pass_fds=[descriptor], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, close_fds=True
    )
