"""The images that a run was trained on, as its `cases.csv` names them."""

import csv
import io
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from medfcn.byte_range import ByteRange
from medfcn.files import csv_text
from medfcn.runs.models import ModelFiles
from medfcn.text import counted, listed

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
_CHOSE = f", on which its training chose; {MAY_FLATTER}"
_TRAINED_ON = " was trained on; if so, THEIR scores say nothing of new patients"
_Images = dict[str, dict[str, list[frozenset[str]]]]
_LARGEST = 2**28
"""Bytes; a line for each of a million cases is shorter."""


class ListedCase(NamedTuple):
    """A case in `cases.csv`.

    Attributes:
        case: Its id.
        patient: Its group; the id if no groups were known.
        use: Such as `TRAINING`.
    """

    case: str
    patient: str
    use: str


def cases_listed(table: ByteRange | None) -> tuple[ListedCase, ...]:
    """The cases in a `cases.csv`; none in that of a model in one file, which lists no ids, or in a damaged one."""
    rows = [row for row in _rows_of(table) if row.get("case")]
    return tuple(
        ListedCase(csv_text(row["case"]), csv_text(row.get("group") or row["case"]), row.get("use") or "")
        for row in rows
    )


class SeenCases(NamedTuple):
    """The cases that a network saw, or whose patients it saw, by their ids.

    Attributes:
        training: Those that it was trained on.
        chosen: Validation cases, on which its training chose something.
        patients: Others that seem to be of patients whom it was trained on.
    """

    training: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()

    def lines(self, count: int, what: str, *, of: str = "", model: str = "this model", limit: int = 8) -> list[str]:
        """A line for each kind, with what their scores say.

        Args:
            count: Number of all volumes, or masks.
            what: The word for one.
            of: `"of "` where these are of cases, not cases themselves.
            model: The word for the network.
            limit: Ids named at most.

        Example:
            >>> SeenCases(patients=("P3_left",)).lines(4, "volume")[0]
            '1 of 4 volumes has the id of a patient whom this model was trained on; if so, its scores say nothing of \
new patients: P3_left'
        """
        lines = []
        for ids, one, several, rest in (
            (
                self.training,
                f"is {of}a training case",
                f"are {of}training cases",
                f"of {model}; THEIR {NOTHING_OF_NEW}",
            ),
            (self.chosen, f"is {of}a validation case", f"are {of}validation cases", f"of {model}{_CHOSE}"),
            (self.patients, "has the id of a patient", "have ids of patients", f"whom {model}{_TRAINED_ON}"),
        ):
            are, their = (one, "its") if len(ids) == 1 else (several, "their")
            of_all = f"{len(ids)} of {counted(count, what)} {are} {rest}".replace("THEIR", their)
            lines += [f"{of_all}: {listed(ids, limit=limit)}"] if ids else []
        return lines


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
    rows = [row for row in _rows_of(table) if row.get("use") in USES_OF_IMAGES]
    for kind, of_kind in found.items():
        names = [name for name in rows[0] if str(name).startswith(kind) and name != LABEL_HASH] if rows else []
        for row in rows:
            if names and all(row[name] for name in names):
                of_kind[row["use"]].append(frozenset(row[name] for name in names))
    return found


def _rows_of(table: ByteRange | None) -> list[dict[str, str]]:
    """The rows of a table of cases; none if it is missing, far too large or damaged."""
    if table is None or table.length > _LARGEST:
        return []
    try:
        return list(csv.DictReader(io.StringIO(table.read().decode("utf-8", errors="replace"), newline="")))
    except (OSError, csv.Error):
        return []
