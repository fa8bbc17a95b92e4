"""medfcn as it finds itself on Windows, tried on Linux: `python tests/other_desk.py STEP FOLDER`.

What Windows lacks is hidden from the modules of medfcn alone; other libraries have theirs for it. What it refuses is
refused to everybody: no open or mapped file can be moved, replaced or removed, and no folder can be opened.
"""

import builtins
import ctypes
import errno
import fcntl
import os
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog", "readline", "crypt", "spwd")
NAMES = {
    "os": "fork forkpty O_NOFOLLOW O_NONBLOCK O_CLOEXEC O_DIRECTORY O_TMPFILE statvfs fstatvfs posix_fallocate "
    "posix_fadvise sched_getaffinity sched_setaffinity getuid geteuid getgid setsid killpg getpgid uname major minor "
    "mkfifo mknod nice chown lchown fchmod sysconf wait wait4 WNOHANG pipe2 sync fdatasync",
    "signal": "SIGKILL SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGALRM SIGCHLD SIGPIPE alarm setitimer pthread_kill sigwait "
    "pthread_sigmask pause siginterrupt",
    "mmap": "MADV_DONTNEED MADV_SEQUENTIAL MADV_WILLNEED MAP_PRIVATE MAP_SHARED PROT_READ PROT_WRITE",
    "socket": "AF_UNIX",
    "select": "poll epoll",
    "time": "clock_gettime CLOCK_PROCESS_CPUTIME_ID tzset",
}
"""The names that modules of Windows do not have."""
real_import, real_open = builtins.__import__, os.open


class Other(types.ModuleType):
    """A module as Windows has it."""

    def __init__(self, real: types.ModuleType, changes: dict[str, Any]) -> None:
        super().__init__(real.__name__)
        vars(self).update(_real=real, _hidden=set(NAMES.get(real.__name__, "").split()), _changes=changes)

    def __getattr__(self, name: str) -> Any:
        if name in self._hidden:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} on Windows")
        return self._changes[name] if name in self._changes else getattr(self._real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real, name, value)


def open_no_folder(path: Any, flags: int, mode: int = 0o777, **where: Any) -> int:
    if Path(path).is_dir():
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
    return real_open(path, flags, mode, **where)


def kill(pid: int, number: int) -> None:
    os.kill(pid, signal.SIGKILL)  # TerminateProcess, whatever the number


class Library(ctypes.CDLL):
    def __init__(self, name: str | None, *more: Any) -> None:
        if name is None:
            raise TypeError("argument of type 'NoneType' is not iterable")
        super().__init__(name, *more)


def locking(descriptor: int, mode: int, count: int) -> None:
    assert mode == 2, "LK_NBLCK"
    assert count > 0
    assert os.lseek(descriptor, 0, os.SEEK_CUR) > 1 << 20, "what is locked cannot be read"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


def is_open(path: str) -> bool:
    """True if this process has a file open, or mapped."""
    place = os.path.realpath(path)
    for link in Path("/proc/self/fd").iterdir():
        try:
            if str(link.readlink()) == place:
                return True
        except OSError:
            continue
    return f" {place}\n" in Path("/proc/self/maps").read_text()


def refusing(call: Callable[..., None]) -> Callable[..., None]:
    """A call that moves or removes files, as Windows has it."""

    def refused(*paths: Any, **where: Any) -> None:
        folder = where.get("dir_fd")
        base = Path(f"/proc/self/fd/{folder}").readlink() if isinstance(folder, int) else Path()
        for path in paths:
            if is_open(str(base / os.fsdecode(path))) and sys._getframe(1).f_globals["__name__"] != "tempfile":
                raise PermissionError(errno.EACCES, "it is open (WinError 32)", os.fspath(path))
        call(*paths, **where)

    return refused


CHANGES: dict[str, dict[str, Any]] = {
    "os": {"name": "nt", "open": open_no_folder, "kill": kill},
    "sys": {"platform": "win32"},
    "ctypes": {"CDLL": Library},
}


def become_windows() -> None:
    """Hide and refuse, from now on, in this process."""
    made: dict[str, Other] = {}
    windows = types.ModuleType("msvcrt")
    windows.locking, windows.LK_NBLCK = locking, 2  # type: ignore[attr-defined]

    def imported(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if not str((globals or {}).get("__name__", "")).startswith("medfcn"):
            return real_import(name, globals, locals, fromlist, level)
        if name.partition(".")[0] in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name == "msvcrt":  # other libraries would take it for a sign of Windows
            return windows
        found = real_import(name, globals, locals, fromlist, level)
        if name in NAMES or name in CHANGES:
            made[name] = made.get(name) or Other(found, CHANGES.get(name, {}))
            return made[name]
        return found

    builtins.__import__ = imported
    for name in ("replace", "rename", "remove", "unlink"):
        setattr(os, name, refusing(getattr(os, name)))


def import_everything() -> int:
    """Import every module of medfcn; how many there are."""
    import importlib
    import pkgutil

    import medfcn

    names = [found.name for found in pkgutil.walk_packages(medfcn.__path__, "medfcn.")]
    for name in names:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    return len(names)


def train(folder: Path, *, resume: bool = False) -> None:
    """20 steps, with a checkpoint after each."""
    import medfcn
    from medfcn.config import override
    from medfcn.progress import Lines
    from medfcn.settings import Settings

    settings = override(Settings(), "training", checkpoint_seconds=0.0, epoch_steps=5)
    choices: dict[str, Any] = {"steps": 20, "settings": settings, "device": "cpu", "threads": 1, "resume": resume}
    medfcn.train(folder / "data", folder / "run", progress=Lines(every_seconds=0.0), report=False, **choices)


def locks_and_litter(folder: Path) -> None:
    """One process at a time; what a killed one left is removed, once it cannot be in use any more."""
    from medfcn.errors import TrainingError, WriteError
    from medfcn.files import remove_half_written, write_bytes
    from medfcn.progress import Silent
    from medfcn.runs.claims import Claims
    from medfcn.runs.lock import locked

    place, message = folder / "locked", f"process {os.getpid()}"
    with locked(place, Silent()), pytest.raises(TrainingError, match=message), locked(place, Silent()):
        pass
    assert not (folder / "locked").exists()
    (folder / "masks").mkdir()
    ours, theirs = Claims(folder / "masks"), Claims(folder / "masks")
    assert ours.take("case")
    assert not theirs.take("case")
    ours.release("case")
    assert theirs.take("case")
    theirs.close()
    ours.close()
    assert list((folder / "masks").iterdir()) == []
    new, old = (folder / f".{name}.0123456789ab.part" for name in ("new", "old"))
    for path in (new, old):
        path.touch()
    os.utime(old, (0, 0))
    remove_half_written(folder)
    assert new.exists()
    assert not old.exists()
    write_bytes(folder / "target", b"1")
    with (folder / "target").open("rb"), pytest.raises(WriteError, match="another program has it open"):
        write_bytes(folder / "target", b"2")
    write_bytes(folder / "target", b"3")
    assert (folder / "target").read_bytes() == b"3"
    print("locks")


def main(step: str, folder: Path) -> None:
    """One step of the test, in a process of its own."""
    become_windows()
    if step == "train":
        print(import_everything(), "modules", flush=True)
        train(folder)
    else:
        locks_and_litter(folder)
        train(folder, resume=True)
        import medfcn

        images, masks = folder / "data" / "images", folder / "predicted"
        result = medfcn.predict(folder / "run", images, masks, device="cpu", jobs=2)
        print(len(result.predicted), "masks")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
