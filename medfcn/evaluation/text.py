"""Summaries as plain text for a terminal or a log."""

import math
from collections.abc import Iterator

from medfcn.evaluation.summary import DistanceSummary, LabelSummary, ShareSummary, Summary
from medfcn.text import aligned, one_line, page

_SHARES = (("dice", "Dice"), ("iou", "IoU"), ("precision", "precision"), ("recall", "recall"), ("nsd", "NSD"))
_DISTANCES = (("hd_mm", "HD mm"), ("hd95_mm", "HD95 mm"), ("assd_mm", "ASSD mm"))
_HEADINGS = ("label", "metric", "mean", "95 % interval", "median", "quartiles", "worst", "in case", "cases")
_NUMBERS = [place for place, heading in enumerate(_HEADINGS) if heading not in ("label", "metric", "in case")]


def summary_text(summary: Summary) -> str:
    """A row for each label and metric, the counts of each label, notes, and the definitions at the foot."""
    rows = [row for label in summary.labels for row in _label_rows(label, summary.definitions.tolerance_mm)]
    lines = aligned([_HEADINGS, *rows], right=_NUMBERS, widest=24) if rows else ["no case was scored"]
    lines.append("")
    lines += [line for label in summary.labels for line in _counts_lines(label)]
    if summary.notes:
        lines += ["", *summary.notes]
    lines += [
        "",
        f"{summary.definitions.short()}.",
        "A miss has overlap and NSD 0 and infinite distances; cases empty in both masks are left out of averages.",
    ]
    return page(lines)


def _label_rows(label: LabelSummary, tolerance_mm: float) -> Iterator[tuple[str, ...]]:
    name = label.label
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
        share.worst_case,
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
        distance.worst_case,
        str(distance.cases),
    )


def _counts_lines(label: LabelSummary) -> Iterator[str]:
    missing = f" ({label.missing} without a file)" if label.missing else ""
    failed = f", {label.failed} could not be scored" if label.failed else ""
    name = one_line(label.label, limit=24)
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
