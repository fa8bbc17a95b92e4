"""One training at a time in a run folder, and a name for whoever is there.

The lock is the operating system's (`flock`): it ends with its process, however that ends, so nobody ever has to
remove a stale one.
"""

import errno
import fcntl
import json
import os
import platform
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from medfcn.errors import OutputExistsError, TrainingError
from medfcn.progress import Progress
from medfcn.text import printable

LOCK_FILE = ".medfcn.lock"
_TRIES = 100
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def locked(folder: Path, progress: Progress) -> Iterator[None]:
    """Hold a run folder; it is made for that, and removed again when nothing was put into it.

    Args:
        folder: The run folder.
        progress: Is told when the file system has no locks.

    Raises:
        TrainingError: Another training holds it; the message says which.
        OutputExistsError: There is a file of that name.
    """
    with suppress(FileNotFoundError):  # one look: another training may remove the folder between two
        if not stat.S_ISDIR(folder.stat().st_mode):
            raise OutputExistsError(f"{folder}: is a file; choose another output")
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    path = folder / LOCK_FILE
    try:
        descriptor = _acquire(path, folder, progress)
        try:
            yield
        finally:
            # Removed while it is held: whoever opened it meanwhile finds out that it is no longer the folder's lock.
            path.unlink(missing_ok=True)
            os.close(descriptor)
    finally:
        for parent in made:
            with suppress(OSError):
                parent.rmdir()


def _acquire(path: Path, folder: Path, progress: Progress) -> int:
    """An open descriptor that holds the lock, with its holder written in the file."""
    while True:
        descriptor = _open(path)
        try:
            _lock(descriptor, folder, progress)
            with suppress(FileNotFoundError):
                if os.fstat(descriptor).st_ino == path.stat().st_ino:
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, _holder())
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open(path: Path) -> int:
    """Open the lock's file; its folder may be removed by another training that leaves it empty, and is made again."""
    for _ in range(_TRIES):
        with suppress(FileNotFoundError):
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def _lock(descriptor: int, folder: Path, progress: Progress) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = _told(os.read(descriptor, 1000))
        raise TrainingError(
            f"{folder}: {who} is at work in this run folder; wait for it, end it, or choose another output"
        ) from None
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        progress.say("this file system has no locks: start no second training in this run folder")


def _holder() -> bytes:
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return json.dumps({"host": platform.node(), "process": os.getpid(), "since": since}).encode()


def _told(content: bytes) -> str:
    try:
        holder = json.loads(content)
        return f"process {holder['process']} on {holder['host']}, since {holder['since']},"
    except (ValueError, KeyError, TypeError):
        return "another training"
