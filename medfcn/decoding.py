"""JSON, and tables of medfcn, from outside: decoded into a type, or refused in one line that names file and field.

Anything that medfcn reads from a `.json` file goes through here. The expected shape is a frozen `msgspec.Struct` or a
dataclass; bounds are `Annotated[int, msgspec.Meta(ge=0)]`.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from medfcn.byte_range import ByteRange
from medfcn.errors import MedfcnError

_Value = TypeVar("_Value")
LARGEST_JSON = 64 * 2**20
"""Bytes; no JSON file of medfcn or of a data set comes near."""


def decode_json(
    content: bytes | str, kind: type[_Value], *, source: str, error: type[MedfcnError], remedy: str, code: str = ""
) -> _Value:
    """Decode JSON into a type.

    Args:
        content: The JSON text.
        kind: The type of the value.
        source: The file's name, for the message.
        error: The class to raise.
        remedy: What to do, for the message.
        code: The problem's code, if not that of the class.

    Raises:
        MedfcnError: As `error`: it is not JSON, or a value has another type than `kind` says. An error of that class
            which `kind` itself raises (in `__post_init__`) is passed on as it is.

    Example:
        >>> from medfcn.errors import ModelError
        >>> decode_json('{"a": [1, "b"]}', dict[str, list[int]], source="x.json", error=ModelError, remedy="copy it")
        Traceback (most recent call last):
            ...
        medfcn.errors.ModelError: x.json: [...][1]: expected int, found str; copy it
    """
    with _refusing(source, error, remedy, code):
        return msgspec.json.decode(content, type=kind)


def convert(value: object, kind: type[_Value], *, source: str, error: type[MedfcnError], remedy: str) -> _Value:
    """Turn a value of dictionaries, lists, text and numbers into a type; the rest is as in `decode_json`.

    Example:
        >>> from medfcn.errors import ModelError
        >>> convert({"a": True}, dict[str, int], source="x.json", error=ModelError, remedy="copy it")
        Traceback (most recent call last):
            ...
        medfcn.errors.ModelError: x.json: [...]: expected int, found bool; copy it
    """
    with _refusing(source, error, remedy):
        return msgspec.convert(value, kind)


@contextmanager
def _refusing(source: str, error: type[MedfcnError], remedy: str, code: str = "") -> Iterator[None]:
    try:
        yield
    except msgspec.ValidationError as problem:
        if isinstance(problem.__cause__, error):
            raise problem.__cause__ from problem
        what, _, where = str(problem).partition(" - at `$")
        field = where.removesuffix("`").removeprefix(".")
        what = what.replace("`", "").replace("Expected", "expected").replace(", got ", ", found ")
        place = f"{field}: " if field else ""
        raise error(f"{source}: {place}{what}; {remedy}", code=code, field=field) from problem
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as problem:
        raise error(f"{source}: not JSON ({problem}); {remedy}", code=code) from problem


def read_json(
    path: Path | ByteRange,
    kind: type[_Value],
    *,
    error: type[MedfcnError],
    remedy: str,
    largest_bytes: int = LARGEST_JSON,
) -> _Value:
    """Read a JSON file into a type; see `decode_json`.

    Args:
        path: The file, or its place in another.
        kind: As in `decode_json`.
        error: As in `decode_json`.
        remedy: As in `decode_json`.
        largest_bytes: A larger file is refused before it is read.

    Raises:
        MedfcnError: As `error`: the file is too large, is not JSON, or holds another type.
        OSError: It cannot be read.
    """
    place = path if isinstance(path, ByteRange) else ByteRange.of(path, error=error, remedy=remedy)
    if place.length > largest_bytes:
        raise error(f"{place.name}: {place.length} bytes, expected at most {largest_bytes}; {remedy}")
    return decode_json(place.read(), kind, source=place.name, error=error, remedy=remedy)


def decode_csv(
    content: bytes, columns: Sequence[str], *, source: str, error: type[MedfcnError], remedy: str
) -> list[dict[str, str]]:
    """Decode a table that medfcn wrote, by the names of its columns.

    Args:
        content: The text.
        columns: Names that must be there; others may be.
        source: As in `decode_json`.
        error: As in `decode_json`.
        remedy: As in `decode_json`.

    Returns:
        A dictionary for each row; a row that is too short has empty fields.

    Raises:
        MedfcnError: As `error`: it is no table, or lacks a column.

    Example:
        >>> from medfcn.errors import ModelError
        >>> decode_csv(b"case,use\\na\\n", ["use"], source="x.csv", error=ModelError, remedy="copy it")
        [{'case': 'a', 'use': ''}]
        >>> decode_csv(b"a\\n", ["case"], source="x.csv", error=ModelError, remedy="copy it")
        Traceback (most recent call last):
            ...
        medfcn.errors.ModelError: x.csv: has no column 'case'; copy it
    """
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), restval="")
        names = reader.fieldnames or ()
        rows = [{name: row[name] for name in names} for row in reader]
    except (UnicodeDecodeError, csv.Error) as problem:
        raise error(f"{source}: is not a table ({problem}); {remedy}") from problem
    for name in columns:
        if name not in names:
            raise error(f"{source}: has no column {name!r}; {remedy}", field=name)
    return rows
