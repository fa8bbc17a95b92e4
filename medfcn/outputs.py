"""Outputs that are already there, and whether medfcn wrote them."""

import json
from pathlib import Path

from medfcn.errors import OutputExistsError

_WROTE_THESE = (
    ("model.json", "model.safetensors"),
    ("scores.csv", "summary.json"),
    ("state/*.npy",),
    ("study.db", "trials.csv"),
    (".medfcn.lock",),
)
"""What stands together in a run, in scores, in a search, and in what a training leaves that was killed."""


_INSIDE = ("run", "masks", "fold_*")
"""Folders within an output that are outputs themselves."""


def _holds_output(folder: Path) -> bool:
    """Whether medfcn has written into a folder: a run, masks, scores, or a folder of these."""
    if any(all(any(folder.glob(name)) for name in names) for names in _WROTE_THESE):
        return True
    if any(_is_sidecar(path) for path in folder.glob("*.json")):
        return True
    return any(_holds_output(path) for name in _INSIDE for path in folder.glob(name) if path.is_dir())


def _is_sidecar(path: Path) -> bool:
    """Whether a file is what medfcn writes beside a mask; other tools have `.json` files of that name too."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "mask_sha256" in value


def refuse_existing(path: Path | str, *, overwrite: bool) -> None:
    """Refuse an output that already exists, unless overwriting it was asked for.

    An empty folder does not count as existing. A folder of other things is never overwritten: whoever asks for it
    has most likely mistyped the name.

    Raises:
        OutputExistsError: `path` is a file or a folder with something in it, and `overwrite` is false; or a folder
            in which nothing is an output of medfcn.
    """
    path = Path(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if overwrite and path.is_dir() and not _holds_output(path):
        raise OutputExistsError(
            f"{path}: holds files, and none that medfcn wrote; overwriting replaces only outputs of medfcn, so "
            "choose another output"
        )
    if overwrite:
        return
    raise OutputExistsError(
        f"{path}: already exists; choose another output, or replace it (--overwrite, overwrite=True)"
    )
