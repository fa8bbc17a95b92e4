"""A table of scores for a paper, as LaTeX, Markdown or CSV: mean ± SD, median [IQR], n, missed.

The caption defines every figure, so that it is not lost on the way into a manuscript.
"""

import html
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import numpy as np

from medfcn.errors import SettingsError
from medfcn.evaluation.estimates import mean_of, order_statistic
from medfcn.evaluation.score_table import ScoreTable
from medfcn.evaluation.scores import LabelScores
from medfcn.files import csv_bytes, make_folder, write_bytes
from medfcn.text import counted, listed, printable

_METRICS = {"dice": ("Dice", 3), "nsd": ("NSD", 3), "hd95_mm": ("HD95, mm", 2), "assd_mm": ("ASSD, mm", 2)}
_HEADINGS = ("Label", "Metric", "Mean ± SD", "Median [IQR]", "n", "Missed")
_COLUMNS = ("label", "metric", "mean", "sd", "median", "lower_quartile", "upper_quartile", "n", "missed")
_NOTHING = "–"


@dataclass(frozen=True)
class PaperRow:
    """One metric of one label over all cases.

    Attributes:
        label: The label's name.
        metric: A column of `scores.csv`: `dice`, `nsd`, `hd95_mm` or `assd_mm`.
        mean: Infinite for a distance after any miss; `nan` without cases, as are the other figures.
        sd: The standard deviation of a sample, over `n - 1`; `nan` with fewer than two cases or an infinite one.
        median: The middle value, with infinity as the largest number.
        lower_quartile: A quarter of the values are at most this.
        upper_quartile: Three quarters of the values are at most this.
        n: Cases with a value.
        missed: Cases without a prediction where one was needed.
    """

    label: str
    metric: str
    mean: float
    sd: float
    median: float
    lower_quartile: float
    upper_quartile: float
    n: int
    missed: int

    @property
    def words(self) -> tuple[str, ...]:
        """The fields of the table: label, metric, mean ± SD, median [IQR], n, missed."""
        title, digits = _METRICS[self.metric]
        middle = _NOTHING
        if self.n:
            lower, upper = _number(self.lower_quartile, digits), _number(self.upper_quartile, digits)
            middle = f"{_number(self.median, digits)} [{lower}, {upper}]"
        spread = _NOTHING if math.isnan(self.sd) else _number(self.sd, digits)
        mean = f"{_number(self.mean, digits)} ± {spread}" if self.n else _NOTHING
        return self.label, title, mean, middle, str(self.n), str(self.missed)


def paper_rows(table: ScoreTable) -> tuple[PaperRow, ...]:
    """Each metric of each label: Dice, NSD, HD95 and ASSD.

    Example:
        >>> rows = [LabelScores(case, "organ", "ok", value, *[0.5] * 11) for case, value in (("a", 0.8), ("b", 0.9))]
        >>> paper_rows(ScoreTable(tuple(rows)))[0].words
        ('organ', 'Dice', '0.850 ± 0.071', '0.850 [0.825, 0.875]', '2', '0')
    """
    by_label: dict[str, list[LabelScores]] = {}
    for row in table.rows:
        by_label.setdefault(row.label, []).append(row)
    return tuple(_row(label, metric, rows) for label, rows in by_label.items() for metric in _METRICS)


def _row(label: str, metric: str, rows: Sequence[LabelScores]) -> PaperRow:
    scored = (getattr(row, metric) for row in rows if row.is_scored)
    values = np.sort(np.array([value for value in scored if not math.isnan(value)], dtype=float))
    spreads = values.size > 1 and bool(np.isfinite(values).all())
    median, lower, upper = (order_statistic(values, share) for share in (0.5, 0.25, 0.75))
    return PaperRow(
        label,
        metric,
        mean_of(values),
        float(values.std(ddof=1)) if spreads else math.nan,
        median,
        lower,
        upper,
        n=values.size,
        missed=sum(row.is_miss for row in rows),
    )


def paper_caption(table: ScoreTable) -> str:
    """Everything that a reader needs to know about the figures, in sentences."""
    scored, patients = len(table.cases), table.cohort
    of_patients = f" of {counted(patients.count(table.cases), 'patient')}" if patients.is_clustered else ""
    return " ".join(_sentences(table, f"{counted(scored, 'case')}{of_patients}"))


def _sentences(table: ScoreTable, cases: str) -> Iterator[str]:
    yield f"Agreement with the reference in {cases}."
    yield (
        "SD: standard deviation over cases; IQR: first and third quartile; n: cases with a value; missed: cases "
        "without any predicted voxel where the reference has some."
    )
    yield "A miss, like a prediction where the reference is empty, has Dice and NSD 0 and an infinite distance."
    left_out = [row for row in table.rows if not row.is_scored]
    ignored = sum(row.is_wholly_ignored for row in left_out)
    if both_empty := len(left_out) - ignored:
        yield f"Left out, as both masks are empty: {counted(both_empty, 'label')} of a case."
    if ignored:
        yield f"Left out, as no voxel of the reference is labelled: {counted(ignored, 'label')} of a case."
    if partly := {row.case for row in table.rows if row.is_partly_labelled}:
        yield f"Of {counted(len(partly), 'case')} less than half is labelled: their Dice is of these voxels alone."
    if unscored := table.unscored:
        names = listed(case for case, _ in unscored)
        yield f"{counted(len(unscored), 'case')} could not be scored: {names}."
    yield f"{table.definitions.short()}; computed by medfcn {version('medfcn')}."


def write_paper_table(table: ScoreTable, path: str | os.PathLike[str]) -> None:
    """Write a table for a paper; an existing file is replaced whole.

    Args:
        table: The scores.
        path: `….tex` (a `table` that needs no package), `….md` or `….csv` (numbers; the caption is left out).

    Raises:
        SettingsError: The file has another ending.
        WriteError: It cannot be written.
    """
    content = _writer_of(path)(table)
    make_folder(Path(path).parent)
    write_bytes(Path(path), content)


def paper_text(table: ScoreTable, ending: str) -> str:
    """The same table as text.

    Args:
        table: The scores.
        ending: `.tex`, `.md` or `.csv`.
    """
    return _WRITERS[ending](table).decode()


def require_paper_format(path: str | os.PathLike[str]) -> None:
    """Refuse a file for which there is no format, before any work.

    Raises:
        SettingsError: The file does not end in `.tex`, `.md` or `.csv`.
    """
    _writer_of(path)


def _writer_of(path: str | os.PathLike[str]) -> Callable[[ScoreTable], bytes]:
    ending = Path(path).suffix.lower()
    if ending not in _WRITERS:
        raise SettingsError(
            f"{os.fspath(path)}: ends in {ending or 'nothing'!r}; expected a table in {listed(_WRITERS)}",
            field="table",
        )
    return _WRITERS[ending]


def _csv(table: ScoreTable) -> bytes:
    return csv_bytes(_COLUMNS, [[getattr(row, column) for column in _COLUMNS] for row in paper_rows(table)])


def _markdown(table: ScoreTable) -> bytes:
    lines = [_HEADINGS, ("---", "---", "--:", "--:", "--:", "--:"), *_grouped(table)]
    rows = ("| " + " | ".join(_in_markdown(field) for field in line) + " |" for line in lines)
    return "\n".join([*rows, "", paper_caption(table), ""]).encode()


def _in_markdown(text: str) -> str:
    return html.escape(printable(text), quote=False).replace("|", "\\|")


def _latex(table: ScoreTable) -> bytes:
    def line(fields: Sequence[str]) -> str:
        return " & ".join(map(_escaped, fields)) + r" \\"

    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escaped(paper_caption(table))}}}",
        r"\begin{tabular}{llrrrr}",
        r"\hline",
        line(_HEADINGS),
    ]
    for _, rows in groupby(_grouped(table, repeat=True), key=lambda fields: fields[0]):
        of_label = list(rows)
        lines += [r"\hline", line(of_label[0]), *(line(("", *fields[1:])) for fields in of_label[1:])]
    return "\n".join([*lines, r"\hline", r"\end{tabular}", r"\end{table}", ""]).encode()


_WRITERS: dict[str, Callable[[ScoreTable], bytes]] = {".tex": _latex, ".md": _markdown, ".csv": _csv}

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "∞": r"$\infty$",
    "–": "--",
}


def _escaped(text: str) -> str:
    """Text that LaTeX shows as it is.

    Example:
        >>> _escaped("left_lobe: 0.9 ± 0.1")
        'left\\\\_lobe: 0.9 $\\\\pm$ 0.1'
    """
    return "".join(_LATEX.get(character, character) for character in printable(text))


def _grouped(table: ScoreTable, *, repeat: bool = False) -> list[tuple[str, ...]]:
    """The fields of all rows; a label's name stands in its first row only, unless `repeat`."""
    first = next(iter(_METRICS))
    rows = paper_rows(table)
    return [row.words if repeat or row.metric == first else ("", *row.words[1:]) for row in rows]


def _number(value: float, digits: int) -> str:
    return "∞" if math.isinf(value) else f"{value:.{digits}f}"
