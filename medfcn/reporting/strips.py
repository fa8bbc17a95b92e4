"""Slices through the worst error of a case as one SVG: the image, both outlines, directions and a scale bar."""

import base64
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medfcn.png import png_bytes
from medfcn.reporting.panels import Panel, area_text, panel_of
from medfcn.reporting.svg import Element, add, svg_root, svg_text
from medfcn.reporting.upright import UprightCase

_SIDE, _GAP, _CAPTION, _LEAST_WIDTH = 200.0, 8.0, 16.0, 136.0
_LETTER = 6.2
"""Width of a letter of a caption, on the wide side."""


def error_strip(case: UprightCase, colours: Sequence[tuple[str, str]], *, most_pixels: int = 320) -> str:
    """The worst axial, coronal and sagittal slice side by side.

    The patient's right is on the left of axial and coronal slices, anterior on the left of sagittal ones. All three
    have the same scale.

    Args:
        case: The case.
        colours: For each label, the colours of the reference's outline (solid) and of the prediction's (dashed).
        most_pixels: Along an edge of a picture; a larger picture is thinned. Outlines keep every voxel.

    Returns:
        An `<svg>` element.
    """
    slices = case.worst_slices
    panels = [panel_of(case, at) for at in slices]
    scale = _SIDE / max(max(panel.width_mm, panel.height_mm) for panel in panels)
    height = max(panel.height_mm for panel in panels) * scale
    captions = [
        f"{panel.caption} · {area_text(at.area_mm2)}"
        if at.area_mm2 or not case.has_reference
        else f"{panel.caption} · no difference"
        for panel, at in zip(panels, slices, strict=True)
    ]
    widths = [
        max(panel.width_mm * scale, _LEAST_WIDTH, _LETTER * len(caption))
        for panel, caption in zip(panels, captions, strict=True)
    ]
    total = sum(widths) + _GAP * (len(panels) - 1)
    root = svg_root("strip", "; ".join(captions), total, height + _CAPTION, digits=1)
    x = 0.0
    for panel, width, caption in zip(panels, widths, captions, strict=True):
        group = add(root, "g", transform=f"translate({x:.1f} {_CAPTION})", data_plane=panel.plane)
        add(group, "rect", "ground", width=width, height=height)
        left, top = (width - panel.width_mm * scale) / 2, (height - panel.height_mm * scale) / 2
        slice_group = add(group, "g", transform=f"translate({left:.1f} {top:.1f})")
        _add_picture(slice_group, panel, scale, case.window, most_pixels)
        _add_outlines(slice_group, panel, scale, colours)
        places = ((7.0, height / 2 + 4), (width - 7, height / 2 + 4), (width / 2, 12.0), (width / 2, height - 4))
        for letter, (letter_x, letter_y) in zip(panel.letters, places, strict=True):
            add(group, "text", "letter", letter, x=letter_x, y=letter_y)
        end, y, length = width - 6, height - 6, panel.bar_mm * scale
        add(group, "path", "scalebar", d=f"M{end - length:.1f} {y:.1f}H{end:.1f}")
        add(group, "text", "scaletext", panel.bar_text, x=end - length / 2, y=y - 4)
        add(group, "text", "caption", caption, x=width / 2, y="-5")
        x += width + _GAP
    return svg_text(root)


def _add_picture(group: Element, panel: Panel, scale: float, window: tuple[float, float], most_pixels: int) -> None:
    if panel.picture is None:
        return
    low, high = window
    step = max(1, -(-max(panel.picture.shape) // most_pixels))
    seen = np.nan_to_num(panel.picture[::step, ::step].astype(np.float64))
    grey = np.clip((seen - low) * (255.0 / (high - low)), 0, 255).astype(np.uint8)
    # Each thinned pixel stands for `step` voxels; the last may reach beyond the slice.
    rows, columns = panel.picture.shape
    add(
        group,
        "image",
        width=f"{panel.width_mm * scale * grey.shape[1] * step / columns:.2f}",
        height=f"{panel.height_mm * scale * grey.shape[0] * step / rows:.2f}",
        preserveAspectRatio="none",
        href="data:image/png;base64," + base64.b64encode(png_bytes(grey)).decode("ascii"),
    )


def _add_outlines(group: Element, panel: Panel, scale: float, colours: Sequence[tuple[str, str]]) -> None:
    for side, (kind, mask) in enumerate((("reference", panel.reference), ("prediction", panel.prediction))):
        if mask is None:
            continue
        for label, loops in panel.outlines(mask):
            path = "".join(_path(loop * scale) for loop in loops)
            add(group, "path", f"outline {kind}", d=path, stroke=colours[label - 1][side])


def _path(loop: NDArray[np.float64]) -> str:
    """SVG path data of one loop, whose corners are right angles."""
    steps = [f"M{loop[0, 0]:.2f} {loop[0, 1]:.2f}"]
    for (x, y), (before, _) in zip(loop[1:], loop[:-1], strict=True):
        steps.append(f"V{y:.2f}" if x == before else f"H{x:.2f}")
    return "".join(steps) + "Z"
