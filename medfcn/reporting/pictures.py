"""Pictures of a case: image, reference and prediction, where the organ is and where the error is worst.

matplotlib is loaded when a picture is drawn, without a display and without touching its global state.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medfcn.files import atomic_write
from medfcn.volumes import Volume, require_same_grid
from medfcn.volumes.geometry import axis_assignment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PictureCase", "overlay_picture", "overlay_sheet"]

# Okabe and Ito's orange and sky blue: told apart by every kind of colour vision, and in grey by their lightness
# and by the line, which is solid for the reference and dashed for the prediction.
REFERENCE_COLOUR, PREDICTION_COLOUR = "#E69F00", "#56B4E9"
_PAPER, _INK = "#101418", "#E8ECEF"
_MARGIN_MM = 12.0
_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))
_VIEWS = ("sagittal", "coronal", "axial")


@dataclass(frozen=True)
class PictureCase:
    """What a picture of one case is drawn from.

    Attributes:
        image: What the reader looked at.
        reference: The reader's mask on the image's grid; values above 0 are the organ.
        prediction: The network's mask on the image's grid.
        title: One line above the pictures.
        ignored: Values of the reference that are no organ: nobody labelled these voxels, and nothing is wrong there.
    """

    image: Volume
    reference: Volume | None
    prediction: Volume | None
    title: str = ""
    ignored: tuple[int, ...] = ()


def overlay_picture(
    image: Volume,
    reference: Volume | None,
    prediction: Volume | None,
    path: Path | str,
    *,
    title: str = "",
    ignored: Sequence[int] = (),
) -> Path:
    """Draw one case as a PNG: the middle of the organ in three views, and its worst error.

    Pictures keep the volume's proportions in millimetres. Right and left are as radiologists show them: the
    patient's right is on the left of axial and coronal pictures. Letters at the edges name the directions.

    Args:
        image: What the reader looked at.
        reference: The reader's mask, on the image's grid; `None` when there is none.
        prediction: The network's mask, on the image's grid; `None` when there is none.
        path: The file to write, whole or not at all.
        title: One line above the pictures.
        ignored: Values of the reference for voxels that nobody labelled.

    Returns:
        `path`.

    Raises:
        GeometryMismatchError: A mask is not on the image's grid.
    """
    return overlay_sheet([PictureCase(image, reference, prediction, title, tuple(ignored))], path)


def overlay_sheet(cases: Sequence[PictureCase], path: Path | str) -> Path:
    """Draw several cases in one PNG, one under the other; each as in `overlay_picture`.

    Args:
        cases: At least one.
        path: The file to write, whole or not at all.

    Returns:
        `path`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    rows = [_panels(case) for case in cases]
    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(3.0 * columns, 3.45 * len(rows) + 0.4), dpi=130, facecolor=_PAPER)
    FigureCanvasAgg(figure)
    bands = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for band, case, panels in zip(bands, cases, rows, strict=True):
        band.set_facecolor(_PAPER)
        band.suptitle(
            case.title,
            color=_INK,
            fontsize=11,
            x=0.012,
            y=0.985,
            ha="left",
            parse_math=False,
        )
        axes = band.subplots(1, columns, squeeze=False)[0]
        band.subplots_adjust(left=0.01, right=0.99, top=0.86, bottom=0.03, wspace=0.06)
        for axis in axes:
            axis.set_axis_off()
        for axis, panel in zip(axes, panels, strict=False):
            _draw(axis, panel)
    _legend(figure, cases)
    with atomic_write(path) as file, warnings.catch_warnings():
        # A case's name may be in a script that matplotlib's font does not have.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(file, format="png", facecolor=_PAPER, metadata={"Software": None})
    return path


@dataclass(frozen=True)
class _Panel:
    """One slice, ready to be drawn: rows run down, columns to the right."""

    picture: NDArray[np.float64]
    reference: NDArray[np.int64] | None
    prediction: NDArray[np.int64] | None
    edges_mm: tuple[float, float]
    window: tuple[float, float]
    directions: tuple[str, str, str, str]
    caption: str


def _panels(case: PictureCase) -> list[_Panel]:
    """Three views through the middle of the organ; a fourth through the worst error."""
    for mask in (case.reference, case.prediction):
        if mask is not None:
            require_same_grid(case.image, mask)
    axes, signs = axis_assignment(case.image.affine)
    order = tuple(int(np.argsort(axes)[world]) for world in range(3))
    flips = tuple(slice(None, None, signs[axis]) for axis in order)

    def turned(volume: Volume | None) -> NDArray[Any] | None:
        return None if volume is None else volume.array.transpose(order)[flips]

    right, anterior, superior = (case.image.spacing_mm[axis] for axis in order)
    image = case.image.array.transpose(order)[flips]
    edges_mm = (right, anterior, superior)
    reference, unlabelled = turned(case.reference), None
    if reference is not None and case.ignored:
        unlabelled = np.isin(reference, case.ignored)
        reference = np.where(unlabelled, 0, reference)
    prediction = turned(case.prediction)
    return _Upright(image, reference, prediction, unlabelled, edges_mm, case.image.is_oblique).panels()


@dataclass(frozen=True)
class _Upright:
    """A case whose axes run towards right, anterior and superior, as nearly as its grid does.

    `unlabelled` are voxels that nobody labelled, background in the reference; None where there are none.
    """

    image: NDArray[Any]
    reference: NDArray[Any] | None
    prediction: NDArray[Any] | None
    unlabelled: NDArray[np.bool_] | None
    edges_mm: tuple[float, float, float]
    is_oblique: bool

    def panels(self) -> list[_Panel]:
        either = self._either()
        middle = _middle(self.reference if _has_any(self.reference) else either)
        window = _window(self.image, either)
        box = self._box(either)
        panels = [self._panel(axis, middle[axis], box, window, "") for axis in (2, 1, 0)]
        worst = self._worst()
        if worst is not None:
            panels.append(self._panel(worst[0], worst[1], box, window, worst[2]))
        return panels

    def _either(self) -> NDArray[np.bool_]:
        either = np.zeros(self.image.shape, dtype=bool)
        for mask in (self.reference, self.prediction):
            if mask is not None:
                either |= mask > 0
        return either

    def _box(self, either: NDArray[np.bool_]) -> tuple[slice, ...]:
        """The organ with a margin; the whole volume when both masks are empty."""
        if not either.any():
            return tuple(slice(0, length) for length in self.image.shape)
        box = []
        for axis, length in enumerate(self.image.shape):
            others = tuple(other for other in range(3) if other != axis)
            at = np.flatnonzero(either.any(axis=others))
            margin = math.ceil(_MARGIN_MM / self.edges_mm[axis])
            box.append(slice(max(int(at[0]) - margin, 0), min(int(at[-1]) + margin + 1, length)))
        return tuple(box)

    def _worst(self) -> tuple[int, int, str] | None:
        """The axis and slice with the largest wrong area, and how large it is."""
        if self.reference is None or self.prediction is None:
            return None
        wrong = self.reference != self.prediction
        if self.unlabelled is not None:
            wrong &= ~self.unlabelled
        if not wrong.any():
            return None
        best: tuple[float, int, int] = (0.0, 2, 0)
        for axis in (2, 1, 0):
            others = tuple(other for other in range(3) if other != axis)
            area = wrong.sum(axis=others) * math.prod(self.edges_mm[other] for other in others)
            index = int(area.argmax())
            best = max(best, (float(area[index]), axis, index), key=lambda candidate: candidate[0])
        return best[1], best[2], f"{best[0]:.3g} mm² differ"

    def _panel(
        self, axis: int, index: int, box: tuple[slice, ...], window: tuple[float, float], error: str
    ) -> _Panel:
        across, up = (other for other in range(3) if other != axis)

        def cut(array: NDArray[Any] | None) -> NDArray[Any] | None:
            if array is None:
                return None
            where = [box[0], box[1], box[2]]
            flat = array[tuple(index if other == axis else where[other] for other in range(3))]
            # Columns run towards the patient's left (radiological) or posterior, rows downwards.
            return np.asarray(flat.T[::-1, ::-1])

        picture = cut(self.image)
        near = "near " if self.is_oblique else ""
        place = f"{near}{_VIEWS[axis]}, {index + 1} of {self.image.shape[axis]}"
        directions = (_LETTERS[across][1], _LETTERS[across][0], _LETTERS[up][1], _LETTERS[up][0])
        return _Panel(
            picture=np.asarray(picture, dtype=np.float64),
            reference=cut(self.reference),
            prediction=cut(self.prediction),
            edges_mm=(self.edges_mm[across], self.edges_mm[up]),
            window=window,
            directions=directions,
            caption=f"worst slice: {place}, {error}" if error else place,
        )


def _has_any(mask: NDArray[Any] | None) -> bool:
    return mask is not None and bool((mask > 0).any())


def _middle(mask: NDArray[Any] | None) -> tuple[int, ...]:
    """The slice of each axis in which the mask has the largest area; the middle of an empty one."""
    if mask is None or not (mask > 0).any():
        return tuple(length // 2 for length in (mask.shape if mask is not None else (1, 1, 1)))
    inside = mask > 0
    return tuple(
        int(inside.sum(axis=tuple(other for other in range(3) if other != axis)).argmax()) for axis in range(3)
    )


def _window(image: NDArray[Any], either: NDArray[np.bool_]) -> tuple[float, float]:
    """Grey values from black to white: what lies around the organ, without the outermost percents."""
    near = image
    if either.any():
        at = np.argwhere(either)
        near = image[tuple(slice(max(low - 8, 0), high + 9) for low, high in zip(at.min(0), at.max(0), strict=True))]
    low, high = np.percentile(near.astype(np.float64), (1.0, 99.5))
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1.0)


def _draw(axis: "Axes", panel: _Panel) -> None:
    """The slice in grey with both outlines, letters at the edges, a scale bar and a caption."""
    rows, columns = panel.picture.shape
    width, height = columns * panel.edges_mm[0], rows * panel.edges_mm[1]
    axis.imshow(
        panel.picture,
        cmap="gray",
        vmin=panel.window[0],
        vmax=panel.window[1],
        extent=(0, width, height, 0),
        interpolation="bilinear",
        aspect="equal",
    )
    _outline(axis, panel.reference, panel.edges_mm, REFERENCE_COLOUR, "solid", 2.0)
    _outline(axis, panel.prediction, panel.edges_mm, PREDICTION_COLOUR, (0, (3, 1.2)), 1.6)
    # All panels get a square field, so that their captions stand in line.
    side = max(width, height)
    axis.set_xlim(width / 2 - side / 2, width / 2 + side / 2)
    axis.set_ylim(height / 2 + side / 2, height / 2 - side / 2)
    axis.text(
        *(0.5, 1.015), panel.caption, transform=axis.transAxes, color=_INK, fontsize=8.5, ha="center", va="bottom"
    )
    inset = 0.045 * side
    places = ((inset, height / 2), (width - inset, height / 2), (width / 2, inset), (width / 2, height - inset))
    for letter, (x, y) in zip(panel.directions, places, strict=True):
        _haloed(axis.text(x, y, letter, color="white", fontsize=9, fontweight="bold", ha="center", va="center"))
    _scale_bar(axis, width, height, side)


def _outline(
    axis: "Axes",
    mask: NDArray[np.int64] | None,
    edges_mm: tuple[float, float],
    colour: str,
    style: Any,
    width: float,
) -> None:
    """Along the edges of voxels, so that the outline shows what was counted."""
    if mask is None:
        return
    from matplotlib.collections import LineCollection

    padded = np.pad(np.asarray(mask, dtype=np.int64), 1)
    lines = []
    for row, column in np.argwhere(padded[:, 1:] != padded[:, :-1]):
        lines.append(((column, row - 1), (column, row)))
    for row, column in np.argwhere(padded[1:] != padded[:-1]):
        lines.append(((column - 1, row), (column, row)))
    if lines:
        segments = _joined(np.array(lines, dtype=np.int64))
        scale = np.array(edges_mm)
        axis.add_collection(
            LineCollection([line * scale for line in segments], colors=colour, linestyles=[style], linewidths=width)
        )


def _joined(lines: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    """Unit edges `(n, 2, 2)` joined to paths, so that dashes run on around corners."""
    at: dict[tuple[int, int], list[int]] = {}
    ends = [tuple(map(tuple, line)) for line in lines.tolist()]
    for number, (first, second) in enumerate(ends):
        at.setdefault(first, []).append(number)
        at.setdefault(second, []).append(number)
    unused = set(range(len(ends)))
    paths = []
    while unused:
        number = unused.pop()
        path = list(ends[number])
        while True:
            onward = next((other for other in at[path[-1]] if other in unused), None)
            if onward is None:
                break
            unused.remove(onward)
            first, second = ends[onward]
            path.append(second if first == path[-1] else first)
        paths.append(np.array(path, dtype=np.float64))
    return paths


def _scale_bar(axis: "Axes", width: float, height: float, side: float) -> None:
    length = next((step for step in (50, 20, 10, 5, 2, 1) if step <= min(width, side) / 4), 1)
    x, y = width - 0.04 * side, height - 0.04 * side
    for colour, thickness in (("black", 4), ("white", 2)):
        axis.plot([x - length, x], [y, y], color=colour, linewidth=thickness, solid_capstyle="butt")
    _haloed(axis.text(x - length / 2, y - 0.02 * side, f"{length} mm", color="white", fontsize=7, ha="center"))


def _haloed(text: Any) -> None:
    from matplotlib.patheffects import withStroke

    text.set_path_effects([withStroke(linewidth=2, foreground="black")])


def _legend(figure: "Figure", cases: Sequence[PictureCase]) -> None:
    from matplotlib.lines import Line2D

    handles = []
    if any(case.reference is not None for case in cases):
        handles.append(Line2D([], [], color=REFERENCE_COLOUR, linewidth=2.2, label="reference"))
    if any(case.prediction is not None for case in cases):
        handles.append(
            Line2D([], [], color=PREDICTION_COLOUR, linewidth=2, linestyle=(0, (3, 1.2)), label="prediction")
        )
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
