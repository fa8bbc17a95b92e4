"""Cases of one output folder that several processes share: each case is one process's, until it is done or fails.

A claim is a locked file in a hidden folder of the output. The lock ends with its process, however that ends, so the
case of a process that was killed is free for the others. On a file system without locks every process has every case.
"""

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medfcn.files import make_inner_folder, write_error
from medfcn.runs.folder import CLAIMS_FOLDER
from medfcn.systems import MOVES_OPEN_FILES, NO_LINK, OPEN_FLAGS, lock, remove_locked

_TRIES = 100


class ClaimedError(Exception):
    """Another process is at work on a case."""


class Claims:
    """The claims of this process.

    Args:
        output: The output folder; None shares nothing.
    """

    def __init__(self, output: Path | None) -> None:
        self._folder = None if output is None else output / CLAIMS_FOLDER
        self._held: dict[str, int] = {}
        self._left: set[str] = set()
        if self._folder is not None:
            make_inner_folder(self._folder)

    def take(self, case: str) -> bool:
        """Claim a case; False if another process has it."""
        if self._folder is None or case in self._held:
            return True
        path = self._path(self._folder, case)
        for _ in range(_TRIES):
            with suppress(FileNotFoundError):  # another process removed the empty folder
                make_inner_folder(self._folder)
                was_there = path.exists()
                descriptor = self._open(path)
                is_free = lock(descriptor) is not False
                if is_free and path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
                    self._held[case] = descriptor
                    self._left |= {case} if was_there else set()
                    return True
                os.close(descriptor)
                if not is_free:
                    return False
        return False

    def was_left(self, case: str) -> bool:
        """True if a process that had a case of ours was killed; its half-written files are still there."""
        return case in self._left

    def release(self, case: str) -> None:
        """Give a case back, done or not. A claim that cannot be removed is nobody's: its lock has ended."""
        descriptor = self._held.pop(case, None)
        if descriptor is not None and self._folder is not None:
            with suppress(OSError):
                remove_locked(self._path(self._folder, case), descriptor)

    def close(self) -> None:
        """Give all cases back, and remove the claims of processes that were killed."""
        if self._folder is None:
            return
        for case in list(self._held):
            self.release(case)
        for path in self._folder.glob(".*.claim"):
            with suppress(OSError):
                descriptor = os.open(path, os.O_RDWR | OPEN_FLAGS | NO_LINK)
                if lock(descriptor):
                    remove_locked(path, descriptor)
                else:
                    os.close(descriptor)
        with suppress(OSError):
            self._folder.rmdir()

    @staticmethod
    def _path(folder: Path, case: str) -> Path:
        return folder / f".{hashlib.sha256(os.fsencode(case)).hexdigest()[:32]}.claim"

    @staticmethod
    def _open(path: Path) -> int:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | OPEN_FLAGS | NO_LINK, 0o644)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise write_error(error, path) from error


@contextmanager
def at_work(output: Path | None, task: str) -> Iterator[None]:
    """State that this process is at work in an output, so that others can join it, until it ends.

    Args:
        output: The output folder; None states nothing.
        task: Everything that decides the output, in one line; see `tasks_at_work`.
    """
    if output is None:
        yield
        return
    folder = output / CLAIMS_FOLDER
    tasks_at_work(output)  # removes those of killed processes
    path = folder / f".{secrets.token_hex(8)}.task"
    begun = path.with_suffix(".part") if MOVES_OPEN_FILES else path
    descriptor = _new_file(begun)
    try:
        lock(descriptor)
        os.write(descriptor, task.encode())
        if begun != path:
            begun.rename(path)  # with its lock and its content
        yield
    finally:
        if not MOVES_OPEN_FILES:  # nor removes
            os.close(descriptor)
        for each in (begun, path):
            with suppress(OSError):  # without its lock it states nothing
                each.unlink(missing_ok=True)
        if MOVES_OPEN_FILES:
            os.close(descriptor)
        tasks_at_work(output)  # removes those of processes that were killed meanwhile
        with suppress(OSError):
            folder.rmdir()


def _new_file(path: Path) -> int:
    """A new file in the folder of claims, which another process may remove while it is empty."""
    for _ in range(_TRIES):
        make_inner_folder(path.parent)
        with suppress(FileNotFoundError):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | OPEN_FLAGS | NO_LINK, 0o644)
    raise write_error(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)), path)


def tasks_at_work(output: Path) -> set[str]:
    """The tasks of the processes that are at work in an output; none on a file system without locks."""
    found = set()
    for path in (output / CLAIMS_FOLDER).glob(".*.task"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | OPEN_FLAGS | NO_LINK)
            try:
                is_free = lock(descriptor)
                if is_free is False:
                    found.add(os.read(descriptor, 1 << 16).decode(errors="replace"))
                elif is_free:  # of a process that was killed
                    path.unlink(missing_ok=True)
            finally:
                os.close(descriptor)
    return found
