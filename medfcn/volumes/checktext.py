"""A check report as text."""

from collections import Counter
from typing import TYPE_CHECKING

from medfcn.volumes.names import printable

if TYPE_CHECKING:
    from medfcn.volumes.check import CaseFacts, CheckReport


def report_text(report: "CheckReport") -> str:
    """The cases, a summary and the problems, as lines."""
    rows = [("case", "shape", "spacing mm", "axes", "intensities", "labels: voxels (ml)")]
    rows += [_row(case) for case in report.cases]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += ["", *_summary(report), ""]
    lines += [problem.line for problem in report.problems]
    lines.append(
        ", ".join(
            _counted(len(found), name) for found, name in ((report.errors, "error"), (report.warnings, "warning"))
        )
    )
    return "\n".join(lines) + "\n"


def _counted(count: int, name: str) -> str:
    return f"{count} {name}{'s' * (count != 1)}"


def _row(case: "CaseFacts") -> tuple[str, str, str, str, str, str]:
    name = printable(case.id, limit=40)
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
    channels = ", ".join(printable(name, limit=40) for name in report.channel_names)
    groups = len({case.group for case in report.cases})
    axes = Counter(image.orientation for case in report.cases for image in case.images[:1])
    names = ", ".join(printable(name, limit=40) for name in report.label_names) or "as found"
    if report.ignored:
        names += f" (ignored: {', '.join(map(str, report.ignored))})"
    return [
        f"layout {report.layout}: {len(report.cases)} cases in {groups} groups; channels: {channels}; "
        f"labels: {names}",
        "axes: " + ", ".join(f"{letters} {count}" for letters, count in axes.most_common()),
    ]
