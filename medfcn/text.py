"""Words for people: text that is safe on one line, lists cut short, durations.

Text is escaped once, where it leaves: in the message of an error, in a line of progress, on the terminal, in a CSV
field. Code in between joins names and values as they are.
"""

import difflib
import itertools
import os
import re
import textwrap
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

LONGEST_LINE = 600
"""Characters of a message; a longer one loses its middle, so that the file and the remedy stay."""

COLUMNS = 80
"""Characters of a line of tables and reports: those that every terminal has."""

_OPEN_FILES = ("/dev/fd", "/proc/self/fd")
"""Where a shell puts the pipe of `<(…)`, under its number."""


class Shown(ABC):
    """A result that shows itself as its text where it is printed, and in a notebook."""

    @abstractmethod
    def to_text(self) -> str:
        """The result in words and tables."""

    def __str__(self) -> str:
        return self.to_text()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))


def printable(text: str) -> str:
    """`text` with everything that could steer a terminal made visible.

    Example:
        >>> printable("case\\x1b[31m\\n2")
        'case\\\\x1b[31m\\\\n2'
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def one_line(text: str, *, limit: int = LONGEST_LINE) -> str:
    """`text` as one line that is safe to print; what is longer than `limit` loses its middle.

    Example:
        >>> one_line("scan.nii: " + 40 * "9" + "; export it again", limit=40)
        'scan.nii: 999999999999…; export it again'
    """
    line = printable(text)
    if len(line) <= limit:
        return line
    head = limit * 11 // 20
    return f"{line[:head]}…{line[len(line) - (limit - head - 1) :]}"


def without_breaks(text: str) -> str:
    """A name as it stands in a file's field or table: each run of what cannot be printed is one space.

    Example:
        >>> without_breaks("left\\r\\nkidney"), without_breaks("left  kidney")
        ('left kidney', 'left  kidney')
    """
    return text if text.isprintable() else re.sub(r"\0+", " ", "".join(c if c.isprintable() else "\0" for c in text))


def shown(name: str | os.PathLike[str]) -> str:
    """The last part of a path, for a message; all of the path of an open file, whose last part is a bare number.

    Example:
        >>> shown("folder/case_1.nii.gz"), shown("/dev/fd/63")
        ('case_1.nii.gz', '/dev/fd/63')
    """
    path = PurePath(name)
    return path.name if path.name and path.parent.as_posix() not in _OPEN_FILES else os.fspath(name)


def listed(items: Iterable[object], *, limit: int = 8, separator: str = ", ") -> str:
    """The first few items, and how many more there are.

    Example:
        >>> listed(["a", "b", "c"], limit=2), listed([3, 1])
        ('a, b and 1 more', '3, 1')
    """
    names = [str(item) for item in items]
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return separator.join(names[:limit]) + more


def counted(count: int, name: str, plural: str = "") -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "case"), counted(2, "case"), counted(0, "entry", "entries")
        ('1 case', '2 cases', '0 entries')
    """
    return f"{count} {name if count == 1 else plural or name + 's'}"


def failure(case: str, problem: str) -> str:
    """The line about a case that failed, with its name once.

    Example:
        >>> failure("p1", "p1: the box is empty; give a larger one")
        'p1: failed: the box is empty; give a larger one'
        >>> failure("p1", "p1.nii.gz: is empty; copy it again")
        'failed: p1.nii.gz: is empty; copy it again'
        >>> failure("p1", "p1_0001.nii.gz: is empty; copy it again")
        'p1: failed: p1_0001.nii.gz: is empty; copy it again'
    """
    name = one_line(case)
    if problem.startswith(f"{name}."):
        return f"failed: {problem}"
    return f"{name}: failed: {problem.removeprefix(f'{name}: ')}"


_LONGEST_NAME = 200
"""Longer words are no misspelt names; comparing them would take their square in time and memory."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, else all of them.

    Example:
        >>> did_you_mean("fcn8", ["fcn8s", "fcn16s"]), did_you_mean("x", ["a", "b"])
        ("; did you mean 'fcn8s'?", '; known are a, b')
    """
    names = list(known)
    close = nearest(name, names)
    return f"; did you mean {close!r}?" if close else f"; known are {listed(names, limit=30)}"


def nearest(name: str, known: Collection[str]) -> str:
    """The known name that is most like another; empty if none is.

    Example:
        >>> nearest("case_9", ["case_8", "ball"]), nearest("x", ["ball"])
        ('case_8', '')
    """
    close = difflib.get_close_matches(name, sorted(known), n=1) if len(name) <= _LONGEST_NAME else []
    return close[0] if close else ""


def duration(seconds: float) -> str:
    """A length of time, short enough for a line.

    Example:
        >>> duration(4.2), duration(75), duration(7300)
        ('4 s', '1 min 15 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


_BOTH_FORMS = re.compile(r"\(((?:--|medfcn )[^(),]+), ([a-z_]+=[^(),]*)\)")
"""A remedy in a message for both readers, such as `(--overwrite, overwrite=True)`."""


def for_command(text: str) -> str:
    """A message for whoever types commands: options as they are typed, not as a library call takes them.

    Example:
        >>> for_command("masks: already exists; replace it (--overwrite, overwrite=True)")
        'masks: already exists; replace it (--overwrite)'
    """
    return _BOTH_FORMS.sub(r"(\1)", text)


def for_library(text: str) -> str:
    """The same for whoever writes a script: options as a call takes them.

    Options of which a message names only the typed form become the arguments of `CALLED`. A whole command, such as
    `medfcn check DATASET --json`, stays as it is.

    Example:
        >>> for_library("masks: already exists; replace it (--overwrite, overwrite=True)")
        'masks: already exists; replace it (overwrite=True)'
        >>> for_library("repeat with --steps 900,650@300 --threads 1")
        "repeat with steps='900,650@300' threads=1"
        >>> for_library("scan: tilted; pass --xform sform to keep the tilt")
        "scan: tilted; pass options=ReadOptions(xform='sform') to keep the tilt"
    """
    once = _BOTH_FORMS.sub(r"(\2)", text)
    return _TYPED.sub(_called, once.replace("same command and --resume", "same call and --resume"))


CALLED: Mapping[str, str] = {
    **{
        f"--{name.replace('_', '-')}": f"{name}={{}}"
        for name in (
            *("budget", "by", "cases", "cluster", "cohort", "device", "encoder_weights", "engine", "fold", "folds"),
            *("format", "group_by", "groups", "init", "jobs", "labels", "leave_out", "shard", "steps", "threads"),
            "views",
        )
    },
    **{
        f"--{name.replace('_', '-')}": f"{name}=True" for name in ("allow_outside", "overwrite", "resume", "skip_bad")
    },
    **{f"--{name}": f"options=ReadOptions({name}={{}})" for name in ("xform", "nonfinite", "series", "bids")},
    "--volume": "options=ReadOptions(volume_index={})",
    "--around": "options=ReadOptions(around_mm={})",
    "--box": "options=ReadOptions(box_mm={})",
    "--max-bytes": "options=ReadOptions(max_bytes={})",
    "--assume-grid": "options=ReadOptions(assume_grid=True)",
    "--no-boundary-at-edges": "definitions=Definitions(boundary_at_edges=False)",
    "--config": "settings={}",
}
"""The argument of a call for each option; `{}` is where its value stands."""

_TYPED = re.compile(
    r"`?medfcn [a-z][a-z-]* [^;()`]*`?"  # a whole command
    r"|(?<![\w/-])(?P<option>--[a-z][a-z-]*)(?P<value> (?:sform|qform|stem|none|all|torch|cpu|\d+(?:,\d+@\d+)+"
    r"|\d+(?:/(?:\d+|N))?"
    r"|fill:(?:\d+|VALUE)|N|FILE|PATH|K/\d+|X,Y,Z|[a-zA-Z]+=[\w.+,=-]*\w(?![\w=…]))(?![\w-]))?(?![\w-])"
)
"""An option in a message, with its value where one stands there."""


def _called(found: re.Match[str]) -> str:
    """The argument of a call for one option that was found."""
    option = found["option"]
    if option not in CALLED:
        return found[0]
    value = (found["value"] or "").strip().removeprefix("fill:")
    if not value:
        return CALLED[option].replace("{}", "…" if "(" in CALLED[option] else "")
    is_plain = value.isdigit() or (value.isupper() and "=" not in value and "/" not in value)
    shown_value = f"({value})" if "," in value and is_plain else value if is_plain else repr(value)
    return CALLED[option].replace("{}", shown_value)


def page(lines: Iterable[str], *, columns: int = 0) -> str:
    """Lines of text, each made safe to print: what every `to_text` returns.

    Args:
        lines: Sentences and rows of tables.
        columns: Characters of a line; a longer one goes on in the next, after two spaces. 0 leaves lines whole.

    Example:
        >>> page(["a", "b\\nc"])
        'a\\nb\\\\nc'
        >>> print(page(["aorta: 8 of 8 cases scored"], columns=20))
        aorta: 8 of 8 cases
          scored
    """
    safe = (printable(line) for line in lines)
    return "\n".join(part for line in safe for part in (_wrapped(line, columns, "  ") if columns else [line]))


def _wrapped(line: str, columns: int, indent: str = "") -> list[str]:
    """A line broken at spaces; a word that is longer than a line stays whole."""
    if len(line) <= columns:
        return [line]
    return textwrap.wrap(
        line, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, tabsize=1
    )


def aligned(
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[int] = (),
    prose: Collection[int] = (),
    widest: int = 40,
    columns: int = COLUMNS,
) -> list[str]:
    """A table: one line for each row, columns under each other, in at most so many characters as a terminal has.

    Where it would be wider, columns of prose are broken into lines (not at a `NO_BREAK`), then texts lose their
    middle (or another part, where two of them would look alike), then the columns of numbers that do not fit stand
    below the others, after the same first columns.

    Args:
        rows: The fields of each row; the first row is the heading.
        right: The columns, from 0, that end at the right (numbers); they are never cut.
        prose: The columns that are broken into lines instead of losing their middle.
        widest: Characters of a field that is no prose; a longer one loses its middle.
        columns: Characters of a line.

    Example:
        >>> aligned([("case", "ml"), ("a\\x1b", "12.5"), ("bc", "3.0")], right=[1])
        ['case     ml', 'a\\\\x1b  12.5', 'bc      3.0']
        >>> aligned([("a case with a name", "12.5", "3.0")], right=[1, 2], columns=20)
        ['a ca…name  12.5  3.0']
        >>> aligned([("p1_scan_1_left", "1"), ("p1_scan_2_left", "2")], right=[1], columns=13)
        ['p1_scan_1…  1', 'p1_scan_2…  2']
    """
    by_column = [
        [_safe_prose(field) for field in column] if place in prose else _shortened(column, widest)
        for place, column in enumerate(zip(*rows, strict=True))
    ]
    widths = [max(map(len, column)) for column in by_column]
    words = {place: max(len(word) for field in by_column[place] for word in field.split(" ")) for place in prose}
    _shrink(widths, {place: max(_NARROWEST, longest) for place, longest in words.items()}, columns)
    texts = [place for place in range(len(widths)) if place not in right and place not in prose]
    _shrink(widths, dict.fromkeys(texts, _NARROWEST), columns)
    for place in texts:
        by_column[place] = _shortened(by_column[place], widths[place])
    fields = list(zip(*by_column, strict=True))
    heads = next((place for place in range(len(widths)) if place in right), len(widths))
    lines: list[str] = []
    for block in _blocks(widths, heads, columns):
        lines += [""] if lines else []
        lines += [line for row in fields for line in _row_lines(row, block, widths, right, prose)]
    return lines


NO_BREAK = "\N{NO-BREAK SPACE}"
"""A space in a column of prose at which no line ends."""
_GAP = "  "
"""Between two columns of a table."""
_NARROWEST = 8
"""Characters that are left of a column of texts of a table that is too wide."""


def _safe_prose(text: str) -> str:
    return NO_BREAK.join(map(printable, text.split(NO_BREAK)))


def _shortened(texts: Sequence[str], limit: int) -> list[str]:
    """Texts of at most so many characters that lose their middle; those that would look alike lose another part.

    Example:
        >>> _shortened(["patient_1_ed", "patient_1_es", "short"], 8)
        ['pati…_ed', 'pati…_es', 'short']
        >>> _shortened(["ward_7_scan_a", "ward_8_scan_a"], 8)
        ['ward_7_…', 'ward_8_…']
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for text in dict.fromkeys(texts):
        alike[one_line(text, limit=limit)].append(text)
    short = {texts[0]: shown_as for shown_as, texts in alike.items()}
    for group in (each for each in alike.values() if len(each) > 1):
        short |= dict(zip(group, _told_apart([one_line(text) for text in group], limit), strict=True))
    return [short[text] for text in texts]


def _told_apart(lines: Sequence[str], limit: int) -> list[str]:
    """Lines that differ where they lose their middle, cut so that most of them do not look alike."""
    heads = reversed(range(limit))
    cuts = [[f"{line[:head]}…{line[len(line) - limit + 1 + head :]}" for line in lines] for head in heads]
    first = next((place for place, signs in enumerate(zip(*lines, strict=False)) if len(set(signs)) > 1), 0)
    cuts.append([f"…{line[first : first + limit - 2]}…" for line in lines])
    return max(cuts, key=lambda cut: len(set(cut)))


def _shrink(widths: list[int], least: Mapping[int, int], columns: int) -> None:
    """Take characters off the widest of some columns, until the table fits or each has its least."""
    for _ in range(sum(widths) + len(_GAP) * (len(widths) - 1) - columns):
        wide = [place for place in least if widths[place] > least[place]]
        if not wide:
            return
        widest = max(wide, key=lambda place: widths[place])
        widths[widest] -= 1


def _blocks(widths: Sequence[int], heads: int, columns: int) -> list[list[int]]:
    """The columns of each block of a table: the heads, and as many others as fit behind them."""
    first = list(range(heads))
    blocks = [first.copy()]
    for place in range(heads, len(widths)):
        used = [*blocks[-1], place]
        if len(blocks[-1]) > heads and sum(widths[each] + len(_GAP) for each in used) - len(_GAP) > columns:
            blocks.append(first.copy())
        blocks[-1].append(place)
    return blocks


def _row_lines(
    row: Sequence[str], block: Sequence[int], widths: Sequence[int], right: Collection[int], prose: Collection[int]
) -> list[str]:
    """The lines of a row: one, or as many as its longest prose has."""
    cells = [_wrapped(row[place], widths[place]) if place in prose else [row[place]] for place in block]
    lines = []
    for parts in itertools.zip_longest(*cells, fillvalue=""):
        padded = (
            part.rjust(widths[place]) if place in right else part.ljust(widths[place])
            for place, part in zip(block, parts, strict=True)
        )
        lines.append(_GAP.join(padded).rstrip().replace(NO_BREAK, " "))
    return lines
