"""A run folder: what may be put into it, what a stopped training leaves there, and how it is finished."""

import dataclasses
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from medfcn.errors import MissingFileError, OutputExistsError
from medfcn.evaluation import ScoreTable, evaluate, write_scores
from medfcn.outputs import refuse_existing
from medfcn.inference.card import CARD_FILE
from medfcn.inference.weights import WEIGHTS_FILE
from medfcn.progress import Progress
from medfcn.training.view_weights import choose_view_weights
from medfcn.runs.lock import LOCK_FILE, locked
from medfcn.training.prepare import Prepared, ceiling_text
from medfcn.training.trainer import Outcome
from medfcn.training.held_out import judge_unseen
from medfcn.training.validate import choose_one_part, never_found

STATE_FOLDER, VALIDATION_FOLDER, SCORES_FILE = "state", "validation", "scores.csv"
FOLD_FOLDERS = "fold_*"
_FILES = (WEIGHTS_FILE, CARD_FILE, "cases.csv", "log.csv", "report.html")
_HALF_WRITTEN = re.compile(r"\..+\.[0-9a-f]{12}\.part")


def is_finished(folder: Path) -> bool:
    """Whether a training in a folder came to its end: its card is written last."""
    return (folder / CARD_FILE).is_file()


def require_stopped(run: Path, folders: Sequence[Path]) -> None:
    """Refuse to resume where no training was stopped.

    Args:
        run: What was asked to be resumed, for the message.
        folders: Itself, or the folds in it.

    Raises:
        MissingFileError: None of the folders holds a state, the lock of a job that was killed, or a finished run.
    """
    for folder in folders:
        if is_finished(folder) or (folder / STATE_FOLDER).is_dir() or (folder / LOCK_FILE).is_file():
            return
    raise MissingFileError(f"{run}: holds no stopped training; check the path, or start one without resuming")


def require_free(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse to start where something lies already, the lock apart.

    Args:
        folder: The run folder, if it is there.
        overwrite: What lies there may be replaced, where some of it is medfcn's.

    Raises:
        OutputExistsError: Something does.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder}: is a file; choose another output")
    held = {path.name for path in folder.iterdir()} - {LOCK_FILE} if folder.is_dir() else set()
    if overwrite:
        if held != {STATE_FOLDER} or any((folder / STATE_FOLDER).iterdir()):
            refuse_existing(folder, overwrite=True)
        return
    if STATE_FOLDER in held and CARD_FILE not in held:
        raise OutputExistsError(
            f"{folder}: already exists and holds a stopped training; go on with it (--resume, resume=True), or "
            "start again (--overwrite, overwrite=True)"
        )
    if held:
        refuse_existing(folder, overwrite=False)


def require_free_or_locked(folder: Path, *, overwrite: bool) -> None:
    """Refuse as `require_free` does, before a folder is locked; its lock, where one is there, has more to say."""
    if not (folder / LOCK_FILE).is_file():
        require_free(folder, overwrite=overwrite)


def clear(folder: Path) -> None:
    """Remove what an earlier training left in a run folder, and nothing else that may lie there."""
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    for name in (VALIDATION_FOLDER, STATE_FOLDER):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
    remove_half_written(folder)


def clear_folds(run: Path, progress: Progress, *, held: Sequence[Path] = ()) -> None:
    """Remove the folds that an earlier training left in a folder.

    Args:
        run: The folder of all folds.
        progress: As in `locked`.
        held: Those that are locked already.

    Raises:
        TrainingError: A training is at work in one.
    """
    for folder in sorted(run.glob(FOLD_FOLDERS)):
        if folder in held:
            clear(folder)
        elif folder.is_dir():
            with locked(folder, progress):
                clear(folder)
            with suppress(OSError):
                folder.rmdir()


def clear_scores(run: Path) -> None:
    """Remove the scores and the report of all folds, which a fold that is trained anew makes untrue."""
    for name in (f"{VALIDATION_FOLDER}/{SCORES_FILE}", f"{VALIDATION_FOLDER}/summary.json", "report.html"):
        (run / name).unlink(missing_ok=True)


def remove_half_written(folder: Path) -> None:
    """Remove the temporary files that a killed training left in a run folder, which nothing else is at work in."""
    for place in (folder, folder / STATE_FOLDER, folder / VALIDATION_FOLDER):
        for path in place.glob(".*.part"):
            if _HALF_WRITTEN.fullmatch(path.name):
                path.unlink(missing_ok=True)


