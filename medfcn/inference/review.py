"""`confidence.csv`: the Dice to expect of each mask of a folder; those that a reader should look at come first."""

import math
from collections.abc import Mapping
from pathlib import Path

from medfcn.files import write_csv
from medfcn.labels.sidecar import LabelRecord, MaskRecord
from medfcn.runs.folder import CONFIDENCE_FILE


def write_review(folder: Path | None, records: Mapping[str, MaskRecord | None]) -> tuple[str, ...] | None:
    """Write `confidence.csv`, if any of the records says what to expect; else remove an older one.

    Masks to be reviewed come first; among these, and among the others, those of the lowest expected Dice.

    Args:
        folder: The folder of the masks; None writes nothing.
        records: The record of each mask, by case id.

    Returns:
        Ids of the cases with a label to be reviewed; None if no record says what to expect.
    """
    rows = [(case, label) for case, record in records.items() for label in (record and record.by_label) or ()]
    is_known = any(label.expected_dice is not None or label.review for _, label in rows)
    if folder is not None:
        path = folder / CONFIDENCE_FILE
        if is_known:
            write_csv(
                path, ("case", *LabelRecord._fields), [(case, *label) for case, label in sorted(rows, key=_order)]
            )
        else:
            path.unlink(missing_ok=True)
    return tuple(dict.fromkeys(case for case, label in rows if label.review)) if is_known else None


def _order(row: tuple[str, LabelRecord]) -> tuple[bool, float, str, str]:
    case, label = row
    return not label.review, math.inf if label.expected_dice is None else label.expected_dice, case, label.label
