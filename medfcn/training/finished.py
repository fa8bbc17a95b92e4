"""The question if a finished run is the requested training, as far as its card and `cases.csv` can answer it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medfcn.datasets import Dataset
from medfcn.files import csv_field
from medfcn.inference.card import Card, read_card
from medfcn.labels import LabelMap
from medfcn.labels.partial_labels import SEPARATOR
from medfcn.labels.structures import with_values
from medfcn.labels.values import span_of, values_text
from medfcn.library_memory import loading_monai
from medfcn.runs.folder import RunFolder
from medfcn.settings import Settings
from medfcn.training.identity import deciding_settings, require_same
from medfcn.training.prepare import as_moved, as_planned
from medfcn.training.record import LABELLED, LEFT_OUT, ON_REQUEST, rows_of
from medfcn.training.schedule import Length, Schedule
from medfcn.training.start import Start

if TYPE_CHECKING:
    from medfcn.monai.case_transforms import Transforms


@dataclass(frozen=True)
class Asked:
    """A requested training, before a volume is read.

    Attributes:
        dataset: The cases.
        labels: The labels to segment; None takes the names of the data set, else the values in its masks.
        settings: All settings.
        seed: Random seed.
        start: The first weights of the network.
        length: The length; None takes any.
        transforms: The user's own transforms; None takes any.
    """

    dataset: Dataset
    labels: LabelMap | None
    settings: Settings
    seed: int
    start: Start
    length: Length | None
    transforms: "Transforms | None" = None

    def require_done(self, folder: Path, *, fold: str = "") -> None:
        """Refuse to call this training done if another one ended there. No volume is read, so files may have changed.

        Args:
            folder: A finished run.
            fold: The requested fold, such as `2 of 5`; empty for a training without folds.

        Raises:
            TrainingError: Labels, settings, length, seed, first weights, cases or fold differ.
        """
        card = read_card(RunFolder(folder).card)
        # Labels that nobody named, in masks of the run's values:
        values = [span_of(value).first for value in card.labels.named_values.values]
        unnamed = LabelMap.from_names({value: f"label_{value}" for value in values})
        labels = (self.labels or self.dataset.labels or unnamed).ignoring(self.dataset.ignored)
        if labels.structures:
            labels = with_values(labels, values)
        transforms = card.transforms
        if self.transforms is not None:
            with loading_monai():
                from medfcn.monai.case_transforms import CaseTransforms

            transforms = tuple(CaseTransforms(self.transforms).to_json())
        settings = settings_of(self.settings, card)
        requested = replace(card, settings=settings, labels=labels, transforms=transforms)
        here = facts(requested, fold=fold, seed=self.seed, length=as_made(self.length, card), start=self.start.record)
        cases = {csv_field(case.id): csv_field(case.group) for case in self.dataset.all_cases}
        labelled = {csv_field(case.id): csv_field(SEPARATOR.join(case.labelled)) for case in self.dataset.all_cases}
        done = {**facts_of(card), "cases": recorded_of(folder, "group"), LABELLED: recorded_of(folder, LABELLED)}
        require_same(done, {**here, "cases": cases, LABELLED: labelled}, folder)


def facts(
    card: Card, *, fold: str, seed: int | None, length: Length | None, start: Mapping[str, Any]
) -> dict[str, Any]:
    """The facts that tell a training from others, without its volumes; a length is left out if it is open.

    Args:
        card: For its settings and labels.
        fold: As in `Split`.
        seed: Random seed.
        length: The requested length.
        start: As `Start.record`; other entries are ignored.
    """
    entries = ",".join(
        f"{entry.name}={'+'.join((*entry.structures, values_text(entry.values)))}" for entry in card.labels.entries
    )
    return {
        "fold": fold,
        "labels": card.labels.to_json() | {"entries": entries},
        "settings": deciding_settings(card.settings),
        "transforms": [transform["sha256"] for transform in card.transforms],
        "seed": seed,
        **({} if length is None else {"length": length.to_json()}),
        "start": {name: start.get(name) for name in ("init", "encoder_weights")},
    }


def facts_of(card: Card) -> dict[str, Any]:
    """The facts of a finished run."""
    training = card.training
    fold, seed = training.get("fold", ""), training.get("seed")
    return facts(card, fold=fold, seed=seed, length=length_of(card), start=training)


def length_of(card: Card) -> Length:
    """The requested length of a finished run."""
    budget, schedule = card.training.get("budget_seconds"), schedule_of(card)
    if budget is not None:
        return Length(budget_seconds=budget)
    return Length() if schedule is None else Length.of(schedule)


def as_made(length: Length | None, card: Card) -> Length | None:
    """A requested length; that of a finished run, if its steps are requested, by which a budget is repeated."""
    if length is None or length.schedule is None or length.schedule != schedule_of(card):
        return length
    return length_of(card)


def schedule_of(card: Card) -> Schedule | None:
    """The steps that a finished run made, and how their number changed on the way; None if the card lacks them."""
    steps = card.training.get("schedule") or card.training.get("steps")
    return None if steps is None else Schedule.parse(steps)


def settings_of(settings: Settings, card: Card) -> Settings:
    """Settings as a training with the plan of a finished run records them."""
    if settings.network.stem_stride is None:
        return as_planned(settings, card.plan)
    return as_moved(settings, card.plan)


def recorded_of(folder: Path, column: str) -> dict[str, str]:
    """A column of `cases.csv` by case, empty where there is none, without the cases left out on request."""
    rows = [row for row in rows_of(folder) if (row.get("use"), row.get("problem")) != (LEFT_OUT, ON_REQUEST)]
    return {row["case"]: row.get(column, "") for row in rows}
