"""Summaries of many cases: a miss never improves them, and the order of cases does not matter."""

import dataclasses
import json
import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from medfcn.errors import DatasetError, MissingFileError, OutputExistsError
from medfcn.evaluation import Definitions, LabelScores, ScoreTable, summarise, write_scores
from medfcn.evaluation.cohort import Cohort
from medfcn.evaluation.estimates import order_statistic

SHARE = st.floats(0, 1)
LENGTH = st.floats(0, 200)


def ok_row(case, share, length, label="organ"):
    return LabelScores(
        case, label, "ok", *[share] * 5, 10.0, 10.0 * share, *[length] * 4, share, 10 * share - 10, 100 * share - 100,
        round(1000 * share), 3, 1000 - round(1000 * share), 250.0,
    )  # fmt: skip


def missed_row(case, status="prediction_empty", label="organ"):
    empty = status == "prediction_empty"
    return LabelScores(
        case, label, status, 0.0, 0.0, math.nan, 0.0, 1.0 if empty else math.nan, 10.0, 0.0 if empty else math.nan,
        *[math.inf] * 4, 0.0, -10.0 if empty else math.nan, -100.0 if empty else math.nan, 0, 0, 1000, 250.0,
    )  # fmt: skip


def both_empty_row(case, label="organ"):
    return LabelScores(
        case, label, "both_empty", *[math.nan] * 4, 1.0, 0.0, 0.0, *[math.nan] * 5, 0.0, math.nan, 0, 0, 0, 250.0
    )


def false_row(case, label="organ"):
    return LabelScores(
        case, label, "reference_empty", 0.0, 0.0, 0.0, math.nan, 0.9, 0.0, 5.0, *[math.inf] * 4, 0.0, 5.0, math.nan,
        0, 500, 0, 250.0,
    )  # fmt: skip


@st.composite
def tables(draw, min_size=0):
    kinds = draw(
        st.lists(st.sampled_from(["ok"] * 4 + ["missed", "missing", "both", "false"]), min_size=min_size, max_size=12)
    )
    rows = []
    for number, kind in enumerate(kinds):
        case = f"case_{number:02}"
        rows.append(
            {
                "ok": lambda case=case: ok_row(case, draw(SHARE), draw(LENGTH)),
                "missed": lambda case=case: missed_row(case),
                "missing": lambda case=case: missed_row(case, "prediction_missing"),
                "both": lambda case=case: both_empty_row(case),
                "false": lambda case=case: false_row(case),
            }[kind]()
        )
    return rows


def no_better(before, after, *, smaller_is_better):
    """`after` is no better than `before`; a number where there was none is no improvement."""
    if math.isnan(before):
        return True
    return after >= before - 1e-12 if smaller_is_better else after <= before + 1e-12


@given(tables(min_size=1), st.sampled_from(["prediction_empty", "prediction_missing"]))
def test_a_further_miss_never_improves_a_summary(rows, status):
    before = summarise(rows, Definitions())["organ"]
    after = summarise([*rows, missed_row("zz_missed", status)], Definitions())["organ"]
    for metric in ("dice", "iou", "recall", "nsd"):
        for figure in ("mean", "median", "worst"):
            old, new = getattr(before.shares[metric], figure), getattr(after.shares[metric], figure)
            assert no_better(old, new, smaller_is_better=False), (metric, figure)
    for metric, old_distance in before.distances.items():
        for figure in ("mean", "median", "lower_quartile", "upper_quartile", "worst"):
            old, new = getattr(old_distance, figure), getattr(after.distances[metric], figure)
            assert no_better(old, new, smaller_is_better=True), (metric, figure)
    for metric in ("dice", "iou", "recall", "f1"):
        assert no_better(before.micro[metric], after.micro[metric], smaller_is_better=False)
    assert after.missed == before.missed + 1


@given(tables(min_size=1), st.floats(0, 1000))
def test_a_further_miss_never_improves_a_penalised_mean(rows, penalty):
    for penalty_mm in ("diagonal", penalty):
        before = summarise(rows, Definitions(), penalty_mm=penalty_mm)["organ"].distances["hd_mm"].penalised_mean
        more = [*rows, missed_row("zz")]
        after = summarise(more, Definitions(), penalty_mm=penalty_mm)["organ"].distances["hd_mm"].penalised_mean
        assert no_better(before, after, smaller_is_better=True)
        assert math.isfinite(after)


@given(tables(), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_the_order_of_cases_changes_nothing(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    first, second = (json.dumps(summarise(table, Definitions()).to_json()) for table in (rows, shuffled))
    assert first == second


@given(tables(min_size=1))
@settings(max_examples=40)
def test_intervals_hold_the_mean_and_stay_within_the_values(rows):
    for share in summarise(rows, Definitions())["organ"].shares.values():
        if share.cases < 5:
            assert math.isnan(share.mean_low)
            assert math.isnan(share.median_high)
        else:
            assert share.worst - 1e-12 <= share.mean_low <= share.mean + 1e-12
            assert share.mean - 1e-12 <= share.mean_high <= 1 + 1e-12
            assert share.median_low <= share.median <= share.median_high


def test_interval_is_that_of_theory_for_many_cases():
    random = np.random.default_rng(0)
    values = random.normal(0.8, 0.05, size=400).clip(0, 1)
    share = summarise([ok_row(f"{n:03}", v, 1.0) for n, v in enumerate(values)], Definitions())["organ"].shares[
        "dice"
    ]
    half = 1.96 * values.std() / 20
    assert share.mean_low == pytest.approx(values.mean() - half, abs=half / 6)
    assert share.mean_high == pytest.approx(values.mean() + half, abs=half / 6)


@given(st.lists(LENGTH, min_size=1, max_size=20), st.floats(0, 1))
def test_order_statistic_is_numpys_quantile_where_all_is_finite(values, share):
    values = np.sort(values)
    assert order_statistic(values, share) == pytest.approx(np.quantile(values, share), abs=1e-9)


def test_order_statistics_count_infinity_as_the_largest_and_are_never_nan():
    assert order_statistic(np.array([1.0, math.inf]), 0.5) == math.inf
    assert order_statistic(np.array([1.0, 2.0, math.inf]), 0.5) == 2.0
    assert order_statistic(np.array([math.inf, math.inf]), 0.25) == math.inf


def test_counts_say_who_was_scored_missed_false_and_empty():
    rows = [
        ok_row("a", 0.9, 1.0),
        missed_row("b"),
        missed_row("c", "prediction_missing"),
        both_empty_row("d"),
        false_row("e"),
    ]
    organ = summarise(rows, Definitions())["organ"]
    assert (organ.cases, organ.scored, organ.missed, organ.missing, organ.false, organ.both_empty) == (
        5,
        4,
        2,
        1,
        1,
        1,
    )
    assert organ.shares["dice"].cases == 4
    assert organ.shares["dice"].mean == pytest.approx(0.9 / 4)
    assert organ.shares["recall"].cases == 3
    assert organ.distances["hd_mm"].mean == math.inf


def test_all_empty_cases_have_no_score_rather_than_a_perfect_or_a_zero_one():
    organ = summarise([both_empty_row("a"), both_empty_row("b")], Definitions())["organ"]
    assert math.isnan(organ.shares["dice"].mean)
    assert math.isnan(organ.distances["hd95_mm"].mean)
    assert organ.scored == 0


def test_macro_is_the_mean_of_labels_and_micro_pools_voxels():
    rows = [ok_row("a", 0.5, 1.0, "left"), ok_row("a", 1.0, 3.0, "right")]
    summary = summarise(rows, Definitions())
    assert summary.macro["dice"] == pytest.approx(0.75)
    assert summary.macro["assd_mm"] == pytest.approx(2.0)
    assert summary.micro["recall"] == pytest.approx(1500 / 2000)
    assert summary["left"].reference_voxels == 1000


def test_a_table_comes_back_from_its_file(tmp_path):
    rows = (ok_row("=cmd|'/c calc'!A1", 0.123456789, 7.0), missed_row("@b"), both_empty_row("-c"), false_row("'d"))
    table = ScoreTable(rows, Definitions(tolerance_mm=3.0))
    write_scores(table, tmp_path)
    read = ScoreTable.from_csv(tmp_path / "scores.csv")
    assert read.definitions == table.definitions
    for before, after in zip(table.rows, read.rows, strict=True):
        for column in dataclasses.fields(LabelScores):
            old, new = getattr(before, column.name), getattr(after, column.name)
            assert new == (old if isinstance(old, str) else pytest.approx(old, nan_ok=True)), column.name


def test_no_field_of_the_file_is_a_formula(tmp_path):
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "a\nb", "x\x1b[2J"]
    write_scores(ScoreTable(tuple(ok_row(name, 0.5, 1.0, label=name) for name in names)), tmp_path)
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert len(lines) == 1 + len(names)
    for line in lines[1:]:
        case, label = line.split(",")[:2]
        assert case[0] not in "=+-@\t\r"
        assert label[0] not in "=+-@\t\r"
        assert line.isprintable()


def test_nan_is_empty_and_infinity_is_inf_in_the_file_and_null_and_inf_in_json(tmp_path):
    write_scores(ScoreTable((missed_row("b"), both_empty_row("c"))), tmp_path)
    missed, empty = (line.split(",") for line in (tmp_path / "scores.csv").read_text().splitlines()[1:])
    assert missed[5] == ""
    assert missed[10] == "inf"
    assert empty[3] == empty[10] == ""
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["labels"]["organ"]["distances"]["hd_mm"]["mean"] == "inf"
    assert summary["labels"]["organ"]["shares"]["precision"]["mean"] == 0
    assert summary["definitions"]["tolerance_mm"] == 1.0


def test_scores_are_not_written_over(tmp_path):
    table = ScoreTable((ok_row("a", 0.5, 1.0),))
    write_scores(table, tmp_path)
    with pytest.raises(OutputExistsError):
        write_scores(table, tmp_path)
    write_scores(table, tmp_path, overwrite=True)


def test_a_file_that_is_no_table_of_scores_is_refused_in_one_line(tmp_path):
    path = tmp_path / "scores.csv"
    with pytest.raises(MissingFileError):
        ScoreTable.from_csv(path)
    for text, said in (
        ("a,b\n1,2\n", "column"),
        ("case,label,status,dice\nx,y,ok,high\n", "dice"),
        ("case,label,status\nx,y,fine\n", "status"),
        ("case,label,status,dice\nx,y,ok,1.5\n", "dice is '1.5'; expected a number that a score can have"),
        ("case,label,status,dice\nx,y,ok,\n", "a number where the status is ok"),
        ("case,label,status,dice\nx,y,ok\n", "line 2: has fewer fields than the heading"),
        ("case,label,status,dice\nx,y,ok,0.5,0.6\n", "line 2: has more fields than the heading"),
        ("case,label,status,dice\nx,y,ok,0.5\nx,y,ok,0.9\n", "the case and label 'x y' is given twice"),
        ("case,label,status,dice,dice\nx,y,ok,0.5,0.9\n", "the column 'dice' is given twice"),
    ):
        path.write_text(text)
        with pytest.raises(DatasetError, match=said) as error:
            ScoreTable.from_csv(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("summary", "said"),
    [("{", "not JSON"), ("[]", "expected object"), ('{"definitions": {"tolerance_mm": "5"}}', "tolerance_mm")],
)
def test_scores_of_which_the_definitions_cannot_be_read_are_refused(summary, said, tmp_path):
    write_scores(ScoreTable((ok_row("a", 0.9, 1.0),)), tmp_path)
    (tmp_path / "summary.json").write_text(summary)
    with pytest.raises(DatasetError, match=rf"summary\.json: .*{said}.*; evaluate again, or remove it"):
        ScoreTable.from_csv(tmp_path / "scores.csv")
    (tmp_path / "summary.json").write_text('{"labels": "of another tool"}')
    assert ScoreTable.from_csv(tmp_path / "scores.csv").definitions == Definitions()


def test_text_names_the_worst_case_the_missed_and_the_definition():
    rows = [ok_row("good", 0.9, 1.0), ok_row("poor", 0.4, 9.0), missed_row("lost", "prediction_missing")]
    text = ScoreTable(tuple(rows), Definitions(tolerance_mm=2.0), notes=("a note",)).to_text()
    assert "NSD 2 mm" in text
    assert "lost" in text
    assert "3 of 3 cases scored, 1 missed (1 without a usable file)" in text
    assert "NSD within 2 mm" in text
    assert "a note" in text


def test_the_star_of_a_label_is_explained_where_it_is_printed():
    whole = ok_row("whole", 0.9, 1.0)
    part = dataclasses.replace(ok_row("part", 0.9, 1.0), status="partly_labelled", labelled_voxels=40, voxels=1000)
    explained = "* less than half of some cases is labelled"
    text = ScoreTable((whole, part)).to_text(all_metrics=False)
    assert "organ *" in text
    assert text.count(explained) == 1
    assert explained not in ScoreTable((whole,)).to_text(all_metrics=False)


@pytest.mark.parametrize("all_metrics", [True, False])
def test_a_dash_in_place_of_an_interval_has_its_reason_once(all_metrics):
    rows = [ok_row(f"{n}", 0.5 + n / 10, 1.0, label) for n in range(4) for label in ("left", "right")]
    reason = "– in place of an interval: it needs 5 cases or more."
    assert ScoreTable(tuple(rows)).to_text(all_metrics=all_metrics).count(reason) == 1
    rows += [ok_row("4", 0.9, 1.0, label) for label in ("left", "right")]
    assert "in place of an interval" not in ScoreTable(tuple(rows)).to_text(all_metrics=all_metrics)
    pairs = Cohort.of_groups({f"{n}": f"p{n // 2}" for n in range(5)})
    text = ScoreTable(tuple(rows), cohort=pairs).to_text(all_metrics=all_metrics)
    assert "it needs 5 patients or more" in text


def test_a_terminal_is_not_steered_by_names():
    text = ScoreTable((ok_row("\x1b[2Jcase", 0.5, 1.0, "\x1b]0;title\x07"),), notes=("\x1b[31m",)).to_text()
    assert all(line.isprintable() for line in text.splitlines())


def test_worst_cases_come_first():
    rows = (ok_row("a", 0.9, 1.0), missed_row("b"), ok_row("c", 0.4, 9.0), both_empty_row("d"))
    assert [row.case for row in ScoreTable(rows).worst_first()] == ["b", "c", "a"]
    assert [row.case for row in ScoreTable(rows).worst_first("hd95_mm")] == ["b", "c", "a"]
