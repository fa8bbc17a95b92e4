"""The request that a training stops: it does so between two steps, and saves its state."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from medfcn.systems import stopping_signals


class Stop:
    """A request to stop, made by a signal or by another thread.

    A training looks at it after every step and every validation case, saves its state, and raises
    `TrainingStoppedError`.

    Attributes:
        signal_number: The signal that made the request; that of Ctrl-C if something else did.
        is_asked: True once the request is made.
        is_looked_at: True while a training is in its loop, and will look.
        is_ending: True once a training has left its loop with an error, which is what the user is to read.

    Example:
        >>> stop = Stop()
        >>> threading.Timer(3600, stop.ask).cancel()  # a script might stop its training after an hour
        >>> stop.is_asked
        False
    """

    def __init__(self) -> None:
        self.signal_number = int(signal.SIGINT)
        self.is_asked = False
        self.is_looked_at = False
        self.is_ending = False

    def ask(self, signal_number: int = signal.SIGINT) -> None:
        """Make the request."""
        self.signal_number = int(signal_number)
        self.is_asked = True

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Surrounds the loop of a training."""
        self.is_looked_at, self.is_ending = True, False
        try:
            yield
        except BaseException:
            self.is_ending = True
            raise
        finally:
            self.is_looked_at = False


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Let SIGTERM, Ctrl-C and the Ctrl-Break of Windows make the request, until the end of the block.

    Outside of a training's loop, and at a second Ctrl-C, `KeyboardInterrupt` is raised at once. After an error has
    ended that loop, a signal says nothing new: `torchrun` sends one to the processes that are left. Signals that are
    ignored (as under `nohup … &`) stay ignored. In a thread other than the main one, which alone may handle signals,
    nothing is changed.
    """
    stop = Stop()

    def handle(number: int, _frame: FrameType | None) -> None:
        impatient = stop.is_asked and number == signal.SIGINT
        stop.ask(number)
        if impatient or not (stop.is_looked_at or stop.is_ending):
            raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in stopping_signals():
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
