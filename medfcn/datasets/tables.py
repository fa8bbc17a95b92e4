"""Tables, lists of ids and paths in them: text that others wrote, read strictly."""

import csv
import io
import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medfcn.datasets.column_names import as_read
from medfcn.errors import DatasetError, MissingFileError, not_a_file
from medfcn.text import counted, listed, nearest, one_line, shown

LARGEST_TEXT = 64 << 20
"""Bytes; a longer file is no table and no `dataset.json`."""
_LONGEST_ID = 200


@dataclass(frozen=True)
class Table:
    """The rows of a CSV or TSV file, as text.

    Attributes:
        name: The file's name.
        columns: Names of the columns.
        rows: Line numbers, and values by column.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[int, Mapping[str, str]], ...]


def read_text(path: Path) -> str:
    """The text of a small regular UTF-8 file.

    Raises:
        MissingFileError: There is no such file.
        DatasetError: It is no regular file, too long, or not UTF-8.
    """
    name = shown(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DatasetError(f"{name}: {not_a_file(status.st_mode, 'give a text file')}", code="FILE_NOT_REGULAR")
        if status.st_size > LARGEST_TEXT:
            found = f"{status.st_size} bytes, expected at most {LARGEST_TEXT}"
            raise DatasetError(f"{name}: {found}; is it the right file?", code="FILE_SIZE")
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise MissingFileError(f"{name}: no such file; check the path") from error
    except UnicodeDecodeError as error:
        found = f"byte {error.start} is not UTF-8"
        raise DatasetError(f"{name}: {found}; save the file as UTF-8", code="TEXT_NOT_UTF8") from error
    except OSError as error:
        found = f"cannot be read ({error.strerror})"
        raise DatasetError(f"{name}: {found}; check its permissions", code="FILE_UNREADABLE") from error


def read_table(path: Path, *needed: str, known: Collection[str] = ()) -> Table:
    """The rows of a CSV (comma or semicolon) or TSV file with a header line.

    Args:
        path: The file.
        needed: Columns that it must have.
        known: Further columns that are read; a name in other letters (`Group`) stands for each of them.

    Raises:
        DatasetError: A row has another number of fields than the header, a column is missing or given twice, or the
            text is no table.
    """
    text, name = read_text(path), shown(path)
    first = text.split("\n", 1)[0]
    tabs = path.suffix.lower() == ".tsv" or ("\t" in first and "," not in first)
    delimiter = "\t" if tabs else ";" if ";" in first and "," not in first else ","
    rows: list[tuple[int, dict[str, str]]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = as_read([column.strip() for column in next(reader, [])], (*needed, *known))
        _check_columns(name, columns, needed)
        for fields in reader:
            if not any(field.strip() for field in fields):
                continue
            if len(fields) != len(columns):
                found = f"line {reader.line_num} has {len(fields)} fields, expected {len(columns)}"
                remedy = "quote fields that contain the separator"
                raise DatasetError(f"{name}: {found}; {remedy}", code="TABLE_BROKEN")
            rows.append((reader.line_num, dict(zip(columns, fields, strict=True))))
    except csv.Error as error:
        found = f"no table at line {reader.line_num}: {error}"
        raise DatasetError(f"{name}: {found}; fix the file", code="TABLE_BROKEN") from error
    return Table(name, columns, tuple(rows))


def _check_columns(name: str, columns: tuple[str, ...], needed: tuple[str, ...]) -> None:
    if not any(columns):
        raise DatasetError(f"{name}: empty; expected a header line such as id,image,label", code="TABLE_EMPTY")
    times = Counter(columns)
    for column in columns:
        if times[column] > 1:
            found = f"the column {column!r} is given twice"
            raise DatasetError(f"{name}: {found}; rename one", code="TABLE_COLUMNS", field=column)
    for column in set(needed).difference(columns):
        found = f"columns {listed(columns)}; expected {listed(needed)}"
        raise DatasetError(f"{name}: {found}", code="TABLE_COLUMNS", field=column)


Ids = str | os.PathLike[str] | Iterable[str]
"""Ids of cases, or a text file with one per line."""


def ids_of(given: Ids) -> tuple[str, ...]:
    """The ids that are given, or those in the file that is given.

    Raises:
        MissingFileError: There is no such file.
        DatasetError: It is not a text file, or contains no id.
    """
    return read_ids(given) if isinstance(given, str | os.PathLike) else tuple(given)


def cases_by_line(lines: Iterable[str], groups: Mapping[str, str]) -> dict[str, set[str]]:
    """The cases that each line of a list takes: a group of that name with all its cases, else the case.

    Args:
        lines: Ids of cases, or names of groups.
        groups: The group of each case that there is; one that has none is its own.

    Returns:
        For each line the ids of its cases; none where it is neither.

    Raises:
        DatasetError: A line is a group and also a case of another group.

    Example:
        >>> cases_by_line(["p1", "b"], {"p1": "p1", "a": "p1", "b": "p2"}) == {"p1": {"p1", "a"}, "b": {"b"}}
        True
    """
    members: dict[str, set[str]] = {}
    for case, group in groups.items():
        members.setdefault(group, set()).add(case)
    taken = {}
    for line in lines:
        of_group = members.get(line, set())
        if of_group and groups.get(line, line) != line:
            raise DatasetError(
                f"{line}: a patient (group) with {counted(len(of_group), 'case')}, and also a case of the patient "
                f"{groups[line]}; rename one of them, or name the cases: {listed(sorted(of_group), limit=3)}",
                code="CASES_UNKNOWN",
                field="cases",
            )
        taken[line] = of_group or ({line} if line in groups else set())
    return taken


def chosen_ids(
    given: Ids,
    known: Collection[str],
    *,
    lack: str,
    patients: Mapping[str, str] | None = None,
    say: Callable[[str], None] | None = None,
) -> set[str]:
    """The ids of the cases to use, all of which are there; a patient stands for all of its cases.

    A patient is a group that the data set states. Where it states none, it is the beginning of ids before a `_`, with
    a number in it, such as `sub-01` of `sub-01_ses-1`.

    Args:
        given: The ids of cases and patients that are asked for.
        known: The ids that are there.
        lack: What an unknown case does not have, such as `mask`.
        patients: The patient of each case, where they are stated.
        say: Told how many cases a line took that is only the beginning of their ids.

    Raises:
        MissingFileError: There is no such file of ids.
        DatasetError: It contains no id; or one of them is neither a case nor a patient, or is both a patient and a
            case of another one.

    Example:
        >>> sorted(chosen_ids(["p1", "p12_left"], ["p1_left", "p1_right", "p12_left"], lack="mask"))
        ['p12_left', 'p1_left', 'p1_right']
    """
    groups = {case: (patients or {}).get(case, case) for case in known}
    are_stated = any(case != group for case, group in (patients or {}).items())
    taken = cases_by_line(sorted(set(ids_of(given))), groups)
    for name in [name for name, cases in taken.items() if not cases and not are_stated]:
        taken[name] = {case for case in known if _begins(case, name)}
        if taken[name] and say is not None:
            count, their = len(taken[name]), "whose ids begin" if len(taken[name]) > 1 else "whose id begins"
            say(f"{name}: {counted(count, 'case')} {their} with {name}_")
    unknown = [name for name, cases in taken.items() if not cases]
    if not unknown:
        return set().union(*taken.values())
    have, are = ("case has", "is no patient") if len(unknown) == 1 else ("cases have", "are no patients")
    near = {*groups, *groups.values()} | (set() if are_stated else {case.split("_")[0] for case in groups})
    names = listed(_with_nearest(name, near) for name in unknown)
    raise DatasetError(
        f"{len(unknown)} requested {have} no {lack}, and {are}: {names}; correct the ids",
        code="CASES_UNKNOWN",
        field="cases",
    )


def _begins(case: str, name: str) -> bool:
    """True if an id goes on with `_` after a name with a number in it: `p1_left` after `p1`, and not `p1-2_left`."""
    is_numbered = any(map(str.isdigit, name))  # `case` begins all ids, and may be the heading of a column
    return is_numbered and case.startswith(f"{name}_")


def _with_nearest(name: str, known: Collection[str]) -> str:
    near = nearest(name, set(known) - {name})
    return f"{name} (nearest is {near})" if near else name


def read_ids(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The ids of cases or patients in a text file: one per line; empty lines are skipped.

    Raises:
        MissingFileError: There is no such file.
        DatasetError: It is not a text file, or contains no id.
    """
    ids = tuple(line.strip() for line in read_text(Path(path)).splitlines() if line.strip())
    if not ids:
        raise DatasetError(f"{shown(path)}: contains no case id; write one per line", code="TABLE_EMPTY")
    return ids


def inside_root(root: Path, text: str, *, where: str, field: str, allow_outside: bool) -> Path:
    """The file that a table or `dataset.json` names, if it is inside the data set's root.

    Links are followed, so that one inside the root cannot lead out of it unnoticed.

    Args:
        root: The folder that relative paths start from.
        text: The path as written.
        where: The file and the place in it, for messages.
        field: The column or key, likewise.
        allow_outside: True if the path may leave the root.

    Raises:
        DatasetError: It is not a path, or leads outside.
    """
    try:
        path = root / text.strip()
        real, real_root = os.path.realpath(path), os.path.realpath(root)
        valid = bool(text.strip()) and b"\0" not in os.fsencode(path)
    except (ValueError, OSError):
        valid = False
    if not valid:
        found = f"{text!r} is not a valid path"
        raise DatasetError(f"{where}: {found}; give one in the data set", code="PATH_INVALID", field=field)
    if not allow_outside and os.path.commonpath([real, real_root]) != real_root:
        found, remedy = f"{text} leads out of the data set's folder", "move the file, or pass --allow-outside"
        raise DatasetError(f"{where}: {found}; {remedy}", code="PATH_OUTSIDE", field=field)
    return path


def checked_id(text: str, *, where: str) -> str:
    """An id that can name a file: masks are written as `<id>.nii.gz`.

    Raises:
        DatasetError: It is empty, too long, starts with a dot, or contains a slash or NUL.
    """
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        length = 0
    if not 0 < length <= _LONGEST_ID or text.startswith(".") or "/" in text or "\0" in text:
        remedy = f"use one of at most {_LONGEST_ID} bytes without / and without a leading dot"
        raise DatasetError(
            f"{where}: the id {one_line(repr(text), limit=60)} cannot name a file; {remedy}",
            code="ID_INVALID",
            field="id",
        )
    return text
