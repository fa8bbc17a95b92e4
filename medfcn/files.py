"""Files that are written whole or not at all, and hashes of files.

Nothing here knows what is in a file. Every writer in medfcn goes through `atomic_write`, so that a full disk is
reported in one way.
"""

import csv
import errno
import hashlib
import io
import json
import math
import os
import re
import secrets
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from medfcn.errors import OutputExistsError, WriteError
from medfcn.systems import (
    MOVES_OPEN_FILES,
    NO_LINK,
    OPEN_FLAGS,
    WITHOUT_WAITING,
    lock,
    move_onto,
    remove_locked,
    sync_folder,
)
from medfcn.text import without_breaks

NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the system allows (see ulimit -f)",
}
"""The errors of the system that mean that an output is too large."""
_HALF_WRITTEN = re.compile(r"\..+\.[0-9a-f]{12}\.part")
_NAME_BYTES = 200
"""Bytes of a file's name that its temporary name repeats, so that this is valid for every valid name."""
_TRIES = 100
_ABANDONED_SECONDS = 24 * 3600.0
"""Where there are no locks, a temporary file is abandoned if nothing was written to it for so long."""
_CLOSED_SECONDS = 60.0
"""Where open files cannot be moved, one is closed, and so not locked, for a moment before it gets its place."""


class _Part(io.RawIOBase):
    """A temporary file that remembers how much was to be written, and the first error of the system.

    It has no `fileno`: libraries that write to a descriptor themselves lose the reason of an error.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.name = file.name
        self.length = 0
        self.problem: OSError | None = None
        self._file = file

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.length

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        self.length += len(view)
        with self.noted():
            self._file.write(view)
        return len(view)

    def flush(self) -> None:
        if not self._file.closed:
            with self.noted():
                self._file.flush()

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Remember an error of the system, whatever a library makes of it."""
        try:
            yield
        except OSError as error:
            self.problem = self.problem or error
            raise


class _Names(threading.local):
    """Folders in which this thread has put files whose names do not survive a power cut yet; None if all do."""

    folders: set[Path] | None = None


_Together = _Names()


@contextmanager
def named_together() -> Iterator[None]:
    """Write several files whose names survive a power cut together, at the end: each folder is asked for it once.

    A power cut before may leave any of them without its name, never a broken one. So this is for files of which one
    tells what the others must be.
    """
    _Together.folders = set()
    try:
        yield
        for folder in sorted(_Together.folders):
            sync_folder(folder)
    finally:
        _Together.folders = None


@contextmanager
def atomic_write(path: Path | str, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open `path` for writing so that it appears complete or not at all.

    The bytes go to a hidden temporary file beside `path`, which is flushed to the disk and then moved over
    `path` in one step. If the body raises, the temporary file is removed and an older `path` is untouched.
    A process that is killed leaves at most a hidden `.<name>.<hex>.part` file, never a broken `path`; see
    `remove_half_written`.

    Args:
        path: The final file; its folder must exist.
        durable: Survive a power cut. Files that no later process needs do without.

    Yields:
        A binary file object without a descriptor.

    Raises:
        WriteError: The disk is full, or the folder is missing or may not be written to. It is raised in place of
            whatever a library makes of the error.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_write(folder / "a.txt") as file:
        ...     _ = file.write(b"whole")
        >>> (folder / "a.txt").read_bytes(), len(list(folder.iterdir()))
        (b'whole', 1)
    """
    path = Path(path)
    file: BinaryIO | None = None
    try:  # from before the file is made: an interrupt may come at any moment
        with _reported(path):
            file = _open_part(path)
        part = _Part(file)
        try:
            with file:
                yield cast(BinaryIO, part)
                with part.noted():
                    file.flush()
                    if durable:
                        os.fsync(file.fileno())
                    _put_in_place(file, Path(part.name), path)
        except Exception as error:
            problem = part.problem or (error if isinstance(error, OSError) and error.errno in NO_ROOM else None)
            if problem is None:
                raise
            Path(part.name).unlink(missing_ok=True)  # before the free bytes are counted
            raise write_error(problem, path, part.length) from error
        if durable:
            if _Together.folders is None:
                sync_folder(path.parent)
            else:
                _Together.folders.add(path.parent)
    except BaseException:
        if file is not None:
            with suppress(OSError):
                file.close()
            with suppress(OSError):
                Path(file.name).unlink()
        raise


def _open_part(path: Path) -> BinaryIO:
    """A new temporary file beside `path`, locked as long as it is open: an open one is no litter."""
    for _ in range(_TRIES):
        part = path.parent / f"{_part_stem(path.name)}{secrets.token_hex(6)}.part"
        file: BinaryIO | None = None
        try:
            file = part.open("xb")
            if lock(file.fileno()) is not False and part.exists():
                return file
        except BaseException:
            if file is not None:
                file.close()
            with suppress(OSError):  # made, perhaps, where an interrupt came before it had a name here
                part.unlink()
            raise
        file.close()  # another process took it for litter in the moment before it was locked
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _put_in_place(file: BinaryIO, part: Path, path: Path) -> None:
    """Move a temporary file to its place, while it is open and so locked, where the system allows that."""
    if not MOVES_OPEN_FILES:
        file.close()  # see `_remove_abandoned`
    move_onto(part, path)


def _part_stem(name: str) -> str:
    return f".{os.fsdecode(os.fsencode(name)[:_NAME_BYTES])}."


def remove_half_written(folder: Path, *names: str) -> None:
    """Remove the temporary files that killed processes left in a folder.

    A file that a process on this or another machine is writing is locked, and stays. So does everything whose name
    is not one of `atomic_write`.

    Args:
        folder: The folder; it need not exist.
        names: Names of files, of which alone those are removed; all without any.
    """
    stems = tuple(map(_part_stem, names)) or (".",)
    for path in folder.glob(".*.part"):
        if _HALF_WRITTEN.fullmatch(path.name) and path.name.startswith(stems):
            with suppress(OSError):
                _remove_abandoned(path)


def _remove_abandoned(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | WITHOUT_WAITING | OPEN_FLAGS | NO_LINK)
    try:
        found = os.fstat(descriptor)
        is_free = lock(descriptor) if stat.S_ISREG(found.st_mode) else False
        is_abandoned = is_free is True
        if is_free is None or (is_free and not MOVES_OPEN_FILES):
            unused = _now_beside(path) - found.st_mtime
            is_abandoned = unused > (_ABANDONED_SECONDS if is_free is None else _CLOSED_SECONDS)
    except BaseException:
        os.close(descriptor)
        raise
    if is_abandoned:
        remove_locked(path, descriptor)
    else:
        os.close(descriptor)


def _now_beside(path: Path) -> float:
    """The time by the clock of a file's file system: a server's may be days or years behind that of this machine."""
    file = _open_part(path)
    try:
        with file:
            return os.fstat(file.fileno()).st_mtime
    finally:
        Path(file.name).unlink()  # once it is closed: Windows removes no open file


def is_half_written(name: str) -> bool:
    """True for the name of a temporary file of `atomic_write`."""
    return _HALF_WRITTEN.fullmatch(name) is not None


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise write_error(error, path) from error


def write_error(error: OSError, path: Path | str, length: int = 0, *, reason: str | None = None) -> WriteError:
    """The error of an output that cannot be written, with the bytes that are needed and those that are free.

    Args:
        error: As the system reports it.
        path: The output.
        length: Bytes that were to be written, as far as known.
        reason: Why there is no room, where the system's number is not known.
    """
    if isinstance(error, WriteError):
        return error
    reason = reason or NO_ROOM.get(error.errno or 0)
    if reason is None:
        why = f"{path}: cannot be written: {error.strerror or error}; look at the folder and the disk"
        refused = WriteError(why)
    else:
        needed = f"{length} bytes were to be written, and " if length else ""
        free = "an unknown number of"
        with suppress(OSError):
            free = str(shutil.disk_usage(Path(path).parent).free)
        is_temporary = Path(tempfile.gettempdir()) in Path(path).parents
        other = "an output (or TMPDIR, for temporary files)" if is_temporary else "an output"
        why = f"{path}: {reason}: {needed}{free} bytes are free there; make room, or choose {other} on another disk"
        refused = WriteError(why, code="DISK_FULL")
    refused.errno, refused.filename = error.errno, os.fspath(path)
    return refused


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, unless it is there.

    Raises:
        WriteError: The disk is full, or the system does not allow it.
    """
    with _reported(path):
        path.mkdir(parents=True, exist_ok=True)


def make_inner_folder(path: Path) -> None:
    """Make a folder in an output, unless it is there; see `refuse_link`."""
    refuse_link(path)
    make_folder(path)


def refuse_link(path: Path) -> None:
    """Refuse a link in the place of something in an output: what it leads to is elsewhere, and is not ours.

    Raises:
        OutputExistsError: There is one.
    """
    if path.is_symlink():
        raise OutputExistsError(
            f"{path}: is a link to somewhere else, which is neither filled nor removed; remove the link, or choose "
            "another output",
            code="OUTPUT_LINK",
        )


def refuse_existing_file(path: Path | str, *, overwrite: bool) -> None:
    """Refuse an output file that already exists, unless it may be overwritten; a folder may never be.

    Raises:
        OutputExistsError: It exists, and `overwrite` is false or `path` is a folder.
    """
    path = Path(path)
    if path.exists() and not (overwrite and path.is_file()):
        raise OutputExistsError(
            f"{path}: already exists; choose another output, or replace it (--overwrite, overwrite=True)"
        )


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write a file, whole or not at all; see `atomic_write`."""
    with atomic_write(path) as file:
        file.write(content)


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files so that all appear or none: only when the disk has all of them are they moved to their places.

    Args:
        contents: The content of each file; the first appears first.
    """
    with ExitStack() as files:
        for path, content in reversed(list(contents.items())):
            file = files.enter_context(atomic_write(path))
            file.write(content)
            file.flush()


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all; NaN becomes `null` and infinity `"inf"`."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """The content of a file of `write_json`."""
    text = json.dumps(plain_json(value), indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def plain_json(value: Any) -> Any:
    """A value that JSON can hold: NaN becomes `None` and infinity `"inf"`, tuples become lists, and keys text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    return value


def write_csv(path: Path | str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table, whole or not at all.

    NaN and None become empty fields and infinity `inf`. Text that a spreadsheet would run as a formula gets
    a leading apostrophe, and control characters in text become spaces.
    """
    write_bytes(path, csv_bytes(columns, rows))


def csv_bytes(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """The content of a file of `write_csv`."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[csv_field(value) for value in row] for row in rows])
    return buffer.getvalue().encode()


def csv_field(value: object) -> str:
    """One value as it stands in a CSV file of medfcn.

    Example:
        >>> [csv_field(value) for value in (float("nan"), float("inf"), 0.25, "case_1", "=1+1", "-id")]
        ['', 'inf', '0.25', 'case_1', "'=1+1", "'-id"]
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.10g}"
    if not isinstance(value, str):
        return str(value)
    text = without_breaks(value)
    return f"'{text}" if text[:1] in set("=+-@'") else text


def csv_text(field: str) -> str:
    """The text that a field of `csv_field` stands for.

    Example:
        >>> csv_text(csv_field("-id")), csv_text(csv_field("case_1"))
        ('-id', 'case_1')
    """
    return field.removeprefix("'")


def sha256_of(path: Path | str) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
