"""Cases: which files of a folder or table belong together.

A case is one or more images (channels) on one grid, perhaps a label, and the group (usually the patient) that
must not straddle a fold. Nothing here opens a volume.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from medfcn.datasets.problems import Problem
from medfcn.errors import DatasetError
from medfcn.labels.label_map import LabelMap
from medfcn.volumes.names import twin_key


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
            raise DatasetError(f"{name}: two cases have this id ({where}); {remedy}")
        raise DatasetError(
            f"{name}: two ids look alike but are spelled with different Unicode characters "
            f"({where}: "
            f"{other[0]!a} and {name!a}); rename one"
        )


def _tail(path: Path) -> str:
    return "/".join(path.parts[-2:])
