"""`confidence.csv`: what to expect of each mask of a folder, those first at which a reader should look."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medfcn.files import write_csv
from medfcn.inference.confidence import Assessment

_COLUMNS = ("case", "label", "volume_ml", "expected_dice", "review")

Row = tuple[str, str, float, float | None, bool | None]
"""Case, label, volume in ml, expected Dice, and whether to review it; None where too little is known."""


def told_of(assessments: Mapping[str, Assessment]) -> dict[str, Any]:
    """What stands beside a mask of its labels."""
    return {
        "expected_dice": {name: item.expected_dice for name, item in assessments.items()},
        "review": {name: item.review for name, item in assessments.items()},
    }


def rows_of(case_id: str, sidecar: Mapping[str, Any]) -> list[Row]:
    """The rows of a case from what stands beside its mask.

    Raises:
        ValueError: That is not of this form.
    """
    dices, reviews, volumes = (sidecar.get(name) for name in ("expected_dice", "review", "volumes_ml"))
    if not (isinstance(dices, dict) and isinstance(reviews, dict) and isinstance(volumes, dict)):
        raise ValueError(f"{case_id}: its .json does not say what to expect")
    rows: list[Row] = []
    for name, dice in dices.items():
        volume, review = volumes.get(name), reviews.get(name)
        is_sound = isinstance(dice, float | int | None) and isinstance(review, bool | None)
        if not (is_sound and isinstance(volume, float | int)):
            raise ValueError(f"{case_id}: its .json does not say what to expect")
        rows.append((case_id, name, volume, dice, review))
    return rows


def write_confidence(path: Path, rows: Iterable[Row]) -> None:
    """Write the table: what is to be reviewed first, and of it and of the rest the least expected."""

    def place(row: Row) -> tuple[bool, float, str, str]:
        return not row[4], math.inf if row[3] is None else row[3], row[0], row[1]

    ordered = sorted(rows, key=place)
    write_csv(path, _COLUMNS, ordered)
