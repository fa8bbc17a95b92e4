"""Make a plan from the figures of a data set: the network grid, the views, the window, the intensities."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from medfcn.errors import DatasetError, SettingsError
from medfcn.settings import Settings, View
from medfcn.slices.fingerprint import CaseFingerprint
from medfcn.slices.intensities import choose_kind, intensity_of
from medfcn.slices.mirrors import choose_mirrors, has_lesions
from medfcn.slices.plan import Intensity, Movement, Plan, Restoring, SpacingRAS
from medfcn.slices.sizes import (
    MAP_LARGEST,
    Stem,
    of_stride,
    organ_pixels,
    slice_distance,
    slice_pixels,
    stem_for,
    widths_for,
)
from medfcn.slices.slicing import VIEW_AXIS, in_plane_axes
from medfcn.slices.views import choose_apart, choose_views
from medfcn.text import counted

_NEIGHBOURS_NEAR = 2.0
"""Neighbouring slices are added where slices are at most this many pixels apart: at 1 pixel (hippocampus) they added
half a hundredth to the Dice, at 3.3 (tumours) nothing; see `benchmarks/README.md`."""
_BATCH_PIXELS = 16 * 96 * 96
"""Pixels of the first map of all slices of a batch, at most: a step takes bounded time and memory."""
_CROPPED_FROM = 192
"""Pixels along the shorter edge of slices from which training sees a part of them, where an organ takes little."""
_AROUND_ORGAN, _CROP_SHARE = 1.25, 0.5
"""That part is as large as the organ with an eighth on either side, and at least half of each edge; and it is taken
if it has at most this share of the pixels. Measured on hearts; see `benchmarks/README.md`."""
_TURNS = (20.0, -20.0)
"""Degrees of the further looks, within what training showed. Measured on hearts; see `benchmarks/README.md`."""
_WHOLE = 4.0
"""Slices up to so many times the window go through in one piece: about as good as in tiles on six sets, in half the
time; see `benchmarks/README.md`."""
_JOINED_FROM = 2
"""Labels for each channel of the last map, from which the logits are made at full size at once: with fewer a step is
hardly faster. Measured with 20 and 104 labels; see `benchmarks/README.md`."""
_OWN_STATISTICS, _FEW_PATIENTS = 0.5, 32
"""The share of a volume's own statistics, and the training cases of lesions up to which prediction takes it: measured
on tumours, with 11 to 16 cases. Hearts lose by it. See `benchmarks/README.md`."""
_OWN_GAINED = "tumours in MR and CT, trained for long, had 0.04 to 0.08 more Dice"
_LIKE, _SET = "as in the run it starts from", "as set"
_Value = TypeVar("_Value")


def make_plan(
    cases: Sequence[CaseFingerprint],
    settings: Settings,
    *,
    stride: int | None = None,
    joinable: int | None = None,
    like: Plan | None = None,
    channels: Sequence[str] = (),
) -> Plan:
    """Plan how volumes become slices.

    Args:
        cases: The training cases' figures.
        settings: The user's choices; what they leave open follows from the cases.
        stride: Input pixels per pixel of the network's coarsest map, where its preset fixes it; else the plan does.
        joinable: Channels of the map from which the network makes its logits, where that layer and the one to full
            size can be one; None where they cannot.
        like: The plan of a run whose weights the training starts from. Where the settings leave them open, its views,
            spacing, context, widths and kinds of intensities are kept, because the weights were trained with them.
            The window, the batch and the figures by which CT is scaled follow from the cases, which may show another
            organ.
        channels: Names of the channels in a `dataset.json`. `CT`, `noNorm` and `zscore` choose how intensities are
            scaled, as they do in nnU-Net.

    Raises:
        DatasetError: There is no case, or no foreground in any.
        SettingsError: Two spacings are set, and slices of several views; or the crop is larger than the window.
    """
    if not any(sum(case.label_voxels) for case in cases):
        raise DatasetError(
            "no training case contains any foreground; check the labels, or the mapping given to --labels",
            code="NO_FOREGROUND",
        )
    choice = _Choice(cases, settings, like, channels)
    views = choice.views()
    spacing = choice.spacing(views)
    edges = [slice_pixels(cases, in_plane_axes(view), spacing) for view in views]
    shortest = min(map(min, edges) if settings.slices.window is None else settings.slices.window)
    stem = choice.stem(shortest)
    # One window for all views: a batch holds slices of each, so that its statistics are those of prediction.
    first, second = (min(max(pair[place] for pair in edges), MAP_LARGEST * stem) for place in range(2))
    crop = choice.crop((first, second), views, spacing)
    shortest = min(shortest, MAP_LARGEST * stem, *(crop or ()))
    widths = choice.widths(shortest, stem)
    stride = stride or stem * 2 ** (len(widths) - 1)
    window = choice.window((first, second), stride)
    cropped = choice.crop_of_stride(crop, stride, window)
    return Plan(
        views=views,
        spacing_mm=spacing,
        window=window,
        widths=widths,
        batch_size=choice.batch_size(cropped or window, stem, is_cropped=cropped is not None),
        mirror_axes=choice.mirror_axes(),
        context=choice.context(views, spacing),
        intensities=choice.intensities(),
        reasons=choice.reasons,
        stem_stride=stem,
        restoring=choice.restoring(stem, joinable),
        crop=cropped,
        movement=choice.movement(cropped is not None),
        turns=choice.turns(cropped is not None),
        apart=choice.apart(views, spacing),
        own_statistics=choice.own_statistics(views),
        whole=_WHOLE,
    )


@dataclass(frozen=True)
class _Choice:
    """The choices of one plan, one after the other.

    Attributes:
        cases: As in `make_plan`.
        settings: As in `make_plan`.
        like: As in `make_plan`.
        channels: As in `make_plan`.
        reasons: For each choice made so far, why.
    """

    cases: Sequence[CaseFingerprint]
    settings: Settings
    like: Plan | None
    channels: Sequence[str]
    reasons: dict[str, str] = field(default_factory=dict)

    def because(self, name: str, value: _Value, why: str) -> _Value:
        """`value`, after its reason is noted."""
        self.reasons[name] = why
        return value

    def part_set(self, name: str, value: _Value) -> _Value:
        """A part of the network that the settings have, perhaps from the run that the training starts from."""
        return self.because(name, value, _LIKE if getattr(self.like, name, None) == value else _SET)

    def views(self) -> tuple[View, ...]:
        if self.settings.slices.views == "auto" and self.like is not None:
            return self.because("views", self.like.views, _LIKE)
        slices, network = self.settings.slices, self.settings.network
        is_free = slices.spacing_mm is None and slices.window is None and network.preset == "auto"
        views, why = choose_views(self.cases, slices.views, is_free=is_free and network.monai is None)
        return self.because("views", views, why)

    def spacing(self, views: Sequence[View]) -> SpacingRAS:
        """Edge lengths of the network grid in R, A, S order; None across the slices of a single view."""
        like, wanted = self.like, self.settings.slices.spacing_mm
        medians = [float(np.median([case.spacing_mm[axis] for case in self.cases])) for axis in range(3)]
        if len(views) > 1:
            if wanted is not None and wanted[0] != wanted[1]:
                raise SettingsError.of(
                    "slices.spacing_mm",
                    f"{wanted!r} differ, but slices of several views share one spacing; "
                    "give it twice, or set one view",
                )
            if wanted is None and like is not None and len(set(like.spacing_mm)) == 1:
                return self.because("spacing_mm", like.spacing_mm, _LIKE)
            # One network sees one size of pixel. The middle one leaves two axes as they are where two agree.
            edge = sorted(medians)[1] if wanted is None else wanted[0]
            why = "alike in all views, the middle of the axes' medians" if wanted is None else _SET
            return self.because("spacing_mm", (edge, edge, edge), why)
        axes = in_plane_axes(views[0])
        pair: Sequence[float | None]
        if wanted is not None:
            pair, why = wanted, _SET
        elif like is not None and None not in (of_run := [like.spacing_mm[axis] for axis in axes]):
            pair, why = of_run, _LIKE  # None is across the view of the other plan
        else:
            pair = first, second = [medians[axis] for axis in axes]
            why = f"medians in the slices' plane, {first:.3g} × {second:.3g} mm; across it each volume's own"
        spacing = dict(zip(axes, pair, strict=True))
        return self.because("spacing_mm", (spacing.get(0), spacing.get(1), spacing.get(2)), why)

    def context(self, views: Sequence[View], spacing: SpacingRAS) -> int:
        wanted, preset = self.settings.slices.context, self.settings.network.preset
        if self.like is not None and wanted in (None, self.like.context):
            return self.because("context", self.like.context, _LIKE)
        if wanted is not None:
            return self.because("context", wanted, _SET)
        if preset != "auto":
            return self.because("context", 1, f"the slice alone, as the preset {preset} has it")
        alone = sum(case.shape[VIEW_AXIS[views[0]]] == 1 for case in self.cases)
        if len(views) == 1 and 2 * alone > len(self.cases):
            return self.because("context", 1, f"the slice alone: {alone} of {len(self.cases)} cases have no other")
        ratio = max(slice_distance(self.cases, view, spacing) for view in views)
        count, who, how = 1, "the slice alone", "more than"
        if ratio <= _NEIGHBOURS_NEAR:
            count, who, how = 3, "a neighbour on either side", "at most"
        apart = f"{ratio:.2g} pixel" + ("s" if f"{ratio:.2g}" != "1" else "")
        return self.because("context", count, f"{who}: slices lie {apart} apart, {how} {_NEIGHBOURS_NEAR:g}")

    def stem(self, shortest: float) -> Stem:
        network = self.settings.network
        if network.monai is not None:
            return self.because("stem_stride", 1, f"of MONAI's {network.monai}")
        if network.encoder not in (None, "strided"):
            return self.because("stem_stride", 1, f"of the preset {network.preset}")
        if network.stem_stride is not None:
            return self.part_set("stem_stride", network.stem_stride)
        if network.widths is not None:
            return self.because("stem_stride", 1, "maps at full size, because the widths are set")
        if self.like is not None:
            return self.because("stem_stride", self.like.stem_stride, _LIKE)
        stem = stem_for(shortest)
        how = {1: "are small enough for maps at full size", 2: "are halved at once", 4: "are quartered at once"}[stem]
        return self.because("stem_stride", stem, f"slices whose shorter edge has {shortest:.0f} pixels {how}")

    def widths(self, shortest: float, stem: int) -> tuple[int, ...]:
        network = self.settings.network
        if network.monai is not None:
            return self.because("widths", (), f"of MONAI's {network.monai}")
        if network.widths is not None:
            if network.preset == "auto":
                return self.part_set("widths", network.widths)
            return self.because("widths", network.widths, f"of the preset {network.preset}, or as set")
        if self.like is not None:
            return self.because("widths", self.like.widths, _LIKE)
        widths = widths_for(shortest, stem)
        coarsest = stem * 2 ** (len(widths) - 1)
        why = f"{len(widths)} levels: at stride {coarsest} the shorter edge of {shortest:.0f} pixels keeps "
        return self.because("widths", widths, f"{why}{shortest / coarsest:.1f}")

    def restoring(self, stem: int, joinable: int | None) -> Restoring:
        """Only a choice that is not the usual one is explained."""
        wanted, labels = self.settings.network.restoring, len(self.cases[0].label_voxels)
        if wanted is not None:
            return self.part_set("restoring", wanted)
        if self.like is not None and self.like.restoring != "learned":
            return self.because("restoring", self.like.restoring, _LIKE)
        if self.like is not None or stem == 1 or joinable is None or labels <= _JOINED_FROM * joinable:
            return "learned"
        why = (
            f"one layer gives the logits at full size: {labels} labels are more than {_JOINED_FROM} × the {joinable} "
            f"channels of the last map, and {labels} × {joinable} kernels are fewer than {labels} × {labels}"
        )
        return self.because("restoring", "joined", why)

    def window(self, pixels: tuple[float, float], stride: int) -> tuple[int, int]:
        if self.settings.slices.window is not None:
            return self.because("window", self.settings.slices.window, _SET)
        first, second = of_stride(pixels, stride)
        why = (
            f"{first}×{second} pixels: three quarters of the slices fit, as far as the network's first map stays "
            f"within {MAP_LARGEST} an edge; multiples of the stride {stride}"
        )
        return self.because("window", (first, second), why)

    def crop(
        self, pixels: tuple[float, float], views: Sequence[View], spacing: SpacingRAS
    ) -> tuple[float, float] | None:
        """The part of large slices that training sees; None for windows as large as prediction's."""
        wanted, network = self.settings.slices.crop, self.settings.network
        if isinstance(wanted, tuple):
            return float(wanted[0]), float(wanted[1])
        is_open = wanted == "auto" and self.settings.slices.window is None and network.preset == "auto"
        if not is_open or network.monai is not None or min(pixels) < _CROPPED_FROM:
            return None
        if has_lesions(self.cases):  # where one lies in the body tells something of it
            return None
        organs = [organ_pixels(self.cases, in_plane_axes(view), spacing) for view in views]
        first, second = (
            min(edge, max(edge / 2, _AROUND_ORGAN * max(organ[place] for organ in organs)))
            for place, edge in enumerate(pixels)
        )
        return (first, second) if first * second <= _CROP_SHARE * pixels[0] * pixels[1] else None

    def crop_of_stride(
        self, crop: tuple[float, float] | None, stride: int, window: tuple[int, int]
    ) -> tuple[int, int] | None:
        """The crop in multiples of the stride; only one that there is is explained.

        Raises:
            SettingsError: It is set, and larger than the window.
        """
        if crop is None:
            return None
        wanted = self.settings.slices.crop
        if isinstance(wanted, tuple):
            if wanted[0] > window[0] or wanted[1] > window[1]:
                found = (
                    f"{wanted[0]}×{wanted[1]} pixels are more than the window's {window[0]}×{window[1]}; take fewer"
                )
                raise SettingsError.of("slices.crop", found)
            return self.because("crop", wanted, _SET)
        first, second = of_stride(crop, stride)
        why = (
            f"training sees {first}×{second} pixels around or beside the organ, which takes a small part of the "
            "slices; prediction sees the window"
        )
        return self.because("crop", (first, second), why)

    def movement(self, is_cropped: bool) -> Movement:
        """How much training slices are changed; only what is not usual is explained."""
        wanted = self.settings.augment.movement
        if wanted != "auto":
            return self.because("movement", wanted, _SET) if wanted != "usual" else wanted
        if is_cropped:
            return self.because("movement", "strong", "organs in large slices lie, and look, less alike")
        if has_lesions(self.cases):
            why = "lesions differ much by themselves; moved half as far, tumours in MR and CT had 0.04 more Dice"
            return self.because("movement", "small", why)
        return "usual"

    def turns(self, is_cropped: bool) -> tuple[float, ...]:
        """The angles of further looks in prediction; only where there are some are they explained."""
        wanted = self.settings.slices.turns
        if isinstance(wanted, tuple):
            return self.because("turns", wanted, _SET)
        if wanted == "never" or not is_cropped:
            return ()
        why = "prediction looks again at the part around what it found, turned; such a part is a small one"
        return self.because("turns", _TURNS, why)

    def apart(self, views: Sequence[View], spacing: SpacingRAS) -> tuple[int, ...]:
        """The slices from one that prediction sees to the next; only where some are left out is that explained.

        Raises:
            SettingsError: It is set for a single view.
        """
        apart, why = choose_apart(self.cases, views, spacing[0], self.settings.slices.apart)
        return self.because("apart", apart, why) if apart else ()

    def own_statistics(self, views: Sequence[View]) -> float:
        """The share of a volume's own statistics in prediction; only where there is one is it explained."""
        wanted, network = self.settings.slices.own_statistics, self.settings.network
        if isinstance(wanted, float | int):
            return self.because("own_statistics", float(wanted), _SET)
        is_free = network.preset == "auto" and network.monai is None and network.normalisation in (None, "batch")
        if wanted == "never" or not is_free or len(views) == 1:
            return 0.0
        if len(self.cases) > _FEW_PATIENTS or not has_lesions(self.cases):
            return 0.0
        why = (
            f"lesions of {counted(len(self.cases), 'case')}, at most {_FEW_PATIENTS}: prediction takes half of the "
            f"statistics of each layer from the volume itself; {_OWN_GAINED}"
        )
        return self.because("own_statistics", _OWN_STATISTICS, why)

    def batch_size(self, window: tuple[int, int], stem: int, *, is_cropped: bool = False) -> int:
        wanted = self.settings.training.batch_size
        most = _BATCH_PIXELS * stem**2 // (window[0] * window[1])
        if is_cropped:  # every other slice shows the organ whole: more steps say more than larger ones
            most //= 2
        size = max(min(wanted, 8), min(wanted, most))
        why = f"{size} of the {wanted} set, at windows of {window[0]}×{window[1]} pixels"
        return self.because("batch_size", size, why)

    def mirror_axes(self) -> tuple[int, ...]:
        axes, why = choose_mirrors(self.cases, self.settings.augment.mirror)
        return self.because("mirror_axes", axes, why)

    def intensities(self) -> tuple[Intensity, ...]:
        return tuple(self._intensity(channel) for channel in range(len(self.cases[0].minimum)))

    def _intensity(self, channel: int) -> Intensity:
        kinds = () if self.like is None else self.like.intensities
        if self.settings.slices.normalisation == "auto" and channel < len(kinds):
            kind, why = kinds[channel].kind, _LIKE
        else:
            name = self.channels[channel] if channel < len(self.channels) else ""
            kind, why = choose_kind(self.cases, channel, self.settings.slices.normalisation, name=name)
        self.reasons[f"normalisation of channel {channel}"] = f"{kind}: {why}"
        return intensity_of(self.cases, channel, kind)
