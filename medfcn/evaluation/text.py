"""Summaries as plain text for a terminal or a log."""

import math
from collections.abc import Iterator, Sequence

from medfcn.evaluation.summary import DistanceSummary, LabelSummary, ShareSummary, Summary
from medfcn.volumes.names import printable

__all__ = ["aligned", "shown_number", "summary_text"]

_SHARES = (("dice", "Dice"), ("iou", "IoU"), ("precision", "precision"), ("recall", "recall"), ("nsd", "NSD"))
_DISTANCES = (("hd_mm", "HD mm"), ("hd95_mm", "HD95 mm"), ("assd_mm", "ASSD mm"))
_HEADINGS = ("label", "metric", "mean", "95 % interval", "median", "quartiles", "worst", "in case", "cases")


def summary_text(summary: Summary) -> str:
    """A row for each label and metric, the counts of each label, notes, and the definitions at the foot."""
    rows = [row for label in summary.labels for row in _label_rows(label, summary.definitions.tolerance_mm)]
    lines = list(aligned([_HEADINGS, *rows])) if rows else ["no case was scored"]
    lines.append("")
    lines += [line for label in summary.labels for line in _counts_lines(label)]
    if summary.notes:
        lines += ["", *(printable(note, limit=1000) for note in summary.notes)]
    lines += [
        "",
        f"{summary.definitions.short()}.",
        "A miss has overlap and NSD 0 and infinite distances; cases empty in both masks are left out of averages.",
    ]
    return "\n".join(lines)


def _label_rows(label: LabelSummary, tolerance_mm: float) -> Iterator[tuple[str, ...]]:
    name = printable(label.label, limit=24)
    for metric, title in _SHARES:
        share = label.shares[metric]
        title = f"{title} {tolerance_mm:g} mm" if metric == "nsd" else title
        yield (name if metric == "dice" else "", title, *_share_fields(share))
    for metric, title in _DISTANCES:
        yield ("", title, *_distance_fields(label.distances[metric]))


def _share_fields(share: ShareSummary) -> tuple[str, ...]:
    interval = "–" if math.isnan(share.mean_low) else f"{share.mean_low:.3f} – {share.mean_high:.3f}"
    return (
        shown_number(share.mean, 3),
        interval,
        shown_number(share.median, 3),
        "",
        shown_number(share.worst, 3),
        printable(share.worst_case, limit=24),
        str(share.cases),
    )


def _distance_fields(distance: DistanceSummary) -> tuple[str, ...]:
    quartiles = f"{shown_number(distance.lower_quartile, 2)} – {shown_number(distance.upper_quartile, 2)}"
    return (
        shown_number(distance.mean, 2),
        "",
        shown_number(distance.median, 2),
        quartiles if distance.cases else "–",
        shown_number(distance.worst, 2),
        printable(distance.worst_case, limit=24),
        str(distance.cases),
    )


def _counts_lines(label: LabelSummary) -> Iterator[str]:
    missing = f" ({label.missing} without a file)" if label.missing else ""
    failed = f", {label.failed} could not be scored" if label.failed else ""
    name = printable(label.label, limit=24)
    yield (
        f"{name}: {label.scored} of {label.cases} cases scored, {label.missed} missed{missing}, "
        f"{label.false} found where there is none, {label.both_empty} empty in both{failed}"
    )
    if label.lesions is not None:
        lesions = label.lesions
        yield (
            f"{name}: {lesions.found} of {lesions.reference} lesions found, {lesions.false} false; "
            f"recall {shown_number(lesions.recall, 3)}, precision {shown_number(lesions.precision, 3)}"
        )


def shown_number(value: float, digits: int) -> str:
    """A number for a table; a dash for `nan`."""
    if math.isnan(value):
        return "–"
    return f"{value:.{digits}f}"


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns under their headings: words to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    is_word = [heading in ("label", "metric", "in case") for heading in rows[0]]
    for row in rows:
        fields = [
            field.ljust(width) if word else field.rjust(width)
            for field, width, word in zip(row, widths, is_word, strict=True)
        ]
        yield "  ".join(fields).rstrip()
