"""Folders of masks: matched by id, missing ones counted, values read as what they mean."""

import csv
import gzip
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from medfcn.cli import main
from medfcn.errors import DatasetError, LabelError, MedfcnError, MissingFileError, SettingsError
from medfcn.evaluation import Definitions, ScoreTable, compare, evaluate, hausdorff_mm, nsd, score_case, write_scores
from medfcn.labels import IGNORED, LabelEntry, LabelMap
from medfcn.progress import Lines
from medfcn.volumes import Volume
from tests.slices.stored_orders import ORDERS, stored_in
from tests.volumes.hostile import put

AFFINE = np.diag([1.0, 1.5, 2.0, 1.0])
HIPPOCAMPUS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "hippocampus"


def organ(shift=0, values=(1, 2)):
    mask = np.zeros((14, 12, 10), dtype=np.uint8)
    mask[3:7, 3:9, 2 + shift : 6 + shift] = values[0]
    mask[7:11, 3:9, 2 + shift : 6 + shift] = values[1]
    return mask


def save(folder, case, mask, *, labels=None, affine=AFFINE):
    folder.mkdir(parents=True, exist_ok=True)
    Volume(mask, affine).save(folder / f"{case}.nii.gz")
    if labels is not None:
        (folder / f"{case}.json").write_text(json.dumps({"labels": labels.to_json()}))


def test_cases_are_matched_by_id_and_the_missing_are_misses(tmp_path):
    for case in "abc":
        save(tmp_path / "references", case, organ())
    save(tmp_path / "predictions", "b", organ(1))
    save(tmp_path / "predictions", "stray", organ(1))
    table = evaluate(tmp_path / "predictions", tmp_path / "references", labels="front=1,back=2")
    status = {(row.case, row.label): row.status for row in table.rows}
    assert status == {
        **{(case, label): "prediction_missing" for case in "ac" for label in ("front", "back")},
        ("b", "front"): "ok",
        ("b", "back"): "ok",
    }
    text = table.to_text()
    assert "no prediction for 2 of 3 references; each counts as a miss of every label: a, c" in text
    assert "no reference for 1 of the predictions, left out: stray" in text
    assert table.summary()["front"].missed == 2
    assert table.rows[0].dice == 0
    assert table.rows[0].hd_mm == math.inf


def test_a_missing_prediction_is_a_miss_even_where_the_reference_is_empty(tmp_path):
    reference = Volume(np.zeros((3, 3, 3), dtype=np.uint8), AFFINE)
    (row,) = score_case(None, reference, LabelMap.parse("organ=1"), case="a")
    assert (row.status, row.dice, row.nsd, row.assd_mm) == ("prediction_missing", 0.0, 0.0, math.inf)
    assert math.isnan(row.recall)


def test_a_row_holds_what_the_functions_on_arrays_give():
    drawn, found = organ(0, (1, 1)), organ(2, (1, 1))
    (row,) = score_case(Volume(found, AFFINE), Volume(drawn, AFFINE), LabelMap.parse("organ=1"), tolerance_mm=2.0)
    spacing = (1.0, 1.5, 2.0)
    assert row.status == "ok"
    assert row.hd_mm == hausdorff_mm(drawn == 1, found == 1, spacing)
    assert row.hd95_mm == hausdorff_mm(drawn == 1, found == 1, spacing, percentile=95)
    assert row.nsd == nsd(drawn == 1, found == 1, spacing, tolerance_mm=2.0)
    assert row.reference_ml == pytest.approx(192 * 3.0 / 1000)
    assert row.volume_difference_ml == pytest.approx(0)
    assert row.diagonal_mm == pytest.approx(math.hypot(13, 11 * 1.5, 18))


def test_definitions_change_what_is_measured():
    drawn, found = Volume(organ(0), AFFINE), Volume(organ(1), AFFINE)
    labels = LabelMap.parse("front=1,back=2")
    voxels = score_case(found, drawn, labels, definitions=Definitions(nsd_boundary="voxels", pooled_hd95=True))
    elements = score_case(found, drawn, labels, definitions=Definitions(boundary="elements"))
    assert voxels[0].assd_mm != elements[0].assd_mm
    assert voxels[0].nsd != elements[0].nsd


def test_a_sheared_grid_is_measured_in_space():
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[0, 1] = 1.0
    drawn, found = np.zeros((2, 4, 4, 4), dtype=np.uint8)
    drawn[2, 0, 0] = found[1, 1, 0] = 1
    (row,) = score_case(Volume(found, affine), Volume(drawn, affine), LabelMap.parse("organ=1"))
    assert row.hd_mm == pytest.approx(1.0)  # (-1, 1) on the grid is (0, 1) in space, not the root of 3 or 2


def test_another_grid_is_a_failure_that_is_named_and_the_folder_goes_on(tmp_path):
    for case in "ab":
        save(tmp_path / "references", case, organ())
    save(tmp_path / "predictions", "a", organ()[:-1])
    save(tmp_path / "predictions", "b", organ())
    table = evaluate(tmp_path / "predictions", tmp_path / "references")
    assert [case for case, _ in table.failures] == ["a"]
    of_one = [(row.case, row.status, row.dice) for row in table.rows if row.label == "1"]
    assert of_one == [("a", "prediction_missing", 0), ("b", "ok", 1)]
    said = table.to_text()
    places = [tmp_path / folder / "a.nii.gz" for folder in ("predictions", "references")]
    shapes = [organ()[:-1].shape, organ().shape]
    assert (
        f"a counts as a miss, for its prediction cannot be used: the prediction {places[0]}, shape {shapes[0]}, is "
        f"on another grid than the reference {places[1]}, shape {shapes[1]}; resample it to the reference's grid"
    ) in said
    assert (
        "1: 2 of 2 cases scored, 1 missed (1 without a usable file), 0 predicted where the reference is empty, "
        "0 empty in both"
    ) in said
    assert table.summary()["1"].shares["dice"].mean == 0.5
    write_scores(table, tmp_path / "out")
    with (tmp_path / "out" / "failures.csv").open() as file:
        assert [row["case"] for row in csv.DictReader(file)] == ["a"]


@pytest.mark.parametrize(("field", "value", "option"), [("srow", 9.0, "--xform sform"), ("code", 0, "--assume-grid")])
def test_masks_of_odd_headers_are_scored_with_the_option_that_is_named(field, value, option, tmp_path):
    """A mask has its image's header, so that what `predict` was told `evaluate` needs to be told."""
    for folder, mask in (("references", organ()), ("predictions", organ(1))):
        save(tmp_path / folder, "a", mask)
        path = tmp_path / folder / "a.nii.gz"
        raw = gzip.decompress(path.read_bytes())
        raw = put(raw, "srow", value, at=3) if field == "srow" else put(put(raw, "qform_code", 0), "sform_code", 0)
        path.write_bytes(gzip.compress(raw))
    words = ["evaluate", str(tmp_path / "predictions"), str(tmp_path / "references"), "-o"]
    refused = CliRunner().invoke(main, [*words, str(tmp_path / "refused")])
    assert option in refused.output
    done = CliRunner().invoke(main, [*words, str(tmp_path / "scores"), *option.split(), "--labels", "a=1,b=2"])
    assert done.exit_code == 0, done.output
    expected = evaluate({"a": (organ(1), AFFINE)}, {"a": (organ(), AFFINE)}, labels="a=1,b=2").rows
    with (tmp_path / "scores" / "scores.csv").open() as file:
        assert [float(row["dice"]) for row in csv.DictReader(file)] == [row.dice for row in expected]
    page = (tmp_path / "scores" / "report.html").read_text()
    assert "is not shown" not in page


def test_predictions_in_any_of_the_48_orders_are_scored_alike(tmp_path):
    reference, prediction = organ(), organ(1)
    prediction[4, 4:6, 8] = 1
    affine = AFFINE @ np.array([[0.8, -0.6, 0, 3], [0.6, 0.8, 0, 5], [0, 0, 1, 7], [0, 0, 0, 1]])
    for number, order in enumerate(ORDERS):
        save(tmp_path / "references", f"c{number:02d}", reference, affine=affine)
        array, place = stored_in(prediction, affine, order)
        save(tmp_path / "predictions", f"c{number:02d}", array, affine=place)
    table = evaluate(tmp_path / "predictions", tmp_path / "references", definitions=Definitions(lesions=True))
    assert not table.failures
    first = {row.label: replace(row, case="") for row in table.rows if row.case == "c00"}
    assert all(replace(row, case="") == first[row.label] for row in table.rows)
    assert 0.5 < first["1"].dice < 1.0
    assert any(
        note.startswith("47 predictions re-ordered to the axes of the reference: c01, c02") for note in table.notes
    )
    moved = affine.copy()
    moved[:3, 3] += affine[:3, 0]
    array, place = stored_in(prediction, moved, ORDERS[11])
    save(tmp_path / "moved", "c00", array, affine=place)
    failures = evaluate(tmp_path / "moved", tmp_path / "references", cases=["c00"]).failures
    assert "is on another grid than the reference" in failures[0][1]


def test_a_broken_file_is_a_failure(tmp_path):
    for case in "ab":
        save(tmp_path / "references", case, organ())
        save(tmp_path / "predictions", case, organ())
    path = tmp_path / "predictions" / "b.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    table = evaluate(tmp_path / "predictions", tmp_path / "references")
    assert [case for case, _ in table.failures] == ["b"]


def test_values_found_are_the_labels_and_absent_ones_are_empty_in_both(tmp_path):
    save(tmp_path / "references", "a", organ(values=(1, 1)))
    save(tmp_path / "references", "b", organ(values=(1, 7)))
    for case in "ab":
        save(tmp_path / "predictions", case, organ(values=(1, 1)))
    table = evaluate(tmp_path / "predictions", tmp_path / "references")
    assert [(row.case, row.label, row.status) for row in table.rows] == [
        ("a", "1", "ok"),
        ("a", "7", "both_empty"),
        ("b", "1", "ok"),
        ("b", "7", "prediction_empty"),
    ]


def test_values_are_named_where_a_dataset_lies_beside(tmp_path):
    save(tmp_path / "labelsTr", "a", organ())
    save(tmp_path / "predictions", "a", organ())
    description = {"labels": {"background": 0, "anterior": 1, "posterior": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    table = evaluate(tmp_path / "predictions", tmp_path / "labelsTr")
    assert table.labels == ("anterior", "posterior")


def test_a_prediction_folder_with_a_dataset_file_of_another_tool_is_read(tmp_path):
    save(tmp_path / "references", "a", organ())
    save(tmp_path / "predictions", "a", organ())
    (tmp_path / "predictions" / "dataset.json").write_text(json.dumps({"labels": {"background": 0}}))
    assert evaluate(tmp_path / "predictions", tmp_path / "references").rows[0].dice == 1


def test_a_value_that_no_reference_has_is_pointed_out(tmp_path):
    save(tmp_path / "references", "a", organ(values=(1, 1)))
    save(tmp_path / "predictions", "a", organ(values=(5, 5)))
    table = evaluate(tmp_path / "predictions", tmp_path / "references")
    assert any("the predictions hold 5, which no reference does" in note for note in table.notes)


def test_the_record_of_a_prediction_gives_the_meaning_of_its_values(tmp_path):
    merged = LabelMap.parse("hippocampus=1+2")
    save(tmp_path / "references", "a", organ(values=(1, 2)))
    save(tmp_path / "predictions", "a", organ(values=(1, 1)), labels=merged)
    (row,) = evaluate(tmp_path / "predictions", tmp_path / "references").rows
    assert (row.label, row.dice) == ("hippocampus", 1.0)


def test_masks_of_a_validation_have_the_labels_of_their_run(tmp_path):
    merged = LabelMap.parse("hippocampus=1+2")
    save(tmp_path / "references", "a", organ(values=(1, 2)))
    save(tmp_path / "run" / "validation", "a", organ(values=(1, 1)))
    (tmp_path / "run" / "model.json").write_text(json.dumps({"labels": merged.to_json()}))
    (row,) = evaluate(tmp_path / "run" / "validation", tmp_path / "references").rows
    assert (row.label, row.dice) == ("hippocampus", 1.0)
    (tmp_path / "run" / "model.json").write_text("{}")  # a folder that happens to have this name
    assert [row.label for row in evaluate(tmp_path / "run" / "validation", tmp_path / "references").rows] == [
        "1",
        "2",
    ]


def test_the_validation_folder_of_a_run_is_scored_by_its_validation_cases_alone(tmp_path):
    run, labels = tmp_path / "run", LabelMap.parse("front=1,back=2")
    for case in "abcd":
        save(tmp_path / "references", case, organ())
    save(run / "validation", "b", organ(1))  # of the two validation cases, c has lost its mask
    (run / "model.json").write_text(json.dumps({"labels": labels.to_json()}))
    (run / "cases.csv").write_text("case,group,use\na,a,training\nb,b,validation\nc,c,validation\nd,d,left out\n")
    chosen = "the threshold 0.4 was chosen on these cases, so new ones may score lower"
    (run / "validation" / "summary.json").write_text(json.dumps({"notes": [chosen, "another note"]}))
    table = evaluate(run / "validation", tmp_path / "references")
    assert {row.case: row.status for row in table.rows} == {"b": "ok", "c": "prediction_missing"}
    text = table.to_text()
    assert "is of 2 validation cases of a run; 2 of 4 references are of others, left out" in text
    assert chosen in text
    assert "another note" not in text
    other = evaluate(run / "validation", tmp_path / "references", cases=["b", "a"])  # the choice of the user counts
    assert {row.case: row.status for row in other.rows} == {"a": "prediction_missing", "b": "ok"}
    whole = {case: tmp_path / "references" / f"{case}.nii.gz" for case in "abcd"}
    change = compare(whole, run / "validation", tmp_path / "references", labels=labels, metrics=["dice"])
    assert {difference.cases for difference in change.differences} == {2}  # its training cases are no misses
    assert "only in A (first), and left out: a, d" in change.notes


def test_references_that_are_scored_as_predictions_are_pointed_out(tmp_path):
    references, copies, others = (tmp_path / name for name in ("references", "copies", "others"))
    for case in "ab":
        save(references, case, organ())
        save(copies, case, organ())
        save(others, case, organ(shift=int(case == "b")))
    (tmp_path / "link").symlink_to(references)
    for same in (references, tmp_path / "link"):
        assert any(
            "2 of 2 predictions are files of the references" in note for note in evaluate(same, references).notes
        )
    assert any(
        "every prediction equals its reference in every voxel" in note for note in evaluate(copies, references).notes
    )
    assert not any("references" in note and "say nothing" in note for note in evaluate(others, references).notes)
    (others / "a.nii.gz").unlink()
    (others / "a.nii.gz").symlink_to(references / "a.nii.gz")
    assert any(
        "1 of 2 predictions is a file of the references" in note for note in evaluate(others, references).notes
    )


def test_swapped_folders_are_asked_about(tmp_path):
    predictions, references = tmp_path / "predictions", tmp_path / "references"
    save(references, "a", organ(values=(1, 1)))
    save(predictions, "a", organ(values=(1, 1)), labels=LabelMap.parse("organ=1"))
    assert not any("swapped" in note for note in evaluate(predictions, references).notes)
    for labels in (None, "organ=1"):
        notes = evaluate(references, predictions, labels=labels).notes
        assert sum("were the two folders swapped?" in note for note in notes) == 1
    assert not any("swapped" in note for note in evaluate(predictions, predictions).notes)


def test_a_record_is_translated_into_the_requested_labels(tmp_path):
    two = LabelMap.parse("anterior=1,posterior=2")
    save(tmp_path / "references", "a", organ(values=(1, 2)))
    save(tmp_path / "predictions", "a", organ(values=(1, 2)), labels=two)
    (row,) = evaluate(tmp_path / "predictions", tmp_path / "references", labels="hippocampus=1+2").rows
    assert row.dice == 1.0
    save(tmp_path / "merged", "a", organ(values=(1, 1)), labels=LabelMap.parse("hippocampus=1+2"))
    with pytest.raises(SettingsError, match="only a part"):
        evaluate(tmp_path / "merged", tmp_path / "references", labels=two)


def test_records_that_disagree_are_refused_unless_labels_are_given(tmp_path):
    for case, names in (("a", "organ=1+2"), ("b", "other=1+2")):
        save(tmp_path / "references", case, organ())
        save(tmp_path / "predictions", case, organ(values=(1, 1)), labels=LabelMap.parse(names))
    with pytest.raises(DatasetError, match="labels="):
        evaluate(tmp_path / "predictions", tmp_path / "references")
    assert len(evaluate(tmp_path / "predictions", tmp_path / "references", labels="organ=1+2").rows) == 2


@pytest.mark.parametrize("values", [(1, 2), (1, 1)])
def test_masks_of_other_tools_are_read_by_either_of_two_readings_that_agree(tmp_path, values):
    save(tmp_path / "references", "a", organ(values=(1, 2)))
    save(tmp_path / "predictions", "a", organ(values=values))
    (row,) = evaluate(tmp_path / "predictions", tmp_path / "references", labels="hippocampus=1+2").rows
    assert row.dice == 1.0


def test_two_readings_that_contradict_each_other_are_decided_by_the_whole_folder_and_said(tmp_path):
    labels = "a=2+3,b=4+1"  # medfcn writes a as 1, where the references have b
    for case in "xy":
        save(tmp_path / "references", case, organ(values=(2, 1)))
    save(tmp_path / "written", "x", organ(values=(1, 2)))
    save(tmp_path / "written", "y", organ(values=(1, 2)))
    table = evaluate(tmp_path / "written", tmp_path / "references", labels=labels)
    assert [row.dice for row in table.rows] == [1.0] * 4
    assert any("were read as such" in note for note in table.notes)
    save(tmp_path / "original", "x", organ(values=(2, 1)))
    save(tmp_path / "original", "y", organ(values=(3, 4)))
    table = evaluate(tmp_path / "original", tmp_path / "references", labels=labels)
    assert [row.dice for row in table.rows] == [1.0] * 4


def test_values_that_should_not_be_there_are_a_failure_where_all_are_named():
    labels = LabelMap.from_names({1: "organ"})
    drawn, found = Volume(organ(values=(1, 1)), AFFINE), Volume(organ(values=(1, 9)), AFFINE)
    with pytest.raises(LabelError, match="9"):
        score_case(found, drawn, labels, case="a")


def test_folders_that_do_not_match_are_refused_with_an_example_of_each(tmp_path):
    save(tmp_path / "references", "case_1", organ())
    save(tmp_path / "predictions", "case_1_mask", organ())
    save(tmp_path / "predictions", "case_2_mask", organ())
    with pytest.raises(DatasetError, match=r"case_1_mask.*case_1"):
        evaluate(tmp_path / "predictions", tmp_path / "references")
    with pytest.raises(MissingFileError):
        evaluate(tmp_path / "nowhere", tmp_path / "references")


def test_chosen_cases_alone_are_scored(tmp_path):
    for case in ("a", "b", "c"):
        save(tmp_path / "predictions", case, organ())
        save(tmp_path / "references", case, organ())
    table = evaluate(tmp_path / "predictions", tmp_path / "references", cases=iter(["c", "a"]))
    assert table.cases == ("a", "c")
    with pytest.raises(
        DatasetError, match=r"2 requested cases have no reference, and are no patients: d, e; correct the ids"
    ) as caught:
        evaluate(tmp_path / "predictions", tmp_path / "references", cases=["a", "e", "d"])
    assert caught.value.code == "CASES_UNKNOWN"


def test_errors_say_by_code_and_field_what_they_are_about(tmp_path):
    mask = np.zeros((4, 4, 4), dtype=np.uint8)
    volume, empty = (mask + 1, np.eye(4)), (mask, np.eye(4))
    for call, code, field in (
        (lambda: Definitions(tolerance_mm=-1.0), "SETTING_INVALID", "tolerance_mm"),
        (lambda: Definitions(nsd_boundary="edge"), "SETTING_INVALID", "nsd_boundary"),
        (lambda: hausdorff_mm(mask, mask, (1.0, 1.0)), "SETTING_INVALID", "spacing_mm"),
        (lambda: hausdorff_mm(mask, mask, (1.0,) * 3, percentile=101), "SETTING_INVALID", "percentile"),
        (lambda: hausdorff_mm(mask, mask[1:], (1.0,) * 3), "SHAPE_DIFFERS", ""),
        (lambda: nsd(mask + 2, mask, (1.0,) * 3), "LABEL_VALUES", ""),
        (lambda: evaluate({"a": volume}, {"b": volume}), "CASES_UNMATCHED", ""),
        (lambda: evaluate({}, {"b": volume}), "MASKS_MISSING", ""),
        (lambda: evaluate({"a": empty}, {"a": empty}), "LABELS_MISSING", ""),
        (lambda: ScoreTable.from_csv(tmp_path / "scores.csv"), "FILE_MISSING", ""),
    ):
        with pytest.raises(MedfcnError) as caught:
            call()
        assert (caught.value.code, caught.value.field) == (code, field)


def test_a_table_of_other_columns_or_values_names_the_column(tmp_path):
    path = tmp_path / "scores.csv"
    for text, code, field in (
        ("case,label\n", "TABLE_COLUMNS", "status"),
        ("case,label,status,dice\na,b,ok,x\n", "TABLE_BROKEN", "dice"),
        ("case,label,status\na,b,c\n", "TABLE_BROKEN", "status"),
    ):
        path.write_text(text)
        with pytest.raises(DatasetError) as caught:
            ScoreTable.from_csv(path)
        assert (caught.value.code, caught.value.field) == (code, field)


def test_one_file_may_be_scored_against_one_file(tmp_path):
    save(tmp_path, "drawn", organ())
    save(tmp_path, "found", organ())
    table = evaluate(tmp_path / "found.nii.gz", tmp_path / "drawn.nii.gz")
    assert table.cases == ("drawn",)


def test_masks_without_any_label_are_refused(tmp_path):
    nothing = Volume(np.zeros((3, 3, 3), dtype=np.uint8), AFFINE)
    with pytest.raises(DatasetError, match="no mask holds any label"):
        evaluate({"a": nothing}, {"a": nothing})
    (row,) = evaluate({"a": nothing}, {"a": nothing}, labels="organ=1").rows
    assert row.status == "both_empty"


def test_threads_change_nothing_and_progress_counts_every_case(tmp_path):
    random = np.random.default_rng(0)
    masks = {f"case_{n}": Volume((random.random((9, 9, 9)) < 0.3).astype(np.uint8), AFFINE) for n in range(9)}
    moved = {case: mask.with_array(np.roll(mask.array, 1, 0)) for case, mask in masks.items()}
    told = io.StringIO()
    one = evaluate(moved, masks, threads=1, progress=Lines(told, every_seconds=0.0))
    four = evaluate(moved, masks, threads=4)
    assert one.rows == four.rows
    lines = told.getvalue().splitlines()
    assert [line.split(",")[0].split("  ")[0] for line in lines] == [f"evaluate: {n} of 9" for n in range(1, 10)]
    assert all(line.endswith(f"case_{n}") for n, line in enumerate(lines))


def test_left_is_not_right():
    """Only voxels and affine together say where a mask is."""
    mask = np.zeros((8, 4, 4), dtype=np.uint8)
    mask[1:3] = 1
    flip = np.array([[-1.0, 0, 0, 7], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for array, affine, dice in ((mask[::-1], flip, 1.0), (mask[::-1], np.eye(4), 0.0), (mask, flip, 0.0)):
        (row,) = evaluate({"a": Volume(array, affine)}, {"a": Volume(mask, np.eye(4))}).rows
        assert row.dice == dice


PAYLOADS = (
    "=cmd|'/c calc'!A1", "=1+1", "+1+1", "-1+1", "@SUM(1,1)", "=HYPERLINK(\"http://x\")", "\t=1+1", "\r=1+1",
    "\n=1+1",
    "a\n=1+1", "a,=1+1", 'a",=1+1', "'=1+1", "''=1", "\x1b[2J", "\x1b]0;title\x07", "\x1b[31mred", "\x9b31m",
    "a\x08b",
    "a\rb", "\u202etxt.exe", "\u200b=1", "\ufeff=1", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>",
    "{{7*7}}", "${7*7}", "%s%n", "-rf", "--overwrite", " =1+1", "\u2028=1", "a\x00b",
)  # fmt: skip


@pytest.mark.parametrize("payload", PAYLOADS)
def test_ids_and_labels_that_steer_terminals_and_spreadsheets_are_harmless(tmp_path, payload):
    mask = Volume(organ(values=(1, 1)), AFFINE)
    labels = LabelMap((LabelEntry(payload, (1,), 1),))
    table = evaluate({payload: mask}, {payload: mask, f"{payload}_missing": mask}, labels=labels)
    assert all(line.isprintable() for line in table.to_text().splitlines())
    write_scores(table, tmp_path)
    text = (tmp_path / "scores.csv").read_text()
    assert all(line.isprintable() for line in text.split("\n"))
    rows = list(csv.reader(text.splitlines()))
    assert len(rows) == 3
    for row in rows[1:]:
        assert len(row) == len(rows[0])
        assert not row[0].lstrip("\t\r\n").startswith(tuple("=+-@"))
        assert not row[1].startswith(tuple("=+-@"))
    assert len(ScoreTable.from_csv(tmp_path / "scores.csv").rows) == 2


@pytest.mark.skipif(not HIPPOCAMPUS.exists(), reason="shared/data/hippocampus is not beside the repository")
def test_real_references_agree_with_themselves():
    labels = HIPPOCAMPUS / "labels"
    few = {path.name.removesuffix(".nii.gz"): path for path in sorted(labels.glob("*.nii.gz"))[:4]}
    table = evaluate(few, labels)
    assert table.summary().labels[0].missing == len(list(labels.glob("*.nii.gz"))) - 4
    assert {row.dice for row in table.rows if row.status == "ok"} == {1.0}
    assert {row.hd_mm for row in table.rows if row.status == "ok"} == {0.0}


def test_a_value_that_no_prediction_has_is_pointed_out(tmp_path):
    save(tmp_path / "references", "a", organ(values=(1, 2)))
    save(tmp_path / "predictions", "a", organ(values=(1, 1)))
    table = evaluate(tmp_path / "predictions", tmp_path / "references")
    assert any("the references hold 2, which no prediction does" in note for note in table.notes)


def scribbled(mask, value=255):
    """Nobody labelled the upper half."""
    drawn = mask.copy()
    drawn[:, :, 5:] = value
    return drawn


def scores_of(row):
    return {name: value for name, value in row.__dict__.items() if name not in ("case", "specificity")}


def test_what_the_reference_ignores_is_neither_right_nor_wrong(tmp_path):
    """Predictions in the ignored upper half change nothing."""
    found = organ(1)
    found_below = found.copy()
    found_below[:, :, 5:] = 0
    noise = np.random.default_rng(0).integers(0, 3, found.shape)
    random = np.where(np.arange(10) >= 5, noise, found).astype(np.uint8)
    expected = evaluate(
        {"a": (found_below, AFFINE)}, {"a": (scribbled(organ()), AFFINE)}, labels="front=1,back=2,ignore=255"
    )
    assert all(row.status == "ok" and row.dice < 1 for row in expected.rows)
    definitions = Definitions(lesions=True)
    for prediction in (found, found_below, random):
        for labels, value in (("front=1,back=2,ignore=255", 255), ("front=1,back=2,ignore=9", 9)):
            table = evaluate({"a": (prediction, AFFINE)}, {"a": (scribbled(organ(), value), AFFINE)}, labels=labels)
            for row, wanted in zip(table.rows, expected.rows, strict=True):
                assert scores_of(row) == pytest.approx(scores_of(wanted), nan_ok=True)
            assert any(f"hold {value}, voxels that nobody labelled" in note for note in table.notes)
    (row, _) = evaluate(
        {"a": (random, AFFINE)}, {"a": (scribbled(organ()), AFFINE)}, labels=labels.replace("9", "255"),
        definitions=definitions,
    ).rows  # fmt: skip
    assert (row.lesions, row.lesions_found, row.lesions_false) == (1, 1, 0)
    assert "ignored" in definitions.to_json()["ignored_voxels"]


def test_a_missing_prediction_misses_only_what_is_labelled():
    reference = Volume(scribbled(organ()), AFFINE)
    (row, _) = score_case(None, reference, LabelMap.parse("front=1,back=2,ignore=255"), case="a")
    assert row.false_negatives == int((organ()[:, :, :5] == 1).sum())


def test_dataset_json_beside_the_references_says_what_is_ignored(tmp_path):
    save(tmp_path / "labelsTr", "a", scribbled(organ(), 3))
    save(tmp_path / "predictions", "a", organ())
    names = {"background": 0, "front": 1, "back": 2, "ignore": 3}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": names}))
    for labels in (None, "front=1,back=2"):
        table = evaluate(tmp_path / "predictions", tmp_path / "labelsTr", labels=labels)
        assert [(row.label, row.dice) for row in table.rows] == [("front", 1.0), ("back", 1.0)]
        assert any("hold 3, voxels that nobody labelled" in note for note in table.notes)
    names["ignore"] = 255
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": names}))
    (tmp_path / "labelsTr" / "a.nii.gz").unlink()
    save(tmp_path / "labelsTr", "a", scribbled(organ()))
    assert [row.dice for row in evaluate(tmp_path / "predictions", tmp_path / "labelsTr").rows] == [1.0, 1.0]


def test_a_case_of_nothing_but_ignored_voxels_has_empty_rows(tmp_path):
    for case, drawn in (("a", scribbled(organ(), 1)), ("b", np.full((14, 12, 10), 1, dtype=np.uint8))):
        save(tmp_path / "labels", case, drawn)
        save(tmp_path / "predictions", case, np.where(organ() == 2, 2, 0).astype(np.uint8))
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "back": 2, "ignore": 1}}))
    table = evaluate(tmp_path / "predictions", tmp_path / "labels")
    assert [(row.case, row.label, row.status) for row in table.rows] == [
        ("a", "back", "partly_labelled"),  # `front` is ignored too
        ("b", "back", "both_empty"),
    ]


def test_the_record_says_which_value_is_ignored(tmp_path):
    labels = LabelMap.parse("organ=1+2,ignore=255")
    save(tmp_path / "references", "a", scribbled(organ()))
    save(tmp_path / "predictions", "a", (organ() > 0).astype(np.uint8), labels=labels)
    (row,) = evaluate(tmp_path / "predictions", tmp_path / "references").rows
    assert row.dice == 1.0
    assert IGNORED not in labels.decode(np.array([0, 1]))


def test_a_file_of_ids_stands_for_them_and_other_predictions_are_not_missed(tmp_path):
    for case in "abc":
        save(tmp_path / "references", case, organ())
        save(tmp_path / "predictions", case, organ())
    (tmp_path / "ids.txt").write_text("a\nb\n")
    table = evaluate(tmp_path / "predictions", tmp_path / "references", cases=str(tmp_path / "ids.txt"))
    assert table.cases == ("a", "b")
    assert not any("no reference for" in note for note in table.notes)
