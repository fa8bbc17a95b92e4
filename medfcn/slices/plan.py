"""The plan: how volumes become slices for one network.

Everything that a trained model needs to bring a new volume to its network is in the plan, and is stored with it.
`planning.py` makes plans.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta

from medfcn.settings import APART_MOST, BATCH_MOST, CONTEXT_MOST, EDGE_MOST, PIXELS_MOST, TURNS_MOST, View
from medfcn.slices.slicing import in_plane_axes

_Number = Annotated[float, Meta(gt=-1e38, lt=1e38)]
_Count = Annotated[int, Meta(ge=1, le=BATCH_MOST)]
_Length = Annotated[float, Meta(gt=1e-6, lt=1e38)]
_Widths = Annotated[tuple[Annotated[int, Meta(ge=1, le=4096)], ...], Meta(max_length=8)]
Restoring = Literal["learned", "bilinear", "joined"]
Movement = Literal["small", "usual", "strong"]
_Turns = Annotated[tuple[Annotated[float, Meta(ge=-180, le=180)], ...], Meta(max_length=TURNS_MOST)]
_Apart = Annotated[tuple[Annotated[int, Meta(ge=1, le=APART_MOST)], ...], Meta(max_length=3)]
SpacingRAS = tuple[_Length | None, _Length | None, _Length | None]
"""Edge lengths in R, A, S order; None keeps a volume's own."""


class Intensity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one channel's intensities are brought to mean 0 and standard deviation 1.

    `zscore`: each volume is clipped to its own 0.5th and 99.5th percentiles, then scaled by its own mean and
    standard deviation. The background (air, or what lies outside a scan) is left out of all of these. `ct`: all
    volumes are clipped to `lower` and `upper` and scaled by `mean` and `std`, which are those of the training cases'
    foreground. `none`: intensities stay as they are.

    `background` is the rule by which `zscore` finds the background. `robust`: see `medfcn.slices.background`.
    `minimum`: voxels exactly at the volume's minimum, if they are more than a twentieth of the volume; one voxel
    below the background defeats it. Cards without the key are of models that were trained with it.
    """

    kind: Literal["zscore", "ct", "none"]
    lower: _Number = 0.0
    upper: _Number = 0.0
    mean: _Number = 0.0
    std: Annotated[float, Meta(gt=0, lt=1e38)] = 1.0
    background: Literal["minimum", "robust"] = "minimum"

    def __post_init__(self) -> None:
        if self.lower > self.upper:
            raise ValueError(f"lower is {self.lower}, above upper, {self.upper}")


@dataclass(frozen=True)
class Plan:
    """How volumes become slices for one network.

    Attributes:
        views: The planes of the slices; with several, one network sees them all.
        spacing_mm: Edge lengths of the network grid in R, A, S order; None keeps a volume's own (across the slices of
            a single view).
        window: `(H, W)` pixels that the network sees at once in prediction, in every view, and in training unless
            there is a crop.
        context: Slices seen at once, odd.
        widths: Channels of each encoder level; each after the first halves the resolution. Empty for a network of
            MONAI, which has its own.
        intensities: One for each channel.
        batch_size: Slices in a training step.
        mirror_axes: Axes of the network grid (0 is R, 1 is A, 2 is S) that training mirrors where they lie in a
            slice.
        reasons: For each choice, why.
        stem_stride: Input pixels per pixel of the first level.
        restoring: How logits at a lower resolution are brought to full size; `joined` makes them there at once. Cards
            without the key are of models that learned it.
        crop: `(H, W)` pixels of a training slice, where an organ takes a small part of large slices; None for the
            window. The network has no fixed size, so it is shown more in prediction.
        movement: How much training slices are changed, as far as the settings leave it open.
        turns: Degrees by which prediction turns the part around what it finds in a slice, each for one more look.
        apart: For each view, the slices of the network grid from one that prediction sees to the next, at most;
            between them probabilities are interpolated. `()` sees all.
        own_statistics: The share of the statistics of batch normalisation that prediction takes from the volume
            itself; see `medfcn.networks.own_statistics`.
        whole: Prediction takes a slice in one piece where its edges are up to so many times those of the window, and
            in tiles where they are more. Cards without the key are of models for which this was 1.25.
    """

    views: tuple[View, ...]
    spacing_mm: SpacingRAS
    window: tuple[_Count, _Count]
    context: Annotated[int, Meta(ge=1, lt=CONTEXT_MOST)]
    widths: _Widths
    intensities: tuple[Intensity, ...]
    batch_size: _Count
    mirror_axes: tuple[int, ...]
    reasons: Mapping[str, str]
    stem_stride: Literal[1, 2, 4] = 1
    restoring: Restoring = "learned"
    crop: tuple[_Count, _Count] | None = None
    movement: Movement = "usual"
    turns: _Turns = ()
    apart: _Apart = ()
    own_statistics: Annotated[float, Meta(ge=0, le=1)] = 0.0
    whole: Annotated[float, Meta(ge=1, le=64)] = 1.25

    @property
    def trained(self) -> tuple[int, int]:
        """`(H, W)` pixels of a training slice."""
        return self.crop or self.window

    @property
    def channels_in(self) -> int:
        """Channels of the network's input: image channels times slices seen at once."""
        return len(self.intensities) * self.context

    def mirrored(self, view: View) -> tuple[int, ...]:
        """The in-plane axes (0 is H, 1 is W) of a view's slices that training mirrors."""
        return tuple(place for place, axis in enumerate(in_plane_axes(view)) if axis in self.mirror_axes)

    def apart_along(self, view: View) -> int:
        """The slices from one of a view that prediction sees to the next, at most; 1 if it sees all."""
        return dict(zip(self.views, self.apart, strict=False)).get(view, 1)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values; `from_json` is the inverse."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        for intensity in plain["intensities"]:
            if intensity["background"] == "minimum":  # as cards without the key, whose hashes stay
                del intensity["background"]
        for name, usual in USUAL.items():
            if plain.get(name, usual) == usual:  # as cards without the key, of which msgspec fills in no field
                plain.pop(name, None)
        return plain

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            ValueError: A field is missing, is unknown, has a value that it cannot have, or does not fit the others.
        """
        try:
            plan = msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            raise ValueError(f"plan: {error}") from error
        in_plane = {axis for view in plan.views for axis in in_plane_axes(view)}
        sound = {
            "views": 1 <= len(set(plan.views)) == len(plan.views),
            "spacing_mm": all(plan.spacing_mm[axis] is not None for axis in in_plane),
            "context": plan.context % 2 == 1,
            "window": max(plan.window) <= EDGE_MOST and math.prod(plan.window) <= PIXELS_MOST,
            "crop": plan.crop is None or all(map(int.__le__, plan.crop, plan.window)),
            "apart": len(plan.apart) in (0, len(plan.views)),
            "mirror_axes": plan.mirror_axes == tuple(axis for axis in range(3) if axis in plan.mirror_axes),
        }
        sound |= dict.fromkeys(value.keys() - sound.keys() - vars(plan).keys(), False)
        for name, holds in sound.items():
            if not holds:
                raise ValueError(f"plan.{name} cannot be {value[name]!r}")
        return plan


_ALWAYS_WRITTEN = ("stem_stride",)
"""Fields with a default that every card has."""
USUAL: Mapping[str, Any] = {
    each.name: each.default
    for each in fields(Plan)
    if each.default is not MISSING and each.name not in _ALWAYS_WRITTEN
}
"""The values that cards, and trainings that were stopped, without the key have."""
