"""The images that a run was trained on, as its `cases.csv` names them."""

import csv
import io
from collections.abc import Sequence

from medfcn.runs.models import ModelFiles
from medfcn.stretch import Stretch
from medfcn.text import counted

TRAINING = "training"
"""The use of a training case, in `cases.csv`."""
BEFORE = "training of the initial weights"
"""The use of an image, without the id of a case, that a run was trained on whose weights this run starts from."""
VALIDATION = "validation"
"""The use of a validation case."""
NOTHING_OF_NEW = "scores say nothing of new ones"
"""Is in every line on scores of cases that a network was trained on."""
LABEL_HASH = "sha256_label"
"""The column with the hash of its label."""
IMAGE_HASHES = "sha256_"
"""The beginning of the column of each channel's hash; the channel's name follows."""
_LARGEST = 2**28
"""Bytes; a line for each of a million cases is shorter."""


class TrainingImages:
    """The images of the training cases of one or several runs, by their hashes.

    Those of a run from whose weights one of them starts are among them, and those of the run before that one.

    A model without a `cases.csv`, such as a copied one, adds none; of one that is damaged, those that can be read.

    Args:
        models: The files of each network.
        counts: The number of training cases of each, as its card says.

    Attributes:
        images: The hashes of the channels of each.
        doubts: A line for each model whose `cases.csv` names fewer: scores of the others could flatter.
    """

    def __init__(self, models: Sequence[ModelFiles] = (), counts: Sequence[int] = ()) -> None:
        found = [_images_of(model.cases) for model in models]
        self.images = {images for of_model in found for of_use in of_model.values() for images in of_use}
        self.doubts = tuple(
            f"{model.run.name}: {model.cases.name} names the images of {len(images[TRAINING])} of "
            f"{counted(count, 'training case')}; whether the model was trained on others of these volumes is not "
            "known: copy the run again"
            for model, images, count in zip(models, found, counts, strict=bool(counts))
            if model.cases is not None and len(images[TRAINING]) < count
        )

    def contain(self, sha256: Sequence[str]) -> bool:
        """True if the channels with these hashes are those of a training case, in any order."""
        return frozenset(sha256) in self.images


def _images_of(table: Stretch | None) -> dict[str, list[frozenset[str]]]:
    """The images of each use that a table of cases names: those of its training, and those of the runs before."""
    found: dict[str, list[frozenset[str]]] = {TRAINING: [], BEFORE: []}
    if table is None or table.length > _LARGEST:
        return found
    try:
        lines = io.StringIO(table.read().decode("utf-8", errors="replace"), newline="")
        rows = [row for row in csv.DictReader(lines) if row.get("use") in found]
    except (OSError, csv.Error):
        return found
    names = [name for name in rows[0] if str(name).startswith(IMAGE_HASHES) and name != LABEL_HASH] if rows else []
    for row in rows:
        if names and all(row[name] for name in names):
            found[row["use"]].append(frozenset(row[name] for name in names))
    return found
