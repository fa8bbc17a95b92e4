"""Facts about masks and models for a report: settings, versions, hashes, and the course of a training.

They are read from the files beside masks and in run folders; no network is loaded.
"""

import csv
import math
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from medfcn.decoding import read_json
from medfcn.errors import MissingFileError, ModelError
from medfcn.labels import LabelMap
from medfcn.labels.sidecar import MaskRecord
from medfcn.runs.folder import FAILURES_FILE, LOGS_FOLDER, PICTURE, RunFolder
from medfcn.text import listed
from medfcn.volumes import VolumeLike

_MOST_FACTS = 400
_LARGEST_PICTURE, _MOST_PICTURES = 2**20, 12


class _Card(msgspec.Struct, frozen=True):
    """The parts of a `model.json` that a report shows; a missing one is left out."""

    labels: Any = None
    weights_sha256: Any = None
    intended_use: Any = None
    channels: Any = None
    training: Any = None
    plan: Any = None
    settings: Any = None
    versions: Any = None

    def facts(self) -> dict[str, dict[str, object]]:
        """Tables of names and values, by heading."""
        model = {name: getattr(self, name) for name in ("weights_sha256", "intended_use", "channels")}
        return {
            heading: dict(islice(_flat(values), _MOST_FACTS))
            for heading, values in (
                ("Model", model),
                ("Training", self.training),
                ("Plan", self.plan),
                ("Settings", self.settings),
                ("Versions when the model was trained", self.versions),
            )
        }


def _card_of(run: Path) -> _Card:
    """The card of a run, or of the first of its folds; empty if there is none, or if it is damaged."""
    try:
        return read_json(RunFolder(run).models()[0].card, _Card, error=ModelError, remedy="train again")
    except (OSError, ModelError):
        return _Card()


def failures_beside(masks: Path) -> tuple[tuple[str, str], ...]:
    """The cases that `medfcn predict` could not predict, with the reason."""
    folder = masks / LOGS_FOLDER if (masks / LOGS_FOLDER / FAILURES_FILE).is_file() else masks
    rows = _rows_in(folder / FAILURES_FILE)[1:]
    return tuple((row[0], row[1]) for row in rows if len(row) >= 2)


def labels_of_run(run: Path) -> LabelMap:
    """The labels in the card of a run.

    Raises:
        MissingFileError: There is no such card.
        SettingsError: Its labels are invalid.
    """
    labels = _card_of(run).labels
    if labels is None:
        raise MissingFileError(
            f"{run.name}: no {RunFolder.card} that names labels; give a folder that `medfcn train` finished"
        )
    return LabelMap.from_json(labels)


def facts_of(masks: Iterable[VolumeLike], run: Path | str | None) -> dict[str, dict[str, object]]:
    """Tables about the makers of the masks, and about the model of a run."""
    makers: dict[str, list[str]] = {}
    for mask in masks:
        record = MaskRecord.beside(mask)
        for name, value in (record.maker if record else {}).items():
            text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            if text not in makers.setdefault(name, []):
                makers[name].append(text)
    made_by: dict[str, object] = {name: listed(values, separator="; ") for name, values in makers.items()}
    return {"Predictions were made by": made_by, **(_card_of(Path(run)).facts() if run else {})}


def _flat(value: Any, name: str = "") -> Iterable[tuple[str, object]]:
    """Nested values as lines, such as `training.seed`."""
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
    """The columns of a run's `log.csv`; empty if there is none. Rows before the first step are of no training."""
    rows = [] if run is None else _rows_in(RunFolder(Path(run)).log)
    names = rows[0] if rows else []
    made = [row for row in rows[1:] if row and _number(row[0]) > 0]
    return {name: [_number(row[place]) for row in made if place < len(row)] for place, name in enumerate(names)}


def course_of_run(run: Path) -> dict[int, bytes]:
    """The pictures that a training made of its validation slices, by the step; a few, evenly over the training."""
    found = {}
    for path in sorted(RunFolder(run).pictures.glob(PICTURE.format("*"))):
        content = path.read_bytes() if path.stat().st_size <= _LARGEST_PICTURE else b""
        if path.stem.removeprefix("step_").isdecimal() and content.startswith(b"\x89PNG"):
            found[int(path.stem.removeprefix("step_"))] = content
    steps = sorted(found)
    kept = {steps[-(-number * len(steps) // _MOST_PICTURES) - 1] for number in range(1, _MOST_PICTURES + 1) if steps}
    return {step: found[step] for step in sorted(kept)}


def _rows_in(path: Path) -> list[list[str]]:
    """The rows of a CSV file, with its heading; none if it is missing or damaged."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
