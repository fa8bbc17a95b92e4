"""Finds the cases of a data set, the inputs of a prediction, and the masks of an evaluation."""

import os
from dataclasses import replace
from pathlib import Path

from medfcn.datasets.cases import Case, Dataset
from medfcn.datasets.tables import first_few, read_table
from medfcn.errors import DatasetError, MissingFileError
from medfcn.text import shown
from medfcn.volumes.names import case_id_of, extension_of, stem_of

_TOLD = 3
"""Incomplete cases spelled out in one error message."""


def find_dataset(
    path: str | os.PathLike[str], *, groups: str | os.PathLike[str] | None = None, allow_outside: bool = False
) -> Dataset:
    """The cases of a dataset, as it lies.

    Layouts: `images/` with `labels/`; a Medical Segmentation Decathlon `dataset.json`; nnU-Net raw
    (`imagesTr/`, `labelsTr/`); a CSV or TSV with columns `image` (or `image_<channel>`), `label` and perhaps
    `id`, `group`, `fold`. Hidden files are ignored.

    Args:
        path: The folder, its `dataset.json`, or the table.
        groups: A CSV with columns `id, group`, for layouts that do not tell groups.
        allow_outside: Accept paths in a table or `dataset.json` that lead out of its folder.

    Returns:
        The cases with all their files; what others lack (an image, a label, a channel, a file that is named) is
        in `problems`.

    Raises:
        MissingFileError: The dataset is not there.
        DatasetError: No case is complete, two cases share an id, a path leads outside, or the layout is not known.
    """
    from medfcn.datasets import layouts

    dataset = layouts.dataset_at(Path(path), allow_outside=allow_outside)
    if groups is not None:
        dataset = _grouped(dataset, Path(groups))
    _check_cases(dataset)
    return dataset


def require_complete(dataset: Dataset) -> Dataset:
    """The dataset, where every case has all its files.

    Raises:
        DatasetError: A case has not; the line counts them and names the first few.
    """
    if dataset.incomplete:
        raise DatasetError(_incomplete_text(dataset))
    return dataset


def _incomplete_text(dataset: Dataset) -> str:
    """How many cases are incomplete, and what the first of them lack."""
    lines = {problem.case: f"{problem.case}: {problem.found}" for problem in reversed(dataset.problems)}
    first = "; ".join(lines[case.id] for case in dataset.incomplete[:_TOLD])
    more = f"; and {len(dataset.incomplete) - _TOLD} more" if len(dataset.incomplete) > _TOLD else ""
    count = f"{len(dataset.incomplete)} of {len(dataset.all_cases)} cases are not complete"
    return f"{shown(dataset.root)}: {count}: {first}{more}; add what is missing, or take those cases out"


def find_inputs(path: str | os.PathLike[str]) -> tuple[Case, ...]:
    """The cases to predict: one file, a folder of volumes, or a folder with `images/`.

    Files `<case>_0000`, `<case>_0001` … are channels of one case where there is a `_0000`.

    Raises:
        MissingFileError: There is nothing at `path`.
        DatasetError: The folder holds no volumes, or two that share an id.
    """
    from medfcn.datasets import layouts

    given = Path(path)
    if not _is_folder(given):
        name, channel = case_id_of(given)
        return (Case(name if channel == 0 else stem_of(given), (given,), None, name),)
    folder = given / "images" if (given / "images").is_dir() else given
    channels = layouts.inputs_in(folder)
    if not channels:
        raise DatasetError(f"{folder}: no volumes (.nii.gz, .nii, ...) in it; give their folder")
    return tuple(Case(name, images, None, name) for name, images in sorted(channels.items()))


def find_masks(path: str | os.PathLike[str]) -> dict[str, Path]:
    """Masks by case id: one file, a folder of masks, or a dataset (its labels).

    Raises:
        MissingFileError: There is nothing at `path`.
        DatasetError: The folder holds no masks, or two that share an id, or a case of the dataset is incomplete.
    """
    from medfcn.datasets import layouts

    given = Path(path)
    if not _is_folder(given):
        if extension_of(given) or given.suffix.lower() not in (".csv", ".tsv", ".json"):
            return {stem_of(given): given}
        return _labels_of(given)
    if (given / "dataset.json").is_file():
        return _labels_of(given)
    folder = given / "labels" if (given / "labels").is_dir() else given
    masks = layouts.volumes_in(folder)
    if not masks:
        raise DatasetError(f"{folder}: no masks (.nii.gz, .nii, ...) in it; give their folder")
    return masks


def _labels_of(dataset: Path) -> dict[str, Path]:
    """The labels of a dataset whose cases are all complete."""
    cases = require_complete(find_dataset(dataset)).cases
    return {case.id: case.label for case in cases if case.label is not None}


def _is_folder(path: Path) -> bool:
    """Whether `path` is a folder; it must be something."""
    try:
        if not path.exists() and not path.is_symlink():
            raise MissingFileError(f"{path}: no such file or folder; check the path")
        return path.is_dir()
    except (OSError, ValueError) as error:
        if isinstance(error, MissingFileError):
            raise
        raise MissingFileError(f"{path}: not a path that can be opened; check it") from error


def _grouped(dataset: Dataset, path: Path) -> Dataset:
    """The dataset with the groups of a table; incomplete cases need none."""
    table = read_table(path)
    if not {"id", "group"} <= set(table.columns):
        raise DatasetError(f"{table.name}: columns {first_few(table.columns)}; expected id and group")
    groups: dict[str, str] = {}
    for line, row in table.rows:
        name, group = row["id"], row["group"].strip()
        if not group or groups.setdefault(name, group) != group:
            raise DatasetError(f"{table.name}: line {line}: {name} has no group or two; give it one")
    missing = [case.id for case in dataset.cases if case.id not in groups]
    if missing:
        raise DatasetError(f"{table.name}: no group for {first_few(missing)}; add a line for each case")
    return replace(
        dataset,
        cases=tuple(replace(case, group=groups[case.id]) for case in dataset.cases),
        incomplete=tuple(replace(case, group=groups.get(case.id, case.group)) for case in dataset.incomplete),
    )


def _check_cases(dataset: Dataset) -> None:
    """What must hold for every layout, or its cases cannot be told apart."""
    owners: dict[Path, str] = {}
    for case in dataset.all_cases:
        for file in (*case.images, *([case.label] if case.label else [])):
            if owners.setdefault(file, case.id) != case.id or (*case.images, case.label).count(file) > 1:
                raise DatasetError(f"{shown(file)}: is named more than once ({case.id}); mend the entries")
    folds: dict[str, Case] = {}
    for case in dataset.all_cases:
        other = folds.setdefault(case.group, case)
        if other.fold != case.fold:
            raise DatasetError(
                f"{case.id}: its group {case.group} is in fold "
                f"{case.fold} and, "
                f"with {other.id}, in fold {other.fold}; a group belongs to one "
                "fold"
            )
    if not dataset.cases:
        raise DatasetError(_incomplete_text(dataset))
