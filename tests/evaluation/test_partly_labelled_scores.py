"""Where less than half of a case is labelled, nothing is said about the organ, and a miss does not vanish."""

import json
import math

import numpy as np
import pytest

from medfcn.evaluation import Definitions, ScoreTable, compare_tables, evaluate, read_scores, summarise, write_scores
from medfcn.reporting.compose import report
from tests.evaluation.test_faces import EVERY_OPTION

DISTANCES = ("hd_mm", "hd95_mm", "assd_mm", "masd_mm")
VOLUMES = ("reference_ml", "prediction_ml", "volume_difference_ml", "volume_difference_percent")
LESIONS = ("lesions", "lesions_found", "lesions_false")
LABELS = "organ=1,ignore=255"
EVERYTHING = Definitions(lesions=True)


def volume(array):
    return array.astype(np.uint8), np.diag([1.0, 1.0, 2.0, 1.0])


def organ():
    mask = np.zeros((10, 10, 10), bool)
    mask[2:8, 2:8, 2:8] = True
    return mask


def scribbled(labelled):
    """The organ, of which so many voxels are labelled: 20 of them inside."""
    drawn = np.full(organ().size, 255)
    inside, outside = (np.flatnonzero(part) for part in (organ(), ~organ()))
    drawn[inside[:20]] = 1
    drawn[outside[: labelled - 20]] = 0
    return drawn.reshape(10, 10, 10)


def row_of(reference, prediction, definitions=EVERYTHING, case="a"):
    masks = {} if prediction is None else {case: volume(prediction)}
    others = {"other": volume(organ())}  # evaluate refuses references without any prediction
    rows = evaluate(masks | others, {case: volume(reference)} | others, labels=LABELS, definitions=definitions).rows
    return next(row for row in rows if row.case == case)


def test_strokes_have_an_overlap_and_nothing_that_is_the_organs():
    """Predicted is the organ and a far island, where nobody labelled anything."""
    found = organ()
    found[9, 9, 9] = True
    row = row_of(scribbled(40), found)
    assert row.status == "partly_labelled"
    assert (row.dice, row.precision, row.recall, row.specificity) == (1, 1, 1, 1)
    assert (row.labelled_voxels, row.voxels) == (40, 1000)
    for name in (*DISTANCES, *VOLUMES, *LESIONS, "nsd", "reference_at_edges", "prediction_at_edges"):
        assert math.isnan(getattr(row, name)), name


def test_half_is_enough():
    assert row_of(scribbled(499), organ()).status == "partly_labelled"
    row = row_of(scribbled(500), organ())
    assert (row.status, row.labelled_voxels, row.voxels) == ("ok", 0, 0)
    assert not any(math.isnan(getattr(row, name)) for name in (*DISTANCES, *VOLUMES, *LESIONS, "nsd"))


def test_so_do_slices_of_which_more_than_half_are_left_out():
    reference = organ().astype(np.uint8)
    reference[..., ::2] = 255
    assert row_of(reference, organ()).status == "ok"
    reference[..., 1] = 255
    row = row_of(reference, organ())
    assert (row.status, row.dice, row.labelled_voxels) == ("partly_labelled", 1.0, 400)


@pytest.mark.parametrize("settings", EVERY_OPTION)
def test_a_miss_or_a_false_prediction_does_not_vanish(settings):
    definitions = Definitions(**settings)
    away = ~organ()
    away[5:] = False
    right = row_of(scribbled(40), organ(), definitions)
    absent = np.where(scribbled(40) == 255, 255, 0)
    bad = {
        "prediction_missing": row_of(scribbled(40), None, definitions),
        "prediction_empty": row_of(scribbled(40), np.zeros_like(organ()), definitions),
        "reference_empty": row_of(absent, organ() | away, definitions),
    }
    for status, row in bad.items():
        assert (row.status, row.dice, row.nsd, row.voxels) == (status, 0, 0, 1000)
        assert all(math.isinf(getattr(row, name)) for name in DISTANCES)
        assert all(math.isnan(getattr(row, name)) for name in (*VOLUMES, *LESIONS))
    whole = row_of(organ(), organ(), definitions)
    for rows in ([whole], [right], [whole, right], list(bad.values())):
        before = summarise(rows, definitions)["organ"]
        for status, row in bad.items():
            for worse in ([*rows, row], [*rows[1:], row]):
                after = summarise(worse, definitions)["organ"]
                for metric in ("dice", "iou", "recall", "nsd"):
                    assert not after[metric].mean > before[metric].mean + 1e-12, (status, metric)
                assert after.distances["hd95_mm"].mean == math.inf
    assert row_of(absent, np.zeros_like(organ()), definitions).status == "both_empty"


def table(cases=3):
    references = {f"case_{number}": volume(organ() if number else scribbled(40)) for number in range(cases)}
    found = organ()
    found[7] = False
    predictions = {case: volume(found) for case in references}
    return evaluate(predictions, references, labels=LABELS, definitions=EVERYTHING)


def test_the_summary_says_on_how_many_voxels_it_stands(tmp_path):
    scored = table()
    label = scored.summary()["organ"]
    assert label["dice"].cases == label.scored == 3
    assert label["hd95_mm"].cases == label["nsd"].cases == label.volume.cases == 2
    text = scored.to_text()
    assert "Dice *" in text
    assert "NSD 1 mm *" not in text
    assert "3 of 3 cases scored, 0 missed" in text
    assert "1 partly labelled" in text
    assert "* less than half is labelled in 1 of 3 cases, 40 of 1,000 voxels (4 %): their overlaps" in text
    write_scores(scored, tmp_path)
    stored = json.loads((tmp_path / "summary.json").read_text())
    assert stored["labels"]["organ"]["partly_labelled"] == {"cases": 1, "labelled_voxels": 40, "voxels": 1000}
    assert "40 of 1,000 voxels" in stored["partly_labelled"]
    first = (tmp_path / "scores.csv").read_text().splitlines()[1].split(",")
    heading = (tmp_path / "scores.csv").read_text().splitlines()[0].split(",")
    values = dict(zip(heading, first, strict=True))
    assert values["status"] == "partly_labelled"
    assert (values["labelled_voxels"], values["voxels"]) == ("40", "1000")
    assert {values[name] for name in (*DISTANCES, *VOLUMES, *LESIONS, "nsd")} == {""}
    again = read_scores(tmp_path)
    assert again.summary().partly_labelled == scored.summary().partly_labelled
    assert again.to_text() == text


def test_a_table_of_whole_references_says_nothing_of_it(tmp_path):
    whole = evaluate({"a": volume(organ())}, {"a": volume(organ())}, labels=LABELS)
    write_scores(whole, tmp_path)
    assert "labelled_voxels" not in (tmp_path / "scores.csv").read_text()
    stored = json.loads((tmp_path / "summary.json").read_text())
    assert "partly_labelled" not in stored
    assert "partly_labelled" not in stored["labels"]["organ"]
    assert "partly" not in whole.to_text()


def test_a_label_that_only_other_cases_contain_is_empty_in_both_there_too():
    second = np.where(organ(), 2, 0)
    masks = {"a": volume(np.where(scribbled(40) == 255, 0, scribbled(40))), "b": volume(second)}
    references = {"a": volume(scribbled(40)), "b": volume(second)}
    rows = evaluate(masks, references, labels="one=1,two=2,ignore=255").rows
    assert [(row.status, row.voxels) for row in rows] == [
        ("partly_labelled", 1000),
        ("both_empty", 1000),
        ("both_empty", 0),
        ("ok", 0),
    ]


def test_the_report_says_so(tmp_path):
    found = {"a": volume(organ())}
    references = {"a": volume(scribbled(40))}
    scored = evaluate(found, references, labels=LABELS)
    page = report(found, references, tmp_path / "report.html", labels=LABELS, table=scored).read_text()
    assert "40 of 1,000 voxels" in page
    assert "◐ partly labelled" in page
    assert "Dice 1.000 of the labelled voxels" in page


def test_a_case_of_which_nothing_is_labelled_is_wholly_ignored_and_not_empty_in_both(tmp_path):
    nothing, empty = np.full((10, 10, 10), 255), np.zeros((10, 10, 10))
    found = {"a": volume(organ()), "b": volume(organ()), "c": volume(empty)}
    references = {"a": volume(organ()), "b": volume(nothing), "c": volume(empty)}
    scored = evaluate(found, references, labels=LABELS)
    assert "1 empty in both, 1 wholly ignored" in scored.to_text()
    stored = scored.summary().to_json()["labels"]["organ"]
    assert (stored["both_empty"], stored["wholly_ignored"]) == (2, 1)
    write_scores(scored, tmp_path)
    assert read_scores(tmp_path).summary()["organ"].wholly_ignored == 1
    page = report(found, references, tmp_path / "report.html", labels=LABELS, table=scored).read_text()
    assert "1 empty in both, 1 wholly ignored" in page
    assert "wholly ignored: nothing is labelled" in page


def test_the_report_says_of_strokes_what_is_known_of_strokes(tmp_path):
    """The mask is not empty: it is only empty where somebody drew."""
    elsewhere = np.zeros((10, 10, 10))
    elsewhere[scribbled(40) == 255] = 1
    found, references = {"a": volume(elsewhere)}, {"a": volume(scribbled(40))}
    scored = evaluate(found, references, labels=LABELS)
    assert scored.rows[0].status == "prediction_empty"
    page = report(found, references, tmp_path / "report.html", labels=LABELS, table=scored).read_text()
    assert "missed: none of the labelled voxels predicted" in page
    assert "mask empty" not in page


def test_a_comparison_counts_no_distance_of_strokes_and_says_so():
    found = compare_tables(table(), ScoreTable(table().rows, EVERYTHING))
    cases = {difference.metric: difference.cases for difference in found.differences}
    assert (cases["dice"], cases["hd95_mm"]) == (3, 2)
    assert any("less than half is labelled in 1 of 3 cases, 40 of 1,000 voxels" in note for note in found.notes)
