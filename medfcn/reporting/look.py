"""`look.html`: a data set before training, the cases that look unlike the others first.

Each file is read twice: once for the figures of all cases, once for the pictures, so that one case is in memory.
"""

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.calls import called_with
from medfcn.datasets import Dataset, find_dataset
from medfcn.datasets.cases import Case
from medfcn.datasets.check import check_cases
from medfcn.datasets.check_report import CheckReport
from medfcn.datasets.find import in_groups
from medfcn.datasets.tables import Ids, chosen_ids
from medfcn.errors import DatasetError
from medfcn.files import refuse_existing_file
from medfcn.labels import LabelMap
from medfcn.labels.label_map import LabelsLike
from medfcn.labels.values import ValueSet
from medfcn.labels.whole_numbers import label_counts
from medfcn.progress import Progress, reporting
from medfcn.reporting.charts import Mark, strip_chart
from medfcn.reporting.histograms import count_chart, intensity_chart, quantiles_of
from medfcn.reporting.html import About, drawn_labels, write_prediction_report
from medfcn.reporting.looked_masks import masks_as_dataset
from medfcn.reporting.sections import PredictedCase
from medfcn.reporting.shown_cases import DatasetCases, Images
from medfcn.reporting.slides import FULLEST, SlideStyle, slide_path, write_slides
from medfcn.slices.appearance import AXES, Appearance, appearance_of
from medfcn.slices.likeness import FEWEST, Shape, cube_of, far_from_others, label_cubes_of, turned
from medfcn.text import counted, listed
from medfcn.volumes import ReadOptions, Volume
from medfcn.volumes.options import DEFAULT_OPTIONS

_GRID = {"spacing": "voxel edge", "field": "field of view"}
_LEVELS = {"level_50": "median intensity", "level_95": "95th percentile of intensity"}
_MOST = 0.9
"""Share of the cases that are stored in one order, from which another order is unusual."""
_ALONG = {"R": "right-left", "A": "front-back", "S": "head-feet"}


@dataclass(frozen=True)
class _Figure:
    """One figure of each case: its name, its unit, and the values by case id, `nan` where there is none."""

    name: str
    unit: str
    values: Mapping[str, float]

    @property
    def title(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def far(self) -> list[str]:
        """The cases whose value is far from all others; volumes are compared as factors."""
        numbers = list(self.values.values())
        if self.unit == "ml":
            numbers = [math.log(value) if value > 0 else math.nan for value in numbers]
        return [case for case, is_far in zip(self.values, far_from_others(numbers), strict=True) if is_far]

    def shown(self, case: str) -> str:
        return f"{self.name} {_plain(self.values[case])}{f' {self.unit}' if self.unit else ''}"


def _plain(value: float) -> str:
    """Four digits, without an exponent where a reader can do without.

    Example:
        >>> _plain(183123.0), _plain(0.25), _plain(3e12)
        ('183100', '0.25', '3e+12')
    """
    text = f"{value:.4g}"
    return f"{float(text):.0f}" if "e+0" in text and abs(value) < 1e9 else text


@dataclass
class _Found:
    """The findings of one pass over the cases, by case id."""

    ignored: ValueSet = field(default_factory=lambda: ValueSet(()))
    looks: dict[str, Appearance] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    values: dict[str, dict[int, int]] = field(default_factory=dict)
    voxel_ml: dict[str, float] = field(default_factory=dict)
    quantiles: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)

    def visit(self, case: Case, images: Sequence[Volume], mask: Volume | None) -> None:
        """Take the figures of a case."""
        first = images[0] if images else mask
        if first is None:
            return
        look = appearance_of([first, *images[1:]])
        self.looks[case.id] = look if images else replace(look, channels=())
        labels = {} if mask is None else label_cubes_of(mask, self.ignored)
        self.shapes[case.id] = Shape(cube_of(images[0]) if images else None, labels, case.group)
        self.quantiles[case.id] = [quantiles_of(image) for image in images]
        self.voxel_ml[case.id] = first.voxel_ml
        if mask is not None:
            self.values[case.id] = {int(value): count for value, count in label_counts(mask.array).items()}


@dataclass(frozen=True)
class Looked:
    """The outcome of `look_with_findings`.

    Attributes:
        page: The page.
        findings: Its lines about the cases that look unlike the others.
        pictures: The folder of pictures; None if there are none.
        undrawn: The cases that have no picture, with the reason.
        refused: What cannot be used, and why, by case; empty names the data set.
        cases: Number of cases in it.
    """

    page: Path
    findings: tuple[str, ...]
    pictures: Path | None = None
    undrawn: tuple[tuple[str, str], ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    cases: int = 0

    @property
    def lines(self) -> tuple[str, ...]:
        """The findings; where there are none, a line that says so."""
        if self.findings:
            return self.findings
        if self.cases < FEWEST:
            are = "case is" if self.cases == 1 else "cases are"
            return (f"{self.cases} {are} too few to say which look unlike the others: that takes {FEWEST}",)
        return (f"0 cases of {self.cases} look unlike the others",)


@dataclass(frozen=True)
class LookRequest:
    """A data set or masks to look at, and how.

    Attributes:
        dataset: As in `check`; or a folder of masks, or one mask.
        output: The file.
        images: Images of the masks, by the same names: a folder, a data set, or one file. `dataset` is then masks.
        labels: As in `check`.
        groups: As in `check`; other cases of its patient say nothing of whether a case is turned.
        group_by: As in `check`.
        options: As in `check`.
        allow_outside: As in `check`.
        cases: Ids of the cases to look at, or of patients with all theirs; by default all.
        png: A folder for a picture of each case as well, `<case>.png`, 1920 × 1080 pixels, for slides.
        ground: Ground of the pictures: `dark` or `light`.
        slices: Their slices: `fullest`, those with most of the labels, or `axial=12,coronal=30`, counted from 1 as in
            the page.
        overwrite: Replace existing files.
        progress: Where progress is reported.
    """

    dataset: str | os.PathLike[str]
    output: Path | str = "look.html"
    images: Images | None = None
    _: KW_ONLY
    labels: LabelsLike | None = None
    groups: str | os.PathLike[str] | None = None
    group_by: str | None = None
    options: ReadOptions = DEFAULT_OPTIONS
    allow_outside: bool = False
    cases: Ids | None = None
    png: Path | str | None = None
    ground: str = "dark"
    slices: str = FULLEST
    overwrite: bool = False
    progress: Progress | None = None


@called_with(LookRequest)
def look(request: LookRequest) -> Path:
    """Write `look.html`: every case of a data set in three planes with its labels, unusual ones first.

    A case is unusual if it looks turned or mirrored compared with the others, if its grid, intensities or volumes are
    beyond five robust standard deviations from the median of all, or if `check` has a warning about it. With fewer
    than eight cases nothing is known of the usual.

    Raises:
        OutputExistsError: A file exists, and `overwrite` is false.
        MissingFileError: The data set is not there.
        DatasetError: It is neither a data set nor masks, no case can be shown, or no mask has the name of an image.
        SettingsError: The labels contradict each other, or the ground or the slices are not valid.
    """
    return look_with_findings(request).page


def look_with_findings(request: LookRequest) -> Looked:
    """As `look`, which explains errors; the lines about unusual cases are returned too."""
    output, options, progress, png = request.output, request.options, request.progress, request.png
    refuse_existing_file(output, overwrite=request.overwrite)
    style = SlideStyle.parse(request.ground, request.slices)
    dataset_found = _found_by(request)
    if png is not None:
        for case in dataset_found.cases:
            refuse_existing_file(slide_path(png, case.id), overwrite=request.overwrite)
    label_map = dataset_found.labels_of(request.labels)
    found = _Found(ValueSet((label_map or dataset_found).ignored))
    report = check_cases(dataset_found, labels=label_map, options=options, progress=progress, visit=found.visit)
    if not found.looks:
        first = report.errors[0].line if report.errors else "it has no complete case"
        raise DatasetError(f"{dataset_found.root.name}: no case can be shown: {first}", code="CASES_INCOMPLETE")
    label_map = _labels(dataset_found, request.labels, found)
    volumes = {case: _volumes_ml(label_map, found, case) for case in found.looks}
    flags = _flags(report, found, volumes, label_map)
    order = sorted(found.looks, key=lambda case: (-len(flags[case]), case))
    shown = DatasetCases({case.id: case for case in dataset_found.cases}, label_map, options)
    rows = {case: PredictedCase(case, volumes[case], flags[case], "nothing unusual") for case in order}
    findings = tuple(_findings(flags, len(order)))
    refused = tuple((problem.case, problem.line) for problem in report.errors)
    about = About(
        title=f"Look at {dataset_found.root.resolve().name}",
        failures=tuple((case or "data set", line) for case, line in refused),
        overlaps=tuple(overlap.name for overlap in label_map.overlaps) if label_map.overlapping else (),
        facts={"Data set": _facts(report, found)},
        mask="Label",
        order="unusual ones first",
        charts=tuple(filter(None, _charts(found, order))),
        findings=findings,
    )
    page = write_prediction_report(
        output, order, label_map.names, shown.read, rows.__getitem__, about=about, progress=progress
    )
    if png is None:
        return Looked(page, findings, refused=refused, cases=len(order))
    colours = drawn_labels(about, label_map.names)
    undrawn = write_slides(Path(png), order, shown.read, colours, style, reporting(progress))
    return Looked(page, findings, Path(png), tuple(undrawn), refused, len(order))


def _found_by(request: LookRequest) -> Dataset:
    """The chosen cases of a data set, else of the masks that are there."""
    found = _masks_or_dataset(request)
    if request.cases is None:
        return found
    patients = {case.id: case.group for case in found.all_cases}
    say = reporting(request.progress).say
    return found.keep(chosen_ids(request.cases, patients, lack="file", patients=patients, say=say))


def _masks_or_dataset(request: LookRequest) -> Dataset:
    groups, group_by = request.groups, request.group_by
    if request.images is not None:
        return in_groups(masks_as_dataset(request.dataset, request.images), groups, group_by)
    choices: dict[str, Any] = {"allow_outside": request.allow_outside, "bids": request.options.bids}
    try:
        return find_dataset(request.dataset, groups=groups, group_by=group_by, **choices)
    except DatasetError as refusal:
        if refusal.code != "DATASET_LAYOUT":
            raise
        try:
            return in_groups(masks_as_dataset(request.dataset), groups, group_by)
        except DatasetError:
            raise refusal from None


def _labels(dataset: Dataset, labels: LabelsLike | None, found: _Found) -> LabelMap:
    """The labels that are asked for, or named, or found."""
    known = dataset.labels_of(labels) or dataset.labels
    if known is not None:
        return known.ignoring(dataset.ignored)
    values = sorted(set().union(*found.values.values()) - {0})
    return LabelMap.from_names({value: f"label_{value}" for value in values or (1,)}).ignoring(dataset.ignored)


def _volumes_ml(labels: LabelMap, found: _Found, case: str) -> dict[str, float]:
    """The volume of each label; empty without a mask."""
    if case not in found.values:
        return {}
    counts = found.values[case].items()
    return {
        entry.name: sum(count for value, count in counts if value in ValueSet(values)) * found.voxel_ml[case]
        for entry, values in labels.values_by_entry
    }


def _figures(found: _Found) -> list[_Figure]:
    """The figures in which a case may be unlike the others, besides its volumes."""
    looks = found.looks
    figures = [
        _Figure(f"{words} {_ALONG[axis]}", "mm", {case: look.grid[f"{kind}_{axis}"] for case, look in looks.items()})
        for kind, words in _GRID.items()
        for axis in AXES
    ]
    count = max(len(look.channels) for look in looks.values())
    for number in range(count):
        channels = {case: look.channels[number] for case, look in looks.items() if number < len(look.channels)}
        for kind, words in _LEVELS.items():
            name = f"{words}, channel {number}" if count > 1 else words
            values = {case: math.nan if channel is None else channel[kind] for case, channel in channels.items()}
            figures.append(_Figure(name, "", values))
    return figures


def _flags(
    report: CheckReport, found: _Found, volumes: Mapping[str, Mapping[str, float]], labels: LabelMap
) -> dict[str, tuple[str, ...]]:
    """By case, what a reader should look at."""
    flags: dict[str, list[str]] = {case: [] for case in found.looks}
    for case, words in turned(found.shapes).items():
        flags[case].append(f"looks {words}, compared with the others")
    orders = Counter(look.orientation for look in found.looks.values())
    usual, count = orders.most_common(1)[0]
    for case, look in found.looks.items():
        if look.orientation != usual and count > _MOST * len(found.looks):
            flags[case].append(f"stored as {look.orientation}, where {count} are {usual}")
    of_labels = (
        _Figure(name, "ml", {case: of_case.get(name, math.nan) for case, of_case in volumes.items()})
        for name in labels.names
    )
    for figure in (*_figures(found), *of_labels):
        for case in figure.far:
            flags[case].append(f"unusual {figure.shown(case)}")
    for problem in report.warnings:  # errors are a list of their own: a refused case is no odd one
        if problem.case in flags:
            flags[problem.case].append(problem.found)
    return {case: tuple(dict.fromkeys(lines)) for case, lines in flags.items()}


def _findings(flags: Mapping[str, Sequence[str]], count: int) -> Iterator[str]:
    unusual = {case: lines for case, lines in flags.items() if lines}
    if unusual:
        looks = "looks" if len(unusual) == 1 else "look"
        yield (
            f"{counted(len(unusual), 'case')} of {count} {looks} unlike the others: "
            f"{listed((f'{case} ({lines[0]})' for case, lines in sorted(unusual.items())), limit=8, separator='; ')}."
        )


def _facts(report: CheckReport, found: _Found) -> dict[str, object]:
    orders = Counter(look.orientation for look in found.looks.values())
    facts: dict[str, object] = {
        "layout": report.layout,
        "channels": ", ".join(report.channel_names),
        "cases": len(report.cases),
        "patients": len({case.group for case in report.cases}),
        "stored as": ", ".join(f"{order} ({count})" for order, count in orders.most_common()),
    }
    for figure in _figures(found):
        values = sorted(value for value in figure.values.values() if math.isfinite(value))
        if values:
            low, middle, high = (_plain(values[place]) for place in (0, len(values) // 2, -1))
            facts[figure.title] = f"{low} to {high}, middle {middle}"
    return facts


def _charts(found: _Found, order: Sequence[str]) -> Iterator[str]:
    """Histograms of intensities and orientations, and a chart of each figure."""
    count = max(len(of_case) for of_case in found.quantiles.values())
    for number in range(count):
        name = f"intensity, channel {number}" if count > 1 else "intensity"
        yield intensity_chart([of[number] for of in found.quantiles.values() if number < len(of)], name)
    orders = Counter(look.orientation for look in found.looks.values())
    yield count_chart(dict(orders.most_common()), "stored as")
    place = {case: number for number, case in enumerate(order)}
    for figure in _figures(found):
        marks = [
            Mark(value, 0.0, case, f"#case-{place[case]}", "circle", f"{case}: {figure.shown(case)}")
            for case, value in figure.values.items()
            if math.isfinite(value)
        ]
        if marks:
            yield strip_chart([(figure.name, marks)], figure.title, is_share=False)
