"""What all trials of a search have in common, and what is varied."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from medfcn.config import override, read_settings, read_tables, to_tables
from medfcn.labels import LabelMap
from medfcn.networks.design import planned_design
from medfcn.networks.fcn import build_network
from medfcn.settings import Settings
from medfcn.slices.plan import Plan
from medfcn.slices.views import parse_views
from medfcn.training.optimiser import USUAL_RATE, largest_rate
from medfcn.training.prepare import as_planned
from medfcn.training.start import Start
from medfcn.tuning.space import Searched, Value, centre_space, defaults_of, with_values


@dataclass(frozen=True)
class Task:
    """What is varied.

    Attributes:
        base: The settings that all trials have in common.
        fixed: Names of those that the user has set.
        space: What is searched.
        defaults: The values of the first trial.
    """

    base: Settings
    fixed: frozenset[str]
    space: tuple[Searched, ...]
    defaults: Mapping[str, Value]

    def settings(self, values: Mapping[str, Value]) -> Settings:
        """Those of a trial; with the default values they are the base, untouched."""
        changed = {name: value for name, value in values.items() if value != self.defaults[name]}
        return with_values(self.base, changed, fixed=self.fixed)


def task_of(
    base: Settings, fixed: frozenset[str], space: Sequence[Searched], *, plan: Plan, labels: LabelMap
) -> Task:
    """The task with its defaults, and with learning rates around that of its network.

    Args:
        base: The settings that all trials have in common.
        fixed: Names of those that the user has set.
        space: What is searched.
        plan: What follows from the cases and the base.
        labels: What is segmented.

    Raises:
        SettingsError: A default is not in its domain.
    """
    settings = as_planned(Start().settle(base, preset=None), plan)
    with torch.device("meta"):
        network = build_network(planned_design(settings.network, plan, labels))
    rate = largest_rate(network, settings.network, settings.training)
    centred = centre_space(space, rate=rate, usual=USUAL_RATE)
    settings = override(settings, "slices", context=plan.context)
    return Task(base, fixed, centred, defaults_of(centred, settings, rate=rate))


def base_of(
    settings: Settings | Path | str | None,
    *,
    preset: str | None,
    context: int | None,
    views: str | Sequence[str] | None,
) -> tuple[Settings, frozenset[str]]:
    """What all trials have in common, and the names of the settings that the user has set.

    Args:
        settings: All settings, of which those that differ from the defaults are taken for set; or a TOML file, of
            which those that stand there are.
        preset: Overrides `network.preset`.
        context: Overrides `slices.context`.
        views: Overrides `slices.views`.

    Raises:
        MissingFileError: The file is not there.
        SettingsError: A setting is unknown or cannot be.
    """
    if isinstance(settings, Settings):
        base, usual = settings, to_tables(Settings())
        given = {
            f"{table}.{key}"
            for table, values in to_tables(settings).items()
            for key, value in values.items()
            if value != usual[table].get(key)
        }
    else:
        base = read_settings(settings)
        tables = {} if settings is None else read_tables(settings)
        given = {f"{table}.{key}" for table, values in tables.items() for key in values}
    base = override(base, "slices", context=context, views=None if views is None else parse_views(views))
    base = override(base, "network", preset=preset)
    if context is not None:
        given.add("slices.context")
    return base, frozenset(given)
