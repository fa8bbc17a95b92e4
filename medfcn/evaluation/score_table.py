"""All rows of an evaluation, and the files that store them."""

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import msgspec

from medfcn.decoding import read_json
from medfcn.errors import DatasetError, MissingFileError
from medfcn.evaluation.calibration import Calibration
from medfcn.evaluation.classes import ClassReport
from medfcn.evaluation.cohort import Cohort
from medfcn.evaluation.definitions import Definitions
from medfcn.evaluation.edges import NOTABLE_SHARE
from medfcn.evaluation.label_summary import SHARES
from medfcn.evaluation.scores import STATUSES, LabelScores
from medfcn.evaluation.summary import Summary, summarise
from medfcn.files import (
    csv_bytes,
    csv_field,
    json_bytes,
    make_folder,
    refuse_existing_file,
    remove_half_written,
    write_bytes,
    write_together,
)
from medfcn.runs.folder import FAILURES_FILE, SCORES_FILE, SUMMARY_FILE
from medfcn.text import Shown

_PARTLY = ("labelled_voxels", "voxels")
"""Columns of a table with a case of which less than half is labelled; others lack them."""
COLUMNS = tuple(
    column.name
    for column in fields(LabelScores)
    if not column.name.endswith("_at_edges") and column.name not in _PARTLY
)
"""The columns of `scores.csv`, in order."""

_FAILURE_COLUMNS = ("case", "reason")
_TEXT = ("case", "label", "status")
_ROUNDING = 1e-9
_MOST = 2**63
"""No count, volume or share is larger; a distance or a difference in percent can be infinite."""
_WHOLE = tuple(column.name for column in fields(LabelScores) if column.type is int)
_EXPECTED = "expected a scores.csv of medfcn evaluate"


@dataclass(frozen=True)
class ScoreTable(Shown):
    """Scores of many cases.

    Attributes:
        rows: One for each case and label.
        definitions: Definitions of the scores.
        notes: Further facts that a reader needs: predictions that are missing, masks that were left out.
        failures: Cases whose prediction or reference cannot be used, with the reason; see `missed` and `unscored`.
        cohort: The patients of the cases, and the strata that they are in.
        classes: The labels as classes of voxels, with the confusion matrix, if `definitions.classes`.
        calibration: How well probabilities say whether a voxel is of a label, if they are beside the masks.

    Example:
        >>> row = LabelScores("case_1", "organ", "ok", *[0.5] * 12)
        >>> ScoreTable((row,)).summary()["organ"].shares["dice"].mean
        0.5
    """

    rows: tuple[LabelScores, ...]
    definitions: Definitions = field(default_factory=Definitions)
    notes: tuple[str, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()
    cohort: Cohort = field(default_factory=Cohort)
    classes: ClassReport | None = None
    calibration: Calibration | None = None

    @property
    def cases(self) -> tuple[str, ...]:
        """The ids of the cases, in order."""
        return tuple(dict.fromkeys(row.case for row in self.rows))

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels, in order."""
        return tuple(dict.fromkeys(row.label for row in self.rows))

    @property
    def missed(self) -> tuple[tuple[str, str], ...]:
        """The failures that count as a miss: the reference is known, and the prediction cannot be used."""
        scored = set(self.cases)
        return tuple((case, reason) for case, reason in self.failures if case in scored)

    @property
    def unscored(self) -> tuple[tuple[str, str], ...]:
        """The failures without any score."""
        scored = set(self.cases)
        return tuple((case, reason) for case, reason in self.failures if case not in scored)

    @property
    def failure_notes(self) -> tuple[str, ...]:
        """Each failure in words: how it counts, and its reason."""
        missed = (
            f"{case} counts as a miss, for its prediction cannot be used: {reason}" for case, reason in self.missed
        )
        left_out = (f"{case} was not scored, and no average counts it: {reason}" for case, reason in self.unscored)
        return (*missed, *left_out)

    def summary(self, *, penalty_mm: float | str | None = None) -> Summary:
        """Means, medians, worst cases and intervals of each label.

        Args:
            penalty_mm: Distance of a miss in the penalised mean: millimetres, or `"diagonal"`.
        """
        notes, failed = (*self.notes, *self.failure_notes), len(self.unscored)
        return summarise(
            self.rows, self.definitions, penalty_mm=penalty_mm, notes=notes, failed=failed, cohort=self.cohort
        )

    def worst_first(self, metric: str = "dice") -> tuple[LabelScores, ...]:
        """The scored rows, the worst first.

        Args:
            metric: A column of numbers. In columns in millimetres the largest number is the worst.
        """
        sign = -1.0 if metric.endswith("_mm") else 1.0
        scored = [row for row in self.rows if row.is_scored and not math.isnan(row.counted(metric))]
        return tuple(sorted(scored, key=lambda row: (sign * row.counted(metric), row.case, row.label)))

    def to_csv(self, path: Path | str) -> None:
        """Write all rows, whole or not at all; NaN is an empty field and infinity `inf`."""
        write_bytes(path, self._content())

    def _content(self) -> bytes:
        columns = COLUMNS + (_PARTLY if any(row.is_partly_labelled for row in self.rows) else ())
        return csv_bytes(columns, [[getattr(row, column) for column in columns] for row in self.rows])

    @classmethod
    def from_csv(cls, path: Path | str) -> "ScoreTable":
        """Read a file of `to_csv`; unknown columns are ignored.

        The `summary.json` beside the file has what else the table contained: its definitions, the patients and strata
        of the cases, and the surfaces at the end of the volume.

        Args:
            path: `scores.csv`.

        Raises:
            MissingFileError: There is no such file.
            DatasetError: It is not a table of scores.
        """
        path = Path(path)
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                missing = [name for name in _TEXT if name not in (reader.fieldnames or ())]
                if missing:
                    raise DatasetError(
                        f"{path.name}: has no column {missing[0]!r}; {_EXPECTED}",
                        code="TABLE_COLUMNS",
                        field=missing[0],
                    )
                _require_once(reader.fieldnames or (), f"{path.name}: the column")
                rows = tuple(_parsed(row, f"{path.name} line {reader.line_num}") for row in reader)
                _require_once([f"{row.case} {row.label}" for row in rows], f"{path.name}: the case and label")
        except FileNotFoundError:
            raise MissingFileError(f"{path}: does not exist; {_EXPECTED}") from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise DatasetError(f"{path.name}: is not a table ({error}); {_EXPECTED}", code="TABLE_BROKEN") from error
        summary = _summary_beside(path)
        rows = tuple(
            replace(row, reference_at_edges=shares[0], prediction_at_edges=shares[1])
            if (shares := summary.at_edges.get(row.case, {}).get(row.label))
            else row
            for row in rows
        )
        return cls(rows, summary.definitions, cohort=summary.cohort)

    def to_text(self, *, all_metrics: bool = True) -> str:
        """The summary for a terminal; see `Summary.to_text`."""
        return self.summary().to_text(all_metrics=all_metrics)


def _parsed(row: dict[str, Any], where: str) -> LabelScores:
    """One row from its text."""
    if None in row or None in row.values():
        found = "more" if None in row else "fewer"
        raise DatasetError(f"{where}: has {found} fields than the heading; {_EXPECTED}", code="TABLE_BROKEN")
    values: dict[str, Any] = {}
    for column in COLUMNS + _PARTLY:
        text = row.get(column) or ""
        if column in _TEXT:
            values[column] = text[1:] if text[:1] == "'" and csv_field(text[1:]) == text else text
            continue
        try:
            value = int(text or 0) if column in _WHOLE else float(text or math.nan)
        except ValueError as error:
            raise _refused(where, column, text, "a number") from error
        most = math.inf if column.endswith(("_mm", "_percent")) else 1 + _ROUNDING if column in SHARES else _MOST
        if value > most or value < (-most if "difference" in column else 0):
            raise _refused(where, column, text, "a number that a score can have")
        values[column] = value
    if values["status"] not in STATUSES:
        raise _refused(where, "status", values["status"], f"one of {', '.join(STATUSES)}")
    if values["status"] == "ok" and math.isnan(values["dice"]):
        raise _refused(where, "dice", "", "a number where the status is ok")
    return LabelScores(**values)


def _require_once(names: Sequence[str], what: str) -> None:
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DatasetError(f"{what} {twice!r} is given twice; {_EXPECTED}", code="TABLE_BROKEN")


def _refused(where: str, column: str, text: str, expected: str) -> DatasetError:
    message = f"{where}: {column} is {text[:40]!r}; expected {expected}"
    return DatasetError(message, code="TABLE_BROKEN", field=column)


@dataclass(frozen=True)
class _SummaryFile:
    """The parts of a `summary.json` that medfcn reads."""

    definitions: Definitions = field(default_factory=Definitions)
    notes: tuple[str, ...] = ()
    cohort: Cohort = field(default_factory=Cohort)
    at_edges: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)


def _summary_beside(scores: Path) -> _SummaryFile:
    """The summary beside a table of scores; empty if there is none, or if another tool wrote it.

    Raises:
        DatasetError: It is medfcn's and broken: with other definitions, scores would be compared that differ.
    """
    path, remedy = scores.with_name(SUMMARY_FILE), "evaluate again, or remove it"
    if not path.is_file():
        return _SummaryFile()
    keys = read_json(path, dict[str, msgspec.Raw], error=DatasetError, remedy=remedy)
    if "definitions" not in keys:
        return _SummaryFile()
    return read_json(path, _SummaryFile, error=DatasetError, remedy=remedy)


def read_scores(folder: Path | str) -> ScoreTable:
    """The table in a folder of `write_scores`, with the notes of its summary.

    Raises:
        MissingFileError: There is no `scores.csv` in it.
        DatasetError: It is not a table of scores.
    """
    path = Path(folder) / SCORES_FILE
    return replace(ScoreTable.from_csv(path), notes=_summary_beside(path).notes)


def write_scores(table: ScoreTable, folder: Path | str, *, overwrite: bool = False) -> tuple[Path, ...]:
    """Write `scores.csv` and `summary.json`, and `failures.csv` if there are any failures.

    Args:
        table: The scores.
        folder: The folder; it is created if needed.
        overwrite: Replace files of these names.

    Returns:
        The files.

    Raises:
        OutputExistsError: One of them exists, and `overwrite` is false.
    """
    folder = Path(folder)
    scores, summary, failures = (folder / name for name in (SCORES_FILE, SUMMARY_FILE, FAILURES_FILE))
    for path in (scores, summary, *([failures] if table.failures else [])):
        refuse_existing_file(path, overwrite=overwrite)
    make_folder(folder)
    remove_half_written(folder)
    summarised = {**table.summary(penalty_mm="diagonal").to_json(), **_facts_of_cases(table)}
    content = {scores: table._content(), summary: json_bytes(summarised)}
    if table.failures:
        content[failures] = csv_bytes(_FAILURE_COLUMNS, table.failures)
    write_together(content)
    if (
        not table.failures
        and failures.is_file()
        and failures.read_bytes().startswith(csv_bytes(_FAILURE_COLUMNS, ()))
    ):
        failures.unlink()  # of an earlier evaluation; that of a prediction has other columns
    return tuple(content)


def _facts_of_cases(table: ScoreTable) -> dict[str, Any]:
    """The facts about cases that are not in `scores.csv`, if there are any: see `_SummaryFile`."""
    at_edges: dict[str, dict[str, tuple[float, float]]] = {}
    for row in table.rows:
        shares = row.reference_at_edges, row.prediction_at_edges
        if any(share > NOTABLE_SHARE for share in shares):
            at_edges.setdefault(row.case, {})[row.label] = shares
    classes = {} if table.classes is None else table.classes.to_json()
    calibration = {} if table.calibration is None else table.calibration.to_json()
    facts = {"cohort": table.cohort.to_json(), "at_edges": at_edges, "classes": classes, "calibration": calibration}
    return {name: fact for name, fact in facts.items() if fact}
