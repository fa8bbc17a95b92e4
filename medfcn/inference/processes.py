"""The processes that work on one batch on this machine: this one, and the workers that it starts.

Each has the models once, and takes the next case when it is free. The cases of a worker that is killed go to the
others, and another worker takes its place.
"""

import os
import socket
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection

from medfcn.errors import WriteError
from medfcn.inference.batch import Outcome, Recipe
from medfcn.inference.case_queue import CaseQueue
from medfcn.inference.worker import Broken, Order, Ready, Wanted
from medfcn.progress import Progress, warn
from medfcn.runs.passing import shareable
from medfcn.runs.workers import Worker, end_waiting, paired, take_waiting
from medfcn.runs.workers import start_worker as _start

_END_SECONDS = 10.0
"""Time that a worker has to end in an orderly way."""


class Workers:
    """The workers of a batch; none at first. A context manager that ends them.

    Args:
        recipe: The batch.
        queue: Where they get their cases.
        progress: Where the loss of one is reported.
    """

    def __init__(self, recipe: Recipe, queue: CaseQueue, progress: Progress) -> None:
        self._recipe, self._queue, self._progress = recipe, queue, progress
        self._threads: list[threading.Thread] = []
        self._running: dict[int, Worker] = {}
        self._lock = threading.Lock()
        self._is_ending = False
        self.were_lost = False

    def __len__(self) -> int:
        """Number of workers, without those that took the place of others."""
        return len(self._threads)

    def start(self, devices: Sequence[str | None]) -> None:
        """Start a worker for each device; None is the device of the batch. Those that have begun are taken first.

        Raises:
            SettingsError: The batch cannot be passed to another process.
        """
        for content in [shareable(Order(self._recipe, device), "the transforms") for device in devices]:
            number = len(self) + 1
            if (begun := take_waiting()) is not None:
                with self._lock:
                    self._running[number] = begun
            thread = threading.Thread(target=self._keep, args=(number, content), daemon=True)
            self._threads.append(thread)
            thread.start()
        end_waiting()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        """End all workers. Those that do not end in time are killed."""
        with self._lock:
            self._is_ending = True
            running = list(self._running.values())
        for worker in running:
            with suppress(OSError):
                worker.own.shutdown(socket.SHUT_RDWR)
        for worker in running:
            try:
                worker.process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                worker.process.kill()
        for thread in self._threads:
            thread.join()

    def _keep(self, number: int, content: bytes) -> None:
        """Keep one worker at work as long as there are cases."""
        while True:
            with self._lock:
                worker = self._running.get(number)  # one that was begun in advance
                if worker is None:
                    if self._is_ending:
                        return
                    worker = self._running[number] = paired(_start)
            with worker.own:
                with Connection(os.dup(worker.own.fileno())) as connection:
                    was_ready = self._answer(number, connection, content)
                status = worker.process.wait()
                with self._lock:
                    del self._running[number]
                self._queue.lose(number)
            if status == 0 or self._is_ending:
                return
            self.were_lost = True
            if not was_ready:
                warn(self._progress, "a worker could not begin; the other processes go on without it")
            if not was_ready or not len(self._queue):
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
                    self._queue.join(number)
                elif isinstance(message, Wanted):
                    connection.send(self._queue.take(number, is_needed=message.is_needed))
                elif isinstance(message, Outcome):
                    self._queue.give(number, message)
                elif isinstance(message, Broken):
                    self._hear(message, was_ready=was_ready)
        return was_ready

    def _hear(self, broken: Broken, *, was_ready: bool) -> None:
        if broken.is_write:
            self._queue.fail(WriteError(broken.problem, code=broken.code))
        elif was_ready:
            self._queue.fail(RuntimeError(f"a worker ended: {broken.problem}"))
        else:
            warn(self._progress, f"a worker could not begin: {broken.problem}")
