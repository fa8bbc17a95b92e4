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
import difflib
import math
import re
import tomllib
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from medfcn.errors import MissingFileError, SettingsError
from medfcn.settings import Settings


def read_settings(path: Path | str | None) -> Settings:
    """The settings of a TOML file, defaults where it is silent; without a file, the defaults.

    Raises:
        MissingFileError: `path` is not a file.
        SettingsError: It is not TOML, or holds an unknown table, an unknown key or a value of another type.
    """
    return Settings() if path is None else settings_from(read_tables(path), source=Path(path).name)


def read_tables(path: Path | str) -> dict[str, Any]:
    """The tables of a TOML file as they stand there, not looked at yet.

    Raises:
        MissingFileError: `path` is not a file.
        SettingsError: It is not TOML.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path}: settings file not found; check the path given to --config")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path.name}: not a TOML file ({error}); correct it") from error


def settings_from(tables: Mapping[str, Any], *, source: str) -> Settings:
    """Settings from nested mappings such as a TOML file's or `model.json`'s.

    Args:
        tables: Table name to mapping of key to value.
        source: What the tables came from, for messages.

    Raises:
        SettingsError: An unknown table or key, or a value of another type or out of range.
    """
    parts = {part.name: part.default_factory for part in dataclasses.fields(Settings)}
    chosen: dict[str, Any] = {}
    for name, table in tables.items():
        if name not in parts:
            raise SettingsError(f"{source}: unknown table [{name}]{_nearest(name, parts)}")
        if not isinstance(table, Mapping):
            raise SettingsError(f"{source}: {name} = {table!r} stands outside a table; put keys under [{name}]")
        chosen[name] = _build(type(getattr(Settings(), name)), table, source=source, table_name=name)
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
    """Settings as nested dictionaries, the inverse of `settings_from`."""
    return dataclasses.asdict(settings)


def _build(kind: Any, table: Mapping[str, Any], *, source: str, table_name: str) -> Any:
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in hints:
            raise SettingsError(f"{source}: unknown key {key!r} in [{table_name}]{_nearest(key, hints)}")
        try:
            values[key] = _convert(value, hints[key])
        except TypeError as error:
            raise SettingsError(f"{source}: [{table_name}] {key} = {value!r} is not {error}; correct it") from None
    return kind(**values)


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"


def _convert(value: Any, hint: Any) -> Any:
    """`value` as the type a field is annotated with; TypeError says what was expected."""
    origin, choices = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _convert_to_one_of(value, [choice for choice in choices if choice is not type(None)])
    if origin is Literal:
        if value not in choices:
            raise TypeError("one of " + ", ".join(map(str, choices)))
        return value
    if origin is tuple:
        return _convert_tuple(value, choices)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise TypeError("a finite number")
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is bool and isinstance(value, bool):
        return value
    raise TypeError({float: "a number", int: "a whole number", bool: "true or false"}.get(hint, "of a known type"))


def _convert_to_one_of(value: Any, choices: Sequence[Any]) -> Any:
    expected = []
    for choice in choices:
        try:
            return _convert(value, choice)
        except TypeError as error:
            expected.append(str(error))
    raise TypeError(", or ".join(expected))


def _convert_tuple(value: Any, choices: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError("a list")
    if len(choices) == 2 and choices[1] is Ellipsis:
        return tuple(_convert(item, choices[0]) for item in value)
    if len(value) != len(choices):
        raise TypeError(f"a list of {len(choices)}")
    return tuple(_convert(item, choice) for item, choice in zip(value, choices, strict=True))


_UNITS_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def budget_seconds(text: str | float) -> float:
    """A length of time such as `90s`, `10m` or `1.5h`, in seconds; a bare number is seconds.

    Raises:
        SettingsError: It is not a positive length of time.

    Example:
        >>> budget_seconds("10m"), budget_seconds("1.5h"), budget_seconds(30)
        (600.0, 5400.0, 30.0)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(s|m|min|h|d)?\s*", str(text))
    seconds = float(match[1]) * _UNITS_SECONDS[match[2] or ""] if match else 0.0
    if seconds <= 0:
        raise SettingsError(f"budget {text!r} is not a length of time; write for example 90s, 10m or 1.5h")
    return seconds
