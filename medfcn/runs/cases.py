"""The images that a run was trained on, as its `cases.csv` names them."""

import csv
import io
from collections.abc import Callable, Collection, Sequence

from medfcn.byte_range import ByteRange
from medfcn.runs.models import ModelFiles
from medfcn.text import counted

TRAINING = "training"
"""The use of a training case, in `cases.csv`."""
BEFORE = "training of the initial weights"
"""The use of an image, without the id of a case, that a run was trained on whose weights this run starts from."""
VALIDATION = "validation"
"""The use of a validation case."""
MAY_FLATTER = "new ones may score lower"
"""Is in every line on scores of cases on which something was chosen."""
NOTHING_OF_NEW = "scores say nothing of new ones"
"""Is in every line on scores of cases that a network was trained on."""
LABEL_HASH = "sha256_label"
"""The column with the hash of its label."""
IMAGE_HASHES = "sha256_"
"""The beginning of the column of each channel's hash; the channel's name follows."""
VOXEL_HASHES = "voxels_"
"""The same of the hash of its voxels, by which an image is known that was saved anew."""
USES_OF_IMAGES = (TRAINING, BEFORE, VALIDATION)
"""The uses by which a volume that is scored later is known."""
_Images = dict[str, dict[str, list[frozenset[str]]]]
_LARGEST = 2**28
"""Bytes; a line for each of a million cases is shorter."""


class TrainingImages:
    """The images of the training cases of one or several runs, by the hashes of their files and of their voxels.

    Those of a run from whose weights one of them starts are among them, and those of the run before that one.

    A model without a `cases.csv`, such as a copied one, adds none; of one that is damaged, those that can be read.

    Args:
        models: The files of each network.
        counts: The number of training cases of each, as its card says.
        chose: Of each, whether its training chose something on its validation cases, as its card says.

    Attributes:
        images: The hashes of the files of the channels of each.
        voxels: Those of their voxels, as far as the runs have them.
        doubts: A line for each model whose `cases.csv` names fewer: scores of the others could flatter.
    """

    def __init__(
        self, models: Sequence[ModelFiles] = (), counts: Sequence[int] = (), *, chose: Sequence[bool] = ()
    ) -> None:
        found = [_images_of(model.cases) for model in models]
        chosen = [images for images, is_chosen in zip(found, chose, strict=False) if is_chosen]
        self.images, self.voxels = (_with_use(found, kind, TRAINING, BEFORE) for kind in (IMAGE_HASHES, VOXEL_HASHES))
        self._chosen, self._chosen_voxels = (
            _with_use(chosen, kind, VALIDATION) for kind in (IMAGE_HASHES, VOXEL_HASHES)
        )
        self.doubts = tuple(
            f"{model.run.name}: {model.cases.name} names the images of {len(images[IMAGE_HASHES][TRAINING])} of "
            f"{counted(count, 'training case')}; whether the model was trained on others of these volumes is not "
            "known: copy the run again"
            for model, images, count in zip(models, found, counts, strict=bool(counts))
            if model.cases is not None and len(images[IMAGE_HASHES][TRAINING]) < count
        )

    def contain(self, sha256: Sequence[str], voxels_sha256: Callable[[], Sequence[str]] = tuple) -> bool:
        """True if the channels with these hashes are those of a training case, in any order.

        Args:
            sha256: Hashes of the files.
            voxels_sha256: Gives those of the voxels; called where the files are unknown and those of voxels are not.
        """
        return _is_among(self.images, self.voxels, sha256, voxels_sha256)

    def chose(self, sha256: Sequence[str], voxels_sha256: Callable[[], Sequence[str]] = tuple) -> bool:
        """True if they are those of a validation case on which a training chose something, and of no training case.

        Args:
            sha256: As in `contain`.
            voxels_sha256: As there.
        """
        is_chosen = _is_among(self._chosen, self._chosen_voxels, sha256, voxels_sha256)
        return is_chosen and not self.contain(sha256, voxels_sha256)


def _is_among(
    images: Collection[frozenset[str]],
    voxels: Collection[frozenset[str]],
    sha256: Sequence[str],
    voxels_sha256: Callable[[], Sequence[str]],
) -> bool:
    return frozenset(sha256) in images or (bool(voxels) and frozenset(voxels_sha256()) in voxels)


def _with_use(tables: Sequence[_Images], kind: str, *uses: str) -> set[frozenset[str]]:
    return {images for table in tables for use in uses for images in table[kind][use]}


def _images_of(table: ByteRange | None) -> _Images:
    """The images that a table of cases names, by kind of hash and use: of its training, and of the runs before."""
    found: _Images = {kind: {use: [] for use in USES_OF_IMAGES} for kind in (IMAGE_HASHES, VOXEL_HASHES)}
    if table is None or table.length > _LARGEST:
        return found
    try:
        lines = io.StringIO(table.read().decode("utf-8", errors="replace"), newline="")
        rows = [row for row in csv.DictReader(lines) if row.get("use") in USES_OF_IMAGES]
    except (OSError, csv.Error):
        return found
    for kind, of_kind in found.items():
        names = [name for name in rows[0] if str(name).startswith(kind) and name != LABEL_HASH] if rows else []
        for row in rows:
            if names and all(row[name] for name in names):
                of_kind[row["use"]].append(frozenset(row[name] for name in names))
    return found
