"""A network as a diagram: the encoder's maps above, the fused maps below, skips between them, a column per stride.

It is drawn without a display and without touching the global state of matplotlib.
"""

import math
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle

from medfcn.errors import SettingsError
from medfcn.files import atomic_write, make_folder, refuse_existing_file, remove_half_written
from medfcn.networks.describe.listing import shape_text, short_number, size_text
from medfcn.networks.describe.stages import NetworkSummary, Stage

# The same network gives the same bytes: no dates.
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}

# Lengths are inches. The colours are those of Okabe and Ito: every kind of colour vision can tell them apart.
_PITCH, _TALLEST, _SHORTEST = 1.74, 1.5, 0.09
_SLICE_X = 0.8
"""The middle of the slice and of the logits, from the left edge."""
_FUSED_Y = 0.82 + _TALLEST / 2
"""The middle of the fused maps, from the lower edge."""
_ENCODER_Y = _FUSED_Y + _TALLEST + 0.95
_SCORES_Y = _FUSED_Y + _TALLEST / 2 + 0.3
_HEIGHT = _ENCODER_Y + _TALLEST / 2 + 1.95
_FUSED_LEFT_BY = 0.54
"""Distance of a fused map from the middle of its column, where the skip comes down to the join."""
_BAND_LEFT_BY = 1.06
"""Distance of the left edge of a stride's field from the middle of its column."""
_JOIN_RADIUS = 0.1
_LINE = 0.145
"""Distance between two lines of a label."""
_INK, _SOFT, _FAINT = "#20262C", "#5F6B76", "#F1F3F5"
_ENCODER, _FUSED, _SLICE = ("#B9DDF3", "#2B7FB0"), ("#F8DCA0", "#B87B00"), ("#DDE1E4", "#6B747C")


def picture_format(path: Path | str) -> str:
    """The format of a picture from the ending of its path: `png`, `svg` or `pdf`.

    Raises:
        SettingsError: It has another ending.

    Example:
        >>> picture_format("fcn8s.SVG")
        'svg'
    """
    ending = Path(path).suffix.lower().removeprefix(".")
    if ending not in _METADATA:
        raise SettingsError(
            f"picture {Path(path).name!r} does not end in .png, .svg or .pdf; name it so", field="picture"
        )
    return ending


def draw_network(summary: NetworkSummary, path: Path | str, *, overwrite: bool = False) -> Path:
    """Draw a network as a PNG, SVG or PDF.

    Args:
        summary: The network; see `network_figure`.
        path: The file to write, whole or not at all; its ending chooses the format.
        overwrite: Replace an existing file.

    Returns:
        `path`.

    Raises:
        SettingsError: `path` has another ending.
        OutputExistsError: The file exists, and `overwrite` is false.
    """
    path = Path(path)
    ending = picture_format(path)
    refuse_existing_file(path, overwrite=overwrite)
    figure = network_figure(summary)
    # The salt keeps the names inside an SVG the same.
    make_folder(path.parent)
    remove_half_written(path.parent, path.name)
    with atomic_write(path) as file, matplotlib.rc_context({"svg.hashsalt": "medfcn"}):
        figure.savefig(file, format=ending, metadata=_METADATA[ending])
    return path


def network_figure(summary: NetworkSummary) -> Figure:
    """The diagram of a network, as a matplotlib figure.

    Each map is a box: its height is the root of the map's rows, its width the logarithm of its channels. The
    encoder's maps stand above, from left to right; the fused ones below, each in the column of its stride. Small
    boxes on the arrows name the operations between two maps.
    """
    drawing = _Drawing(summary)
    drawing.bands()
    drawing.heading()
    drawing.encoder()
    drawing.decoder()
    return drawing.figure


@dataclass(frozen=True)
class _Box:
    """The box of a map, by its middle."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> float:
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width / 2

    @property
    def top(self) -> float:
        return self.y + self.height / 2

    @property
    def bottom(self) -> float:
        return self.y - self.height / 2


class _Drawing:
    """Puts the parts of one network on the axes of a figure.

    Attributes:
        figure: The result.
        columns: For each stride of the encoder, the middle of its column.
        levels: The boxes of the encoder's maps, finest first.
    """

    def __init__(self, summary: NetworkSummary) -> None:
        self.summary = summary
        # Between the last map and the logits, the arrow needs room for its text.
        tail = sum(_operation_width(text) + 0.22 for text in _tail(summary)) + 0.75
        finest = sum(stride < summary.finest_stride for stride in summary.encoder_strides)
        first = _SLICE_X + max(2.0, tail + _FUSED_LEFT_BY - finest * _PITCH)
        self.columns = {stride: first + number * _PITCH for number, stride in enumerate(summary.encoder_strides)}
        self.levels: list[_Box] = []
        width = max(first + (len(self.columns) - 1) * _PITCH + 0.85, 4.4)
        self.figure = Figure(figsize=(width, _HEIGHT), dpi=110, facecolor="white")
        FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.axes.set_xlim(0, width)
        self.axes.set_ylim(0, _HEIGHT)

    def bands(self) -> None:
        """A faint field behind the maps of each stride, with its name at the foot."""
        top = _ENCODER_Y + _TALLEST / 2 + 0.72
        for number, (stride, x) in enumerate(self.columns.items()):
            left = x - _BAND_LEFT_BY
            if number % 2 == 0:
                field = Rectangle((left, 0.1), _PITCH, top - 0.1, facecolor=_FAINT, edgecolor="none", zorder=0)
                self.axes.add_patch(field)
            self._text(left + _PITCH / 2, 0.2, f"stride {stride}", fontsize=8, color=_SOFT)

    def heading(self) -> None:
        """The name of the network, its cost, and the meaning of the boxes and signs."""
        summary = self.summary
        line = _HEIGHT - 0.32
        self._text(0.25, line, summary.name, fontsize=15, fontweight="bold", ha="left")
        costs = f"{summary.parameters:,} parameters · {short_number(summary.multiply_adds)} multiply-adds"
        padded = "" if summary.padded == summary.size else f" · padded to {size_text(summary.padded)} inside"
        edge = summary.receptive_field
        more = " (more than the slice has)" if edge > max(summary.size) else ""
        signs = ["boxes: channels × rows × columns"]
        fusions = summary.part("fusion")
        if fusions:
            signs.append(f"×2: {fusions[0].made_of[0].removeprefix('×2 ')}")
        joins = {fusion.join for fusion in fusions}
        signs += ["+: sum"] * ("+" in joins) + ["c: concatenation"] * ("concat" in joins)
        line -= 0.27
        lines = (f"{costs}{padded}", f"a logit sees {edge} × {edge} pixels{more}", " · ".join(signs))
        for number, text in enumerate(lines):
            self._text(0.25, line - 1.15 * number * _LINE, text, fontsize=8.5, color=_SOFT, ha="left")

    def encoder(self) -> None:
        """The slice and the encoder's maps, from left to right."""
        before = self._slice(_ENCODER_Y, "slice", shape_text(self.summary.channels_in, self.summary.size))
        for stage in self.summary.part("encoder"):
            box = self._map(self.columns[stage.stride], _ENCODER_Y, stage, _ENCODER)
            self._arrow((before.right, before.y), (box.left, box.y))
            lines = [shape_text(stage.channels, stage.size), *reversed(_wrapped(stage.made_of))]
            self._lines(box.x, box.top + 0.1, lines, step=_LINE)
            above = box.top + 0.1 + len(lines) * _LINE + 0.01
            self._text(box.x, above, stage.name, fontsize=9, fontweight="bold")
            self.levels.append(box)
            before = box

    def decoder(self) -> None:
        """Scores, fusions and the operations after them, from right to left."""
        deepest = self.levels[-1]
        scores = {stage.level: stage for stage in self.summary.part("score")}
        last: tuple[float, float] | None = None
        score = scores.get(len(self.levels) - 1)
        if score is not None:
            box = self._map(deepest.x, _FUSED_Y, score, _FUSED)
            self._arrow((deepest.x, deepest.bottom), (box.x, box.top))
            self._operation(deepest.x, _SCORES_Y, score.made_of[0])
            self._lines(box.x, box.bottom - 0.13, [shape_text(score.channels, score.size)], step=-_LINE)
            last = (box.left, _FUSED_Y)
        for stage in self.summary.part("fusion"):
            last = self._fusion(stage, last, scores)
        self._logits(last)

    def _fusion(
        self, stage: Stage, last: tuple[float, float] | None, scores: dict[int | None, Stage]
    ) -> tuple[float, float]:
        """One step of the decoder; returns where the next one starts."""
        y, column = _FUSED_Y, self.columns[stage.stride]
        box = self._map(column - _FUSED_LEFT_BY, y, stage, _FUSED)
        joined = stage.join is not None
        end = column + _JOIN_RADIUS if joined else box.right
        self._from_right(last, end)
        right = last[0] if last is not None else self.levels[-1].x
        self._operation((max(end, right - 1.0) + right) / 2, y, "×2")
        if joined and stage.level is not None:
            skip = self.levels[stage.level]
            self._arrow((skip.x, skip.bottom), (column, y + _JOIN_RADIUS))
            if stage.level in scores:
                self._operation(skip.x, _SCORES_Y, scores[stage.level].made_of[0])
            circle = Circle((column, y), _JOIN_RADIUS, facecolor="white", edgecolor=_INK, linewidth=1.0, zorder=3)
            self.axes.add_patch(circle)
            self._text(column, y, "+" if stage.join == "+" else "c", fontsize=9, fontweight="bold")
            self._arrow((column - _JOIN_RADIUS, y), (box.right, y))
        made_of = stage.made_of[2 if joined else 1 :]
        lines = [shape_text(stage.channels, stage.size), *_wrapped(made_of)]
        self._lines(box.x, box.bottom - 0.13, lines, step=-_LINE)
        return box.left, y

    def _logits(self, last: tuple[float, float] | None) -> None:
        summary = self.summary
        box = self._slice(_FUSED_Y, "logits", shape_text(summary.channels_out, summary.size))
        self._from_right(last, box.right)
        texts = _tail(summary)
        right = last[0] if last is not None else self.levels[-1].x
        widths = [_operation_width(text) for text in texts]
        gap = (right - box.right - sum(widths)) / (len(texts) + 1)
        for text, width in zip(texts, widths, strict=True):
            self._operation(right - gap - width / 2, _FUSED_Y, text)
            right -= gap + width

    def _from_right(self, last: tuple[float, float] | None, end: float) -> None:
        """An arrow to the left from the last map, or from the encoder's deepest one round the corner."""
        if last is None:
            deepest = self.levels[-1]
            last = (deepest.x, _FUSED_Y)
            self.axes.plot([deepest.x] * 2, [deepest.bottom, _FUSED_Y], color=_SOFT, linewidth=1.1, zorder=1)
        self._arrow(last, (end, _FUSED_Y))

    def _slice(self, y: float, name: str, shape: str) -> _Box:
        box = self._box(_SLICE_X, y, 0.16, self._height(self.summary.size[0]), _SLICE)
        self._text(box.x, box.top + 0.1 + _LINE, name, fontsize=9, fontweight="bold")
        self._text(box.x, box.top + 0.1, shape, fontsize=8)
        return box

    def _map(self, x: float, y: float, stage: Stage, colours: tuple[str, str]) -> _Box:
        width = 0.08 + 0.045 * math.log2(stage.channels)
        return self._box(x, y, width, self._height(stage.size[0]), colours)

    def _height(self, rows: int) -> float:
        return max(_TALLEST * math.sqrt(rows / self.summary.padded[0]), _SHORTEST)

    def _box(self, x: float, y: float, width: float, height: float, colours: tuple[str, str]) -> _Box:
        box = _Box(x, y, width, height)
        fill, edge = colours
        self.axes.add_patch(
            Rectangle((box.left, box.bottom), width, height, facecolor=fill, edgecolor=edge, linewidth=1.0, zorder=2)
        )
        return box

    def _arrow(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        shape: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 8, "shrinkA": 0, "shrinkB": 0}
        self.axes.add_patch(FancyArrowPatch(start, end, color=_SOFT, linewidth=1.1, zorder=1, **shape))

    def _lines(self, x: float, y: float, lines: list[str], *, step: float) -> None:
        """The label of a map: its shape, and from there up or down its operations."""
        for number, line in enumerate(lines):
            size, colour = (7, _SOFT) if number else (8, _INK)
            self._text(x, y + number * step, line, fontsize=size, color=colour)

    def _operation(self, x: float, y: float, text: str) -> None:
        """An operation in a small box, over the middle of an arrow."""
        box = {"boxstyle": "round,pad=0.28", "facecolor": "white", "edgecolor": _SOFT, "linewidth": 0.8}
        self._text(x, y, text, fontsize=7, linespacing=1.3, bbox=box)

    def _text(self, x: float, y: float, text: str, **style: Any) -> None:
        usual: dict[str, Any] = {"color": _INK, "ha": "center", "va": "center", "zorder": 4, "parse_math": False}
        self.axes.text(x, y, text, **(usual | style))


def _tail(summary: NetworkSummary) -> list[str]:
    """The texts on the arrow from the last map to the logits, in order."""
    return [f"{stage.name}\n{stage.made_of[0]}" for stage in summary.stages if stage.part in ("head", "restore")]


def _operation_width(text: str) -> float:
    """About the width of a small box with that text."""
    return 0.057 * max(len(line) for line in text.splitlines()) + 0.08


def _wrapped(made_of: tuple[str, ...]) -> list[str]:
    """Operations as lines short enough for a column."""
    return textwrap.wrap(", ".join(part.replace(" ", "\u00a0") for part in made_of), width=22, break_on_hyphens=False)
