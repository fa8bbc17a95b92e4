"""Slices through the error of a case as one SVG: the image, both outlines, directions and a scale bar.

Built as an XML tree, so that no text can become markup.
"""

import base64
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from medfcn.reporting.viewing import UprightCase, WorstSlice

__all__ = ["PLANES", "boundary_loops", "error_strip", "grey_png"]

PLANES = ("sagittal", "coronal", "axial")
_LETTERS = (("R", "L"), ("A", "P"), ("S", "I"))
_SIDE, _GAP, _CAPTION = 200.0, 8.0, 16.0


@dataclass(frozen=True, eq=False)
class _Cut:
    """One slice: rows run downwards, columns towards the patient's left or posterior."""

    picture: NDArray[Any] | None
    reference: NDArray[np.uint8] | None
    prediction: NDArray[np.uint8] | None
    width_mm: float
    height_mm: float
    across: int
    up: int


def _cut(case: UprightCase, at: WorstSlice) -> _Cut:
    across, up = (axis for axis in range(3) if axis != at.axis)

    def slice_of(array: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if array is None else np.take(array, at.index, axis=at.axis).T[::-1, ::-1]

    return _Cut(
        picture=slice_of(case.image),
        reference=slice_of(case.reference),
        prediction=slice_of(case.prediction),
        width_mm=case.shape[across] * case.edges_mm[across],
        height_mm=case.shape[up] * case.edges_mm[up],
        across=across,
        up=up,
    )


def error_strip(case: UprightCase, colours: Sequence[tuple[str, str]], *, most_pixels: int = 320) -> str:
    """The worst axial, coronal and sagittal slice side by side.

    The patient's right is on the left of axial and coronal slices, anterior on the left of sagittal ones. All three
    have one scale.

    Args:
        case: What to draw.
        colours: For each label, of the reference's outline (solid) and of the prediction's (dashed).
        most_pixels: Along an edge of a picture; a larger one is thinned. Outlines keep every voxel.

    Returns:
        An `<svg>` element.
    """
    slices = case.worst_slices()
    cuts = [_cut(case, at) for at in slices]
    scale = _SIDE / max(max(cut.width_mm, cut.height_mm) for cut in cuts)
    height = max(cut.height_mm for cut in cuts) * scale
    least = 168.0 if case.is_oblique else 136.0  # what the words above a slice need
    widths = [max(cut.width_mm * scale, least) for cut in cuts]
    total = sum(widths) + _GAP * (len(cuts) - 1)
    captions = [_caption(case, at) for at in slices]
    root = ElementTree.Element(
        "svg",
        {
            "viewBox": f"0 0 {total:.1f} {height + _CAPTION:.1f}",
            "class": "strip",
            "role": "img",
            "aria-label": "; ".join(captions),
            "width": f"{total:.0f}",
            "height": f"{height + _CAPTION:.0f}",
        },
    )
    x = 0.0
    for at, cut, width, caption in zip(slices, cuts, widths, captions, strict=True):
        group = ElementTree.SubElement(
            root, "g", {"transform": f"translate({x:.1f} {_CAPTION})", "data-plane": PLANES[at.axis]}
        )
        left = (width - cut.width_mm * scale) / 2
        top = (height - cut.height_mm * scale) / 2
        ElementTree.SubElement(group, "rect", {"width": f"{width:.1f}", "height": f"{height:.1f}", "class": "ground"})
        panel = ElementTree.SubElement(group, "g", {"transform": f"translate({left:.1f} {top:.1f})"})
        _draw(panel, case, cut, scale, most_pixels)
        _outlines(panel, cut, colours, scale)
        _letters(group, cut, width, height)
        _scale_bar(group, cut, width, height, scale)
        text = ElementTree.SubElement(group, "text", {"x": f"{width / 2:.1f}", "y": "-5", "class": "caption"})
        text.text = caption
        x += width + _GAP
    return ElementTree.tostring(root, encoding="unicode")


def _caption(case: UprightCase, at: WorstSlice) -> str:
    near = "near " if case.is_oblique else ""
    place = f"{near}{PLANES[at.axis]} {at.index + case.offset[at.axis] + 1}/{case.full_shape[at.axis]}"
    if not case.has_reference:
        return f"{place} · {at.area_mm2:.3g} mm²"
    return f"{place} · {at.area_mm2:.3g} mm²" if at.area_mm2 else f"{place} · no difference"


def _draw(panel: ElementTree.Element, case: UprightCase, cut: _Cut, scale: float, most_pixels: int) -> None:
    if cut.picture is not None:
        low, high = case.window
        step = max(1, -(-max(cut.picture.shape) // most_pixels))
        seen = np.nan_to_num(cut.picture[::step, ::step].astype(np.float64))
        grey = np.clip((seen - low) * (255.0 / (high - low)), 0, 255).astype(np.uint8)
        # Thinned pixels stand for `step` voxels each; the last may reach beyond the slice.
        rows, columns = cut.picture.shape
        ElementTree.SubElement(
            panel,
            "image",
            {
                "width": f"{cut.width_mm * scale * grey.shape[1] * step / columns:.2f}",
                "height": f"{cut.height_mm * scale * grey.shape[0] * step / rows:.2f}",
                "preserveAspectRatio": "none",
                "href": "data:image/png;base64," + base64.b64encode(grey_png(grey)).decode("ascii"),
            },
        )


def _outlines(panel: ElementTree.Element, cut: _Cut, colours: Sequence[tuple[str, str]], scale: float) -> None:
    for kind, mask, place in (("reference", cut.reference, 0), ("prediction", cut.prediction, 1)):
        if mask is None:
            continue
        edges = (cut.width_mm * scale / mask.shape[1], cut.height_mm * scale / mask.shape[0])
        for value in np.unique(mask):
            if value == 0 or value > len(colours):  # background, or what nobody labelled
                continue
            path = _path(boundary_loops(mask == value), edges)
            ElementTree.SubElement(
                panel, "path", {"d": path, "class": f"outline {kind}", "stroke": colours[value - 1][place]}
            )


def _letters(group: ElementTree.Element, cut: _Cut, width: float, height: float) -> None:
    places = ((7.0, height / 2 + 4), (width - 7, height / 2 + 4), (width / 2, 12.0), (width / 2, height - 4))
    for letter, (x, y) in zip((*_LETTERS[cut.across], *_LETTERS[cut.up]), places, strict=True):
        text = ElementTree.SubElement(group, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "class": "letter"})
        text.text = letter


def _scale_bar(group: ElementTree.Element, cut: _Cut, width: float, height: float, scale: float) -> None:
    length = next((step for step in (100, 50, 20, 10, 5, 2, 1) if step <= cut.width_mm / 3), 1)
    end, y = width - 6, height - 6
    ElementTree.SubElement(
        group, "path", {"d": f"M{end - length * scale:.1f} {y:.1f}H{end:.1f}", "class": "scalebar"}
    )
    text = ElementTree.SubElement(
        group, "text", {"x": f"{end - length * scale / 2:.1f}", "y": f"{y - 4:.1f}", "class": "scaletext"}
    )
    text.text = f"{length} mm"


def boundary_loops(mask: NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """Closed outlines along the edges of pixels, which show what was counted.

    Args:
        mask: `(rows, columns)`.

    Returns:
        Corners `(column, row)` of each loop, in turn, the mask on the right-hand side.

    Example:
        >>> boundary_loops(np.array([[True, True]]))
        [[(0, 0), (2, 0), (2, 1), (0, 1)]]
    """
    padded = np.pad(mask, 1)
    onward: dict[tuple[int, int], list[tuple[int, int]]] = {}

    def connect(starts: NDArray[np.intp], begin: tuple[int, int], end: tuple[int, int]) -> None:
        for row, column in starts.tolist():
            onward.setdefault((column + begin[0], row + begin[1]), []).append((column + end[0], row + end[1]))

    inside = padded[1:-1, 1:-1]
    connect(np.argwhere(inside & ~padded[:-2, 1:-1]), (0, 0), (1, 0))
    connect(np.argwhere(inside & ~padded[1:-1, 2:]), (1, 0), (1, 1))
    connect(np.argwhere(inside & ~padded[2:, 1:-1]), (1, 1), (0, 1))
    connect(np.argwhere(inside & ~padded[1:-1, :-2]), (0, 1), (0, 0))
    loops = []
    for start in sorted(onward, key=lambda corner: (corner[1], corner[0])):
        while onward[start]:
            loop, here = [start], onward[start].pop()
            while here != start:
                loop.append(here)
                # Where four pixels meet corner to corner, two loops touch: turn right, around one's own pixel.
                here = _turned_right(loop[-2], here, onward[here])
            loops.append(_without_straight(loop))
    return loops


def _turned_right(before: tuple[int, int], here: tuple[int, int], choices: list[tuple[int, int]]) -> tuple[int, int]:
    if len(choices) == 1:
        return choices.pop()
    step = (here[0] - before[0], here[1] - before[1])
    right = (here[0] - step[1], here[1] + step[0])
    choice = right if right in choices else choices[0]
    choices.remove(choice)
    return choice


def _without_straight(loop: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Only the corners at which the direction changes."""
    corners = []
    for number, here in enumerate(loop):
        before, after = loop[number - 1], loop[(number + 1) % len(loop)]
        if not (before[0] == here[0] == after[0] or before[1] == here[1] == after[1]):
            corners.append(here)
    return corners


def _path(loops: list[list[tuple[int, int]]], edges: tuple[float, float]) -> str:
    """SVG path data; the corners of a loop turn by right angles."""
    parts = []
    for loop in loops:
        steps = [f"M{loop[0][0] * edges[0]:.2f} {loop[0][1] * edges[1]:.2f}"]
        for (column, row), (before, _) in zip(loop[1:], loop, strict=False):
            steps.append(f"V{row * edges[1]:.2f}" if column == before else f"H{column * edges[0]:.2f}")
        parts.append("".join(steps) + "Z")
    return "".join(parts)


def grey_png(grey: NDArray[np.uint8]) -> bytes:
    """An 8-bit greyscale PNG.

    Args:
        grey: `(rows, columns)`.

    Source:
        PNG specification, W3C, 2003, sections 5 and 9.

    Example:
        >>> grey_png(np.zeros((1, 2), dtype=np.uint8))[:4]
        b'\\x89PNG'
    """

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    rows, columns = grey.shape
    # Every row begins with its filter: none.
    lines = np.hstack([np.zeros((rows, 1), dtype=np.uint8), grey]).tobytes()
    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")
    )
