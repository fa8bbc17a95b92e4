"""What a search varies: the one table of settings that matter, where each may lie, and why.

Everything else stays as the user or the defaults have it. A setting that the user has fixed is not searched.
"""

import dataclasses
import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medfcn.config import override
from medfcn.errors import SettingsError
from medfcn.settings import AugmentSettings, Settings

Value = float | int | str

_RATE = "training.learning_rate"
_STRENGTH = "augment.strength"
_AMOUNTS = tuple(
    part.name
    for part in dataclasses.fields(AugmentSettings)
    if isinstance(part.default, float) and part.default and part.name != "still_share"
)
"""The settings of `[augment]` that a strength is a factor on: those that are not off by default, shares apart."""


@dataclass(frozen=True)
class OneOf:
    """A choice of a few values."""

    values: tuple[Value, ...]

    def holds(self, value: Value) -> bool:
        """Whether a value is one of them."""
        return value in self.values


@dataclass(frozen=True)
class Between:
    """A number of a range.

    Attributes:
        low: The smallest.
        high: The largest.
        log: Draw so that every factor is as likely as every other, not every difference.
    """

    low: float
    high: float
    log: bool = False

    def holds(self, value: Value) -> bool:
        """Whether a value is a number of the range."""
        return isinstance(value, int | float) and self.low <= value <= self.high


Domain = OneOf | Between


@dataclass(frozen=True)
class Searched:
    """A setting that is searched.

    Attributes:
        name: `table.key` of a settings file; `augment.strength` is the factor on every amount of `[augment]`.
        domain: The values it may take.
        reason: Why it is worth trainings.
        fixed_by: Other settings that decide it, so that it is not searched where one of these is set.
    """

    name: str
    domain: Domain
    reason: str
    fixed_by: tuple[str, ...] = ()


SPACE = (
    Searched(
        _RATE,
        Between(1e-3, 1e-2, log=True),
        "a few hundred steps want a larger one, many steps a smaller one; no other setting moves as much",
    ),
    Searched(
        "training.weight_decay",
        Between(2e-3, 0.2, log=True),
        "few cases are soon known by heart, many are not",
    ),
    Searched(
        "training.foreground_share",
        Between(0.3, 0.9),
        "slices without the label teach where it is not; how many of them are needed depends on how rare it is",
    ),
    Searched("slices.context", OneOf((1, 3, 5)), "neighbours say what a slice alone cannot, where slices are thin"),
    Searched(
        "network.width",
        OneOf((0.5, 1.0, 2.0)),
        "a wider network learns more in a step, and makes fewer steps in the same time",
        fixed_by=("network.widths",),
    ),
    Searched(_STRENGTH, Between(0.0, 1.5), "few cases and many steps want more, short trainings less"),
    Searched("augment.mirror", OneOf(("never", "auto")), "doubles the cases where the anatomy is symmetric enough"),
)
"""The settings that matter. Planes, spacing and windows are the plan's; losses and designs differ by less than the
noise of one training on most data sets, and are better compared one by one (see `benchmarks/README.md`)."""


def choose_space(
    space: Sequence[Searched], fixed: Collection[str], only: Sequence[str] | None
) -> tuple[Searched, ...]:
    """The settings of a space that are searched.

    Args:
        space: All that could be.
        fixed: Names of settings that the user has set.
        only: Names to search, with or without their table; None takes all that are not fixed.

    Raises:
        SettingsError: A name is unknown or fixed, or nothing is left.

    Example:
        >>> [searched.name for searched in choose_space(SPACE, {"slices.context"}, ["width", "augment.mirror"])]
        ['network.width', 'augment.mirror']
    """
    wanted = None if only is None else {_full_name(name, space) for name in only}
    by_whom = {searched.name: _fixed_by(searched, fixed) for searched in space}
    for name in sorted(wanted or ()):
        if by_whom[name]:
            raise SettingsError(f"{name} is to be searched, and {by_whom[name]} is set; leave one of the two out")
    chosen = tuple(
        searched for searched in space if not by_whom[searched.name] and (wanted is None or searched.name in wanted)
    )
    if not chosen:
        raise SettingsError("every setting that could be searched is set; leave some out of the settings file")
    return chosen


def _full_name(name: str, space: Sequence[Searched]) -> str:
    known = [searched.name for searched in space]
    found = [full for full in known if name in (full, full.split(".")[1])]
    if found:
        return found[0]
    close = difflib.get_close_matches(name, [*known, *(full.split(".")[1] for full in known)], n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"those that are: {', '.join(known)}"
    raise SettingsError(f"setting {name!r} is not searched; {hint}")


def _fixed_by(searched: Searched, fixed: Collection[str]) -> str:
    """The name of what fixes a setting; empty where nothing does."""
    if searched.name == _STRENGTH and all(f"augment.{name}" in fixed for name in _AMOUNTS):
        return "every amount of [augment]"
    return next((name for name in (searched.name, *searched.fixed_by) if name in fixed), "")


def centre_space(space: Sequence[Searched], *, rate: float, usual: float) -> tuple[Searched, ...]:
    """A space whose learning rates lie around what the network bears by default, as they do for most networks.

    Args:
        space: With learning rates for `usual`.
        rate: The default of the network that is searched for; see `optimiser.largest_rate`.
        usual: The default of most networks.
    """
    factor = rate / usual
    return tuple(
        dataclasses.replace(
            searched,
            domain=Between(searched.domain.low * factor, searched.domain.high * factor, log=searched.domain.log),
        )
        if searched.name == _RATE and isinstance(searched.domain, Between) and factor != 1
        else searched
        for searched in space
    )


def defaults_of(space: Sequence[Searched], settings: Settings, *, rate: float) -> dict[str, Value]:
    """The values of settings that nobody searched, by name: those of the first trial.

    Args:
        space: What is searched.
        settings: What the user has set, or the plan chose; defaults elsewhere.
        rate: The learning rate that they come to.

    Raises:
        SettingsError: One is not in its domain.
    """
    defaults: dict[str, Value] = {}
    for searched in space:
        table, key = searched.name.split(".")
        value: Any = rate if searched.name == _RATE else getattr(getattr(settings, table), key, None)
        if searched.name == _STRENGTH:
            value = 1.0
        if value is None or not searched.domain.holds(value):
            raise SettingsError(f"setting {searched.name}: the default {value!r} is not in {searched.domain}")
        defaults[searched.name] = value
    return defaults


def with_values(settings: Settings, values: Mapping[str, Value], *, fixed: Collection[str] = ()) -> Settings:
    """Settings with the values of a trial in place.

    Args:
        settings: What all trials have in common.
        values: By name.
        fixed: Names of settings that the user has set, and that a strength is no factor on.

    Example:
        >>> with_values(Settings(), {"augment.strength": 0.5}, fixed={"augment.noise"}).augment.shear
        0.05
    """
    for name, value in values.items():
        table, key = name.split(".")
        if name == _STRENGTH:
            amounts = [amount for amount in _AMOUNTS if f"augment.{amount}" not in fixed]
            scaled = {amount: getattr(settings.augment, amount) * float(value) for amount in amounts}
            settings = override(settings, table, **scaled)
        else:
            settings = override(settings, table, **{key: value})
    return settings
