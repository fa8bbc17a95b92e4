"""Draw the figures of the documentation: `python docs/figures.py` writes `docs/explanation/pictures/errors.svg`.

Each panel is a reference and a prediction with one kind of error, on pixels of 1 mm. medfcn computes the figures
below it from these masks.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medfcn.evaluation import dice, hausdorff_mm, nsd
from medfcn.files import write_bytes
from medfcn.reporting.svg import Element, add, svg_root, svg_text

PICTURES = Path(__file__).resolve().parent / "explanation" / "pictures"
PIXELS, EDGE, MARGIN, COLUMNS, WORDS = 40, 5, 14, 3, 62
BLUE, ORANGE, INK, PAPER = "#9ec5e6", "#d55e00", "#26323b", "#ffffff"
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Panel:
    """A kind of error.

    Attributes:
        title: Its name.
        reference: `(40, 40)` mask of the reader.
        prediction: `(40, 40)` mask of the network.
    """

    title: str
    reference: Mask
    prediction: Mask

    def scores(self) -> tuple[str, str]:
        """Dice and NSD, then HD and HD95, in words."""
        one, other = self.reference[:, :, None], self.prediction[:, :, None]
        spacing = (1.0, 1.0, 1.0)
        shares = f"Dice {dice(one, other):.2f}, NSD (1 mm) {nsd(one, other, spacing, tolerance_mm=1.0):.2f}"
        largest, most = (hausdorff_mm(one, other, spacing, percentile=percentile) for percentile in (100, 95))
        return shares, f"HD {_length(largest)}, HD95 {_length(most)}"


def _length(value: float) -> str:
    return f"{value:.1f} mm" if np.isfinite(value) else "∞"


def _disc(row: float, column: float, radius: float) -> Mask:
    rows, columns = np.indices((PIXELS, PIXELS))
    inside: Mask = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    return inside


def panels() -> list[Panel]:
    """The kinds of errors, in the order of the figure."""
    large, small = _disc(20, 20, 13), _disc(20, 20, 4)
    three = _disc(13, 13, 8) | _disc(29, 29, 3.5) | _disc(10, 32, 2.5)
    speck = large | _disc(3, 3, 0)
    island = large | _disc(5, 5, 3.5)
    return [
        Panel("a pixel too large, large organ", large, _disc(20, 20, 14)),
        Panel("a pixel too large, small organ", small, _disc(20, 20, 5)),
        Panel("a speck far away", large, speck),
        Panel("an island far away", large, island),
        Panel("two of three lesions missed", three, _disc(13, 13, 8)),
        Panel("nothing found", large, np.zeros_like(large)),
    ]


def errors_svg() -> str:
    """The figure of all panels."""
    found = panels()
    side = PIXELS * EDGE
    width = COLUMNS * (side + MARGIN) + MARGIN
    rows = -(-len(found) // COLUMNS)
    height = rows * (side + WORDS + MARGIN) + MARGIN
    root = svg_root("figure", "Six kinds of errors of a mask, with their scores", width, height)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    add(root, "rect", width=float(width), height=float(height), fill=PAPER)
    for place, panel in enumerate(found):
        left = MARGIN + place % COLUMNS * (side + MARGIN)
        top = MARGIN + place // COLUMNS * (side + WORDS + MARGIN)
        _draw(root, panel, left, top, side)
    return svg_text(root) + "\n"


def _draw(root: Element, panel: Panel, left: int, top: int, side: int) -> None:
    box = {"x": float(left), "y": float(top), "width": float(side), "height": float(side)}
    add(root, "rect", **box, fill="none", stroke="#c9d1d6")
    for row in range(PIXELS):
        for start, end in _runs(panel.reference[row]):
            x, y = float(left + start * EDGE), float(top + row * EDGE)
            add(root, "rect", x=x, y=y, width=float((end - start) * EDGE), height=float(EDGE), fill=BLUE)
    add(root, "path", d=_outline(panel.prediction, left, top), fill="none", stroke=ORANGE, stroke_width="2")
    lines = (panel.title, *panel.scores())
    for number, words in enumerate(lines):
        weight = "bold" if number == 0 else "normal"
        y = float(top + side + 17 + 19 * number)
        style = {"font_family": "sans-serif", "font_size": "13", "font_weight": weight, "fill": INK}
        add(root, "text", words=words, x=float(left), y=y, **style)


def _runs(row: Mask) -> list[tuple[int, int]]:
    """Where a row is inside: first pixel, and the one after the last."""
    edges = np.flatnonzero(np.diff(np.pad(row.astype(np.int8), 1)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _outline(mask: Mask, left: int, top: int) -> str:
    """The edges between pixels inside and outside, as the path of an SVG."""
    parts = []
    for turned, pattern in ((mask, "M{0} {1}h{2}"), (mask.T, "M{1} {0}v{2}")):
        along, across = (left, top) if turned is mask else (top, left)
        change = np.diff(np.pad(turned.astype(np.int8), ((1, 1), (0, 0))), axis=0) != 0
        for line, row in enumerate(change):
            for start, end in _runs(row):
                parts.append(pattern.format(along + start * EDGE, across + line * EDGE, (end - start) * EDGE))
    return "".join(parts)


def main() -> None:
    """Write the figures."""
    PICTURES.mkdir(exist_ok=True)
    write_bytes(PICTURES / "errors.svg", errors_svg().encode())


if __name__ == "__main__":
    main()
