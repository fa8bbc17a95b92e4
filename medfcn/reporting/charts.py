"""Charts of a report as SVG: scores of all cases, volumes, and the course of a training.

matplotlib's SVG has style attributes, which a strict content-security policy forbids, and its points cannot be links
to cases; so these few charts are drawn here. Shape says the same as colour: a cross is a miss, a triangle is a
prediction where the reference is empty.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from medfcn.evaluation.estimates import order_statistic
from medfcn.files import csv_bytes
from medfcn.reporting.svg import add, svg_root, svg_text

_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 14.0, 10.0, 34.0
_LETTER = 7.0
"""Width of a letter, on the wide side."""

Scale = Callable[[float], float]
"""Takes a value to a coordinate."""


@dataclass(frozen=True)
class Mark:
    """One case in a chart.

    Attributes:
        x: Its value on the horizontal axis.
        y: Its value on the vertical axis.
        case: Its id.
        link: The part of the page with the case.
        shape: `circle`, `cross` for a miss, `triangle` for a prediction where the reference is empty.
        text: Text that is shown when the pointer rests on it.
    """

    x: float
    y: float
    case: str
    link: str
    shape: str = "circle"
    text: str = ""


class Chart:
    """An SVG with a frame, two axes and marks; `scale_x` and `scale_y` take values to coordinates.

    Its attributes `data-csv` are the lines of a CSV file with its values, which the page can save.
    """

    def __init__(
        self,
        width: float,
        height: float,
        *,
        title: str,
        columns: Sequence[str],
        left: float = _LEFT,
        right: float = _RIGHT,
    ) -> None:
        self.height, self.left, self.right, self.bottom = height, left, width - right, height - _BOTTOM
        self.margin = right
        self.root = svg_root("chart", title, width, height)
        self.root.set("data-csv", _csv_line(columns))
        self.root.set("role", "group")  # it contains links, which a picture may not

    def scale_x(self, low: float, high: float, *, end: float | None = None) -> Scale:
        """Values from left to right."""
        right = self.right if end is None else end
        return lambda value: self.left + (value - low) / (high - low) * (right - self.left)

    def scale_y(self, low: float, high: float) -> Scale:
        """Values from the bottom to the top."""
        return lambda value: self.bottom - (value - low) / (high - low) * (self.bottom - _TOP)

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """Draw a line."""
        add(self.root, "line", kind, x1=x1, y1=y1, x2=x2, y2=y2)

    def text(self, x: float, y: float, words: str, kind: str) -> None:
        """Write words."""
        add(self.root, "text", kind, words, x=x, y=y)

    def ticks_x(self, ticks: Sequence[float], place: Scale, title: str) -> None:
        """Draw the horizontal axis; numbers that would touch are left out."""
        digits = _digits(ticks)
        words = [_plain(tick, digits) for tick in ticks]
        room = (place(ticks[-1]) - place(ticks[0])) / max(len(ticks) - 1, 1)
        every = max(1, math.ceil(_LETTER * (max(map(len, words)) + 1) / room))
        for number, (tick, word) in enumerate(zip(ticks, words, strict=True)):
            self.line(place(tick), _TOP, place(tick), self.bottom, "grid")
            if number % every == 0:
                # The last number may be wider than the margin.
                x = min(place(tick), self.right + self.margin - _LETTER * len(word) / 2)
                self.text(x, self.bottom + 16, word, "tick middle")
        self.line(self.left, self.bottom, self.right, self.bottom, "axis")
        middle, width = (self.left + self.right) / 2, self.right + _RIGHT
        self.title(title, middle, self.height - 4, 2 * min(middle, width - middle))

    def ticks_y(self, ticks: Sequence[float], place: Scale, title: str) -> None:
        """Draw the vertical axis."""
        digits, middle = _digits(ticks), (_TOP + self.bottom) / 2
        for tick in ticks:
            self.line(self.left, place(tick), self.right, place(tick), "grid")
            self.text(self.left - 6, place(tick) + 3, _plain(tick, digits), "tick end")
        self.line(self.left, _TOP, self.left, self.bottom, "axis")
        self.title(title, 12.0, middle, 2 * min(middle, self.height - middle), turned=True)

    def title(self, words: str, x: float, y: float, room: float, *, turned: bool = False) -> None:
        """The name of an axis; where it is longer than its room, its letters are narrower."""
        attributes = {"transform": f"rotate(-90 {x:.1f} {y:.1f})"} if turned else {}
        if len(words) * _LETTER > room:
            attributes |= {"textLength": f"{room:.1f}", "lengthAdjust": "spacingAndGlyphs"}
        add(self.root, "text", "title middle", words, x=x, y=y, **attributes)

    def mark(self, x: float, y: float, mark: Mark, values: Sequence[object]) -> None:
        """Draw a case; `values` are its fields in the chart's columns."""
        # Not a stop of the tab key: hundreds of marks would be in the way of a reader who uses the keyboard.
        anchor = add(self.root, "a", "mark", href=mark.link, aria_label=mark.text, tabindex="-1")
        anchor.set("data-csv", _csv_line(values))
        add(anchor, "title", words=mark.text)
        if mark.shape == "cross":
            add(anchor, "path", "cross", d=f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8")
        elif mark.shape == "triangle":
            add(anchor, "path", "triangle", d=f"M{x:.1f} {y - 5:.1f}l5 9h-10z")
        else:
            add(anchor, "circle", cx=x, cy=y, r="3.4")

    def bar(self, x: float, top: float, width: float, bottom: float, words: str, values: Sequence[object]) -> None:
        """Draw a bar of a histogram; `values` are its fields in the chart's columns."""
        bar = add(self.root, "rect", "bar", x=x, y=top, width=max(width, 0.5), height=max(bottom - top, 0.0))
        bar.set("data-csv", _csv_line(values))
        add(bar, "title", words=words)

    def __str__(self) -> str:
        return svg_text(self.root)


def _csv_line(values: Sequence[object]) -> str:
    return csv_bytes((), [values]).decode().strip("\n")


def nice_ticks(low: float, high: float) -> list[float]:
    """Round numbers that cover a range.

    Example:
        >>> nice_ticks(0.13, 0.92)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not high > low:
        low, high = low - 0.5, high + 0.5
    if high - low < 1e-9 * max(abs(low), abs(high)):
        return [low, high]
    rough = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _digits(ticks: Sequence[float]) -> int:
    step = min((after - before for before, after in pairwise(ticks)), default=1.0)
    return max(0, -math.floor(math.log10(step) + 1e-9))


def _plain(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def strip_chart(rows: Sequence[tuple[str, Sequence[Mark]]], title: str, *, is_share: bool) -> str:
    """All cases of each label as marks in a row, with a box from quartile to quartile and a bar at the median.

    Args:
        rows: Names of labels and their marks; `x` is the score, infinite for a miss.
        title: The metric and its unit.
        is_share: True if scores are between 0 and 1.

    Returns:
        An `<svg>` element. Infinite scores are in a lane of their own at the right end, and count in the quartiles.
    """
    names = [name for name, _ in rows] if len(rows) > 1 else [""]
    left = 14.0 + (max(6.4 * min(len(name), 18) for name in names) if len(rows) > 1 else 0.0)
    columns = ("case", "label", title)
    chart = Chart(440, _TOP + _BOTTOM + 56 * len(rows), title=title, columns=columns, left=left)
    finite = [mark.x for _, marks in rows for mark in marks if math.isfinite(mark.x)]
    has_infinite = any(math.isinf(mark.x) for _, marks in rows for mark in marks)
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    ticks = (
        nice_ticks(low, min(high, 1.0))
        if is_share and high - low > 1e-3
        else nice_ticks(0.0, 1.0)
        if is_share
        else nice_ticks(min(low, 0.0), max(high, 1e-6))
    )
    lane = chart.right - 21
    place = chart.scale_x(ticks[0], ticks[-1], end=chart.right - (40 if has_infinite else 6))
    chart.ticks_x(ticks, place, title)
    if has_infinite:
        chart.line(lane, _TOP, lane, chart.bottom, "lane")
        chart.text(lane, chart.bottom + 16, "∞", "tick middle")
    for number, (name, marks) in enumerate(rows):
        middle = _TOP + 56 * number + 28
        if len(rows) > 1:
            chart.text(left - 8, middle + 4, name if len(name) <= 18 else name[:17] + "…", "tick end")
        _box_and_marks(chart, name, marks, middle, lambda value: lane if math.isinf(value) else place(value))
    return str(chart)


def _box_and_marks(chart: Chart, label: str, marks: Sequence[Mark], middle: float, place: Scale) -> None:
    values = np.sort([mark.x for mark in marks])
    if values.size >= 6:  # with fewer, the marks say more
        low, median, high = (place(order_statistic(values, share)) for share in (0.25, 0.5, 0.75))
        add(chart.root, "rect", "box", x=low, y=middle - 20, width=max(high - low, 0.5), height="40")
        chart.line(median, middle - 25, median, middle + 25, "median")
    # Marks that would cover each other are stacked, the first in the middle.
    columns: dict[int, int] = {}
    for mark in sorted(marks, key=lambda mark: (mark.x, mark.case)):
        x = place(mark.x)
        column = round(x / 6)
        at = columns.get(column, 0)
        columns[column] = at + 1
        offset = (at + 1) // 2 * 7 * (1 if at % 2 else -1)
        # A crowded column folds over itself instead of leaving its row.
        y = middle + (offset if abs(offset) <= 21 else math.remainder(offset, 42))
        chart.mark(x, y, mark, (mark.case, label, mark.x))


def identity_chart(marks: Sequence[Mark]) -> str:
    """Volumes of prediction against reference, with the line on which they are equal."""
    x_title, y_title = "Reference (ml)", "Prediction (ml)"
    chart = Chart(440, 290, title=f"{y_title} against {x_title}", columns=("case", x_title, y_title))
    ticks = nice_ticks(0.0, max((max(mark.x, mark.y) for mark in marks), default=1.0) or 1.0)
    place_x, place_y = chart.scale_x(ticks[0], ticks[-1]), chart.scale_y(ticks[0], ticks[-1])
    chart.ticks_x(ticks, place_x, x_title)
    chart.ticks_y(ticks, place_y, y_title)
    chart.line(place_x(ticks[0]), place_y(ticks[0]), place_x(ticks[-1]), place_y(ticks[-1]), "guide")
    chart.text(place_x(ticks[-1]) - 26, place_y(ticks[-1]) + 14, "equal", "note end")
    for mark in marks:
        chart.mark(place_x(mark.x), place_y(mark.y), mark, (mark.case, mark.x, mark.y))
    return str(chart)


def agreement_chart(marks: Sequence[Mark], *, bias: float, limits: tuple[float, float]) -> str:
    """Differences between volumes against their means, with bias and limits of agreement.

    Source:
        Bland and Altman, Lancet 327, 1986.
    """
    x_title, y_title = "Mean of prediction and reference (ml)", "Prediction − reference (ml)"
    title, columns = f"{y_title} against {x_title}", ("case", x_title, y_title)
    chart = Chart(480, 290, title=title, columns=columns, right=72)
    xs = [mark.x for mark in marks] or [0.0, 1.0]
    ys = [value for value in (*(mark.y for mark in marks), *limits, bias, 0.0) if math.isfinite(value)]
    ticks_x, ticks_y = nice_ticks(min(xs), max(xs)), nice_ticks(min(ys), max(ys))
    place_x, place_y = chart.scale_x(ticks_x[0], ticks_x[-1]), chart.scale_y(ticks_y[0], ticks_y[-1])
    chart.ticks_x(ticks_x, place_x, x_title)
    chart.ticks_y(ticks_y, place_y, y_title)
    if ticks_y[0] < 0 < ticks_y[-1]:
        chart.line(chart.left, place_y(0.0), chart.right, place_y(0.0), "axis")
    named = [("bias", bias, "median"), ("+1.96 SD", limits[1], "guide"), ("−1.96 SD", limits[0], "guide")]
    shown = sorted((place_y(value), name, value, kind) for name, value, kind in named if math.isfinite(value))
    below, digits = -math.inf, 2 - math.floor(math.log10(max((abs(item[2]) for item in shown), default=1.0) or 1.0))
    for y, name, value, kind in shown:
        chart.line(chart.left, y, chart.right, y, kind)
        # The labels of lines that nearly coincide are moved apart.
        below = max(y - 3, below + 27)
        chart.text(chart.right + 5, below, name, "note")
        chart.text(chart.right + 5, below + 13, f"{_signed(value, max(digits, 0))} ml", "note")
    for mark in marks:
        chart.mark(place_x(mark.x), place_y(mark.y), mark, (mark.case, mark.x, mark.y))
    return str(chart)


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def curve_chart(
    points: Sequence[tuple[float, float]], title: str, *, last_step: float, is_share: bool = False
) -> str:
    """A line through finite points over the steps of a training; that of a share also shows the points."""
    chart = Chart(460, 240, title=f"{title} against Step", columns=("Step", title), left=60)
    low, high = min(y for _, y in points), max(y for _, y in points)
    ticks_x = nice_ticks(0.0, last_step)
    ticks_y = nice_ticks(min(low, 0.0) if is_share else low, max(high, 1.0) if is_share else high)
    place_x, place_y = chart.scale_x(ticks_x[0], ticks_x[-1]), chart.scale_y(ticks_y[0], ticks_y[-1])
    chart.ticks_x(ticks_x, place_x, "Step")
    chart.ticks_y(ticks_y, place_y, title)
    path = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in points)
    curve = add(chart.root, "polyline", f"curve {'dots' if is_share else 'solid'}", points=path)
    curve.set("data-csv", "\n".join(map(_csv_line, points)))
    for x, y in points if is_share else ():
        dot = add(chart.root, "circle", "dot", cx=place_x(x), cy=place_y(y), r="2.6")
        add(dot, "title", words=f"{title} {y:.4g} at {x:.6g}")
    return str(chart)
