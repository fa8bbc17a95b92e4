"""Settings from files: read, overridden, and turned into plain values and back.

The settings themselves are in `medfcn.settings`. A TOML file sets some by table (`[training]`, `[augment]` …);
the command line and library calls override single ones. An unknown key is an error that names the nearest known key.
The resolved settings are stored with the weights in `model.json`.

Example:
    >>> Settings().training.batch_size
    32
    >>> settings_from({"training": {"batch_size": 16}}, source="run.toml").training.batch_size
    16
    >>> settings_from({"training": {"bach_size": 16}}, source="run.toml")
    Traceback (most recent call last):
        ...
    medfcn.errors.SettingsError: run.toml: unknown key 'bach_size' in [training]; did you mean 'batch_size'?
"""

import dataclasses
import math
import re
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from medfcn.errors import MissingFileError, SettingsError, refuse_pipe
from medfcn.settings import PredictionSettings, Settings
from medfcn.text import did_you_mean

_LARGEST_TOML, _LONGEST_LINE = 2**20, 4096
"""Bytes of a file of settings, and letters of a line: far more than any has."""


def read_settings(path: Path | str | None) -> Settings:
    """Read the settings of a TOML file. Settings that it does not name, or all without a file, have their defaults.

    Raises:
        MissingFileError: `path` is not a file.
        SettingsError: It is not TOML, or contains an unknown table, an unknown key or a value of another type.
    """
    return Settings() if path is None else settings_from(read_tables(path), source=Path(path).name)


def read_tables(path: Path | str) -> dict[str, Any]:
    """Read the tables of a TOML file, unchecked.

    Raises:
        MissingFileError: `path` is not a file.
        SettingsError: It is a pipe, or not TOML.
    """
    path = Path(path)
    refuse_pipe(path, SettingsError)
    if not path.is_file():
        raise MissingFileError(f"{path}: settings file not found; check the path given to --config", field="config")
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_TOML + 1).decode("utf-8")
        # tomllib (Python 3.11) takes memory with the square of the parts of a dotted key.
        longest = max(map(len, text.splitlines()), default=0)
        if len(text) > _LARGEST_TOML or longest > _LONGEST_LINE:
            raise SettingsError(
                f"{path.name}: more than {_LARGEST_TOML} bytes, or {_LONGEST_LINE} letters in a line; is it the "
                "right file?",
                code="NOT_TOML",
            )
        return tomllib.loads(text)
    except SettingsError:
        raise
    except (ValueError, RecursionError) as error:  # ValueError: also a number of 4,300 digits
        raise SettingsError(f"{path.name}: not a TOML file ({error}); correct it", code="NOT_TOML") from error


def settings_from(tables: Mapping[str, Any], *, source: str) -> Settings:
    """Make settings from nested mappings such as a TOML file's or `model.json`'s.

    Args:
        tables: For each table, its values by key.
        source: The file they are from, for messages.

    Raises:
        SettingsError: An unknown table or key, or a value of another type or out of range.
    """
    kinds = {part.name: type(getattr(Settings(), part.name)) for part in dataclasses.fields(Settings)}
    chosen: dict[str, Any] = {}
    for name, table in tables.items():
        if name not in kinds:
            hint = did_you_mean(name, kinds)
            raise SettingsError(f"{source}: unknown table [{name}]{hint}", code="SETTING_UNKNOWN", field=name)
        if not isinstance(table, Mapping):
            raise SettingsError(
                f"{source}: {name} = {table!r} is outside of a table; put keys under [{name}]", field=name
            )
        hints = get_type_hints(kinds[name])
        values = {key: _converted(value, key, hints, table=name, source=source) for key, value in table.items()}
        chosen[name] = kinds[name](**values)
    return Settings(**chosen)


def override(settings: Settings, table: str, **values: Any) -> Settings:
    """`settings` with those `values` of one table that are not None.

    Example:
        >>> override(Settings(), "slices", context=3, views=None).slices.context
        3
    """
    given = {key: value for key, value in values.items() if value is not None}
    part = dataclasses.replace(getattr(settings, table), **given)
    return dataclasses.replace(settings, **{table: part})


def to_tables(settings: Settings) -> dict[str, dict[str, Any]]:
    """Settings as nested dictionaries, the inverse of `settings_from`.

    Without a network of MONAI its keys are left out, as in the run folders of earlier versions; a `review_floor` and
    a `restoring` that are the default, too. `machine` is left out: nothing depends on it.
    """
    tables = dataclasses.asdict(settings)
    del tables["machine"]
    if settings.prediction.review_floor == PredictionSettings.review_floor:
        del tables["prediction"]["review_floor"]
    if settings.network.restoring is None:
        del tables["network"]["restoring"]
    if settings.network.monai is None:
        del tables["network"]["monai"], tables["network"]["monai_arguments"]
    return tables


def _converted(value: Any, key: str, hints: Mapping[str, Any], *, table: str, source: str) -> Any:
    """`value` as the type of its setting."""
    field = f"{table}.{key}"
    if key not in hints:
        hint = did_you_mean(key, hints)
        raise SettingsError(f"{source}: unknown key {key!r} in [{table}]{hint}", code="SETTING_UNKNOWN", field=field)
    items = value if isinstance(value, list | tuple) else [value]
    try:
        if all(math.isfinite(item) for item in items if isinstance(item, float)):
            return msgspec.convert(value, hints[key])
        expected = "a finite number"
    except msgspec.ValidationError:
        expected = _expected(hints[key])
    raise SettingsError(f"{source}: [{table}] {key} = {value!r} is not {expected}; correct it", field=field)


def _expected(hint: Any) -> str:
    """The values that a type allows, in words."""
    kinds = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return ", or ".join(_expected(kind) for kind in kinds if kind is not types.NoneType)
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, kinds))
    if get_origin(hint) is tuple:
        count = "" if Ellipsis in kinds else f" of {len(kinds)}"
        return f"a list{count}, each {_expected(kinds[0])}"
    if get_origin(hint) is dict:
        return "a table"
    return {float: "a number", int: "a whole number", bool: "true or false", str: "text"}[hint]


_UNITS_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def budget_seconds(text: str | float) -> float:
    """Seconds of a duration such as `90s`, `10m` or `1.5h`; a bare number is seconds.

    Raises:
        SettingsError: It is not a positive duration.

    Example:
        >>> budget_seconds("10m"), budget_seconds("1.5h"), budget_seconds(30)
        (600.0, 5400.0, 30.0)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(s|m|min|h|d)?\s*", str(text))
    seconds = float(match[1]) * _UNITS_SECONDS[match[2] or ""] if match else 0.0
    if seconds <= 0:
        raise SettingsError(f"budget {text!r} is not a duration; write for example 90s, 10m or 1.5h", field="budget")
    return seconds
