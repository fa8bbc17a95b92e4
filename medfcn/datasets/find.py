"""The door: finds the cases of a data set, and the masks of an evaluation."""

import os
from pathlib import Path

from medfcn.datasets.case_folders import masks_in
from medfcn.datasets.cases import Case, Dataset, MaskFile
from medfcn.datasets.layouts import dataset_at, exists_as_folder
from medfcn.datasets.patients import grouped_by
from medfcn.datasets.prescribed_splits import check_splits
from medfcn.datasets.tables import read_table
from medfcn.errors import DatasetError, SettingsError
from medfcn.text import listed, shown
from medfcn.volumes.names import extension_of, stem_of


def find_dataset(
    path: str | os.PathLike[str],
    *,
    groups: str | os.PathLike[str] | None = None,
    group_by: str | None = None,
    allow_outside: bool = False,
) -> Dataset:
    """The cases of a data set.

    Layouts: `images/` with `labels/`; a folder for each case with an image and one file for each structure
    (TotalSegmentator); a `dataset.json` with a training list (Medical Segmentation Decathlon, MONAI);
    nnU-Net raw (`imagesTr/`, `labelsTr/`); a CSV or TSV with columns `image` (or `image_<channel>`), `label` and
    perhaps `id`, `group`, `fold`. Hidden files are ignored.

    Args:
        path: The folder, its `dataset.json`, or the table.
        groups: A CSV with columns `id, group`, for layouts that do not name groups.
        group_by: Instead of it, groups that follow from the ids; see `patients.grouped_by`.
        allow_outside: Accept paths in a table or `dataset.json` that lead out of its folder.

    Returns:
        The cases with all their files; `problems` says what the others lack (an image, a label, a channel, a file
        that is named).

    Raises:
        MissingFileError: The data set is not there.
        DatasetError: No case is complete, two cases share an id, a path leads outside, or the layout is not known.
        SettingsError: Both `groups` and `group_by` are given, or the latter is not a regular expression.
    """
    if groups is not None and group_by is not None:
        raise SettingsError(
            "groups and group_by are given together; give one of them", code="OPTIONS_TOGETHER", field="groups"
        )
    dataset = dataset_at(Path(path), allow_outside=allow_outside)
    if groups is not None:
        dataset = _grouped(dataset, Path(groups))
    elif group_by is not None:
        dataset = grouped_by(dataset, group_by)
    _check_cases(dataset)
    return dataset


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


def find_masks(path: str | os.PathLike[str]) -> dict[str, MaskFile]:
    """Masks by case id: one file, a folder of masks (or of folders with a file for each structure), or a data set.

    Raises:
        MissingFileError: There is nothing at `path`.
        DatasetError: The folder contains no masks, or two that share an id, or a case of the data set is incomplete.
    """
    given = Path(path)
    is_folder = exists_as_folder(given)
    if is_folder:
        is_dataset = (given / "dataset.json").is_file()
    else:
        is_dataset = not extension_of(given) and given.suffix.lower() in (".csv", ".tsv", ".json")
    if is_dataset:
        cases = require_complete(find_dataset(given)).cases
        return {case.id: case.label for case in cases if case.label is not None}
    if not is_folder:
        return {stem_of(given): given}
    folder = given / "labels" if (given / "labels").is_dir() else given
    masks = masks_in(folder)
    if not masks:
        raise DatasetError(f"{folder}: no masks (.nii.gz, .nii, ...) in it; give their folder", code="FOLDER_EMPTY")
    return masks


def _grouped(dataset: Dataset, path: Path) -> Dataset:
    """The data set with the groups of a table; incomplete cases need none."""
    table = read_table(path, "id", "group")
    groups: dict[str, str] = {}
    for line, row in table.rows:
        name, group = row["id"], row["group"].strip()
        if not group or groups.setdefault(name, group) != group:
            found = f"line {line}: {name} has no group or two"
            raise DatasetError(f"{table.name}: {found}; give it one", code="GROUP_INVALID", field="group")
    missing = [case.id for case in dataset.cases if case.id not in groups]
    if missing:
        found = f"no group for {listed(missing, limit=3)}"
        raise DatasetError(f"{table.name}: {found}; add a line for each case", code="GROUP_INVALID", field="group")
    return dataset.with_groups({case.id: case.group for case in dataset.all_cases} | groups)


def _check_cases(dataset: Dataset) -> None:
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
    if not dataset.cases:
        require_complete(dataset)
