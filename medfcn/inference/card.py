"""`model.json`: everything that is needed to use a network's weights, and their origin.

A new key needs a line in `Card` and one in `_StoredCard`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from medfcn.byte_range import ByteRange
from medfcn.config import settings_from, to_tables
from medfcn.datasets.channels import ChannelUse, DroppedChannel
from medfcn.decoding import read_json
from medfcn.errors import MedfcnError, ModelError
from medfcn.inference.card_facts import require_summary, require_training
from medfcn.inference.foreign import Fingerprint
from medfcn.inference.held_out import Unseen
from medfcn.labels import LabelMap
from medfcn.networks.design import head_of
from medfcn.runs.cases import NOTHING_OF_NEW
from medfcn.settings import Settings
from medfcn.slices.plan import Plan
from medfcn.slices.shape import MaskShape
from medfcn.text import counted

INTENDED_USE = "Research use only; not a medical device."
BFLOAT16_TEST = "bfloat16"
"""The key in `training` of what the training found on masks in bfloat16."""
DEFAULT_THRESHOLD = 0.5
"""The probability from which a voxel is foreground, unless set or chosen."""
Components = Literal["largest", "largest and most certain"]
_FORMAT = 2
_LEFT_OUT = ("transforms", "components", "shapes", "fingerprint", "dropped", "together")
"""Keys that a card lacks where they have their default, as cards of before did; their hashes stay."""
_LARGEST_CARD = 16 * 2**20
_REMEDY = "copy the model again"


@dataclass(frozen=True)
class Card:
    """The contents of `model.json`.

    Attributes:
        labels: The labels that the model segments.
        channels: Names of the image channels that the network uses, in order.
        dropped: The channels of a case that it does not use, because each training case has one value there; a card
            of a run that uses all lacks the key.
        plan: How volumes become slices.
        settings: All settings of the training.
        view_weights: The weight of each view's probabilities in their mean, in the order of `plan.views`; `()` weighs
            all alike.
        one_part: Indices (from 1) of the labels of which only the largest component is kept; none where labels
            overlap.
        together: True if only the largest component of all labels together is kept; a card without the key says no.
        components: The rule by which a component is kept: `largest`, or the largest and the most certain one. Cards
            without the key are of models that were trained with the first.
        shapes: For each label, the limits of the shape of a mask beyond which it is to be reviewed; `()` if unknown.
        threshold: The probability from which a voxel is foreground, if unseen cases chose another than the default.
        unseen: The results on cases that the network had not seen.
        transforms: The user's own MONAI transforms between reading and slicing, each with `name`, `arguments` (None
            if only a script can pass it) and `sha256`; a card without any lacks the key.
        weights_sha256: The hash of `model.safetensors`.
        versions: The versions of medfcn and its libraries in the training.
        training: Facts of the training: cases, hashes, steps, seconds.
        validation: Summary of the scores on the validation cases.
        fingerprint: The looks of the training cases; a card without it knows nothing of them.
        intended_use: Research only.
        format: The version of this list of keys.
    """

    labels: LabelMap
    channels: tuple[str, ...]
    plan: Plan
    settings: Settings
    one_part: tuple[int, ...]
    weights_sha256: str
    versions: Mapping[str, str]
    view_weights: tuple[float, ...] = ()
    components: Components = "largest"
    together: bool = False
    shapes: tuple[MaskShape, ...] = ()
    threshold: float | None = None
    unseen: Unseen | None = None
    transforms: tuple[Mapping[str, Any], ...] = ()
    dropped: tuple[DroppedChannel, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    validation: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: Fingerprint | None = None
    intended_use: str = INTENDED_USE
    format: int = _FORMAT

    @property
    def chosen_on_validation(self) -> tuple[str, ...]:
        """The choices of the validation cases, in words.

        The weights, if there were several validations; how the views count; the threshold; and the components that
        are kept, which are only cut where no Dice of these cases falls. Nothing is chosen on the cases of a fold.
        Cards that do not say how many validations there were had several.
        """
        if self.training.get("fold"):
            return ()
        is_cut = bool(self.one_part or self.together) and self.settings.prediction.largest_part == "auto"
        chosen = {
            "weights": self.training.get("validations") not in (0, 1),
            "weights of the views": bool(self.view_weights),
            "threshold": self.threshold is not None,
            "components to keep": is_cut,
        }
        return tuple(name for name, is_chosen in chosen.items() if is_chosen)

    @property
    def steps_in_all(self) -> int | None:
        """The steps behind the weights: its own, and those of the run that it started from; None if not recorded."""
        own, before = self.training.get("steps"), self.training.get("init_steps")
        if not isinstance(own, int) or ("init" in self.training and not isinstance(before, int)):
            return None
        return own + int(before or 0)

    @property
    def start_text(self) -> str:
        """The start of the training in words, such as `the weights of another run`; empty for random weights."""
        if "init" in self.training:
            steps = self.training.get("init_steps")
            trained = f", trained for {counted(steps, 'step')}" if isinstance(steps, int) else ""
            seen = self.training.get("validation_seen_before", 0)
            also = f"trained also on {seen} of the validation volumes, whose {NOTHING_OF_NEW}" if seen else ""
            more = f"{' and ' if trained else ', '}{also}" if also else ""
            return f"the weights of another run ({_hash_text(self.training['init'])}){trained}{more}"
        if "encoder_weights" in self.training:
            return f"the weights of an encoder ({_hash_text(self.training['encoder_weights'])})"
        return ""

    @property
    def partly_texts(self) -> tuple[str, ...]:
        """Sentences on training cases of which less than half is labelled, or only some labels were drawn."""
        found = [self.training.get(name) for name in ("partly_labelled", "partly_drawn")]
        ends = ("", "; elsewhere in them is background or another label")
        uses = ((each, end) for each, end in zip(found, ends, strict=True) if isinstance(each, Mapping))
        texts = ((each["training"], end) for each, end in uses if "training" in each)
        return tuple(f"In the training cases {text}{end}." for text, end in texts)

    @property
    def foreground_from(self) -> float:
        """The probability from which a voxel is foreground: as set, else as chosen, else the default."""
        wanted = self.settings.prediction.threshold
        return wanted if wanted != "auto" else self.threshold or DEFAULT_THRESHOLD

    @property
    def is_bfloat16_alike(self) -> bool:
        """True if the training found masks in bfloat16 as good as in float32, and none that loses a label."""
        found = self.training.get(BFLOAT16_TEST)
        return isinstance(found, Mapping) and found.get("passed") is True

    @property
    def use(self) -> ChannelUse:
        """Which of a case's channels the network uses."""
        return ChannelUse(self.channels, self.dropped)

    @property
    def decision_sha256(self) -> str:
        """A hash of everything besides the weights that decides a mask, or what is expected of it."""
        value = self.to_json()
        what = [value[name] for name in ("labels", "channels", "one_part", "view_weights", "threshold", "unseen")]
        plan = {name: item for name, item in value["plan"].items() if name != "reasons"}
        settings = [value["settings"][name] for name in ("network", "prediction")]
        more = [value[name] for name in _LEFT_OUT if name in value]
        return hashlib.sha256(json.dumps([what, plan, settings, *more], sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values, as `model.json` stores them."""
        plain = {
            item.name: getattr(self, item.name)
            for item in dataclasses.fields(self)
            if item.name not in _LEFT_OUT or getattr(self, item.name) != item.default
        }
        plain |= {
            name: msgspec.to_builtins(plain[name]) for name in ("shapes", "fingerprint", "dropped") if name in plain
        }
        return plain | {
            "labels": self.labels.to_json(),
            "plan": self.plan.to_json(),
            "settings": to_tables(self.settings),
            "unseen": msgspec.to_builtins(self.unseen),
        }


class _Format(msgspec.Struct, frozen=True):
    format: int


class _StoredTransform(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    arguments: dict[str, Any] | None
    sha256: str


class _StoredCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The types in `model.json`; those that are no builtin types have readers of their own."""

    labels: dict[str, Any]
    channels: tuple[str, ...]
    plan: dict[str, Any]
    settings: dict[str, Any]
    one_part: tuple[int, ...]
    view_weights: tuple[Annotated[float, msgspec.Meta(ge=0, le=1)], ...]
    weights_sha256: str
    versions: dict[str, str]
    training: dict[str, Any]
    validation: dict[str, Any]
    intended_use: str
    format: int
    # Cards of this format did not always have the next ones.
    components: Components = "largest"
    together: bool = False
    shapes: tuple[MaskShape, ...] = ()
    threshold: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None
    unseen: Unseen | None = None
    transforms: tuple[_StoredTransform, ...] = ()
    dropped: tuple[DroppedChannel, ...] = ()
    fingerprint: Fingerprint | None = None


def read_card(path: Path | ByteRange) -> Card:
    """The card in a file, or at its place in another.

    Raises:
        ModelError: The file is no card, or comes from another version.
    """
    source = path.name
    found = read_json(path, _Format, error=ModelError, remedy=_REMEDY, largest_bytes=_LARGEST_CARD).format
    if found != _FORMAT:
        raise ModelError(
            f"{source}: format {found} is not {_FORMAT}; use the medfcn version that wrote it",
            code="MODEL_FORMAT",
            field="format",
        )
    stored = read_json(path, _StoredCard, error=ModelError, remedy=_REMEDY)
    require_training(stored.training, source=f"{source}: training", remedy=_REMEDY)
    require_summary(stored.validation, source=f"{source}: validation", remedy=_REMEDY)
    try:
        labels = LabelMap.from_json(stored.labels)
        count = len(labels.entries)
        card = Card(
            **msgspec.structs.asdict(stored)
            | {
                "labels": labels,
                "plan": Plan.from_json(stored.plan),
                "settings": settings_from(_with_slope(stored.settings), source=source),
                "transforms": tuple(msgspec.structs.asdict(transform) for transform in stored.transforms),
            }
        )
        _require_sound(card)
        head_of(card.settings.network, count, overlapping=labels.overlapping)
    except MedfcnError as error:
        raise ModelError(f"{source}: {error}", code=error.code, field=error.field) from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelError(f"{source}: a value does not fit ({error!r}); {_REMEDY}") from error
    return card


def _hash_text(sha256: object) -> str:
    """The beginning of a hash, by which people know the weights."""
    return f"SHA-256 {str(sha256)[:12]}…"


def _with_slope(tables: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings as they are in a card; those from before `network.negative_slope` are of networks with ReLU."""
    network = tables.get("network")
    return {**tables, "network": {"negative_slope": 0.0} | network} if isinstance(network, dict) else tables


def _is_use(card: Card) -> bool:
    """True if the dropped channels of a card are possible."""
    try:
        return card.use.count > 0
    except ValueError:
        return False


def _require_sound(card: Card) -> None:
    """ModelError for a field of a card that does not fit the others."""
    weights, count = card.view_weights, len(card.labels.entries)
    sound = {
        "channels": len(card.channels) == len(card.plan.intensities),
        "one_part": all(1 <= index <= count for index in card.one_part)
        and not (card.one_part and card.labels.overlapping),
        "together": not (card.together and card.labels.overlapping),
        "dropped": _is_use(card),
        "view_weights": not weights or (len(weights) == len(card.plan.views) and sum(weights) > 0),
        "shapes": len(card.shapes) in (0, count),
        "fingerprint": card.fingerprint is None or len(card.fingerprint.channels) == len(card.channels),
        "unseen": card.unseen is None or len(card.unseen.labels) == count,
        "plan.widths": bool(card.plan.widths) != (card.settings.network.monai is not None),
    }
    for name, is_sound in sound.items():
        if not is_sound:
            raise ModelError(f"{name} does not fit the rest of the card; {_REMEDY}", field=name)
