"""`model.json`: everything that is needed to use a network's weights, and where they come from."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medfcn.config import settings_from, to_tables
from medfcn.errors import MedfcnError, ModelError
from medfcn.inference.held_out import Unseen
from medfcn.labels import LabelMap
from medfcn.networks.design import head_of
from medfcn.settings import Settings
from medfcn.slices.plan import Plan

INTENDED_USE = "Research use only; not a medical device."
DEFAULT_THRESHOLD = 0.5
"""Probability from which a voxel is foreground, unless set or chosen."""
_FORMAT = 2
_CONVERTED = ("labels", "channels", "plan", "settings", "one_part", "view_weights", "unseen")
_OPTIONAL = frozenset({"threshold", "unseen"})
"""Keys that cards of this format did not always have."""
_LARGEST_CARD = 16 * 2**20


@dataclass(frozen=True)
class Card:
    """What stands in `model.json`.

    Attributes:
        labels: What is segmented, and the values written for it.
        channels: Names of the image channels, in order.
        plan: How volumes become slices.
        settings: All settings of the training.
        view_weights: Of each view's probabilities in their mean, in the order of `plan.views`; `()` weighs all alike.
        one_part: Positions (from 1) of the labels of which only the largest connected part is kept; none where labels
            overlap.
        threshold: Probability from which a voxel is foreground, where unseen cases chose another than the default.
        unseen: What the network reached on cases that it had not seen.
        weights_sha256: Of `model.safetensors`.
        versions: Of medfcn and what it stands on, when it was trained.
        training: What was trained on and for how long: counts, hashes, seconds.
        validation: Summary of the scores on the validation cases.
        intended_use: Research only.
        format: Of the card itself.
    """

    labels: LabelMap
    channels: tuple[str, ...]
    plan: Plan
    settings: Settings
    one_part: tuple[int, ...]
    weights_sha256: str
    versions: Mapping[str, str]
    view_weights: tuple[float, ...] = ()
    threshold: float | None = None
    unseen: Unseen | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    validation: Mapping[str, Any] = field(default_factory=dict)
    intended_use: str = INTENDED_USE
    format: int = _FORMAT

    @property
    def foreground_from(self) -> float:
        """The threshold of probabilities: as set, else as chosen, else the default."""
        wanted = self.settings.prediction.threshold
        return wanted if wanted != "auto" else self.threshold or DEFAULT_THRESHOLD

    @property
    def decision_sha256(self) -> str:
        """A hash of everything besides the weights that decides a mask, or what is expected of it."""
        value = self.to_json()
        what = [value[name] for name in ("labels", "channels", "one_part", "view_weights", "threshold", "unseen")]
        plan = {name: item for name, item in value["plan"].items() if name != "reasons"}
        settings = [value["settings"][name] for name in ("network", "prediction")]
        return hashlib.sha256(json.dumps([what, plan, settings], sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values, which `from_json` turns back."""
        plain = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return plain | {
            "labels": self.labels.to_json(),
            "plan": self.plan.to_json(),
            "settings": to_tables(self.settings),
            "unseen": None if self.unseen is None else self.unseen.to_json(),
        }

    @classmethod
    def from_json(cls, value: Any, *, source: str) -> "Card":
        """The inverse of `to_json`.

        Raises:
            ModelError: A key is missing or unknown, or a value does not fit.
        """
        known = {item.name for item in dataclasses.fields(cls)}
        if not isinstance(value, dict):
            raise ModelError(f"{source}: holds no JSON object; copy the run folder again")
        if type(value.get("format")) is not int or value["format"] != _FORMAT:
            found = repr(value.get("format"))
            raise ModelError(f"{source}: format {found} is not {_FORMAT}; use the medfcn version that wrote it")
        odd_keys = (set(value) ^ known) - (_OPTIONAL - set(value))
        if odd_keys:
            odd = ", ".join(sorted(odd_keys))
            raise ModelError(f"{source}: missing or unknown keys {odd}; copy the run folder again")
        value = dict.fromkeys(_OPTIONAL) | value
        try:
            labels, unseen = LabelMap.from_json(value["labels"]), value["unseen"]
            card = cls(
                labels=labels,
                channels=tuple(value["channels"]),
                plan=Plan.from_json(value["plan"]),
                settings=settings_from(_with_slope(value["settings"]), source=source),
                one_part=tuple(value["one_part"]),
                view_weights=tuple(value["view_weights"]),
                unseen=None if unseen is None else Unseen.from_json(unseen, labels=len(labels.entries)),
                **{name: value[name] for name in known - set(_CONVERTED)},
            )
            _require_types(card, value)
            if bool(card.plan.widths) == (card.settings.network.monai is not None):
                raise ValueError("plan.widths are those of another network")
            head_of(card.settings.network, len(card.labels.entries), overlapping=card.labels.overlapping)
        except MedfcnError as error:
            raise ModelError(f"{source}: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            what = repr(error)
            raise ModelError(f"{source}: a value does not fit ({what}); copy the run folder again") from error
        if len(card.channels) != len(card.plan.intensities):
            raise ModelError(f"{source}: channels and plan.intensities differ in number; copy the run folder again")
        return card


def _with_slope(tables: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings as they stand in a card; those from before `network.negative_slope` are of networks with ReLU."""
    network = tables.get("network")
    return {**tables, "network": {"negative_slope": 0.0} | network} if isinstance(network, dict) else tables


def _require_types(card: Card, value: Mapping[str, Any]) -> None:
    """TypeError for the fields of a card that no other reader has looked at."""
    positions = range(1, len(card.labels.entries) + 1)
    sound = {
        "channels": isinstance(value["channels"], list) and all(isinstance(name, str) for name in card.channels),
        "one_part": all(type(position) is int and position in positions for position in card.one_part)
        and not (card.one_part and card.labels.overlapping),
        "view_weights": len(card.view_weights) in (0, len(card.plan.views))
        and all(type(weight) in (int, float) and 0 <= weight <= 1 for weight in card.view_weights)
        and (not card.view_weights or sum(card.view_weights) > 0),
        "threshold": card.threshold is None or (type(card.threshold) is float and 0 < card.threshold < 1),
        "weights_sha256": isinstance(card.weights_sha256, str),
        "versions": isinstance(card.versions, Mapping),
        "training": isinstance(card.training, Mapping),
        "validation": isinstance(card.validation, Mapping),
        "intended_use": isinstance(card.intended_use, str),
    }
    for name, holds in sound.items():
        if not holds:
            raise TypeError(f"{name} cannot be {str(value[name])[:100]}")


def read_card(path: Path) -> Card:
    """The card in a file.

    Raises:
        ModelError: It is not one, or comes from another version.
    """
    if path.stat().st_size > _LARGEST_CARD:
        raise ModelError(f"{path.name}: larger than {_LARGEST_CARD // 2**20} MB, which no card is; copy it again")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path.name}: not JSON ({error}); copy the run folder again") from error
    return Card.from_json(value, source=path.name)
