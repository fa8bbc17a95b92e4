"""What is told of masks and models beside their scores: settings, versions, hashes, the course of a training.

All of it is read from the files that lie beside masks and in run folders; nothing here loads a network.
"""

import csv
import json
import math
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from medfcn.errors import MissingFileError
from medfcn.evaluation import ScoreTable
from medfcn.labels import LabelMap
from medfcn.labels.sidecar import MaskRecord
from medfcn.runs.folder import FAILURES_FILE, RunFolder
from medfcn.volumes import VolumeLike

__all__ = [
    "facts_of",
    "failures_beside",
    "labels_of_run",
    "log_of_run",
    "validation_table",
]

_MOST_FACTS = 400


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def failures_beside(masks: Path) -> tuple[tuple[str, str], ...]:
    """The cases that `medfcn predict` could not predict."""
    try:
        with (masks / FAILURES_FILE).open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))[1:]
    except (OSError, UnicodeDecodeError, csv.Error):
        return ()
    return tuple((row[0], row[1]) for row in rows if len(row) >= 2)


def labels_of_run(run: Path) -> LabelMap:
    """The labels that the card of a run names.

    Raises:
        MissingFileError: There is no such card.
    """
    card = _read_json(RunFolder(run).models()[0].card)
    if not isinstance(card, dict) or "labels" not in card:
        raise MissingFileError(
            f"{run.name}: no {RunFolder.card} that names labels; give a folder that `medfcn train` finished"
        )
    return LabelMap.from_json(card["labels"])


def validation_table(run: Path) -> ScoreTable:
    """The scores of a run's validation, with the notes of its summary, which `scores.csv` does not hold.

    Raises:
        MissingFileError: The run has no `validation/scores.csv`.
    """
    table = ScoreTable.from_csv(RunFolder(run).scores)
    value = _read_json(RunFolder(run).summary)
    notes = value.get("notes", []) if isinstance(value, dict) else []
    return ScoreTable(table.rows, table.definitions, tuple(map(str, notes if isinstance(notes, list) else [])))


def facts_of(masks: Iterable[VolumeLike], run: Path | str | None) -> dict[str, dict[str, object]]:
    """Tables of what the model is, and of what the masks were made by."""
    facts: dict[str, dict[str, object]] = {}
    made_by: dict[str, list[str]] = {}
    for mask in masks:
        record = MaskRecord.beside(mask)
        for name, value in (record.maker if record else {}).items():
            text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            if text not in made_by.setdefault(name, []):
                made_by[name].append(text)
    facts["Predictions were made by"] = {name: "; ".join(values[:8]) for name, values in made_by.items()}
    card = None if run is None else _read_json(RunFolder(Path(run)).models()[0].card)
    if isinstance(card, dict):
        facts["Model"] = {name: card[name] for name in ("weights_sha256", "intended_use", "channels") if name in card}
        facts["Model"] = dict(islice(_flat(facts["Model"]), _MOST_FACTS))
        for name, heading in (
            ("training", "Training"),
            ("plan", "Plan"),
            ("settings", "Settings"),
            ("versions", "Versions when the model was trained"),
        ):
            facts[heading] = dict(islice(_flat(card.get(name)), _MOST_FACTS))
    return facts


def _flat(value: Any, name: str = "") -> Iterable[tuple[str, object]]:
    """Nested values as lines: `training.seed` and so on."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and all(not isinstance(item, list | Mapping) for item in value):
        yield name, ", ".join(map(str, value))
    elif isinstance(value, list):
        for place, item in enumerate(value, start=1):
            yield from _flat(item, f"{name}.{place}")
    elif value is not None:
        yield name, f"{value:.6g}" if isinstance(value, float) else value


def log_of_run(run: Path | str | None) -> dict[str, list[float]]:
    """The columns of a run's `log.csv`; nothing where there is none."""
    if run is None:
        return {}
    columns: dict[str, list[float]] = {}
    try:
        with RunFolder(Path(run)).log.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name, text in row.items():
                    if isinstance(name, str):
                        columns.setdefault(name, []).append(_number(text))
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    return columns


def _number(text: object) -> float:
    try:
        return float(str(text))
    except ValueError:
        return math.nan
