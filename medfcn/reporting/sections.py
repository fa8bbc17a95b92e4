"""The parts of a report: its rows, tables and charts, made from scores. Nothing here is computed anew."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from medfcn.evaluation.label_summary import DistanceSummary, LabelSummary, ShareSummary
from medfcn.evaluation.score_table import ScoreTable
from medfcn.evaluation.scores import LabelScores, Status
from medfcn.evaluation.summary import Summary
from medfcn.evaluation.summary_text import shown_number
from medfcn.reporting.charts import Curve, Mark, agreement_chart, curve_chart, identity_chart, strip_chart

__all__ = [
    "EXPECTED_DICE",
    "ExpectedDice",
    "PredictedCase",
    "case_rows",
    "prediction_columns",
    "prediction_rows",
    "score_sections",
    "training_charts",
    "volume_sections",
]

_Column = TypeVar("_Column", str, tuple[str, str])

_STATUS: dict[Status, tuple[str, str, str]] = {
    "ok": ("scored", "circle", "●"),
    "prediction_empty": ("missed: mask empty", "cross", "✕"),
    "prediction_missing": ("missed: no mask file", "cross", "✕"),
    "reference_empty": ("found, but none drawn", "triangle", "▲"),
    "both_empty": ("empty in both", "circle", "○"),
}
_SHARES = {
    "dice": "Dice",
    "iou": "IoU",
    "precision": "Precision",
    "recall": "Recall",
    "specificity": "Specificity",
    "nsd": "NSD",
}
_DISTANCES = {"hd_mm": "HD (mm)", "hd95_mm": "HD95 (mm)", "assd_mm": "ASSD (mm)", "masd_mm": "MASD (mm)"}
_CHARTS = ("dice", "nsd", "hd95_mm", "assd_mm", "precision", "recall")
_MOST_LABELS_CHARTED = 24
_MOST_VOLUME_CHARTS = 12
_MOST_LABELS_NAMED = 4
_LARGEST_DRAWN = 1e12

_COLUMNS = (
    ("dice", "Dice", 3),
    ("iou", "IoU", 3),
    ("precision", "Precision", 3),
    ("recall", "Recall", 3),
    ("nsd", "NSD", 3),
    ("hd_mm", "HD mm", 2),
    ("hd95_mm", "HD95 mm", 2),
    ("assd_mm", "ASSD mm", 2),
    ("reference_ml", "Reference ml", 2),
    ("prediction_ml", "Prediction ml", 2),
    ("volume_difference_ml", "Δ ml", 2),
)
EXPECTED_DICE = "Expected Dice"
"""The heading of the column for it."""
_LESION_COLUMNS = (("lesions", "Lesions", 0), ("lesions_found", "Found", 0), ("lesions_false", "False", 0))


ExpectedDice = Mapping[str, Mapping[str, float]]
"""By case and label, the Dice that was expected of a mask before any reference was seen; `nan` where nothing was."""


@dataclass(frozen=True)
class PredictedCase:
    """A mask without a reference.

    Attributes:
        case: Its id.
        volumes_ml: Found, by label.
        flags: What a reader should look at.
    """

    case: str
    volumes_ml: Mapping[str, float]
    flags: tuple[str, ...] = ()


def _badness(row: LabelScores) -> tuple[int, float, float]:
    """Missed cases first, then what was found where nothing is, then the lower Dice; what is empty in both last."""
    place = 0 if row.is_miss else 1 if row.status == "reference_empty" else 2 if row.is_scored else 3
    dice = row.dice if not math.isnan(row.dice) else 1.0
    return place, dice, -row.hd95_mm if not math.isnan(row.hd95_mm) else 0.0


def case_rows(table: ScoreTable, expected: ExpectedDice) -> list[dict[str, Any]]:
    """A row for each case and label, worst case first; `is_worst` marks each case's worst label."""
    by_case: dict[str, list[LabelScores]] = {}
    for row in table.rows:
        by_case.setdefault(row.case, []).append(row)
    ranked = sorted(by_case, key=lambda case: (min(map(_badness, by_case[case])), case))
    places = {label: place for place, label in enumerate(table.labels)}
    columns = _columns(table)
    rows = []
    for index, case in enumerate(ranked):
        worst, headline = min(by_case[case], key=_badness), _headline(by_case[case])
        for row in by_case[case]:
            words, shape, sign = _STATUS[row.status]
            rows.append(
                {
                    "index": index,
                    "case": case,
                    "label": row.label,
                    "label_index": places[row.label],
                    "status": words,
                    "sign": sign,
                    "shape": shape,
                    "is_worst": row is worst,
                    "cells": _with_expected(
                        [_cell(getattr(row, name), digits) for name, _, digits in columns],
                        _cell(expected.get(case, {}).get(row.label, math.nan), 3),
                        expected,
                    ),
                    "headline": headline,
                }
            )
    return rows


def _columns(table: ScoreTable) -> tuple[tuple[str, str, int], ...]:
    """What stands in a row; lesions only where they were counted."""
    return _COLUMNS + (_LESION_COLUMNS if any(not math.isnan(row.lesions) for row in table.rows) else ())


def _with_expected(columns: Iterable[_Column], dice: _Column, expected: ExpectedDice) -> list[_Column]:
    """Columns with the expected Dice beside the first, where it is known of any case."""
    shown = list(columns)
    if any(not math.isnan(value) for of_case in expected.values() for value in of_case.values()):
        shown.insert(1, dice)
    return shown


def _cell(value: float, digits: int) -> tuple[str, str]:
    """What is shown, and what is sorted by; a cell without a value sorts to the end."""
    shown = "∞" if math.isinf(value) else shown_number(value, digits).replace("-", "−")
    return shown, "" if math.isnan(value) else "1e300" if math.isinf(value) else f"{value:.9g}"


def _headline(rows: Sequence[LabelScores]) -> str:
    """A case in one line: its scores, or the Dice of its worst labels."""
    if len(rows) == 1 and rows[0].status == "ok":
        row = rows[0]
        return f"Dice {row.dice:.3f} · NSD {row.nsd:.3f} · HD95 {row.hd95_mm:.2f} mm"
    parts = []
    for row in sorted(rows, key=_badness)[:_MOST_LABELS_NAMED]:
        words, _, sign = _STATUS[row.status]
        name = f"{row.label} " if len(rows) > 1 else ""
        parts.append(f"{name}Dice {row.dice:.3f}" if row.status == "ok" else f"{name}{sign} {words}")
    return " · ".join(parts) + (f" · {len(rows) - len(parts)} more labels" if len(rows) > len(parts) else "")


def _named_definitions(metrics: object) -> dict[str, str]:
    """Definitions by the names that the page uses."""
    names = {**_SHARES, **_DISTANCES, "volume_difference_ml": "Δ ml, volume bias", "lesions": "Lesions"}
    return {names.get(str(key), str(key)): str(text) for key, text in dict(metrics).items()}  # type: ignore[call-overload]


def score_sections(
    table: ScoreTable, summary: Summary, order: Sequence[str], expected: ExpectedDice
) -> dict[str, Any]:
    """Everything above the cases: summaries, missed cases, distributions, definitions."""
    links = {case: f"#case-{index}" for index, case in enumerate(order)}
    definitions = summary.definitions.to_json()
    return {
        "columns": _with_expected([title for _, title, _ in _columns(table)], EXPECTED_DICE, expected),
        "summary": summary,
        "tolerance": f"{summary.definitions.tolerance_mm:g}",
        "headlines": [_label_headline(label, links) for label in summary.labels],
        "macro": _macro(summary) if len(summary.labels) > 1 else None,
        "details": [
            (label, _metric_rows(label, links, summary.definitions.tolerance_mm)) for label in summary.labels
        ],
        "alerts": [_alert(kind, table, links) for kind in ("missed", "false")],
        "notes": table.notes,
        "definitions": _named_definitions(definitions["metrics"]),
        "conventions": {
            "Distances are between": definitions["distances_between"],
            "NSD is between": definitions["nsd_between"],
            "Geometry": definitions["geometry"],
            "Empty masks": definitions["empty_masks"],
            "Ignored voxels": definitions["ignored_voxels"],
            "Intervals": summary.to_json()["interval"],
        },
        "distributions": _distributions(table, links, summary.definitions.tolerance_mm),
    }


def _interval(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"{low:.3f} – {high:.3f}"


def _number(value: float, digits: int) -> str:
    return _cell(value, digits)[0]


def _label_headline(label: LabelSummary, links: Mapping[str, str]) -> dict[str, Any]:
    dice, nsd = label.shares["dice"], label.shares["nsd"]
    hd95, assd, volume = label.distances["hd95_mm"], label.distances["assd_mm"], label.volume
    return {
        "label": label.label,
        "dice": _number(dice.mean, 3),
        "dice_interval": _interval(dice.mean_low, dice.mean_high),
        "dice_median": _number(dice.median, 3),
        "dice_worst": _number(dice.worst, 3),
        "worst_case": dice.worst_case,
        "worst_link": links.get(dice.worst_case, "#cases"),
        "nsd": _number(nsd.mean, 3),
        "nsd_interval": _interval(nsd.mean_low, nsd.mean_high),
        "hd95": _number(hd95.median, 2),
        "hd95_quartiles": _quartiles(hd95),
        "assd": _number(assd.median, 2),
        "assd_quartiles": _quartiles(assd),
        "bias": _number(volume.mean_ml, 2),
        "limits": f"{_number(volume.lower_limit_ml, 2)} to {_number(volume.upper_limit_ml, 2)}",
        "cases": label.cases,
        "scored": label.scored,
        "missed": label.missed,
        "missing": label.missing,
        "false": label.false,
        "both_empty": label.both_empty,
        "support": f"{label.reference_voxels:,}".replace(",", " "),
        "lesions": _lesions(label),
        "micro": ", ".join(f"{name} {_number(value, 3)}" for name, value in label.micro.items()),
    }


def _lesions(label: LabelSummary) -> str:
    lesions = label.lesions
    if lesions is None:
        return ""
    return (
        f"{lesions.found} of {lesions.reference} found, {lesions.false} false; recall {_number(lesions.recall, 3)}, "
        f"precision {_number(lesions.precision, 3)}, F1 {_number(lesions.f1, 3)}"
    )


def _quartiles(summary: DistanceSummary) -> str:
    if not summary.cases:
        return ""
    return f"{_number(summary.lower_quartile, 2)} – {_number(summary.upper_quartile, 2)}"


def _macro(summary: Summary) -> dict[str, str]:
    return {
        "mean over labels": ", ".join(
            f"{title} {_number(summary.macro[name], 3 if name in _SHARES else 2)}"
            for name, title in {**_SHARES, **_DISTANCES}.items()
        ),
        "all voxels together": ", ".join(
            f"{title} {_number(summary.micro[name], 3)}" for name, title in _SHARES.items() if name in summary.micro
        ),
    }


def _metric_rows(label: LabelSummary, links: Mapping[str, str], tolerance_mm: float) -> list[dict[str, Any]]:
    """Every metric of a label: a line of the full table."""
    rows = []
    for name, title in {**_SHARES, **_DISTANCES}.items():
        found = label[name]
        digits = 3 if name in _SHARES else 2
        row = {
            "metric": f"NSD within {tolerance_mm:g} mm" if name == "nsd" else title,
            "mean": _number(found.mean, digits),
            "median": _number(found.median, digits),
            "worst": _number(found.worst, digits),
            "worst_case": found.worst_case,
            "worst_link": links.get(found.worst_case, "#cases"),
            "cases": found.cases,
            "mean_interval": "",
            "median_interval": "",
            "quartiles": "",
        }
        if isinstance(found, ShareSummary):
            row["mean_interval"] = _interval(found.mean_low, found.mean_high)
            row["median_interval"] = _interval(found.median_low, found.median_high)
        else:
            row["quartiles"] = _quartiles(found)
        rows.append(row)
    return rows


def _alert(kind: str, table: ScoreTable, links: Mapping[str, str]) -> dict[str, Any]:
    """The cases that a reader must look at, by name."""
    rows = [row for row in table.rows if (row.is_miss if kind == "missed" else row.status == "reference_empty")]
    by_case: dict[str, list[LabelScores]] = {}
    for row in rows:
        by_case.setdefault(row.case, []).append(row)
    cases = []
    for case, of_case in by_case.items():
        words = _STATUS[of_case[0].status][0].partition(": ")[2] if kind == "missed" else ""
        names = ", ".join(row.label for row in of_case) if len(table.labels) > 1 else ""
        cases.append({"case": case, "link": links[case], "why": ", ".join(part for part in (names, words) if part)})
    return {"kind": kind, "cases": cases, "total": len(table.cases)}


def _distributions(table: ScoreTable, links: Mapping[str, str], tolerance_mm: float) -> list[str]:
    charts = []
    for name in _CHARTS:
        title = f"NSD within {tolerance_mm:g} mm" if name == "nsd" else {**_SHARES, **_DISTANCES}[name]
        rows = []
        for label in table.labels[:_MOST_LABELS_CHARTED]:
            held = [row for row in table.rows if row.label == label and not math.isnan(getattr(row, name))]
            marks = [
                _mark(row, getattr(row, name), 0.0, links, f"{title} {_number(getattr(row, name), 3)}")
                for row in held
            ]
            rows.append((label, marks))
        charts.append(strip_chart(rows, title, is_share=name in _SHARES))
    return charts


def _mark(row: LabelScores, x: float, y: float, links: Mapping[str, str], text: str) -> Mark:
    words, shape, _ = _STATUS[row.status]
    more = "" if row.status == "ok" else f" ({words})"
    return Mark(x, y, row.case, links[row.case], shape, f"{row.case}: {text}{more}")


def volume_sections(table: ScoreTable, summary: Summary, order: Sequence[str]) -> list[dict[str, Any]]:
    """Predicted against drawn volume of each label, with limits of agreement."""
    links = {case: f"#case-{index}" for index, case in enumerate(order)}
    sections = []
    for label in summary.labels[:_MOST_VOLUME_CHARTS]:
        rows = [row for row in table.rows if row.label == label.label and row.is_scored]
        rows = [row for row in rows if math.isfinite(row.reference_ml) and math.isfinite(row.prediction_ml)]
        if not rows:
            continue
        texts = [f"reference {row.reference_ml:.3g} ml, prediction {row.prediction_ml:.3g} ml" for row in rows]
        equal = [
            _mark(row, row.reference_ml, row.prediction_ml, links, text)
            for row, text in zip(rows, texts, strict=True)
        ]
        differences = [
            _mark(row, (row.reference_ml + row.prediction_ml) / 2, row.prediction_ml - row.reference_ml, links, text)
            for row, text in zip(rows, texts, strict=True)
        ]
        volume = label.volume
        sections.append(
            {
                "label": label.label,
                "left_out": label.scored - len(rows),
                "charts": [
                    identity_chart(equal, x_title="Reference (ml)", y_title="Prediction (ml)"),
                    agreement_chart(
                        differences,
                        bias=volume.mean_ml,
                        limits=(volume.lower_limit_ml, volume.upper_limit_ml),
                        x_title="Mean of prediction and reference (ml)",
                        y_title="Prediction − reference (ml)",
                        unit="ml",
                    ),
                ],
            }
        )
    return sections


def prediction_columns(expected: ExpectedDice) -> list[str]:
    """What stands in a row of a mask without a reference."""
    return _with_expected(["ml"], EXPECTED_DICE, expected)


def prediction_rows(
    masks: Sequence[PredictedCase], labels: Sequence[str], expected: ExpectedDice
) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each case and label, and charts of the volumes, for masks without references."""
    rows = []
    marks: dict[str, list[Mark]] = {label: [] for label in labels}
    for index, mask in enumerate(masks):
        volumes = ", ".join(
            (f"{label} " if len(labels) > 1 else "") + f"{mask.volumes_ml.get(label, math.nan):.3g} ml"
            for label in labels
        )
        for place, label in enumerate(labels):
            volume = mask.volumes_ml.get(label, math.nan)
            shape = "circle" if volume > 0 else "cross"
            flags = [flag for flag in mask.flags if not _is_of_another(flag, label, labels)]
            is_known = not math.isnan(expected.get(mask.case, {}).get(label, math.nan))
            rows.append(
                {
                    "index": index,
                    "case": mask.case,
                    "label": label,
                    "label_index": place,
                    "status": "; ".join(flags) or ("no flags" if is_known else "no flags, not assessed"),
                    "sign": "▲" if flags else "",
                    "shape": "triangle" if flags else "circle",
                    "is_worst": place == 0,
                    "cells": _with_expected(
                        [_cell(volume, 2)],
                        _cell(expected.get(mask.case, {}).get(label, math.nan), 3),
                        expected,
                    ),
                    "headline": volumes + ("; " + "; ".join(mask.flags) if mask.flags else ""),
                }
            )
            if not math.isnan(volume):
                text = f"{mask.case}: {volume:.3g} ml"
                marks[label].append(Mark(volume, 0.0, mask.case, f"#case-{index}", shape, text))
    charts = [
        strip_chart([(label, of_label)], f"{label} (ml)", is_share=False)
        for label, of_label in list(marks.items())[:_MOST_LABELS_CHARTED]
        if of_label
    ]
    return rows, charts


def _is_of_another(flag: str, label: str, labels: Sequence[str]) -> bool:
    """Whether a flag of `medfcn predict` names another label than this one."""
    return any(
        flag.startswith(f"review {other}: ") or flag == f"{other} not found" for other in labels if other != label
    )


def training_charts(log: Mapping[str, Sequence[float]]) -> list[str]:
    """Loss and validation Dice over the steps of a training; empty without a log."""
    steps = log.get("step", ())
    x_end = max((step for step in steps if abs(step) < _LARGEST_DRAWN), default=1.0)
    charts = []
    for name, title, kind, is_share in (
        ("loss", "Training loss", "solid", False),
        ("validation_dice", "Validation Dice", "dots", True),
        ("learning_rate", "Learning rate", "solid", False),
    ):
        points = [(x, y) for x, y in zip(steps, log.get(name, ()), strict=False) if abs(x) + abs(y) < _LARGEST_DRAWN]
        if points:
            curve = Curve(title, points, kind)
            charts.append(curve_chart([curve], x_title="Step", y_title=title, x_end=x_end, is_share=is_share))
    return charts
