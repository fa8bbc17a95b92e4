"""What follows from a data set's fingerprint: the network grid, the view, the window, the intensities.

Everything a trained model needs to bring a new volume to its network is in the plan, and travels with it.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from medfcn.config import Settings, View
from medfcn.errors import DatasetError
from medfcn.slices.fingerprint import CaseFingerprint
from medfcn.slices.slicing import VIEW_AXIS

_ANISOTROPIC = 1.5
"""From this ratio of spacings on, slices are taken across the thick axis."""
_CLEARLY_LONGER = 1.2
"""From this ratio to its length from head to foot on, an organ is sliced across its longest direction instead."""
_CT_MINIMUM = -500.0
"""Air is about -1000 HU; no other common modality has its minimum below this."""
_WINDOW_LARGEST = 192
"""Pixels an edge of the largest training window; larger slices are cropped in training and tiled in prediction."""
_COARSEST_PIXELS = 4
"""The coarsest map keeps at least this many pixels an edge: with fewer, a map says nothing of where."""
_WIDTH_FIRST, _WIDTH_LARGEST, _LEVELS_MOST = 16, 256, 6
_STEM_PIXELS = 96
"""Slices with this many pixels along their shorter edge are halved by the network's first convolution: a step then
takes a third of the time."""
_BATCH_PIXELS = 32 * 96 * 96
"""A batch is made smaller when its windows are large, so that a step takes bounded time and memory."""
_LIKE = "as in the run it starts from"


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
        view: The plane of the slices.
        spacing_mm: Edge lengths of the network grid in R, A, S order; None keeps a volume's own (along the slices).
        window: `(H, W)` pixels the network is trained on.
        context: Slices seen at once.
        widths: Channels of each encoder level; each after the first halves the resolution.
        stem_stride: Input pixels per pixel of the first level.
        intensities: One for each channel.
        batch_size: Slices in a training step.
        mirror_axes: In-plane axes (0 is H, 1 is W) that training mirrors.
        reasons: For each choice, why.
    """

    view: View
    spacing_mm: tuple[float | None, float | None, float | None]
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

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values, which `from_json` turns back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; KeyError, TypeError or ValueError where it does not fit."""
        fields = dict(value)
        fields["intensities"] = tuple(Intensity(**item) for item in fields["intensities"])
        for name in ("spacing_mm", "window", "widths", "mirror_axes"):
            fields[name] = tuple(fields[name])
        plan = cls(**fields)
        for name, holds in _soundness(plan).items():
            if not holds:
                raise ValueError(f"plan.{name} cannot be {str(value.get(name))[:100]}")
        return plan


def _soundness(plan: Plan) -> dict[str, bool]:
    """For each field of a plan that came from a file, whether a network can be built and used from it."""
    along = VIEW_AXIS.get(plan.view) if isinstance(plan.view, str) else None
    in_plane = [length for axis, length in enumerate(plan.spacing_mm) if axis != along]
    return {
        "view": along is not None,
        "spacing_mm": len(plan.spacing_mm) == 3
        and all(length is None or _is_number(length, above=1e-6) for length in plan.spacing_mm)
        and None not in in_plane,
        "window": len(plan.window) == 2 and all(_is_whole(edge, 1, 2**20) for edge in plan.window),
        "context": _is_whole(plan.context, 1, 2**16) and plan.context % 2 == 1,
        "widths": 1 <= len(plan.widths) <= 8 and all(_is_whole(width, 1, 4096) for width in plan.widths),
        "stem_stride": plan.stem_stride in (1, 2, 4),
        "intensities": all(_is_sound(intensity) for intensity in plan.intensities),
        "batch_size": _is_whole(plan.batch_size, 1, 2**20),
        "mirror_axes": plan.mirror_axes in ((), (0,), (1,), (0, 1)),
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
        like: What the network was trained on before. Where the settings leave them open, its view, spacing, widths
            and kinds of intensities are kept, because that is what the weights know. The window, the batch and the
            figures by which CT is scaled follow from the cases, which may show another organ.

    Raises:
        DatasetError: There is no case, or no foreground in any.
    """
    if not any(sum(case.label_voxels) for case in cases):
        raise DatasetError(
            "no training case holds any foreground; check the labels, or the mapping given to --labels"
        )
    reasons: dict[str, str] = {}
    view = _choose_view(cases, settings, like, reasons)
    axes = [axis for axis in range(3) if axis != VIEW_AXIS[view]]
    spacing = _choose_spacing(cases, settings, like, axes, reasons)
    pixels = _slice_pixels(cases, axes, spacing)
    shortest = min(settings.slices.window or pixels)
    stem = _choose_stem(shortest, settings, like, reasons)
    widths = _choose_widths(shortest, stem, settings, like, reasons)
    if like is not None and like.context == settings.slices.context:
        reasons["context"] = _LIKE
    window = _choose_window(pixels, settings, stride or stem * 2 ** (len(widths) - 1), reasons)
    wanted = settings.training.batch_size
    batch_size = max(min(wanted, 8), min(wanted, _BATCH_PIXELS // (window[0] * window[1])))
    reasons["batch_size"] = f"{batch_size} of the {wanted} set, at windows of {window[0]}×{window[1]} pixels"
    spacing_ras: list[float | None] = [None, None, None]
    for axis, length in zip(axes, spacing, strict=True):
        spacing_ras[axis] = length
    return Plan(
        view=view,
        spacing_mm=(spacing_ras[0], spacing_ras[1], spacing_ras[2]),
        window=window,
        context=settings.slices.context,
        widths=widths,
        intensities=_choose_intensities(cases, settings, like, reasons),
        batch_size=batch_size,
        mirror_axes=_choose_mirrors(len(cases[0].label_voxels), settings, axes, reasons),
        reasons=reasons,
        stem_stride=stem,
    )


def _choose_view(
    cases: Sequence[CaseFingerprint], settings: Settings, like: Plan | None, reasons: dict[str, str]
) -> View:
    if settings.slices.view != "auto":
        reasons["view"] = f"{settings.slices.view}, as set"
        return settings.slices.view
    if like is not None:
        reasons["view"] = f"{like.view}, {_LIKE}"
        return like.view
    votes: dict[View, int] = dict.fromkeys(VIEW_AXIS, 0)
    for case in cases:
        if max(case.spacing_mm) >= _ANISOTROPIC * min(case.spacing_mm):
            thick = case.spacing_mm.index(max(case.spacing_mm))
            votes[next(view for view, axis in VIEW_AXIS.items() if axis == thick)] += 1
    best = max(votes, key=lambda view: votes[view])
    if 2 * votes[best] > len(cases):
        reasons["view"] = f"{best}: {votes[best]} of {len(cases)} cases are thickest across it"
        return best
    # Slices across the long axis of an organ are many, and show it small and compact: on the hippocampus validation
    # cases 0.901 Dice (coronal) instead of 0.893 (axial) after 240 CPU seconds.
    extents = np.median([case.extent_mm for case in cases if any(case.extent_mm)], axis=0)
    longest = int(np.argmax(extents))
    if extents[longest] < _CLEARLY_LONGER * extents[VIEW_AXIS["axial"]]:
        reasons["view"] = (
            "axial: volumes are nearly isotropic, and the foreground is about as long in every direction"
        )
        return "axial"
    best = next(view for view, axis in VIEW_AXIS.items() if axis == longest)
    length = f"{extents[longest]:.0f} mm, {extents[VIEW_AXIS['axial']]:.0f} mm from head to foot"
    reasons["view"] = f"{best}: volumes are nearly isotropic, and the foreground is longest across it ({length})"
    return best


def _choose_spacing(
    cases: Sequence[CaseFingerprint],
    settings: Settings,
    like: Plan | None,
    axes: list[int],
    reasons: dict[str, str],
) -> tuple[float, float]:
    if settings.slices.spacing_mm is not None:
        reasons["spacing_mm"] = "as set"
        return settings.slices.spacing_mm
    kept = [like.spacing_mm[axis] for axis in axes] if like is not None else []
    if len(kept) == 2 and kept[0] is not None and kept[1] is not None:  # None across the view of the other plan
        reasons["spacing_mm"] = _LIKE
        return kept[0], kept[1]
    first, second = (float(np.median([case.spacing_mm[axis] for case in cases])) for axis in axes)
    reasons["spacing_mm"] = (
        f"medians in the slices' plane, {first:.3g} × {second:.3g} mm; across it each volume's own"
    )
    return first, second


def _slice_pixels(
    cases: Sequence[CaseFingerprint], axes: list[int], spacing: tuple[float, float]
) -> tuple[float, float]:
    """Pixels along each edge that three quarters of the cases' slices have at most, on the network grid."""
    first, second = (
        float(np.percentile([case.shape[axis] * case.spacing_mm[axis] / length for case in cases], 75))
        for axis, length in zip(axes, spacing, strict=True)
    )
    return min(first, _WINDOW_LARGEST), min(second, _WINDOW_LARGEST)


def _choose_stem(shortest: float, settings: Settings, like: Plan | None, reasons: dict[str, str]) -> int:
    network = settings.network
    if network.stem_stride is not None:
        reasons["stem_stride"] = "as set"
        return network.stem_stride
    if network.encoder not in (None, "strided") or network.widths is not None:
        reasons["stem_stride"] = "the encoder begins at full size"
        return 1
    if like is not None:
        reasons["stem_stride"] = _LIKE
        return like.stem_stride
    stem = stem_for(shortest)
    how = "are halved at once" if stem > 1 else "are small enough for maps at full size"
    reasons["stem_stride"] = f"slices whose shorter edge has {shortest:.0f} pixels {how}"
    return stem


def stem_for(shortest_edge: float) -> Literal[1, 2]:
    """The first stride of the preset `auto`, for slices whose shorter edge has that many pixels.

    At equal CPU time, 18 tumour volumes with slices of 145×160 pixels taught a network that halves them at once more
    than one that computes maps at full size; see `benchmarks/README.md`.

    Example:
        >>> stem_for(40), stem_for(145)
        (1, 2)
    """
    return 2 if shortest_edge >= _STEM_PIXELS else 1


def _choose_widths(
    shortest: float, stem: int, settings: Settings, like: Plan | None, reasons: dict[str, str]
) -> tuple[int, ...]:
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

    As many levels, each of half the resolution, as keep the coarsest map at 4 pixels an edge or more, at most 6.

    Example:
        >>> widths_for(35), widths_for(256), widths_for(145, stem_stride=2)
        ((16, 32, 64, 128), (16, 32, 64, 128, 256, 256), (16, 32, 64, 128, 256))
    """
    levels = 1
    while levels < _LEVELS_MOST and shortest_edge / (stem_stride * 2**levels) >= _COARSEST_PIXELS:
        levels += 1
    return tuple(min(_WIDTH_FIRST * 2**level, _WIDTH_LARGEST) for level in range(levels))


def _choose_window(
    pixels: tuple[float, float], settings: Settings, stride: int, reasons: dict[str, str]
) -> tuple[int, int]:
    if settings.slices.window is not None:
        reasons["window"] = "as set"
        return settings.slices.window
    first, second = (max(2, math.ceil(edge / stride - 0.25)) * stride for edge in pixels)
    reasons["window"] = (
        f"{first}×{second} pixels: three quarters of the slices fit, at most {_WINDOW_LARGEST} an edge, multiples of "
        f"the stride {stride}"
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


def _choose_mirrors(
    label_count: int, settings: Settings, axes: list[int], reasons: dict[str, str]
) -> tuple[int, ...]:
    mirror = settings.augment.mirror
    if mirror == "never":
        reasons["mirror_axes"] = "none, as set"
        return ()
    if mirror == "always" or label_count == 1:
        reasons["mirror_axes"] = "both in-plane axes" + (", as set" if mirror == "always" else ": there is one label")
        return (0, 1)
    # World axis 0 runs from left to right: mirroring it would swap a left organ with a right one.
    kept = tuple(position for position, axis in enumerate(axes) if axis != 0)
    reasons["mirror_axes"] = "never across left and right, because there are several labels"
    return kept
