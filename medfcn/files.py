"""Files that are written whole or not at all, and hashes of files.

Nothing here knows what is in a file. Every writer in medfcn goes through `atomic_write`.
"""

import csv
import hashlib
import io
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from medfcn.errors import OutputExistsError


@contextmanager
def atomic_write(path: Path | str) -> Iterator[BinaryIO]:
    """Open `path` for writing so that it appears complete or not at all.

    The bytes go to a hidden temporary file beside `path`, which is flushed to the disk and then moved over
    `path` in one step. If the body raises, the temporary file is removed and an older `path` is untouched.
    A process that is killed leaves at most a hidden `.<name>.<hex>.part` file, never a broken `path`.

    Args:
        path: The final file; its folder must exist.

    Yields:
        A binary file object.

    Raises:
        OSError: The disk is full, the folder is missing or may not be written to.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_write(folder / "a.txt") as file:
        ...     _ = file.write(b"whole")
        >>> (folder / "a.txt").read_bytes(), len(list(folder.iterdir()))
        (b'whole', 1)
    """
    path = Path(path)
    # A short fixed prefix keeps the temporary name valid for any legal final name.
    part = path.parent / f".{path.name[:100]}.{secrets.token_hex(6)}.part"
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the file system offers it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all; NaN becomes `null` and infinity `"inf"`."""
    text = json.dumps(plain_json(value), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as file:
        file.write(text.encode() + b"\n")


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
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[csv_field(value) for value in row] for row in rows])
    with atomic_write(path) as file:
        file.write(buffer.getvalue().encode())


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
    text = "".join(character if character.isprintable() else " " for character in value)
    return f"'{text}" if text[:1] in set("=+-@'") else text


def sha256_of(path: Path | str) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
