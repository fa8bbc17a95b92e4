"""Tables for a paper: right figures, nothing that flatters, text that LaTeX and Markdown show as it is."""

import csv
import math
import statistics

import pytest
from click.testing import CliRunner

from medfcn.cli import main
from medfcn.errors import SettingsError
from medfcn.evaluation import LabelScores, ScoreTable, write_paper_table
from medfcn.evaluation.cohort import Cohort
from medfcn.evaluation.paper_table import paper_caption, paper_rows

DICE = {"a": 0.9, "b": 0.8, "c": 0.85, "d": 0.7}


def scored(case, dice, label="left_organ", status="ok", distance=1.5):
    return LabelScores(case, label, status, dice, *[0.5] * 6, distance, distance, distance, distance, dice)


def table(*more, cohort=None):
    rows = (*(scored(case, dice) for case, dice in DICE.items()), *more)
    return ScoreTable(rows, cohort=cohort or Cohort())


def test_figures_are_those_of_the_cases():
    row = paper_rows(table())[0]
    assert math.isclose(row.mean, statistics.mean(DICE.values()))
    assert math.isclose(row.sd, statistics.stdev(DICE.values()))
    assert (row.n, row.missed) == (4, 0)
    assert row.words[2:4] == ("0.812 ± 0.085", "0.825 [0.775, 0.863]")


def test_a_miss_counts_in_every_column():
    dice, _, hd95, _ = paper_rows(table(scored("e", 0.0, status="prediction_missing", distance=math.inf)))
    assert (dice.n, dice.missed) == (5, 1)
    assert dice.mean < paper_rows(table())[0].mean
    assert hd95.words[2] == "∞ ± –"
    assert hd95.words[3] == "1.50 [1.50, 1.50]"


def test_the_caption_says_what_the_figures_are():
    empty = scored("e", math.nan, status="both_empty", distance=math.nan)
    twice = Cohort.of_groups({"a": "P1", "b": "P1", "c": "P2", "d": "P3", "e": "P3"})
    caption = paper_caption(table(empty, cohort=twice))
    for words in ("5 cases of 3 patients", "1 label of a case", "NSD within 1 mm", "A miss", "computed by medfcn"):
        assert words in caption
    assert paper_rows(table(empty))[0].n == 4


def test_markdown_and_csv(tmp_path):
    write_paper_table(table(scored("a", 0.5, label="<b>x|y")), tmp_path / "t.md")
    lines = (tmp_path / "t.md").read_text().splitlines()
    assert lines[2] == "| left_organ | Dice | 0.812 ± 0.085 | 0.825 [0.775, 0.863] | 4 | 0 |"
    assert lines[6].startswith("| &lt;b&gt;x\\|y | Dice | 0.500 ± – |")
    write_paper_table(table(), tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert float(first["sd"]) == pytest.approx(statistics.stdev(DICE.values()))


def test_latex_shows_names_as_they_are(tmp_path):
    write_paper_table(table(scored("a", 0.5, label="50%_{x}\\input{y}")), tmp_path / "t.tex")
    text = (tmp_path / "t.tex").read_text()
    assert r"left\_organ & Dice & 0.812 $\pm$ 0.085" in text
    assert r"50\%\_\{x\}\textbackslash{}input\{y\}" in text
    assert text.count(r"\begin") == text.count(r"\end") == 2
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in rows} == {5}
    assert text.isascii()


def test_another_ending_is_refused_before_any_work(tmp_path):
    with pytest.raises(SettingsError, match=r"t\.docx: ends in '\.docx'; expected a table in \.tex, \.md, \.csv"):
        write_paper_table(table(), tmp_path / "t.docx")
    nowhere = ["evaluate", str(tmp_path), str(tmp_path), "-o", f"{tmp_path}/scores", "--table", "t.docx"]
    result = CliRunner().invoke(main, nowhere)
    assert result.exit_code == 2
    assert "expected a table in" in result.output
    assert not (tmp_path / "scores").exists()
