"""Volumes that are unlike those of the training, such as another modality, spacing or field of view, or noise.

The card keeps the figures of the training cases (`medfcn.slices.appearance`) with limits around them. What lies
outside is said of every new volume; it needs no validation case.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct

from medfcn.slices.appearance import AXES, GRID_FIGURES, LEVELS, LOOK_FIGURES, Appearance, appearance_of, aspects_of
from medfcn.slices.plan import Intensity
from medfcn.text import listed
from medfcn.volumes import Volume

FOREIGN = "foreign volume"
"""The first words of each flag of such a volume."""
_Number = Annotated[float, Meta(gt=-1e38, lt=1e38)]
_GRID = ("spacing", "field", "aspect", "tilt")
_FLOORS = {
    "spacing": math.log(1.3),
    "field": math.log(1.4),
    "aspect": math.log(1.35),
    "tilt": 20.0,
    "quarter": 0.06,
    "median": 0.06,
    "three": 0.06,
    "tail": 0.3,
    "near": 0.45,
    "far": 0.4,
    "towards": 0.4,
    "centre": 0.4,
}
"""The least that a figure may lie beyond those of the training; lengths and their ratios by such a factor."""
_CROP = ("level_5", "level_50", "quarter", "median", "three", "tail", "towards", "centre")
"""Figures of CT that depend on how much air a scan shows."""
_LEVEL_FLOOR = 0.2
"""The same for levels, in parts of their range in the training."""
_SPREADS, _FEW_SPREADS, _GAPS = 2, 6, 2
"""With n training cases, a figure may lie beyond theirs by its floor, which is larger for few (see `_few`), by twice
1 + 6/n of their standard deviations, or by twice what the outermost case lies beyond the others. The most counts."""
_SIDES = {"R": ("right", "left"), "A": ("front", "back"), "S": ("head", "feet")}
_UNIT = 8.0
_NOISE = math.log(0.8)
_MOST = 9e37
_LOOK_MOST = 100.0
"""Figures of a look are shares, logarithms of shares and standard deviations, all far below this."""
_SAID = 2
"""Differences of a channel that are spelled out."""


class Span(Struct, frozen=True, forbid_unknown_fields=True):
    """One figure over the training cases.

    Attributes:
        least: A new volume may have this at least.
        lowest: The smallest of the training.
        highest: The largest of the training.
        most: A new volume may have this at most.

    Raises:
        ValueError: These four do not rise.
    """

    least: _Number
    lowest: _Number
    highest: _Number
    most: _Number

    def __post_init__(self) -> None:
        if not self.least <= self.lowest <= self.highest <= self.most:
            raise ValueError("least, lowest, highest and most do not rise")

    def contains(self, value: float) -> bool:
        """True if a new volume may have this figure."""
        return self.least <= value <= self.most

    def beyond(self, value: float) -> float:
        """How far a figure lies outside the training, in parts of what is allowed."""
        allowed = self.most - self.highest if value > self.most else self.lowest - self.least
        return max(self.lowest - value, value - self.highest) / max(allowed, 1e-9)

    def joined(self, other: "Span") -> "Span":
        """The span of both."""
        pairs = zip(_values(self), _values(other), strict=True)
        least, lowest, highest, most = (min(pair) if place < 2 else max(pair) for place, pair in enumerate(pairs))
        return Span(least, lowest, highest, most)


Spans = dict[str, Span]


class Fingerprint(Struct, frozen=True, forbid_unknown_fields=True):
    """The looks of the training cases.

    Attributes:
        cases: Their number.
        orientations: The orders in which they are stored, such as `LPS`.
        grid: Spans of `Appearance.grid`.
        channels: Spans of `Appearance.channels`.

    Raises:
        ValueError: A figure has another name than those of `Appearance`, or cannot be.
    """

    cases: Annotated[int, Meta(ge=1, le=2**31)]
    orientations: tuple[Annotated[str, Meta(pattern="^[RLAPSI]{3}$")], ...]
    grid: Spans
    channels: tuple[Spans, ...]

    def __post_init__(self) -> None:
        names = {*self.grid} <= {*GRID_FIGURES} and all({*look} <= {*LEVELS, *LOOK_FIGURES} for look in self.channels)
        lengths = all(span.least > 0 for name, span in self.grid.items() if _is_factor(name))
        looks = (span for look in self.channels for name, span in look.items() if name not in LEVELS)
        if not (names and lengths and all(max(map(abs, _values(span))) < _LOOK_MOST for span in looks)):
            raise ValueError("a figure of the fingerprint cannot be")


def fingerprint_of(cases: Sequence[Appearance]) -> Fingerprint:
    """The looks of some training cases, and what a new volume may look like.

    Args:
        cases: At least one, with the same channels.
    """
    channels = []
    for places in zip(*(case.channels for case in cases), strict=True):
        looks = [look for look in places if look is not None]
        levels = [value for look in looks for name, value in look.items() if name in LEVELS]
        channels.append(_spans(looks, _LEVEL_FLOOR * (max(levels) - min(levels))) if looks else {})
    grid = _spans([case.grid for case in cases], 0.0)
    orientations = tuple(sorted({case.orientation for case in cases}))
    return Fingerprint(len(cases), orientations, grid, tuple(channels))


def foreign_flags(
    known: Sequence[tuple[Fingerprint, Sequence[Intensity]]], volumes: Sequence[Volume], names: Sequence[str]
) -> list[str]:
    """A line for each way in which a case is unlike the training; none if nothing is known.

    Args:
        known: The fingerprint of each model, and how it scales channels. What one of them knows is not foreign.
        volumes: The case's channels, as the models get them.
        names: The channels' names.
    """
    if not known:
        return []
    fingerprint = known[0][0]
    for other, _ in known[1:]:
        fingerprint = _joined(fingerprint, other)
    seen = appearance_of(volumes)
    kept = [
        _compared(spans, [intensities[channel] for _, intensities in known])
        for channel, spans in enumerate(fingerprint.channels)
    ]
    lines = _grid_lines(fingerprint, seen)
    looks = list(zip(names, kept, seen.channels, strict=True))
    for (name, spans, look), volume in zip(looks, volumes, strict=True):
        if look is None and volume.array.min() < volume.array.max():
            lines.append(f"channel {name} has one value besides its background: is it a mask?")
        outside = _outside(spans, look or {})
        if not outside or look is None:
            continue
        said: dict[str, str] = {}  # of what is said of several figures, that of the farthest
        for words in (_words(figure, look[figure], spans) for figure in outside):
            said.setdefault(words.partition(" (")[0], words)
        text = "; ".join([*said.values()][:_SAID])
        alike = [other for other, of_other, _ in looks if other != name and of_other and not _outside(of_other, look)]
        hint = f"; it looks like {listed(alike)}: are the channels in order?" if alike else ""
        lines.append(f"channel {name}: {text}{hint}")
    return [f"{FOREIGN}: {line}" for line in lines]


def _few(cases: int, *, is_grid: bool) -> float:
    """The factor on a floor: few cases tell little of how much the looks of volumes differ, more of their grids."""
    return 1 + 6 / (cases + 1) if is_grid else 1 + 3 / cases + 6 / cases**2


def _values(span: Span) -> tuple[float, float, float, float]:
    return span.least, span.lowest, span.highest, span.most


def _is_factor(name: str) -> bool:
    return name.startswith(("spacing", "field", "aspect"))


def _spans(cases: Sequence[Mapping[str, float]], level_floor: float) -> Spans:
    """A span for each figure that all cases have."""
    spans: Spans = {}
    for name in cases[0]:
        if not all(name in case for case in cases):
            continue
        kind, values = name.split("_")[0], np.sort([case[name] for case in cases])
        if _is_factor(name):
            values = np.log(values)
        gap = max(values[1] - values[0], values[-1] - values[-2]) if len(values) > 2 else 0.0
        spread = (1 + _FEW_SPREADS / len(cases)) * _SPREADS * values.std()
        allowed = max(_few(len(cases), is_grid=kind in _GRID) * _FLOORS.get(kind, level_floor), spread, _GAPS * gap)
        limits = [values[0] - allowed, values[0], values[-1], values[-1] + allowed]
        if _is_factor(name):
            limits = [math.exp(limit) for limit in limits]
        least, lowest, highest, most = (float(f"{min(max(limit, -_MOST), _MOST):.6g}") for limit in limits)
        spans[name] = Span(least, lowest, highest, most)
    return spans


def _joined(one: Fingerprint, other: Fingerprint) -> Fingerprint:
    """The looks of both, of the figures that both know."""

    def both(here: Spans, there: Spans) -> Spans:
        return {name: span.joined(there[name]) for name, span in here.items() if name in there}

    channels = tuple(both(*pair) for pair in zip(one.channels, other.channels, strict=True))
    orientations = tuple(sorted({*one.orientations, *other.orientations}))
    return Fingerprint(one.cases + other.cases, orientations, both(one.grid, other.grid), channels)


def _compared(spans: Spans, intensities: Sequence[Intensity]) -> Spans:
    """The figures that matter to the models: where each volume is scaled by itself, not the levels."""
    scaled = any(intensity.kind == "zscore" for intensity in intensities)
    return {name: span for name, span in spans.items() if not name.startswith(LEVELS if scaled else _CROP)}


def _outside(spans: Spans, figures: Mapping[str, float]) -> list[str]:
    """The figures that lie outside, the farthest first."""
    found = [name for name, span in spans.items() if name in figures and not span.contains(figures[name])]
    return sorted(found, key=lambda name: -spans[name].beyond(figures[name]))


def _grid_lines(fingerprint: Fingerprint, seen: Appearance) -> list[str]:
    """A line for the spacing, for the field of view and for the tilt, where they are unlike."""
    grid, figures, lines = fingerprint.grid, seen.grid, list[str]()
    outside = _outside(grid, figures)
    for kind, what, whose in (("spacing", "its voxels are", "those"), ("field", "it spans", "the volumes")):
        names = [f"{kind}_{axis}" for axis in AXES]
        if not any(name.startswith((kind, "aspect" if kind == "field" else kind)) for name in outside):
            continue
        found = " × ".join(f"{figures[name]:.4g}" for name in names)
        usual = " × ".join(_range_text(grid[name]) if name in grid else "?" for name in names)
        hint = _unit_hint(grid, figures) if kind == "spacing" else ""
        lines.append(f"{what} {found} mm (R, A, S), {whose} of the training {usual} mm{hint}")
    if lines and (order := _fitting_order(grid, figures)):
        stored = f"{seen.orientation}, in training {listed(fingerprint.orientations)}"
        lines[-1] += f"; with the axes in the order {order} it would be usual: is the header right ({stored})?"
    if "tilt" in outside:
        usual = _range_text(grid["tilt"])
        lines.append(
            f"its grid is tilted by {figures['tilt']:.0f}° against the patient's axes, in training by {usual}°"
        )
    return lines


def _unit_hint(grid: Spans, figures: Mapping[str, float]) -> str:
    """A question, if all spacings differ by one large factor."""
    ratios = [figures[name] / grid[name].highest for name in grid if name.startswith("spacing")]
    is_unit = min(ratios) > _UNIT or max(ratios) < 1 / _UNIT
    return "; is the unit of length right?" if is_unit and max(ratios) < 2 * min(ratios) else ""


def _fitting_order(grid: Spans, figures: Mapping[str, float]) -> str:
    """The order of axes in which spacing and field of view would be as in training; empty if there is none."""
    for order in itertools.permutations(AXES):
        pairs = [(kind, to, axis) for kind in ("spacing", "field") for to, axis in zip(AXES, order, strict=True)]
        moved = {f"{kind}_{to}": figures[f"{kind}_{axis}"] for kind, to, axis in pairs}
        moved |= aspects_of(moved)
        if order != AXES and not _outside({name: grid[name] for name in moved if name in grid}, moved):
            return ", ".join(order)
    return ""


def _words(name: str, value: float, spans: Spans) -> str:
    """The difference of one figure of a channel from the training, in words; the figure itself in brackets."""
    kind, _, axis = name.partition("_")
    span = spans[name]
    is_more = value > span.highest
    if name in LEVELS:
        whose = "the image's values" if kind == "level" else "all values"
        return (
            f"its values are {'higher' if is_more else 'lower'} than in training "
            f"({axis} % of {whose} lie below {value:.4g}, in training below {_range_text(span)})"
        )
    if kind in ("near", "far"):
        which = "neighbouring voxels" if kind == "near" else "voxels four apart"
        noise = ": is it noise?" if kind == "near" and value > _NOISE > span.highest else ""
        usual = _range_text(span, math.exp)
        return (
            f"{which} along {axis} are {'less' if is_more else 'more'} alike than in training{noise} "
            f"(their difference is {math.exp(value):.2g} of that of any two, in training {usual})"
        )
    if kind == "towards":
        side, sides = _SIDES[axis][value < 0], {_SIDES[axis][bound < 0] for bound in (span.lowest, span.highest)}
        where = f"towards the {listed(sides)}" if len(sides) == 1 else "about alike on both sides"
        return f"it is brighter towards the {side}, in training {where}"
    if kind == "centre":
        return f"its middle is {'brighter' if is_more else 'darker'} than in training, against the rest"
    if kind == "tail":
        return f"its brightest parts stand out {'more' if is_more else 'less'} than in training"
    part = {"quarter": "a quarter", "median": "half", "three": "three quarters"}[kind]
    verb = "lie" if kind == "three" else "lies"
    usual = _range_text(span, lambda bound: 100 * bound)
    return (
        f"its contrast is another: {'more' if is_more else 'less'} of it is bright than in training "
        f"({part} of it {verb} below {100 * value:.0f} % of the range, in training below {usual} %)"
    )


def _range_text(span: Span, shown: Callable[[float], float] = lambda bound: bound) -> str:
    lowest, highest = (f"{shown(bound):.3g}" for bound in (span.lowest, span.highest))
    return lowest if lowest == highest else f"{lowest} to {highest}"
