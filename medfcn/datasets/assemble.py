"""From what a layout names to cases: those that are complete, and what is missing of the others.

What one case lacks is a problem of that case and stops nothing here; whoever needs every case asks
`cases.require_complete`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medfcn.datasets.cases import Case, relative_to
from medfcn.datasets.problems import Problem


@dataclass(frozen=True)
class Draft:
    """One case as its layout names it, before anyone has looked whether its files are there.

    Args:
        id: The case's id.
        channels: Image files by the number of their channel, from 0.
        label: The reference; None where none is named.
        group: What must stay on one side of a split.
        fold: A fold that the dataset's table prescribes.
        where: The entry that names the files, such as `dataset.json: training[3]`; empty where they were
            found in folders.
    """

    id: str
    channels: Mapping[int, Path]
    label: Path | None
    group: str
    fold: str | None = None
    where: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that are named, the images first."""
        return (*self.channels.values(), *([self.label] if self.label else []))


@dataclass(frozen=True)
class Place:
    """Where a dataset lies, and how it speaks of its files.

    Args:
        root: The folder that paths are told relative to.
        images: The folder in which images were looked for; empty where entries name them.
        labels: The folder in which labels were looked for; empty where entries name them.
        channel: How a channel is called, with its number to fill in.
        columns: The columns that name images, of a table.
    """

    root: Path
    images: str = ""
    labels: str = ""
    channel: str = "channel _{:04d}"
    columns: tuple[str, ...] = ()

    def channel_called(self, number: int) -> str:
        """A channel as the dataset calls it."""
        return self.columns[number] if number < len(self.columns) else self.channel.format(number)


@dataclass(frozen=True)
class Paired:
    """The cases of a dataset.

    Args:
        cases: The complete ones, in the order of their ids.
        incomplete: The others, with those of their files that are there.
        problems: What the others lack; at least one for each of them.
    """

    cases: tuple[Case, ...]
    incomplete: tuple[Case, ...]
    problems: tuple[Problem, ...]


def usual_channel_count(drafts: Sequence[Draft], *, named: int) -> int:
    """How many channels a case should have: as many as are named if any case has as many, else as most have.

    Example:
        >>> drafts = [Draft("a", {0: Path("a")}, None, "a"), Draft("b", {0: Path("b"), 1: Path("c")}, None, "b")]
        >>> usual_channel_count(drafts, named=1), usual_channel_count(drafts, named=0)
        (1, 2)
    """
    counts = Counter(max(draft.channels) + 1 for draft in drafts if draft.channels)
    if named in counts or not counts:
        return max(named, 1)
    most = max(counts.values())
    return max(count for count, cases in counts.items() if cases == most)


def pair(place: Place, drafts: Sequence[Draft], *, channel_count: int) -> Paired:
    """Tell the complete cases from the others, and say what each of those lacks.

    Args:
        place: For the words of the problems.
        drafts: Every case, with ids that are unique.
        channel_count: How many channels a case should have.
    """
    cases: list[Case] = []
    incomplete: list[Case] = []
    problems: list[Problem] = []
    for draft in sorted(drafts, key=lambda draft: draft.id):
        absent = [file for file in draft.files if draft.where and not is_there(file)]
        found = [*_absent_parts(place, draft, channel_count), *(_absent_file(place, draft, file) for file in absent)]
        images = tuple(draft.channels[number] for number in sorted(draft.channels))
        if found:
            images = tuple(file for file in images if file not in absent)
            label = None if draft.label in absent else draft.label
            incomplete.append(Case(draft.id, images, label, draft.group, draft.fold))
            problems += found
        else:
            cases.append(Case(draft.id, images, draft.label, draft.group, draft.fold))
    return Paired(tuple(cases), tuple(incomplete), tuple(problems))


def _absent_parts(place: Place, draft: Draft, channel_count: int) -> list[Problem]:
    """What the layout does not name."""
    problems = []
    if draft.label is None:
        found, remedy = f"no label is named in {draft.where}", "name it, or take the entry out"
        if not draft.where:
            found = f"no label of that name in {place.labels}/"
            remedy = f"add {place.labels}/{draft.id}.nii.gz, or take the image out"
        problems.append(_error(place, draft, "LABEL_MISSING", "label", found, remedy))
    if not draft.channels:
        found, remedy = f"no image is named in {draft.where}", "name it, or take the entry out"
        if not draft.where:
            found = f"no image of that name in {place.images}/"
            remedy = f"add {place.images}/{draft.id}.nii.gz, or take the label out"
        problems.append(_error(place, draft, "IMAGE_MISSING", "image", found, remedy))
        return problems
    lacking = [number for number in range(channel_count) if number not in draft.channels]
    if lacking:
        called = place.channel_called(lacking[0])
        more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        found = f"{called} is missing{more}; {channel_count} channels are expected of every case"
        problems.append(_error(place, draft, "CHANNEL_MISSING", called, found, "add the file, or take the case out"))
    for number in sorted(draft.channels):
        if number >= channel_count:
            called = place.channel_called(number)
            found = f"{called} is one more than the {channel_count} of other cases"
            remedy = "take it out, or add that channel to every case"
            file = draft.channels[number]
            problems.append(_error(place, draft, "CHANNEL_UNEXPECTED", called, found, remedy, file))
    return problems


def _absent_file(place: Place, draft: Draft, file: Path) -> Problem:
    field = "label" if file == draft.label else "image"
    found = f"named in {draft.where} but not there"
    return _error(place, draft, "FILE_MISSING", field, found, "restore the file, or take the entry out", file)


def _error(
    place: Place, draft: Draft, code: str, field: str, found: str, remedy: str, file: Path | None = None
) -> Problem:
    """A problem of a case, told with a file of it where no other is given."""
    of = file or next(iter(draft.files), None)
    return Problem(code, "error", draft.id, relative_to(place.root, of) if of else "", field, found, remedy)


def is_there(path: Path) -> bool:
    """Whether there is anything at a path, whatever it is."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
