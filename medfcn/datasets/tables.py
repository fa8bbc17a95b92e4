"""Tables and `dataset.json`: text that others wrote, read strictly, its paths kept inside a root."""

import csv
import io
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medfcn.errors import DatasetError, MissingFileError
from medfcn.text import shown

LARGEST_TEXT = 64 << 20
"""A table or `dataset.json` longer than this is not one."""
_LONGEST_ID = 200


@dataclass(frozen=True)
class Table:
    """The rows of a CSV or TSV file, as text."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]
    """Line numbers, and values by column."""


def read_text(path: Path) -> str:
    """The text of a small regular UTF-8 file.

    Raises:
        MissingFileError: It is not there.
        DatasetError: It is no regular file, too long, or not UTF-8.
    """
    name = shown(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DatasetError(f"{name}: not a file; give a text file")
        if status.st_size > LARGEST_TEXT:
            raise DatasetError(f"{name}: {status.st_size} bytes are too many for a table; is it the right file?")
        return path.read_bytes().decode("utf-8-sig")
    except DatasetError:
        raise
    except FileNotFoundError as error:
        raise MissingFileError(f"{name}: no such file; check the path") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{name}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a valid path"
        raise DatasetError(f"{name}: cannot be read ({reason}); check the path and its permissions") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        DatasetError: It is not JSON, or not an object.
    """
    text, name = read_text(path), shown(path)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DatasetError(f"{name}: not JSON at line {error.lineno}: {error.msg}; mend the file") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{name}: not usable JSON ({type(error).__name__}); mend the file") from error
    if not isinstance(value, dict):
        raise DatasetError(f"{name}: holds a {type(value).__name__}; expected an object with keys")
    return value


def read_table(path: Path) -> Table:
    """The rows of a CSV (comma or semicolon) or TSV file with a header line.

    Raises:
        DatasetError: A row has another number of fields than the header, a column is given twice, or the
            text is no table.
    """
    text, name = read_text(path), shown(path)
    first = text.split("\n", 1)[0]
    tabs = path.suffix.lower() == ".tsv" or ("\t" in first and "," not in first)
    delimiter = "\t" if tabs else ";" if ";" in first and "," not in first else ","
    rows: list[tuple[int, dict[str, str]]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = tuple(column.strip() for column in next(reader, []))
        if not any(columns):
            raise DatasetError(f"{name}: an empty table; expected a header line such as id,image,label")
        for column in columns:
            if columns.count(column) > 1:
                raise DatasetError(f"{name}: the column {column!r} is given twice; rename one")
        for fields in reader:
            if not any(field.strip() for field in fields):
                continue
            if len(fields) != len(columns):
                raise DatasetError(
                    f"{name}: line {reader.line_num} has {len(fields)} fields; expected {len(columns)}; "
                    "quote fields that hold the separator"
                )
            rows.append((reader.line_num, dict(zip(columns, fields, strict=True))))
    except csv.Error as error:
        raise DatasetError(f"{name}: no table at line {reader.line_num}: {error}; mend the file") from error
    return Table(name, columns, tuple(rows))


def read_ids(path: Path | str) -> tuple[str, ...]:
    """The case ids in a text file: one per line; empty lines are skipped.

    Raises:
        MissingFileError: There is no such file.
        DatasetError: It is not a text file, or contains no id.
    """
    ids = tuple(line.strip() for line in read_text(Path(path)).splitlines() if line.strip())
    if not ids:
        raise DatasetError(f"{shown(path)}: contains no case id; write one per line")
    return ids


def inside_root(root: Path, text: object, *, where: str, allow_outside: bool) -> Path:
    """The file that a table or `dataset.json` names, if it lies inside the dataset's root.

    Links are followed, so that one inside the root cannot lead out of it unnoticed.

    Args:
        root: The folder that relative paths start from.
        text: What was written.
        where: The file and the place in it, for messages.
        allow_outside: Whether the root may be left.

    Raises:
        DatasetError: It is not a path, or leads outside.
    """
    if not isinstance(text, str) or not text.strip():
        raise DatasetError(f"{where}: {text!r} is not a path; give one relative to the dataset")
    try:
        path = root / text.strip()
        real, real_root = os.path.realpath(path), os.path.realpath(root)
        encoded = os.fsencode(path)
    except (ValueError, OSError) as error:
        raise DatasetError(f"{where}: {text!r} is not a valid path; mend the entry") from error
    if b"\0" in encoded:
        raise DatasetError(f"{where}: {text!r} is not a valid path; mend the entry")
    if not allow_outside and os.path.commonpath([real, real_root]) != real_root:
        raise DatasetError(
            f"{where}: {text} leads outside the dataset's folder; move the file, or pass --allow-outside"
        )
    return path


def checked_id(text: str, *, where: str) -> str:
    """An id that can name a file: masks are written as `<id>.nii.gz`.

    Raises:
        DatasetError: It is empty, too long, starts with a dot, or holds a slash or NUL.
    """
    try:
        length = len(text.encode())
    except UnicodeEncodeError as error:
        raise DatasetError(f"{where}: the id {text!r} is not valid text; rename it") from error
    if not text or text.startswith(".") or "/" in text or "\0" in text or length > _LONGEST_ID:
        raise DatasetError(
            f"{where}: the id {text!r} cannot name a file; use one of at most "
            f"{_LONGEST_ID} "
            "bytes without / and without a leading dot"
        )
    return text


def first_few(names: Sequence[str], *, limit: int = 3) -> str:
    """The first few of some ids, and how many there are.

    Example:
        >>> first_few(["a", "b", "c", "d"])
        'a, b, c and 1 more'
    """
    text = ", ".join(name for name in names[:limit])
    return text + (f" and {len(names) - limit} more" if len(names) > limit else "")
