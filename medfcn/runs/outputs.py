"""Output folders: which of them medfcn wrote, where a training may start, and how its files are removed again."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from medfcn import files
from medfcn.decoding import read_json
from medfcn.errors import LabelError, MissingFileError, OutputExistsError
from medfcn.files import is_half_written, refuse_existing_file, refuse_link
from medfcn.labels.sidecar import MaskRecord
from medfcn.runs.folder import (
    CLAIMS_FOLDER,
    CONFIDENCE_FILE,
    ENGINE_FILE,
    FAILURES_FILE,
    ITK_SNAP_FILE,
    LOGS_FOLDER,
    PARTS_FOLDER,
    SCORES_FILE,
    SLICER_FILE,
    STUDY_FILE,
    SUMMARY_FILE,
    TIMING_FILE,
    TRIALS_FILE,
    VOLUMES_FILE,
    RunFolder,
)

_RECOGNISED_BY = (
    (RunFolder.card, RunFolder.weights),
    (SCORES_FILE, SUMMARY_FILE),
    (VOLUMES_FILE,),
    (f"{RunFolder.state}/*.npy",),
    (STUDY_FILE, TRIALS_FILE),
    (RunFolder.lock,),
)
"""Files that are together in a run, scores, sizes of masks, a stopped training, a search, and after a kill."""
_WITHOUT_MASKS = {FAILURES_FILE, VOLUMES_FILE, CONFIDENCE_FILE, TIMING_FILE, ITK_SNAP_FILE, SLICER_FILE}
"""All that a prediction leaves behind of which every case failed."""
_INSIDE = ("run", "masks", "fold_*", RunFolder.replaced)
"""Folders within an output that are outputs themselves."""


def _is_output(folder: Path) -> bool:
    """True if medfcn has written into a folder: a run, masks, scores, or a folder of these."""
    if any(all(any(folder.glob(name)) for name in names) for names in _RECOGNISED_BY):
        return True
    if any(MaskRecord.is_in(path) for path in folder.glob("*.json")) or _is_derivative(folder):
        return True
    return any(_is_output(path) for name in _INSIDE for path in folder.glob(name) if path.is_dir())


def _is_derivative(folder: Path) -> bool:
    """True if a folder says that it is a BIDS derivative of medfcn."""
    try:
        about = read_json(folder / "dataset_description.json", _Derivative, error=LabelError, remedy="")
    except (OSError, LabelError):
        return False
    return any(tool.name == "medfcn" for tool in about.tools)


class _Tool(msgspec.Struct, rename={"name": "Name"}):
    name: str = ""


class _Derivative(msgspec.Struct, rename={"tools": "GeneratedBy"}):
    tools: tuple[_Tool, ...] = ()


def refuse_existing(path: Path | str, *, overwrite: bool, is_shared: bool = False, can_resume: bool = False) -> None:
    """Refuse an output that already exists, unless it may be overwritten.

    An empty folder does not count as existing, nor does one with nothing but the temporary files of a killed process.
    A folder in which medfcn wrote nothing is never overwritten: the name is most likely mistyped.

    Args:
        path: The output.
        overwrite: It may be overwritten.
        is_shared: Other shards may be at work in it already.
        can_resume: The command predicts: it can continue in a folder of its outputs, which the message then offers.
            It works at once where every case of a command before it failed, and only tables are left.

    Raises:
        OutputExistsError: `path` is a file or a folder with something in it, and `overwrite` is false; or a folder
            without any output of medfcn.
    """
    path = Path(path)
    names = _names_in(path)
    if can_resume and _is_without_masks(path, names):
        return
    has_parts = PARTS_FOLDER in names or (path / LOGS_FOLDER / PARTS_FOLDER).is_dir()
    if is_shared and path.is_dir() and (has_parts or not names):
        return
    if can_resume and not overwrite and names and _is_output(path):
        raise OutputExistsError(
            f"{path}: already exists; make what is missing in it (--resume, resume=True), choose another output, or "
            "replace it (--overwrite, overwrite=True)"
        )
    if not path.is_dir() or (not overwrite and names):
        refuse_existing_file(path, overwrite=overwrite)
    elif overwrite and names and not _is_output(path):
        raise OutputExistsError(
            f"{path}: contains files, none of them written by medfcn; only outputs of medfcn are overwritten, so "
            "choose another output",
            code="OUTPUT_NOT_OURS",
        )


def _names_in(folder: Path) -> set[str]:
    """The names in a folder, without the temporary files of killed processes and what running ones state."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return {name for name in names if name not in (CLAIMS_FOLDER, ENGINE_FILE) and not is_half_written(name)}


def _is_without_masks(folder: Path, names: set[str]) -> bool:
    """True if these are the files of a prediction of which every case failed: its table of sizes has no row."""
    if not {FAILURES_FILE, VOLUMES_FILE} <= names <= _WITHOUT_MASKS:
        return False
    try:
        with (folder / VOLUMES_FILE).open(encoding="utf-8") as table:
            return table.readline().startswith("case,label,") and not table.readline()
    except (OSError, UnicodeDecodeError):
        return False


def refuse_blocked(folder: Path, *, files: Iterable[str] = (), folders: Iterable[str] = ()) -> None:
    """Refuse an output in which something else has a name that is needed, before anything is removed or written.

    Args:
        folder: The output; it need not exist.
        files: Names of files to be written or removed, of which none may be a folder's.
        folders: Names of folders to be filled or removed, of which none may be a file's or a link's.

    Raises:
        OutputExistsError: A name is taken.
    """
    taken = {path.name for path in os.scandir(folder) if path.is_dir()} if folder.is_dir() else set()
    for name in files:
        if name in taken:
            raise OutputExistsError(f"{folder / name}: is a folder, where a file is to be; choose another output")
    for name in folders:
        refuse_link(folder / name)
        if (folder / name).exists() and name not in taken:
            raise OutputExistsError(f"{folder / name}: is a file, where a folder is to be; choose another output")


def refuse_blocked_run(folder: Path) -> None:
    """As `refuse_blocked`, for everything that a training writes into its run folder."""
    model, table = (
        (RunFolder.weights, RunFolder.card),
        (RunFolder.cases, RunFolder.log, RunFolder.steps, RunFolder.options),
    )
    names = (*model, *table, RunFolder.report, RunFolder.lock)
    refuse_blocked(
        folder, files=names, folders=(RunFolder.validation, RunFolder.pictures, RunFolder.state, *RunFolder.trackers)
    )
    refuse_blocked(folder / RunFolder.validation, files=(SCORES_FILE, SUMMARY_FILE, FAILURES_FILE))


def require_stopped(run: Path, folders: Iterable[Path]) -> None:
    """Refuse to resume if no training was stopped.

    Args:
        run: The folder to resume, for the message.
        folders: The same, or its folds.

    Raises:
        MissingFileError: No folder contains a state, the lock of a job that was killed, or a finished run.
    """
    each = [RunFolder(folder) for folder in folders]
    if not any(one.is_finished or one.state.is_dir() or one.lock.is_file() for one in each):
        raise MissingFileError(
            f"{run}: contains no stopped training; check the path, or start one without --resume", code="NOT_STOPPED"
        )


def require_free(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse to start a training where there is anything except the lock.

    Args:
        folder: The run folder, if it exists.
        overwrite: Its content may be replaced, if some of it is medfcn's.

    Raises:
        OutputExistsError: The folder is in use.
    """
    run = RunFolder(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder}: is a file; choose another output")
    names = _names_in(folder) - {RunFolder.lock}
    if overwrite:
        if names != {RunFolder.state} or any(run.state.iterdir()):
            refuse_existing(folder, overwrite=True)
    elif RunFolder.state in names and not run.is_finished:
        raise OutputExistsError(
            f"{folder}: already exists and contains a stopped training; continue it (--resume, resume=True), or "
            "start again (--overwrite, overwrite=True)",
            code="RUN_STOPPED",
        )
    elif names:
        refuse_existing(folder, overwrite=False)


def require_free_or_locked(folder: Path, *, overwrite: bool) -> None:
    """As `require_free`, before a folder is locked: if there is a lock already, its message says more."""
    if not RunFolder(folder).lock.is_file():
        require_free(folder, overwrite=overwrite)


def clear(folder: Path) -> None:
    """Remove the files of an earlier training from a run folder, and nothing else; the model goes last."""
    refuse_blocked_run(folder)
    run = RunFolder(folder)
    for path in (run.validation, run.pictures, run.state, *(folder / name for name in run.trackers)):
        if path.is_dir():
            shutil.rmtree(path)
    for path in (run.steps, run.report, run.log, run.cases, run.options, run.card, run.weights):
        path.unlink(missing_ok=True)
    remove_half_written(folder)


def clear_scores(folder: Path) -> None:
    """Remove the scores and the report of all folds, which are wrong once a fold is trained again."""
    run = RunFolder(folder)
    for path in (run.scores, run.summary, run.report):
        path.unlink(missing_ok=True)


def remove_half_written(folder: Path) -> None:
    """Remove the temporary files of a killed training from a run folder; see `medfcn.files.remove_half_written`."""
    run = RunFolder(folder)
    for place in (run.path, run.state, run.validation, run.pictures):
        if place == run.path or not place.is_symlink():
            files.remove_half_written(place)


def emptied(folder: Path) -> Path:
    """An empty folder for files that are written anew: a training that goes on passes all its rows on once more."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
