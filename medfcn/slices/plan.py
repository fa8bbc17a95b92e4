"""What follows from a data set's fingerprint: the network grid, the views, the window, the intensities.

Everything a trained model needs to bring a new volume to its network is in the plan, and travels with it.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, Self

import numpy as np

from medfcn.errors import DatasetError, SettingsError
from medfcn.settings import Settings, View
from medfcn.slices.fingerprint import CaseFingerprint
from medfcn.slices.mirrors import choose_mirrors
from medfcn.slices.slicing import VIEW_AXIS, in_plane_axes
from medfcn.slices.views import VIEWS, choose_views

_CT_MINIMUM = -500.0
"""Air is about -1000 HU; no other common modality has its minimum below this."""
_MAP_LARGEST = 192
"""Pixels an edge of the network's first map for the largest training window; larger slices are cropped in training
and tiled in prediction."""
_COARSEST_PIXELS = 4
"""The coarsest map keeps at least this many pixels an edge: with fewer, a map says nothing of where."""
_WIDTH_FIRST, _WIDTH_LARGEST, _LEVELS_MOST = 16, 256, 6
_STEM_PIXELS: Mapping[Literal[2, 4], int] = {2: 96, 4: 2 * _MAP_LARGEST + 1}
"""Slices with this many pixels along their shorter edge are reduced so much by the network's first convolution: they
are halved as long as a window then shows them whole."""
_NEIGHBOURS_NEAR = 2.0
"""Slices at most this many pixels apart bring their neighbours along: at 1 pixel (hippocampus) they added half a
hundredth to the Dice, at 3.3 (tumours) nothing; see `benchmarks/README.md`."""
_BATCH_PIXELS = 16 * 96 * 96
"""Pixels of the first map of all slices of a batch, at most: a step takes bounded time and memory."""
_LIKE = "as in the run it starts from"

SpacingRAS = tuple[float | None, float | None, float | None]


@dataclass(frozen=True)
class Intensity:
    """How one channel's intensities are brought to mean 0 and standard deviation 1.

    `zscore`: each volume is clipped to its own 0.5th and 99.5th percentiles, then scaled by its own mean and
    standard deviation; voxels at the volume's minimum are left out of both when they are more than a twentieth
    of it (air, or what lies outside a scan). `ct`: all are clipped to `lower` and `upper` and scaled by
    `mean` and `std`, which are those of the training cases' foreground.
    """

    kind: Literal["zscore", "ct"]
    lower: float = 0.0
    upper: float = 0.0
    mean: float = 0.0
    std: float = 1.0


@dataclass(frozen=True)
class Plan:
    """How volumes become slices for one network.

    Attributes:
        views: The planes of the slices; with several, one network sees them all.
        spacing_mm: Edge lengths of the network grid in R, A, S order; None keeps a volume's own (across the slices of
            a single view).
        window: `(H, W)` pixels the network is trained on, in every view.
        context: Slices seen at once.
        widths: Channels of each encoder level; each after the first halves the resolution. Empty for a network of
            MONAI, which has its own.
        stem_stride: Input pixels per pixel of the first level.
        intensities: One for each channel.
        batch_size: Slices in a training step.
        mirror_axes: Axes of the network grid (0 is R, 1 is A, 2 is S) that are mirrored where they lie in a slice.
        reasons: For each choice, why.
    """

    views: tuple[View, ...]
    spacing_mm: SpacingRAS
    window: tuple[int, int]
    context: int
    widths: tuple[int, ...]
    intensities: tuple[Intensity, ...]
    batch_size: int
    mirror_axes: tuple[int, ...]
    reasons: Mapping[str, str]
    stem_stride: int = 1

    @property
    def channels_in(self) -> int:
        """Channels of the network's input: image channels times slices seen at once."""
        return len(self.intensities) * self.context

    def mirrored(self, view: View) -> tuple[int, ...]:
        """The in-plane axes (0 is H, 1 is W) of a view's slices that training mirrors."""
        return tuple(place for place, axis in enumerate(in_plane_axes(view)) if axis in self.mirror_axes)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values, which `from_json` turns back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; KeyError, TypeError or ValueError where it does not fit."""
        fields = dict(value)
        fields["intensities"] = tuple(Intensity(**item) for item in fields["intensities"])
        for name in ("views", "spacing_mm", "window", "widths", "mirror_axes"):
            fields[name] = tuple(fields[name])
        plan = cls(**fields)
        for name, holds in _soundness(plan).items():
            if not holds:
                raise ValueError(f"plan.{name} cannot be {str(value.get(name))[:100]}")
        return plan


def _soundness(plan: Plan) -> dict[str, bool]:
    """For each field of a plan that came from a file, whether a network can be built and used from it."""
    known = [view for view in plan.views if view in VIEWS]
    in_plane = {axis for view in known for axis in in_plane_axes(view)}
    return {
        "views": 1 <= len(set(known)) == len(plan.views),
        "spacing_mm": len(plan.spacing_mm) == 3
        and all(length is None or _is_number(length, above=1e-6) for length in plan.spacing_mm)
        and all(plan.spacing_mm[axis] is not None for axis in in_plane),
        "window": len(plan.window) == 2 and all(_is_whole(edge, 1, 2**20) for edge in plan.window),
        "context": _is_whole(plan.context, 1, 2**16) and plan.context % 2 == 1,
        "widths": len(plan.widths) <= 8 and all(_is_whole(width, 1, 4096) for width in plan.widths),
        "stem_stride": plan.stem_stride in (1, 2, 4),
        "intensities": all(_is_sound(intensity) for intensity in plan.intensities),
        "batch_size": _is_whole(plan.batch_size, 1, 2**20),
        "mirror_axes": plan.mirror_axes in [axes for count in range(4) for axes in combinations(range(3), count)],
        "reasons": isinstance(plan.reasons, Mapping),
    }


def _is_sound(intensity: Intensity) -> bool:
    numbers = (intensity.lower, intensity.upper, intensity.mean)
    return (
        intensity.kind in ("zscore", "ct")
        and all(_is_number(number, above=-1e38) for number in numbers)
        and intensity.lower <= intensity.upper
        and _is_number(intensity.std, above=0)
    )


def _is_number(value: object, *, above: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and above < value < 1e38


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def make_plan(
    cases: Sequence[CaseFingerprint], settings: Settings, *, stride: int | None = None, like: Plan | None = None
) -> Plan:
    """Follow from a fingerprint and the settings how volumes become slices.

    Args:
        cases: The training cases' figures.
        settings: What is fixed by the user; the rest follows from the cases.
        stride: Input pixels per pixel of the network's coarsest map, where its preset fixes it; else the plan does.
        like: What the network was trained on before. Where the settings leave them open, its views, spacing, context,
            widths and kinds of intensities are kept, because that is what the weights know. The window, the batch and
            the figures by which CT is scaled follow from the cases, which may show another organ.

    Raises:
        DatasetError: There is no case, or no foreground in any.
    """
    if not any(sum(case.label_voxels) for case in cases):
        raise DatasetError(
            "no training case holds any foreground; check the labels, or the mapping given to --labels"
        )
    reasons: dict[str, str] = {}
    views = _choose_views(cases, settings, like, reasons)
    spacing = _choose_spacing(cases, settings, like, views, reasons)
    edges = [_slice_pixels(cases, in_plane_axes(view), spacing) for view in views]
    shortest = min(settings.slices.window or map(min, edges))
    stem = _choose_stem(shortest, settings, like, reasons)
    shortest = min(shortest, _MAP_LARGEST * stem)
    # One window for all views, so that a batch can hold slices of each: its statistics are then those of prediction.
    first, second = (min(max(pair[place] for pair in edges), _MAP_LARGEST * stem) for place in range(2))
    widths = _choose_widths(shortest, stem, settings, like, reasons)
    window = _choose_window((first, second), settings, stride or stem * 2 ** (len(widths) - 1), reasons)
    wanted = settings.training.batch_size
    batch_size = max(min(wanted, 8), min(wanted, _BATCH_PIXELS * stem**2 // (window[0] * window[1])))
    reasons["batch_size"] = f"{batch_size} of the {wanted} set, at windows of {window[0]}×{window[1]} pixels"
    mirror_axes, reasons["mirror_axes"] = choose_mirrors(cases, settings.augment.mirror)
    return Plan(
        views=views,
        spacing_mm=spacing,
        window=window,
        context=_choose_context(cases, settings, like, views, spacing, reasons),
        widths=widths,
        intensities=_choose_intensities(cases, settings, like, reasons),
        batch_size=batch_size,
        mirror_axes=mirror_axes,
        reasons=reasons,
        stem_stride=stem,
    )


def _choose_views(
    cases: Sequence[CaseFingerprint], settings: Settings, like: Plan | None, reasons: dict[str, str]
) -> tuple[View, ...]:
    if settings.slices.views == "auto" and like is not None:
        reasons["views"] = _LIKE
        return like.views
    views, reasons["views"] = choose_views(cases, settings.slices.views)
    return views


def _choose_spacing(
    cases: Sequence[CaseFingerprint],
    settings: Settings,
    like: Plan | None,
    views: Sequence[View],
    reasons: dict[str, str],
) -> SpacingRAS:
    """Edge lengths of the network grid in R, A, S order; None across the slices of a single view."""
    medians = [float(np.median([case.spacing_mm[axis] for case in cases])) for axis in range(3)]
    wanted = settings.slices.spacing_mm
    if len(views) > 1:
        if wanted is not None and wanted[0] != wanted[1]:
            raise SettingsError(
                f"setting slices.spacing_mm: {wanted!r} differ, but slices of several views share one spacing; "
                "give it twice, or set one view"
            )
        kept = like.spacing_mm[0] if like is not None and len(set(like.spacing_mm)) == 1 else None
        if wanted is None and kept is not None:
            reasons["spacing_mm"] = _LIKE
            return kept, kept, kept
        # One network sees one size of pixel. The middle one leaves two axes as they are where two agree.
        edge = sorted(medians)[1] if wanted is None else wanted[0]
        reasons["spacing_mm"] = "alike in all views, the middle of the axes' medians" if wanted is None else "as set"
        return edge, edge, edge
    axes = in_plane_axes(views[0])
    first, second = wanted or (medians[axis] for axis in axes)
    reasons["spacing_mm"] = (
        f"medians in the slices' plane, {first:.3g} × {second:.3g} mm; across it each volume's own"
        if wanted is None
        else "as set"
    )
    of_run = [None if like is None else like.spacing_mm[axis] for axis in axes]
    if wanted is None and of_run[0] is not None and of_run[1] is not None:  # None across the view of the other plan
        reasons["spacing_mm"] = _LIKE
        first, second = of_run[0], of_run[1]
    spacing: list[float | None] = [None, None, None]
    spacing[axes[0]], spacing[axes[1]] = first, second
    return spacing[0], spacing[1], spacing[2]


def _slice_pixels(
    cases: Sequence[CaseFingerprint], axes: tuple[int, int], spacing: SpacingRAS
) -> tuple[float, float]:
    """Pixels along each edge that three quarters of the cases' slices have at most, on the network grid."""
    first, second = (
        float(np.percentile([case.shape[axis] * case.spacing_mm[axis] / (spacing[axis] or 1) for case in cases], 75))
        for axis in axes
    )
    return first, second


def _choose_context(
    cases: Sequence[CaseFingerprint],
    settings: Settings,
    like: Plan | None,
    views: Sequence[View],
    spacing: SpacingRAS,
    reasons: dict[str, str],
) -> int:
    wanted = settings.slices.context
    if like is not None and wanted in (None, like.context):
        reasons["context"] = _LIKE
        return like.context
    if wanted is not None:
        reasons["context"] = "as set"
        return wanted
    if settings.network.preset != "auto":
        reasons["context"] = f"the slice alone, as the preset {settings.network.preset} has it"
        return 1
    ratio = max(_thickness(cases, view, spacing) for view in views)
    is_near = ratio <= _NEIGHBOURS_NEAR
    reasons["context"] = (
        f"{'a neighbour on either side' if is_near else 'the slice alone'}: slices lie {ratio:.2g} "
        + (f"pixels apart, {'at most' if is_near else 'more than'} {_NEIGHBOURS_NEAR:g}")
    )
    return 3 if is_near else 1


def _thickness(cases: Sequence[CaseFingerprint], view: View, spacing: SpacingRAS) -> float:
    """The median distance between neighbouring slices of a view, in pixels of the network grid."""
    axis = VIEW_AXIS[view]
    across = spacing[axis] or float(np.median([case.spacing_mm[axis] for case in cases]))
    return across / max(spacing[axis] or 0.0 for axis in in_plane_axes(view))


def _choose_stem(shortest: float, settings: Settings, like: Plan | None, reasons: dict[str, str]) -> int:
    network = settings.network
    if network.monai is not None:
        reasons["stem_stride"] = f"of MONAI's {network.monai}"
        return 1
    if network.encoder not in (None, "strided"):
        reasons["stem_stride"] = f"of the preset {network.preset}"
        return 1
    if network.stem_stride is not None:
        reasons["stem_stride"] = "as set"
        return network.stem_stride
    if network.widths is not None:
        reasons["stem_stride"] = "maps at full size, because the widths are set"
        return 1
    if like is not None:
        reasons["stem_stride"] = _LIKE
        return like.stem_stride
    stem = stem_for(shortest)
    how = {1: "are small enough for maps at full size", 2: "are halved at once", 4: "are quartered at once"}[stem]
    reasons["stem_stride"] = f"slices whose shorter edge has {shortest:.0f} pixels {how}"
    return stem


def stem_for(shortest_edge: float) -> Literal[1, 2, 4]:
    """The first stride of the preset `auto`, for slices whose shorter edge has that many pixels.

    At equal CPU time, a network sees a slice of a body whole that reduces it at once, or cropped at full size; see
    `benchmarks/README.md`.

    Example:
        >>> stem_for(40), stem_for(145), stem_for(320), stem_for(512)
        (1, 2, 2, 4)
    """
    stems: tuple[Literal[2, 4], ...] = (4, 2)
    return next((stem for stem in stems if shortest_edge >= _STEM_PIXELS[stem]), 1)


def _choose_widths(
    shortest: float, stem: int, settings: Settings, like: Plan | None, reasons: dict[str, str]
) -> tuple[int, ...]:
    if settings.network.monai is not None:
        reasons["widths"] = f"of MONAI's {settings.network.monai}"
        return ()
    if settings.network.widths is not None:
        preset = settings.network.preset
        reasons["widths"] = "as set" if preset == "auto" else f"of the preset {preset}, or as set"
        return settings.network.widths
    if like is not None:
        reasons["widths"] = _LIKE
        return like.widths
    widths = widths_for(shortest, stem)
    coarsest = stem * 2 ** (len(widths) - 1)
    reasons["widths"] = (
        f"{len(widths)} levels: at stride {coarsest} the shorter edge of {shortest:.0f} pixels keeps "
        f"{shortest / coarsest:.1f}"
    )
    return widths


def widths_for(shortest_edge: float, stem_stride: int = 1) -> tuple[int, ...]:
    """Channels of each level of the preset `auto`, for slices whose shorter edge has that many pixels.

    As many levels, each of half the resolution, as keep the coarsest map at 4 pixels an edge or more, at most 6. Each
    has twice the channels where the first level is at stride 4.

    Example:
        >>> widths_for(35), widths_for(145, stem_stride=2), widths_for(512, stem_stride=4)
        ((16, 32, 64, 128), (16, 32, 64, 128, 256), (32, 64, 128, 256, 256, 256))
    """
    narrowest = _WIDTH_FIRST * (2 if stem_stride == 4 else 1)
    levels = 1
    while levels < _LEVELS_MOST and shortest_edge / (stem_stride * 2**levels) >= _COARSEST_PIXELS:
        levels += 1
    return tuple(min(narrowest * 2**level, _WIDTH_LARGEST) for level in range(levels))


def _choose_window(
    pixels: tuple[float, float], settings: Settings, stride: int, reasons: dict[str, str]
) -> tuple[int, int]:
    if settings.slices.window is not None:
        reasons["window"] = "as set"
        return settings.slices.window
    first, second = (max(2, math.ceil(edge / stride - 0.25)) * stride for edge in pixels)
    reasons["window"] = (
        f"{first}×{second} pixels: three quarters of the slices fit, as far as the network's first map stays within "
        f"{_MAP_LARGEST} an edge; multiples of the stride {stride}"
    )
    return first, second


def _choose_intensities(
    cases: Sequence[CaseFingerprint], settings: Settings, like: Plan | None, reasons: dict[str, str]
) -> tuple[Intensity, ...]:
    chosen = []
    kept = [intensity.kind for intensity in like.intensities] if like is not None else []
    for channel in range(len(cases[0].minimum)):
        lowest = float(np.median([case.minimum[channel] for case in cases]))
        kind = settings.slices.normalisation
        if kind == "auto" and channel < len(kept):
            kind, why = kept[channel], _LIKE
        elif kind == "auto":
            kind = "ct" if lowest <= _CT_MINIMUM else "zscore"
            why = f"the median minimum is {lowest:.4g}, {'at most' if kind == 'ct' else 'above'} {_CT_MINIMUM:g}"
        else:
            why = "as set"
        reasons[f"normalisation of channel {channel}"] = f"{kind}: {why}"
        if kind == "zscore":
            chosen.append(Intensity("zscore"))
            continue
        values = np.concatenate([case.foreground[channel] for case in cases])
        lower, upper = (float(value) for value in np.percentile(values, [0.5, 99.5]))
        held = np.clip(values, lower, upper)
        spread = float(held.std()) or 1.0
        chosen.append(Intensity("ct", lower=lower, upper=upper, mean=float(held.mean()), std=spread))
    return tuple(chosen)
