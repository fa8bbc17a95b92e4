"""Labels that overlap, for tests: any map of them, and nested balls to train on."""

from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from medfcn.errors import SettingsError
from medfcn.labels import LabelEntry, LabelMap
from tests.conftest import draw_ball, write_case

NESTED = "whole=1+2+3,core=2+3,enhancing=3"
CROSSED = "left=4+7,right=7+2+9,rest=9"
"""Neither within the other: 7 is left and right, 2 right alone."""


@st.composite
def overlapping_maps(draw: st.DrawFn) -> LabelMap:
    """Two to five labels of small values, at least one of which is shared."""
    values = st.lists(st.integers(1, 12), min_size=1, max_size=6, unique=True)
    labels = draw(st.lists(values, min_size=2, max_size=5, unique_by=frozenset))
    named = {value for of_label in labels for value in of_label}
    shared = sum(map(len, labels)) > len(named)
    if not shared:
        labels[0] = sorted({*labels[0], *labels[1]})
    entries = tuple(LabelEntry(f"l{place}", tuple(found), place) for place, found in enumerate(labels, start=1))
    free = [value for value in range(1, 15) if value not in named]
    ignored = draw(st.lists(st.sampled_from(free), max_size=2, unique=True))
    try:
        return LabelMap(entries, ignored=tuple(ignored))
    except SettingsError:  # the union was there already
        return LabelMap.parse(CROSSED)


def draw_nested(number: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """A ball (1) with a brighter ball in it (2), in which the brightest lies (3)."""
    from scipy.ndimage import distance_transform_edt

    image, ball = draw_ball(number)
    depth = distance_transform_edt(ball, sampling=(1, 1, 1.2))
    mask = ball + (depth > 1.1) + (depth > 2.1)
    brighter = image + 80 * (depth > 1.1) + 90 * (depth > 2.1)
    return brighter.astype(np.int16), mask.astype(np.uint8)


def write_nested(folder: Path, numbers: range) -> Path:
    """A data set of nested balls."""
    for number in numbers:
        write_case(folder, f"ball_{number}", *draw_nested(number))
    return folder
