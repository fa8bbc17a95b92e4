"""`confidence.csv`: what to expect of each mask of a folder, those first at which a reader should look."""

import math
from collections.abc import Iterable
from pathlib import Path

from medfcn.files import write_csv
from medfcn.labels.sidecar import MaskRecord

_COLUMNS = ("case", "label", "volume_ml", "expected_dice", "review")

Row = tuple[str, str, float, float | None, bool | None]
"""Case, label, volume in ml, expected Dice, and whether to review it; None where too little is known."""


def rows_of(case_id: str, record: MaskRecord) -> list[Row]:
    """The rows of a case; none where its record does not say what to expect."""
    return [(case_id, *of_label) for of_label in record.by_label or ()]


def write_confidence(path: Path, rows: Iterable[Row]) -> None:
    """Write the table: what is to be reviewed first, and of it and of the rest the least expected."""

    def place(row: Row) -> tuple[bool, float, str, str]:
        return not row[4], math.inf if row[3] is None else row[3], row[0], row[1]

    ordered = sorted(rows, key=place)
    write_csv(path, _COLUMNS, ordered)
