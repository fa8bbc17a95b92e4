"""A network as a diagram: the encoder's maps above, the fused maps below, skips between them, a column per stride.

matplotlib is loaded when a network is drawn, without a display and without touching its global state.
"""

import math
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medfcn.errors import SettingsError
from medfcn.files import atomic_write, refuse_existing_file
from medfcn.networks.describe.listing import shape_text, short_number, size_text
from medfcn.networks.describe.stages import NetworkSummary, Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FORMATS = ("png", "svg", "pdf")

# Lengths are inches. Colours are Okabe and Ito's, told apart by every kind of colour vision.
_PITCH, _TALLEST, _SHORTEST = 1.74, 1.5, 0.09
_FUSED_LEFT_BY = 0.54
"""A fused map stands so far left of its column's middle, where the skip comes down to the join."""
_BAND_LEFT_BY = 1.06
"""The field of a stride begins so far left of its column's middle."""
_JOIN_RADIUS = 0.1
_LINE = 0.145
"""From one line of a label to the next."""
_INK, _SOFT, _FAINT = "#20262C", "#5F6B76", "#F1F3F5"
_ENCODER, _FUSED, _SLICE = ("#B9DDF3", "#2B7FB0"), ("#F8DCA0", "#B87B00"), ("#DDE1E4", "#6B747C")


def picture_format(path: Path | str) -> str:
    """`png`, `svg` or `pdf`, as the ending of `path` says.

    Raises:
        SettingsError: It has another ending.

    Example:
        >>> picture_format("fcn8s.SVG")
        'svg'
    """
    ending = Path(path).suffix.lower().removeprefix(".")
    if ending not in _FORMATS:
        raise SettingsError(f"picture {Path(path).name!r} does not end in .png, .svg or .pdf; name it so")
    return ending


def draw_network(summary: NetworkSummary, path: Path | str, *, overwrite: bool = False) -> Path:
    """Draw a network as a PNG, SVG or PDF.

    Args:
        summary: What is drawn; see `network_figure`.
        path: The file to write, whole or not at all; its ending says the format.
        overwrite: Replace an existing file.

    Returns:
        `path`.

    Raises:
        SettingsError: `path` has another ending.
        OutputExistsError: There is such a file, and `overwrite` is false.
    """
    import matplotlib

    path = Path(path)
    ending = picture_format(path)
    refuse_existing_file(path, overwrite=overwrite)
    figure = network_figure(summary)
    # The same network gives the same bytes: no dates, and names inside an SVG that do not change.
    metadata: dict[str, Any] = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }[ending]
    with atomic_write(path) as file, matplotlib.rc_context({"svg.hashsalt": "medfcn"}):
        figure.savefig(file, format=ending, metadata=metadata)
    return path


def network_figure(summary: NetworkSummary) -> "Figure":
    """The diagram of a network, as a matplotlib figure.

    Each map is a box, as tall as it has rows (their square root) and as wide as it has channels (their logarithm).
    The encoder's maps stand above, from left to right; the fused ones below, each in the column of its stride; what
    happens between two maps is written in small boxes on the arrows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    plan = _Layout.of(summary)
    figure = Figure(figsize=(plan.width, plan.height), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, plan.width)
    axes.set_ylim(0, plan.height)
    drawing = _Drawing(axes, summary, plan)
    drawing.bands()
    drawing.heading()
    drawing.encoder()
    drawing.decoder()
    return figure


@dataclass(frozen=True)
class _Layout:
    """Where things stand, in inches from the lower left corner."""

    width: float
    height: float
    encoder_y: float
    fused_y: float
    columns: dict[int, float]
    slice_x: float

    @classmethod
    def of(cls, summary: NetworkSummary) -> "_Layout":
        slice_x = 0.8
        # Between the last map and the logits there must be room for what is written on that arrow.
        tail = sum(_operation_width(text) + 0.22 for text in _tail(summary)) + 0.75
        finest = sum(stride < summary.finest_stride for stride in summary.encoder_strides)
        first = slice_x + max(2.0, tail + _FUSED_LEFT_BY - finest * _PITCH)
        columns = {stride: first + number * _PITCH for number, stride in enumerate(summary.encoder_strides)}
        fused_y = 0.82 + _TALLEST / 2
        encoder_y = fused_y + _TALLEST + 0.95
        width = max(first + (len(columns) - 1) * _PITCH + 0.85, 4.4)
        return cls(width, encoder_y + _TALLEST / 2 + 1.95, encoder_y, fused_y, columns, slice_x)


@dataclass(frozen=True)
class _Box:
    """A map where it was drawn."""

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
    def bottom(self) -> float:
        return self.y - self.height / 2


class _Drawing:
    """Puts the parts of one network on the axes."""

    def __init__(self, axes: "Axes", summary: NetworkSummary, plan: _Layout) -> None:
        self.axes, self.summary, self.plan = axes, summary, plan
        self.levels: list[_Box] = []

    def bands(self) -> None:
        """A faint field behind the maps of each stride, with its name at the foot."""
        from matplotlib.patches import Rectangle

        top = self.plan.encoder_y + _TALLEST / 2 + 0.72
        for number, (stride, x) in enumerate(self.plan.columns.items()):
            left = x - _BAND_LEFT_BY
            if number % 2 == 0:
                field = Rectangle((left, 0.1), _PITCH, top - 0.1, facecolor=_FAINT, edgecolor="none", zorder=0)
                self.axes.add_patch(field)
            self._text(left + _PITCH / 2, 0.2, f"stride {stride}", size=8, colour=_SOFT)

    def heading(self) -> None:
        """What the network is called, what it costs, and what the signs mean."""
        summary = self.summary
        line = self.plan.height - 0.32
        self._text(0.25, line, summary.name, size=15, bold=True, align="left")
        costs = f"{summary.parameters:,} parameters · {short_number(summary.multiply_adds)} multiply-adds"
        padded = "" if summary.padded == summary.size else f" · padded to {size_text(summary.padded)} inside"
        edge = summary.receptive_field
        more = " (more than the slice has)" if edge > max(summary.size) else ""
        lines = [f"{costs}{padded}", f"a logit sees {edge} × {edge} pixels{more}", *self._signs()]
        line -= 0.27
        for number, text in enumerate(lines):
            self._text(0.25, line - 1.15 * number * _LINE, text, size=8.5, colour=_SOFT, align="left")

    def _signs(self) -> list[str]:
        """What the boxes and the signs on the arrows mean, as far as they occur."""
        signs = ["boxes: channels × rows × columns"]
        fusions = self.summary.part("fusion")
        if fusions:
            signs.append(f"×2: {fusions[0].made_of[0].removeprefix('×2 ')}")
        joins = {fusion.join for fusion in fusions}
        signs += ["+: sum"] * ("+" in joins) + ["c: concatenation"] * ("concat" in joins)
        return [" · ".join(signs)]

    def encoder(self) -> None:
        """The slice and the encoder's maps, from left to right."""
        before = self._slice(self.plan.encoder_y, "slice", shape_text(self.summary.channels_in, self.summary.size))
        for stage in self.summary.part("encoder"):
            box = self._map(self.plan.columns[stage.stride], self.plan.encoder_y, stage, _ENCODER)
            self._arrow((before.right, before.y), (box.left, box.y))
            self._label_above(box, stage)
            self.levels.append(box)
            before = box

    def decoder(self) -> None:
        """Scores, fusions and what comes after them, from right to left."""
        y = self.plan.fused_y
        deepest = self.levels[-1]
        scores = {stage.level: stage for stage in self.summary.part("score")}
        last: tuple[float, float] | None = None
        score = scores.get(len(self.levels) - 1)
        if score is not None:
            box = self._map(deepest.x, y, score, _FUSED)
            self._arrow((deepest.x, deepest.bottom), (box.x, y + box.height / 2))
            self._operation(deepest.x, self._skip_y(), score.made_of[0])
            self._label_below(box, score, ())
            last = (box.left, y)
        for stage in self.summary.part("fusion"):
            last = self._fusion(stage, last, scores)
        self._logits(last)

    def _fusion(self, stage: Stage, last: tuple[float, float] | None, scores: dict[int | None, Stage]) -> Any:
        """One step of the decoder; where the next one starts."""
        y, column = self.plan.fused_y, self.plan.columns[stage.stride]
        box = self._map(column - _FUSED_LEFT_BY, y, stage, _FUSED)
        joined = stage.join is not None
        end = column + _JOIN_RADIUS if joined else box.right
        self._from_right(last, end)
        right = last[0] if last is not None else self.levels[-1].x
        near = column + _JOIN_RADIUS if joined else column - _FUSED_LEFT_BY + box.width / 2
        self._operation((max(near, right - 1.0) + right) / 2, y, "×2")
        if joined and stage.level is not None:
            skip = self.levels[stage.level]
            self._arrow((skip.x, skip.bottom), (column, y + _JOIN_RADIUS))
            if stage.level in scores:
                self._operation(skip.x, self._skip_y(), scores[stage.level].made_of[0])
            self._join(column, y, stage.join or "+")
            self._arrow((column - _JOIN_RADIUS, y), (box.right, y))
        start = 2 if joined else 1
        self._label_below(box, stage, stage.made_of[start:])
        return box.left, y

    def _logits(self, last: tuple[float, float] | None) -> None:
        summary, y = self.summary, self.plan.fused_y
        box = self._slice(y, "logits", shape_text(summary.channels_out, summary.size))
        self._from_right(last, box.right)
        texts = _tail(summary)
        right = last[0] if last is not None else self.levels[-1].x
        widths = [_operation_width(text) for text in texts]
        gap = (right - box.right - sum(widths)) / (len(texts) + 1)
        for text, width in zip(texts, widths, strict=True):
            self._operation(right - gap - width / 2, y, text)
            right -= gap + width

    def _from_right(self, last: tuple[float, float] | None, end: float) -> None:
        """An arrow to the left from the last map, or from the encoder's deepest one round the corner."""
        y = self.plan.fused_y
        if last is not None:
            self._arrow(last, (end, y))
            return
        deepest = self.levels[-1]
        self.axes.plot([deepest.x, deepest.x], [deepest.bottom, y], color=_SOFT, linewidth=1.1, zorder=1)
        self._arrow((deepest.x, y), (end, y))

    def _skip_y(self) -> float:
        return self.plan.fused_y + _TALLEST / 2 + 0.3

    def _slice(self, y: float, name: str, shape: str) -> _Box:
        height = self._height(self.summary.size[0])
        box = self._box(self.plan.slice_x, y, 0.16, height, _SLICE)
        self._text(box.x, y + height / 2 + 0.1 + _LINE, name, size=9, bold=True)
        self._text(box.x, y + height / 2 + 0.1, shape, size=8)
        return box

    def _map(self, x: float, y: float, stage: Stage, colours: tuple[str, str]) -> _Box:
        width = 0.08 + 0.045 * math.log2(stage.channels)
        return self._box(x, y, width, self._height(stage.size[0]), colours)

    def _height(self, rows: int) -> float:
        return max(_TALLEST * math.sqrt(rows / self.summary.padded[0]), _SHORTEST)

    def _label_above(self, box: _Box, stage: Stage) -> None:
        lines = [shape_text(stage.channels, stage.size), *reversed(_wrapped(stage.made_of))]
        y = box.y + box.height / 2 + 0.1
        for number, line in enumerate(lines):
            self._text(
                box.x, y + number * _LINE, line, size=8 if number == 0 else 7, colour=_SOFT if number else _INK
            )
        self._text(box.x, y + len(lines) * _LINE + 0.01, stage.name, size=9, bold=True)

    def _label_below(self, box: _Box, stage: Stage, made_of: tuple[str, ...]) -> None:
        lines = [shape_text(stage.channels, stage.size), *_wrapped(made_of)]
        for number, line in enumerate(lines):
            y = box.bottom - 0.13 - number * _LINE
            self._text(box.x, y, line, size=8 if number == 0 else 7, colour=_SOFT if number else _INK)

    def _box(self, x: float, y: float, width: float, height: float, colours: tuple[str, str]) -> _Box:
        from matplotlib.patches import Rectangle

        fill, edge = colours
        corner = (x - width / 2, y - height / 2)
        self.axes.add_patch(Rectangle(corner, width, height, facecolor=fill, edgecolor=edge, linewidth=1.0, zorder=2))
        return _Box(x, y, width, height)

    def _operation(self, x: float, y: float, text: str) -> None:
        """What happens on an arrow, written over it."""
        self.axes.text(
            x, y, text, fontsize=7, color=_INK, ha="center", va="center", zorder=4, linespacing=1.3,
            bbox={"boxstyle": "round,pad=0.28", "facecolor": "white", "edgecolor": _SOFT, "linewidth": 0.8},
        )  # fmt: skip

    def _join(self, x: float, y: float, kind: str) -> None:
        from matplotlib.patches import Circle

        self.axes.add_patch(Circle((x, y), _JOIN_RADIUS, facecolor="white", edgecolor=_INK, linewidth=1.0, zorder=3))
        self._text(x, y, "+" if kind == "+" else "c", size=9, bold=True)

    def _arrow(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        from matplotlib.patches import FancyArrowPatch

        self.axes.add_patch(
            FancyArrowPatch(
                start,
                end,
                arrowstyle="-|>",
                mutation_scale=8,
                shrinkA=0,
                shrinkB=0,
                color=_SOFT,
                linewidth=1.1,
                zorder=1,
            )
        )

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float,
        colour: str = _INK,
        bold: bool = False,
        align: Any = "center",
    ) -> None:
        weight = "bold" if bold else "normal"
        self.axes.text(
            x,
            y,
            text,
            fontsize=size,
            color=colour,
            fontweight=weight,
            ha=align,
            va="center",
            zorder=4,
            parse_math=False,
        )


def _tail(summary: NetworkSummary) -> list[str]:
    """What is written on the arrow from the last map to the logits, in order."""
    return [f"{stage.name}\n{stage.made_of[0]}" for stage in summary.stages if stage.part in ("head", "restore")]


def _operation_width(text: str) -> float:
    """How wide a small box with that text is, about."""
    return 0.057 * max(len(line) for line in text.splitlines()) + 0.08


def _wrapped(made_of: tuple[str, ...]) -> list[str]:
    """Operations as lines short enough for a column."""
    return textwrap.wrap(", ".join(part.replace(" ", "\u00a0") for part in made_of), width=22, break_on_hyphens=False)
