"""The types of this folder: a case is the files that belong together, a data set is its cases.

Nothing here opens a file.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from medfcn.datasets.problems import Problem, relative_to
from medfcn.datasets.tables import cases_by_line
from medfcn.errors import DatasetError
from medfcn.labels.label_map import LabelMap, LabelsLike
from medfcn.labels.structures import StructureFiles, choose_structures
from medfcn.labels.values import Named, Values
from medfcn.text import counted, listed

_Item = TypeVar("_Item")
MaskFile = Path | StructureFiles
"""A mask: one file, or one for each structure."""


def label_files(label: MaskFile | None) -> tuple[Path, ...]:
    """The files of a label."""
    if label is None:
        return ()
    # Several structures may be in one DICOM file.
    return tuple(dict.fromkeys(label.files.values())) if isinstance(label, StructureFiles) else (label,)


@dataclass(frozen=True)
class Case:
    """Files that belong together: images on one grid, and perhaps their label.

    Args:
        id: The file name without extension and channel, or the id in the table.
        images: One file per channel.
        label: The reference mask; None where only a prediction is wanted.
        group: Cases of one group, usually of one patient, are never split across training and validation; the id if
            no groups are known.
        fold: The fold that the data set's table prescribes.
        stacked: Number of channels in the fourth dimension of the one image file; 1 where each channel has a file.
        lacks: The image that is missing and what to do, where only a prediction is wanted; empty if none is.
        dropped: Numbers of the channels in the fourth dimension that are not used.
        labelled: Names of the labels that were drawn, where only some were; empty where all were.
    """

    id: str
    images: tuple[Path, ...]
    label: MaskFile | None
    group: str
    fold: str | None = None
    stacked: int = 1
    lacks: str = ""
    dropped: tuple[int, ...] = ()
    labelled: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, the images first."""
        return (*self.images, *label_files(self.label))


def _others(items: Sequence[_Item], places: Collection[int]) -> list[_Item]:
    """The items that are not in some places."""
    return [item for place, item in enumerate(items) if place not in places]


@dataclass(frozen=True)
class NamedLabels:
    """The labels that a `dataset.json` names.

    Args:
        names: Name of each value, without 0 and the ignored values.
        regions: Values of each label, instead of `names`, where a label has several values or a range of them.
        ignored: Values of voxels that nobody labelled.
        structures: Names of the files, instead of all others, where masks are one file for each structure.
        rare_structures: Those of which less than half of the cases have a file, which are no labels unless chosen.
        contradiction: Why the values have no names, where two tables name them differently; empty where none do.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    regions: Mapping[str, Named] = field(default_factory=dict)
    ignored: Values = ()
    structures: tuple[str, ...] = ()
    rare_structures: tuple[str, ...] = ()
    contradiction: str = ""

    def require_one_meaning(self) -> None:
        """Refuse names that contradict each other, where nobody names the labels instead.

        Raises:
            DatasetError: They do.
        """
        if self.contradiction:
            raise DatasetError(self.contradiction, code="DATASET_CONTRADICTED", field="name")

    @property
    def are_structures(self) -> bool:
        """True where masks are one file for each structure, even if no structure is in most cases."""
        return bool(self.structures or self.rare_structures)

    @property
    def label_map(self) -> LabelMap | None:
        """The labels; None where none are named.

        Raises:
            SettingsError: They contradict each other.
            DatasetError: Two tables name them differently.
        """
        self.require_one_meaning()
        if self.structures:
            return choose_structures(None, self.structures)
        if self.regions:
            return LabelMap.from_regions(self.regions, ignored=self.ignored)
        return LabelMap.from_names(self.names, ignored=self.ignored) if self.names else None


@dataclass(frozen=True)
class Splits:
    """Training and validation cases that a data set prescribes.

    Args:
        source: The file, such as `splits_final.json`.
        parts: Ids of the training and of the validation cases of each split; several splits are folds.
    """

    source: str
    parts: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]


@dataclass(frozen=True)
class Dataset:
    """The cases of a folder or table, in the order of their ids.

    Args:
        root: The folder that paths are shown relative to.
        layout: A key of `layouts.LAYOUTS`, such as `"folders"` or `"bids"`.
        cases: The complete cases; at least one.
        channel_names: One name per channel.
        incomplete: Cases that lack a file, or have one too many, with those of their files that exist.
        problems: The reasons why these are incomplete; at least one for each.
        named: The labels that the data set names.
        has_groups: True if it states which cases are of one patient.
        left_out: Complete or incomplete cases that are not used on request.
        splits: The splits that it prescribes, apart from the folds of its cases.
        columns: The columns of its table by name, each with the text for every case by id.
    """

    root: Path
    layout: str
    cases: tuple[Case, ...]
    channel_names: tuple[str, ...]
    incomplete: tuple[Case, ...] = ()
    problems: tuple[Problem, ...] = ()
    named: NamedLabels = NamedLabels()
    has_groups: bool = False
    left_out: tuple[Case, ...] = ()
    splits: Splits | None = None
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def labels(self) -> LabelMap | None:
        """The labels that the data set names; see `NamedLabels.label_map`."""
        return self.named.label_map

    def labels_of(self, given: LabelsLike | None) -> LabelMap | None:
        """The labels that a user names, by structures where masks are files of these; None where they name none.

        Raises:
            SettingsError: They contradict each other, or name a structure that no case has.
        """
        if given is None:
            return None
        if self.named.are_structures:
            return choose_structures(given, (*self.named.structures, *self.named.rare_structures))
        return LabelMap.of(given)

    @property
    def ignored(self) -> Values:
        """Values of voxels that nobody labelled, where the data set names them."""
        return self.named.ignored

    def of_volume(self, index: int | None) -> "Dataset":
        """The same with one channel of those in the fourth dimension; all of them where `index` is None."""
        stacked = max((case.stacked for case in self.cases), default=1)
        if index is None or index >= stacked or stacked == 1:
            return self

        def single(cases: tuple[Case, ...]) -> tuple[Case, ...]:
            return tuple(replace(case, stacked=1) for case in cases)

        names = (self.channel_names[index],)
        return replace(self, cases=single(self.cases), incomplete=single(self.incomplete), channel_names=names)

    def without_channels(self, places: Collection[int]) -> "Dataset":
        """The same with the other channels of its complete cases alone.

        Args:
            places: Numbers of channels, from 0.
        """

        def dropped(case: Case) -> Case:
            if case.stacked > 1:
                return replace(case, dropped=tuple(places))
            return replace(case, images=tuple(_others(case.images, places)))

        names = tuple(_others(self.channel_names, places))
        return replace(self, cases=tuple(map(dropped, self.cases)), channel_names=names) if places else self

    @property
    def fold_count(self) -> int:
        """Number of folds that the data set prescribes; 0 without."""
        if self.splits is not None and len(self.splits.parts) > 1:
            return len(self.splits.parts)
        return len({case.fold for case in self.all_cases if case.fold is not None})

    @property
    def splits_text(self) -> str:
        """The splits or folds that the data set prescribes, in words; empty without."""
        if self.splits is not None:
            return f"prescribed: {counted(len(self.splits.parts), 'split')} of {self.splits.source}"
        return f"prescribed: {counted(self.fold_count, 'fold')}" if self.fold_count else ""

    @property
    def all_cases(self) -> tuple[Case, ...]:
        """The complete and the incomplete cases, in the order of their ids."""
        return tuple(sorted((*self.cases, *self.incomplete), key=lambda case: case.id))

    def relative(self, path: Path) -> str:
        """A path as it may be written down: relative to the root, or the bare name of a file outside it."""
        return relative_to(self.root, path)

    def keep(self, ids: Collection[str]) -> "Dataset":
        """The same data set with some of its cases only, and the problems of these."""
        return replace(
            self,
            cases=tuple(case for case in self.cases if case.id in ids),
            incomplete=tuple(case for case in self.incomplete if case.id in ids),
            problems=tuple(problem for problem in self.problems if not problem.case or problem.case in ids),
        )

    def without(self, names: Collection[str]) -> "Dataset":
        """The same data set without the cases of some patients.

        Args:
            names: Ids of cases, or groups. All cases of their groups are left out, because a group is never split.

        Raises:
            DatasetError: One of them is neither, such as a misspelt test case, which would be trained on; or it is a
                group and also a case of another one.
        """
        cases = self.all_cases
        taken = cases_by_line(names, {case.id: case.group for case in cases})
        unknown = [name for name, ids in taken.items() if not ids]
        if unknown:
            raise DatasetError(
                f"{counted(len(unknown), 'case')} to leave out {'is' if len(unknown) == 1 else 'are'} neither a case "
                f"nor a patient (group) of the data set: {listed(unknown, limit=3)}; correct the ids",
                code="CASES_UNKNOWN",
                field="leave_out",
            )
        ids = set().union(*taken.values())
        groups = {case.group for case in cases if case.id in ids}
        out = tuple(case for case in cases if case.group in groups)
        kept = self.keep({case.id for case in cases} - {case.id for case in out})
        return replace(kept, left_out=(*self.left_out, *out))

    def with_groups(self, groups: Mapping[str, str]) -> "Dataset":
        """The same data set with the groups of its cases, by id; a case without one is a group of its own."""

        def grouped(cases: tuple[Case, ...]) -> tuple[Case, ...]:
            return tuple(replace(case, group=groups.get(case.id, case.id)) for case in cases)

        return replace(
            self,
            cases=grouped(self.cases),
            incomplete=grouped(self.incomplete),
            left_out=grouped(self.left_out),
            has_groups=True,
        )
