"""Settings: every default once, nothing unknown accepted."""

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfcn.config import budget_seconds, override, read_settings, settings_from, to_tables
from medfcn.errors import MissingFileError, SettingsError
from medfcn.settings import Settings


def test_settings_survive_json() -> None:
    settings = override(Settings(), "slices", context=5, window=(64, 48), views=("axial", "coronal"))
    assert settings_from(json.loads(json.dumps(to_tables(settings))), source="model.json") == settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nbach_size = 3", "run.toml: unknown key 'bach_size' in [training]; did you mean 'batch_size'?"),
        ("[trainin]\nseed = 3", "run.toml: unknown table [trainin]; did you mean 'training'?"),
        ("batch_size = 3", "run.toml: unknown table [batch_size]"),
        ("[training]\nbatch_size = 1.5", "run.toml: [training] batch_size = 1.5 is not a whole number"),
        ("[training]\nbatch_size = true", "run.toml: [training] batch_size = True is not a whole number"),
        ("[slices]\nviews = 'axial'", "run.toml: [slices] views = 'axial' is not one of auto, all, or a list"),
        (
            "[slices]\nviews = ['oblique']",
            "['oblique'] is not one of auto, all, or a list, each one of axial, coronal",
        ),
        ("[slices]\nviews = ['axial', 'axial']", "is not auto, all, or a list of one to three different views"),
        ("[slices]\nviews = []", "is not auto, all, or a list of one to three different views"),
        ("[slices]\nwindow = [64]", "run.toml: [slices] window = [64] is not a list of 2"),
        ("[slices]\ncontext = 2", "setting slices.context: 2 is not an odd number from 1"),
        ("[augment]\nelastic = 1e300", "setting augment.elastic: 1e+300 is not a number from 0 to 100; change it"),
        ("[augment]\nrotation_degrees = 400", "400.0 is not a number from 0 to 360"),
        ("[augment]\ngamma = 100", "setting augment.gamma: 100.0 is not a number from 0 to 10; change it"),
        ("[training]\nwarmup_steps = -1", "setting training.warmup_steps: -1 is not a number from 0; change it"),
        ("[training]\nweight_decay = -0.1", "training.weight_decay: -0.1 is not a number from 0 to 100; change it"),
        ("[training]\ngradient_clip = 0", "setting training.gradient_clip: 0.0 is not a positive number; change it"),
        ("[training]\nbatch_size = 2000000", "training.batch_size: 2000000 is not a number from 1 to 1048576"),
        (
            "[prediction]\ntile_overlap = 0.99",
            "tile_overlap: 0.99 is not a share from 0 to 0.9; change it",
        ),
        (f"[training]\nepoch_steps = 1{'0' * 15}", "is more than any training has, 1e+09; change it"),
        ("[training]\nlearning_rate = nan", "learning_rate = nan is not a finite number"),
        ("[training", "run.toml: not a TOML file"),
        ("slices = 3", "run.toml: slices = 3 is outside of a table"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        read_settings(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[training]\nbach_size = 3", "training.bach_size"),
        ("[training]\nbatch_size = true", "training.batch_size"),
        ("[training]\nclass_weights = [inf]", "training.class_weights"),
        ("[training]\nbatch_size = 0", "training.batch_size"),
        ("[prediction]\nthreshold = 1.5", "prediction.threshold"),
        ("[network]\nwidths = []", "network.widths"),
        ("[trainin]\nseed = 3", "trainin"),
    ],
)
def test_the_error_of_a_setting_names_it_to_a_program(text: str, field: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_from(tomllib.loads(text), source="run.toml")
    assert caught.value.field == field
    assert caught.value.code in ("SETTING_INVALID", "SETTING_UNKNOWN")


def test_every_rule_allows_its_default_and_none() -> None:
    for part in dataclasses.fields(Settings):
        kind = part.default_factory
        assert kind() == dataclasses.replace(kind())
        optional = [setting.name for setting in dataclasses.fields(kind) if setting.default is None]
        assert kind(**dict.fromkeys(optional)) == kind()


def test_every_number_has_a_rule() -> None:
    kinds = [part.default_factory for part in dataclasses.fields(Settings)]
    hints = [(kind, *item) for kind in kinds for item in get_type_hints(kind).items()]
    numbers = [(kind, name) for kind, name, hint in hints if {int, float} & {hint, *get_args(hint)}]
    assert len(numbers) > 40
    for kind, name in numbers:
        with pytest.raises(SettingsError, match=name):
            kind(**{name: -1})


def test_a_missing_settings_file_is_named() -> None:
    with pytest.raises(MissingFileError, match="settings file not found"):
        read_settings("nowhere.toml")


def test_every_setting_has_a_line_of_documentation() -> None:
    source = Path(__file__).resolve().parents[1] / "medfcn" / "settings.py"
    lines = source.read_text().splitlines()
    for part in dataclasses.fields(Settings):
        for setting in dataclasses.fields(getattr(Settings(), part.name)):
            at = next(number for number, line in enumerate(lines) if line.startswith(f"    {setting.name}: "))
            assert lines[at + 1].strip().startswith('"""'), setting.name


@given(st.floats(min_value=0.001, max_value=1e6), st.sampled_from(["s", "m", "min", "h", "d", ""]))
def test_budgets_scale_with_their_unit(number: float, unit: str) -> None:
    scale = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "": 1}[unit]
    assert budget_seconds(f"{number:.3f}{unit}") == pytest.approx(round(number, 3) * scale)


@pytest.mark.parametrize("text", ["", "0", "-5m", "ten", "5 weeks", "1e3", "nan", "5mm"])
def test_what_is_not_a_time_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="not a duration"):
        budget_seconds(text)
