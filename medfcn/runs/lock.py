"""The lock of a run folder: one process at a time works in it, and others learn which one.

The lock belongs to the operating system (see `medfcn.systems`): it ends with its process, however that ends, so
nobody ever has to remove an old one.
"""

import errno
import os
import platform
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from medfcn.errors import OutputExistsError, TrainingError
from medfcn.files import refuse_link, write_error
from medfcn.progress import Progress, warn
from medfcn.runs.folder import RunFolder
from medfcn.systems import NO_LINK, OPEN_FLAGS, lock, remove_locked

_TRIES = 100


@contextmanager
def locked(folder: Path, progress: Progress) -> Iterator[None]:
    """Lock a run folder. It is created first if needed, and removed again if nothing was put into it.

    Args:
        folder: The run folder.
        progress: Where a file system without locks is reported.

    Raises:
        TrainingError: Another process has the lock; the message names it.
        OutputExistsError: There is a file of that name.
    """
    with suppress(FileNotFoundError):  # one look: another training may remove the folder between two
        if not stat.S_ISDIR(folder.stat().st_mode):
            raise OutputExistsError(f"{folder}: is a file; choose another output")
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    path = RunFolder(folder).lock
    try:
        descriptor = _acquire(path, folder, progress)
        try:
            yield
        finally:
            remove_locked(path, descriptor)
    finally:
        for parent in created:
            with suppress(OSError):
                parent.rmdir()


def _acquire(path: Path, folder: Path, progress: Progress) -> int:
    """An open descriptor that has the lock, with the name of this process written in the file."""
    while True:
        descriptor = _open(path)
        try:
            _lock(descriptor, folder, progress)
            with suppress(FileNotFoundError):
                if os.fstat(descriptor).st_ino == path.stat().st_ino:
                    _sign(descriptor, path)
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open(path: Path) -> int:
    """Open the lock's file; if another training removes its empty folder meanwhile, create that again."""
    refuse_link(path)
    for _ in range(_TRIES):
        with suppress(FileNotFoundError):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                return os.open(path, os.O_RDWR | os.O_CREAT | OPEN_FLAGS | NO_LINK, 0o644)
            except OSError as error:
                if isinstance(error, FileNotFoundError):
                    raise
                raise write_error(error, path) from error
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def _lock(descriptor: int, folder: Path, progress: Progress) -> None:
    is_ours = lock(descriptor)
    if is_ours is None:
        warn(progress, "this file system has no locks: start no second training in this run folder")
    elif not is_ours:
        who = os.read(descriptor, 200).decode(errors="replace") or "another training"
        raise TrainingError(
            f"{folder}: {who} is at work in this run folder; wait for it, end it, or choose another output",
            code="RUN_LOCKED",
        )


def _sign(descriptor: int, path: Path) -> None:
    """Write the name of this process into the lock's file, which it has locked."""
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    content = f"process {os.getpid()} on {platform.node()}, since {since},".encode()
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, content)
    except OSError as error:
        path.unlink()
        raise write_error(error, path, len(content)) from error
