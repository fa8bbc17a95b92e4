"""Pictures of cases as PNG: image, reference and prediction, through the middle of the organ and the worst error.

matplotlib is imported when a picture is drawn; its display and its global state are not used.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medfcn.files import atomic_write, remove_half_written
from medfcn.labels import IGNORED, LabelCodec
from medfcn.labels.colours import PREDICTION, REFERENCE
from medfcn.labels.values import Value, Values, ValueSet
from medfcn.labels.whole_numbers import values_in, whole_numbers
from medfcn.reporting.panels import Panel, area_text, panel_of
from medfcn.reporting.upright import CaseVolumes, upright_case
from medfcn.volumes import Volume, require_same_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's orange and sky blue: distinct for every kind of colour vision, and in grey by their lightness and by
# the line, which is solid for the reference and dashed for the prediction.
_STYLES: dict[str, dict[str, Any]] = {
    "reference": {"color": REFERENCE, "linestyle": "solid", "linewidth": 2.0},
    "prediction": {"color": PREDICTION, "linestyle": (0, (3, 1.2)), "linewidth": 1.6},
}
_PAPER, _INK = "#101418", "#E8ECEF"


@dataclass(frozen=True)
class PictureCase:
    """The volumes of a case to draw.

    Attributes:
        image: The image.
        reference: The reader's mask on the image's grid; values above 0 are labels.
        prediction: The network's mask on the image's grid.
        title: One line above the pictures.
        ignored: Values of the reference that are no label: ignored voxels, in which nothing is wrong.
    """

    image: Volume
    reference: Volume | None
    prediction: Volume | None
    title: str = ""
    ignored: Values = ()


def overlay_sheet(cases: Sequence[PictureCase], path: Path | str) -> Path:
    """Draw cases in one PNG, one below the other: three views through the middle of the organ, and the worst slice.

    Pictures keep the volumes' proportions in millimetres. Right and left are as radiologists show them: the patient's
    right is on the left of axial and coronal pictures. Letters at the edges name the directions.

    Args:
        cases: At least one.
        path: The file, written whole or not at all.

    Returns:
        `path`.

    Raises:
        GeometryMismatchError: A mask is not on its image's grid.
        LabelError: The values of a mask are not whole numbers.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    rows = [_panels(case) for case in cases]
    columns = max(len(panels) for panels, _ in rows)
    figure = Figure(figsize=(3.0 * columns, 3.45 * len(rows) + 0.4), dpi=130, facecolor=_PAPER)
    FigureCanvasAgg(figure)
    bands = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for band, case, (panels, window) in zip(bands, cases, rows, strict=True):
        band.set_facecolor(_PAPER)
        band.suptitle(case.title, color=_INK, fontsize=11, x=0.012, y=0.985, ha="left", parse_math=False)
        axes = band.subplots(1, columns, squeeze=False)[0]
        band.subplots_adjust(left=0.01, right=0.99, top=0.86, bottom=0.03, wspace=0.06)
        for axis in axes:
            axis.set_axis_off()
        for axis, panel in zip(axes, panels, strict=False):
            _draw(axis, panel, window)
    _legend(figure, cases)
    remove_half_written(path.parent, path.name)
    with atomic_write(path) as file, warnings.catch_warnings():
        # The name of a case may be in a script that matplotlib's font does not have.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(file, format="png", facecolor=_PAPER, metadata={"Software": None})
    return path


def _panels(case: PictureCase) -> tuple[list[Panel], tuple[float, float]]:
    """Three views through the middle of the organ, a fourth through the worst error, and the window of all."""
    whole = {}
    for name, mask in (("reference", case.reference), ("prediction", case.prediction)):
        if mask is not None:
            mask = mask.reordered_to(case.image)
            require_same_grid(case.image, mask)
            whole[name] = whole_numbers(mask.array, name=mask.name or name)[0]
    values = set().union(*map(values_in, whole.values())) - ValueSet(case.ignored)
    indices: dict[Value, int] = {
        value: min(index, IGNORED - 1) for index, value in enumerate(sorted(values), start=1)
    }
    unlabelled: dict[Value, int] = dict.fromkeys(case.ignored, IGNORED)
    codec = LabelCodec({**indices, **unlabelled})
    codecs = {"reference": codec, "prediction": codec.without_ignored}
    masks = {name: case.image.with_array(codecs[name].encode(mask)) for name, mask in whole.items()}
    upright = upright_case(CaseVolumes(case.image, masks.get("reference"), masks.get("prediction")))
    if upright is None:  # never: there is an image
        return [], (0.0, 1.0)
    panels = [panel_of(upright, at) for at in upright.largest_slices()]
    worst = max(upright.worst_slices, key=lambda at: at.area_mm2)
    if len(masks) == 2 and worst.area_mm2:
        panel = panel_of(upright, worst)
        panels.append(replace(panel, caption=f"worst slice: {panel.caption}, {area_text(worst.area_mm2)} differ"))
    return panels, upright.window


def _draw(axis: "Axes", panel: Panel, window: tuple[float, float]) -> None:
    """The slice in grey with both outlines, letters at the edges, a scale bar and a caption."""
    width, height = panel.width_mm, panel.height_mm
    axis.imshow(
        np.asarray(panel.picture, dtype=np.float64),
        cmap="gray",
        vmin=window[0],
        vmax=window[1],
        extent=(0, width, height, 0),
        interpolation="bilinear",
        aspect="equal",
    )
    for mask, style in ((panel.reference, _STYLES["reference"]), (panel.prediction, _STYLES["prediction"])):
        if mask is not None:
            for _, loops in panel.outlines(mask):
                for loop in loops:
                    axis.plot(*zip(*loop, loop[0], strict=True), **style)
    # All panels get a square field, so that their captions are in line.
    side = max(width, height)
    axis.set_xlim(width / 2 - side / 2, width / 2 + side / 2)
    axis.set_ylim(height / 2 + side / 2, height / 2 - side / 2)
    axis.text(
        *(0.5, 1.015), panel.caption, transform=axis.transAxes, color=_INK, fontsize=8.5, ha="center", va="bottom"
    )
    inset = 0.045 * side
    places = ((inset, height / 2), (width - inset, height / 2), (width / 2, inset), (width / 2, height - inset))
    for letter, (x, y) in zip(panel.letters, places, strict=True):
        haloed(axis.text(x, y, letter, color="white", fontsize=9, fontweight="bold", ha="center", va="center"))
    x, y = width - 0.04 * side, height - 0.04 * side
    for colour, thickness in (("black", 4), ("white", 2)):
        axis.plot([x - panel.bar_mm, x], [y, y], color=colour, linewidth=thickness, solid_capstyle="butt")
    haloed(axis.text(x - panel.bar_mm / 2, y - 0.02 * side, panel.bar_text, color="white", fontsize=7, ha="center"))


def haloed(text: Any) -> None:
    """Give white words a black edge, so that they can be read on any picture."""
    from matplotlib.patheffects import withStroke

    text.set_path_effects([withStroke(linewidth=2, foreground="black")])


def _legend(figure: "Figure", cases: Sequence[PictureCase]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], label=name, **style)
        for name, style in _STYLES.items()
        if any(getattr(case, name) is not None for case in cases)
    ]
    if handles:
        figure.legend(
            handles=handles,
            loc="upper right",
            ncols=len(handles),
            frameon=False,
            labelcolor=_INK,
            fontsize=9,
            bbox_to_anchor=(0.995, 1.0),
        )
