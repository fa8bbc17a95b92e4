"""Cases: which files of a folder or table belong together.

A case is one or more images (channels) on one grid, perhaps a label, and the group (usually the patient) that
must not straddle a fold. Nothing here opens a volume.
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from medfcn.errors import DatasetError, MissingFileError
from medfcn.volumes.labels import LabelMap
from medfcn.volumes.names import case_id_of, extension_of, printable, shown, stem_of, twin_key
from medfcn.volumes.problems import Problem
from medfcn.volumes.tables import first_few, read_table

_TOLD = 3
"""Incomplete cases spelled out in one error message."""


@dataclass(frozen=True)
class Case:
    """Files that belong together.

    Args:
        id: The file name without extension and channel, or what the table says.
        images: One file per channel.
        label: The reference; None where only a prediction is wanted.
        group: What must stay on one side of a split, usually the patient; the id if nothing else is known.
        fold: A fold that the dataset's table prescribes.
    """

    id: str
    images: tuple[Path, ...]
    label: Path | None
    group: str
    fold: str | None = None


@dataclass(frozen=True)
class Dataset:
    """The cases of a folder or table, in the order of their ids.

    Args:
        root: The folder that paths are told relative to.
        layout: `"folders"`, `"decathlon"`, `"nnunet"` or `"table"`.
        cases: Those with all their files; at least one.
        channel_names: One name per channel.
        label_names: Names of label values, where the dataset gives them; without 0 and what is ignored.
        incomplete: Cases that lack a file, or have one too many, with those of their files that are there.
        problems: What these cases lack; `require_complete` stops on them.
        ignored: The label values of voxels that nobody labelled, where the dataset names them.
        label_regions: Values of labels by name, in place of `label_names`, where the dataset gives a label several.
    """

    root: Path
    layout: str
    cases: tuple[Case, ...]
    channel_names: tuple[str, ...]
    label_names: dict[int, str]
    incomplete: tuple[Case, ...] = ()
    problems: tuple[Problem, ...] = ()
    ignored: tuple[int, ...] = ()
    label_regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def labels(self) -> LabelMap | None:
        """The labels that the dataset names; None where it names none.

        Raises:
            SettingsError: Its regions cannot be labels together.
        """
        if self.label_regions:
            return LabelMap.from_regions(self.label_regions, ignored=self.ignored)
        return LabelMap.from_names(self.label_names, ignored=self.ignored) if self.label_names else None

    @property
    def all_cases(self) -> tuple[Case, ...]:
        """The complete and the incomplete cases, in the order of their ids."""
        return tuple(sorted((*self.cases, *self.incomplete), key=lambda case: case.id))

    def relative(self, path: Path) -> str:
        """A path as it may be written down: relative to the root, or the bare name of a file outside it."""
        return relative_to(self.root, path)

    def keep(self, ids: Collection[str]) -> "Dataset":
        """The same dataset with some of its cases only, and the problems of these."""
        return replace(
            self,
            cases=tuple(case for case in self.cases if case.id in ids),
            incomplete=tuple(case for case in self.incomplete if case.id in ids),
            problems=tuple(problem for problem in self.problems if problem.case in ids),
        )


def relative_to(root: Path, path: Path) -> str:
    """A path as it may be written down: relative to a root, or the bare name of a file outside it."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.name


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
    from medfcn.volumes import layouts

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
    lines = {problem.case: f"{printable(problem.case)}: {problem.found}" for problem in reversed(dataset.problems)}
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
    from medfcn.volumes import layouts

    given = Path(path)
    if not _is_folder(given):
        name, channel = case_id_of(given)
        return (Case(name if channel == 0 else stem_of(given), (given,), None, name),)
    folder = given / "images" if (given / "images").is_dir() else given
    channels = layouts.inputs_in(folder)
    if not channels:
        raise DatasetError(f"{printable(str(folder))}: no volumes (.nii.gz, .nii, ...) in it; give their folder")
    return tuple(Case(name, images, None, name) for name, images in sorted(channels.items()))


def find_masks(path: str | os.PathLike[str]) -> dict[str, Path]:
    """Masks by case id: one file, a folder of masks, or a dataset (its labels).

    Raises:
        MissingFileError: There is nothing at `path`.
        DatasetError: The folder holds no masks, or two that share an id, or a case of the dataset is incomplete.
    """
    from medfcn.volumes import layouts

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
        raise DatasetError(f"{printable(str(folder))}: no masks (.nii.gz, .nii, ...) in it; give their folder")
    return masks


def _labels_of(dataset: Path) -> dict[str, Path]:
    """The labels of a dataset whose cases are all complete."""
    cases = require_complete(find_dataset(dataset)).cases
    return {case.id: case.label for case in cases if case.label is not None}


def _is_folder(path: Path) -> bool:
    """Whether `path` is a folder; it must be something."""
    try:
        if not path.exists() and not path.is_symlink():
            raise MissingFileError(f"{printable(str(path))}: no such file or folder; check the path")
        return path.is_dir()
    except (OSError, ValueError) as error:
        if isinstance(error, MissingFileError):
            raise
        raise MissingFileError(f"{printable(str(path))}: not a path that can be opened; check it") from error


def check_unique(ids: list[tuple[str, Path]], *, remedy: str) -> None:
    """Refuse ids that are equal, or equal to the eye.

    Raises:
        DatasetError: Naming both files.
    """
    seen: dict[str, tuple[str, Path]] = {}
    for name, path in ids:
        other = seen.get(twin_key(name))
        if other is None:
            seen[twin_key(name)] = name, path
            continue
        where = f"{_tail(other[1])} and {_tail(path)}"
        if other[0] == name:
            raise DatasetError(f"{printable(name)}: two cases have this id ({where}); {remedy}")
        raise DatasetError(
            f"{printable(name)}: two ids look alike but are spelled with different Unicode characters "
            f"({where}: "
            f"{other[0]!a} and {name!a}); rename one"
        )


def _tail(path: Path) -> str:
    return printable("/".join(path.parts[-2:]), limit=80)


def _grouped(dataset: Dataset, path: Path) -> Dataset:
    """The dataset with the groups of a table; incomplete cases need none."""
    table = read_table(path)
    if not {"id", "group"} <= set(table.columns):
        raise DatasetError(f"{table.name}: columns {first_few(table.columns)}; expected id and group")
    groups: dict[str, str] = {}
    for line, row in table.rows:
        name, group = row["id"], row["group"].strip()
        if not group or groups.setdefault(name, group) != group:
            raise DatasetError(f"{table.name}: line {line}: {printable(name)} has no group or two; give it one")
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
                raise DatasetError(f"{shown(file)}: is named more than once ({printable(case.id)}); mend the entries")
    folds: dict[str, Case] = {}
    for case in dataset.all_cases:
        other = folds.setdefault(case.group, case)
        if other.fold != case.fold:
            raise DatasetError(
                f"{printable(case.id)}: its group {printable(case.group)} is in fold "
                f"{printable(str(case.fold))} and, "
                f"with {printable(other.id)}, in fold {printable(str(other.fold))}; a group belongs to one "
                "fold"
            )
    if not dataset.cases:
        raise DatasetError(_incomplete_text(dataset))
