"""Every setting of medfcn, once: its name, its type, the values it may have, its default and its meaning.

Settings are frozen dataclasses. A value that is not allowed is refused when one is made. `medfcn.config` reads them
from files and overrides single ones.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

from medfcn.allocator import Allocator
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
EngineName = Literal["torch", "onnx", "openvino"]
Precision = Literal["float32", "bfloat16"]
Upsampling = Literal["transposed", "transposed_3x3", "bilinear", "nearest_conv", "dilated"]
EDGE_MOST, PIXELS_MOST = 2**13, 2**24
"""Pixels along an edge of a window, and in all of it."""
CONTEXT_MOST = 2**10
"""Slices seen at once."""
TURNS_MOST = 8
"""Angles of further looks."""
APART_MOST = 32
"""Slices from one that prediction sees to the next."""
_NUMBER_MOST = 1e9
"""A number of settings, which other libraries cannot all compute with beyond."""


@dataclass(frozen=True)
class Rule:
    """The values that a setting may have, beside its type. `None` is always allowed where the type has it.

    Attributes:
        allows: True for an allowed value.
        expected: These values in words.
    """

    allows: Callable[[Any], bool]
    expected: str


class _Checked:
    """A table of settings that refuses values which the rules beside their types do not allow."""

    _table: ClassVar[str]
    _rules: ClassVar[dict[str, Rule]]

    def __init_subclass__(cls, *, table: str) -> None:
        hints = get_type_hints(cls, include_extras=True)
        cls._table = table
        cls._rules = {name: rule for name, hint in hints.items() for rule in getattr(hint, "__metadata__", ())}

    def __post_init__(self) -> None:
        for name, rule in self._rules.items():
            value = getattr(self, name)
            if value is not None and not rule.allows(value):
                full = f"{self._table}.{name}"
                raise SettingsError.of(full, f"{value!r} is not {rule.expected}; change it")
        for name, value in vars(self).items():
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, int | float) and not abs(number) <= _NUMBER_MOST:
                    found = f"{value!r} is more than any training has, {_NUMBER_MOST:.0e}; change it"
                    raise SettingsError.of(f"{self._table}.{name}", found)


def is_window(size: tuple[int, int]) -> bool:
    """True for rows and columns that a window can have: every slice of a volume is filled up to them."""
    return 8 <= min(size) <= max(size) <= EDGE_MOST and size[0] * size[1] <= PIXELS_MOST


def _numbers(most: int) -> Rule:
    return Rule(lambda value: 0 <= value <= most, f"a number from 0 to {most}")


_STRENGTH = _numbers(100)
_LOGARITHM = _numbers(10)
"""Beyond, a power of intensities is no finite number of the network's type."""
BATCH_MOST = 2**20
"""Slices in a batch."""
_BATCH = Rule(lambda count: 1 <= count <= BATCH_MOST, f"a number from 1 to {BATCH_MOST}")
_FROM_ZERO = Rule(lambda value: value >= 0, "a number from 0")
_FROM_ONE = Rule(lambda value: value >= 1, "a number from 1")
_POSITIVE = Rule(lambda value: value > 0, "a positive number")
_UP_TO_ONE = Rule(lambda value: 0 < value <= 1, "a factor above 0, at most 1")
_SHARE = Rule(lambda value: 0 <= value < 1, "a share in [0, 1)")
_OVERLAP = Rule(lambda value: 0 <= value <= 0.9, "a share from 0 to 0.9")
_SHARE_OR_ALL = Rule(lambda value: 0 <= value <= 1, "a share from 0 to 1")
_FROM_ZERO_EACH = Rule(lambda value: min(_listed(value), default=-1) >= 0, "a number from 0, or a list of some")
_ALL_FROM_ZERO = Rule(lambda values: all(value >= 0 for value in values), "numbers from 0")
_THRESHOLD = Rule(lambda value: value == "auto" or 0 < value < 1, "a number between 0 and 1, or auto")
_VIEWS = Rule(
    lambda views: isinstance(views, str) or 1 <= len(set(views)) == len(views),
    "auto, all, or a list of one to three different views",
)
_ODD = Rule(lambda count: 1 <= count < CONTEXT_MOST and count % 2 == 1, f"an odd number from 1, below {CONTEXT_MOST}")
_SPACING = Rule(lambda spacing: 1e-5 <= min(spacing) <= max(spacing) <= 1000, "two lengths from 0.00001 to 1000 mm")
_PIXELS = f"two numbers of pixels from 8 to {EDGE_MOST}, of at most {PIXELS_MOST} in all"
_WINDOW = Rule(lambda window: is_window(window), _PIXELS)
_CROP = Rule(lambda crop: isinstance(crop, str) or is_window(crop), f"auto, never, or {_PIXELS}")
_TURNS = Rule(lambda turns: isinstance(turns, str) or _are_turns(turns), f"auto, never, or 1 to {TURNS_MOST} angles")
_APART = Rule(
    lambda apart: apart == "auto" if isinstance(apart, str) else 1 <= apart <= APART_MOST,
    f"auto, or a number from 1 to {APART_MOST}",
)
_OWN = Rule(lambda share: isinstance(share, str) or 0 < share <= 1, "auto, never, or a share above 0, at most 1")
_WIDTHS = Rule(lambda widths: 1 <= len(widths) <= 8 and _are_widths(widths), "1 to 8 numbers from 1 to 4096")
_DECODER_WIDTHS = Rule(lambda widths: len(widths) <= 8 and _are_widths(widths), "at most 8 numbers from 1 to 4096")
_WIDTH = Rule(lambda width: 1 / 1024 <= width <= 16, "a factor from 1/1024 to 16")
_ARGUMENTS = Rule(lambda value: _is_plain(value), "a table of text, numbers to 65536, true, false and lists of these")
_STRIDE = Rule(lambda stride: stride in (1, 2, 4, 8, 16, 32, 64, 128), "a power of two to 128")


def _is_plain(value: Any, depth: int = 4) -> bool:
    """True for values of a settings file that no network grows out of bounds with."""
    if isinstance(value, dict | list | tuple):
        inner = value.values() if isinstance(value, dict) else value
        return depth > 0 and len(value) <= 64 and all(_is_plain(item, depth - 1) for item in inner)
    if isinstance(value, int | float):
        return abs(value) <= 65536
    return isinstance(value, str) and len(value) <= 256


def _listed(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else value


def _are_turns(turns: tuple[float, ...]) -> bool:
    return 1 <= len(turns) <= TURNS_MOST and all(-180 <= angle <= 180 for angle in turns)


def _are_widths(widths: tuple[int, ...]) -> bool:
    return all(1 <= width <= 4096 for width in widths)


@dataclass(frozen=True)
class SliceSettings(_Checked, table="slices"):
    """From a volume to 2D slices. The plan chooses what is `None` or `"auto"`."""

    views: Annotated[Views, _VIEWS] = "auto"
    """The planes of the slices. With several (`all`: the three), one network is trained on slices of each, and its
    probabilities along each are averaged."""
    context: Annotated[int | None, _ODD] = None
    """Number of slices in the network's input, odd: 1 is the slice alone, 3 adds a neighbour on either side. `None`
    adds them with the preset `auto` where slices are at most two pixels apart."""
    spacing_mm: Annotated[tuple[float, float] | None, _SPACING] = None
    """Pixel edge lengths of a slice on the network grid, along its two in-plane axes in R, A, S order. With several
    views both are those of all three axes, and must agree."""
    window: Annotated[tuple[int, int] | None, _WINDOW] = None
    """Pixels of a training slice. Larger slices are cropped in training and tiled in prediction."""
    crop: Annotated[Literal["auto", "never"] | tuple[int, int], _CROP] = "auto"
    """Pixels of a training slice where they are fewer than those of the window, which prediction sees at once. `auto`
    shows training half of each edge, or the organ with something around it, where it takes a small part of large
    slices: a step then costs a quarter."""
    turns: Annotated[Literal["auto", "never"] | tuple[float, ...], _TURNS] = "auto"
    """Degrees by which prediction turns the part around what it found in a slice; it looks again for each, and
    averages. `auto` takes 20 to either side where training sees a part of the slices: a look costs a quarter then."""
    apart: Annotated[Literal["auto"] | int, _APART] = "auto"
    """How many slices of the network grid prediction with several views goes on from one that it sees to the next;
    between them probabilities are interpolated. 1 sees every slice. `auto` leaves out what was not recorded: thick
    slices are cut into thinner ones, of which it sees as many as there were, of lesions
    fewer than half as many."""
    own_statistics: Annotated[Literal["auto", "never"] | float, _OWN] = "auto"
    """The share of each batch normalisation's statistics that prediction takes from the volume itself, instead of
    from the training: some slices of each view go through the network first. `auto` takes half for lesions of few
    cases that are seen along several views; `never` takes none."""
    normalisation: Literal["auto", "zscore", "ct", "none"] = "auto"
    """`zscore` scales each volume by its own mean and standard deviation; `ct` clips and scales all volumes by the
    intensities of the dataset's foreground; `none` leaves intensities as they are."""


@dataclass(frozen=True)
class NetworkSettings(_Checked, table="network"):
    """The parts of the fully convolutional network. `None` takes the part of the preset; see `medfcn networks` and
    `medfcn/networks/presets.py`.
    """

    preset: Preset = "auto"
    """The design from which the other parts are taken."""
    encoder: EncoderName | None = None
    """The part that turns a slice into feature maps of falling resolution."""
    widths: Annotated[tuple[int, ...] | None, _WIDTHS] = None
    """Channels of each encoder level. `None` with the preset `auto` leaves them to the plan: as many levels, each of
    half the resolution, as keep the coarsest map at 4 pixels an edge or more."""
    stem_stride: Literal[1, 2, 4] | None = None
    """Stride of the `strided` encoder's first convolution. Above 1, no map is computed at full size. `None` with the
    preset `auto` leaves it to the plan."""
    width: Annotated[float, _WIDTH] = 1.0
    """Factor on every number of channels, except that of the classes."""
    classifier_channels: Annotated[int | None, _numbers(16384)] = None
    """Channels of VGG-16's fully connected layers as convolutions (fc6, fc7); 0 leaves them out."""
    scores: bool | None = None
    """Turn the encoder's maps into score maps by 1×1 convolutions, and fuse these. If false, its maps are fused as
    they are."""
    score_channels: Annotated[int | None, _numbers(4096)] = None
    """Channels of the score maps; 0 takes one for each class, as in the paper."""
    decoder_widths: Annotated[tuple[int, ...] | None, _DECODER_WIDTHS] = None
    """Channels after each upsampling, coarse to fine; `()` keeps those of the score maps."""
    skips: bool | None = None
    """Fuse the encoder's finer maps. If false, the decoder only upsamples."""
    fusion: Literal["add", "concat"] | None = None
    """How an upsampled map is combined with the finer one."""
    upsampling: Upsampling | None = None
    """How a coarse map is brought to the next finer grid. All but `bilinear` are learned and start as linear."""
    restoring: Literal["learned", "bilinear", "joined"] | None = None
    """How logits at a lower resolution are brought to full size. `learned`: as `upsampling` says, with a kernel for
    each pair of labels. `bilinear`: by linear interpolation. `joined`: one transposed convolution makes them there,
    with a kernel for each label and channel of the last map. `None` leaves it to the plan: joined where there are
    more than two labels for each channel, else learned. A network whose logits are at full size already has no such
    step: `joined` is refused there, the others change nothing."""
    refinements: Annotated[int | None, _numbers(8)] = None
    """Number of 3×3 convolutions after each fusion."""
    head_kernel: Literal[1, 3] | None = None
    """Edge of the last convolution, which gives the logits."""
    finest_stride: Annotated[int | None, _STRIDE] = None
    """Input pixels per pixel of the last fused map: 32, 16 and 8 make FCN-32s, 16s and 8s; 1 is full size."""
    normalisation: Literal["batch", "instance", "group", "none"] | None = None
    """The normalisation layer after each convolution."""
    negative_slope: Annotated[float | None, _SHARE] = None
    """Slope of every activation below zero; 0 is ReLU."""
    dropout: Annotated[float | None, _SHARE] = None
    """Share of the deepest level's features dropped in training."""
    decoder_dropout: Annotated[float | None, _SHARE] = None
    """Share of the features dropped after each refining convolution in training."""
    head: Literal["auto", "sigmoid", "softmax"] = "auto"
    """`sigmoid` gives one logit for each label by itself, `softmax` one for each label and the background. `auto`
    takes one logit for a single label and for labels that overlap, softmax for several. Labels that overlap refuse
    softmax."""
    monai: str | None = None
    """A network of `monai.networks.nets` instead of an FCN, such as `BasicUNet`: the plain way to compare. All
    settings above but `head` are then left out."""
    monai_arguments: Annotated[dict[str, Any] | None, _ARGUMENTS] = None
    """Its keyword arguments, such as `{features = [16, 16, 32, 64, 128, 16]}`. Channels and dimensions follow from
    the data set."""


@dataclass(frozen=True)
class AugmentSettings(_Checked, table="augment"):
    """Random changes to each training slice, drawn anew every time it is used."""

    movement: Literal["auto", "small", "usual", "strong"] = "auto"
    """`usual`: the values below. `small`: rotation (10°), scale (0.1), shear (0.05), shift (0.05) and deformation
    (0.01) are half of them. `strong`: every slice is moved; rotation (45°), scale (0.35), deformation (0.04), gamma
    (0.5), contrast (0.4) and brightness (0.35) are larger. Both change only what is left at its default. `auto` takes
    `strong` where training sees crops of large slices, and `small` for lesions (see `mirror`)."""
    still_share: Annotated[float, _SHARE_OR_ALL] = 0.67
    """Share of the slices that are only shifted by whole pixels and mirrored, and not rotated, scaled, sheared or
    deformed. Moving a slice by parts of a pixel blurs it, and volumes to be segmented are not blurred."""
    rotation_degrees: Annotated[float, _numbers(360)] = 20.0
    """Largest in-plane rotation, in either direction."""
    scale: Annotated[float, _STRENGTH] = 0.2
    """Largest relative change of size: 0.2 draws factors between 1/1.2 and 1.2."""
    shear: Annotated[float, _STRENGTH] = 0.1
    """Largest shear, as the tangent of its angle."""
    shift: Annotated[float, _STRENGTH] = 0.1
    """Largest shift, as a share of the window."""
    elastic: Annotated[float, _STRENGTH] = 0.02
    """Standard deviation of a smooth deformation, as a share of half the region that a window is cut from."""
    mirror: Literal["never", "auto", "always"] = "auto"
    """Mirror images along the in-plane axes. `auto` takes them for lesions, whose volumes differ manyfold and which
    have no fixed side, and not for organs. It never mirrors left and right when there are several labels, or one that
    keeps to one side of the patient."""
    noise: Annotated[float, _STRENGTH] = 0.15
    """Largest standard deviation of added Gaussian noise, after normalisation."""
    blur_pixels: Annotated[float, _STRENGTH] = 1.0
    """Largest standard deviation of Gaussian blur."""
    low_resolution: Annotated[float, _STRENGTH] = 0.0
    """Largest relative coarsening of an eighth of the slices: 1.0 makes pixels up to twice as large, as another
    scanner might. Off by default, because it costs Dice where training and new volumes are alike."""
    bias_field: Annotated[float, _STRENGTH] = 0.15
    """Standard deviation of a smooth change of brightness, after normalisation."""
    contrast: Annotated[float, _STRENGTH] = 0.25
    """Largest relative change of contrast."""
    brightness: Annotated[float, _STRENGTH] = 0.2
    """Largest shift of brightness, after normalisation."""
    gamma: Annotated[float, _LOGARITHM] = 0.3
    """Largest change of log-gamma."""


@dataclass(frozen=True)
class TrainingSettings(_Checked, table="training"):
    """How the network is trained."""

    batch_size: Annotated[int, _BATCH] = 32
    """Slices per optimiser step, at most. The plan takes fewer, down to 8, where windows are large."""
    micro_batch: Annotated[int | tuple[int, ...], _FROM_ZERO_EACH] = 0
    """Slices that go through the network at once; 0 takes the whole batch, or less from where memory runs out.
    `model.json` then names the number, so that it can be given here to repeat the run; a list where it ran out
    several times."""
    micro_batch_from: Annotated[int | tuple[int, ...], _FROM_ZERO_EACH] = 0
    """The step, from 0, from which `micro_batch` holds; a list for a list."""
    learning_rate: Annotated[float | None, _POSITIVE] = None
    """The largest learning rate of AdamW. It rises in the warm-up, then falls as a cosine to zero. `None` takes 4e-3,
    and less for wide networks without normalisation, which do not tolerate more."""
    layer_decay: Annotated[float, _UP_TO_ONE] = 1.0
    """Factor on the learning rate from each encoder level to the one before it. Below 1, the first layers, the most
    general ones of pretrained weights, change least."""
    freeze_encoder: bool = False
    """Train the decoder alone. The encoder keeps its weights and its normalisation statistics."""
    freeze_statistics: bool = False
    """Use the batch normalisation statistics of the initial weights, instead of each batch's."""
    warmup_steps: Annotated[int, _FROM_ZERO] = 50
    """Steps in which the learning rate rises."""
    weight_decay: Annotated[float, _STRENGTH] = 0.02
    """AdamW's weight decay, on convolution weights only."""
    gradient_clip: Annotated[float, _POSITIVE] = 5.0
    """Largest norm of the gradient."""
    ema_decay: Annotated[float, _SHARE] = 0.995
    """Decay per step of the averaged weights, which are validated and kept; 0 keeps the last weights instead."""
    foreground_share: Annotated[float, _SHARE] = 0.5
    """Share of the slices drawn from those that contain foreground; the others are drawn from all slices."""
    loss: LossName = "ce_dice"
    """The loss: cross-entropy (binary for a single logit) and Dice, either alone, focal, Tversky, the mean squared
    error of probabilities, or hinge (a linear support vector machine on the score layer)."""
    dice_weight: Annotated[float, _FROM_ZERO] = 1.0
    """Weight of the Dice loss beside the cross-entropy."""
    dice_over: Literal["batch", "slice"] = "batch"
    """Compute one Dice over a whole batch, or one for each slice."""
    class_weights: Annotated[tuple[float, ...] | None, _ALL_FROM_ZERO] = None
    """Weights of the background and of each label in the loss; `None` weighs all alike."""
    label_smoothing: Annotated[float, _SHARE] = 0.0
    """Share of each target that is spread over all classes."""
    deep_supervision: bool = False
    """Predict from every fused map in training, with half the weight for each coarser one."""
    presence_weight: Annotated[float, _FROM_ZERO] = 0.0
    """Weight of a second task: which labels does this slice contain?"""
    distance_weight: Annotated[float, _FROM_ZERO] = 0.0
    """Weight of a second task: how far is each pixel from each label's border?"""
    validation_share: Annotated[float, _SHARE] = 0.1
    """Share of the cases kept for validation, in whole groups: at least one group, and at most about 24 cases."""
    epoch_steps: Annotated[int, _FROM_ONE] = 100
    """Number of optimiser steps in one epoch of `log.csv` and `--epochs`."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the network: `auto` takes bfloat16 where the hardware is fast at it."""
    checkpoint_seconds: Annotated[float, _FROM_ZERO] = 60.0
    """Seconds between two checkpoints for `--resume`, more where saving takes long; 0 saves after every step. The
    result of a training does not depend on it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes, steps = (_listed(value) for value in (self.micro_batch, self.micro_batch_from))
        if len(sizes) != len(steps):
            problem = f"{len(steps)} steps for {len(sizes)} sizes of training.micro_batch; give one for each"
            raise SettingsError.of("training.micro_batch_from", problem)

    @property
    def micro_batches(self) -> tuple[tuple[int, int], ...]:
        """Pairs of a step and the number of slices that go through the network at once from there on."""
        pairs = zip(_listed(self.micro_batch_from), _listed(self.micro_batch), strict=True)
        return tuple((step, size) for step, size in pairs if size)


@dataclass(frozen=True)
class PredictionSettings(_Checked, table="prediction"):
    """How the predictions for slices become a mask."""

    batch_size: Annotated[int, _BATCH] = 32
    """Slices (or tiles) per forward pass."""
    tile_overlap: Annotated[float, _OVERLAP] = 0.5
    """Share of a tile that its neighbour covers too, where a slice is larger than the window."""
    threshold: Annotated[float | Literal["auto"], _THRESHOLD] = "auto"
    """Probability from which a voxel is foreground, with one label; with several labels the most probable one is
    taken. Where labels overlap, each is predicted above the threshold, as far as the combination of labels is
    allowed. `auto` takes 0.5, or a value from 0.3 to 0.7 that is clearly better on cases not trained on."""
    review_share: Annotated[float, _SHARE] = 0.1
    """The share of cases like those of the validation that is flagged for review for the expected Dice of one of
    their labels: with 0.1 one in ten. The mean over the labels has a limit of the same share; both together
    ask for up to 16 in a hundred. Of cases unlike them, more are."""
    review_floor: Annotated[float, _SHARE] = 0.5
    """A mask whose expected Dice is below this is always flagged for review."""
    largest_part: Literal["auto", "always", "never"] = "auto"
    """Keep only the largest connected component of each label, and the most certain one where that is another. `auto`
    does so for labels that have one component in the training references, where it does not lower the validation
    Dice; and of all labels together, where these are one component (organs that touch): an island goes, and a label
    may still be in pieces. Where references are strokes, masks tell: a label is cut if nearly all strokes that they
    find lie in one component."""
    tta: bool = False
    """Average over the mirror images that were used in training."""


@dataclass(frozen=True)
class MachineSettings(_Checked, table="machine"):
    """How a command uses the machine. No result depends on it, so `model.json` does not store it."""

    allocator: Allocator = "keep"
    """`keep` keeps freed memory for the arrays that come next, which saves a third of the CPU time on large slices
    (Linux with glibc, where the address space is not limited); `system` leaves the C library as it is."""


@dataclass(frozen=True)
class Settings:
    """All settings of a training, as they are stored in a TOML file and, but for `machine`, in `model.json`."""

    slices: SliceSettings = field(default_factory=SliceSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    prediction: PredictionSettings = field(default_factory=PredictionSettings)
    machine: MachineSettings = field(default_factory=MachineSettings)
