"""A folder or a tree of DICOM files → its series, each a case, with the segmentation or structure set of each.

A series is named by its folder. Where a folder has several, a short hash of the series follows; where several folders
have one name, or one that says nothing (`SE0001`), the folders above come first. Nothing of a header is in a name.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medfcn.datasets.cases import Case
from medfcn.datasets.tables import checked_id
from medfcn.errors import DatasetError, MedfcnError
from medfcn.text import counted, listed, shown
from medfcn.volumes.formats.dicom.references import References, references_of
from medfcn.volumes.formats.dicom.series import Series, is_dicom, series_in
from medfcn.volumes.names import is_hidden
from medfcn.volumes.refused import RefusedFile


@dataclass(frozen=True)
class FoundSeries:
    """One series of images in a tree.

    Attributes:
        id: Its name as a case.
        path: What a reader is given: the folder, or one of its files where the folder has several series.
        series: Its files.
        problem: Why it cannot be used; None if nothing is known.
    """

    id: str
    path: Path
    series: Series
    problem: MedfcnError | None = None


@dataclass(frozen=True)
class DicomTree:
    """The DICOM files below a folder.

    Attributes:
        root: The folder.
        images: In the order of the ids.
        labels: Files of segmentations and structure sets.
        refused: Files that cannot be read as DICOM.
    """

    root: Path
    images: tuple[FoundSeries, ...]
    labels: tuple[Path, ...] = ()
    refused: tuple[RefusedFile, ...] = field(default=())

    def cases(self) -> tuple[Case, ...]:
        """The series as inputs of a prediction."""
        patients = self.groups()
        return tuple(
            Case(one.id, (one.path,), None, patients[one.id], lacks="" if one.problem is None else str(one.problem))
            for one in self.images
        )

    def groups(self) -> Mapping[str, str]:
        """For each case the first case of the same patient."""
        first: dict[str, str] = {}
        return {
            one.id: first.setdefault(one.series.patient, one.id) if one.series.patient else one.id
            for one in self.images
        }


def has_dicom(folder: Path) -> bool:
    """True if a folder, or one below it, has a DICOM file."""
    return any(is_dicom(Path(inner)) for inner, _, files in _walk(folder) if files)


def _walk(folder: Path) -> list[tuple[str, list[str], list[str]]]:
    """The folders below one, links to folders followed; each is there once."""
    found = []
    top = os.path.realpath(folder)
    seen: set[str] = set()
    for inner, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(inner)
        is_above = real != top and os.path.commonpath([real, top]) == real
        if real in seen or is_above:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        found.append((inner, folders, files))
    return found


def dicom_tree(root: Path, *, wanted: str | None = None) -> DicomTree:
    """The series and labels of a folder and of all below it.

    Args:
        root: The folder.
        wanted: Keep one series of images: its UID, or its short hash.

    Raises:
        DatasetError: There is no series of images, or none that is wanted.
    """
    images: list[Series] = []
    unread: list[Series] = []
    labels: list[Path] = []
    refused: list[RefusedFile] = []
    for inner, _, files in _walk(root):
        if files:
            found, broken = series_in(Path(inner))
            images += [one for one in found if not one.is_label]
            labels += [one.files[0] for one in found if one.is_label]
            refused += [RefusedFile(path, error) for path, error in broken]
            if broken and not found:
                files_of = tuple(path for path, _ in broken)
                unread.append(Series(Path(inner), "", files_of, "", frozenset(), is_label=False))
    if images:  # beside others, a folder that cannot be read is a case that failed
        images += unread
    named = _named(root, images, {file.path.parent: file.error for file in refused})
    if wanted is not None:
        named = [one for one in named if one.series.is_named(wanted)]
    if not named:
        of_wanted = f" {wanted}" if wanted else " of images"
        known = f"; known are {listed(one.short_hash for one in images)}" if wanted and images else ""
        raise DatasetError(
            f"{shown(root)}: no DICOM series{of_wanted} here{known}; give the folder of a CT, MR or PET series",
            code="SERIES_UNKNOWN" if wanted else "FOLDER_EMPTY",
            field="series",
        )
    return DicomTree(root, tuple(sorted(named, key=lambda one: one.id)), tuple(sorted(labels)), tuple(refused))


def _named(root: Path, images: Sequence[Series], broken: Mapping[Path, MedfcnError]) -> list[FoundSeries]:
    """Series with their ids, and what is wrong with those that go on in another folder."""
    folders = Counter(series.folder for series in images)
    names = _names_of(root, images)
    shared = Counter(names.values())
    elsewhere = _continued(images)
    found = []
    for series in images:
        name = names[series.folder]
        several = folders[series.folder] > 1
        problem: MedfcnError | None = elsewhere.get((series.folder, series.uid)) or broken.get(series.folder)
        try:
            name = checked_id(
                f"{name}_{series.short_hash}" if several or shared[name] > 1 else name, where=shown(root)
            )
        except DatasetError as error:
            name, problem = series.short_hash, error
        path = series.files[0] if several else series.folder
        found.append(FoundSeries(name, path, series, problem))
    return found


def _names_of(root: Path, images: Sequence[Series]) -> dict[Path, str]:
    """The name of each folder: its own; where that says nothing, such as `SE0001`, with those above that do.

    Where several folders have one name, theirs begin below `root`. The name of `root` is in them if all is of one
    patient; nothing above it is.
    """
    folders = list(dict.fromkeys(series.folder for series in images))
    bases = Counter(map(_base, folders))
    is_of_one = len({series.patient for series in images}) == 1 and not _is_of_archives(_base(root))
    names = {}
    for folder in folders:
        above = list(folder.relative_to(root).parts[:-1])
        parts = [_base(folder)]
        says_nothing = _is_of_archives(parts[0]) or (parts[0].isdecimal() and len(parts[0]) >= _LONG_NUMBER)
        if bases[parts[0]] > 1:
            above, parts = [], [*above, *parts]
            says_nothing = says_nothing and all(map(_is_of_archives, parts[:-1]))
        while above and says_nothing:
            parts.insert(0, above.pop())
            says_nothing = _is_of_archives(parts[0])
        if folder != root and says_nothing and is_of_one:
            parts.insert(0, _base(root))
        names[folder] = "_".join(parts)
    return names


_OF_ARCHIVES = re.compile(
    r"(?:dicom|dcm|study|st|series|se[r]?|image|images|img|im|scan|scans)[-_. ]*\d*|\d+(?:\.\d+)+", re.IGNORECASE
)
_LONG_NUMBER = 6
"""Digits of a folder of which nobody knows the patient."""


def _is_of_archives(name: str) -> bool:
    """True for the name of a folder that scanners and archives give to every patient's.

    Example:
        >>> [_is_of_archives(name) for name in ("SE0001", "image", "1.2.840.3", "P3", "ct", "001")]
        [True, True, True, False, False, False]
    """
    return _OF_ARCHIVES.fullmatch(name) is not None


def _base(folder: Path) -> str:
    return folder.name if folder.name not in ("", "..") else folder.resolve().name


def _continued(images: Sequence[Series]) -> dict[tuple[Path, str], MedfcnError]:
    """By folder and series, the error that some slices of a series are in one folder and some in another."""
    by_uid: defaultdict[str, list[Series]] = defaultdict(list)
    for series in images:
        by_uid[series.uid].append(series)
    found: dict[tuple[Path, str], MedfcnError] = {}
    for those in by_uid.values():
        for series in those:
            other = next((one for one in those if one.instances - series.instances), None)
            if other is not None:
                more = counted(len(other.instances - series.instances), "file")
                found[series.folder, series.uid] = DatasetError(
                    f"the series goes on in {shown(other.folder)}/, with {more} more; put all in one folder",
                    code="SLICE_MISSING",
                    field="SeriesInstanceUID",
                )
    return found


def labels_of_series(tree: DicomTree) -> tuple[dict[str, list[Path]], list[Path]]:
    """The label files of each case, and those that belong to none or may belong to several.

    A label belongs to the series that it refers to. Where that is not here (such as a cropped copy of it), it belongs
    to the one series of its coordinate system that is nearest in the tree.
    """
    by_uid = {one.series.uid: one.id for one in tree.images}
    frames = {one.id: _quiet_references(one.series.files[0]).frames_of_reference for one in tree.images}
    found: defaultdict[str, list[Path]] = defaultdict(list)
    alone = []
    for path in tree.labels:
        references = _quiet_references(path)
        case = next((by_uid[uid] for uid in sorted(references.series) if uid in by_uid), None)
        if case is None:
            near = [one for one in tree.images if frames[one.id] & references.frames_of_reference]
            depths = {one.id: len(Path(os.path.commonpath([one.series.folder, path])).parts) for one in near}
            best = [name for name, depth in depths.items() if depth == max(depths.values(), default=0)]
            case = best[0] if len(best) == 1 else None
        if case is None:
            alone.append(path)
        else:
            found[case].append(path)
    return dict(found), alone


def _quiet_references(path: Path) -> References:
    try:
        return references_of(path)
    except MedfcnError:
        return References(frozenset(), frozenset())
