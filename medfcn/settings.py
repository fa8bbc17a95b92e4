"""Every setting of medfcn, once, with its default and what it means.

Settings are frozen dataclasses; a value that cannot be is refused when one is made. `medfcn.config` reads them from
files and overrides single ones.
"""

from dataclasses import dataclass, field
from typing import Literal

from medfcn.errors import SettingsError

View = Literal["axial", "coronal", "sagittal"]
Views = Literal["auto", "all"] | tuple[View, ...]
Preset = Literal[
    "auto",
    "fcn32s",
    "fcn16s",
    "fcn8s",
    "fcn4s",
    "fcn2s",
    "fcn1s",
    "vgg_concat",
    "compact",
    "plain",
    "score_decoder",
    "resnet18_8s",
    "resnet34_8s",
    "resnet50_8s",
]
EncoderName = Literal["strided", "pooled", "flat", "vgg16", "vgg16_blocks", "resnet18", "resnet34", "resnet50"]
LossName = Literal["ce_dice", "ce", "dice", "focal", "tversky", "mse", "hinge"]
Upsampling = Literal["transposed", "transposed_3x3", "bilinear", "nearest_conv", "dilated"]


@dataclass(frozen=True)
class SliceSettings:
    """How a volume becomes 2D slices. `None` and `"auto"` leave the choice to the plan."""

    views: Views = "auto"
    """The planes of the slices. With several (`all`: the three), one network sees slices of each, and the
    probabilities it gives along each are averaged."""
    context: int | None = None
    """Slices the network sees at once, odd: 1 is the slice alone, 3 adds a neighbour on either side. `None` adds them
    with the preset `auto` where slices lie at most two pixels apart."""
    spacing_mm: tuple[float, float] | None = None
    """Pixel edge lengths of a slice on the network grid, along its two in-plane axes in R, A, S order; with several
    views both are those of all three axes, and must agree."""
    window: tuple[int, int] | None = None
    """Pixels of a training slice; larger slices are cropped in training and tiled in prediction."""
    normalisation: Literal["auto", "zscore", "ct"] = "auto"
    """`zscore` scales each volume by itself; `ct` clips and scales all by the dataset's foreground."""

    def __post_init__(self) -> None:
        fits = isinstance(self.views, str) or 1 <= len(set(self.views)) == len(self.views)
        _require("slices.views", self.views, fits, "auto, all, or a list of one to three different views")
        fits = self.context is None or (self.context >= 1 and self.context % 2 == 1)
        _require("slices.context", self.context, fits, "an odd number from 1")
        if self.spacing_mm is not None:
            _require("slices.spacing_mm", self.spacing_mm, min(self.spacing_mm) > 0, "two positive lengths in mm")
        if self.window is not None:
            _require("slices.window", self.window, min(self.window) >= 8, "two numbers of pixels from 8")


@dataclass(frozen=True)
class NetworkSettings:
    """The parts of the fully convolutional network. `None` leaves a part as the preset has it; see `medfcn networks`
    and `medfcn/networks/presets.py`.
    """

    preset: Preset = "auto"
    """The design the other parts start from."""
    encoder: EncoderName | None = None
    """What turns a slice into feature maps of falling resolution."""
    widths: tuple[int, ...] | None = None
    """Channels of each encoder level. `None` with the preset `auto` leaves them to the plan: as many levels, each of
    half the resolution, as keep the coarsest map at 4 pixels an edge or more."""
    stem_stride: Literal[1, 2, 4] | None = None
    """Stride of the `strided` encoder's first convolution: above 1, no map is computed at full size. `None` with the
    preset `auto` leaves it to the plan."""
    width: float = 1.0
    """Factor on every number of channels, those of the classes apart."""
    classifier_channels: int | None = None
    """Channels of VGG-16's fully connected layers as convolutions (fc6, fc7); 0 leaves them out."""
    scores: bool | None = None
    """Bring the encoder's maps to score maps by 1×1 convolutions, and fuse these; without, its maps as they are."""
    score_channels: int | None = None
    """Channels of the score maps; 0 takes one for each class, as in the paper."""
    decoder_widths: tuple[int, ...] | None = None
    """Channels after each upsampling, coarse to fine; `()` keeps those of the score maps."""
    skips: bool | None = None
    """Fuse the encoder's finer maps in; without them the decoder only upsamples."""
    fusion: Literal["add", "concat"] | None = None
    """How an upsampled map meets the finer one."""
    upsampling: Upsampling | None = None
    """How a coarse map reaches the next finer grid; all but `bilinear` are learned and start as linear."""
    refinements: int | None = None
    """3×3 convolutions after each fusion."""
    head_kernel: Literal[1, 3] | None = None
    """Edge of the last convolution, which gives the logits."""
    finest_stride: int | None = None
    """Input pixels per pixel of the last fused map: 32, 16 and 8 make FCN-32s, 16s and 8s; 1 goes on to full size."""
    normalisation: Literal["batch", "instance", "group", "none"] | None = None
    """What follows each convolution."""
    negative_slope: float | None = None
    """Slope of every activation below zero; 0 is ReLU."""
    dropout: float | None = None
    """Share of the deepest level's features dropped in training."""
    decoder_dropout: float | None = None
    """Share of the features dropped after each refining convolution in training."""
    head: Literal["auto", "sigmoid", "softmax"] = "auto"
    """`sigmoid` gives one logit for each label by itself, `softmax` one for each label and the background; `auto`
    takes one logit for a single label and for labels that overlap, softmax for several. Labels that overlap refuse
    softmax."""

    def __post_init__(self) -> None:
        if self.widths is not None:
            fits = 1 <= len(self.widths) <= 8 and min(self.widths) >= 1 and max(self.widths) <= 4096
            _require("network.widths", self.widths, fits, "1 to 8 numbers from 1 to 4096")
        if self.decoder_widths is not None:
            fits = len(self.decoder_widths) <= 8 and all(1 <= width <= 4096 for width in self.decoder_widths)
            _require("network.decoder_widths", self.decoder_widths, fits, "at most 8 numbers from 1 to 4096")
        _require("network.width", self.width, 1 / 1024 <= self.width <= 16, "a factor from 1/1024 to 16")
        for name, most in (("classifier_channels", 16384), ("score_channels", 4096), ("refinements", 8)):
            value = getattr(self, name)
            _require(f"network.{name}", value, value is None or 0 <= value <= most, f"a number from 0 to {most}")
        strides = (None, 1, 2, 4, 8, 16, 32, 64, 128)
        _require("network.finest_stride", self.finest_stride, self.finest_stride in strides, "a power of two to 128")
        for name in ("dropout", "decoder_dropout", "negative_slope"):
            value = getattr(self, name)
            wanted = "a slope in [0, 1)" if name == "negative_slope" else "a share in [0, 1)"
            _require(f"network.{name}", value, value is None or 0 <= value < 1, wanted)


@dataclass(frozen=True)
class AugmentSettings:
    """Random changes to each training slice, drawn anew every time it is shown."""

    still_share: float = 0.67
    """Share of the slices that keep their shape and their pixels: shifted by whole ones and mirrored, and neither
    rotated nor scaled, sheared or deformed. What is moved in between pixels is blurred, and volumes to be segmented
    are not."""
    rotation_degrees: float = 20.0
    """Largest in-plane rotation, either way."""
    scale: float = 0.2
    """Largest relative change of size: 0.2 draws factors between 1/1.2 and 1.2."""
    shear: float = 0.1
    """Largest shear, as the tangent of its angle."""
    shift: float = 0.1
    """Largest shift, as a share of the window."""
    elastic: float = 0.02
    """Standard deviation of a smooth deformation, as a share of half the region that a window is cut from."""
    mirror: Literal["never", "auto", "always"] = "auto"
    """Mirror images along the in-plane axes. `auto` shows them of lesions, whose volumes differ manyfold and which
    may lie anyhow, and none of organs; it leaves left and right alone when there are several labels, or one that
    keeps to one side of the patient."""
    noise: float = 0.15
    """Largest standard deviation of added Gaussian noise, after normalisation."""
    blur_pixels: float = 1.0
    """Largest standard deviation of Gaussian blur."""
    low_resolution: float = 0.0
    """Largest relative coarsening of an eighth of the slices: 1.0 shows pixels up to twice as large, as another
    scanner might. Off, because it costs Dice where training and new volumes are alike."""
    bias_field: float = 0.15
    """Standard deviation of a smooth change of brightness, after normalisation."""
    contrast: float = 0.25
    """Largest relative change of contrast."""
    brightness: float = 0.2
    """Largest shift of brightness, after normalisation."""
    gamma: float = 0.3
    """Largest change of log-gamma."""

    def __post_init__(self) -> None:
        for name in (
            "rotation_degrees",
            "scale",
            "shear",
            "shift",
            "elastic",
            "noise",
            "blur_pixels",
            "low_resolution",
            "bias_field",
            "contrast",
            "brightness",
            "gamma",
        ):
            value = getattr(self, name)
            _require(f"augment.{name}", value, value >= 0, "a number from 0")
        _require("augment.still_share", self.still_share, 0 <= self.still_share <= 1, "a share from 0 to 1")


@dataclass(frozen=True)
class TrainingSettings:
    """How the network is trained."""

    batch_size: int = 32
    """Slices in a step, at most; the plan takes fewer, down to 8, where windows are large."""
    learning_rate: float | None = None
    """The largest learning rate of AdamW; it rises over the warm-up and falls as a cosine to nothing. `None` takes
    4e-3, and less for wide networks without a normalisation, which bear no more."""
    layer_decay: float = 1.0
    """Factor on the learning rate from each encoder level to the one before it; below 1 the first layers, the most
    general ones of pretrained weights, move least."""
    freeze_encoder: bool = False
    """Train the decoder alone and leave the encoder's weights as they are; its normalisation statistics too."""
    freeze_statistics: bool = False
    """Use the batch normalisation statistics the weights came with, instead of each batch's."""
    warmup_steps: int = 50
    """Steps over which the learning rate rises."""
    weight_decay: float = 0.02
    """AdamW's weight decay, on convolution weights only."""
    gradient_clip: float = 5.0
    """Largest norm of the gradient."""
    ema_decay: float = 0.995
    """Decay a step of the averaged weights that are validated and kept; 0 keeps the last weights instead."""
    foreground_share: float = 0.5
    """Share of the slices drawn from those that hold foreground; the others come from all slices."""
    loss: LossName = "ce_dice"
    """What is made small: cross-entropy (binary for a single logit) and Dice, either alone, focal, Tversky, the mean
    squared error of probabilities, or hinge (a linear support vector machine on the score layer)."""
    dice_weight: float = 1.0
    """Weight of the Dice loss beside the cross-entropy."""
    dice_over: Literal["batch", "slice"] = "batch"
    """What a Dice is taken over: a whole batch, or each slice by itself."""
    class_weights: tuple[float, ...] | None = None
    """Weights of the background and of each label in the loss; `None` weighs all alike."""
    label_smoothing: float = 0.0
    """Share of each target that is spread over all classes."""
    deep_supervision: bool = False
    """Predict from every fused map in training, with half the weight for each coarser one."""
    presence_weight: float = 0.0
    """Weight of a second task: which labels does this slice contain?"""
    distance_weight: float = 0.0
    """Weight of a second task: how far is each pixel from each label's border?"""
    validation_share: float = 0.1
    """Share of the cases kept for validation, by whole groups: at least one group, and at most about 24 cases."""
    epoch_steps: int = 100
    """Steps that `log.csv` calls an epoch; `--epochs` counts these."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the network: `auto` takes bfloat16 where the hardware is fast at it."""
    checkpoint_seconds: float = 60.0
    """Seconds between two saves of what `--resume` goes on from, more where saving takes long; 0 saves after every
    step. What a training comes to does not depend on it."""

    def __post_init__(self) -> None:
        _require("training.batch_size", self.batch_size, self.batch_size >= 1, "a number from 1")
        fits = self.learning_rate is None or self.learning_rate > 0
        _require("training.learning_rate", self.learning_rate, fits, "a positive number")
        _require("training.layer_decay", self.layer_decay, 0 < self.layer_decay <= 1, "a factor above 0, at most 1")
        fits = self.class_weights is None or all(weight >= 0 for weight in self.class_weights)
        _require("training.class_weights", self.class_weights, fits, "numbers from 0")
        for name in ("dice_weight", "presence_weight", "distance_weight", "checkpoint_seconds"):
            _require(f"training.{name}", getattr(self, name), getattr(self, name) >= 0, "a number from 0")
        _require("training.label_smoothing", self.label_smoothing, 0 <= self.label_smoothing < 1, "a share in [0, 1)")
        _require("training.ema_decay", self.ema_decay, 0 <= self.ema_decay < 1, "a number in [0, 1)")
        _require("training.epoch_steps", self.epoch_steps, self.epoch_steps >= 1, "a number from 1")
        for name in ("foreground_share", "validation_share"):
            value = getattr(self, name)
            _require(f"training.{name}", value, 0 <= value < 1, "a share in [0, 1)")


@dataclass(frozen=True)
class PredictionSettings:
    """How slices become a mask."""

    batch_size: int = 32
    """Slices (or tiles) through the network at once."""
    tile_overlap: float = 0.5
    """Share of a tile that its neighbour covers too, where a slice is larger than the window."""
    threshold: float | Literal["auto"] = "auto"
    """Probability from which a voxel is foreground, with one label; with several the largest wins. Where labels
    overlap, each holds above it, as far as that makes a combination of labels that can hold together. `auto` takes
    0.5, unless cases that the network had not seen clearly gain by another from 0.3 to 0.7."""
    review_share: float = 0.1
    """A mask is to be reviewed when its expected Dice is lower than that of all but this share of the cases which the
    network had not seen when it was trained."""
    largest_part: Literal["auto", "always", "never"] = "auto"
    """Keep only the largest connected part of each label. `auto` does so for labels that are one part in the training
    references, where it does not lower the validation Dice."""
    tta: bool = False
    """Average over the mirror images that training drew."""

    def __post_init__(self) -> None:
        _require("prediction.batch_size", self.batch_size, self.batch_size >= 1, "a number from 1")
        _require("prediction.tile_overlap", self.tile_overlap, 0 <= self.tile_overlap < 1, "a share in [0, 1)")
        fits = self.threshold == "auto" or 0 < self.threshold < 1
        _require("prediction.threshold", self.threshold, fits, "a number between 0 and 1, or auto")
        _require("prediction.review_share", self.review_share, 0 <= self.review_share < 1, "a share in [0, 1)")


@dataclass(frozen=True)
class Settings:
    """All settings of a training, as they stand in a TOML file and in `model.json`."""

    slices: SliceSettings = field(default_factory=SliceSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    prediction: PredictionSettings = field(default_factory=PredictionSettings)


def _require(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise SettingsError(f"setting {name}: {value!r} is not {expected}; change it")
