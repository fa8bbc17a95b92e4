"""`report.html`: one file that opens from disk, offline, and shows scores with the volumes behind them.

The page loads nothing: its content-security policy forbids it, and allows only the scripts and the style sheet that
came with medfcn, by their hashes. Text of cases and labels goes through jinja2's autoescape, an XML tree, or JSON
whose `<`, `>` and `&` are escaped.

jinja2 is imported when a report is written.
"""

import base64
import hashlib
import json
import math
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medfcn.errors import MemoryShortError
from medfcn.evaluation.paired_differences import Comparison
from medfcn.evaluation.paper_table import paper_text
from medfcn.evaluation.score_table import ScoreTable
from medfcn.files import make_folder, remove_half_written, write_bytes
from medfcn.labels.colours import Colours, names_coloured
from medfcn.memory import require_memory
from medfcn.memory_errors import one_memory_error
from medfcn.progress import Progress, reporting
from medfcn.reporting.comparing import calibration_section, comparison_section, strata_sections
from medfcn.reporting.packing import packed_case
from medfcn.reporting.sections import (
    FILTERS,
    CaseRow,
    ExpectedDice,
    PredictedCase,
    case_rows,
    column_titles,
    is_dice_expected,
    prediction_charts,
    prediction_rows,
    score_sections,
    training_charts,
    volume_sections,
)
from medfcn.reporting.strips import error_strip
from medfcn.reporting.upright import CaseVolumes, ReadCase, UprightCase, upright_case
from medfcn.text import printable
from medfcn.volumes.formats.stored import is_of_one_value

if TYPE_CHECKING:
    from jinja2 import Template

NOTICE = "Research use only; not a medical device."

_VOLUME_BYTES, _STRIP_BYTES = 12_500_000, 3_000_000
_LEAST_CASE_BYTES, _MOST_CASE_BYTES = 40_000, 1_500_000
_WORST_SHOWN, _MOST_STRIPS = 6, 100
_PICTURE_BYTES = 6
"""Memory that the pictures of a case take for each voxel, besides its volumes."""
_SCRIPTS = ("surfaces.js", "viewer.js", "table.js", "saving.js")


@dataclass(frozen=True)
class About:
    """Everything that a report says besides its cases.

    Attributes:
        title: The heading.
        subtitle: One line below it.
        overlaps: Names of the overlaps that masks contain, if labels overlap.
        failures: Cases without a mask, with the reason.
        facts: Settings, versions and hashes: tables by their headings.
        log: Columns of a training's `log.csv`, by name, for its curves; `nan` where a field is empty.
        expected_dice: The Dice to expect of each mask without a reference; empty if it is not known.
        comparison: The differences from other predictions, if there are others.
        colours: Chosen colours, by the name of a label or overlap; the others have those of the palette. With one
            label, the colour shows whose outline it is; with several, which label.
        mask: The word for a mask without a reference.
        order: The order of the cases, in words.
        charts: Further charts beside those of volumes, as SVG.
        findings: Lines above the cases.
        course: Pictures of the same validation slices during the training, as PNG, by the step.
    """

    title: str = "Evaluation"
    subtitle: str = ""
    overlaps: tuple[str, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()
    facts: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    log: Mapping[str, Sequence[float]] = field(default_factory=dict)
    expected_dice: ExpectedDice = field(default_factory=dict)
    comparison: Comparison | None = None
    colours: Colours = field(default_factory=dict)
    mask: str = "Prediction"
    order: str = ""
    charts: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    course: Mapping[int, bytes] = field(default_factory=dict)


def write_report(
    path: Path | str,
    table: ScoreTable,
    read_case: ReadCase,
    *,
    about: About | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the report of an evaluation.

    Cases are read one after the other, the worst first, and are not kept. Volumes that do not fit into about 20 MB
    for the whole page are thinned; the page says so where they are shown.

    Args:
        path: The file, written whole or not at all.
        table: The scores. The report never computes one.
        read_case: Returns a case's volumes; masks contain indices of `table.labels`, or of `about.overlaps`, from 1.
        about: Title, settings, versions, hashes and the training's log.
        progress: Where progress is reported.

    Returns:
        `path`.
    """
    about = about or About()
    summary, rows = table.summary(), case_rows(table, about.expected_dice)
    order = tuple(dict.fromkeys(row.case for row in rows))
    pictures = _pictures(order, _drawn(about, table.labels), read_case, progress)
    sections = score_sections(table, summary, order)
    context = {
        "has_scores": True,
        "is_partly": bool(summary.partly_labelled),
        "unusable": table.missed,
        "failures": table.unscored,
        "columns": column_titles(table, about.expected_dice),
        "volumes": volume_sections(table, summary, order),
        "comparison": comparison_section(about.comparison, sections["links"]),
        "strata": strata_sections(summary.strata),
        "calibration": calibration_section(table.calibration),
        "saved": {"summary": {kind: paper_text(table, f".{kind}") for kind in ("csv", "tex")}},
        **sections,
    }
    return _write(path, about, table.labels, rows, pictures, context)


def write_prediction_report(
    path: Path | str,
    cases: Sequence[str],
    labels: Sequence[str],
    read_case: ReadCase,
    row_of: Callable[[str], PredictedCase],
    *,
    about: About | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the lighter report of masks without references: masks over images, and volumes.

    Args:
        path: The file, written whole or not at all.
        cases: The ids of the cases, in their order.
        labels: Names of labels.
        read_case: Returns a case's volumes; masks contain indices of `labels`, or of `about.overlaps`, from 1.
        row_of: Returns a case's volumes in millilitres and its flags; called after its volumes were read.
        about: Title, failures, settings, versions and hashes.
        progress: Where progress is reported.

    Returns:
        `path`.
    """
    about = about or About(title="Predictions")
    pictures = _pictures(cases, _drawn(about, labels), read_case, progress)
    masks = [row_of(case) for case in cases]
    context = {
        "has_scores": False,
        "is_partly": False,
        "failures": about.failures,
        "columns": column_titles(None, about.expected_dice),
        "calibration": None,
        "saved": {},
        "distributions": [*prediction_charts(masks, labels), *about.charts],
    }
    return _write(path, about, labels, prediction_rows(masks, labels, about.expected_dice), pictures, context)


@dataclass(frozen=True)
class _Picture:
    """A case in the page: slices, and volumes as JSON text; empty if there is no room for them."""

    case: str
    index: int
    strip: str = ""
    volumes: str = ""
    notes: tuple[str, ...] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)
    has_uncertainty: bool = False


def _pictures(
    order: Sequence[str], drawn: Sequence[Mapping[str, str]], read_case: ReadCase, progress: Progress | None
) -> list[_Picture]:
    """Strips and volumes, worst case first, as long as there is room; `drawn` has the colours."""
    share = _VOLUME_BYTES // max(len(order), 1)
    most_bytes = min(max(share, _LEAST_CASE_BYTES), _MOST_CASE_BYTES)
    side = int(min(200.0, max(64.0, math.sqrt(_STRIP_BYTES / max(len(order), 1) / 4))))
    colours = [(colour["reference"], colour["prediction"]) for colour in drawn]
    pictures, used = [], 0
    with reporting(progress).task("report", len(order)) as task:
        for index, case in enumerate(order):
            has_room = used + most_bytes <= max(_VOLUME_BYTES, most_bytes)
            strip_pixels = None if index >= _MOST_STRIPS else 320 if index < _WORST_SHOWN else side
            place = _Picture(case, index)
            if has_room or strip_pixels is not None:
                volumes_bytes = most_bytes if has_room else None
                place = _drawn_picture(place, read_case, colours, strip_pixels=strip_pixels, most_bytes=volumes_bytes)
            pictures.append(place)
            used += len(place.volumes)
            task.advance(case)
    return pictures


def _drawn_picture(
    place: _Picture,
    read_case: ReadCase,
    colours: Sequence[tuple[str, str]],
    *,
    strip_pixels: int | None,
    most_bytes: int | None,
) -> _Picture:
    """A case with its slices, and its volumes; one that is None is left out, and both where memory is short."""
    try:
        with one_memory_error(place.case):
            read = read_case(place.case)
            place = replace(place, notes=read.notes, hashes=read.hashes)
            upright = _upright(read)
            if upright is None:
                return place
            place = replace(place, notes=upright.notes)
            strip = "" if strip_pixels is None else error_strip(upright, colours, most_pixels=strip_pixels)
            packed = "" if most_bytes is None else safe_json(packed_case(upright, most_bytes=most_bytes))
    except MemoryShortError as error:
        return replace(place, notes=(*place.notes, f"not shown: {error}"))
    has_uncertainty = bool(packed) and upright.uncertainty is not None
    return replace(place, strip=strip, volumes=packed, has_uncertainty=has_uncertainty)


def _upright(read: CaseVolumes) -> UprightCase | None:
    """The case turned upright, if there is memory for its pictures."""
    arrays = [volume.array for volume in (read.reference, read.prediction) if volume is not None]
    voxels = max((array.size for array in arrays if not is_of_one_value(array)), default=0)
    require_memory(_PICTURE_BYTES * voxels, "the pictures")
    return upright_case(read)


def _drawn(about: About, labels: Sequence[str]) -> list[dict[str, str]]:
    """The name and both colours of each label or overlap that masks contain."""
    names = about.overlaps or labels
    colours = names_coloured(names, [()] * len(names), about.colours)
    return [
        {"name": printable(name), "reference": reference, "prediction": prediction}
        for name, (reference, prediction) in zip(names, colours, strict=True)
    ]


def drawn_labels(about: About, labels: Sequence[str]) -> list[tuple[str, str]]:
    """The name and colour of each label or overlap that masks contain."""
    return [(each["name"], each["prediction"]) for each in _drawn(about, labels)]


def safe_json(value: object) -> str:
    """JSON that can be put into a `<script>` element: nothing in it closes the element or opens another.

    Example:
        >>> safe_json({"case": "</script><b>&"})
        '{"case":"\\\\u003c/script\\\\u003e\\\\u003cb\\\\u003e\\\\u0026"}'
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _write(
    path: Path | str,
    about: About,
    labels: Sequence[str],
    rows: Sequence[CaseRow],
    pictures: Sequence[_Picture],
    context: Mapping[str, Any],
) -> Path:
    """Fill the page."""
    from markupsafe import Markup

    folder = files("medfcn.reporting") / "templates"
    style = (folder / "report.css").read_text(encoding="utf-8")
    scripts = [(folder / name).read_text(encoding="utf-8") for name in _SCRIPTS]
    drawn = _drawn(about, labels)
    data = {
        "hasReference": context["has_scores"],
        "labels": drawn,
        "saved": context["saved"],
        "cases": [{"id": printable(picture.case), "has": bool(picture.volumes)} for picture in pictures],
    }
    page = _template().render(
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
        rows=rows,
        headlines={row.case: row.headline for row in rows},
        worst=[picture for picture in pictures[:_WORST_SHOWN] if picture.strip],
        others=[picture for picture in pictures[_WORST_SHOWN:] if picture.strip],
        unseen=[picture.case for picture in pictures if not picture.volumes],
        pictures=pictures,
        has_uncertainty=any(picture.has_uncertainty for picture in pictures),
        course=[
            (step, f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}")
            for step, png in sorted(about.course.items())
        ],
        training=training_charts(about.log, is_partly=context["is_partly"]),
        facts={**about.facts, "Versions of this report": _versions()},
        count=len(pictures),
        is_dice_expected=is_dice_expected(about.expected_dice),
        **context,
    )
    path = Path(path)
    make_folder(path.parent)
    remove_half_written(path.parent, path.name)
    write_bytes(path, page.encode("utf-8"))
    return path


def _template() -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("medfcn.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Characters that a terminal or a browser would act upon, such as marks for the direction, are spelled out.
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters |= {**FILTERS, "svg": Markup}
    return environment.get_template("report.html.jinja")


def _policy(style: str, scripts: Iterable[str]) -> str:
    """The page may use these scripts, this style sheet and the pictures in it; nothing else."""

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
