"""From the files that a layout names to a data set: complete cases, and what the others lack.

What one case lacks is a problem of that case and stops nothing here; a caller that needs every case uses
`find.require_complete`.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medfcn.datasets.cases import Case, Dataset, MaskFile, NamedLabels, label_files
from medfcn.datasets.problems import CaseProblems, Problem
from medfcn.datasets.unique import check_unique
from medfcn.errors import DatasetError
from medfcn.labels.structures import StructureFiles
from medfcn.volumes.names import twin_key
from medfcn.volumes.reading import volume_count
from medfcn.volumes.refused import RefusedFile


@dataclass(frozen=True)
class Draft:
    """One case as its layout names it, before anyone has looked whether its files exist.

    Args:
        id: The case's id.
        channels: Image files by channel number, from 0.
        label: The reference mask; None where none is named.
        group: As in `Case`; empty for the id.
        fold: As in `Case`.
        where: The entry that names the files, such as `dataset.json: training[3]`; empty where they were found in
            folders.
        refused: Files of the case that cannot be used, such as two of one name, with `image` or `label` for each.
        labelled: As in `Case`.
    """

    id: str
    channels: Mapping[int, Path]
    label: MaskFile | None
    group: str = ""
    fold: str | None = None
    where: str = ""
    refused: tuple[tuple[str, RefusedFile], ...] = ()
    labelled: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that are named, the images first."""
        return (*self.channels.values(), *label_files(self.label))

    @property
    def first(self) -> Path:
        """Any file of the case, for messages."""
        return next(iter((*self.files, *(file.path for _, file in self.refused))))

    def without(self, absent: Sequence[Path]) -> Case:
        """The case, without some of its files."""
        images = tuple(file for _, file in sorted(self.channels.items()) if file not in absent)
        label = None if absent and set(label_files(self.label)) <= set(absent) else self.label
        if isinstance(label, StructureFiles) and images:
            label = label.on_grid_of(images[0])
        return Case(self.id, images, label, self.group or self.id, self.fold, labelled=self.labelled)


@dataclass(frozen=True)
class Place:
    """A data set's folder, and how messages name what is in it.

    Args:
        root: The folder that paths are shown relative to.
        layout: As in `Dataset`.
        images: Name of the folder of the images; empty where entries name the files.
        labels: Name of the folder of the labels, likewise.
        channel: The name of a channel, from its number.
        rename: How a user gives two cases of one id ids of their own.
    """

    root: Path
    layout: str
    images: str = ""
    labels: str = ""
    channel: Callable[[int], str] = "channel _{:04d}".format
    rename: str = "rename one"


def usual_channel_count(drafts: Sequence[Draft], *, named: int) -> int:
    """Number of channels that a case should have.

    It is the number that are named if any case has as many, else that of most cases.

    Example:
        >>> drafts = [Draft("a", {0: Path("a")}, None), Draft("b", {0: Path("b"), 1: Path("c")}, None)]
        >>> usual_channel_count(drafts, named=1), usual_channel_count(drafts, named=0)
        (1, 2)
    """
    counts = Counter(max(draft.channels) + 1 for draft in drafts if draft.channels)
    if named in counts or not counts:
        return max(named, 1)
    return max(counts, key=lambda count: (counts[count], count))


def assemble(place: Place, drafts: Sequence[Draft], channel_names: tuple[str, ...], named: NamedLabels) -> Dataset:
    """Separate the complete cases from the others, and say what each of those lacks.

    Args:
        place: The data set's folder and words.
        drafts: Every case.
        channel_names: One name for each channel that a case should have.
        named: The labels that the data set names.

    Raises:
        DatasetError: Two cases have one id.
    """
    ids = [(draft.id, draft.first) for draft in drafts]
    check_unique([one for one, draft in zip(ids, drafts, strict=True) if draft.where], remedy=place.rename)
    alike: defaultdict[str, list[tuple[str, Path]]] = defaultdict(list)
    for one in ids:
        alike[twin_key(one[0])].append(one)
    cases: list[Case] = []
    incomplete: list[Case] = []
    problems: list[Problem] = []
    for draft in sorted(drafts, key=lambda draft: draft.id):
        absent = [file for file in draft.files if draft.where and not is_there(file)]
        found = _twins_of(place, draft, alike[twin_key(draft.id)])
        found = found or _problems_of(place, draft, len(channel_names), absent)
        (incomplete if found else cases).append(draft.without(absent))
        problems += found
    return Dataset(
        place.root,
        place.layout,
        tuple(cases),
        channel_names,
        tuple(incomplete),
        tuple(problems),
        named,
        has_groups=any(draft.group for draft in drafts),
    )


def stacked_channels(dataset: Dataset, names: tuple[str, ...]) -> Dataset:
    """The data set with its channels in the fourth dimension of one file a case, if it is stored so.

    Task01 and Task05 of the Decathlon are: several channels are named, each case has one image file, and the first
    file contains as many volumes.

    Args:
        dataset: As its files are listed.
        names: The channels that `dataset.json` names.
    """
    one_file = len(names) > 1 and dataset.cases and len(dataset.channel_names) == 1
    if not one_file or volume_count(dataset.cases[0].images[0]) != len(names):
        return dataset
    cases, incomplete = (
        tuple(replace(case, stacked=len(names)) for case in group) for group in (dataset.cases, dataset.incomplete)
    )
    return replace(dataset, cases=cases, incomplete=incomplete, channel_names=names)


def _twins_of(place: Place, draft: Draft, alike: Sequence[tuple[str, Path]]) -> list[Problem]:
    """The problem of a case whose id looks like that of another one; none where an entry names it."""
    others = [one for one in alike if one[0] != draft.id]
    problems = CaseProblems(draft.id, place.root)
    if others and not draft.where:
        try:
            check_unique([*others[:1], (draft.id, draft.first)], remedy=place.rename)
        except DatasetError as error:
            problems.refuse(error, draft.first, "image")
    return problems.found


def _problems_of(place: Place, draft: Draft, channel_count: int, absent: Sequence[Path]) -> list[Problem]:
    """Everything that a case lacks, or has too many of."""
    problems, first = CaseProblems(draft.id, place.root), draft.first
    for role, refused in draft.refused:
        problems.refuse(refused.error, refused.path, role)
    roles = {role for role, _ in draft.refused}
    for kind, other, folder, files in (
        ("label", "image", place.labels, draft.label),
        ("image", "label", place.images, draft.channels),
    ):
        found, remedy = f"no {kind} is named in {draft.where}", "name it, or take the entry out"
        if not draft.where and not folder:
            found = f"no {kind} in {draft.id}/"
            remedy = f"add {'ct.nii.gz' if kind == 'image' else 'segmentations/<structure>.nii.gz'}, or take it out"
        elif not draft.where:
            found = f"no {kind} of that name in {folder}/"
            remedy = f"add {folder}/{draft.id}.nii.gz, or take the {other} out"
        if not files and kind not in roles:
            problems.error(f"{kind.upper()}_MISSING", first, kind, found, remedy)
    missing = [number for number in range(channel_count) if number not in draft.channels]
    if missing and draft.channels and "image" not in roles:
        name = place.channel(missing[0])
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        found = f"{name} is missing{more}; {channel_count} channels are expected of every case"
        problems.error("CHANNEL_MISSING", first, name, found, "add the file, or take the case out")
    for number in sorted(number for number in draft.channels if number >= channel_count):
        name = place.channel(number)
        found = f"{name} is one more than the {channel_count} of other cases"
        remedy = "take it out, or add that channel to every case"
        problems.error("CHANNEL_UNEXPECTED", draft.channels[number], name, found, remedy)
    for file in absent:
        field = "label" if file in label_files(draft.label) else "image"
        found = f"named in {draft.where} but does not exist"
        problems.error("FILE_MISSING", file, field, found, "restore the file, or take the entry out")
    return problems.found


def is_there(path: Path) -> bool:
    """True if anything exists at a path."""
    try:
        return os.path.lexists(path)  # a link that leads nowhere says why when it is read
    except (OSError, ValueError):
        return False
