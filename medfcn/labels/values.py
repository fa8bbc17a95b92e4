"""The values of a label: single ones, ranges, or every value.

A range is two numbers, however wide it is: `lesion=1-65535` takes no more memory than `lesion=1`.
"""

import re
from bisect import bisect_right
from collections.abc import Set
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple

from medfcn.labels.whole_numbers import LARGEST_LABEL

ANY: Final = "any"
"""Every value but 0 and those that are ignored."""
_VALUE = re.compile(r"([0-9]+)(?:\s*-\s*([0-9]+))?")


class Span(NamedTuple):
    """A range of values, both ends included.

    Example:
        >>> str(Span(1, 42))
        '1-42'
    """

    first: int
    last: int

    def __str__(self) -> str:
        """The range as `--labels` names it."""
        return f"{self.first}-{self.last}"


Value = int | Span
"""One value, or a range of them."""
Values = tuple[Value, ...]
Named = Values | Literal["any"]
"""The values of a label as they are named."""


def span_of(value: Value) -> Span:
    """A value as a range."""
    return value if isinstance(value, Span) else Span(value, value)


def value_of(first: int, last: int) -> Value:
    """A range; its value, if it has only one."""
    return first if first == last else Span(first, last)


def values_text(values: Named) -> str:
    """The values of a label as `--labels` names them.

    Example:
        >>> values_text((Span(1, 3), 7)), values_text("any")
        ('1-3+7', 'any')
    """
    return values if values == ANY else "+".join(map(str, values))


def parse_values(text: str) -> Named | None:
    """Read `V[-W][+V[-W]...]` or `any`; None if the text is not of that form.

    Example:
        >>> parse_values("1-3+7"), parse_values("any"), parse_values("1,2")
        ((Span(first=1, last=3), 7), 'any', None)
    """
    parts = [part.strip() for part in text.split("+")]
    if parts == [ANY]:
        return ANY
    found = [_VALUE.fullmatch(part) for part in parts]
    # A number of more digits than a label can have is refused, and need not be converted whole.
    ends = [(int(match[1][:12]), int((match[2] or match[1])[:12])) for match in found if match]
    return tuple(value_of(*pair) for pair in ends) if len(ends) == len(parts) else None


def values_from(given: Any) -> Named | None:
    """The values of a label from Python or JSON: a number, text as in `--labels`, or a sequence of these.

    Returns:
        None if it is anything else.

    Example:
        >>> values_from(3), values_from("1-3"), values_from([1, "4-6"]), values_from(range(1, 43)), values_from(None)
        ((3,), (Span(first=1, last=3),), (1, Span(first=4, last=6)), (Span(first=1, last=42),), None)
    """
    if isinstance(given, str):
        return parse_values(given)
    if isinstance(given, Span):
        return (given,)
    if isinstance(given, range) and given.step == 1 and given:
        return (value_of(given[0], given[-1]),)
    if isinstance(given, list | tuple | Set | range):
        parts = [None if isinstance(item, list | Set) else values_from(item) for item in given]
        if any(part is None or part == ANY for part in parts):
            return None
        return tuple(value for part in parts if part for value in part if isinstance(value, int | Span))
    try:
        return None if isinstance(given, bool) else (given.__index__(),)
    except AttributeError:
        return None


@dataclass(frozen=True)
class ValueSet:
    """Values that are looked up and compared as a set is, without a list of them.

    Args:
        values: Single values and ranges, in any order; they may overlap.

    Example:
        >>> lesion = ValueSet((7, Span(1, 42)))
        >>> 40 in lesion, {0, 2, 50} & lesion, {0, 2, 50} - lesion, lesion.spans
        (True, {2}, {0, 50}, (Span(first=1, last=42),))
    """

    values: Values

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """The same values as ranges, in order, with a gap between each two."""
        merged: list[Span] = []
        for first, last in sorted(map(span_of, self.values)):
            if merged and first <= merged[-1].last + 1:
                merged[-1] = Span(merged[-1].first, max(merged[-1].last, last))
            else:
                merged.append(Span(first, last))
        return tuple(merged)

    @cached_property
    def _firsts(self) -> list[int]:
        return [span.first for span in self.spans]

    def __contains__(self, value: int) -> bool:
        place = bisect_right(self._firsts, value) - 1
        return place >= 0 and value <= self.spans[place].last

    def __bool__(self) -> bool:
        return bool(self.values)

    def __rand__(self, found: Set[int]) -> set[int]:
        return {value for value in found if value in self}

    def __rsub__(self, found: Set[int]) -> set[int]:
        return {value for value in found if value not in self}

    def __and__(self, other: "ValueSet") -> "ValueSet":
        """The values of both."""
        shared = []
        for span in self.spans:
            start = max(bisect_right(other._firsts, span.first) - 1, 0)
            for first, last in other.spans[start:]:
                if first > span.last:
                    break
                if last >= span.first:
                    shared.append(value_of(max(first, span.first), min(last, span.last)))
        return ValueSet(tuple(shared))

    @property
    def others(self) -> "ValueSet":
        """Every value that a label may have, without these."""
        ends = [Span(0, 0), *self.spans, Span(LARGEST_LABEL + 1, LARGEST_LABEL + 1)]
        gaps = [(one.last + 1, other.first - 1) for one, other in pairwise(ends)]
        return ValueSet(tuple(value_of(first, last) for first, last in gaps if first <= last))


def twice(values: Values) -> Value | None:
    """A value or range that shares a value with another of the same list.

    Example:
        >>> twice((1, Span(3, 5), 4)), twice((1, Span(2, 3)))
        (4, None)
    """
    ordered = sorted(values, key=span_of)
    reached = 0
    for value in ordered:
        if span_of(value).first <= reached:
            return value
        reached = span_of(value).last
    return None
