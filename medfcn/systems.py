"""Operating systems: what Linux, macOS and Windows do in different ways, each behind one name.

Modules that only some systems have (`fcntl`, `resource`, `msvcrt`) are imported here, where they are used, and
nowhere else. So every module can be imported on every system.
"""

import atexit
import ctypes
import errno
import functools
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path


def _flag(name: str) -> int:
    """A flag of `os.open`; nothing where the system does not have it."""
    return int(getattr(os, f"O_{name}", 0))


MOVES_OPEN_FILES = os.name != "nt"
"""True if an open file can be moved, replaced and removed. Windows refuses all three."""
OPEN_FLAGS = _flag("CLOEXEC") | _flag("BINARY")
"""For `os.open`, as far as the system has them: not for child processes, bytes as they are."""
PASSES_SOCKETS = os.name != "nt"
"""True if a new process can be given a socket of this one."""
NO_LINK = _flag("NOFOLLOW")
"""For `os.open`: refuses a link."""
WITHOUT_WAITING = _flag("NONBLOCK")
"""For `os.open`: a pipe that nobody writes to is not waited for. Windows has no such files."""
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_LOCKED_BYTE = (1 << 30) - 1
"""Windows locks bytes, and what is locked cannot be read: a byte behind the content is locked."""
_LOCKED_BY_ANOTHER = (errno.EACCES, errno.EDEADLK, errno.EAGAIN)
_PATIENCE_SECONDS, _PAUSE_SECONDS = 2.0, 0.05
"""So long a move is tried again where another program has the file open: a virus scanner soon lets it go."""


def lock(descriptor: int) -> bool | None:
    """Lock an open file until it is closed, or its process ends, however that ends.

    Returns:
        False if another process has locked it; None on a file system without locks.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return _lock_byte(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        return None
    return True


def _lock_byte(descriptor: int) -> bool | None:
    """`lock` on Windows."""
    import msvcrt

    place = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except OSError as error:
        if error.errno in _LOCKED_BY_ANOTHER:
            return False
        if error.errno not in _WITHOUT_LOCKS:
            raise
        return None
    finally:
        os.lseek(descriptor, place, os.SEEK_SET)
    return True


def remove_locked(path: Path, descriptor: int) -> None:
    """Remove a file that this process has locked, and close it.

    It is removed before it is unlocked: whoever opened it meanwhile sees that it is no longer at its place. Windows
    cannot remove an open file, nor one that another process has opened meanwhile: that process has the lock then.
    """
    try:
        if MOVES_OPEN_FILES:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
    if not MOVES_OPEN_FILES:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def move_onto(source: Path, target: Path) -> None:
    """Move a file onto another one in one step.

    Raises:
        OSError: It cannot be; on Windows also if a program keeps the other file open.
    """
    patience = 0.0 if MOVES_OPEN_FILES else _PATIENCE_SECONDS
    until = time.monotonic() + patience
    while True:
        try:
            source.replace(target)
            return
        except PermissionError as error:
            if target.is_dir() or time.monotonic() >= until:
                if patience and target.is_file():
                    raise PermissionError(
                        error.errno, "another program has it open, or it may not be changed", str(target)
                    ) from error
                raise
        time.sleep(_PAUSE_SECONDS)


def sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system offers it (Windows does not)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def take_room(descriptor: int, count: int) -> None:
    """Make a new file that many bytes long, and take the room on the disk now.

    Without it, a disk that is full later would end the process by a signal when the mapped file is written to.

    Raises:
        OSError: There is no room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, count)
        return
    zeros, left = bytes(1 << 20), count  # macOS and Windows
    while left > 0:
        left -= os.write(descriptor, zeros[: min(left, len(zeros))])
    os.lseek(descriptor, 0, os.SEEK_SET)


def allow_open_files() -> None:
    """Let this process open as many files as its system allows."""
    with suppress(ImportError, ValueError, OSError):  # Windows has another kind of limit
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def address_limit() -> int | None:
    """The largest address space of this process in bytes; None without a limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if most in (resource.RLIM_INFINITY, -1) else most


def peak_bytes() -> int:
    """The most memory that this process has had."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        found = psutil.Process().memory_info()
        return int(getattr(found, "peak_wset", found.rss))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def free_memory() -> int | None:
    """Memory that the machine can give, swap included; None if it does not say."""
    import psutil

    try:
        return int(psutil.virtual_memory().available + psutil.swap_memory().free)
    except (OSError, RuntimeError, psutil.Error):
        return None


@functools.cache
def gnu_c_library() -> ctypes.CDLL | None:
    """The C library of this process, if it is that of GNU, which alone can be told how to keep memory."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None


def end_this_process() -> None:
    """Ask this process to end, from any of its threads, as SIGTERM does: its handler runs in the main thread."""
    if os.name == "nt":  # there, os.kill would end it at once
        import _thread

        _thread.interrupt_main(signal.SIGTERM)
    else:
        os.kill(os.getpid(), signal.SIGTERM)


def stopping_signals() -> tuple[int, ...]:
    """The signals that ask a command to stop: Ctrl-C, SIGTERM, and Ctrl-Break, which is that of Windows."""
    names = ("SIGINT", "SIGTERM", "SIGBREAK")
    return tuple(int(getattr(signal, name)) for name in names if hasattr(signal, name))


def end_quickly(status: int) -> None:
    """End this process without taking its libraries apart, for which Python needs a tenth of a second behind torch.

    What was registered to run at the end runs, and what was printed is written. Nothing is done where another thread
    runs, which Python waits for, or where that text cannot be written: then the caller ends as usual.

    Args:
        status: The exit status.
    """
    library = gnu_c_library()
    if library is None or threading.active_count() > 1:
        return
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        return
    library.fflush(None)
    os._exit(status)
