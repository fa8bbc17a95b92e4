"""The inputs of a prediction: volumes and their channels, with or without labels."""

import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medfcn.datasets.bids import bids_dataset
from medfcn.datasets.bids_files import is_bids
from medfcn.datasets.cases import Case, Dataset
from medfcn.datasets.dicom_tree import dicom_tree, has_dicom
from medfcn.datasets.folder_names import folder_pair
from medfcn.datasets.layouts import dataset_at, exists_as_folder, require_bids
from medfcn.datasets.listing import Listing, list_volumes
from medfcn.datasets.misplaced import misplaced
from medfcn.errors import DatasetError, MedfcnError
from medfcn.text import counted, shown
from medfcn.volumes.formats.dicom.series import is_dicom, series_name
from medfcn.volumes.names import case_id_of, extension_of, stem_of, twin_key
from medfcn.volumes.reading import volume_count

_REFUSED = ("ID_DUPLICATE", "ID_LOOKS_ALIKE", "ID_INVALID", "FILE_NOT_REGULAR", "FILE_NOT_FETCHED")
"""Codes of images that were refused when their folder was listed."""
_FOLDERS = ("images", "imagesTr")


def find_inputs(
    path: str | os.PathLike[str],
    *,
    channels: int | None = None,
    optional: Collection[int] = (),
    series: str | None = None,
    bids: str | None = None,
) -> tuple[Case, ...]:
    """The cases to predict: one file, a folder of volumes, or a data set, whose labels are left aside.

    A folder of DICOM files is a case for each series, and so is a tree of such folders.

    Files `<case>_0000`, `<case>_0001` … are channels of one case where there is a `_0000`, unless a label beside them
    has the whole name. With one channel they are cases of their own, and with several a single file stands for its
    siblings too.

    Args:
        path: A volume's file, a folder of volumes, a folder or tree of DICOM series, or a data set as in
            `find_dataset`.
        channels: Number of channels of the model. A case that has fewer says in `lacks` which file is missing. None
            takes cases as they are.
        optional: Numbers of the channels that a case may lack. One that lacks any has the files of the others alone.
        series: Take one DICOM series only: its SeriesInstanceUID, or its short hash.
        bids: Which files of a BIDS root are meant; see `bids_choice.BidsChoice.parse`.

    Raises:
        MissingFileError: There is nothing at `path`.
        DatasetError: The folder contains no volumes, or two that share an id; or the channels are not known, and one
            is missing between others.
    """
    given = Path(path)
    is_file = not exists_as_folder(given)
    require_bids(given, bids)
    if is_file:
        if not extension_of(given) and given.suffix.lower() in (".csv", ".tsv", ".json"):
            return _of_dataset(dataset_at(given, allow_outside=False))
        if not extension_of(given) and is_dicom(given):
            return (_of_dicom_file(given),)
        return (_of_file(given, channels, optional),)
    if is_dicom(given) and not list_volumes(given).names:
        return dicom_tree(given, wanted=series).cases()
    if is_bids(given):
        return _of_dataset(bids_dataset(given, bids, labelled=False))
    folder = next((given / name for name in _FOLDERS if (given / name).is_dir()), given)
    dataset = _dataset_in(given)
    if dataset is not None and dataset.layout == "dicom":
        return dicom_tree(given, wanted=series).cases()
    if dataset is not None and (folder != given / "images" or _lists_channels(dataset)):
        return _of_dataset(dataset)
    listing = list_volumes(folder, dicom=folder != given)
    if not listing.names and has_dicom(given):
        return dicom_tree(given, wanted=series).cases()
    if not listing.names:
        found = misplaced(folder, "volumes") or "no volumes (.nii.gz, .nii, ...) in it; give their folder"
        raise DatasetError(f"{folder}: {found}", code="FOLDER_EMPTY")
    return _of_volumes(listing, _labelled(folder), channels, optional)


def _of_dicom_file(given: Path) -> Case:
    """The series that a DICOM file belongs to; one whose header cannot be read says so when it is read."""
    try:
        name = series_name(given)
    except MedfcnError:
        name = given.stem
    return Case(name, (given,), None, name)


def _dataset_in(folder: Path) -> Dataset | None:
    """The data set of a folder; None if it is none, or one without labels: its volumes are there all the same."""
    try:
        return dataset_at(folder, allow_outside=False)
    except MedfcnError:
        return None


def _lists_channels(dataset: Dataset) -> bool:
    """True if only a list says which files are the channels of a case."""
    return dataset.layout == "decathlon" and any(len(case.images) > 1 for case in dataset.cases)


def _of_dataset(dataset: Dataset) -> tuple[Case, ...]:
    """The cases of a data set; those that lack an image say so."""
    absent = ("IMAGE_MISSING", "FILE_MISSING", "CHANNEL_MISSING", *_REFUSED)
    lacks = {
        problem.case: f"{problem.found}; {problem.remedy}"
        for problem in reversed(dataset.problems)
        if problem.code in absent and problem.field != "label"
    }
    return tuple(
        Case(case.id, case.images, None, case.group, stacked=case.stacked, lacks=lacks.get(case.id, ""))
        for case in dataset.all_cases
    )


def _of_file(given: Path, channels: int | None, optional: Collection[int]) -> Case:
    """The case of one file."""
    base, channel = case_id_of(given)
    alone = Case(stem_of(given) if channel else base, (given,), None, base)
    if channels is None or channel is None:
        return alone
    siblings = list_volumes(given.parent, case=base)
    own = {name: file for name, file in siblings.refused.items() if name != stem_of(given) and channels > 1}
    listing = Listing({**siblings.volumes, stem_of(given): given}, own)
    found = _of_volumes(listing, _labelled(given.parent), channels, optional)
    return next(case for case in found if given in case.images or case.id == base)


def _labelled(folder: Path) -> frozenset[str]:
    """The names of the labels beside a folder of images."""
    try:
        pair = folder_pair(folder.parent)
        is_beside = pair is not None and pair.images == folder.name and pair.labels
        return list_volumes(folder.parent / pair.labels).names if pair is not None and is_beside else frozenset()
    except MedfcnError:
        return frozenset()


def _of_volumes(
    listing: Listing, labelled: frozenset[str], channels: int | None, optional: Collection[int]
) -> tuple[Case, ...]:
    """Volumes by their names → cases; one with a file that cannot be used says so in `lacks`."""
    numbered: dict[str, dict[int, Path]] = {}
    volumes = {**listing.volumes, **{name: file.path for name, file in listing.refused.items()}}
    for stem, file in volumes.items():
        base, channel = case_id_of(file)
        if channel is not None and stem not in labelled:
            numbered.setdefault(base, {})[channel] = file
    groups = {base: files for base, files in numbered.items() if base in labelled or _are_channels(files, channels)}
    inside = {stem_of(file) for files in groups.values() for file in files.values()}
    alone = [(stem, file) for stem, file in volumes.items() if stem not in inside]
    cases = [Case(stem, (file,), None, stem) for stem, file in alone]
    cases += [_of_channels(base, files, channels, optional) for base, files in groups.items()]
    reasons = {file.path: str(file.error) for file in listing.refused.values()}
    alike: defaultdict[str, list[Case]] = defaultdict(list)
    for case in cases:
        alike[twin_key(case.id)].append(case)
    found = (_with_reason(case, alike[twin_key(case.id)], reasons) for case in cases)
    return tuple(sorted(found, key=lambda case: case.id))


def _with_reason(case: Case, alike: Sequence[Case], reasons: Mapping[Path, str]) -> Case:
    """The case, with the reason why it cannot be predicted, if there is one.

    Args:
        case: The case.
        alike: The cases whose ids look like its own, itself included.
        reasons: By file, the reason why it cannot be used.
    """
    others = [other for other in alike if other is not case]
    found = [reasons[file].removeprefix(f"{case.id}: ") for file in case.images if file in reasons]
    if others and not found:
        found = [f"two cases have this id ({shown(case.images[0])} and {shown(others[0].images[0])}); rename one"]
    return replace(case, lacks=found[0]) if found else case


def _are_channels(files: Mapping[int, Path], channels: int | None) -> bool:
    """True if files that differ in `_0000`, `_0001` … are one case, as far as no label says so."""
    if channels is None:
        return 0 in files
    if channels == 1:
        return set(files) == {0}
    return (0 in files or max(files) < channels) and volume_count(min(files.values())) == 1


def _of_channels(base: str, files: Mapping[int, Path], channels: int | None, optional: Collection[int]) -> Case:
    """The case of some numbered files.

    Raises:
        DatasetError: The number of channels is not known, and one is missing between others.
    """
    first = files[min(files)]
    if not set(optional) <= set(files):
        files = {number: file for number, file in files.items() if number not in optional}
    images = tuple(file for _, file in sorted(files.items()))
    missing = sorted(set(range(max([channels or 0, *files]))) - set(files) - set(optional))
    if not missing:
        return Case(base, images, None, base)
    name = f"channel _{missing[0]:04d}"
    if channels is None:
        raise DatasetError(f"{base}: {name} is missing; add the file", code="CHANNEL_MISSING", field=name)
    file = f"{base}_{missing[0]:04d}{extension_of(first)}"
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    lacks = f"{file}{more} is missing: the model takes {counted(channels, 'channel')}, the case has {len(files)}"
    return Case(base, images, None, base, lacks=f"{lacks}; add the file")
