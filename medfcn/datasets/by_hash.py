"""Volumes that are known by the hash of their bytes, wherever they lie and whatever they are called."""

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from medfcn.datasets.dicom_tree import dicom_tree, has_dicom
from medfcn.errors import MedfcnError, MissingFileError
from medfcn.volumes.formats.dicom.series import series_sha256
from medfcn.volumes.names import extension_of, is_hidden, stem_of
from medfcn.volumes.reading import source_sha256


def find_by_hash(
    place: str | os.PathLike[str], hashes: Collection[str], *, likely: Collection[str] = ()
) -> dict[str, Path]:
    """The volumes with some hashes, as `Volume.sha256` has them; files that cannot be read are passed over.

    Args:
        place: A file, or a folder that is searched with all folders in it.
        hashes: The hashes.
        likely: Beginnings of the names of files that are looked at first.

    Returns:
        The files that were found, by hash; of a DICOM series what a reader is given.

    Raises:
        MissingFileError: There is nothing at `place`.
    """
    given = Path(place)
    if not given.exists():
        raise MissingFileError(f"{given}: no such file or folder; check the path")
    files = sorted(_volumes_below(given)) if given.is_dir() else [given]
    starts = tuple(likely)
    found: dict[str, Path] = {}
    for file in sorted(files, key=lambda file: not stem_of(file).startswith(starts) if starts else False):
        if len(found) == len(set(hashes)):
            break
        digest = _hash_of(file)
        if digest in hashes:
            found.setdefault(digest, file)
    missing = set(hashes) - found.keys()
    if missing and given.is_dir():
        found |= _series_in(given, missing)
    return found


def _volumes_below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in names:
            if extension_of(name) and not is_hidden(name):
                yield Path(place) / name


def _hash_of(file: Path) -> str:
    """The hash of a volume; empty if it cannot be read."""
    try:
        return source_sha256(file)
    except (OSError, MedfcnError):
        return ""


def _series_in(folder: Path, hashes: Collection[str]) -> dict[str, Path]:
    """The DICOM series with some hashes."""
    if not has_dicom(folder):
        return {}
    found: dict[str, Path] = {}
    for one in dicom_tree(folder).images:
        with suppress(OSError):
            digest = series_sha256(one.series.files)
            if digest in hashes:
                found.setdefault(digest, one.path)
    return found
