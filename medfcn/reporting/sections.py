"""The rows, tables and charts of a report, made from scores; nothing is scored here."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medfcn.evaluation.label_summary import DISTANCES, SHARES, DistanceSummary, ShareSummary, VolumeSummary
from medfcn.evaluation.score_table import ScoreTable
from medfcn.evaluation.scores import LabelScores, Status
from medfcn.evaluation.summary import Summary
from medfcn.evaluation.summary_text import shown_number
from medfcn.reporting.charts import Mark, agreement_chart, curve_chart, identity_chart, strip_chart

_STATUS: dict[Status, tuple[str, str, str]] = {
    "ok": ("scored", "circle", "●"),
    "prediction_empty": ("missed: mask empty", "cross", "✕"),
    "prediction_missing": ("missed: no mask file", "cross", "✕"),
    "reference_empty": ("predicted, but reference empty", "triangle", "▲"),
    "both_empty": ("empty in both", "circle", "○"),
    "partly_labelled": ("partly labelled", "circle", "◐"),
}
_OF_STROKES: dict[Status, str] = {
    "prediction_empty": "missed: none of the labelled voxels predicted",
    "reference_empty": "predicted, but not among the labelled voxels",
    "both_empty": "in no labelled voxel of either",
}
"""The words of those where less than half of the case is labelled: nothing is known of the other voxels."""
TITLES = {
    "dice": "Dice",
    "iou": "IoU",
    "precision": "Precision",
    "recall": "Recall",
    "specificity": "Specificity",
    "nsd": "NSD",
    "hd_mm": "HD (mm)",
    "hd95_mm": "HD95 (mm)",
    "assd_mm": "ASSD (mm)",
    "masd_mm": "MASD (mm)",
    "reference_ml": "Reference (ml)",
    "prediction_ml": "Prediction (ml)",
    "volume_difference_ml": "Δ (ml)",
    "lesions": "Lesions",
    "lesions_found": "Found",
    "lesions_false": "False",
}
_COLUMNS: tuple[str, ...] = ("dice", "iou", "precision", "recall", "nsd", "hd_mm", "hd95_mm", "assd_mm")
_COLUMNS += ("reference_ml", "prediction_ml", "volume_difference_ml")
_LESION_COLUMNS = ("lesions", "lesions_found", "lesions_false")
_CHARTS = ("dice", "nsd", "hd95_mm", "assd_mm", "precision", "recall")
_EXPECTED_DICE = "Expected Dice"
_MOST_LABELS_CHARTED, _MOST_VOLUME_CHARTS, _MOST_LABELS_NAMED = 24, 12, 4
_LARGEST_DRAWN = 1e12
_FEWEST_FOR_LIMITS = 5
"""Cases below which limits of agreement say nothing: their own interval is wider than they are."""

ExpectedDice = Mapping[str, Mapping[str, float]]
"""By case and label, the Dice to expect of a mask without a reference; `nan` where too little is known."""


@dataclass(frozen=True)
class PredictedCase:
    """A mask without a reference.

    Attributes:
        case: Its id.
        volumes_ml: Predicted volume of each label.
        flags: Findings that a reader should look at.
        unflagged: The status without any flag.
    """

    case: str
    volumes_ml: Mapping[str, float]
    flags: tuple[str, ...] = ()
    unflagged: str = ""


@dataclass(frozen=True)
class CaseRow:
    """A row of the table of cases: one label of one case.

    Attributes:
        index: Rank of the case.
        case: Its id.
        label: The label's name.
        label_index: The label's place, from 0.
        status: Status, or flags, in words.
        sign: The same as one character.
        shape: The same as the shape of its marks.
        is_worst: True for one row of each case, which is always shown.
        cells: Text and sort key of each column.
        headline: The case in one line.
    """

    index: int
    case: str
    label: str
    label_index: int
    status: str
    sign: str
    shape: str
    is_worst: bool
    cells: list[tuple[str, str]]
    headline: str


def _digits(metric: str) -> int:
    return 3 if metric in SHARES else 0 if metric in _LESION_COLUMNS else 2


def _cell(value: float, digits: int) -> tuple[str, str]:
    """A number, and its sort key; a cell without a value sorts to the end."""
    return _number(value, digits), "" if math.isnan(value) else "1e300" if math.isinf(value) else f"{value:.9g}"


def _number(value: float, digits: int) -> str:
    return "∞" if math.isinf(value) else shown_number(value, digits).replace("-", "−")


def _interval(summary: ShareSummary | DistanceSummary, of: str = "mean") -> str:
    """The interval of a mean or median; empty if there is none."""
    low, high = (getattr(summary, f"{of}_{end}", math.nan) for end in ("low", "high"))
    return "" if math.isnan(low) else f"{low:.3f} – {high:.3f}"


def _quartiles(summary: ShareSummary | DistanceSummary) -> str:
    """The quartiles of a distance; empty if there are none."""
    if isinstance(summary, ShareSummary) or not summary.cases:
        return ""
    return f"{_number(summary.lower_quartile, 2)} – {_number(summary.upper_quartile, 2)}"


def _limits(volume: VolumeSummary) -> tuple[float, float]:
    """The limits of agreement; `nan` with fewer than five cases."""
    if volume.cases < _FEWEST_FOR_LIMITS:
        return math.nan, math.nan
    return volume.lower_limit_ml, volume.upper_limit_ml


def _limits_text(volume: VolumeSummary) -> str:
    """The limits of agreement; empty if there are none."""
    low, high = _limits(volume)
    return "" if math.isnan(low) else f"{_number(low, 2)} to {_number(high, 2)}"


FILTERS = {"number": _number, "interval": _interval, "quartiles": _quartiles, "limits": _limits_text}
"""Formatters of the page's template."""


def is_dice_expected(expected: ExpectedDice) -> bool:
    """True if an expected Dice is known for any mask."""
    return any(not math.isnan(value) for of_case in expected.values() for value in of_case.values())


def _cells(values: Mapping[str, float], case: str, label: str, expected: ExpectedDice) -> list[tuple[str, str]]:
    """The cells of a row, by metric; the expected Dice is next to the first if it is known for any case."""
    cells = [_cell(value, _digits(name)) for name, value in values.items()]
    if is_dice_expected(expected):
        cells.insert(1, _cell(expected.get(case, {}).get(label, math.nan), 3))
    return cells


def column_titles(table: ScoreTable | None, expected: ExpectedDice) -> list[str]:
    """The headings of the cells of a row, of scores or of masks without references."""
    titles = ["ml"] if table is None else [TITLES[name] for name in _columns(table)]
    if is_dice_expected(expected):
        titles.insert(1, _EXPECTED_DICE)
    return titles


def _columns(table: ScoreTable) -> tuple[str, ...]:
    """The columns of a row; lesions only if they were counted."""
    return _COLUMNS + (_LESION_COLUMNS if any(not math.isnan(row.lesions) for row in table.rows) else ())


def _badness(row: LabelScores) -> tuple[int, float, float]:
    """Order of rows: misses, predictions where the reference is empty, the others by Dice, and empty ones."""
    place = 0 if row.is_miss else 1 if row.status == "reference_empty" else 2 if row.is_scored else 3
    dice = row.dice if not math.isnan(row.dice) else 1.0
    return place, dice, -row.hd95_mm if not math.isnan(row.hd95_mm) else 0.0


def case_rows(table: ScoreTable, expected: ExpectedDice) -> list[CaseRow]:
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
            words, shape, sign = _status_of(row)
            cells = _cells({name: getattr(row, name) for name in columns}, case, row.label, expected)
            place, is_worst = places[row.label], row is worst
            rows.append(CaseRow(index, case, row.label, place, words, sign, shape, is_worst, cells, headline))
    return rows


def _status_of(row: LabelScores) -> tuple[str, str, str]:
    """The status of a row in words, its shape in a chart, and its sign."""
    words, shape, sign = _STATUS[row.status]
    if row.is_wholly_ignored and not row.is_scored:
        words = "wholly ignored: nothing is labelled"
    elif row.is_partly_labelled:
        words = _OF_STROKES.get(row.status, words)
    return words, shape, sign


def _headline(rows: Sequence[LabelScores]) -> str:
    """A case in one line: its scores, or the Dice of its worst labels."""
    if len(rows) == 1 and rows[0].status == "ok":
        row = rows[0]
        return f"Dice {row.dice:.3f} · NSD {row.nsd:.3f} · HD95 {row.hd95_mm:.2f} mm"
    parts = []
    for row in sorted(rows, key=_badness)[:_MOST_LABELS_NAMED]:
        words, _, sign = _status_of(row)
        name = f"{row.label} " if len(rows) > 1 else ""
        if row.status in ("ok", "partly_labelled"):
            of = "" if row.status == "ok" else " of the labelled voxels"
            parts.append(f"{name}Dice {row.dice:.3f}{of}")
        else:
            parts.append(f"{name}{sign} {words}")
    return " · ".join(parts) + (f" · {len(rows) - len(parts)} more labels" if len(rows) > len(parts) else "")


def _link(index: int) -> str:
    return f"#case-{index}"


def _links(order: Sequence[str]) -> dict[str, str]:
    return {case: _link(index) for index, case in enumerate(order)}


def score_sections(table: ScoreTable, summary: Summary, order: Sequence[str]) -> dict[str, Any]:
    """Everything above the cases: summaries, missed cases, distributions, definitions."""
    links = _links(order)
    definitions = summary.definitions.to_json()
    titles = TITLES | {"nsd": f"NSD within {summary.definitions.tolerance_mm:g} mm"}
    metrics: Any = definitions["metrics"]
    return {
        "summary": summary,
        "links": links,
        "overlaps": tuple(name for name in SHARES if name != "nsd"),
        "metrics": [(name, titles[name], _digits(name)) for name in (*SHARES, *DISTANCES)],
        "macro": _macro(summary) if len(summary.labels) > 1 else {},
        "missed_cases": _alert(table, links, is_miss=True),
        "false_cases": _alert(table, links, is_miss=False),
        "notes": table.notes,
        "definitions": {
            **{TITLES[name]: text for name, text in metrics.items()},
            "Distances are between": definitions["distances_between"],
            "NSD is between": definitions["nsd_between"],
            "Geometry": definitions["geometry"],
            "Empty masks": definitions["empty_masks"],
            "Ignored voxels": definitions["ignored_voxels"],
            "Partly labelled": definitions["partly_labelled"],
            "Intervals": summary.interval,
        },
        "distributions": [_distribution(table, name, titles[name], links) for name in _CHARTS],
    }


def _macro(summary: Summary) -> dict[str, str]:
    def line(values: Mapping[str, float]) -> str:
        known = (name for name in (*SHARES, *DISTANCES) if name in values)
        return ", ".join(f"{TITLES[name]} {_number(values[name], _digits(name))}" for name in known)

    return {"mean over labels": line(summary.macro), "all voxels together": line(summary.micro)}


def _alert(table: ScoreTable, links: Mapping[str, str], *, is_miss: bool) -> list[tuple[str, str, str]]:
    """The cases that a reader must look at: id, link and reason."""
    by_case: dict[str, list[LabelScores]] = {}
    for row in table.rows:
        if row.is_miss if is_miss else row.status == "reference_empty":
            by_case.setdefault(row.case, []).append(row)
    cases = []
    for case, rows in by_case.items():
        reasons = [row.label for row in rows] if len(table.labels) > 1 else []
        if is_miss:
            reasons.append(_status_of(rows[0])[0].partition(": ")[2])
        cases.append((case, links[case], ", ".join(reasons)))
    return cases


def _distribution(table: ScoreTable, name: str, title: str, links: Mapping[str, str]) -> str:
    def marks(label: str) -> Iterator[Mark]:
        for row in table.rows:
            value = row.counted(name)
            if row.label == label and not math.isnan(value):
                yield _mark(row, value, 0.0, links, f"{title} {_number(value, 3)}")

    rows = [(label, list(marks(label))) for label in table.labels[:_MOST_LABELS_CHARTED]]
    return strip_chart(rows, title, is_share=name in SHARES)


def _mark(row: LabelScores, x: float, y: float, links: Mapping[str, str], text: str) -> Mark:
    words, shape, _ = _status_of(row)
    more = "" if row.status == "ok" else f" ({words})"
    return Mark(x, y, row.case, links[row.case], shape, f"{row.case}: {text}{more}")


def volume_sections(table: ScoreTable, summary: Summary, order: Sequence[str]) -> list[dict[str, Any]]:
    """Predicted against reference volume of each label, with limits of agreement."""
    links = _links(order)
    sections = []
    for label in summary.labels[:_MOST_VOLUME_CHARTS]:
        rows = [row for row in table.rows if row.label == label.label and row.is_scored]
        rows = [row for row in rows if math.isfinite(row.reference_ml) and math.isfinite(row.prediction_ml)]
        if not rows:
            continue
        equal, differences = [], []
        for row in rows:
            reference, prediction = row.reference_ml, row.prediction_ml
            text = f"reference {reference:.3g} ml, prediction {prediction:.3g} ml"
            equal.append(_mark(row, reference, prediction, links, text))
            differences.append(_mark(row, (reference + prediction) / 2, prediction - reference, links, text))
        charts = [
            identity_chart(equal),
            agreement_chart(
                differences,
                bias=label.volume.mean_ml,
                limits=_limits(label.volume),
            ),
        ]
        sections.append({"label": label.label, "left_out": label.scored - len(rows), "charts": charts})
    return sections


def prediction_rows(masks: Sequence[PredictedCase], labels: Sequence[str], expected: ExpectedDice) -> list[CaseRow]:
    """A row for each case and label of masks without references."""
    rows = []
    for index, mask in enumerate(masks):
        volumes = [mask.volumes_ml.get(label, math.nan) for label in labels]
        names = [f"{label} " if len(labels) > 1 else "" for label in labels]
        texts = ", ".join(f"{name}{volume:.3g} ml" for name, volume in zip(names, volumes, strict=True))
        headline = "; ".join((texts, *mask.flags))
        for place, (label, volume) in enumerate(zip(labels, volumes, strict=True)):
            flags = [flag for flag in mask.flags if not _is_of_another(flag, label, labels)]
            is_known = not math.isnan(expected.get(mask.case, {}).get(label, math.nan))
            status = "; ".join(flags) or mask.unflagged or ("no flags" if is_known else "no flags, not assessed")
            sign, shape = ("▲", "triangle") if flags else ("", "circle")
            cells = _cells({"prediction_ml": volume}, mask.case, label, expected)
            rows.append(CaseRow(index, mask.case, label, place, status, sign, shape, place == 0, cells, headline))
    return rows


def prediction_charts(masks: Sequence[PredictedCase], labels: Sequence[str]) -> list[str]:
    """A chart of the volumes of each label."""
    charts = []
    for label in labels[:_MOST_LABELS_CHARTED]:
        marks = []
        for index, mask in enumerate(masks):
            volume = mask.volumes_ml.get(label, math.nan)
            if not math.isnan(volume):
                shape = "circle" if volume > 0 else "cross"
                text = f"{mask.case}: {volume:.3g} ml"
                marks.append(Mark(volume, 0.0, mask.case, _link(index), shape, text))
        if marks:
            charts.append(strip_chart([(label, marks)], f"{label} (ml)", is_share=False))
    return charts


def _is_of_another(flag: str, label: str, labels: Sequence[str]) -> bool:
    """True if a flag of `medfcn predict` names another label than this one."""
    return any(
        flag.startswith(f"review {other}: ") or flag == f"{other} not found" for other in labels if other != label
    )


def training_charts(log: Mapping[str, Sequence[float]], *, is_partly: bool = False) -> list[str]:
    """Loss, both Dice and learning rate over the steps of a training; empty without a log.

    Args:
        log: The columns of `log.csv`.
        is_partly: The validation Dice is of the labelled voxels alone, which are less than half of some cases.
    """
    steps = log.get("step", ())
    last_step = max((step for step in steps if abs(step) < _LARGEST_DRAWN), default=1.0)
    charts = []
    for name, title, is_share in (
        ("loss", "Training loss", False),
        ("validation_dice", f"Validation Dice{' of the labelled voxels' if is_partly else ''}", True),
        ("curve_dice", "Dice of a few validation slices", True),
        ("learning_rate", "Learning rate", False),
    ):
        points = [(x, y) for x, y in zip(steps, log.get(name, ()), strict=False) if abs(x) + abs(y) < _LARGEST_DRAWN]
        if points:
            charts.append(curve_chart(points, title, last_step=last_step, is_share=is_share))
    return charts
