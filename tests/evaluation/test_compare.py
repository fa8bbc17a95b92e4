"""Comparing two tables of scores, and counting lesions one by one."""

import itertools
import json
import math
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.stats import rankdata, wilcoxon

from medfcn.cli import main
from medfcn.errors import DatasetError, MissingFileError, SettingsError
from medfcn.evaluation import (
    Definitions,
    LabelScores,
    LesionCounts,
    ScoreTable,
    compare,
    compare_tables,
    count_lesions,
    evaluate,
    masks_or_scores,
    write_scores,
)
from medfcn.evaluation.cohort import Cohort
from medfcn.evaluation.significance import holm
from medfcn.volumes import Volume


def table(dice, distances=None, definitions=None):
    distances = distances or [1.0] * len(dice)
    rows = tuple(
        LabelScores(f"case_{n:02}", "organ", "ok", *[d] * 5, 1.0, 1.0, *[h] * 4, d)
        for n, (d, h) in enumerate(zip(dice, distances, strict=True))
    )
    return ScoreTable(rows, definitions or Definitions())


def test_differences_are_paired_and_tested():
    random = np.random.default_rng(0)
    old = random.uniform(0.6, 0.9, size=30)
    new = old + random.normal(0.02, 0.02, size=30)
    change = compare_tables(table(list(new)), table(list(old)), metrics=["dice"]).differences[0]
    assert change.mean == pytest.approx((new - old).mean())
    assert change.mean_low < change.mean < change.mean_high
    assert change.mean_low > 0
    assert change.p_value == pytest.approx(wilcoxon(new - old).pvalue)
    assert change.better == int((new > old).sum())
    most = int(np.abs(new - old).argmax())
    assert change.moved[0].case == f"case_{most:02}"


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
@settings(max_examples=40)
def test_exchanging_the_tables_turns_the_differences_round(pairs):
    first, second = table([a for a, _ in pairs]), table([b for _, b in pairs])
    there = compare_tables(first, second, metrics=["dice"]).differences[0]
    back = compare_tables(second, first, metrics=["dice"]).differences[0]
    assert there.mean == pytest.approx(-back.mean)
    assert there.median == pytest.approx(-back.median)
    assert there.p_value == pytest.approx(back.p_value)
    assert there.p_corrected == pytest.approx(back.p_corrected)
    ends = (-back.mean_high, -back.mean_low)
    assert (there.mean_low, there.mean_high) == pytest.approx(ends, nan_ok=True, abs=1e-12)
    assert (there.better, there.worse, there.equal) == (back.worse, back.better, back.equal)


@given(st.lists(st.sampled_from([-0.3, -0.2, -0.1, 0.0, 0.1, 0.25]), min_size=1, max_size=60))
@settings(max_examples=30)
def test_p_is_scipys(changes):
    p_value = compare_tables(table([0.5 + c for c in changes]), table([0.5] * len(changes)), metrics=["dice"])
    moved = np.array([c for c in changes if c != 0])
    if not moved.size:
        expected = 1.0
    elif moved.size <= 6:
        signs = np.array(list(itertools.product((-1, 1), repeat=moved.size)))
        sums = (signs * rankdata(np.abs(moved))).sum(axis=1)
        at = (np.sign(moved) * rankdata(np.abs(moved))).sum()
        expected = min(1.0, 2 * min((sums <= at + 1e-9).mean(), (sums >= at - 1e-9).mean()))
    elif moved.size <= 13:
        return
    else:
        expected = wilcoxon(moved, method="approx").pvalue
    assert p_value.differences[0].p_value == pytest.approx(expected)


def test_a_table_does_not_differ_from_itself():
    same = table([0.5, 0.7], [math.inf, 3.0])
    for change in compare_tables(same, same).differences:
        assert (change.median, change.p_value, change.equal, change.moved) == (0.0, 1.0, 2, ())


def test_a_miss_in_one_table_is_an_infinite_change_and_no_mean():
    change = compare_tables(
        table([0.5] * 3, [math.inf, math.inf, 4.0]), table([0.5] * 3, [2.0, math.inf, 4.0]), metrics=["assd_mm"]
    ).differences[0]
    assert math.isnan(change.mean)
    assert (change.worse, change.better, change.equal) == (1, 0, 2)
    assert change.median == 0.0
    assert change.moved[0].first == math.inf


def test_cases_and_definitions_that_are_not_shared_are_said():
    comparison = compare_tables(table([0.5] * 3), table([0.5] * 2, definitions=Definitions(tolerance_mm=2)))
    text = comparison.to_text()
    assert "only in A (first), and left out: case_02" in text
    assert "differ in their definitions" in text
    json.dumps(comparison.to_json(), allow_nan=False)
    with pytest.raises(DatasetError, match="share no case"):
        compare_tables(table([0.5]), ScoreTable(()))


def test_labels_that_are_not_shared_are_said_and_their_cases_are_not_taken_for_lost():
    one, two = table([0.5] * 2), table([0.25] * 2)
    more = replace(one, rows=one.rows + tuple(replace(row, label="core") for row in one.rows))
    notes = compare_tables(more, two).notes
    assert "a label only in A (first), and left out: core" in notes
    assert not any("case_0" in note for note in notes)
    other = replace(two, rows=tuple(replace(row, label="3") for row in two.rows))
    with pytest.raises(DatasetError, match=r"second: 3\); give labels="):
        compare_tables(one, other)


def test_what_qualifies_the_scores_of_a_side_is_said_of_the_comparison(tmp_path):
    trained = "3 of 3 predictions are of training cases of the model; their scores say nothing of new ones: a, b, c"
    both = "the references also hold 9, which no label names: background here"
    ours, theirs = (replace(table(dices), notes=(both,)) for dices in ([0.5] * 3, [0.75] * 3))
    theirs = replace(theirs, notes=(both, trained))
    assert compare_tables(ours, theirs).notes == (f"A (first) and B (second): {both}", f"B (second): {trained}")
    write_scores(theirs, tmp_path / "scores")  # of a folder of scores too
    assert f"B (scores): {trained}" in compare(ours, tmp_path / "scores", tmp_path).notes


def test_sides_that_were_scored_by_other_references_are_said():
    one, other = table([0.5] * 3), table([0.75] * 3)
    assert not compare_tables(one, other).notes
    factors = {"case_01": 1.25}
    larger = tuple(
        replace(row, reference_ml=row.reference_ml * factors.get(row.case, 1 + 1e-9)) for row in other.rows
    )
    (note,) = compare_tables(one, replace(other, rows=larger)).notes
    assert note.startswith("the references of 1 case have other volumes on one side than on the other")
    assert "not scored by the same masks: case_01;" in note
    absent = tuple(replace(row, reference_ml=math.nan) for row in other.rows)  # little of the case is labelled
    assert not compare_tables(one, replace(other, rows=absent)).notes


def test_text_names_the_cases_that_moved():
    text = compare_tables(table([0.9, 0.5]), table([0.4, 0.5])).to_text()
    assert "Dice, the largest A − B: case_00 +0.500 (0.900 − 0.400)" in text


def test_masks_are_compared_with_masks_with_a_folder_of_scores_or_with_a_table(tmp_path):
    reference, right, wrong = np.zeros((3, 6, 6, 6), dtype=np.uint8)
    reference[1:4, 1:4, 1:4] = right[1:4, 1:4, 1:4] = wrong[1:4, 1:4, 1:3] = 1
    ours, theirs, references = (
        {case: (mask, np.eye(4)) for case in ("a", "b")} for mask in (right, wrong, reference)
    )
    definitions = Definitions(tolerance_mm=2.0)
    table = evaluate(theirs, references, labels="organ=1", definitions=definitions)
    write_scores(table, tmp_path / "scores")
    options = {"labels": "organ=1", "definitions": definitions}
    change = compare(ours, theirs, references, **options)
    assert change.differences[0].mean == pytest.approx(0.2)
    same = "one volume under several names counts several times; keep one of each: a = b (the same reference)"
    assert change.notes == (f"A (first) and B (second): {same}",)
    for scored in (table, tmp_path / "scores"):  # its definitions are the defaults
        again = compare(ours, scored, references, labels="organ=1", sides=("first", "second"))
        assert again.to_text() == change.to_text()
    assert compare(ours, theirs, references, cases=["b"], **options).differences[0].cases == 1


def test_masks_beside_scores_are_what_is_compared(tmp_path):
    mask = np.zeros((4, 4, 4), dtype=np.uint8)
    mask[1:3] = 1
    for folder in ("masks", "references"):
        (tmp_path / folder).mkdir()
        Volume(mask, np.eye(4)).save(tmp_path / folder / "a.nii.gz")
    stored = table([0.5])
    write_scores(stored, tmp_path / "masks")
    assert masks_or_scores(tmp_path / "masks") == tmp_path / "masks"
    right = evaluate(tmp_path / "masks", tmp_path / "references", labels="organ=1")
    change = compare(tmp_path / "masks", right, tmp_path / "references", labels="organ=1")
    assert change.differences[0].equal == 1
    (tmp_path / "masks" / "a.nii.gz").unlink()
    assert masks_or_scores(tmp_path / "masks").rows == stored.rows
    with pytest.raises(MissingFileError, match="nowhere"):
        compare(tmp_path / "nowhere", table([1.0]), tmp_path / "references")


@pytest.fixture
def broken_beside_whole(tmp_path):
    """Masks of seven cases, all right in `whole`; in `broken`, that of s5 is cut off and s6 has none."""
    mask = np.zeros((6, 6, 6), dtype=np.uint8)
    mask[1:4, 1:4, 1:4] = 1
    for folder in ("whole", "broken", "references"):
        (tmp_path / folder).mkdir()
        for number in range(6 if folder == "broken" else 7):
            own = mask.copy()
            own[4, 1:4, 2] = number % 2, number // 2 % 2, number // 4  # no two cases are alike
            Volume(own, np.eye(4)).save(tmp_path / folder / f"s{number}.nii.gz")
    broken = tmp_path / "broken" / "s5.nii.gz"
    broken.write_bytes(broken.read_bytes()[:40])
    return tmp_path


@pytest.mark.parametrize(("first", "second"), [("whole", "broken"), ("broken", "whole")], ids=["of B", "of A"])
def test_a_mask_that_cannot_be_read_is_a_miss_of_its_side_which_the_command_says(broken_beside_whole, first, second):
    folder, side = broken_beside_whole, "B" if second == "broken" else "A"
    words = ["evaluate", folder / first, folder / "references", "-o", folder / "out", "--labels", "organ=1"]
    words += ["--table", folder / f"{side}.csv"]
    done = CliRunner().invoke(main, [str(word) for word in [*words, "--no-report", "--compare", folder / second]])
    assert done.exit_code == 3, done.output
    assert f"({folder / first} alone; the comparison is in comparison.json)" in done.stdout
    stored = json.loads((folder / "out" / "comparison.json").read_text())
    dice = next(each for each in stored["differences"] if each["metric"] == "dice")
    won, lost = ("better", "worse") if side == "B" else ("worse", "better")
    assert (dice["cases"], dice[won], dice[lost], dice["equal"]) == (7, 2, 0, 5)
    assert dice["mean"] == pytest.approx(2 / 7 if side == "B" else -2 / 7)
    (failed,) = (note for note in stored["notes"] if "s5" in note)
    assert failed.startswith(f"{side} (broken): s5 counts as a miss, for its prediction cannot be used: ")
    assert "s5.nii.gz" in failed
    assert f"{side} (broken): without a usable mask, which counts as a miss: s6" in stored["notes"]
    assert all(note in " ".join(done.stdout.split()) for note in stored["notes"])
    # A folder of the scores says which cases had none, not why.
    scores = evaluate(folder / "broken", folder / "references", labels="organ=1")
    write_scores(scores, folder / "scores")
    notes = compare(folder / "whole", folder / "scores", folder / "references", labels="organ=1").notes
    without = "B (scores): without a usable mask, which counts as a miss: s5, s6"
    assert [note for note in notes if note.startswith("B (scores): without")] == [without]


def test_a_reference_that_cannot_be_read_is_said_of_both_sides(broken_beside_whole):
    folder = broken_beside_whole
    (folder / "references" / "s0.nii.gz").write_bytes(b"no mask")
    change = compare(folder / "whole", folder / "whole", folder / "references", labels="organ=1", sides=("a", "b"))
    assert change.differences[0].cases == 6
    for side, note in zip(("A (a)", "B (b)"), change.notes, strict=True):
        assert note.startswith(f"{side}: s0 was not scored, and no average counts it: ")
    assert [case for case, _ in change.failures] == ["s0", "s0"]


def test_misses_that_rows_lack_where_less_than_half_is_labelled_are_counted():
    def sided(statuses):
        found = {"partly_labelled": (0.8, math.nan, math.nan), "prediction_empty": (0.0, math.inf, 0.0)}
        values = [found[status] for status in statuses]
        return ScoreTable(
            tuple(
                LabelScores(
                    f"s{n}", "organ", status, *[d] * 5, 1.0, 1.0, *[mm] * 4, nsd, labelled_voxels=40, voxels=1000
                )
                for n, (status, (d, mm, nsd)) in enumerate(zip(statuses, values, strict=True))
            )
        )

    part, miss = "partly_labelled", "prediction_empty"
    first, second = sided([part, miss, miss, part, miss, part]), sided([part, part, part, miss, miss, part])
    comparison = compare_tables(first, second, sides=("new", "old"))
    assert [change.cases for change in comparison.differences] == [6, 1, 1, 1]
    assert comparison.notes[-1].startswith(
        "not in the rows of distances and NSD: 2 misses of A (new), 1 miss of B (old),"
    )
    assert comparison.notes[-1] in comparison.to_text()
    assert "not in the rows" not in compare_tables(first, second, metrics=["dice"]).to_text()
    assert "not in the rows" not in compare_tables(first, first).to_text()


def test_p_values_are_corrected_by_holm_as_by_hand():
    # Sorted, times 4, 3, 2 and 1: 0.02, 0.03, 0.06, 0.04; none below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.5, math.nan, 0.6]) == pytest.approx((1.0, math.nan, 1.0), nan_ok=True)
    assert holm([]) == ()
    dice, distance = [0.6, 0.7, 0.8, 0.9, 0.95, 0.96], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    new, old = table(dice, distance), table([d - 0.1 for d in dice], [7.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    comparison = compare_tables(new, old)
    # All six of Dice (and NSD) differ one way: 2 / 2^6, times 4 tests; one distance of six: p is 1.
    raw = [change.p_value for change in comparison.differences]
    assert raw == pytest.approx([2 / 64, 2 / 64, 1.0, 1.0])
    assert [change.p_corrected for change in comparison.differences] == pytest.approx([0.125, 0.125, 1.0, 1.0])
    few = "Holm, for 4 tests (labels × metrics); with 6 cases no p (Holm) can be below 0.125"
    assert comparison.to_json()["correction"] == few
    assert (
        compare_tables(new, old, metrics=["dice"]).definitions["correction"] == "Holm, for 1 test (labels × metrics)"
    )
    assert "0.0312     0.125" in comparison.to_text()


def test_two_cases_of_a_patient_are_one_piece_of_evidence():
    changes = [0.01, -0.02, 0.03, 0.04, 0.05, 0.06, 0.07]
    single = compare_tables(table([0.5 + c for c in changes]), table([0.5] * 7), metrics=["dice"]).differences[0]
    pairs = [(c, f"case_{n:02}") for n, c in enumerate(c for c in changes for _ in range(2))]
    cohort = Cohort.of_groups({case: f"p{int(case[-2:]) // 2}" for _, case in pairs})
    new = replace(table([0.5 + c for c, _ in pairs]), cohort=cohort)
    comparison = compare_tables(new, table([0.5] * 14), metrics=["dice"])
    doubled = comparison.differences[0]
    assert (doubled.cases, doubled.patients) == (14, 7)
    assert doubled.p_value == pytest.approx(single.p_value)
    assert (doubled.mean_low, doubled.mean_high) == pytest.approx((single.mean_low, single.mean_high))
    naive = compare_tables(replace(new, cohort=Cohort()), table([0.5] * 14), metrics=["dice"]).differences[0]
    assert naive.p_value < doubled.p_value / 5
    assert "14 cases of 7 patients" in comparison.to_text()
    whole = compare_tables(new, table([0.5] * 14)).definitions["correction"]
    assert whole.endswith("with 7 patients no p (Holm) can be below 0.0625")  # 4 tests of 2 / 2^7
    # Stated for either of the tables.
    other = compare_tables(table([0.5] * 14), new, metrics=["dice"]).differences[0]
    assert (other.p_value, other.patients) == (doubled.p_value, 7)


def test_sides_are_named_in_one_direction_everywhere(tmp_path):
    reference, right, wrong = np.zeros((3, 6, 6, 6), dtype=np.uint8)
    reference[1:4, 1:4, 1:4] = right[1:4, 1:4, 1:4] = wrong[1:4, 1:4, 1:3] = 1
    for place, mask in (("new/masks", right), ("old/masks", wrong), ("references", reference)):
        (tmp_path / place).mkdir(parents=True)
        Volume(mask, np.eye(4)).save(tmp_path / place / "a.nii.gz")
        if place == "new/masks":
            Volume(mask, np.eye(4)).save(tmp_path / place / "b.nii.gz")
    new, old, references = tmp_path / "new" / "masks", tmp_path / "old" / "masks", tmp_path / "references"
    there, back = (compare(*sides, references, labels="organ=1") for sides in ((new, old), (old, new)))
    assert there.to_json()["sides"] == {"A": "new/masks", "B": "old/masks"}
    for comparison, words in ((there, "new/masks − old/masks"), (back, "old/masks − new/masks")):
        text = comparison.to_text()
        assert text.startswith(f"A − B: {words}\n")
        assert comparison.to_json()["difference"].startswith(f"A − B: {words}")
        assert "first" not in text
        assert "second" not in text
    assert "a +0.200 (1.000 − 0.800)" in there.to_text()
    assert "a -0.200 (0.800 − 1.000)" in back.to_text()
    named = compare(new, old, references, labels="organ=1", sides=("with rotations", "without"))
    assert named.to_text().startswith("A − B: with rotations − without\n")


def flood(mask):
    """Components by flooding, one voxel after the other."""
    left = {tuple(int(i) for i in index) for index in np.argwhere(mask)}
    parts = []
    while left:
        front, part = [left.pop()], set()
        while front:
            voxel = front.pop()
            part.add(voxel)
            near = [other for other in left if max(abs(a - b) for a, b in zip(voxel, other, strict=True)) <= 1]
            left.difference_update(near)
            front += near
        parts.append(part)
    return parts


@given(st.data(), array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=6), st.sampled_from([0.0, 0.25, 0.5]))
@settings(max_examples=60)
def test_lesions_are_counted_as_by_flooding(data, shape, least):
    reference, prediction = (data.draw(arrays(bool, shape)) for _ in range(2))
    drawn = {tuple(int(i) for i in index) for index in np.argwhere(reference)}
    found = {tuple(int(i) for i in index) for index in np.argwhere(prediction)}
    lesions = flood(reference)
    expected = LesionCounts(
        len(lesions),
        sum(len(part & found) > least * len(part) for part in lesions),
        sum(not part & drawn for part in flood(prediction)),
    )
    assert count_lesions(reference, prediction, least_overlap=least) == expected


def test_a_share_that_cannot_be_is_refused():
    with pytest.raises(SettingsError):
        count_lesions([1], [1], least_overlap=1.0)


def test_lesions_are_counted_when_asked_for(tmp_path):
    drawn, found = np.zeros((2, 9, 9, 9), dtype=np.uint8)
    drawn[1, 1, 1] = drawn[5, 5, 5] = found[1, 1, 1] = found[7, 7, 7] = found[1, 7, 7] = 1
    masks = {"a": (drawn, np.eye(4)), "lost": (drawn, np.eye(4))}
    counted = evaluate({"a": (found, np.eye(4))}, masks, definitions=Definitions(lesions=True))
    assert [(row.lesions, row.lesions_found, row.lesions_false) for row in counted.rows] == [(2, 1, 2), (2, 0, 0)]
    assert counted.summary()["1"].lesions == LesionCounts(4, 1, 2)
    assert "1 of 4 lesions found, 2 false" in counted.to_text()
    write_scores(counted, tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["labels"]["1"]["lesions"]["recall"] == 0.25
    again = ScoreTable.from_csv(tmp_path / "scores.csv")
    assert again.summary()["1"].lesions == LesionCounts(4, 1, 2)
    plain = evaluate({"a": (found, np.eye(4))}, masks)
    assert math.isnan(plain.rows[0].lesions)
    assert plain.summary()["1"].lesions is None
