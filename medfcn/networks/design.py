"""The parts of a network, every one of them set: what a network is built from.

Settings leave parts open. `Design.of` takes these from the preset and from the plan.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from medfcn.errors import SettingsError
from medfcn.labels import LabelMap
from medfcn.networks.blocks import Normalisation
from medfcn.networks.presets import with_preset
from medfcn.settings import EncoderName, NetworkSettings, Upsampling
from medfcn.slices.plan import Plan, Restoring

Head = Literal["sigmoid", "softmax"]
"""The meaning of the logits. `sigmoid`: `(N, L, H, W)`, one for each label, and labels may overlap; `softmax`:
`(N, L + 1, H, W)`, background first, and exactly one class holds."""


@dataclass(frozen=True)
class Design:
    """A network, down to the number of channels of each map.

    The fields have the names and meanings of `NetworkSettings`. Numbers of channels include the factor `width`.

    Attributes:
        channels_in: Channels of the input: image channels times slices seen at once.
        label_count: Foreground labels.
        head: The meaning of the logits.
        score_channels: Channels of a score map; 0 takes one for each logit.
    """

    channels_in: int
    label_count: int
    head: Head
    encoder: EncoderName
    widths: tuple[int, ...]
    stem_stride: int
    classifier_channels: int
    scores: bool
    score_channels: int
    decoder_widths: tuple[int, ...]
    skips: bool
    fusion: Literal["add", "concat"]
    upsampling: Upsampling
    refinements: int
    head_kernel: int
    finest_stride: int
    restoring: Restoring
    normalisation: Normalisation
    negative_slope: float
    dropout: float
    decoder_dropout: float

    @classmethod
    def of(
        cls,
        settings: NetworkSettings,
        *,
        widths: tuple[int, ...] | None = None,
        stem_stride: int = 1,
        restoring: Restoring = "learned",
        channels_in: int = 1,
        label_count: int = 1,
        overlapping: bool = False,
    ) -> Self:
        """The design of some settings; parts that they leave open are the preset's.

        Args:
            settings: See there.
            widths: Channels of each encoder level, before `settings.width`; None takes those of the settings.
            stem_stride: Stride of a `strided` encoder's first convolution where the settings leave it open.
            restoring: How logits are brought to full size where the settings leave it open.
            channels_in: Image channels times slices seen at once.
            label_count: Foreground labels.
            overlapping: True if several labels can hold in one voxel.

        Raises:
            SettingsError: There is no such preset, the parts do not fit each other, or the widths are left open.

        Example:
            >>> Design.of(NetworkSettings(preset="fcn8s", width=0.5)).widths
            (32, 64, 128, 256, 256)
        """
        if settings.monai is not None:
            raise SettingsError.of(
                "network.monai", f"{settings.monai!r} is a network of MONAI, not an FCN; leave it out here"
            )
        chosen = with_preset(settings if widths is None else dataclasses.replace(settings, widths=widths))
        if chosen.widths is None:
            raise SettingsError.of("network.widths", "not set, and there is no plan; set it")
        names = {part.name for part in dataclasses.fields(cls)}
        parts: dict[str, Any] = {name: value for name, value in vars(chosen).items() if name in names}
        for name in ("widths", "decoder_widths"):
            parts[name] = tuple(scaled_channels(channels, chosen.width) for channels in parts[name])
        for name in ("classifier_channels", "score_channels"):
            parts[name] = scaled_channels(parts[name], chosen.width)
        parts["head"] = head_of(settings, label_count, overlapping=overlapping)
        parts["restoring"] = chosen.restoring or restoring
        if chosen.stem_stride is None:
            parts["stem_stride"] = stem_stride if chosen.encoder == "strided" else 1
        return cls(channels_in=channels_in, label_count=label_count, **parts)

    @property
    def channels_out(self) -> int:
        """Logits of a pixel: one for each label with the head `sigmoid`; one more with `softmax`, for background.

        Example:
            >>> [Design.of(NetworkSettings(preset="plain"), label_count=count).channels_out for count in (1, 2)]
            [1, 3]
        """
        return self.label_count + (self.head == "softmax")


@dataclass(frozen=True)
class MonaiDesign:
    """A network of MONAI.

    Attributes:
        channels_in: Channels of the input: image channels times slices seen at once.
        label_count: Foreground labels.
        head: The meaning of the logits.
        name: Its class in `monai.networks.nets`.
        arguments: Its keyword arguments, those of channels and dimensions left out.
    """

    channels_in: int
    label_count: int
    head: Head
    name: str
    arguments: Mapping[str, Any]

    @classmethod
    def of(
        cls, settings: NetworkSettings, *, channels_in: int = 1, label_count: int = 1, overlapping: bool = False
    ) -> Self:
        """The design of some settings whose `monai` is set; the arguments are those of `Design.of`."""
        head = head_of(settings, label_count, overlapping=overlapping)
        return cls(channels_in, label_count, head, str(settings.monai), settings.monai_arguments or {})

    @property
    def channels_out(self) -> int:
        """Logits of a pixel; see `Design.channels_out`."""
        return self.label_count + (self.head == "softmax")


AnyDesign = Design | MonaiDesign


def planned_design(settings: NetworkSettings, plan: Plan, labels: LabelMap) -> AnyDesign:
    """The design of some settings for the slices of a plan and the labels of a data set.

    Raises:
        SettingsError: There is no such preset, or the parts do not fit each other.
    """
    given: dict[str, Any] = {
        "channels_in": plan.channels_in,
        "label_count": len(labels.entries),
        "overlapping": labels.overlapping,
    }
    if settings.monai is not None:
        return MonaiDesign.of(with_preset(settings), **given)
    return Design.of(settings, widths=plan.widths, stem_stride=plan.stem_stride, restoring=plan.restoring, **given)


def scaled_channels(channels: int, width: float) -> int:
    """A number of channels times a factor, at least 1; 0 stays 0."""
    return max(1, round(channels * width)) if channels else 0


def head_of(settings: NetworkSettings, label_count: int, *, overlapping: bool = False) -> Head:
    """`sigmoid` or `softmax`; `auto` takes sigmoid for a single label or labels that overlap, softmax for several.

    Raises:
        SettingsError: Softmax is set for labels that overlap.
    """
    if overlapping and settings.head == "softmax":
        raise SettingsError.of(
            "network.head", "'softmax' lets one label hold at a time, and these labels overlap; take sigmoid or auto"
        )
    if settings.head != "auto":
        return settings.head
    return "sigmoid" if label_count == 1 or overlapping else "softmax"
