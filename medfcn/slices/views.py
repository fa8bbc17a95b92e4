"""The planes that a volume is sliced along: those that can be set, and the choice for a data set."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from medfcn.errors import SettingsError
from medfcn.settings import APART_MOST, View, Views
from medfcn.slices.fingerprint import CaseFingerprint
from medfcn.slices.mirrors import has_lesions, is_sided
from medfcn.slices.slicing import VIEW_AXIS
from medfcn.text import listed

VIEWS: tuple[View, ...] = get_args(View)
"""All views, in the order of a plan; probabilities are added up in this order."""

_ANISOTROPIC = 1.5
"""Slices are taken across the thick axis if it is at least this many times as thick as the thinnest."""
_CLEARLY_LONGER = 1.2
"""An organ is sliced across its longest direction if that is at least this many times its height (head to foot)."""
_ALIKE = 2.0
"""Two labels on either side of the patient are a pair if neither is larger by this factor."""
_SEEN_OF_ORGAN = 16
"""Slices that see an organ at least, where some are left out: on the hippocampus, 18 mm wide, a slice every 2 mm
costs 0.001 Dice, every 3 mm 0.005, every 4 mm 0.012; see `benchmarks/README.md`."""
_SEEN_OF_LESION = 6
"""The same for lesions in thick slices: on tumours, 55 to 105 mm long, a slice every 7 mm costs 0.003 Dice."""
_SEEN_OF_THICK = 2.4
"""With lesions prediction sees one slice in so many of those that were recorded, along each of three views: together
they take one and a half times as long as one view."""
_THICKNESS_MOST = 4.0
"""Slices of lesions up to this many times as thick as pixels are wide are cut along three views (measured at 3.3)."""
_LESIONS_GAINED = "tumours in slices of 3.3 mm had 0.05 more Dice than with one view"
_GRID_MOST = 256**3
"""And volumes of at most so many voxels with edges of a pixel: several views keep the probabilities of all."""


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


def choose_views(
    cases: Sequence[CaseFingerprint], wanted: Views, *, is_free: bool = True
) -> tuple[tuple[View, ...], str]:
    """The views of a plan, and why.

    Args:
        cases: The training cases' figures.
        wanted: The setting `slices.views`.
        is_free: The other settings leave room for several views.

    Returns:
        The views in the order of `VIEWS`, and the reason.
    """
    if wanted == "all":
        return VIEWS, "all, as set"
    if wanted != "auto":
        chosen = tuple(view for view in VIEWS if view in wanted)
        return chosen, f"as set{_side_unknown(chosen, cases)}"
    votes: dict[View, int] = dict.fromkeys(VIEW_AXIS, 0)
    for case in cases:
        if max(case.spacing_mm) >= _ANISOTROPIC * min(case.spacing_mm):
            thick = case.spacing_mm.index(max(case.spacing_mm))
            votes[next(view for view, axis in VIEW_AXIS.items() if axis == thick)] += 1
    best = max(votes, key=lambda view: votes[view])
    if 2 * votes[best] > len(cases):
        why = f"{votes[best]} of {len(cases)} cases are thickest across it"
        if not has_lesions(cases):
            return (best,), f"{why}{_side_unknown((best,), cases)}"
        if is_free and _suits_all_views(cases):
            return VIEWS, f"all, for large lesions: {_LESIONS_GAINED} (else {best}: {why})"
        return (best,), f"{why}; --views all may find more of lesions, for a longer prediction"
    # With two labels of the hippocampus, three views win in most folds with 690 CPU seconds, and lose with 60; see
    # `benchmarks/README.md`.
    several = len(cases[0].label_voxels) > 1
    hint = "; --views all may do better for several labels, given ten minutes" if several else ""
    # Slices across the long axis of an organ are many, and show it small and compact: on the hippocampus validation
    # cases 0.901 Dice (coronal) instead of 0.893 (axial) after 240 CPU seconds.
    extents = np.median([case.extent_mm for case in cases if any(case.extent_mm)], axis=0)
    # A sagittal slice does not tell the left kidney from the right one: nothing in it says on which side it lies.
    sided = ", in planes that tell left from right" if _are_on_both_sides(cases) else ""
    if sided:
        extents = extents * [0, 1, 1]
    longest = int(np.argmax(extents))
    if extents[longest] < _CLEARLY_LONGER * extents[VIEW_AXIS["axial"]]:
        why = f"volumes are nearly isotropic, and the foreground is about as long in every direction{sided}"
        return ("axial",), why + hint
    best = next(view for view, axis in VIEW_AXIS.items() if axis == longest)
    length = f"{extents[longest]:.0f} mm, {extents[VIEW_AXIS['axial']]:.0f} mm from head to foot"
    return (best,), f"volumes are nearly isotropic, and the foreground is longest across it ({length}){sided}{hint}"


def _side_unknown(views: tuple[View, ...], cases: Sequence[CaseFingerprint]) -> str:
    """A line that sagittal slices alone do not show the sides of a pair of organs; empty for others."""
    if views != ("sagittal",) or not _are_on_both_sides(cases):
        return ""
    return "; such slices do not tell left from right: take others (--views)"


def _are_on_both_sides(cases: Sequence[CaseFingerprint]) -> bool:
    """True if there is a label on the right and one of about its volume on the left, as of a pair of kidneys."""
    volumes = np.median([case.label_voxels for case in cases], axis=0)
    shares = list(zip(*(case.right_shares for case in cases), strict=True))
    right = [place for place, of_label in enumerate(shares) if is_sided(of_label) and np.nanmean(of_label) > 0.5]
    left = [place for place, of_label in enumerate(shares) if is_sided(of_label) and place not in right]
    return any(
        max(volumes[one], volumes[other]) <= _ALIKE * min(volumes[one], volumes[other])
        for one in right
        for other in left
    )


def _suits_all_views(cases: Sequence[CaseFingerprint]) -> bool:
    """True for large lesions in slices that are not too thick, and in volumes that are not too large."""
    spacing = np.median([case.spacing_mm for case in cases], axis=0)
    edge = float(np.sort(spacing)[1])
    organ = np.median([case.extent_mm for case in cases if any(case.extent_mm)], axis=0) / edge
    voxels = np.median([np.prod(np.multiply(case.shape, case.spacing_mm)) for case in cases]) / edge**3
    thickness = float(max(spacing)) / edge
    is_large = min(organ) >= _SEEN_OF_LESION * round(_SEEN_OF_THICK * thickness)
    return bool(is_large and thickness <= _THICKNESS_MOST and voxels <= _GRID_MOST)


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
    most, seen = max(map(_whole, thick)), _SEEN_OF_ORGAN
    how = "as many as there were"
    if most > 1 and has_lesions(cases):
        most, seen = round(_SEEN_OF_THICK * max(thick)), _SEEN_OF_LESION
        how = "fewer than half as many, of each view, where lesions are large enough"
    axes = [VIEW_AXIS[view] for view in views]
    apart = tuple(max(1, _whole(thick[axis]), min(most, int(organ[axis] / seen))) for axis in axes)
    if max(apart) == 1:
        return (), ""
    why = f"slices of {max(thick) * edge_mm:.3g} mm are cut into thinner ones; prediction sees {how}"
    return tuple(min(each, APART_MOST) for each in apart), why


def _whole(ratio: float) -> int:
    """Pixels in a voxel; one that is hardly smaller counts."""
    return int(ratio + 0.1)
