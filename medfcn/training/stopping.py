"""The interrupt of a signal, as the line that says how to continue."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from medfcn.errors import TrainingStoppedError
from medfcn.files import make_inner_folder
from medfcn.runs.folder import RunFolder
from medfcn.runs.stop import Stop


@contextmanager
def stopping(folders: Sequence[Path], stop: Stop) -> Iterator[None]:
    """Turn the interrupt of a signal into the one line that says how to continue.

    Args:
        folders: The locked run folders to fill, in order.
        stop: The request that the signal made.

    Raises:
        TrainingStoppedError: A signal interrupted the training.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not stop.is_asked:
            raise
        unfinished = [folder for folder in folders if not RunFolder(folder).is_finished]
        if not unfinished:
            raise TrainingStoppedError("stopped; nothing was changed", signal_number=stop.signal_number) from None
        make_inner_folder(RunFolder(unfinished[0]).state)
        raise TrainingStoppedError(
            "stopped; go on with the same command and --resume", signal_number=stop.signal_number
        ) from None
