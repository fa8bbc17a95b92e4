"""The result of `check`, as facts and as text."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

from medfcn.datasets.problems import Problem
from medfcn.labels.sparse_labels import is_partly_labelled
from medfcn.labels.values import Values
from medfcn.text import COLUMNS, NO_BREAK, Shown, aligned, counted, listed, page
from medfcn.volumes.geometry import Shape, Spacing

_HEADS = ("case", "shape", "spacing mm", "axes", "intensities", "labels: voxels (ml)")
_SPACING, _AXES, _INTENSITIES = 2, 3, 4
_LABELS_WIDTH = 24
"""Characters that the labels of a case have at least, beside its other figures."""
_MOST_SHOWN = 20
"""Cases of a table for people; of more, those with a problem come first."""


@dataclass(frozen=True)
class ImageFacts:
    """Facts of one image."""

    file: str
    shape: Shape
    spacing_mm: Spacing
    orientation: str
    voxel_type: str
    lowest: float
    highest: float
    sha256: str
    voxels_sha256: str
    notes: tuple[str, ...]

    @property
    def is_constant(self) -> bool:
        """True if every voxel has the same value."""
        return self.lowest == self.highest


@dataclass(frozen=True)
class LabelFacts:
    """Facts of one label.

    Attributes:
        voxels: Number of voxels of each value, without 0 and the ignored values.
        ml: Their volumes in millilitres.
        displacement_voxels: Distance of its corners from the image's; None where they cannot be compared.
        ignored_voxels: Number of voxels that nobody labelled, which are neither trained on nor scored.
    """

    file: str
    voxels: dict[int, int]
    ml: dict[int, float]
    displacement_voxels: float | None
    sha256: str
    notes: tuple[str, ...]
    ignored_voxels: int = 0


@dataclass(frozen=True)
class CaseFacts:
    """Facts of one case; an image or label that does not exist or could not be read is absent."""

    id: str
    group: str
    fold: str | None
    images: tuple[ImageFacts, ...]
    label: LabelFacts | None


@dataclass(frozen=True)
class CheckReport(Shown):
    """Every case of a data set, and every problem.

    Args:
        layout: As in `Dataset`.
        channel_names: One name per channel.
        label_names: The names of the labels, in order.
        cases: In the order of the data set.
        problems: Errors first.
        ignored: The label values of voxels that nobody labelled.
        unstated_patients: The ids that seem to be of one patient, by what they share, where no groups are stated.
        splits: The splits or folds that the data set prescribes; empty without.
        value_names: The names of the values, where masks are one file for each structure.
        dropped: The numbers, from 0, of the channels that are left out, because each case has one value there.
        states_groups: False if nothing states which cases are of one patient; each is then a group of its own.
    """

    layout: str
    channel_names: tuple[str, ...]
    label_names: tuple[str, ...]
    cases: tuple[CaseFacts, ...]
    problems: tuple[Problem, ...]
    ignored: Values = ()
    unstated_patients: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    splits: str = ""
    value_names: Mapping[int, str] = field(default_factory=dict)
    dropped: tuple[int, ...] = ()
    states_groups: bool = True

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that stop training."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems that do not."""
        return tuple(problem for problem in self.problems if problem.severity == "warning")

    @property
    def bad_cases(self) -> frozenset[str]:
        """Ids of the cases with an error, which `--skip-bad` leaves out."""
        return frozenset(problem.case for problem in self.errors if problem.case)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON can hold it; no header text and no path above the data set's root."""
        return asdict(self) | {"errors": len(self.errors), "warnings": len(self.warnings)}

    def _shown_cases(self) -> list[CaseFacts]:
        """The cases of the table: all of a few, else as many as are shown, those with a problem before others."""
        if len(self.cases) <= _MOST_SHOWN:
            return list(self.cases)
        rank = {problem.case: 1 for problem in self.warnings} | dict.fromkeys(self.bad_cases, 0)
        return sorted(self.cases, key=lambda case: rank.get(case.id, 2))[:_MOST_SHOWN]

    def to_text(self) -> str:
        """For people: a table of the cases (of many, the first with a problem), a summary, and the problems."""
        rows = [_row(case, self.value_names) for case in self.cases]
        alike = _alike(rows)
        shown = [self.cases.index(case) for case in self._shown_cases()]
        hidden = len(self.cases) - len(shown)
        groups = f"in {counted(len({case.group for case in self.cases}), 'group')}"
        stated = f" {groups}" if self.states_groups else ", no groups stated"
        axes = Counter(image.orientation for case in self.cases for image in case.images[:1])
        partly = sum(map(_is_partly_labelled, self.cases))
        names = listed(self.label_names, limit=30) or "as found"
        if self.ignored:
            names += f" (ignored: {listed(self.ignored)})"
        lines = [
            *_table([rows[place] for place in shown], [place for place in range(len(_HEADS)) if place not in alike]),
            *([f"and {counted(hidden, 'more case')}; --json prints all"] if hidden else []),
            "",
            f"layout {self.layout}: {counted(len(self.cases), 'case')}{stated}; "
            f"channels: {listed(self.channel_names)}; labels: {names}" + (f"; {self.splits}" if self.splits else ""),
            "axes: " + ", ".join(f"{letters} {count}" for letters, count in axes.most_common()),
            *([f"spacing of all: {alike[_SPACING]} mm"] if _SPACING in alike else []),
            *([f"intensities of all: {alike[_INTENSITIES]}"] if _INTENSITIES in alike else []),
            *([f"less than half is labelled in {partly} of {counted(len(self.cases), 'case')}"] if partly else []),
            "",
            *(problem.line for problem in self.problems),
            f"{counted(len(self.errors), 'error')}, {counted(len(self.warnings), 'warning')}",
        ]
        return page(lines) + "\n"


def _alike(rows: Sequence[Sequence[str]]) -> dict[int, str]:
    """The columns of a table of several cases that would say the same of each, and that text."""
    if len(rows) < 2:
        return {}
    texts = {place: {row[place] for row in rows if row[place]} for place in (_SPACING, _AXES, _INTENSITIES)}
    return {place: found.pop() for place, found in texts.items() if len(found) == 1}


def _table(rows: Sequence[Sequence[str]], places: Sequence[int]) -> list[str]:
    """Some columns of the table of cases; the labels in a table of their own where ids or figures would be cut."""
    fields = [[row[place] for place in places] for row in (_HEADS, *rows)]
    *widths, labels = (max(map(len, column)) for column in zip(*fields, strict=True))
    if sum(widths) + 2 * len(widths) + min(labels, _LABELS_WIDTH) <= COLUMNS:
        return aligned(fields, prose=[len(widths)])
    first, last = [row[:-1] for row in fields], [(row[0], row[-1]) for row in fields]
    return [*aligned(first), "", *aligned(last, prose=[1])]


def _plain(value: float) -> str:
    """A value of a voxel in three digits, or whole; without an exponent where it is below a thousand million.

    Example:
        >>> [_plain(value) for value in (-1000.0, 1234.5, 0.51234, 1e-05, 2.5e12)]
        ['-1000', '1234', '0.512', '0.00001', '2.5e+12']
    """
    if 1000 <= abs(value) < 1e9:
        return f"{value:.0f}"
    short = f"{value:.3g}"
    return short if abs(value) >= 1e9 or "e" not in short else f"{Decimal(short):f}"


def _is_partly_labelled(case: CaseFacts) -> bool:
    """True if less than half of a case is labelled."""
    voxels = math.prod(case.images[0].shape) if case.images else 0
    ignored = 0 if case.label is None else case.label.ignored_voxels
    return is_partly_labelled(voxels - ignored, voxels)


def _row(case: CaseFacts, names: Mapping[int, str]) -> tuple[str, str, str, str, str, str]:
    values = "not read"
    if case.label is not None:
        is_partly, ignored = _is_partly_labelled(case), case.label.ignored_voxels
        counts = [
            f"{names.get(value, value)}: {count}" + ("" if is_partly else f" ({case.label.ml[value]:.3g})")
            for value, count in case.label.voxels.items()
        ]
        if ignored:
            counts.append(f"ignored: {ignored}")
        values = ", ".join(count.replace(" ", NO_BREAK) for count in counts) or "empty"
    if not case.images:
        return case.id, "not read", "", "", "", values
    image = case.images[0]
    return (
        case.id,
        "×".join(str(size) for size in image.shape),
        "×".join(f"{edge:.3g}" for edge in image.spacing_mm),
        image.orientation,
        "; ".join(f"{_plain(channel.lowest)} to {_plain(channel.highest)}" for channel in case.images),
        values,
    )
