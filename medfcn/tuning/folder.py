"""The folder of a search: the checks before a search, and the removal of an earlier one."""

import shutil
from pathlib import Path

from medfcn.errors import MissingFileError, OutputExistsError
from medfcn.runs.folder import BEST_FILE, STUDY_FILE, TRIALS_FILE, RunFolder
from medfcn.runs.outputs import refuse_blocked, remove_half_written, require_free

WORK_FOLDER = "search"
"""Contains the slices that all trials share and the trial that is being trained, until the search is finished."""


def require_place(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse to search in a folder that contains anything but a lock.

    Args:
        folder: The output; it need not exist.
        overwrite: Accept files that may be replaced, if some of them are medfcn's.

    Raises:
        OutputExistsError: The folder contains files.
    """
    if (folder / STUDY_FILE).is_file() and not overwrite:
        raise OutputExistsError(
            f"{folder}: already exists and contains a search; continue it (--resume, resume=True), or start again "
            "(--overwrite, overwrite=True)"
        )
    require_free(folder, overwrite=overwrite)


def refuse_taken(folder: Path) -> None:
    """Refuse links and strange things in the places that are filled or removed later.

    Raises:
        OutputExistsError: There is one.
    """
    refuse_blocked(folder, files=(STUDY_FILE, TRIALS_FILE, BEST_FILE, RunFolder.lock), folders=(WORK_FOLDER,))


def require_search(folder: Path) -> None:
    """Refuse to continue where no search was begun.

    Raises:
        MissingFileError: There is neither a study nor the lock of a search that was killed.
    """
    if not (folder / STUDY_FILE).is_file() and not RunFolder(folder).lock.is_file():
        raise MissingFileError(
            f"{folder}: contains no search to continue; check the path, or start one without resuming"
        )


def clear(folder: Path) -> None:
    """Remove the files of an earlier search, and nothing else."""
    for name in (STUDY_FILE, f"{STUDY_FILE}-journal", TRIALS_FILE, BEST_FILE):
        (folder / name).unlink(missing_ok=True)
    remove_half_written(folder)
    clear_work(folder)


def clear_work(folder: Path) -> None:
    """Remove the prepared slices and an unfinished trial."""
    if (folder / WORK_FOLDER).is_dir():
        shutil.rmtree(folder / WORK_FOLDER)
