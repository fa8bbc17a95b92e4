"""Charts of a report as SVG: scores of all cases, volumes, and the course of a training.

matplotlib's SVG carries style attributes, which a strict content-security policy forbids, and its points cannot be
links to cases; so these few charts are drawn here. They are built as XML trees: no text can become markup. What
colour says, shape says too: a cross is a miss, a triangle something found where nothing is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np

from medfcn.evaluation.estimates import order_statistic

__all__ = ["Curve", "Mark", "agreement_chart", "curve_chart", "identity_chart", "strip_chart"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 14.0, 10.0, 34.0


@dataclass(frozen=True)
class Mark:
    """One case in a chart.

    Attributes:
        x: Its place along the chart.
        y: Its place up the chart.
        case: Its id.
        link: The part of the page that tells more of it.
        shape: `circle`, `cross` for a miss, `triangle` for something found where nothing is.
        text: What is shown when the pointer rests on it.
    """

    x: float
    y: float
    case: str
    link: str
    shape: str = "circle"
    text: str = ""


@dataclass(frozen=True)
class Curve:
    """A line through points in order.

    Attributes:
        name: What it is called in the legend.
        points: `(x, y)`; those that are not finite are passed over.
        kind: `solid` or `dots`.
    """

    name: str
    points: Sequence[tuple[float, float]]
    kind: str = "solid"


class _Chart:
    """An SVG with a frame, two axes and marks; `x` and `y` take values to places."""

    def __init__(
        self, width: float, height: float, *, title: str, left: float = _LEFT, right: float = _RIGHT
    ) -> None:
        self.width, self.height, self.left, self.right = width, height, left, right
        self.root = ElementTree.Element(
            "svg",
            {
                "viewBox": f"0 0 {width:.0f} {height:.0f}",
                "width": f"{width:.0f}",
                "height": f"{height:.0f}",
                "class": "chart",
                "role": "img",
                "aria-label": title,
            },
        )

    @property
    def inner(self) -> tuple[float, float, float, float]:
        """Left, right, top and bottom of the field."""
        return self.left, self.width - self.right, _TOP, self.height - _BOTTOM

    def scale_x(self, low: float, high: float, *, end: float | None = None) -> Callable[[float], float]:
        left, right, _, _ = self.inner
        right = right if end is None else end
        return lambda value: left + (value - low) / (high - low) * (right - left)

    def scale_y(self, low: float, high: float) -> Callable[[float], float]:
        _, _, top, bottom = self.inner
        return lambda value: bottom - (value - low) / (high - low) * (bottom - top)

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        places = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
        ElementTree.SubElement(self.root, "line", {**places, "class": kind})

    def text(self, x: float, y: float, words: str, kind: str, *, turned: bool = False) -> None:
        places = {"x": f"{x:.1f}", "y": f"{y:.1f}", "class": kind}
        if turned:
            places["transform"] = f"rotate(-90 {x:.1f} {y:.1f})"
        ElementTree.SubElement(self.root, "text", places).text = words

    def ticks_x(self, ticks: Sequence[float], place: Callable[[float], float], title: str) -> None:
        left, right, top, bottom = self.inner
        digits = _digits(ticks)
        for tick in ticks:
            self.line(place(tick), top, place(tick), bottom, "grid")
            self.text(place(tick), bottom + 14, _plain(tick, digits), "tick middle")
        self.line(left, bottom, right, bottom, "axis")
        self.text((left + right) / 2, self.height - 4, title, "title middle")

    def ticks_y(self, ticks: Sequence[float], place: Callable[[float], float], title: str) -> None:
        left, right, top, bottom = self.inner
        digits = _digits(ticks)
        for tick in ticks:
            self.line(left, place(tick), right, place(tick), "grid")
            self.text(left - 6, place(tick) + 4, _plain(tick, digits), "tick end")
        self.line(left, top, left, bottom, "axis")
        self.text(12, (top + bottom) / 2, title, "title middle", turned=True)

    def mark(self, x: float, y: float, mark: Mark) -> None:
        # Not a stop of the tab key: hundreds of marks would stand between a reader and the rest of the page.
        link = {"href": mark.link, "class": "mark", "aria-label": mark.text, "tabindex": "-1"}
        anchor = ElementTree.SubElement(self.root, "a", link)
        ElementTree.SubElement(anchor, "title").text = mark.text
        if mark.shape == "cross":
            d = f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"
            ElementTree.SubElement(anchor, "path", {"d": d, "class": "cross"})
        elif mark.shape == "triangle":
            d = f"M{x:.1f} {y - 5:.1f}l5 9h-10z"
            ElementTree.SubElement(anchor, "path", {"d": d, "class": "triangle"})
        else:
            ElementTree.SubElement(anchor, "circle", {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": "3.4"})

    def __str__(self) -> str:
        return ElementTree.tostring(self.root, encoding="unicode")


def nice_ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Round numbers that cover a range.

    Example:
        >>> nice_ticks(0.13, 0.92)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not high > low:
        low, high = low - 0.5, high + 0.5
    if high - low < 1e-9 * max(abs(low), abs(high)):
        return [low, high]
    rough = (high - low) / about
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
    """All cases of each label as marks on a line, with a box from quartile to quartile and a bar at the median.

    Args:
        rows: Names of labels and their marks; `x` is the score, infinite for a miss.
        title: What is measured, and its unit.
        is_share: Whether scores lie between 0 and 1.

    Returns:
        An `<svg>` element. Infinite scores stand in a lane of their own at the right end, and count in the quartiles.
    """
    names = [name for name, _ in rows] if len(rows) > 1 else [""]
    left = 14.0 + (max(6.4 * min(len(name), 18) for name in names) if len(rows) > 1 else 0.0)
    chart = _Chart(440, _TOP + _BOTTOM + 56 * len(rows), title=title, left=left)
    finite = [mark.x for _, marks in rows for mark in marks if math.isfinite(mark.x)]
    has_infinite = any(math.isinf(mark.x) for _, marks in rows for mark in marks)
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    ticks = nice_ticks(low, min(high, 1.0) if is_share else high) if is_share else nice_ticks(0.0, max(high, 1e-6))
    _, right, top, bottom = chart.inner
    end = right - 40 if has_infinite else right - 6
    place = chart.scale_x(ticks[0], ticks[-1], end=end)
    chart.ticks_x(ticks, place, title)
    if has_infinite:
        chart.line(right - 21, top, right - 21, bottom, "lane")
        chart.text(right - 21, bottom + 14, "∞", "tick middle")
    for number, (name, marks) in enumerate(rows):
        middle = top + 56 * number + 28
        if len(rows) > 1:
            chart.text(left - 8, middle + 4, name if len(name) <= 18 else name[:17] + "…", "tick end")
        _box_and_marks(chart, marks, middle, lambda value: right - 21 if math.isinf(value) else place(value))
    return str(chart)


def _box_and_marks(chart: _Chart, marks: Sequence[Mark], middle: float, place: Callable[[float], float]) -> None:
    values = np.sort([mark.x for mark in marks])
    if values.size >= 6:  # of fewer, the marks say more
        low, median, high = (place(order_statistic(values, share)) for share in (0.25, 0.5, 0.75))
        box = {"x": f"{low:.1f}", "y": f"{middle - 20:.1f}", "width": f"{max(high - low, 0.5):.1f}", "height": "40"}
        ElementTree.SubElement(chart.root, "rect", {**box, "class": "box"})
        chart.line(median, middle - 25, median, middle + 25, "median")
    # Marks that would lie on each other are stacked, the first in the middle.
    columns: dict[int, int] = {}
    for mark in sorted(marks, key=lambda mark: (mark.x, mark.case)):
        x = place(mark.x)
        column = round(x / 6)
        at = columns.get(column, 0)
        columns[column] = at + 1
        offset = (at + 1) // 2 * 7 * (1 if at % 2 else -1)
        # A crowded column folds over itself instead of leaving its row.
        chart.mark(x, middle + (offset if abs(offset) <= 21 else math.remainder(offset, 42)), mark)


def identity_chart(marks: Sequence[Mark], *, x_title: str, y_title: str) -> str:
    """Two measurements of one thing, with the line on which they are equal."""
    chart = _Chart(440, 290, title=f"{y_title} against {x_title}")
    ticks = nice_ticks(0.0, max((max(mark.x, mark.y) for mark in marks), default=1.0) or 1.0)
    place_x, place_y = chart.scale_x(ticks[0], ticks[-1]), chart.scale_y(ticks[0], ticks[-1])
    chart.ticks_x(ticks, place_x, x_title)
    chart.ticks_y(ticks, place_y, y_title)
    chart.line(place_x(ticks[0]), place_y(ticks[0]), place_x(ticks[-1]), place_y(ticks[-1]), "guide")
    chart.text(place_x(ticks[-1]) - 26, place_y(ticks[-1]) + 14, "equal", "note end")
    for mark in marks:
        chart.mark(place_x(mark.x), place_y(mark.y), mark)
    return str(chart)


def agreement_chart(
    marks: Sequence[Mark], *, bias: float, limits: tuple[float, float], x_title: str, y_title: str, unit: str
) -> str:
    """Differences against means with bias and limits of agreement.

    Source:
        Bland and Altman, Lancet 327, 1986.
    """
    chart = _Chart(480, 290, title=f"{y_title} against {x_title}", right=72)
    left, right, _, _ = chart.inner
    xs = [mark.x for mark in marks] or [0.0, 1.0]
    ys = [value for value in (*(mark.y for mark in marks), *limits, bias, 0.0) if math.isfinite(value)]
    ticks_x, ticks_y = nice_ticks(min(xs), max(xs)), nice_ticks(min(ys), max(ys))
    place_x, place_y = chart.scale_x(ticks_x[0], ticks_x[-1]), chart.scale_y(ticks_y[0], ticks_y[-1])
    chart.ticks_x(ticks_x, place_x, x_title)
    chart.ticks_y(ticks_y, place_y, y_title)
    if ticks_y[0] < 0 < ticks_y[-1]:
        chart.line(left, place_y(0.0), right, place_y(0.0), "axis")
    named = [("bias", bias, "median"), ("+1.96 SD", limits[1], "guide"), ("−1.96 SD", limits[0], "guide")]
    held = sorted((place_y(value), name, value, kind) for name, value, kind in named if math.isfinite(value))
    below, digits = -math.inf, 2 - math.floor(math.log10(max((abs(item[2]) for item in held), default=1.0) or 1.0))
    for y, name, value, kind in held:
        chart.line(left, y, right, y, kind)
        # The words at lines that nearly coincide are moved apart.
        below = max(y - 3, below + 27)
        chart.text(right + 5, below, name, "note")
        chart.text(right + 5, below + 13, f"{_signed(value, max(digits, 0))} {unit}", "note")
    for mark in marks:
        chart.mark(place_x(mark.x), place_y(mark.y), mark)
    return str(chart)


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def curve_chart(
    curves: Sequence[Curve], *, x_title: str, y_title: str, x_end: float | None = None, is_share: bool = False
) -> str:
    """Lines over an axis from 0 to `x_end`, or their own end; a curve of kind `dots` also shows its points."""
    chart = _Chart(460, 240, title=f"{y_title} against {x_title}", left=60)
    held = [[point for point in curve.points if math.isfinite(point[0] + point[1])] for curve in curves]
    points = [point for curve in held for point in curve] or [(0.0, 0.0), (1.0, 1.0)]
    low, high = min(y for _, y in points), max(y for _, y in points)
    ticks_x = nice_ticks(0.0, x_end if x_end is not None else max(x for x, _ in points))
    ticks_y = nice_ticks(min(low, 0.0) if is_share else low, max(high, 1.0) if is_share else high)
    place_x, place_y = chart.scale_x(ticks_x[0], ticks_x[-1]), chart.scale_y(ticks_y[0], ticks_y[-1])
    chart.ticks_x(ticks_x, place_x, x_title)
    chart.ticks_y(ticks_y, place_y, y_title)
    for curve, finite in zip(curves, held, strict=True):
        path = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in finite)
        ElementTree.SubElement(chart.root, "polyline", {"points": path, "class": f"curve {curve.kind}"})
        if curve.kind == "dots":
            for x, y in finite:
                place = {"cx": f"{place_x(x):.1f}", "cy": f"{place_y(y):.1f}", "r": "2.6", "class": "dot"}
                dot = ElementTree.SubElement(chart.root, "circle", place)
                ElementTree.SubElement(dot, "title").text = f"{curve.name} {y:.4g} at {x:.6g}"
    return str(chart)
