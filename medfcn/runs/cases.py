"""The images that a run was trained on, as its `cases.csv` names them."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from medfcn.runs.folder import RunFolder

TRAINING = "training"
"""The use of a training case, in `cases.csv`."""
LABEL_HASH = "sha256_label"
"""The column with the hash of its label."""
IMAGE_HASHES = "sha256_"
"""The beginning of the column of each channel's hash; the channel's name follows."""


class TrainingImages:
    """The images of the training cases of one or several runs, by their hashes.

    A run folder without a `cases.csv`, such as a copied model, or with one that cannot be read, adds none.

    Args:
        runs: The run folder of each network.
    """

    def __init__(self, runs: Iterable[Path | str] = ()) -> None:
        self._images = {images for run in runs for images in _images_of(RunFolder(Path(run)).cases)}

    def contain(self, sha256: Sequence[str]) -> bool:
        """True if the channels with these hashes are those of a training case, in any order."""
        return frozenset(sha256) in self._images


def _images_of(path: Path) -> set[frozenset[str]]:
    if not path.is_file():
        return set()
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = [row for row in csv.DictReader(file) if row.get("use") == TRAINING]
    except (OSError, csv.Error):
        return set()
    names = [name for name in rows[0] if str(name).startswith(IMAGE_HASHES) and name != LABEL_HASH] if rows else []
    return {frozenset(row[name] for name in names) for row in rows if names and all(row[name] for name in names)}
