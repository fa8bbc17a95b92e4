"""The patients that cases are of, and the strata that they are in: facts about cases that no mask contains."""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from medfcn.datasets.cases import Dataset
from medfcn.datasets.column_names import patients_in
from medfcn.datasets.find import dataset_of_masks
from medfcn.datasets.patients import (
    chosen_grouping,
    column_text,
    groups_from_ids,
    groups_from_table,
    shared_stems,
    stems_text,
)
from medfcn.datasets.tables import read_table
from medfcn.errors import DatasetError, SettingsError
from medfcn.evaluation.matching import Masks, mask_ids
from medfcn.text import did_you_mean, listed

NOT_STATED = "not stated"
"""The stratum of cases for which a column has no value."""
_EMPTY = ("", "-", "n/a", "na", "nan", "none")
"""The fields of a table, in letters of any size, of values that are not known."""

Grouping = Mapping[str, str] | str | os.PathLike[str] | None
"""Patients by case id; a table with the columns `id` and `group`; `stem`, `none` or a regular expression."""


@dataclass(frozen=True)
class Cohort:
    """Facts about cases.

    Attributes:
        patients: The patient of each case; empty unless several cases are of one. A case that is not in it is a
            patient of its own.
        columns: By column, the value of each case; `NOT_STATED` where there is none.
        unstated: A note if nothing states the patients, although ids share stems, or if the given groups or table
            change nothing; empty otherwise.

    Example:
        >>> cohort = Cohort.of_groups({"P3_left": "P3", "P3_right": "P3", "P4_left": "P4"})
        >>> cohort.count(["P3_left", "P3_right", "P4_left"])
        2
        >>> Cohort.of_groups({"a": "P1", "b": "P2"}) == Cohort()
        True
    """

    patients: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unstated: str = ""

    @classmethod
    def of_groups(cls, groups: Mapping[str, str], unstated: str = "") -> "Cohort":
        """The cohort of cases in groups."""
        return cls(dict(groups) if len(set(groups.values())) < len(groups) else {}, unstated=unstated)

    @property
    def is_clustered(self) -> bool:
        """True if several cases are of one patient."""
        return bool(self.patients)

    def patients_of(self, cases: Iterable[str]) -> list[str]:
        """The patient of each case; empty if each case is a patient of its own."""
        return [self.patients.get(case, case) for case in cases] if self.patients else []

    def count(self, cases: Iterable[str]) -> int:
        """Number of patients among some cases."""
        return len({self.patients.get(case, case) for case in cases})

    def to_json(self) -> dict[str, Any]:
        """The facts that there are, for a JSON file."""
        facts = {"patients": self.patients, "columns": self.columns}
        return {name: fact for name, fact in facts.items() if fact}


def find_cohort(
    references: Masks,
    cases: Sequence[str],
    *,
    groups: Grouping = None,
    group_by: str | None = None,
    by: Sequence[str] = (),
    table: str | os.PathLike[str] | None = None,
    bids: str | None = None,
) -> Cohort:
    """The patients of the cases to score, and their strata.

    Args:
        references: The references, all of them: stems are those of all ids.
        cases: The ids of the cases to score.
        groups: The patients; by default those that the references state, if they are a table with a column `group`.
        group_by: Instead of it, as in `medfcn.datasets.patients.groups_from_ids`.
        by: Names of columns.
        table: A table with a column `id`, of cases or patients, that has these columns; else they are those of the
            references, if they are a table or a BIDS data set, or of the table of groups.
        bids: As in `find_dataset`.

    Raises:
        SettingsError: `groups` and `group_by` are both given, the expression is none, or there is no table.
        DatasetError: A case has no group, or two; no table has such a column; a case has two values; or no id of a
            table is that of a case or patient.
        MissingFileError: A table does not exist.
    """
    dataset = None if isinstance(references, Mapping) else dataset_of_masks(references, bids=bids)
    ids = partial(mask_ids, references, bids=bids)
    stated, path, unstated = _stated_patients(ids, dataset, cases, groups, group_by)
    cohort = Cohort.of_groups({case: stated.get(case, case) for case in cases}, unstated)
    if not by:
        idle = "the table of the cohort changes nothing: no column of it is named (--by)" if table is not None else ""
        return replace(cohort, unstated="; ".join(filter(None, (unstated, idle))))
    known = {} if path is None else _columns_in(Path(path), by, cases, cohort)
    known |= {} if dataset is None else dataset.columns
    known |= {} if table is None else _columns_in(Path(table), by, cases, cohort)
    broken = () if dataset is None else (one for one in dataset.problems if one.code == "TABLE_BROKEN")
    unusable = {one.field: one for one in broken}
    absent = [name for name in by if name not in known]
    if absent and absent[0] in unusable:
        problem = unusable[absent[0]]
        raise DatasetError(f"{problem.file}: {problem.found}; give it one", code=problem.code, field=problem.field)
    if not known:
        raise SettingsError(
            f"by {by[0]}: the references are no table; give one with a column id and this one (--cohort FILE)",
            field="by",
        )
    if absent:
        raise DatasetError(
            f"by {absent[0]}: there is no such column{did_you_mean(absent[0], known)}",
            code="TABLE_COLUMNS",
            field="by",
        )
    return replace(cohort, columns={name: {case: _value(known[name].get(case)) for case in cases} for name in by})


def patients_of(
    references: Masks, groups: Grouping = None, group_by: str | None = None, *, bids: str | None = None
) -> Mapping[str, str]:
    """The patient of each reference, as far as a user or the references state them.

    Args:
        references: The references.
        groups: As in `find_cohort`.
        group_by: As in `find_cohort`.
        bids: As in `find_dataset`.

    Raises:
        SettingsError: As in `find_cohort`.
        DatasetError: As in `find_cohort`.
        MissingFileError: A table does not exist.
    """
    dataset = None if isinstance(references, Mapping) else dataset_of_masks(references, bids=bids)
    return _stated_patients(partial(mask_ids, references, bids=bids), dataset, (), groups, group_by)[0]


def _stated_patients(
    ids: Callable[[], Sequence[str]],
    dataset: Dataset | None,
    cases: Sequence[str],
    groups: Grouping,
    group_by: str | None,
) -> tuple[Mapping[str, str], str | os.PathLike[str] | None, str]:
    """Patients by case, the table that states them, and a note if nothing does."""
    if isinstance(groups, Mapping):
        missing = [case for case in cases if case not in groups]
        if missing:
            raise DatasetError(
                f"groups: no patient for {listed(missing, limit=3)}; give every case one",
                code="GROUP_INVALID",
                field="groups",
            )
        return groups, None, ""
    path, rule = chosen_grouping(groups, group_by)
    if path is not None:
        stated = groups_from_table(path, cases)
        return stated, path, _note_on_idle(stated, cases)
    if rule is not None:
        stated = groups_from_ids(ids(), rule)
        return stated, None, "" if rule == "none" else _note_on_idle(stated, cases)
    if dataset is not None and dataset.has_groups:
        return {case.id: case.group for case in dataset.all_cases}, None, ""
    column, patients = ("", {}) if dataset is None else patients_in(dataset.columns)
    return {}, None, _note_on_stems(ids(), frozenset(cases), column, patients)


def _note_on_idle(groups: Mapping[str, str], cases: Sequence[str]) -> str:
    """Says that the given groups join no cases."""
    if len(cases) < 2 or len({groups.get(case, case) for case in cases}) < len(cases):
        return ""
    return f"the groups change nothing: each of the {len(cases)} cases is a patient of its own"


def _note_on_stems(
    ids: Sequence[str], cases: Collection[str], column: str, patients: Mapping[str, Sequence[str]]
) -> str:
    """Says that cases seem to be of one patient, although each is counted as a patient."""
    shared = patients or shared_stems(ids)
    stems = {stem: [name for name in names if name in cases] for stem, names in shared.items()}
    stems = {stem: names for stem, names in stems.items() if len(names) > 1}
    if not stems:
        return ""
    found, remedy = stems_text(stems), "give --group-by stem (or --groups FILE)"
    if column:
        found, remedy = column_text(column, stems), "call the column group"
    return (
        f"{found}; each is counted as a patient here, which makes intervals too narrow and p values too small: "
        f"{remedy}, or give --group-by none if each case is a patient"
    )


def _columns_in(path: Path, by: Sequence[str], cases: Sequence[str], cohort: Cohort) -> dict[str, Mapping[str, str]]:
    """The columns of a table, each by case; its ids are those of cases or of patients."""
    table = read_table(path, "id")
    rows: dict[str, Mapping[str, str]] = {}
    lines: dict[str, int] = {}
    for line, row in table.rows:
        name = row["id"].strip()
        first = rows.setdefault(name, row)
        lines.setdefault(name, line)
        for column in by:
            one, other = (_value(each.get(column)) for each in (first, row))
            if one != other:
                two = f"line {line}: {name} has two values of {column}, {one!r} and {other!r}"
                raise DatasetError(f"{table.name}: {two}; give it one", code="TABLE_BROKEN", field=column)
    found: dict[str, list[str]] = {}
    for case in cases:
        if names := [name for name in dict.fromkeys((case, cohort.patients.get(case, case))) if name in rows]:
            found[case] = names
    if not found:
        raise DatasetError(
            f"{table.name}: no id in it is that of a case or patient, such as {cases[0]!r}; correct the ids, or say "
            "with --groups or --group-by which patient a case is of",
            code="CASES_UNMATCHED",
            field="id",
        )
    for case, names in found.items():
        for column in by:
            stated = [name for name in names if _value(rows[name].get(column)) != NOT_STATED]
            if len({_value(rows[name][column]) for name in stated}) > 1:
                two = " and ".join(f"{_value(rows[name][column])!r} (line {lines[name]}: {name})" for name in stated)
                raise DatasetError(
                    f"{table.name}: {case} has two values of {column}, {two}; give the case and its patient one",
                    code="TABLE_BROKEN",
                    field=column,
                )
    return {
        column: {
            case: next((rows[of][column] for of in names if _value(rows[of][column]) != NOT_STATED), "")
            for case, names in found.items()
        }
        for column in table.columns
    }


def _value(text: str | None) -> str:
    """The value of a column, or the name of the stratum of cases without one."""
    text = (text or "").strip()
    return NOT_STATED if text.lower() in _EMPTY else text
