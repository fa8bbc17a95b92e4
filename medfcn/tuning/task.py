"""The task of a search: the settings that all trials share, and those that vary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from medfcn.config import override, read_tables, to_tables
from medfcn.labels import LabelMap
from medfcn.networks.design import planned_design
from medfcn.networks.fcn import build_network
from medfcn.settings import Settings
from medfcn.slices.plan import Plan
from medfcn.training.optimiser import USUAL_RATE, largest_rate
from medfcn.training.prepare import as_planned
from medfcn.training.request import DesignRequest
from medfcn.training.start import Start
from medfcn.tuning.space import Searched, Value, centre_space, defaults_of, with_values


@dataclass(frozen=True)
class Task:
    """The settings that vary, and those that do not.

    Attributes:
        base: The settings that all trials share.
        fixed: Names of the settings that the user has set.
        space: The searched settings.
        defaults: Their values in the first trial.
    """

    base: Settings
    fixed: frozenset[str]
    space: Sequence[Searched]
    defaults: Mapping[str, Value]

    def settings(self, values: Mapping[str, Value]) -> Settings:
        """The settings of a trial; with the default values they are the base, unchanged."""
        changed = {name: value for name, value in values.items() if value != self.defaults[name]}
        return with_values(self.base, changed, fixed=self.fixed)


def task_of(
    base: Settings, fixed: frozenset[str], space: Sequence[Searched], *, plan: Plan, labels: LabelMap
) -> Task:
    """The task with its defaults, and with learning rates around that of its network.

    Args:
        base: The settings that all trials share.
        fixed: Names of the settings that the user has set.
        space: The searched settings.
        plan: The plan for these cases and the base.
        labels: The labels to segment.

    Raises:
        SettingsError: A default is not in its domain.
    """
    settings = as_planned(Start().settle(base, preset=None), plan)
    with torch.device("meta"):
        network = build_network(planned_design(settings.network, plan, labels))
    rate = largest_rate(network, settings.network, settings.training)
    space = centre_space(space, rate=rate, usual=USUAL_RATE)
    settings = override(settings, "slices", context=plan.context)
    return Task(base, fixed, space, defaults_of(space, settings, rate=rate))


def set_by_user(request: DesignRequest) -> frozenset[str]:
    """Names of the settings that the user has set, which are not searched.

    With a settings object, these are the settings that differ from the defaults; with a TOML file, those in it. A
    context that is given by itself is one too.

    Raises:
        MissingFileError: The file is not there.
        SettingsError: It is not TOML.
    """
    if isinstance(request.settings, Settings):
        tables = changed_tables(request.settings)
    else:
        tables = {} if request.settings is None else read_tables(request.settings)
    names = {f"{table}.{key}" for table, values in tables.items() for key in values}
    return frozenset(names | ({"slices.context"} if request.context is not None else set()))


def changed_tables(settings: Settings) -> dict[str, dict[str, object]]:
    """The settings that differ from the defaults, by table."""
    usual = to_tables(Settings())
    return {
        table: {key: value for key, value in values.items() if value != usual[table].get(key)}
        for table, values in to_tables(settings).items()
    }
