"""Changes of volumes over time: which cases are two times of one patient, and by how much each label differs."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from medfcn.datasets.patients import require_distinct
from medfcn.datasets.tables import Table, read_table
from medfcn.errors import DatasetError
from medfcn.text import listed

_EARLIER, _LATER = "before", "after"
_TIMED = ("id", "group", "time")


class Change(NamedTuple):
    """One label at two times.

    Attributes:
        before: The id of the earlier case.
        after: The id of the later case.
        label: The label's name.
        before_ml: Its volume in the earlier case, in millilitres.
        after_ml: Its volume in the later case.
        change_ml: The later volume less the earlier one.
        change_percent: The same in per cent of the earlier volume; nan where that is 0.
    """

    before: str
    after: str
    label: str
    before_ml: float
    after_ml: float
    change_ml: float
    change_percent: float


def read_pairs(path: str | os.PathLike[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of case ids, the earlier one first.

    Args:
        path: A CSV or TSV with the columns `before` and `after`; or with `id`, `group` (the patient) and `time` (a
            number, or a date such as 2024-05-31), of which each case is paired with the next one of its group.

    Raises:
        MissingFileError: There is no such file.
        DatasetError: It lacks the columns, or a time is neither a number nor a date, times are of both kinds, two
            cases of a group have the same time, a case has no group or two lines, or two groups look like one.
    """
    table = read_table(Path(path), known=(_EARLIER, _LATER, *_TIMED))
    if {_EARLIER, _LATER} <= set(table.columns):
        return tuple((row[_EARLIER].strip(), row[_LATER].strip()) for _, row in table.rows)
    if not set(_TIMED) <= set(table.columns):
        raise DatasetError(
            f"{table.name}: has the columns {listed(table.columns)}; expected before, after (ids of cases), or id, "
            "group, time",
            code="TABLE_COLUMNS",
            field="pairs",
        )
    return _in_time(table)


def _in_time(table: Table) -> tuple[tuple[str, str], ...]:
    groups: dict[str, list[tuple[float, str]]] = {}
    patients: dict[str, str] = {}
    first_time: tuple[bool, str] | None = None
    for line, row in table.rows:
        name, group, text = (row[column].strip() for column in _TIMED)
        if not name or not group or name in patients:
            found = f"line {line}: {name or 'a case without id'} has no group, or is given twice"
            raise DatasetError(f"{table.name}: {found}; give it one line", code="GROUP_INVALID", field="group")
        patients[name] = group
        time, is_date = _time_of(text, f"{table.name}: line {line}")
        first_time = first_time or (is_date, text)
        was_date, other = first_time
        if was_date != is_date:
            kinds = ("number", "date")
            raise DatasetError(
                f"{table.name}: line {line}: time {text!r} is a {kinds[is_date]}, and {other!r} is a "
                f"{kinds[was_date]}; give all times in one kind",
                code="TABLE_BROKEN",
                field="time",
            )
        groups.setdefault(group, []).append((time, name))
    require_distinct(patients, source=table.name)
    pairs: list[tuple[str, str]] = []
    for group, cases in groups.items():
        for (earlier, first), (later, second) in pairwise(sorted(cases)):
            if earlier == later:
                raise DatasetError(
                    f"{table.name}: {first} and {second} of {group} have the same time; give each its own",
                    code="TABLE_BROKEN",
                    field="time",
                )
            pairs.append((first, second))
    return tuple(pairs)


def _time_of(text: str, place: str) -> tuple[float, bool]:
    """A time as a number, and True if it is a date."""
    is_date = False
    try:
        time = float(text)
    except ValueError:
        is_date = True
        try:
            time = datetime.fromisoformat(text).replace(tzinfo=None).toordinal()
        except ValueError:
            time = math.nan
    if not math.isfinite(time):
        raise DatasetError(
            f"{place}: time {text!r} is neither a number nor a date; write for example 12.5 or 2024-05-31",
            code="TABLE_BROKEN",
            field="time",
        )
    return time, is_date


def require_known(pairs: Sequence[tuple[str, str]], cases: Iterable[str]) -> None:
    """Refuse pairs of cases that are not there.

    Raises:
        DatasetError: A case is unknown, or is paired with itself.
    """
    known = set(cases)
    unknown = sorted({case for pair in pairs for case in pair} - known)
    if unknown:
        have = "has" if len(unknown) == 1 else "have"
        raise DatasetError(
            f"pairs: {len(unknown)} of the cases {have} no mask: {listed(unknown)}; correct the ids",
            code="CASES_UNKNOWN",
            field="pairs",
        )
    for earlier, later in pairs:
        if earlier == later:
            raise DatasetError(
                f"pairs: {earlier} is paired with itself; name two cases", code="CASES_UNKNOWN", field="pairs"
            )


def changes_of(pairs: Sequence[tuple[str, str]], volumes_ml: Mapping[str, Mapping[str, float]]) -> tuple[Change, ...]:
    """The change of each label that both cases of a pair have.

    Args:
        pairs: Ids of two cases, the earlier first; pairs with a case that could not be measured give nothing.
        volumes_ml: Millilitres of each label, by case.

    Example:
        >>> changes_of([("a", "b")], {"a": {"tumour": 8.0}, "b": {"tumour": 6.0}})[0][3:]
        (8.0, 6.0, -2.0, -25.0)
    """
    found = []
    for earlier, later in pairs:
        first, second = volumes_ml.get(earlier, {}), volumes_ml.get(later, {})
        for label in (label for label in first if label in second):
            change = second[label] - first[label]
            percent = 100.0 * change / first[label] if first[label] else math.nan
            found.append(Change(earlier, later, label, first[label], second[label], change, percent))
    return tuple(found)
