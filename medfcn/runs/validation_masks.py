"""Masks that a training left in the validation folder of its run: the card has their labels, a list their cases."""

import csv
import io
import os
from pathlib import Path
from typing import Any

import msgspec

from medfcn.decoding import read_json
from medfcn.errors import LabelError, SettingsError
from medfcn.labels.label_map import LabelMap
from medfcn.runs.cases import VALIDATION
from medfcn.runs.folder import SUMMARY_FILE, RunFolder

CHOSEN_ON_THEM = "chosen on these cases"
"""Is in the notes on scores of cases on which the training chose something."""


class _Summary(msgspec.Struct):
    notes: tuple[str, ...] = ()


class _Card(msgspec.Struct):
    labels: Any = None


def labels_of_validation(mask: object) -> LabelMap | None:
    """The labels of a mask in the validation folder of a run; None of any other mask.

    Args:
        mask: A path, or a mask in memory.
    """
    card = _card_of(Path(mask).absolute().parent) if isinstance(mask, str | os.PathLike) else None
    try:
        return None if card is None or card.labels is None else LabelMap.from_json(card.labels)
    except SettingsError:  # no card of medfcn's: a folder that happens to have this name
        return None


def cases_of_validation(masks: object) -> frozenset[str] | None:
    """The ids of the validation cases of the run whose validation folder this is; None of anything else.

    Args:
        masks: A folder, or masks in memory.
    """
    folder = Path(masks).absolute() if isinstance(masks, str | os.PathLike) else None
    if folder is None or _card_of(folder) is None:
        return None
    try:
        lines = io.StringIO(RunFolder(folder.parent).cases.read_text("utf-8", errors="replace"), newline="")
        rows = [row for row in csv.DictReader(lines) if row.get("use") == VALIDATION]
    except (OSError, csv.Error):
        return None
    return frozenset(row["case"] for row in rows if row.get("case")) or None


def choices_on(masks: str | os.PathLike[str]) -> tuple[str, ...]:
    """The notes of a run on what its training chose on these validation cases.

    Args:
        masks: The validation folder of a run.
    """
    try:
        summary = read_json(Path(masks) / SUMMARY_FILE, _Summary, error=LabelError, remedy="")
    except (OSError, LabelError):
        return ()
    return tuple(note for note in summary.notes if CHOSEN_ON_THEM in note)


def _card_of(folder: Path) -> _Card | None:
    """The card of the run whose validation folder this is."""
    if folder.name != RunFolder.validation:
        return None
    try:
        return read_json(RunFolder(folder.parent).card, _Card, error=LabelError, remedy="")
    except (OSError, LabelError):
        return None
