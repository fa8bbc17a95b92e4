"""Masks judged as a classifier of voxels; the figures are scikit-learn's definitions, worked out by hand."""

import json
import math

import numpy as np
from click.testing import CliRunner

from medfcn.cli import main
from medfcn.evaluation import Definitions, evaluate

GRID = np.eye(4)
REFERENCES = {
    "a": (np.array([[[0, 1, 1, 1, 2, 2, 0, 0]]], np.uint8), GRID),
    "b": (np.array([[[0, 0, 0, 1, 2, 2, 2, 255]]], np.uint8), GRID),
}
PREDICTIONS = {"a": (np.array([[[1, 1, 1, 2, 2, 0, 0, 0]]], np.uint8), GRID)}
BOTH = PREDICTIONS | {"b": (np.array([[[0, 0, 1, 1, 2, 2, 1, 1]]], np.uint8), GRID)}
COUNTED = Definitions(classes=True)


def judged(predictions, labels="front=1,back=2,ignore=255"):
    report = evaluate(predictions, REFERENCES, labels=labels, definitions=COUNTED).classes
    assert report is not None
    return report


def test_the_matrix_has_each_labelled_voxel_once():
    report = judged(BOTH)
    assert report.classes == ("(background)", "front", "back")
    assert report.matrix() == [[4, 2, 0], [0, 3, 1], [1, 1, 3]]
    assert sum(map(sum, report.matrix())) == 15  # the ignored voxel is not counted


def test_scores_and_averages_follow_from_the_matrix():
    report = judged(BOTH)
    front, back = report.labels
    assert (front.precision, front.recall, front.support) == (3 / 6, 3 / 4, 4)
    assert (back.precision, back.recall, back.support) == (3 / 4, 3 / 5, 5)
    assert front.f1 == 0.6
    assert back.f1 == 6 / 9
    micro, macro, weighted = report.averages
    assert (micro.precision, micro.recall, micro.support) == (6 / 10, 6 / 9, 9)
    assert macro.precision == (3 / 6 + 3 / 4) / 2
    assert math.isclose(weighted.recall, (3 / 4 * 4 + 3 / 5 * 5) / 9)


def test_a_mask_that_is_missing_is_background_and_makes_no_average_better():
    missing, both = judged(PREDICTIONS), judged(BOTH)
    assert [row[0] for row in missing.matrix()] == [5, 1, 4]
    assert missing.averages[0].recall < both.averages[0].recall
    assert missing.averages[2].f1 < both.averages[2].f1


def test_a_label_that_is_nowhere_predicted_has_precision_zero_in_the_averages():
    empty = {case: (np.zeros_like(mask), GRID) for case, (mask, _) in REFERENCES.items()}
    report = judged(empty)
    assert math.isnan(report.labels[0].precision)
    assert [average.precision for average in report.averages] == [0, 0, 0]
    assert "–" in report.to_text()


def test_without_names_the_classes_are_all_values_of_all_cases():
    references = {
        case: (np.where(mask == 255, 0, mask).astype(np.uint8), GRID) for case, (mask, _) in REFERENCES.items()
    }
    predictions = PREDICTIONS | {"b": (np.array([[[0, 0, 3, 1, 2, 2, 2, 0]]], np.uint8), GRID)}
    report = evaluate(predictions, references, definitions=COUNTED).classes
    assert report is not None
    assert report.classes == ("(background)", "1", "2", "3")
    assert report.matrix() == [[5, 1, 0, 1], [0, 3, 1, 0], [1, 0, 4, 0], [0, 0, 0, 0]]


def test_labels_that_overlap_have_scores_and_no_matrix():
    report = judged(BOTH, labels="whole=1+2,back=2,ignore=255")
    assert not report.confusion
    assert "labels overlap" in report.to_text()
    assert report.labels[0].support == 9


def test_the_command_prints_and_stores_them(tmp_path):
    from medfcn.volumes import Volume

    for folder, masks in (("masks", BOTH), ("references", REFERENCES)):
        (tmp_path / folder).mkdir()
        for case, (mask, affine) in masks.items():
            Volume(mask, affine).save(tmp_path / folder / f"{case}.nii.gz")
    arguments = ["evaluate", f"{tmp_path}/masks", f"{tmp_path}/references", "-o", f"{tmp_path}/scores"]
    arguments += ["--labels", "front=1,back=2,ignore=255", "--no-report"]
    result = CliRunner().invoke(main, [*arguments, "--classes"])
    assert result.exit_code == 0, result.output
    assert "weighted average" in result.output
    stored = json.loads((tmp_path / "scores" / "summary.json").read_text())["classes"]
    assert stored["confusion"]["voxels"] == [[4, 2, 0], [0, 3, 1], [1, 1, 3]]
    assert stored["averages"]["micro average"]["precision"] == 0.6
    result = CliRunner().invoke(main, [*arguments, "--overwrite"])
    assert "confusion" not in result.output
    assert "classes" not in json.loads((tmp_path / "scores" / "summary.json").read_text())
