"""The door: finds the cases of a data set, and the masks of an evaluation."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

from medfcn.datasets.bids import bids_masks
from medfcn.datasets.bids_files import is_bids
from medfcn.datasets.case_folders import masks_in
from medfcn.datasets.cases import Case, Dataset, MaskFile
from medfcn.datasets.dataset_json import read_description
from medfcn.datasets.dicom_layout import dicom_dataset
from medfcn.datasets.dicom_tree import has_dicom
from medfcn.datasets.folder_names import folder_pair
from medfcn.datasets.layouts import dataset_at, exists_as_folder, require_bids
from medfcn.datasets.listing import list_volumes
from medfcn.datasets.misplaced import misplaced
from medfcn.datasets.patients import (
    chosen_grouping,
    grouped_by,
    groups_from_table,
    idle_grouping,
    require_distinct,
)
from medfcn.datasets.prescribed_splits import check_splits
from medfcn.datasets.segment_names import differing_segments
from medfcn.errors import DatasetError, refuse_pipe
from medfcn.labels.dicom import dicom_label, is_dicom_label
from medfcn.runs.folder import RunFolder
from medfcn.text import listed, shown
from medfcn.volumes.names import extension_of, stem_of
from medfcn.volumes.refused import RefusedFile

_Masks = TypeVar("_Masks")


def find_dataset(
    path: str | os.PathLike[str],
    *,
    groups: str | os.PathLike[str] | None = None,
    group_by: str | None = None,
    allow_outside: bool = False,
    unlabelled: bool = False,
    bids: str | None = None,
) -> Dataset:
    """The cases of a data set.

    Layouts: `images/` with `labels/`; a folder for each case with an image and one file for each structure
    (TotalSegmentator); a `dataset.json` with a training list (Medical Segmentation Decathlon, MONAI);
    nnU-Net raw (`imagesTr/`, `labelsTr/`); a BIDS root, with labels in its derivatives; a CSV or TSV with columns
    `image` (or `image_<channel>`), `label` and perhaps `id`, `group`, `fold`. Hidden files are ignored.

    Args:
        path: The folder, its `dataset.json`, or the table.
        groups: A CSV with columns `id, group`, for layouts that do not name groups.
        group_by: Instead of it, groups that follow from the ids; see `patients.groups_from_ids`.
        allow_outside: Accept paths in a table or `dataset.json` that lead out of its folder.
        unlabelled: Accept a BIDS root or a tree of DICOM series without any label, of which no case is complete.
        bids: Which files of a BIDS root are meant; see `bids_choice.BidsChoice.parse`.

    Returns:
        The cases with all their files; `problems` says what the others lack (an image, a label, a channel, a file
        that is named).

    Raises:
        MissingFileError: The data set is not there.
        DatasetError: No case is complete, two cases share an id, two patients look like one, a path leads outside, or
            the layout is not known.
        SettingsError: Both `groups` and `group_by` are given, or the latter is not a regular expression.
    """
    groups, group_by = chosen_grouping(groups, group_by)
    requested = groups is not None or group_by not in (None, "none")
    dataset = in_groups(dataset_at(Path(path), allow_outside=allow_outside, bids=bids), groups, group_by)
    if dataset.has_groups:
        patients = {case.id: case.group for case in (*dataset.all_cases, *dataset.left_out)}
        require_distinct(patients, source=shown(dataset.root))
    _check_cases(dataset, unlabelled=unlabelled and dataset.layout in ("dicom", "bids"))
    found = (idle_grouping(dataset) if requested else None, differing_segments(dataset))
    problems = tuple(problem for problem in found if problem is not None)
    return replace(dataset, problems=(*problems, *dataset.problems)) if problems else dataset


def in_groups(dataset: Dataset, groups: str | os.PathLike[str] | None, group_by: str | None) -> Dataset:
    """The cases in the groups of a table or of their ids; as they are where neither is given.

    Raises:
        DatasetError: A complete case has no group in the table.
        SettingsError: Both are given, or the latter is not a regular expression.
    """
    groups, group_by = chosen_grouping(groups, group_by)
    if groups is not None:
        # Incomplete cases need no group.
        stated = groups_from_table(groups, (case.id for case in dataset.cases))
        return dataset.with_groups({case.id: case.group for case in dataset.all_cases} | stated)
    return dataset if group_by is None else grouped_by(dataset, group_by)


def require_complete(dataset: Dataset) -> Dataset:
    """The data set, if every case has all its files.

    Raises:
        DatasetError: A case lacks one; the line counts them and names the first few.
    """
    if not dataset.incomplete:
        return dataset
    lines = {problem.case: f"{problem.case}: {problem.found}" for problem in reversed(dataset.problems)}
    first = listed((lines[case.id] for case in dataset.incomplete), limit=3, separator="; ")
    count = f"{len(dataset.incomplete)} of {len(dataset.all_cases)} cases are not complete"
    remedy = "add what is missing, or take those cases out"
    raise DatasetError(f"{shown(dataset.root)}: {count}: {first}; {remedy}", code="CASES_INCOMPLETE")


def find_masks(
    path: str | os.PathLike[str] | Dataset, *, bids: str | None = None
) -> dict[str, MaskFile | RefusedFile]:
    """Masks by case id: one file, a folder of masks (or of folders with a file for each structure), or a data set.

    Args:
        path: Where they are, or the data set itself.
        bids: As in `find_dataset`.

    Raises:
        MissingFileError: There is nothing at `path`.
        DatasetError: The folder contains no masks, or it is a pipe. A mask that cannot be used says why when it is
            read.
    """
    dataset = dataset_of_masks(path, bids=bids)
    if dataset is not None:
        return _labels_of(dataset)
    given = Path(cast(str, path))
    if not given.is_dir():
        refuse_pipe(given, DatasetError)  # its name is no case's
        return {given.stem: dicom_label(given, given.stem)} if is_dicom_label(given) else {stem_of(given): given}
    folder = _folder_of_masks(given)
    masks, refused = masks_in(folder)
    if not masks and has_dicom(given):
        return _labels_of(dicom_dataset(given))
    if not masks and not refused:
        found = misplaced(folder, "masks") or "no masks (.nii.gz, .nii, ...) in it; give their folder"
        raise DatasetError(f"{folder}: {found}", code="FOLDER_EMPTY")
    return {**masks, **refused}


def _folder_of_masks(given: Path) -> Path:
    """The folder in which the masks are: that of the labels of a data set, else the folder itself.

    Raises:
        DatasetError: It is a run folder.
    """
    if (given / "labels").is_dir():
        return given / "labels"
    if list_volumes(given).names:
        return given
    if RunFolder(given).is_any:
        raise DatasetError(f"{given}: {misplaced(given, 'masks')}", code="FOLDER_EMPTY")
    pair = folder_pair(given)
    return given / pair.labels if pair is not None and pair.labels else given


def _holds_masks(folder: Path) -> bool:
    """True if a folder with a `dataset.json` is one of masks: nnU-Net leaves that file among its predictions."""
    volumes = list_volumes(folder).names
    if not volumes:
        return False
    entries = read_description(folder / "dataset.json").training
    return not any(os.path.lexists(folder / entry.label) for entry in entries if entry.label)


def _labels_of(dataset: Dataset) -> dict[str, MaskFile | RefusedFile]:
    """The labels of a data set; of a case without one, the reason."""
    found: dict[str, MaskFile | RefusedFile] = {}
    for case in dataset.all_cases:
        problem = next(
            (one for one in dataset.problems if one.case == case.id and one.field in ("label", "id")), None
        )
        if case.label is not None:
            found[case.id] = case.label
        elif problem is not None:
            error = DatasetError(
                f"{case.id}: {problem.found}; {problem.remedy}", code=problem.code, field=problem.field
            )
            found[case.id] = RefusedFile(dataset.root / problem.file, error)
    return found


def listed_masks(path: _Masks, *, bids: str | None = None) -> _Masks | Dataset:
    """A BIDS root as its labels, listed once for all who ask for them; anything else as it is.

    Raises:
        DatasetError: As in `dataset_of_masks`.
    """
    if isinstance(path, str | os.PathLike) and is_bids(Path(path)):
        return bids_masks(Path(path), bids)
    return path


def dataset_of_masks(path: str | os.PathLike[str] | Dataset, *, bids: str | None = None) -> Dataset | None:
    """The data set whose labels `find_masks` gives; None where it takes the masks of a folder, or one file.

    Raises:
        MissingFileError: There is nothing at `path`.
        DatasetError: As in `find_dataset`.
    """
    if isinstance(path, Dataset):
        return path
    given = Path(path)
    is_folder = exists_as_folder(given)
    require_bids(given, bids)
    if is_folder:
        if is_bids(given):
            return bids_masks(given, bids)
        is_dataset = (given / "dataset.json").is_file() and not _holds_masks(given)
    else:
        is_dataset = not extension_of(given) and given.suffix.lower() in (".csv", ".tsv", ".json")
    return find_dataset(given) if is_dataset else None


def _check_cases(dataset: Dataset, *, unlabelled: bool) -> None:
    """Refuse files that are named twice, groups in two folds, wrong splits, and data without a complete case."""
    owners: dict[Path, str] = {}
    folds: dict[str, Case] = {}
    for case in dataset.all_cases:
        for file in case.files:
            if owners.setdefault(file, case.id) != case.id or case.files.count(file) > 1:
                found = f"is named more than once ({case.id})"
                raise DatasetError(f"{shown(file)}: {found}; fix the entries", code="FILE_NAMED_TWICE")
        other = folds.setdefault(case.group, case)
        if other.fold != case.fold:
            found = f"its group {case.group} is in fold {case.fold} and, with {other.id}, in fold {other.fold}"
            raise DatasetError(f"{case.id}: {found}; a group belongs to one fold", code="FOLD_INVALID", field="fold")
    check_splits(dataset)
    if not dataset.cases and not (unlabelled and all(case.images for case in dataset.incomplete)):
        require_complete(dataset)
