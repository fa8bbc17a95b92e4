"""The settings that a search varies: one table with the range of each, and why it is worth trainings.

All other settings are those of the user, or the defaults. A setting that the user has set is not searched.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medfcn.config import override
from medfcn.errors import SettingsError
from medfcn.settings import AugmentSettings, Settings
from medfcn.text import did_you_mean

Value = float | int | str

_RATE = "training.learning_rate"
_STRENGTH = "augment.strength"
_AMOUNTS = tuple(
    part.name
    for part in dataclasses.fields(AugmentSettings)
    if isinstance(part.default, float) and part.default and part.name != "still_share"
)
"""The settings of `[augment]` that a strength multiplies: all that are not off by default, except the share."""


@dataclass(frozen=True)
class OneOf:
    """A choice of a few values."""

    values: tuple[Value, ...]

    def __contains__(self, value: Value) -> bool:
        return value in self.values


@dataclass(frozen=True)
class Between:
    """A number of a range.

    Attributes:
        low: The smallest number.
        high: The largest number.
        log: Draw on a logarithmic scale.
    """

    low: float
    high: float
    log: bool = False

    def __contains__(self, value: Value) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True)
class Searched:
    """A setting that is searched.

    Attributes:
        name: `table.key` of a settings file; `augment.strength` is a factor on every amount of `[augment]`.
        domain: The values it may have.
        reason: Why it is worth trainings.
        fixed_by: Other settings that decide it: if one of them is set, this one is not searched.
    """

    name: str
    domain: OneOf | Between
    reason: str
    fixed_by: tuple[str, ...] = ()


SPACE = (
    Searched(_RATE, Between(1e-3, 1e-2, log=True), "matters most: few steps need a larger one, many a smaller one"),
    Searched("training.weight_decay", Between(2e-3, 0.2, log=True), "few cases are soon learnt by heart"),
    Searched("training.foreground_share", Between(0.3, 0.9), "slices without the label teach where it is not"),
    Searched("slices.context", OneOf((1, 3, 5)), "neighbours show what a thin slice alone does not"),
    Searched(
        "network.width",
        OneOf((0.5, 1.0, 2.0)),
        "more per step, fewer steps in a time",
        ("network.widths", "network.monai"),
    ),
    Searched(_STRENGTH, Between(0.0, 1.5), "few cases and many steps need more, short trainings less"),
    Searched("augment.mirror", OneOf(("never", "auto")), "doubles the cases where the anatomy is symmetric enough"),
)
"""The settings that matter. The plan chooses planes, spacing and windows. Losses and designs differ by less than the
noise of one training on most data sets, and are better compared one by one (see `benchmarks/README.md`)."""


def choose_space(
    space: Sequence[Searched], fixed: Collection[str], only: Sequence[str] | None
) -> tuple[Searched, ...]:
    """The settings of a space that are searched.

    Args:
        space: All settings that can be searched.
        fixed: Names of the settings that the user has set.
        only: Names of the settings to search, with or without their table; None takes all that are not fixed.

    Raises:
        SettingsError: A name is unknown or fixed, or nothing is left.

    Example:
        >>> [searched.name for searched in choose_space(SPACE, {"slices.context"}, ["width", "augment.mirror"])]
        ['network.width', 'augment.mirror']
    """
    wanted = None if only is None else {_full_name(name, space) for name in only}
    reasons = {searched.name: _fixed_by(searched, fixed) for searched in space}
    for name in sorted(wanted or ()):
        if reasons[name]:
            message = f"{name} is to be searched, and {reasons[name]} is set; leave one of the two out"
            raise SettingsError(message, code="OPTIONS_TOGETHER", field=name)
    chosen = tuple(each for each in space if not reasons[each.name] and (wanted is None or each.name in wanted))
    if not chosen:
        raise SettingsError(
            "every setting that could be searched is set; leave some out of the settings file", field="settings"
        )
    return chosen


def _full_name(name: str, space: Sequence[Searched]) -> str:
    """The name of a searched setting with its table."""
    full = {searched.name.split(".")[1]: searched.name for searched in space}
    known = {**full, **{searched.name: searched.name for searched in space}}
    if name not in known:
        hint = did_you_mean(name, known)
        raise SettingsError(f"setting {name!r} is not searched{hint}", code="SETTING_UNKNOWN", field="only")
    return known[name]


def _fixed_by(searched: Searched, fixed: Collection[str]) -> str:
    """The name of the setting that fixes another one; empty if none does."""
    if searched.name == _STRENGTH and all(f"augment.{name}" in fixed for name in _AMOUNTS):
        return "every amount of [augment]"
    return next((name for name in (searched.name, *searched.fixed_by) if name in fixed), "")


def centre_space(space: Sequence[Searched], *, rate: float, usual: float) -> tuple[Searched, ...]:
    """A space with learning rates around the default of the network, as they are for most networks.

    Args:
        space: With learning rates for `usual`.
        rate: The default of the network; see `optimiser.largest_rate`.
        usual: The default of most networks.
    """

    def centred(searched: Searched) -> Searched:
        domain = searched.domain
        if searched.name != _RATE or rate == usual or not isinstance(domain, Between):
            return searched
        factor = rate / usual
        domain = dataclasses.replace(domain, low=domain.low * factor, high=domain.high * factor)
        return dataclasses.replace(searched, domain=domain)

    return tuple(map(centred, space))


def defaults_of(space: Sequence[Searched], settings: Settings, *, rate: float) -> dict[str, Value]:
    """The values of the first trial by name: those that the settings have without a search.

    Args:
        space: The searched settings.
        settings: The settings of the user and of the plan, with defaults elsewhere.
        rate: Their learning rate.

    Raises:
        SettingsError: One is not in its domain.
    """
    defaults: dict[str, Value] = {}
    for searched in space:
        table, key = searched.name.split(".")
        given: dict[str, Any] = {_RATE: rate, _STRENGTH: 1.0}
        value = given.get(searched.name, getattr(getattr(settings, table), key, None))
        if value is None or value not in searched.domain:
            message = f"setting {searched.name}: the default {value!r} is not in {searched.domain}"
            raise SettingsError(message, field=searched.name)
        defaults[searched.name] = value
    return defaults


def with_values(settings: Settings, values: Mapping[str, Value], *, fixed: Collection[str] = ()) -> Settings:
    """Settings with the values of a trial.

    Args:
        settings: The settings that all trials share.
        values: The values by name.
        fixed: Names of the settings that the user has set, which a strength does not multiply.

    Example:
        >>> with_values(Settings(), {"augment.strength": 0.5}, fixed={"augment.noise"}).augment.shear
        0.05
    """
    for name, value in values.items():
        table, key = name.split(".")
        changed: dict[str, Any] = {key: value}
        if name == _STRENGTH:
            amounts = [amount for amount in _AMOUNTS if f"augment.{amount}" not in fixed]
            changed = {amount: getattr(settings.augment, amount) * float(value) for amount in amounts}
        settings = override(settings, table, **changed)
    return settings
