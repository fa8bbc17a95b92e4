"""What is searched, what is not, and what a drawn value changes."""

import dataclasses
import tomllib
from pathlib import Path

import pytest

from medfcn.config import override, settings_from, to_tables
from medfcn.errors import SettingsError
from medfcn.settings import AugmentSettings, Settings
from medfcn.training.train import plan
from medfcn.tuning.outcome import settings_toml
from medfcn.tuning.space import (
    SPACE,
    Between,
    OneOf,
    Searched,
    centre_space,
    choose_space,
    defaults_of,
    with_values,
)
from medfcn.tuning.task import task_of

AMOUNTS = [
    name
    for name, value in to_tables(Settings())["augment"].items()
    if isinstance(value, float) and value and name != "still_share"
]


def names(space: tuple[Searched, ...]) -> list[str]:
    return [searched.name for searched in space]


def test_the_defaults_are_in_the_space_and_change_nothing() -> None:
    planned = override(Settings(), "slices", context=1)
    values = defaults_of(SPACE, planned, rate=4e-3)
    assert list(values) == names(SPACE)
    changed = with_values(planned, values)
    assert changed == override(planned, "training", learning_rate=4e-3)  # said instead of left open


def test_the_context_that_the_plan_chooses_is_the_default_and_one_slice_is_another(balls: Path) -> None:
    planned = plan(balls, labels="ball=1")
    task = task_of(Settings(), frozenset(), SPACE, plan=planned.plan, labels=planned.labels)
    assert task.defaults["slices.context"] == planned.plan.context == 3
    assert task.settings(task.defaults) == Settings()
    assert task.settings({**task.defaults, "slices.context": 1}).slices.context == 1


def test_every_setting_of_the_space_exists_and_every_value_is_taken() -> None:
    for searched in SPACE:
        assert searched.reason
        domain = searched.domain
        for value in domain.values if isinstance(domain, OneOf) else (domain.low, domain.high):
            changed = to_tables(with_values(Settings(), {searched.name: value}))
            differing = {
                f"{table}.{key}"
                for table, part in to_tables(Settings()).items()
                for key in part
                if changed[table][key] != part[key]
            }
            if searched.name == "augment.strength":
                assert differing == {f"augment.{name}" for name in AMOUNTS}
            else:
                assert differing <= {searched.name}
                table, key = searched.name.split(".")
                assert changed[table][key] == value


def test_a_strength_is_a_factor_on_every_amount_but_those_that_are_set() -> None:
    base = override(Settings(), "augment", noise=0.3)
    changed = with_values(base, {"augment.strength": 1.5}, fixed={"augment.noise"}).augment
    assert changed.noise == 0.3
    usual = AugmentSettings()
    for name in set(AMOUNTS) - {"noise"}:
        assert getattr(changed, name) == pytest.approx(1.5 * getattr(usual, name))
    assert (changed.mirror, changed.still_share) == (usual.mirror, usual.still_share)


def test_what_is_set_is_not_searched() -> None:
    assert "network.width" not in names(choose_space(SPACE, {"network.width"}, None))
    assert "network.width" not in names(choose_space(SPACE, {"network.widths"}, None))
    one = names(choose_space(SPACE, {"augment.noise"}, None))
    assert "augment.strength" in one
    every = names(choose_space(SPACE, {f"augment.{name}" for name in AMOUNTS}, None))
    assert set(one) - set(every) == {"augment.strength"}


def test_only_what_is_named_is_searched() -> None:
    assert names(choose_space(SPACE, (), ["learning_rate"])) == ["training.learning_rate"]
    for only, fixed, said in (
        (["learning_rat"], set(), "did you mean 'learning_rate'"),
        (["zzz"], set(), "known are "),
        (["width"], {"network.widths"}, r"network\.width is to be searched, and network\.widths is set"),
        (None, {searched.name for searched in SPACE} | {f"augment.{name}" for name in AMOUNTS}, "every setting"),
    ):
        with pytest.raises(SettingsError, match=said):
            choose_space(SPACE, fixed, only)


def test_learning_rates_lie_around_what_the_network_bears() -> None:
    centred = {searched.name: searched.domain for searched in centre_space(SPACE, rate=5e-4, usual=4e-3)}
    rates = centred["training.learning_rate"]
    assert isinstance(rates, Between)
    assert (rates.low, rates.high, rates.log) == pytest.approx((1.25e-4, 1.25e-3, True))
    assert centre_space(SPACE, rate=4e-3, usual=4e-3) == SPACE
    assert all(centred[other.name] == other.domain for other in SPACE if other.name != "training.learning_rate")


def test_a_default_outside_its_domain_is_refused() -> None:
    space = (Searched("slices.context", OneOf((3, 5)), "always with neighbours"),)
    with pytest.raises(SettingsError, match=r"slices\.context: the default 1 is not in"):
        defaults_of(space, override(Settings(), "slices", context=1), rate=4e-3)


def test_settings_come_back_from_the_file_they_are_written_to() -> None:
    settings = Settings()
    for table, values in {
        "slices": {"views": ("axial", "coronal"), "context": 3, "spacing_mm": (0.5, 1e-05)},
        "network": {"preset": "fcn8s", "skips": False, "width": 0.5},
        "training": {"class_weights": (1.0, 2.5), "learning_rate": 0.0012345678901234567},
    }.items():
        settings = override(settings, table, **values)
    assert settings_from(tomllib.loads(settings_toml(settings)), source="best.toml") == settings
    monai = override(Settings(), "network", monai="BasicUNet", monai_arguments={"features": [8, 8], "act": "relu"})
    assert settings_from(tomllib.loads(settings_toml(monai)), source="best.toml") == monai
    for part in dataclasses.fields(Settings):
        assert f"[{part.name}]" not in settings_toml(Settings())


def test_the_width_of_a_network_of_monai_is_not_searched() -> None:
    names = [searched.name for searched in choose_space(SPACE, {"network.monai"}, None)]
    assert "network.width" not in names
