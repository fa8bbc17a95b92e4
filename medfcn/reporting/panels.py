"""One slice of a case as a panel: the picture, the outlines of both masks, directions, scale bar and caption.

The page draws panels as SVG (`strips.py`), pictures draw them as PNG (`pictures.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.labels import IGNORED
from medfcn.reporting.upright import SliceOfCase, UprightCase

PLANES = ("sagittal", "coronal", "axial")
"""The planes by the axis of an upright case that they are across."""
_LETTERS = (("R", "L"), ("A", "P"), ("S", "I"))
_BARS_MM = (100, 50, 20, 10, 5, 2, 1)

Corner = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Panel:
    """One slice. Rows run downwards; columns run towards the patient's left (radiological), or posterior.

    Attributes:
        plane: `axial`, `coronal` or `sagittal`.
        picture: `(rows, columns)` of the image.
        reference: `(rows, columns)` indices of labels, and `IGNORED`.
        prediction: `(rows, columns)` indices of labels.
        width_mm: Width of the slice.
        height_mm: Height of the slice.
        letters: Directions at the left, right, upper and lower edge.
        caption: Plane and number of the slice.
    """

    plane: str
    picture: NDArray[Any] | None
    reference: NDArray[np.uint8] | None
    prediction: NDArray[np.uint8] | None
    width_mm: float
    height_mm: float
    letters: tuple[str, str, str, str]
    caption: str

    @property
    def bar_mm(self) -> int:
        """Length of the scale bar."""
        return next((step for step in _BARS_MM if step <= self.width_mm / 3), 1)

    @property
    def bar_text(self) -> str:
        """The same in words: millimetres below a centimetre."""
        return f"{self.bar_mm} mm" if self.bar_mm < 10 else f"{self.bar_mm // 10} cm"

    def outlines(self, mask: NDArray[np.uint8]) -> Iterator[tuple[int, list[NDArray[np.float64]]]]:
        """The outlines of each label of one of the masks.

        Yields:
            The label's index, and its loops as `(n, 2)` corners `(x, y)` in millimetres from the upper left.
        """
        edges_mm = np.array([self.width_mm / mask.shape[1], self.height_mm / mask.shape[0]])
        for label in np.unique(mask):
            if label not in (0, IGNORED):
                yield int(label), [np.array(loop) * edges_mm for loop in boundary_loops(mask == label)]


def area_text(area_mm2: float) -> str:
    """An area in words.

    Example:
        >>> area_text(576.0), area_text(0.0)
        ('5.76 cm²', '0 cm²')
    """
    return f"{area_mm2 / 100:.3g} cm²"


def panel_of(case: UprightCase, at: SliceOfCase) -> Panel:
    """Cut a panel from a case."""
    across, up = (axis for axis in range(3) if axis != at.axis)

    def cut(array: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if array is None else array[(slice(None),) * at.axis + (at.index,)].T[::-1, ::-1]

    near = "near " if case.is_oblique else ""
    return Panel(
        plane=PLANES[at.axis],
        picture=cut(case.image),
        reference=cut(case.reference),
        prediction=cut(case.prediction),
        width_mm=case.shape[across] * case.edges_mm[across],
        height_mm=case.shape[up] * case.edges_mm[up],
        letters=(*_LETTERS[across], *_LETTERS[up]),
        caption=f"{near}{PLANES[at.axis]} {at.index + case.offset[at.axis] + 1}/{case.full_shape[at.axis]}",
    )


def boundary_loops(mask: NDArray[np.bool_]) -> list[list[Corner]]:
    """Closed outlines along the edges of pixels, so that they show exactly the counted pixels.

    Args:
        mask: `(rows, columns)`.

    Returns:
        The corners `(column, row)` of each loop in turn, with the mask on the right-hand side.

    Example:
        >>> boundary_loops(np.array([[True, True]]))
        [[(0, 0), (2, 0), (2, 1), (0, 1)]]
    """
    padded = np.pad(mask, 1)
    onward: dict[Corner, list[Corner]] = {}

    def connect(starts: NDArray[np.intp], begin: Corner, end: Corner) -> None:
        for row, column in starts.tolist():
            onward.setdefault((column + begin[0], row + begin[1]), []).append((column + end[0], row + end[1]))

    # Each edge between a pixel of the mask and its upper, right, lower or left neighbour, clockwise around the pixel.
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
                # Where four pixels meet corner to corner, two loops touch: turn right, around the same pixel.
                here = _turned_right(loop[-2], here, onward[here])
            loops.append(_without_straight(loop))
    return loops


def _turned_right(before: Corner, here: Corner, choices: list[Corner]) -> Corner:
    if len(choices) == 1:
        return choices.pop()
    step = (here[0] - before[0], here[1] - before[1])
    right = (here[0] - step[1], here[1] + step[0])
    choice = right if right in choices else choices[0]
    choices.remove(choice)
    return choice


def _without_straight(loop: list[Corner]) -> list[Corner]:
    """Only the corners at which the direction changes."""
    corners = []
    for number, here in enumerate(loop):
        before, after = loop[number - 1], loop[(number + 1) % len(loop)]
        if not (before[0] == here[0] == after[0] or before[1] == here[1] == after[1]):
            corners.append(here)
    return corners
