"""Words for people: text that is safe on one line, lists cut short, durations.

Text is escaped once, where it leaves: in the message of an error, in a line of progress, on the terminal, in a CSV
field. Code in between joins names and values as they are.
"""

import difflib
import os
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import PurePath

LONGEST_LINE = 600
"""Characters of a message; a longer one loses its middle, so that the file and the remedy stay."""

_OPEN_FILES = ("/dev/fd", "/proc/self/fd")
"""Where a shell puts the pipe of `<(…)`, under its number."""


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


_LONGEST_NAME = 200
"""Longer words are no misspelt names; comparing them would take their square in time and memory."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, else all of them.

    Example:
        >>> did_you_mean("fcn8", ["fcn8s", "fcn16s"]), did_you_mean("x", ["a", "b"])
        ("; did you mean 'fcn8s'?", '; known are a, b')
    """
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1) if len(name) <= _LONGEST_NAME else []
    return f"; did you mean {close[0]!r}?" if close else f"; known are {listed(names, limit=30)}"


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


_BOTH_FORMS = re.compile(r"\((--[a-z][\w-]*), [a-z_]+=[^(),]*\)")
"""The form of an option in a message for both readers, such as `(--overwrite, overwrite=True)`."""


def for_command(text: str) -> str:
    """A message for whoever types commands: options as they are typed, not as a library call takes them.

    Example:
        >>> for_command("masks: already exists; replace it (--overwrite, overwrite=True)")
        'masks: already exists; replace it (--overwrite)'
    """
    return _BOTH_FORMS.sub(r"(\1)", text)


def page(lines: Iterable[str]) -> str:
    """Lines of text, each made safe to print: what every `to_text` returns.

    Example:
        >>> page(["a", "b\\nc"])
        'a\\nb\\\\nc'
    """
    return "\n".join(printable(line) for line in lines)


def aligned(rows: Sequence[Sequence[str]], *, right: Collection[int] = (), widest: int = 40) -> list[str]:
    """A table: one line for each row, columns under each other.

    Args:
        rows: The fields of each row; the first row is the heading.
        right: The columns, from 0, that end at the right (numbers).
        widest: Characters of a field; a longer one loses its middle.

    Example:
        >>> aligned([("case", "ml"), ("a\\x1b", "12.5"), ("bc", "3.0")], right=[1])
        ['case     ml', 'a\\\\x1b  12.5', 'bc      3.0']
    """
    fields = [[one_line(field, limit=widest) for field in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*fields, strict=True)]
    return [
        "  ".join(
            field.rjust(width) if place in right else field.ljust(width)
            for place, (field, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in fields
    ]
