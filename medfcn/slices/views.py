"""The planes that a volume is sliced along: those that can be set, and the choice for a data set."""

from collections.abc import Sequence
from typing import get_args

import numpy as np

from medfcn.errors import SettingsError
from medfcn.settings import View, Views
from medfcn.slices.fingerprint import CaseFingerprint
from medfcn.slices.slicing import VIEW_AXIS
from medfcn.text import listed

VIEWS: tuple[View, ...] = get_args(View)
"""All views, in the order of a plan; probabilities are added up in this order."""

_ANISOTROPIC = 1.5
"""Slices are taken across the thick axis if it is at least this many times as thick as the thinnest."""
_CLEARLY_LONGER = 1.2
"""An organ is sliced across its longest direction if that is at least this many times its height (head to foot)."""


def parse_views(text: str | Sequence[str]) -> Views:
    """The views of `--views` or of a call: `auto`, `all`, one view, or several with commas between them.

    Raises:
        SettingsError: A view is unknown or named twice, or there is none.

    Example:
        >>> parse_views("coronal"), parse_views("sagittal, axial"), parse_views("all")
        (('coronal',), ('sagittal', 'axial'), 'all')
    """
    if text == "auto":
        return "auto"
    if text == "all":
        return "all"
    names = [name.strip() for name in text.split(",")] if isinstance(text, str) else list(text)
    chosen = tuple(view for name in names for view in VIEWS if view == name)
    if len(chosen) != len(names) or not chosen or len(set(chosen)) < len(chosen):
        raise SettingsError(
            f"views {text!r}: not auto, all, or some of {listed(VIEWS)} with commas between them", field="views"
        )
    return chosen


def choose_views(cases: Sequence[CaseFingerprint], wanted: Views) -> tuple[tuple[View, ...], str]:
    """The views of a plan, and why.

    Args:
        cases: The training cases' figures.
        wanted: The setting `slices.views`.

    Returns:
        The views in the order of `VIEWS`, and the reason.
    """
    if wanted == "all":
        return VIEWS, "all, as set"
    if wanted != "auto":
        return tuple(view for view in VIEWS if view in wanted), "as set"
    votes: dict[View, int] = dict.fromkeys(VIEW_AXIS, 0)
    for case in cases:
        if max(case.spacing_mm) >= _ANISOTROPIC * min(case.spacing_mm):
            thick = case.spacing_mm.index(max(case.spacing_mm))
            votes[next(view for view, axis in VIEW_AXIS.items() if axis == thick)] += 1
    best = max(votes, key=lambda view: votes[view])
    if 2 * votes[best] > len(cases):
        return (best,), f"{votes[best]} of {len(cases)} cases are thickest across it"
    # With two labels of the hippocampus, three views win in most folds with 690 CPU seconds, and lose with 60; see
    # `benchmarks/README.md`.
    several = len(cases[0].label_voxels) > 1
    hint = "; --views all may do better for several labels, given ten minutes" if several else ""
    # Slices across the long axis of an organ are many, and show it small and compact: on the hippocampus validation
    # cases 0.901 Dice (coronal) instead of 0.893 (axial) after 240 CPU seconds.
    extents = np.median([case.extent_mm for case in cases if any(case.extent_mm)], axis=0)
    longest = int(np.argmax(extents))
    if extents[longest] < _CLEARLY_LONGER * extents[VIEW_AXIS["axial"]]:
        why = "volumes are nearly isotropic, and the foreground is about as long in every direction"
        return ("axial",), why + hint
    best = next(view for view, axis in VIEW_AXIS.items() if axis == longest)
    length = f"{extents[longest]:.0f} mm, {extents[VIEW_AXIS['axial']]:.0f} mm from head to foot"
    return (best,), f"volumes are nearly isotropic, and the foreground is longest across it ({length}){hint}"
