"""The fully convolutional designs of the literature by name, each a choice of the same parts.

A preset is complete: every part is set. Settings that name a preset and other parts start from it and change these.
The width of `auto`'s levels is the plan's; all else follows from the ablation in `benchmarks/README.md`.
"""

import dataclasses
import difflib
from collections.abc import Mapping

from medfcn.errors import SettingsError
from medfcn.settings import NetworkSettings

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

_FCN32S = dataclasses.replace(
    _AUTO,
    preset="fcn32s",
    encoder="vgg16",
    stem_stride=1,
    widths=_VGG16_WIDTHS,
    classifier_channels=4096,
    score_channels=0,
    refinements=0,
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

PRESETS: Mapping[str, NetworkSettings] = {
    "auto": _AUTO,
    # Long, Shelhamer, Darrell, CVPR 2015; 4s, 2s and 1s carry the same fusion on to finer strides.
    "fcn32s": _FCN32S,
    "fcn16s": dataclasses.replace(_FCN32S, preset="fcn16s", finest_stride=16),
    "fcn8s": dataclasses.replace(_FCN32S, preset="fcn8s", finest_stride=8),
    "fcn4s": dataclasses.replace(_FCN32S, preset="fcn4s", finest_stride=4),
    "fcn2s": dataclasses.replace(_FCN32S, preset="fcn2s", finest_stride=2),
    "fcn1s": dataclasses.replace(_FCN32S, preset="fcn1s", finest_stride=1),
    # VGG-16's blocks with batch normalisation; steps repeat pixels, convolve, concatenate the finer block's map.
    "vgg_concat": dataclasses.replace(
        _AUTO,
        preset="vgg_concat",
        stem_stride=1,
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
    "compact": dataclasses.replace(
        _AUTO,
        preset="compact",
        stem_stride=1,
        encoder="pooled",
        widths=(64, 128, 256),
        scores=False,
        decoder_widths=(256, 128, 64),
        fusion="concat",
        upsampling="transposed_3x3",
        refinements=0,
    ),
    "plain": dataclasses.replace(
        _AUTO,
        preset="plain",
        stem_stride=1,
        encoder="flat",
        widths=(64, 64, 32, 16),
        scores=False,
        refinements=0,
        head_kernel=3,
    ),
    "score_decoder": dataclasses.replace(
        _AUTO,
        preset="score_decoder",
        stem_stride=1,
        encoder="vgg16_blocks",
        widths=_VGG16_WIDTHS,
        score_channels=0,
        decoder_widths=(256, 128),
        skips=False,
        refinements=0,
        finest_stride=4,
    ),
    "resnet18_8s": _RESNET18,
    "resnet34_8s": dataclasses.replace(_RESNET18, preset="resnet34_8s", encoder="resnet34"),
    "resnet50_8s": dataclasses.replace(_RESNET18, preset="resnet50_8s", encoder="resnet50"),
}

_COARSEST_STRIDE = {"vgg16": 32, "vgg16_blocks": 16, "resnet18": 32, "resnet34": 32, "resnet50": 32}


def with_preset(settings: NetworkSettings) -> NetworkSettings:
    """`settings` with every part that was left open as the preset has it; `auto` leaves widths and stem to the plan.

    Raises:
        SettingsError: There is no such preset, or the parts do not fit each other.

    Example:
        >>> with_preset(NetworkSettings(preset="fcn8s", fusion="concat")).finest_stride
        8
    """
    if settings.preset not in PRESETS:
        close = difflib.get_close_matches(str(settings.preset), PRESETS, n=1, cutoff=0.3)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(PRESETS)}"
        raise SettingsError(f"setting network.preset: there is no {settings.preset!r}; {hint}")
    preset = PRESETS[settings.preset]
    given = {
        part.name: value
        for part in dataclasses.fields(settings)
        if (value := getattr(settings, part.name)) is not None
    }
    if settings.encoder is not None and settings.encoder != preset.encoder and settings.widths is None:
        given["widths"] = _usual_widths(settings.encoder)
    chosen = NetworkSettings(
        **({part.name: getattr(preset, part.name) for part in dataclasses.fields(preset)} | given)
    )
    _require_fit(chosen)
    return chosen


def _usual_widths(encoder: str) -> tuple[int, ...] | None:
    """The widths an encoder has in the preset that is named after it; None leaves them to the plan."""
    if encoder == "strided":
        return None
    return next(preset.widths for preset in PRESETS.values() if preset.encoder == encoder)


def _require_fit(settings: NetworkSettings) -> None:
    """Refuse parts that cannot be put together."""
    wanted = {"vgg16": 5, "vgg16_blocks": 5, "resnet18": 4, "resnet34": 4, "resnet50": 4}.get(str(settings.encoder))
    if wanted and settings.widths is not None and len(settings.widths) != wanted:
        raise SettingsError(
            f"setting network.widths: {settings.widths!r} has {len(settings.widths)} numbers, the encoder "
            f"{settings.encoder} takes {wanted}; give as many"
        )
    if settings.encoder != "strided" and settings.stem_stride not in (None, 1):
        raise SettingsError(
            f"setting network.stem_stride: {settings.stem_stride} is for the encoder 'strided', not for "
            f"{settings.encoder!r}; leave it out"
        )
    if not settings.scores and settings.fusion == "add" and settings.skips and not settings.encoder == "flat":
        raise SettingsError(
            "setting network.fusion: 'add' needs score maps, because the encoder's maps differ in channels; set "
            'network.scores = true, or network.fusion = "concat"'
        )


def coarsest_stride(settings: NetworkSettings) -> int | None:
    """Input pixels per pixel of the coarsest map; None where the plan's widths decide it.

    Example:
        >>> coarsest_stride(NetworkSettings(preset="fcn8s")), coarsest_stride(NetworkSettings())
        (32, None)
    """
    chosen = with_preset(settings)
    if chosen.encoder == "flat":
        return 1
    if chosen.encoder in _COARSEST_STRIDE:
        return _COARSEST_STRIDE[chosen.encoder]
    if chosen.widths is None:
        return None
    if chosen.encoder == "strided":
        return int((chosen.stem_stride or 1) * 2 ** (len(chosen.widths) - 1))
    return int(2 ** len(chosen.widths))
