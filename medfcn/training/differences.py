"""The differences between two trainings in words: what each thing is, and what it was."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from medfcn.labels.values import values_text
from medfcn.text import duration

ABSENT = "absent"
_USES = {"training": "used for training", "validation": "used for validation"}
_NAMES = {
    "fold": "the fold",
    "versions": "the version of",
    "start.init": "the run it starts from",
    "start.encoder_weights": "the encoder's first weights",
    "first_weights": "the hash of the first weights",
    "transforms": "the transforms",
    "reading": "the reading option",
    "settings": "the setting",
    "plan": "the plan's",
    "labels": "the labels'",
    "cases": "the patient of",
    "format": "the format of what is recorded",
}
"""Words for the first part of a dotted name."""
_HASH = 12
"""Characters of a hash that are shown."""


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each difference of two trainings: the name of what differs, and both values in words.

    Args:
        then: The facts that were recorded, as plain JSON values.
        now: The facts now; those that only one of both has are not compared.

    Example:
        >>> [words for _, words in differences({"seed": 0, "threads": 2}, {"seed": 1, "threads": 2})]
        ['seed is 1, was 0']
        >>> differences({"length": {"steps": 24, "budget_seconds": None}}, {"length": {"budget_seconds": 600.0}})
        [('length', 'the length is a budget of 10 min 0 s, was 24 steps')]
    """
    before, after = (
        json.loads(json.dumps({name: side[name] for name in now if name in then})) for side in (then, now)
    )
    found: list[tuple[str, str]] = []
    for name, words in (("length", _length), ("labels", _labels)):
        sides = after.pop(name, {}), before.pop(name, {})
        if sides[0] != sides[1]:
            found += _of_one(name, sides, words)
    of_cases = list(_of_uses(before, after))
    old, new = dict(_flat(before)), dict(_flat(after))
    for name in new | old:
        if new.get(name, ABSENT) != old.get(name, ABSENT):
            is_now, was = (_words(side[name]) if name in side else ABSENT for side in (new, old))
            found.append((name, f"{_name(name)} is {is_now}, was {was}"))
    return found + of_cases  # last: what was said before may be the reason


def _of_one(name: str, sides: tuple[Any, Any], words: Callable[[Any], str]) -> list[tuple[str, str]]:
    """A difference of two values that are put into words as a whole; by their parts where the words are the same."""
    is_now, was = map(words, sides)
    if is_now != was:
        verbs = ("are", "were") if name.endswith("s") else ("is", "was")
        return [(name, f"the {name} {verbs[0]} {is_now}, {verbs[1]} {was}")]
    return [
        (key, f"{_name(key)} is {_words(sides[0].get(part))}, was {_words(sides[1].get(part))}")
        for part in sides[0] | sides[1]
        if sides[0].get(part) != sides[1].get(part)
        for key in [f"{name}.{part}"]
    ]


def _length(length: Mapping[str, Any]) -> str:
    if length.get("budget_seconds") is not None:
        return f"a budget of {duration(length['budget_seconds'])}"
    changes = ",".join(f"{total}@{step}" if step else f"{total}" for step, total in length.get("changes", ()))
    return f"{changes or length.get('steps')} steps"


def _labels(labels: Mapping[str, Any]) -> str:
    entries = labels.get("entries", [])
    if isinstance(entries, str):
        return entries
    return ",".join(
        f"{entry['name']}={'+'.join((*entry.get('structures', ()), values_text(_values(entry['values']))))}"
        for entry in entries
    )


def _values(values: Any) -> Any:
    return tuple(tuple(value) if isinstance(value, list) else value for value in values)


def _of_uses(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Cases that have another use or other files."""
    old, new = (
        {case: (use, files) for use in _USES for case, files in side.pop(use, {}).items()} for side in (before, after)
    )
    for case in sorted(new | old, key=str):
        (use, files), (was, had) = (side.get(case, ("", [])) for side in (new, old))
        if use != was:
            words = [_USES.get(each, "left out") for each in (use, was)]
            yield case, f"{case} is {words[0]}, was {words[1]}"
        elif files != had:
            place = next((at for at, pair in enumerate(zip(files, had, strict=False)) if pair[0] != pair[1]), 0)
            hashes = [str(each[place])[:_HASH] if place < len(each) else ABSENT for each in (files, had)]
            yield case, f"the files of {case} have changed: the SHA-256 of one is {hashes[0]}…, was {hashes[1]}…"


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Nested tables as pairs of a dotted name and a value."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _name(name: str) -> str:
    """A dotted name in words."""
    first, _, rest = name.partition(".")
    if name in _NAMES:
        return _NAMES[name]
    return f"{_NAMES[first]} {rest}" if first in _NAMES and rest else name


def _words(value: Any) -> str:
    """A value in words, such as `0.5, 1 and 2`."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
        words = [_words(item) for item in value]
        return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words) or "none"
    if isinstance(value, list | dict) and not value:
        return "none"
    if isinstance(value, list | dict):
        parts = (f"{key or 'value'} {_words(item)}" for item in _items(value) for key, item in _flat(item))
        return "; ".join(parts) or "none"
    text = str(value)
    return f"{text[:_HASH]}…" if len(text) == 64 and text.isalnum() else text or "none"


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
