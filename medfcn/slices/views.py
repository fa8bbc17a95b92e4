"""The planes that a volume is sliced along: those that can be set, and the choice for a data set."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from medfcn.errors import SettingsError
from medfcn.settings import APART_MOST, View, Views
from medfcn.slices.fingerprint import CaseFingerprint
from medfcn.slices.mirrors import choose_mirrors
from medfcn.slices.slicing import VIEW_AXIS
from medfcn.text import listed

VIEWS: tuple[View, ...] = get_args(View)
"""All views, in the order of a plan; probabilities are added up in this order."""

_ANISOTROPIC = 1.5
"""Slices are taken across the thick axis if it is at least this many times as thick as the thinnest."""
_CLEARLY_LONGER = 1.2
"""An organ is sliced across its longest direction if that is at least this many times its height (head to foot)."""
_SEEN_OF_ORGAN = 16
"""Slices that see an organ at least, where some are left out: on the hippocampus, 18 mm wide, a slice every 2 mm
costs 0.001 Dice, every 3 mm 0.005, every 4 mm 0.012; see `benchmarks/README.md`."""


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
        # Tumours in slices of 3.3 mm, 14 cases, 85 CPU seconds: 0.605 Dice instead of 0.551 with each of three seeds.
        is_lesion = bool(choose_mirrors(cases, "auto")[0])
        hint = "; --views all may find more of lesions, for three times the prediction" if is_lesion else ""
        return (best,), f"{votes[best]} of {len(cases)} cases are thickest across it{hint}"
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


def choose_apart(
    cases: Sequence[CaseFingerprint], views: Sequence[View], edge_mm: float | None, wanted: Literal["auto"] | int
) -> tuple[tuple[int, ...], str]:
    """How many slices of each view prediction goes on from one that it sees to the next, and why.

    With several views all axes have pixels of one edge, so that thick slices are cut into several. Those were not
    recorded: across the thick axis as many slices are seen as there were. So are they along the other axes, as long
    as enough of them meet the organ.

    Args:
        cases: The training cases' figures.
        views: Those of the plan.
        edge_mm: The edge of a pixel where there are several views.
        wanted: The setting `slices.apart`.

    Returns:
        A number for each view, and the reason; `()` where all slices are seen.

    Raises:
        SettingsError: It is set for a single view.
    """
    if wanted not in ("auto", 1) and len(views) == 1:
        found = f"{wanted}: there is one view, of which every slice is seen; leave it out"
        raise SettingsError.of("slices.apart", found)
    if len(views) == 1 or edge_mm is None or wanted == 1:
        return (), ""
    if wanted != "auto":
        return (wanted,) * len(views), "as set"
    thick = np.median([case.spacing_mm for case in cases], axis=0) / edge_mm
    organ = np.median([case.extent_mm for case in cases if any(case.extent_mm)], axis=0) / edge_mm
    most = max(map(_whole, thick))
    apart = tuple(
        max(1, _whole(thick[axis]), min(most, int(organ[axis] / _SEEN_OF_ORGAN)))
        for axis in (VIEW_AXIS[view] for view in views)
    )
    if max(apart) == 1:
        return (), ""
    why = f"slices of {max(thick) * edge_mm:.3g} mm are cut into thinner ones; prediction sees as many as there were"
    return tuple(min(each, APART_MOST) for each in apart), why


def _whole(ratio: float) -> int:
    """Pixels in a voxel; one that is hardly smaller counts."""
    return int(ratio + 0.1)
