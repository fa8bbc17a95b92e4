"""Tables of a BIDS data set: what the values of labels are called, and what is known of participants."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from medfcn.datasets.bids_files import BidsFile
from medfcn.datasets.cases import NamedLabels
from medfcn.datasets.listing import files_in
from medfcn.datasets.problems import Problem, problem_of
from medfcn.datasets.tables import Table, read_table
from medfcn.errors import DatasetError, MedfcnError
from medfcn.text import shown

_PARTICIPANTS, _ID = "participants.tsv", "participant_id"
_LOOKUP = "dseg.tsv"


def label_names(labels: Iterable[tuple[BidsFile, Path]]) -> NamedLabels:
    """The names of the values of labels, from the `dseg.tsv` beside them or above them.

    A table belongs to a label if it repeats only entities of the label. Of several, the nearest one decides.

    Args:
        labels: Each with the root of its derivative.

    Returns:
        Names by value, without 0; empty without tables, and where two contradict each other.

    Raises:
        DatasetError: A table is broken.
    """
    names: dict[int, tuple[str, Path]] = {}
    tables: dict[Path, dict[int, str]] = {}
    listings: dict[Path, list[Path]] = {}
    for label, root in labels:
        path = _table_of(label, root, listings)
        if path is None:
            continue
        if path not in tables:
            tables[path] = read_names(path)
        for value, name in tables[path].items():
            other, where = names.setdefault(value, (name, path))
            if other != name:
                return NamedLabels(
                    contradiction=f"{shown(path)}: names the value {value} {name!r}, and {shown(where)} names it "
                    f"{other!r}; say which with --labels, choose one kind of labels (--bids), or correct the tables"
                )
    return NamedLabels({value: name for value, (name, _) in sorted(names.items())})


def _table_of(label: BidsFile, root: Path, listings: dict[Path, list[Path]]) -> Path | None:
    own = _entities_of(label.path)
    for folder in (label.path.parent, *label.path.parent.parents):
        if folder not in listings:
            listings[folder] = [path for path in files_in(folder) if path.name.endswith(_LOOKUP)]
        fitting = [(len(found), path) for path in listings[folder] if (found := _entities_of(path)) <= own]
        if fitting:
            return max(fitting)[1]
        if folder == root:
            break
    return None


def _entities_of(path: Path) -> set[str]:
    return set(path.name.split("_")[:-1])


def read_names(path: Path) -> dict[int, str]:
    """The names in a `dseg.tsv` by value, without 0.

    Raises:
        DatasetError: It is no table with the columns `index` and `name`, or an index is none of its own.
    """
    table = read_table(path, "index", "name")
    found: dict[int, str] = {}
    for line, row in table.rows:
        try:
            value = int(row["index"])
        except ValueError:
            value = -1
        name = row["name"].strip()
        if value < 0 or not name or value in found:
            raise DatasetError(
                f"{table.name}: line {line}: {row['index']!r} and {name!r} are no index and name of their own; "
                "give whole numbers from 0 and a name, each once",
                code="TABLE_BROKEN",
                field="index",
            )
        found[value] = name
    return {value: name for value, name in found.items() if value}


def participants(root: Path, subjects: Mapping[str, str]) -> tuple[dict[str, Mapping[str, str]], tuple[Problem, ...]]:
    """The columns of `participants.tsv`, each with the text for every case.

    Args:
        root: The data set.
        subjects: The subject of each case.

    Returns:
        The columns, and a warning if the table is broken, or for each column in which a subject has two values:
        that one is left out. Nothing without a table.
    """
    path = root / _PARTICIPANTS
    if not path.is_file():
        return {}, ()
    try:
        table = read_table(path, _ID)
    except MedfcnError as error:
        return {}, (replace(problem_of(error, case="", file=path.name, role=_ID), severity="warning"),)
    columns: dict[str, Mapping[str, str]] = {}
    problems: list[Problem] = []
    for column in (column for column in table.columns if column != _ID):
        values, contradiction = _values_of(table, column)
        if contradiction is None:
            columns[column] = {case: values[subject] for case, subject in subjects.items() if subject in values}
        else:
            problems.append(contradiction)
    return columns, tuple(problems)


def _values_of(table: Table, column: str) -> tuple[dict[str, str], Problem | None]:
    """The value of each subject in a column, and the first contradiction of two rows of one subject."""
    values: dict[str, str] = {}
    for line, row in table.rows:
        subject, value = row[_ID].strip(), row[column].strip()
        if (first := values.setdefault(subject, value)) != value:
            found = f"line {line}: {subject} has two values of {column}, {first!r} and {value!r}"
            remedy = "give it one; the column is not used"
            return {}, Problem("TABLE_BROKEN", "warning", "", table.name, column, found, remedy)
    return values, None
