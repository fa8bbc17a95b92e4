"""The result of `check`, as facts and as text."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from medfcn.datasets.problems import Problem
from medfcn.text import aligned, counted, page
from medfcn.volumes.geometry import Shape, Spacing


@dataclass(frozen=True)
class ImageFacts:
    """What was found in one image."""

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


@dataclass(frozen=True)
class LabelFacts:
    """What was found in one label."""

    file: str
    voxels: dict[int, int]
    """Voxels of each value, without 0 and the ignored ones."""
    ml: dict[int, float]
    """Their volumes in millilitres."""
    displacement_voxels: float | None
    """How far its corners lie from the image's; None where they cannot be compared."""
    sha256: str
    notes: tuple[str, ...]
    ignored_voxels: int = 0
    """Voxels that nobody labelled, which are neither trained on nor scored."""


@dataclass(frozen=True)
class CaseFacts:
    """What was found in one case; images or label that are not there or could not be read are absent."""

    id: str
    group: str
    fold: str | None
    images: tuple[ImageFacts, ...]
    label: LabelFacts | None


@dataclass(frozen=True)
class CheckReport:
    """Every case of a dataset, and every problem.

    Args:
        layout: How the dataset lies.
        channel_names: One name per channel.
        label_names: The names of the labels, in order.
        cases: What was found, in the order of the dataset.
        problems: What is wrong; errors first.
        ignored: The label values of voxels that nobody labelled.
    """

    layout: str
    channel_names: tuple[str, ...]
    label_names: tuple[str, ...]
    cases: tuple[CaseFacts, ...]
    problems: tuple[Problem, ...]
    ignored: tuple[int, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        """What stops training."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What does not."""
        return tuple(problem for problem in self.problems if problem.severity == "warning")

    @property
    def bad_cases(self) -> frozenset[str]:
        """Ids of the cases with an error: what `--skip-bad` leaves out."""
        return frozenset(problem.case for problem in self.errors if problem.case)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON can hold it; no header text and no path above the dataset's root."""
        value = asdict(self)
        value["errors"], value["warnings"] = len(self.errors), len(self.warnings)
        return value

    def to_text(self) -> str:
        """Two tables for people: the cases and the problems."""
        return report_text(self)


def report_text(report: "CheckReport") -> str:
    """The cases, a summary and the problems, as lines."""
    rows = [("case", "shape", "spacing mm", "axes", "intensities", "labels: voxels (ml)")]
    rows += [_row(case) for case in report.cases]
    lines = [*aligned(rows, widest=160), "", *_summary(report), ""]
    lines += [problem.line for problem in report.problems]
    lines.append(f"{counted(len(report.errors), 'error')}, {counted(len(report.warnings), 'warning')}")
    return page(lines) + "\n"


def _row(case: "CaseFacts") -> tuple[str, str, str, str, str, str]:
    name = case.id
    values = "not read"
    if case.label is not None:
        label = case.label
        counts = [f"{value}: {count} ({label.ml[value]:.3g})" for value, count in label.voxels.items()]
        if label.ignored_voxels:
            counts.append(f"ignored: {label.ignored_voxels}")
        values = ", ".join(counts) or "empty"
    if not case.images:
        return name, "not read", "", "", "", values
    image = case.images[0]
    return (
        name,
        " x ".join(str(size) for size in image.shape),
        " x ".join(f"{edge:.4g}" for edge in image.spacing_mm),
        image.orientation,
        "; ".join(f"{channel.lowest:.4g} to {channel.highest:.4g}" for channel in case.images),
        values,
    )


def _summary(report: "CheckReport") -> list[str]:
    """What the dataset was taken for."""
    channels = ", ".join(name for name in report.channel_names)
    groups = len({case.group for case in report.cases})
    axes = Counter(image.orientation for case in report.cases for image in case.images[:1])
    names = ", ".join(name for name in report.label_names) or "as found"
    if report.ignored:
        names += f" (ignored: {', '.join(map(str, report.ignored))})"
    return [
        f"layout {report.layout}: {len(report.cases)} cases in {groups} groups; channels: {channels}; "
        f"labels: {names}",
        "axes: " + ", ".join(f"{letters} {count}" for letters, count in axes.most_common()),
    ]
