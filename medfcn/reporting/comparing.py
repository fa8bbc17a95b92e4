"""Tables of a report that compare: two sets of predictions, the strata of the cases, probabilities with their truth.

Nothing is computed here.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from medfcn.evaluation.calibration import PLACES, Calibration
from medfcn.evaluation.label_summary import SHARES
from medfcn.evaluation.paired_differences import Comparison, PairedDifference, moved_words, signed
from medfcn.evaluation.strata import HOW_GAP, Strata
from medfcn.reporting.sections import TITLES


def comparison_section(comparison: Comparison | None, links: Mapping[str, str]) -> dict[str, Any]:
    """A row for each label and metric, and the cases that differ most; empty without a comparison."""
    if comparison is None:
        return {}
    moved = {
        difference.label: [
            (case.case, links.get(case.case, "#cases"), moved_words(case)) for case in difference.moved
        ]
        for difference in comparison.differences
        if difference.metric == "dice" and difference.moved
    }
    return {
        "sides": comparison.sides,
        "direction": comparison.direction,
        "is_clustered": comparison.is_clustered,
        "rows": [_row(difference, is_clustered=comparison.is_clustered) for difference in comparison.differences],
        "moved": moved,
        "definitions": comparison.definitions,
        "notes": comparison.notes,
    }


def _row(difference: PairedDifference, *, is_clustered: bool) -> tuple[str, list[str]]:
    """The label, and the cells of a difference."""
    digits = 3 if difference.metric in SHARES else 2
    mean, low, high, median = (
        signed(value, digits).replace("-", "−")
        for value in (difference.mean, difference.mean_low, difference.mean_high, difference.median)
    )
    interval = "–" if math.isnan(difference.mean_low) else f"{low} to {high}"
    p_values = ("–" if math.isnan(p) else f"{p:.3g}" for p in (difference.p_value, difference.p_corrected))
    counts = [difference.better, difference.worse, difference.equal, difference.cases]
    counts += [difference.patient_count] if is_clustered else []
    title = TITLES.get(difference.metric, difference.metric)
    return difference.label, [title, mean, interval, median, *p_values, *map(str, counts)]


def strata_sections(strata: Sequence[Strata]) -> dict[str, Any]:
    """For each column its labels, each with the summaries of its strata, the gaps, and the strata of few patients."""
    columns: dict[str, list[Strata]] = {}
    for each in strata:
        columns.setdefault(each.column, []).append(each)
    return {"columns": columns, "how": HOW_GAP} if columns else {}


def calibration_section(calibration: Calibration | None) -> dict[str, Any]:
    """For each label and place its reliability table and error; empty without probabilities."""
    if calibration is None:
        return {}
    tables = [
        (name, place, bins.expected_error, bins.rows())
        for name, pair in calibration.labels.items()
        for place, bins in zip(PLACES, pair, strict=True)
    ]
    return {"tables": tables, "cases": calibration.cases, "how": calibration.definition}
