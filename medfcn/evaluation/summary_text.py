"""Summaries as plain text for a terminal or a log."""

import math
from collections.abc import Iterator, Sequence

from medfcn.evaluation.definitions import Definitions
from medfcn.evaluation.estimates import FEWEST
from medfcn.evaluation.label_summary import DistanceSummary, LabelSummary, ShareSummary
from medfcn.text import aligned, counted, one_line

_SHARES = {"dice": "Dice", "iou": "IoU", "precision": "precision", "recall": "recall", "nsd": "NSD"}
_DISTANCES = {"hd_mm": "HD mm", "hd95_mm": "HD95 mm", "assd_mm": "ASSD mm"}
_HEADINGS = ("metric", "mean", "95 % or IQR", "median", "worst", "in case", "cases")
_FOOT = "In the column 95 % or IQR: of a share the 95 % interval of its mean, of a distance the quartiles."
_BRIEF = ("label", "Dice", "95 % interval", "worst", "in case", "HD95", "missed", "cases")
_STAR = "* less than half of some cases is labelled, where Dice is of the labelled voxels alone."
_BRIEF_NUMBERS = [place for place, heading in enumerate(_BRIEF) if heading not in ("label", "in case")]
_BRIEF_FOOT = "Dice is the mean, HD95 the median in mm; --all-metrics prints all."
_NUMBERS = [place for place, heading in enumerate(_HEADINGS) if heading not in ("metric", "in case")]


def summary_lines(
    labels: Sequence[LabelSummary],
    definitions: Definitions,
    notes: Sequence[str],
    partly_labelled: str = "",
    *,
    strata: Sequence[str] = (),
) -> list[str]:
    """A row for each label and metric, the counts of each label, the notes, and the definitions at the foot.

    Args:
        labels: The summaries.
        definitions: Definitions of the scores.
        notes: Further lines.
        partly_labelled: The line on cases of which less than half is labelled; the overlaps that it is about have a
            star.
        strata: The lines of the strata.
    """
    return [
        *(_whole_table(labels, definitions.tolerance_mm) or ["no case was scored"]),
        "",
        *(line for label in labels for line in _counts_lines(label)),
        *([f"* {partly_labelled}"] if partly_labelled else []),
        *strata,
        *(("", *notes) if notes else ()),
        "",
        _FOOT,
        *_without_interval(labels),
        f"{definitions.short()}.",
        "A miss has overlap and NSD 0 and infinite distances; it has no precision, and counts with 0 in its mean. "
        "Cases empty in both masks are left out of averages.",
        *(("Intervals are over patients, each with all their cases.",) if is_clustered(labels) else ()),
    ]


def brief_lines(labels: Sequence[LabelSummary], notes: Sequence[str], *, strata: Sequence[str] = ()) -> list[str]:
    """A row for each label, in at most 80 columns, and the notes.

    Args:
        labels: The summaries.
        notes: Further lines.
        strata: The lines of the strata.
    """
    rows = [_brief_row(label) for label in labels]
    counts = [line for label in labels for line in _counts_lines(label) if _is_odd(label) or "lesions found" in line]
    return [
        *(aligned([_BRIEF, *rows], right=_BRIEF_NUMBERS) if rows else ["no case was scored"]),
        *counts,
        *([_STAR] if any(label.partly_labelled for label in labels) else []),
        *strata,
        *notes,
        *([_BRIEF_FOOT] if rows else []),
        *_without_interval(labels),
        *(("Intervals are over patients, each with all their cases.",) if is_clustered(labels) else ()),
    ]


def _without_interval(labels: Sequence[LabelSummary]) -> list[str]:
    """The reason for a dash in place of an interval; no line where every mean has one."""
    shares = [share for label in labels for share in label.shares.values()]
    if not any(math.isnan(share.mean_low) and not math.isnan(share.mean) for share in shares):
        return []
    of = "patients" if is_clustered(labels) else "cases"
    return [f"– in place of an interval: it needs {FEWEST} {of} or more."]


def _is_odd(label: LabelSummary) -> bool:
    """True if the counts of a label say more than its row."""
    return bool(label.missed or label.false or label.empty_in_both or label.failed or label.wholly_ignored)


def _brief_row(label: LabelSummary) -> tuple[str, ...]:
    dice, far = label.shares["dice"], label.distances["hd95_mm"]
    name = f"{label.label} *" if label.partly_labelled else label.label
    return (
        name,
        shown_number(dice.mean, 3),
        share_interval(dice),
        shown_number(dice.worst, 3),
        dice.worst_case,
        shown_number(far.median, 1),
        str(label.missed),
        f"{label.scored}/{label.cases}",
    )


def is_clustered(labels: Sequence[LabelSummary]) -> bool:
    """True if several cases are of one patient; intervals are then over patients."""
    return any(label.patients is not None for label in labels)


def _whole_table(labels: Sequence[LabelSummary], tolerance_mm: float) -> list[str]:
    """The name of each label, and below it a row for each metric."""
    rows = [list(_label_rows(label, tolerance_mm)) for label in labels]
    heading, *lines = aligned([_HEADINGS, *(row for of_label in rows for row in of_label)], right=_NUMBERS)
    parts = [heading] if rows else []
    for label, of_label in zip(labels, rows, strict=True):
        own, lines = lines[: len(of_label)], lines[len(of_label) :]
        parts += [label.label, *own]
    return parts


def _label_rows(label: LabelSummary, tolerance_mm: float) -> Iterator[tuple[str, ...]]:
    for metric, title in _SHARES.items():
        title = f"{title} {tolerance_mm:g} mm" if metric == "nsd" else title
        if label.partly_labelled and metric != "nsd":
            title += " *"
        yield (f"  {title}", *_share_fields(label.shares[metric]))
    for metric, title in _DISTANCES.items():
        yield (f"  {title}", *_distance_fields(label.distances[metric]))


def _share_fields(share: ShareSummary) -> tuple[str, ...]:
    mean, median, worst = (shown_number(value, 3) for value in (share.mean, share.median, share.worst))
    return mean, share_interval(share), median, worst, share.worst_case, str(share.cases)


def _distance_fields(distance: DistanceSummary) -> tuple[str, ...]:
    values = (distance.mean, distance.median, distance.worst, distance.lower_quartile, distance.upper_quartile)
    mean, median, worst, lower, upper = (shown_number(value, 2) for value in values)
    quartiles = f"{lower} – {upper}" if distance.cases else "–"
    return mean, quartiles, median, worst, distance.worst_case, str(distance.cases)


def _counts_lines(label: LabelSummary) -> Iterator[str]:
    missing = f" ({label.missing} without a usable file)" if label.missing else ""
    failed = f", {label.failed} could not be scored" if label.failed else ""
    ignored = f", {label.wholly_ignored} wholly ignored" if label.wholly_ignored else ""
    partly = f", {label.partly_labelled.cases} partly labelled" if label.partly_labelled else ""
    name = one_line(label.label, limit=24)
    patients = "" if label.patients is None else f" ({cases_of_patients(label.scored, label.patients)})"
    yield (
        f"{name}: {label.scored} of {label.cases} cases scored{patients}, {label.missed} missed{missing}, "
        f"{label.false} predicted where the reference is empty, {label.empty_in_both} empty in both{ignored}{partly}"
        f"{failed}"
    )
    lesions = label.lesions
    if lesions is not None:
        yield (
            f"{name}: {lesions.found} of {lesions.reference} lesions found, {lesions.false} false; "
            f"recall {shown_number(lesions.recall, 3)}, precision {shown_number(lesions.precision, 3)}"
        )


def cases_of_patients(cases: int, patients: int) -> str:
    """Numbers of cases and of their patients.

    Example:
        >>> cases_of_patients(80, 40)
        '80 cases of 40 patients'
    """
    return f"{counted(cases, 'case')} of {counted(patients, 'patient')}"


def share_interval(share: ShareSummary) -> str:
    """The interval of a mean; a dash if there is none."""
    return interval_text(share.mean_low, share.mean_high) or "–"


def interval_text(low: float, high: float) -> str:
    """An interval for a table; empty if there is none."""
    # Adding 0 takes the sign off a zero.
    return "" if math.isnan(low) else " – ".join(f"{round(end, 3) + 0.0:.3f}" for end in (low, high))


def shown_number(value: float, digits: int) -> str:
    """A number for a table; a dash for `nan`."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
