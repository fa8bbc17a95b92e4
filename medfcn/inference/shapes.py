"""The shapes of masks that a reader should look at: partly empty, in far pieces, cut short, or with a part removed.

A shape is odd for an organ if its references do not have it, nor the good ones of the masks that the network made of
unseen cases. Limits follow from both, at the end of a training; the card keeps them.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from medfcn.labels import LabelMap
from medfcn.slices.components import OnePart
from medfcn.slices.grid import from_stored_order, map_to_network
from medfcn.slices.shape import MaskShape, shapes_of
from medfcn.text import listed
from medfcn.volumes import Volume

_LEAST = MaskShape(removed=0.2, far=0.05, dips=(0.4, 0.4, 0.4), stops=(0.5,) * 6)
"""No limit is below these."""
_NONE = MaskShape(removed=1.0, far=1.0, dips=(1.0,) * 3, stops=(1.0,) * 6)
_SPARED = 0.05
"""Share of the references, and of the good masks, that may be beyond the limits."""
_MARGIN = 1.2
"""Few cases do not show how far the next ones go."""
_DIGITS = 5
_ALL_REMOVED = "it was found, but not connected to the other labels, and 100 % of it was removed"
_PLANES = ("sagittal", "coronal", "axial")
_ENDS = ("left", "right", "posterior", "anterior", "inferior", "superior")


def limits_of(references: Sequence[MaskShape], masks: Sequence[tuple[float, MaskShape]]) -> MaskShape:
    """The limits of the shape of a label.

    The oddest twentieth of the references is left aside; the others are within the limits, by a margin. The same is
    true of the masks whose Dice is above their median. Without a reference no shape is beyond the limits.

    Args:
        references: Of the training cases that contain the label, and of which all is labelled.
        masks: Dice and shape of masks of unseen cases.

    Example:
        An organ of which the references end flat, and one of which they are round:

        >>> flat = MaskShape(stops=(0.0, 0.0, 0.0, 0.0, 0.0, 0.7))
        >>> limits_of([flat] * 10, []).stops
        (0.5, 0.5, 0.5, 0.5, 0.5, 0.84)
        >>> limits_of([MaskShape()] * 10, [(0.9, MaskShape()), (0.8, flat)]).stops
        (0.5, 0.5, 0.5, 0.5, 0.5, 0.5)
    """
    if not references:
        return _NONE
    median = float(np.median([dice for dice, _ in masks])) if masks else math.nan
    good = [shape for dice, shape in masks if dice > median]
    limits = _figures(_LEAST)
    for shapes in (references, good):
        if shapes:
            figures = np.array([_figures(shape) for shape in shapes])
            oddness = (figures / limits).max(axis=1)
            rest = np.argsort(oddness, kind="stable")[: len(shapes) - int(_SPARED * len(shapes))]
            limits = np.maximum(limits, _MARGIN * figures[rest].max(axis=0))
    # Rounded up, so that the shape that made a limit stays within it.
    return _shape_from(np.minimum(np.ceil(limits * 10**_DIGITS) / 10**_DIGITS, 1.0))


def widest(limits: Sequence[Sequence[MaskShape]]) -> tuple[MaskShape, ...]:
    """The limits of each label for the mean of several models: the widest of those that are known."""
    return tuple(
        _shape_from(np.max([_figures(of_model) for of_model in of_label], axis=0))
        for of_label in zip(*(of_model for of_model in limits if of_model), strict=True)
    )


def oddities(shape: MaskShape, limits: MaskShape) -> tuple[str, ...]:
    """The odd things about the shape of a label's mask, a line each.

    Example:
        >>> oddities(MaskShape(far=0.3, dips=(0.0, 0.0, 1.0)), MaskShape(far=0.05, dips=(0.4, 0.4, 0.4)))
        ('30 % of it is far from its largest piece', 'axial slices inside it are empty or nearly so')
    """
    lines = []
    if shape.removed > limits.removed:
        lines.append(f"{100 * shape.removed:.0f} % of it was removed, as not connected to the rest")
    if shape.far > limits.far:
        lines.append(f"{100 * shape.far:.0f} % of it is far from its largest piece")
    planes = [plane for plane, *dip in zip(_PLANES, shape.dips, limits.dips, strict=True) if dip[0] > dip[1]]
    ends = [end for end, *stop in zip(_ENDS, shape.stops, limits.stops, strict=True) if stop[0] > stop[1]]
    if planes:
        lines.append(f"{listed(planes)} slices inside it are empty or nearly so")
    if ends:
        lines.append(f"it ends abruptly ({listed(ends)}): next to a slice with much of it is one with none")
    return tuple(lines)


def odd_labels(
    part: OnePart, volume: Volume, labels: LabelMap, limits: Sequence[Sequence[MaskShape]]
) -> dict[str, tuple[str, ...]]:
    """The odd things about the shape of each label of a mask, a line each.

    Args:
        part: The mask, on the grid of `volume`.
        volume: Says where its axes lead.
        labels: Its labels.
        limits: Of each model, by label; empty where a model does not know any.
    """
    lines: dict[str, tuple[str, ...]] = dict.fromkeys(labels.names, ())
    known = widest(limits)
    if known:
        shapes = zip(case_shapes(part, volume, labels), known, strict=True)
        lines = {name: oddities(*each) for name, each in zip(labels.names, shapes, strict=True)}
    for index in part.disputed:
        name = labels.names[index - 1]
        lines[name] = (
            "the network is surer of a smaller piece than of the largest one; both were kept",
            *lines[name],
        )
    return lines | {labels.names[index - 1]: (_ALL_REMOVED,) for index, share in part.removed.items() if share == 1}


def case_shapes(part: OnePart, volume: Volume, labels: LabelMap) -> tuple[MaskShape, ...]:
    """The shape of each label of a mask; see `odd_labels`."""
    shape = (int(volume.shape[0]), int(volume.shape[1]), int(volume.shape[2]))
    grid = map_to_network(shape, volume.orientation, volume.spacing_mm, (None, None, None))
    known = {index: components.from_stored_order(grid) for index, components in part.parts.items()}
    shapes = shapes_of(from_stored_order(part.indices, grid), labels.membership, grid.spacing_native_mm, known)
    return tuple(
        msgspec.structs.replace(shape, removed=part.removed.get(index, 0.0))
        for index, shape in enumerate(shapes, start=1)
    )


def _figures(shape: MaskShape) -> NDArray[np.float64]:
    return np.array([shape.removed, shape.far, *shape.dips, *shape.stops])


def _shape_from(figures: NDArray[np.float64]) -> MaskShape:
    removed, far, *others = figures.tolist()
    return msgspec.convert({"removed": removed, "far": far, "dips": others[:3], "stops": others[3:]}, MaskShape)
