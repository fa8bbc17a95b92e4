"""The volumes in a folder, by their names."""

import os
from pathlib import Path

from medfcn.datasets.assemble import check_unique
from medfcn.datasets.tables import checked_id
from medfcn.errors import DatasetError
from medfcn.text import shown
from medfcn.volumes.names import case_id_of, extension_of, is_hidden, stem_of


def files_in(folder: Path) -> list[Path]:
    """The contents of a folder without hidden files, in the order of the names."""
    try:
        return sorted(folder / name for name in os.listdir(folder) if not is_hidden(name))  # noqa: PTH208
    except OSError as error:
        found = f"cannot be listed ({error.strerror})"
        raise DatasetError(f"{shown(folder)}: {found}; check its permissions", code="FILE_UNREADABLE") from error


def volumes_in(folder: Path, *, case: str | None = None) -> dict[str, Path]:
    """The volumes in a folder by their file names without extension; a header stands for its file of voxels too.

    Args:
        folder: Where they are.
        case: Only the files of this case, as `case_id_of` has it.

    Raises:
        DatasetError: Two share a name.
    """
    named = {file: end for file in files_in(folder) if (end := extension_of(file))}
    extensions = {
        file: end for file, end in named.items() if case in (None, case_id_of(file)[0]) and not file.is_dir()
    }
    headers = {stem_of(file) for file, end in extensions.items() if end.startswith(".hdr")}
    found = [
        (stem_of(file), file)
        for file, end in extensions.items()
        if not (end.startswith(".img") and stem_of(file) in headers)
    ]
    check_unique(found, remedy="rename one")
    for name, _ in found:
        checked_id(name, where=shown(folder))
    return dict(found)
