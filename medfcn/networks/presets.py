"""The fully convolutional networks of the literature by name, each a choice of the same parts.

A preset sets every part. Settings that name a preset and other parts start from the preset and change these parts.
The plan chooses the widths and the stem of `auto`; its other parts follow from the ablation in
`benchmarks/README.md`.
"""

import dataclasses
from collections.abc import Mapping

from medfcn.errors import SettingsError
from medfcn.settings import NetworkSettings
from medfcn.text import counted, did_you_mean

_VGG16_WIDTHS = (64, 128, 256, 512, 512)
_RESNET_WIDTHS = (64, 128, 256, 512)

_AUTO = NetworkSettings(
    preset="auto",
    encoder="strided",
    classifier_channels=0,
    scores=True,
    score_channels=16,
    decoder_widths=(),
    skips=True,
    fusion="add",
    upsampling="transposed",
    refinements=1,
    head_kernel=1,
    finest_stride=1,
    normalisation="batch",
    negative_slope=0.0,
    dropout=0.0,
    decoder_dropout=0.0,
)

_LITERATURE = dataclasses.replace(_AUTO, stem_stride=1, refinements=0)
"""The parts that most of the literature's networks share with each other, or with `auto`."""

_FCN32S = dataclasses.replace(
    _LITERATURE,
    preset="fcn32s",
    encoder="vgg16",
    widths=_VGG16_WIDTHS,
    classifier_channels=4096,
    score_channels=0,
    finest_stride=32,
    normalisation="none",
    dropout=0.5,
)

_RESNET18 = dataclasses.replace(
    _FCN32S,
    preset="resnet18_8s",
    encoder="resnet18",
    widths=_RESNET_WIDTHS,
    classifier_channels=0,
    finest_stride=8,
    normalisation="batch",
    dropout=0.0,
)

_ALL = (
    _AUTO,
    # Long, Shelhamer, Darrell, CVPR 2015; 4s, 2s and 1s continue the same fusion to finer strides.
    _FCN32S,
    dataclasses.replace(_FCN32S, preset="fcn16s", finest_stride=16),
    dataclasses.replace(_FCN32S, preset="fcn8s", finest_stride=8),
    dataclasses.replace(_FCN32S, preset="fcn4s", finest_stride=4),
    dataclasses.replace(_FCN32S, preset="fcn2s", finest_stride=2),
    dataclasses.replace(_FCN32S, preset="fcn1s", finest_stride=1),
    # VGG-16's blocks with batch normalisation; steps repeat pixels, convolve, concatenate the finer block's map.
    dataclasses.replace(
        _LITERATURE,
        preset="vgg_concat",
        encoder="vgg16_blocks",
        widths=_VGG16_WIDTHS,
        scores=False,
        decoder_widths=(512, 256),
        fusion="concat",
        upsampling="nearest_conv",
        refinements=2,
        finest_stride=4,
        decoder_dropout=0.5,
    ),
    dataclasses.replace(
        _LITERATURE,
        preset="compact",
        encoder="pooled",
        widths=(64, 128, 256),
        scores=False,
        decoder_widths=(256, 128, 64),
        fusion="concat",
        upsampling="transposed_3x3",
    ),
    dataclasses.replace(
        _LITERATURE,
        preset="plain",
        encoder="flat",
        widths=(64, 64, 32, 16),
        scores=False,
        head_kernel=3,
    ),
    dataclasses.replace(
        _LITERATURE,
        preset="score_decoder",
        encoder="vgg16_blocks",
        widths=_VGG16_WIDTHS,
        score_channels=0,
        decoder_widths=(256, 128),
        skips=False,
        finest_stride=4,
    ),
    _RESNET18,
    dataclasses.replace(_RESNET18, preset="resnet34_8s", encoder="resnet34"),
    dataclasses.replace(_RESNET18, preset="resnet50_8s", encoder="resnet50"),
)
PRESETS: Mapping[str, NetworkSettings] = {preset.preset: preset for preset in _ALL}


def with_preset(settings: NetworkSettings) -> NetworkSettings:
    """`settings` with every open part as in the preset; the preset `auto` leaves widths and stem to the plan.

    A network of MONAI has none of these parts.

    Raises:
        SettingsError: There is no such preset, or the parts do not fit each other.

    Example:
        >>> with_preset(NetworkSettings(preset="fcn8s", fusion="concat")).finest_stride
        8
    """
    if settings.monai is not None:
        _require_no_parts(settings)
        return settings
    if settings.monai_arguments is not None:
        raise SettingsError.of("network.monai_arguments", "is set without network.monai; name the network too")
    if settings.preset not in PRESETS:
        raise SettingsError.of(
            "network.preset",
            f"there is no {settings.preset!r}{did_you_mean(settings.preset, PRESETS)}",
            code="SETTING_UNKNOWN",
        )
    preset = PRESETS[settings.preset]
    given = {name: value for name, value in vars(settings).items() if value is not None}
    if settings.encoder is not None and settings.encoder != preset.encoder and settings.widths is None:
        given["widths"] = _usual_widths(settings.encoder)
    chosen = NetworkSettings(**(vars(preset) | given))
    _require_fit(chosen)
    return chosen


def _require_no_parts(settings: NetworkSettings) -> None:
    """Refuse parts of an FCN beside a network of MONAI."""
    usual = vars(NetworkSettings(monai=settings.monai, monai_arguments=settings.monai_arguments, head=settings.head))
    for name, value in vars(settings).items():
        if value != usual[name]:
            raise SettingsError.of(
                f"network.{name}",
                f"{value!r} is for medfcn's own networks, and network.monai is "
                f"{settings.monai!r}; leave one of them out",
            )


def _usual_widths(encoder: str) -> tuple[int, ...] | None:
    """The widths of an encoder in the first preset that has it; None leaves them to the plan."""
    if encoder == "strided":
        return None
    return next(preset.widths for preset in PRESETS.values() if preset.encoder == encoder)


def _require_fit(settings: NetworkSettings) -> None:
    """Refuse parts that cannot be put together."""
    wanted = {"vgg16": 5, "vgg16_blocks": 5, "resnet18": 4, "resnet34": 4, "resnet50": 4}.get(str(settings.encoder))
    if wanted and settings.widths is not None and len(settings.widths) != wanted:
        raise SettingsError.of(
            "network.widths",
            f"{settings.widths!r} has {counted(len(settings.widths), 'number')}, the encoder "
            f"{settings.encoder} takes {wanted}; give as many",
        )
    if settings.encoder != "strided" and settings.stem_stride not in (None, 1):
        raise SettingsError.of(
            "network.stem_stride",
            f"{settings.stem_stride} is for the encoder 'strided', not for {settings.encoder!r}; leave it out",
        )
    if not settings.scores and settings.fusion == "add" and settings.skips and not settings.encoder == "flat":
        raise SettingsError.of(
            "network.fusion",
            "'add' needs score maps, because the encoder's maps differ in channels; set "
            'network.scores = true, or network.fusion = "concat"',
        )
