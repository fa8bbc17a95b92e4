"""Pictures for slides: one PNG a case, its labels over the image in three planes, with a legend and a scale bar.

matplotlib is imported when a picture is drawn; its display and its global state are not used.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from medfcn.errors import MemoryShortError, SettingsError
from medfcn.files import atomic_write, remove_half_written
from medfcn.memory_errors import one_memory_error
from medfcn.progress import Progress
from medfcn.reporting.panels import PLANES, Panel, panel_of
from medfcn.reporting.pictures import haloed
from medfcn.reporting.upright import CaseVolumes, ReadCase, SliceOfCase, UprightCase, upright_case
from medfcn.text import did_you_mean, one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

Ground = Literal["dark", "light"]
FULLEST = "fullest"
_PAPERS: dict[Ground, tuple[str, str]] = {"dark": ("#101418", "#E8ECEF"), "light": ("#FFFFFF", "#1B2126")}
"""Colours of the ground and of the words on it."""
_INCHES, _DOTS = (12.8, 7.2), 150
"""1920 × 1080 pixels."""
_MARGIN_MM, _WHOLE_MM = 20.0, 1e9
_FILL = 0.35
_MOST_NAMED = 40


@dataclass(frozen=True)
class SlideStyle:
    """The look of a picture for a slide.

    Attributes:
        ground: `dark` or `light`.
        slices: Number of the slice, from 1, by plane; empty for the slices of the three planes with most of the
            labels.
    """

    ground: Ground = "dark"
    slices: Mapping[str, int] | None = None

    @classmethod
    def parse(cls, ground: str = "dark", slices: str = FULLEST) -> "SlideStyle":
        """Read a style.

        Args:
            ground: `dark` or `light`.
            slices: `fullest`, or `PLANE=N[,PLANE=N]` with numbers from 1, as the page shows them.

        Raises:
            SettingsError: There is no such ground or plane, or a number is none.

        Example:
            >>> SlideStyle.parse("light", "axial=12, coronal=30").slices
            {'axial': 12, 'coronal': 30}
        """
        if ground not in get_args(Ground):
            raise SettingsError(f"ground: {ground!r} is neither dark nor light", field="ground")
        return cls(ground, None if slices.strip() == FULLEST else _slices(slices))  # type: ignore[arg-type]


def _slices(text: str) -> dict[str, int]:
    chosen: dict[str, int] = {}
    for part in text.split(","):
        plane, _, number = (piece.strip() for piece in part.partition("="))
        if plane not in PLANES or not number.isascii() or not number.isdigit() or int(number) < 1:
            hint = did_you_mean(plane, PLANES) if number.isdigit() and plane not in PLANES else ""
            raise SettingsError(
                f"slices: {part.strip()!r} is not PLANE=N{hint}; write fullest, or for example axial=12,coronal=30",
                field="slices",
            )
        chosen[plane] = int(number)
    return chosen


def slide_path(folder: Path | str, case: str) -> Path:
    """The file of a case's picture."""
    return Path(folder) / f"{case}.png"


def write_slides(
    folder: Path,
    cases: Sequence[str],
    read: ReadCase,
    labels: Sequence[tuple[str, str]],
    style: SlideStyle,
    progress: Progress,
) -> list[tuple[str, str]]:
    """Write `<case>.png` for each case, as `write_slide` does.

    Returns:
        The cases without a picture, with the reason.
    """
    failures = []
    folder.mkdir(parents=True, exist_ok=True)
    with progress.task("png", len(cases)) as task:
        for case in cases:
            try:
                with one_memory_error(case):
                    write_slide(slide_path(folder, case), case, read(case), labels, style)
            except (MemoryShortError, SettingsError) as error:
                failures.append((case, str(error)))
            task.advance(case)
    return failures


def write_slide(
    path: Path, title: str, volumes: CaseVolumes, labels: Sequence[tuple[str, str]], style: SlideStyle
) -> None:
    """Draw a case: its mask over its image in up to three planes.

    The patient's right is on the left of axial and coronal planes, anterior on the left of sagittal ones; letters
    name the directions. All planes have one scale.

    Args:
        path: The PNG, written whole or not at all.
        title: Words above the planes; they get smaller until they fit.
        volumes: The case; `prediction` is the mask, as indices of `labels`.
        labels: The name and colour of each label or overlap.
        style: See `SlideStyle`.

    Raises:
        SettingsError: The volume has no slice of a chosen number.
    """
    upright = upright_case(volumes, margin_mm=_MARGIN_MM if style.slices is None else _WHOLE_MM)
    if upright is None:
        return
    panels = _panels(upright, style, title)
    figure = _drawn(title, panels, upright.window, labels, *_PAPERS[style.ground])
    remove_half_written(path.parent, path.name)
    with atomic_write(path) as file, warnings.catch_warnings():
        # The name of a case may be in a script that matplotlib's font does not have.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(file, format="png", facecolor=figure.get_facecolor(), metadata={"Software": None})


def _panels(case: UprightCase, style: SlideStyle, title: str) -> list[Panel]:
    if style.slices is None:
        return [panel_of(case, at) for at in case.largest_slices()]
    panels = []
    for plane, number in style.slices.items():
        axis = PLANES.index(plane)
        if number > case.full_shape[axis]:
            raise SettingsError(
                f"{title}: has {case.full_shape[axis]} {plane} slices and no number {number}; choose another",
                field="slices",
            )
        panels.append(panel_of(case, SliceOfCase(axis, number - 1, 0.0, (0, 0, 0))))
    return panels


def _drawn(
    title: str,
    panels: Sequence[Panel],
    window: tuple[float, float],
    labels: Sequence[tuple[str, str]],
    paper: str,
    ink: str,
) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, dpi=_DOTS, facecolor=paper)
    FigureCanvasAgg(figure)
    seen = sorted(
        {int(label) for panel in panels if panel.prediction is not None for label in np.unique(panel.prediction)}
    )
    legend_height = _legend(figure, [labels[label - 1] for label in seen if 0 < label <= len(labels)], ink)
    heading = figure.text(
        0.5, 0.985, one_line(title), color=ink, fontsize=22, ha="center", va="top", parse_math=False
    )
    _fit(figure, heading, 0.97)
    total = sum(panel.width_mm for panel in panels)
    tallest = max(panel.height_mm for panel in panels)
    gap, bottom, top = 0.012, 0.025 + legend_height, 0.875
    room = 1 - gap * (len(panels) + 1)
    # One scale: millimetres to inches, as large as width and height allow.
    scale = min(room * _INCHES[0] / total, (top - bottom) * _INCHES[1] / tallest)
    left = (1 - total * scale / _INCHES[0] - gap * (len(panels) - 1)) / 2
    middle = (top + bottom) / 2
    for panel in panels:
        width, height = panel.width_mm * scale / _INCHES[0], panel.height_mm * scale / _INCHES[1]
        axis = figure.add_axes((left, middle - height / 2, width, height))
        _draw(axis, panel, window, labels)
        caption = figure.text(
            left + width / 2,
            middle + height / 2 + 0.008,
            panel.caption,
            color=ink,
            fontsize=13,
            ha="center",
            va="bottom",
        )
        _fit(figure, caption, max(width, 0.05))
        left += width + gap
    return figure


def _draw(axis: "Axes", panel: Panel, window: tuple[float, float], labels: Sequence[tuple[str, str]]) -> None:
    """The slice in grey, the labels as tints with outlines, letters at the edges, and a scale bar."""
    from matplotlib.colors import to_rgb

    width, height = panel.width_mm, panel.height_mm
    axis.set_axis_off()
    extent = (0.0, width, height, 0.0)
    shape = next(array.shape for array in (panel.picture, panel.prediction) if array is not None)
    picture = np.zeros(shape) if panel.picture is None else np.asarray(panel.picture, dtype=np.float64)
    axis.imshow(
        picture, cmap="gray", vmin=window[0], vmax=window[1], extent=extent, interpolation="bilinear", aspect="auto"
    )
    if panel.prediction is not None:
        tint = np.zeros((*panel.prediction.shape, 4))
        for place, (_, colour) in enumerate(labels, start=1):
            tint[panel.prediction == place] = (*to_rgb(colour), _FILL)
        axis.imshow(tint, extent=extent, interpolation="nearest", aspect="auto")
        for label, loops in panel.outlines(panel.prediction):
            for loop in loops:
                axis.plot(*zip(*loop, loop[0], strict=True), color=labels[label - 1][1], linewidth=1.6)
    axis.set_xlim(0, width)
    axis.set_ylim(height, 0)
    places = ((0.03, 0.5), (0.97, 0.5), (0.5, 0.965), (0.5, 0.035))
    aligned = (("left", "center"), ("right", "center"), ("center", "top"), ("center", "bottom"))
    for letter, (x, y), (across, up) in zip(panel.letters, places, aligned, strict=True):
        words: dict[str, Any] = {"color": "white", "fontsize": 15, "fontweight": "bold", "ha": across, "va": up}
        haloed(axis.text(x, y, letter, transform=axis.transAxes, **words))
    bar_x, bar_y = 0.96 * width, 0.97 * height
    for colour, thickness in (("black", 6), ("white", 3)):
        axis.plot(
            [bar_x - panel.bar_mm, bar_x], [bar_y, bar_y], color=colour, linewidth=thickness, solid_capstyle="butt"
        )
    haloed(
        axis.text(bar_x, bar_y - 0.015 * height, panel.bar_text, color="white", fontsize=12, ha="right", va="bottom")
    )


def _legend(figure: "Figure", labels: Sequence[tuple[str, str]], ink: str) -> float:
    """The names of the labels in their colours, below the planes; returns the share of the height that they take."""
    from matplotlib.patches import Patch

    if not labels:
        return 0.0
    shown = [
        (one_line(name) if len(name) <= _MOST_NAMED else f"{one_line(name)[: _MOST_NAMED - 1]}…", colour)
        for name, colour in labels
    ]
    handles = [Patch(facecolor=(colour, _FILL), edgecolor=colour, linewidth=2, label=name) for name, colour in shown]
    for columns in range(min(len(handles), 8), 0, -1):
        legend = figure.legend(
            handles=handles,
            loc="lower center",
            ncols=columns,
            frameon=False,
            labelcolor=ink,
            fontsize=14 if len(handles) <= 16 else 9,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
        box = legend.get_window_extent()
        if box.width <= 0.98 * figure.bbox.width or columns == 1:
            return float(box.height / figure.bbox.height)
        legend.remove()
    return 0.0


def _fit(figure: "Figure", text: "Text", share: float) -> None:
    """Make words smaller until they take at most a share of the figure's width."""
    width = text.get_window_extent().width
    room = share * figure.bbox.width
    if width > room:
        text.set_fontsize(float(text.get_fontsize()) * room / width * 0.99)
