"""The volumes in a folder, by their names; one bad file stops none of the others."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medfcn.datasets.tables import checked_id
from medfcn.datasets.unique import check_unique
from medfcn.errors import DatasetError, MedfcnError, MissingFileError
from medfcn.text import listed, shown
from medfcn.volumes.formats.dicom.series import is_dicom, series_in
from medfcn.volumes.names import case_id_of, extension_of, is_hidden, stem_of, twin_key
from medfcn.volumes.refused import RefusedFile

_POINTER = ".dvc"
"""Ends the file that DVC puts beside, or in place of, a file of its own."""


@dataclass(frozen=True)
class Listing:
    """The volumes in a folder.

    Attributes:
        volumes: By their file names without extension.
        refused: Those that cannot be used, likewise; where a name cannot be written down, a form that can.
    """

    volumes: Mapping[str, Path]
    refused: Mapping[str, RefusedFile]

    @property
    def names(self) -> frozenset[str]:
        """The names of all."""
        return frozenset((*self.volumes, *self.refused))


def files_in(folder: Path) -> list[Path]:
    """The contents of a folder without hidden files, in the order of the names.

    Raises:
        DatasetError: The folder cannot be listed.
    """
    try:
        return sorted(folder / name for name in os.listdir(folder) if not is_hidden(name))  # noqa: PTH208
    except OSError as error:
        found = f"cannot be listed ({error.strerror})"
        raise DatasetError(f"{shown(folder)}: {found}; check its permissions", code="FILE_UNREADABLE") from error


def list_volumes(folder: Path, *, case: str | None = None, dicom: bool = False) -> Listing:
    """The volumes in a folder; a header stands for its file of voxels too, and a folder for the one volume in it.

    Args:
        folder: Where they are.
        case: Only the files of this case, as `case_id_of` has it.
        dicom: Count folders with DICOM files too, each as the volume of its series, and `.dcm` files.

    Raises:
        DatasetError: The folder cannot be listed.
    """
    files = files_in(folder)
    names = {file.name for file in files}
    absent = {file.with_suffix("") for file in files if file.suffix == _POINTER and file.stem not in names}
    extensions = {file: end for file in (*files, *sorted(absent)) if (end := extension_of(file))}
    if dicom:
        extensions |= dict.fromkeys(_dicom_in(folder, [file for file in files if file not in extensions]), "")
    headers = {stem_of(file) for file, end in extensions.items() if end.startswith(".hdr")}
    alike: defaultdict[str, list[Path]] = defaultdict(list)
    for file, end in extensions.items():
        is_second_half = end.startswith(".img") and stem_of(file) in headers
        if not is_second_half and case in (None, case_id_of(file)[0]):
            alike[twin_key(_name_of(file, end))].append(file)
    volumes: dict[str, Path] = {}
    refused: dict[str, RefusedFile] = {}
    for twins in alike.values():
        for file in twins:
            try:
                _require_single(file, twins)
                if file in absent:
                    raise _not_fetched(file)
                named = extensions[file]
                volumes[checked_id(_name_of(file, named), where=shown(folder))] = volume_in(file) if named else file
            except MedfcnError as error:
                name = os.fsencode(_name_of(file, extensions[file])).decode("utf-8", "backslashreplace")
                refused[name] = RefusedFile(file, error)
    return Listing(volumes, refused)


def _dicom_in(folder: Path, files: Sequence[Path]) -> list[Path]:
    """The folders with DICOM files, and the first file of each series that is loose in a folder."""
    found = [file for file in files if is_dicom(file)]
    loose = {file for file in found if not is_folder(file)}
    first = {series.files[0] for series in series_in(folder)[0]} if len(loose) > 1 else loose
    return [file for file in found if file not in loose or file in first]


def _name_of(file: Path, extension: str) -> str:
    """The name of a volume: its file's without extension; of a DICOM folder, the folder's own."""
    return stem_of(file) if extension or file.suffix.lower() != ".dcm" else file.stem


def volumes_in(folder: Path) -> dict[str, Path]:
    """The volumes in a folder, by their file names without extension.

    Raises:
        DatasetError: One of them cannot be used, or two share a name.
    """
    listing = list_volumes(folder)
    for refused in listing.refused.values():
        raise refused.error
    return dict(listing.volumes)


def is_folder(path: Path) -> bool:
    """True if a path is a folder; False for a path that cannot be looked at."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def volume_named(path: Path) -> Path:
    """The file that an entry names: itself, or the one volume in a folder; another folder is refused when read."""
    try:
        return volume_in(path)
    except DatasetError:
        return path


def volume_in(path: Path) -> Path:
    """The file of a volume; for a folder that is named as one, the one volume in it, as Kaggle's archives unpack.

    Raises:
        DatasetError: The folder contains none, or several.
    """
    if not is_folder(path):
        return path
    if not extension_of(path) and is_dicom(path):
        return path
    inside = [file for file in files_in(path) if extension_of(file)]
    headers = {stem_of(file) for file in inside if extension_of(file).startswith(".hdr")}
    inside = [file for file in inside if not (extension_of(file).startswith(".img") and stem_of(file) in headers)]
    if len(inside) == 1 and not is_folder(inside[0]):
        return inside[0]
    found = f"{len(inside)} volumes in it ({listed(shown(file) for file in inside)})" if inside else "no volume in it"
    raise DatasetError(
        f"{shown(path)}: a folder with {found}; expected one file, or a folder with one",
        code="FILE_NOT_REGULAR",
        field="file",
    )


def _not_fetched(file: Path) -> MissingFileError:
    found = f"{shown(file)}: only {file.name}{_POINTER} is there: its content was not fetched"
    return MissingFileError(f"{found}; run `dvc pull`", code="FILE_NOT_FETCHED")


def _require_single(file: Path, twins: Sequence[Path]) -> None:
    """Refuse files of which nobody can tell which one is meant.

    Raises:
        DatasetError: Several files have the name, or names that look alike.
    """
    others = [twin for twin in twins if twin != file]
    if others:
        check_unique([(stem_of(twin), twin) for twin in (*others[:1], file)], remedy="rename one")
