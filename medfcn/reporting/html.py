"""`report.html`: one file that opens from disk, offline, and shows what the scores were made from.

The page asks for nothing outside itself: its content-security policy forbids it, and allows only the scripts and the
style sheet that came with medfcn, by their hashes. Text of cases and labels goes through jinja2's autoescape, an XML
tree, or JSON whose `<`, `>` and `&` are escaped.

jinja2 is loaded when a report is written.
"""

import base64
import hashlib
import json
import math
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from medfcn.evaluation.score_table import ScoreTable
from medfcn.files import atomic_write
from medfcn.reporting.packing import packed_case
from medfcn.reporting.sections import (
    EXPECTED_DICE,
    ExpectedDice,
    PredictedCase,
    case_rows,
    prediction_columns,
    prediction_rows,
    score_sections,
    training_charts,
    volume_sections,
)
from medfcn.reporting.strips import error_strip
from medfcn.reporting.upright import ReadCase, upright_case
from medfcn.text import printable

__all__ = ["About", "PredictedCase", "write_prediction_report", "write_report"]

OnCase = Callable[[int, int, str], None]
"""Called after each case with how many are done, how many there are, and the case's id."""

NOTICE = "Research use only; not a medical device."

_VOLUME_BYTES, _STRIP_BYTES = 12_500_000, 3_000_000
_LEAST_CASE_BYTES, _MOST_CASE_BYTES = 40_000, 1_500_000
_WORST_SHOWN, _MOST_STRIPS = 6, 100
_SCRIPTS = ("surfaces.js", "viewer.js", "table.js")

# Okabe and Ito's colours, told apart by every kind of colour vision. With one label, colour says whose outline it is;
# with several, which label. Solid and dashed say whose it is in both.
_ONE_LABEL = ("#E69F00", "#56B4E9")
_PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#0072B2", "#D55E00", "#BBBBBB")


@dataclass(frozen=True)
class About:
    """What a report tells besides its scores.

    Attributes:
        title: In large letters.
        subtitle: One line under it.
        facts: Settings, versions and hashes: tables by their headings.
        log: Columns of a training's `log.csv`, by name, for its curves; `nan` where a field is empty.
        expected_dice: What was expected of masks without a reference; empty where nothing was.
    """

    title: str = "Evaluation"
    subtitle: str = ""
    facts: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    log: Mapping[str, Sequence[float]] = field(default_factory=dict)
    expected_dice: ExpectedDice = field(default_factory=dict)


def write_report(
    path: Path | str,
    table: ScoreTable,
    read_case: ReadCase,
    *,
    about: About | None = None,
    parts: Sequence[str] | None = None,
    on_case: OnCase | None = None,
) -> Path:
    """Write the report of an evaluation.

    Cases are read one after the other, the worst first, and let go. Volumes that do not fit into about 20 MB for the
    whole page are thinned, and the page says so where they are shown.

    Args:
        path: The file, written whole or not at all.
        table: The scores. The report never computes one.
        read_case: Reads a case's volumes; masks hold places in `table.labels`, or in `parts`, from 1.
        about: Title, settings, versions, hashes and the training's log.
        parts: Names of what is drawn, where that is not the labels because these overlap.
        on_case: Told after each case.

    Returns:
        `path`.
    """
    about = about or About()
    summary = table.summary()
    rows = case_rows(table, about.expected_dice)
    order = tuple(dict.fromkeys(row["case"] for row in rows))
    headlines = {row["case"]: row["headline"] for row in rows if row["is_worst"]}
    drawn = table.labels if parts is None else tuple(parts)
    pictures = _pictures(order, drawn, read_case, headlines, on_case)
    context = {
        "has_scores": True,
        "rows": rows,
        "failures": table.failures,
        **score_sections(table, summary, order, about.expected_dice),
        "volumes": volume_sections(table, summary, order),
    }
    return _write(path, about, order, (table.labels, drawn), pictures, context)


def write_prediction_report(
    path: Path | str,
    masks: Sequence[PredictedCase],
    labels: Sequence[str],
    read_case: ReadCase,
    *,
    about: About | None = None,
    parts: Sequence[str] | None = None,
    failures: Sequence[tuple[str, str]] = (),
    on_case: OnCase | None = None,
) -> Path:
    """Write the lighter report of masks without references: masks over images, and volumes.

    Args:
        path: The file, written whole or not at all.
        masks: In the order in which they are to be listed.
        labels: Names of labels.
        read_case: Reads a case's volumes; masks hold places in `labels`, or in `parts`, from 1.
        about: Title, settings, versions and hashes.
        parts: Names of what is drawn, where that is not the labels because these overlap.
        failures: Cases without a mask, with the reason.
        on_case: Told after each case.

    Returns:
        `path`.
    """
    about = about or About(title="Predictions")
    rows, charts = prediction_rows(masks, labels, about.expected_dice)
    order = tuple(mask.case for mask in masks)
    headlines = {row["case"]: row["headline"] for row in rows if row["is_worst"]}
    drawn = labels if parts is None else parts
    pictures = _pictures(order, drawn, read_case, headlines, on_case)
    context = {
        "has_scores": False,
        "rows": rows,
        "columns": prediction_columns(about.expected_dice),
        "failures": tuple(failures),
        "distributions": charts,
    }
    return _write(path, about, order, (labels, drawn), pictures, context)


@dataclass(frozen=True)
class _Picture:
    """What the page holds of one case: slices, and volumes as JSON text; empty when there is no room for them."""

    case: str
    index: int
    headline: str
    strip: str
    volumes: str
    notes: tuple[str, ...]
    hashes: Mapping[str, str]


def _pictures(
    order: Sequence[str],
    drawn: Sequence[str],
    read_case: ReadCase,
    headlines: Mapping[str, str],
    on_case: OnCase | None,
) -> list[_Picture]:
    """Strips and volumes, worst case first, as long as there is room."""
    share = _VOLUME_BYTES // max(len(order), 1)
    most_bytes = min(max(share, _LEAST_CASE_BYTES), _MOST_CASE_BYTES)
    side = int(min(200.0, max(64.0, math.sqrt(_STRIP_BYTES / max(len(order), 1) / 4))))
    colours = [(colour["reference"], colour["prediction"]) for colour in _label_colours(drawn)]
    pictures, used = [], 0
    for index, case in enumerate(order):
        has_room = used + most_bytes <= max(_VOLUME_BYTES, most_bytes)
        strip = packed = ""
        notes: tuple[str, ...] = ()
        hashes: dict[str, str] = {}
        if has_room or index < _MOST_STRIPS:
            read = read_case(case)
            upright = upright_case(read)
            notes, hashes = read.notes, dict(read.hashes)
            if upright is not None:
                notes = upright.notes
                if index < _MOST_STRIPS:
                    strip = error_strip(upright, colours, most_pixels=320 if index < _WORST_SHOWN else side)
                if has_room:
                    packed = safe_json(packed_case(upright, most_bytes=most_bytes))
                    used += len(packed)
        pictures.append(_Picture(case, index, headlines.get(case, ""), strip, packed, notes, hashes))
        if on_case is not None:
            on_case(index + 1, len(order), case)
    return pictures


def _label_colours(labels: Sequence[str]) -> list[dict[str, str]]:
    if len(labels) == 1:
        return [{"name": printable(labels[0]), "reference": _ONE_LABEL[0], "prediction": _ONE_LABEL[1]}]
    colours = [_PALETTE[place % len(_PALETTE)] for place in range(len(labels))]
    return [
        {"name": printable(name), "reference": colour, "prediction": colour}
        for name, colour in zip(labels, colours, strict=True)
    ]


def safe_json(value: object) -> str:
    """JSON that can stand inside a `<script>` element: nothing in it closes the element or opens another.

    Example:
        >>> safe_json({"case": "</script><b>&"})
        '{"case":"\\\\u003c/script\\\\u003e\\\\u003cb\\\\u003e\\\\u0026"}'
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _write(
    path: Path | str,
    about: About,
    order: Sequence[str],
    names: tuple[Sequence[str], Sequence[str]],
    pictures: Sequence[_Picture],
    context: Mapping[str, Any],
) -> Path:
    """Fill the page; `names` are those of the labels that are scored and of what is drawn."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("medfcn.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # What a terminal or a browser would act upon, such as marks that turn the direction of writing, is spelled
        # out.
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters["svg"] = Markup
    folder = files("medfcn.reporting") / "templates"
    style = (folder / "report.css").read_text(encoding="utf-8")
    scripts = [(folder / name).read_text(encoding="utf-8") for name in _SCRIPTS]
    labels, drawn = [printable(name) for name in names[0]], _label_colours(names[1])
    data = {
        "hasReference": context["has_scores"],
        "labels": drawn,
        "cases": [
            {"id": printable(case), "has": bool(picture.volumes)}
            for case, picture in zip(order, pictures, strict=True)
        ],
    }
    page = environment.get_template("report.html.jinja").render(
        about=about,
        notice=NOTICE,
        today=datetime.now(UTC).date().isoformat(),
        policy=_policy(style, scripts),
        style=Markup(style),
        scripts=[Markup(script) for script in scripts],
        data=Markup(safe_json(data)),
        case_data=[(picture.index, Markup(picture.volumes)) for picture in pictures if picture.volumes],
        labels=labels,
        drawn=drawn,
        worst=[picture for picture in pictures[:_WORST_SHOWN] if picture.strip],
        others=[picture for picture in pictures[_WORST_SHOWN:] if picture.strip],
        unseen=[picture.case for picture in pictures if not picture.volumes],
        pictures=pictures,
        training=training_charts(about.log),
        facts={**about.facts, "Versions of this report": _versions()},
        count=len(order),
        is_dice_expected=EXPECTED_DICE in context["columns"],
        **context,
    )
    path = Path(path)
    with atomic_write(path) as file:
        file.write(page.encode("utf-8"))
    return path


def _policy(style: str, scripts: Iterable[str]) -> str:
    """The page may run these scripts and this style sheet and show pictures it holds; nothing else."""

    def hashed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"

    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(hashed(script) for script in scripts)}",
            f"style-src {hashed(style)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _versions() -> dict[str, object]:
    return {
        **{name: version(name) for name in ("medfcn", "numpy", "scipy", "nibabel")},
        "Python": platform.python_version(),
    }
