"""A worker: a process of its own that predicts cases for the command that started it.

The two speak through a socket. The worker asks for a case, gets one or None, and says how each ended. When the
command is gone, or says that it ends, the worker ends too: after it has removed the file that it was writing.
"""

import os
import queue
import signal
import threading
import traceback
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from types import FrameType
from typing import NoReturn

from medfcn.allocator import Allocator, use_allocator
from medfcn.datasets import Case
from medfcn.errors import MedfcnError, WriteError, as_command, command_name
from medfcn.inference.batch import Recipe
from medfcn.inference.case_work import CaseWork
from medfcn.inference.devices import using_threads
from medfcn.memory import limit_memory, memory_limit
from medfcn.runs.claims import Claims
from medfcn.systems import end_this_process

_GRACE_SECONDS = 30.0
"""Time to end in an orderly way once the command is gone."""


@dataclass(frozen=True)
class Order:
    """The first message to a worker.

    Attributes:
        recipe: The batch.
        device: The worker's own device; None for that of the recipe.
        allocator: That of the command.
        memory: The most that the worker may take; None without a limit.
        command: The command whose errors its worker words as its own; empty for those of a script.
    """

    recipe: Recipe
    device: str | None = None
    allocator: Allocator = field(default_factory=lambda: "keep" if use_allocator("system") else "system")
    memory: int | None = field(default_factory=memory_limit)
    command: str = field(default_factory=command_name)


@dataclass(frozen=True)
class Ready:
    """The message of a worker that has loaded its models."""


@dataclass(frozen=True)
class Wanted:
    """The request for a case.

    Attributes:
        is_needed: False for a case that would only be put aside, to be read while the network works.
    """

    is_needed: bool


@dataclass(frozen=True)
class Broken:
    """The last message of a worker that cannot go on.

    Attributes:
        problem: Its error in words.
        code: The code of an error of medfcn; empty for any other.
        is_write: True if an output cannot be written.
    """

    problem: str
    code: str = ""
    is_write: bool = False


def serve(descriptor: int) -> NoReturn:
    """Be a worker until there are no more cases; ends the process.

    Args:
        descriptor: The socket that leads to the command.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's, which tells its workers
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        link = _Link(Connection(descriptor))
    except (EOFError, OSError, KeyboardInterrupt):  # it was begun in advance, and the command needs it no more
        os._exit(0)
    status = 1
    with as_command(link.command) if link.command else nullcontext():
        try:
            link.work()
            status = 0
        except (KeyboardInterrupt, BrokenPipeError, ConnectionError):
            pass
        except MedfcnError as error:
            link.send(Broken(str(error), error.code, isinstance(error, WriteError)))
        except Exception as error:
            traceback.print_exc()
            link.send(Broken(f"{type(error).__name__}: {error}"))
    os._exit(status)  # at once: what is in other threads is no longer needed


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would disturb the tidying up
    raise KeyboardInterrupt


class _Link:
    """The worker's end of the socket."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._answers: queue.SimpleQueue[Case | None] = queue.SimpleQueue()
        self._order: Order = connection.recv()
        self.command = self._order.command

    def work(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()
        use_allocator(self._order.allocator)
        limit_memory(self._order.memory)
        batch = self._order.recipe.batch(self._order.device)
        claims = Claims(batch.claimed_folder)
        try:
            with using_threads(batch.threads):
                self._connection.send(Ready())
                for outcome in CaseWork(batch, claims).outcomes(self._take):
                    self._connection.send(outcome)
        finally:
            claims.close()

    def send(self, message: object) -> None:
        with suppress(OSError):
            self._connection.send(message)

    def _take(self, is_needed: bool) -> Case | None:
        self._connection.send(Wanted(is_needed))
        return self._answers.get()

    def _listen(self) -> None:
        """Pass the answers on; once the command is gone, end the work."""
        with suppress(OSError, EOFError):
            while True:
                self._answers.put(self._connection.recv())
        end_this_process()
        threading.Event().wait(_GRACE_SECONDS)
        os._exit(1)
