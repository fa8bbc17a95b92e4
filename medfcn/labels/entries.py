"""One label: its name, its values, and the value that it has in masks that medfcn writes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from medfcn.errors import SettingsError
from medfcn.labels.overlaps import is_overlapping
from medfcn.labels.values import ANY, Named, Span, Value, Values, ValueSet, span_of, value_of
from medfcn.labels.whole_numbers import LARGEST_LABEL
from medfcn.text import listed


@dataclass(frozen=True)
class LabelEntry:
    """One foreground label.

    Args:
        name: Its name in reports.
        values: The values of a reference that belong to it: single ones, ranges, or `any` for every value but 0 and
            those that the labels ignore.
        written: The value it has in a mask that medfcn writes; where labels overlap, its index in the list.
        structures: Names of the files that hold the label, without extensions, where masks are one file for each
            structure; see `medfcn.labels.structures`.
    """

    name: str
    values: Named
    written: int
    structures: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The label as `--labels` names it, cut short."""
        if self.structures:
            return (
                self.name
                if self.structures == (self.name,)
                else f"{self.name}={listed(self.structures, separator='+')}"
            )
        return f"{self.name}={ANY if self.values == ANY else listed(self.values, separator='+')}"


def refusal(message: str) -> SettingsError:
    """The error about labels that cannot be meant."""
    return SettingsError(f"labels: {message}", field="labels")


def require_values(name: str, values: Values, remark: str) -> None:
    """Refuse values that no mask can have, and ranges that run down."""
    for value in values:
        first, last = span_of(value)
        if first > last:
            raise refusal(f"{name}={value} runs down; write {last}-{first}")
        if not (first >= 1 and last <= LARGEST_LABEL):
            raise refusal(f"{name}={value}; values are 1 to {LARGEST_LABEL}, {remark}")


def refuse_crossing(entries: Sequence[LabelEntry]) -> None:
    """Refuse ranges that share some of their values: that is a slip of the pen, a range within another is a part."""
    ranges = sorted(
        (value, entry.name)
        for entry in entries
        if entry.values != ANY
        for value in entry.values
        if type(value) is Span
    )
    for place, (one, name) in enumerate(ranges):
        for other, other_name in ranges[place + 1 :]:
            if other.first > one.last:
                break
            if one.first < other.first and one.last < other.last:
                raise refusal(
                    f"{name}={one} and {other_name}={other} both contain {value_of(other.first, one.last)}; end one "
                    "before the other begins, or name the shared values one by one where labels are meant to overlap"
                )


def entries_of(named: Sequence[tuple[str, Named]], ignored: Values = ()) -> tuple[LabelEntry, ...]:
    """Labels of these names and values, with what they are written as."""
    overlapping = is_overlapping([in_numbers(values, ignored) for _, values in named])
    return tuple(
        LabelEntry(name, values, written_as(values, index, overlapping=overlapping, ignored=ignored))
        for index, (name, values) in enumerate(named, start=1)
    )


def written_as(values: Named, index: int, *, overlapping: bool, ignored: Values) -> int:
    """The value of a label in a mask that medfcn writes."""
    if overlapping or is_merged(values):
        return index
    return min((span_of(value).first for value in in_numbers(values, ignored)), default=index)


def is_merged(values: Named) -> bool:
    """True if several single values are named, and no range."""
    return values != ANY and len(values) > 1 and not any(isinstance(value, Span) for value in values)


def in_numbers(values: Named, ignored: Values) -> Values:
    """The values of a label, `any` as ranges."""
    return ValueSet(ignored).others.values if values == ANY else values


def in_order(values: Iterable[Value]) -> Values:
    """Values from the smallest up."""
    return tuple(sorted(values, key=span_of))
