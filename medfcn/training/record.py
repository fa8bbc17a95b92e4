"""The files of a run folder that describe its training: `log.csv` and `cases.csv`."""

import math
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medfcn.config import to_tables
from medfcn.decoding import decode_csv
from medfcn.errors import MissingFileError, TrainingError
from medfcn.evaluation import ScoreTable
from medfcn.files import csv_text, make_inner_folder, write_bytes, write_csv
from medfcn.labels.partial_labels import SEPARATOR
from medfcn.runs.cases import BEFORE, IMAGE_HASHES, LABEL_HASH, TRAINING, VALIDATION, VOXEL_HASHES, TrainingImages
from medfcn.runs.folder import PICTURE, RunFolder
from medfcn.runs.tracking import Tracking
from medfcn.settings import Settings
from medfcn.text import listed
from medfcn.training.distributed import Machine
from medfcn.training.folds import Split
from medfcn.training.schedule import Length
from medfcn.training.state import State
from medfcn.training.survey import Survey

_REMEDY = "copy the run again, or take another -o"
LEFT_OUT = "left out"
"""The use of a case that is not used, in `cases.csv`."""
ON_REQUEST = "on request"
"""Its problem, if it has none but that the user left it out."""
LABELLED = "labelled"
"""The column of the labels that were drawn, where not all were in every case."""
_COLUMNS = ("step", "epoch", "loss", "learning_rate", "validation_dice", "seconds", "cpu_seconds", "curve_dice")
VALIDATION_DICE, CURVE_DICE = "validation_dice", "curve_dice"
"""The columns of the Dice of whole validation cases, and of the few slices of the curve."""


class Log:
    """`log.csv`: a row for each epoch, each validation and each look of the curve, rewritten whole every time.

    Args:
        path: Where to write.
        started: `time.monotonic()` when the command began.
        cpu_started: CPU seconds that this process had used by then, for other things.
        labels: Names of labels, each of which has a column for either Dice.
        pictures: The folder for pictures; None keeps none.
        tracking: Gets every row too.
    """

    def __init__(
        self,
        path: Path,
        *,
        started: float,
        cpu_started: float = 0.0,
        labels: Sequence[str] = (),
        pictures: Path | None = None,
        tracking: Tracking | None = None,
    ) -> None:
        self.path = path
        self.started = started
        self.pictures = pictures
        self.tracking = tracking
        self.labels = tuple(labels)
        self.columns = (*_COLUMNS, *(f"{dice}_{name}" for dice in (VALIDATION_DICE, CURVE_DICE) for name in labels))
        self.rows: list[tuple[float | None, ...]] = []
        self._cpu_started = cpu_started

    def add(
        self, *, step: int, epoch: float, loss: float, learning_rate: float, dices: Mapping[str, float | None]
    ) -> None:
        """Add a row; wall and CPU seconds are those of the whole training so far, the data check included.

        Args:
            step: Number of steps made.
            epoch: The same in epochs.
            loss: Mean loss of the last epoch's steps.
            learning_rate: Of the last step.
            dices: The Dice of this step by column; what is not known is left out.
        """
        seconds, used = self.time_used()
        known: dict[str, float | None] = {
            "step": step,
            "epoch": round(epoch, 2),
            "loss": loss,
            "learning_rate": learning_rate,
            "seconds": round(seconds, 2),
            "cpu_seconds": round(used, 2),
        }
        known |= {name: dice for name, dice in dices.items() if dice is not None and not math.isnan(dice)}
        self.rows.append(tuple(known.get(name) for name in self.columns))
        write_csv(self.path, self.columns, self.rows)
        self._track(self.rows[-1:])

    def _track(self, rows: Sequence[tuple[float | None, ...]]) -> None:
        if self.tracking is not None:
            self.tracking.write(self.columns, rows, self.labels)

    def add_picture(self, step: int, png: bytes) -> None:
        """Keep a picture of some validation slices after a step."""
        if self.pictures is not None:
            make_inner_folder(self.pictures)
            write_bytes(self.pictures / PICTURE.format(f"{step:07d}"), png)

    def named(self, dice: str, mean: float | None, of_labels: Sequence[float]) -> dict[str, float | None]:
        """A Dice and that of each label by column."""
        return {dice: mean, **{f"{dice}_{name}": each for name, each in zip(self.labels, of_labels, strict=False)}}

    def time_used(self) -> tuple[float, float]:
        """Wall and CPU seconds of the training so far, those before an interruption included."""
        return time.monotonic() - self.started, cpu_seconds() - self._cpu_started

    def state(self) -> dict[str, Any]:
        """The part of a `State` that is kept here."""
        seconds, used = self.time_used()
        return {"rows": list(self.rows), "seconds": seconds, "cpu_seconds": used}

    def restore(self, state: State) -> None:
        """Continue a log: the time that a stopped training had used is added."""
        width = len(self.columns)  # earlier medfcn had fewer columns
        self.rows = [(*row, *(None,) * (width - len(row))) for row in state.rows]
        self._track(self.rows)
        self.started -= state.seconds
        self._cpu_started -= state.cpu_seconds


def tracked_facts(
    survey: Survey, split: Split, settings: Settings, length: Length, machine: Machine
) -> dict[str, object]:
    """Facts about a training for trackers: settings, numbers of cases, names of labels; no id and no path."""
    tables = to_tables(settings).items()
    return {
        **{f"{table}.{name}": value for table, values in tables for name, value in values.items()},
        "labels": listed(survey.labels.names, limit=40),
        "training cases": len(split.training),
        "validation cases": len(split.validation),
        "fold": split.fold or None,
        "length": length.text,
        "seed": machine.seed,
        "device": machine.device.type,
        "medfcn": version("medfcn"),
    }


def final_dices(table: ScoreTable) -> dict[str, float]:
    """The mean Dice of each label over the validation cases of a finished training."""
    return {f"final_dice_{each.label}": each.shares["dice"].mean for each in table.summary().labels}


def cpu_seconds() -> float:
    """User and system seconds of this process, all threads, since it began."""
    return time.process_time()


def write_cases(path: Path, survey: Survey, split: Split, before: TrainingImages) -> None:
    """`cases.csv`: the use of each case, and the hashes of its files and of its images' voxels.

    Args:
        path: The file.
        survey: The cases.
        split: Their use.
        before: What the run was trained on whose weights are the initial ones: a row for each image, without an id.
    """
    uses = dict.fromkeys(split.training, TRAINING) | dict.fromkeys(split.validation, VALIDATION)
    problems = dict(survey.problems)
    channels = survey.dataset.channel_names
    of_files, of_voxels = ([f"{kind}{name}" for name in channels] for kind in (IMAGE_HASHES, VOXEL_HASHES))
    columns = ["case", "group", "use", *of_files, LABEL_HASH, "problem", *of_voxels]
    every = (*survey.dataset.all_cases, *survey.dataset.left_out)
    labelled = [SEPARATOR.join(case.labelled) for case in every]
    rows = []
    for case in survey.dataset.all_cases:
        row = {"case": case.id, "group": case.group, "use": uses.get(case.id, LEFT_OUT)}
        if case.id in survey.hashes:
            hashes = (*survey.hashes[case.id], *survey.voxels[case.id])
            row |= dict(zip((*of_files, LABEL_HASH, *of_voxels), hashes, strict=True))
        rows.append(row | {"problem": problems.get(case.id, "")})
    for case in survey.dataset.left_out:
        rows.append({"case": case.id, "group": case.group, "use": LEFT_OUT, "problem": ON_REQUEST})
    if any(labelled):
        columns.append(LABELLED)
        rows = [row | {LABELLED: names} for row, names in zip(rows, labelled, strict=True)]
    ours = {frozenset(survey.hashes[case][: len(channels)]) for case in split.training}
    our_voxels = {frozenset(survey.voxels[case]) for case in split.training}
    for names, seen in ((of_files, before.images - ours), (of_voxels, before.voxels - our_voxels)):
        for image in sorted(map(sorted, seen)):
            if len(image) <= len(channels):  # equal channels have one hash
                hashes = (*image, *image[-1:] * (len(channels) - len(image)))
                rows.append({"use": BEFORE} | dict(zip(names, hashes, strict=True)))
    write_csv(path, columns, [[row.get(column, "") for column in columns] for row in rows])


def uses_of(run: Path) -> dict[str, tuple[str, str]]:
    """The use of each case in `cases.csv` of a run, and its problem.

    Raises:
        MissingFileError: There is no such list, so that nobody knows which cases were used.
        TrainingError: It is damaged.
    """
    path = RunFolder(run).cases
    if not path.is_file():
        raise MissingFileError(f"{path}: is not there, so its split is not known; give all options of the training")
    return {csv_text(row["case"]): (row.get("use", ""), row.get("problem", "")) for row in rows_of(run)}


def rows_of(run: Path) -> list[dict[str, str]]:
    """The rows of `cases.csv` of a run, but for images of the runs before it, which have no case.

    Raises:
        TrainingError: It is damaged.
        OSError: It cannot be read.
    """
    path = RunFolder(run).cases
    rows = decode_csv(path.read_bytes(), ["case"], source=str(path), error=TrainingError, remedy=_REMEDY)
    return [row for row in rows if row.get("use") != BEFORE]


def parts_of(run: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The training and the validation cases of a run."""
    uses = uses_of(run)
    training, validation = (
        tuple(sorted(case for case, (use, _) in uses.items() if use == part)) for part in (TRAINING, VALIDATION)
    )
    return training, validation
