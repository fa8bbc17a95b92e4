"""The folder of a search: what may be put into it, and what an earlier search left there."""

import shutil
from pathlib import Path

from medfcn.errors import MissingFileError, OutputExistsError
from medfcn.runs.folder import BEST_FILE, STUDY_FILE, TRIALS_FILE, RunFolder
from medfcn.runs.outputs import remove_half_written, require_free

WORK_FOLDER = "search"
"""Holds the slices that all trials share and the trial that is being trained, until the search is finished."""


def require_place(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse to search where something lies already, the lock apart.

    Args:
        folder: The output, if it is there.
        overwrite: What lies there may be replaced, where some of it is medfcn's.

    Raises:
        OutputExistsError: Something does.
    """
    if (folder / STUDY_FILE).is_file() and not overwrite:
        raise OutputExistsError(
            f"{folder}: already exists and holds a search; go on with it (--resume, resume=True), or start again "
            "(--overwrite, overwrite=True)"
        )
    require_free(folder, overwrite=overwrite)


def require_search(folder: Path) -> None:
    """Refuse to go on where no search was begun.

    Raises:
        MissingFileError: There is neither a study nor the lock of a search that was killed.
    """
    if not (folder / STUDY_FILE).is_file() and not RunFolder(folder).lock.is_file():
        raise MissingFileError(
            f"{folder}: holds no search to go on with; check the path, or start one without resuming"
        )


def clear(folder: Path) -> None:
    """Remove what an earlier search left, and nothing else that may lie there."""
    for name in (STUDY_FILE, f"{STUDY_FILE}-journal", TRIALS_FILE, BEST_FILE):
        (folder / name).unlink(missing_ok=True)
    remove_half_written(folder)
    clear_work(folder)


def clear_work(folder: Path) -> None:
    """Remove the prepared slices and half a trial."""
    if (folder / WORK_FOLDER).is_dir():
        shutil.rmtree(folder / WORK_FOLDER)
