"""All rows of an evaluation, and the files they are kept in."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from medfcn.errors import DatasetError, MissingFileError
from medfcn.evaluation.scores import STATUSES, Definitions, LabelScores
from medfcn.evaluation.summary import Summary, summarise
from medfcn.files import csv_field, refuse_existing_file, write_csv, write_json
from medfcn.runs.folder import FAILURES_FILE, SCORES_FILE, SUMMARY_FILE

__all__ = ["COLUMNS", "ScoreTable", "write_scores"]

COLUMNS = tuple(column.name for column in fields(LabelScores))
"""The columns of `scores.csv`, in order."""

_TEXT = ("case", "label", "status")
_WHOLE = tuple(column.name for column in fields(LabelScores) if column.type is int)


@dataclass(frozen=True)
class ScoreTable:
    """Scores of many cases.

    Attributes:
        rows: One for each case and label.
        definitions: What the numbers mean.
        notes: What a reader must know besides: predictions that are missing, masks that were left out.
        failures: Cases that could not be scored, with the reason.

    Example:
        >>> row = LabelScores("case_1", "organ", "ok", *[0.5] * 12)
        >>> ScoreTable((row,)).summary()["organ"].shares["dice"].mean
        0.5
    """

    rows: tuple[LabelScores, ...]
    definitions: Definitions = field(default_factory=Definitions)
    notes: tuple[str, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()

    @property
    def cases(self) -> tuple[str, ...]:
        """The ids of the cases, in order."""
        return tuple(dict.fromkeys(row.case for row in self.rows))

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels, in order."""
        return tuple(dict.fromkeys(row.label for row in self.rows))

    def summary(self, *, penalty_mm: float | str | None = None) -> Summary:
        """Means, medians, worst cases and intervals of each label.

        Args:
            penalty_mm: What a miss counts in the penalised mean of distances: millimetres, or `"diagonal"`.
        """
        left_out = (f"{case} was not scored, and no average counts it: {reason}" for case, reason in self.failures)
        notes, failed = (*self.notes, *left_out), len(self.failures)
        return summarise(self.rows, self.definitions, penalty_mm=penalty_mm, notes=notes, failed=failed)

    def worst_first(self, metric: str = "dice") -> tuple[LabelScores, ...]:
        """The scored rows, the one a reader should look at first in front.

        Args:
            metric: A column of numbers; of columns in millimetres the largest is the worst.
        """
        sign = -1.0 if metric.endswith("_mm") else 1.0
        scored = [row for row in self.rows if row.is_scored and not math.isnan(getattr(row, metric))]
        return tuple(sorted(scored, key=lambda row: (sign * getattr(row, metric), row.case, row.label)))

    def to_csv(self, path: Path | str) -> None:
        """Write all rows, whole or not at all; NaN is an empty field and infinity `inf`."""
        write_csv(path, COLUMNS, [[getattr(row, column) for column in COLUMNS] for row in self.rows])

    @classmethod
    def from_csv(cls, path: Path | str, *, definitions: Definitions | None = None) -> "ScoreTable":
        """Read what `to_csv` wrote; columns that are not known are passed over.

        Args:
            path: `scores.csv`.
            definitions: What the numbers mean; unless given, what the `summary.json` beside it says.

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
                        f"{path.name}: has no column {missing[0]!r}; expected a scores.csv of medfcn evaluate"
                    )
                rows = tuple(_parsed(row, f"{path.name} line {reader.line_num}") for row in reader)
        except FileNotFoundError:
            raise MissingFileError(f"{path}: not there; expected a scores.csv of medfcn evaluate") from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise DatasetError(f"{path.name}: is not a table ({error}); expected a scores.csv") from error
        return cls(rows, definitions or _definitions_beside(path))

    def to_text(self) -> str:
        """The summary as a table for a terminal, with definitions at its foot."""
        return self.summary().to_text()


def _parsed(row: dict[str, Any], where: str) -> LabelScores:
    """One row from its text."""
    values: dict[str, Any] = {}
    for column in COLUMNS:
        text = row.get(column) or ""
        if column in _TEXT:
            values[column] = text[1:] if text[:1] == "'" and csv_field(text[1:]) == text else text
            continue
        try:
            values[column] = int(text or 0) if column in _WHOLE else float(text or math.nan)
        except ValueError as error:
            raise DatasetError(f"{where}: {column} is {text[:40]!r}; expected a number") from error
    if values["status"] not in STATUSES:
        raise DatasetError(f"{where}: status is {values['status'][:40]!r}; expected one of {', '.join(STATUSES)}")
    return LabelScores(**values)


def _definitions_beside(path: Path) -> Definitions:
    try:
        value = json.loads(path.with_name(SUMMARY_FILE).read_text(encoding="utf-8"))
        return Definitions.from_json(value["definitions"])
    except (OSError, ValueError, KeyError, TypeError):
        return Definitions()


def write_scores(table: ScoreTable, folder: Path | str, *, overwrite: bool = False) -> tuple[Path, ...]:
    """Write `scores.csv` and `summary.json`, and `failures.csv` when there are any.

    Args:
        table: What to write.
        folder: Where; it is made when it does not exist.
        overwrite: Replace files of these names.

    Returns:
        The files.

    Raises:
        OutputExistsError: One of them is there already, and `overwrite` is false.
    """
    folder = Path(folder)
    scores, summary, failures = (folder / name for name in (SCORES_FILE, SUMMARY_FILE, FAILURES_FILE))
    for path in (scores, summary):
        refuse_existing_file(path, overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(scores)
    write_json(summary, table.summary(penalty_mm="diagonal").to_json())
    written: Sequence[Path] = (scores, summary)
    if table.failures:
        write_csv(failures, ("case", "reason"), table.failures)
        written = (scores, summary, failures)
    return tuple(written)
