"""Columns of a table of cases: names in other letters, and columns that say who the patients are or how to split.

A column with another name than those that are read changes nothing. Of patients and of a test part that must not pass
in silence: a network would be scored on patients that it was trained on.
"""

import re
from collections.abc import Collection, Mapping, Sequence

from medfcn.datasets.problems import Problem
from medfcn.text import listed

_PATIENT = re.compile(
    r"(?:(?:patient|subject|participant|person|volunteer|case|study)?groups?|patients?|subj(?:ect)?s?|participants?"
    r"|persons?|volunteers?)(?:id|ids|nr|no|number|name|code)?|pid|mrn|pat|patid"
)
_SPELT_OTHERWISE = {"labeled": "labelled"}
_SPLIT = re.compile(r"(?:data)?(?:splits?|sets?|subsets?|parts?|partitions?|folds?|use|usage)(?:id|nr|no)?")
_PARTS = re.compile(r"t[res]|train|training|test|testing|hold-?out|held-?out|val|valid|validation|dev")


def as_read(columns: Sequence[str], known: Collection[str]) -> tuple[str, ...]:
    """The names of columns, those that are read in small letters and in one spelling.

    Args:
        columns: As they are written.
        known: The names that are read; one that ends in `_` is the beginning of names.

    Example:
        >>> as_read(["ID", "Image_CT", "Labeled", "Sex"], ["id", "image_", "labelled"])
        ('id', 'image_CT', 'labelled', 'Sex')
    """
    starts = [name for name in known if name.endswith("_")]
    names = []
    for column in columns:
        small = _SPELT_OTHERWISE.get(column.casefold(), column.casefold())
        start = next((name for name in starts if small.startswith(name)), "")
        names.append(small if small in known else start + column[len(start) :])
    return tuple(names)


def patients_in(columns: Mapping[str, Mapping[str, str]]) -> tuple[str, dict[str, tuple[str, ...]]]:
    """The first column that seems to name patients, and the cases of each that has several; empty without one.

    Args:
        columns: By name, each with the text for every case by id.

    Example:
        >>> patients_in({"Patient ID": {"a": "7", "b": "7", "c": "8"}})
        ('Patient ID', {'7': ('a', 'b')})
    """
    for name, texts in columns.items():
        if name != "group" and _PATIENT.fullmatch(_letters(name)):
            cases: dict[str, list[str]] = {}
            for case, text in texts.items():
                cases.setdefault(text.strip(), []).append(case)
            several = {patient: tuple(ids) for patient, ids in cases.items() if patient and len(ids) > 1}
            if several and len(cases) > 1:
                return name, several
    return "", {}


def unread_split(columns: Mapping[str, Mapping[str, str]], table: str) -> Problem | None:
    """The warning of a column that seems to prescribe a test or validation part, or folds, and is not read.

    Args:
        columns: By name, each with the text for every case by id.
        table: The name of the table's file.
    """
    if "fold" in columns:
        return None
    for name, texts in columns.items():
        values = sorted({text.strip() for text in texts.values()} - {""})
        are_parts = bool(values) and all(_PARTS.fullmatch(value.casefold()) for value in values)
        are_folds = "fold" in _letters(name) and all(value.isdigit() for value in values)
        if len(values) > 1 and _SPLIT.fullmatch(_letters(name)) and (are_parts or are_folds):
            remedy = (
                "call the column fold, if it has the validation fold of each case"
                if are_folds
                else "give the ids of a test part to --leave-out FILE, or folds in a column fold"
            )
            found = f"the column {name} is not read ({listed(values)}): all cases are used alike"
            return Problem("SPLITS_UNREAD", "warning", "", table, name, found, remedy)
    return None


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.casefold())
