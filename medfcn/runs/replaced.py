"""The run that a new training replaces: kept in a hidden folder of the run until the new one is complete.

The card is the last file that is moved there and the first that is moved back. So wherever a kill comes, the folder
that has the card says which of the two is whole, and the next training in the run folder settles the rest.
"""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from medfcn.files import make_inner_folder, refuse_link
from medfcn.progress import Progress
from medfcn.runs.folder import RunFolder
from medfcn.runs.lock import locked
from medfcn.runs.outputs import clear, refuse_blocked_run


def set_aside(folder: Path) -> None:
    """Move an older run out of the way of a new one; what is not a whole run is removed.

    Args:
        folder: The run folder, which is locked.
    """
    refuse_blocked_run(folder)
    settle(folder)
    run = RunFolder(folder)
    if run.is_finished:
        _move(folder, run.replaced, card_last=True)
    clear(folder)


def set_folds_aside(run: Path, progress: Progress, *, held: Sequence[Path] = ()) -> None:
    """The same of all folds of a folder.

    Args:
        run: The folder of all folds.
        progress: As in `locked`.
        held: The folds that are locked already, in which a new training begins.

    Raises:
        TrainingError: A training is running in another one.
    """
    aside = RunFolder(run).replaced
    for fold in RunFolder(run).folds().values():
        if fold.path in held:
            set_aside(fold.path)
            continue
        with locked(fold.path, progress):
            settle(fold.path)
            if fold.is_finished:
                make_inner_folder(aside)
                shutil.rmtree(aside / fold.path.name, ignore_errors=True)
                fold.lock.unlink(missing_ok=True)
                fold.path.rename(aside / fold.path.name)
            else:
                clear(fold.path)
        with suppress(OSError):
            fold.path.rmdir()


def settle(folder: Path) -> None:
    """Finish what a kill interrupted: put an older run back that was not wholly set aside, or drop it after all."""
    run = RunFolder(folder)
    refuse_link(run.replaced)
    if not run.replaced.is_dir() or not run.is_finished:
        return
    if RunFolder(run.replaced).is_finished:
        drop(folder)  # the new run is complete
    else:
        put_back(folder)


def put_back(folder: Path) -> None:
    """Move an older run back, after a new one left nothing."""
    aside = RunFolder(folder).replaced
    if not aside.is_dir():
        return
    _move(aside, folder, card_last=False)
    for fold in RunFolder(aside).folds().values():
        if not (folder / fold.path.name).exists():
            fold.path.rename(folder / fold.path.name)
    with suppress(OSError):
        aside.rmdir()


def drop(folder: Path) -> None:
    """Remove an older run, once the new one is complete."""
    aside = RunFolder(folder).replaced
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside)


def _move(source: Path, target: Path, *, card_last: bool) -> None:
    """Move the files of a run from one folder to another."""
    make_inner_folder(target)
    first, other = RunFolder(source), RunFolder(target)
    names = ("validation", "steps", "report", "log", "cases", "options", "pictures", *RunFolder.trackers, "weights")
    for name in (*names, "card") if card_last else ("card", *names):
        path = getattr(first, name)
        if path.exists() and not getattr(other, name).exists():
            path.rename(getattr(other, name))
