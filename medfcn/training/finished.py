"""Whether a finished run is the training that is asked for, as far as its card and `cases.csv` say."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medfcn.config import to_tables
from medfcn.datasets import Dataset
from medfcn.files import csv_field
from medfcn.inference.card import Card, read_card
from medfcn.labels import LabelMap
from medfcn.runs.folder import RunFolder
from medfcn.settings import Settings
from medfcn.training.identity import require_same
from medfcn.training.prepare import as_planned
from medfcn.training.record import LEFT_OUT, ON_REQUEST
from medfcn.training.schedule import Length
from medfcn.training.start import Start

if TYPE_CHECKING:
    from medfcn.monai.case_transforms import Transforms


@dataclass(frozen=True)
class Asked:
    """A training as it is asked for, before a volume is read.

    Attributes:
        dataset: The cases.
        labels: What to segment; None takes the names of the data set, else the values in its masks.
        settings: All settings.
        seed: Of every random number.
        start: What the network's first weights are.
        length: How long; None takes any.
        transforms: The user's own; None takes any.
    """

    dataset: Dataset
    labels: LabelMap | None
    settings: Settings
    seed: int
    start: Start
    length: Length | None
    transforms: "Transforms | None" = None

    def require_done(self, folder: Path, *, fold: str = "") -> None:
        """Refuse to call this training done where another one ended. No volume is read, so files may have changed.

        Args:
            folder: A finished run.
            fold: Which one is asked for, such as `2 of 5`; empty where the data set is not folded.

        Raises:
            TrainingError: Labels, settings, length, seed, first weights, cases or fold are others.
        """
        card = read_card(RunFolder(folder).card)
        labels = (self.labels or self.dataset.labels or _labels_of_values(card)).ignoring(self.dataset.ignored)
        transforms = card.transforms
        if self.transforms is not None:
            from medfcn.monai.case_transforms import CaseTransforms

            transforms = tuple(CaseTransforms(self.transforms).to_json())
        here = facts(
            replace(card, settings=settings_of(self.settings, card), labels=labels, transforms=transforms),
            fold=fold,
            seed=self.seed,
            length=self.length,
            start=self.start.record,
        )
        cases = {csv_field(case.id): csv_field(case.group) for case in self.dataset.all_cases}
        require_same({**facts_of(card), "cases": _cases_of(folder)}, {**here, "cases": cases}, folder)


def facts(
    card: Card, *, fold: str, seed: int | None, length: Length | None, start: Mapping[str, Any]
) -> dict[str, Any]:
    """What tells a training from others, without its volumes; of an open length nothing is said.

    Args:
        card: For its settings and labels.
        fold: As in `Split`.
        seed: Of every random number.
        length: How long.
        start: What `Start.record` has, among other things.
    """
    tables = to_tables(card.settings)
    del tables["training"]["checkpoint_seconds"]
    entries = ",".join(f"{entry.name}={'+'.join(map(str, entry.values))}" for entry in card.labels.entries)
    asked = {} if length is None else {"length": {"steps": length.steps, "budget_seconds": length.budget_seconds}}
    return {
        "fold": fold,
        "labels": card.labels.to_json() | {"entries": entries},
        "settings": tables,
        "transforms": [transform["sha256"] for transform in card.transforms],
        "seed": seed,
        **asked,
        "start": {name: start.get(name) for name in ("init", "encoder_weights")},
    }


def facts_of(card: Card) -> dict[str, Any]:
    """The facts of a finished run."""
    training = card.training
    return facts(
        card, fold=training.get("fold", ""), seed=training.get("seed"), length=length_of(card), start=training
    )


def length_of(card: Card) -> Length:
    """What a finished run was asked for."""
    budget = card.training.get("budget_seconds")
    return Length(budget_seconds=budget) if budget is not None else Length(steps=card.training.get("steps"))


def settings_of(settings: Settings, card: Card) -> Settings:
    """Settings as a training with the plan of a finished run would write them down."""
    return as_planned(settings, card.plan) if settings.network.stem_stride is None else settings


def _labels_of_values(card: Card) -> LabelMap:
    """What the labels of a run are called that nobody named, in masks of its values."""
    return LabelMap.from_names({value: f"label_{value}" for value in card.labels.named_values})


def _cases_of(folder: Path) -> dict[str, str]:
    """The groups by case that a finished run wrote down, without the cases that were left out on request."""
    with RunFolder(folder).cases.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (row.get("use"), row.get("problem")) != (LEFT_OUT, ON_REQUEST)]
    return {row["case"]: row["group"] for row in rows}
