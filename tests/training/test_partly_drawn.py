"""Cases of which only some labels were drawn train those, and are scored on those."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import medfcn
from medfcn.cli import main
from medfcn.config import override
from medfcn.datasets import find_dataset
from medfcn.errors import DatasetError, LabelError, SettingsError, TrainingError
from medfcn.evaluation import Definitions, evaluate
from medfcn.progress import Silent
from medfcn.settings import Settings
from medfcn.training.batches import Batches
from medfcn.training.prepare import Prepared, plan_training, prepare
from medfcn.training.survey import survey
from medfcn.volumes import ReadOptions
from tests.conftest import draw_ball, write_case
from tests.training.test_resume import Told

LABELS = "upper=1,lower=2"
COMMON: dict[str, Any] = {"labels": LABELS, "device": "cpu", "threads": 1, "report": False}
COUNT = 10


def lay(folder: Path, labelled: dict[int, str], *, half: bool = True) -> Path:
    """A table of balls, of two halves, of which a named one alone is drawn where `labelled` says so."""
    rows = []
    for number in range(COUNT):
        image, mask = draw_ball(number)
        middle = int(np.argwhere(mask)[:, 1].mean())
        parts = mask.astype(np.uint8)
        parts[:, middle:] *= 2
        drawn = labelled.get(number, "")
        if half and drawn in ("upper", "lower"):
            parts[parts != (1 if drawn == "upper" else 2)] = 0
        write_case(folder, f"ball_{number:02d}", image, parts)
        rows.append(
            (f"ball_{number:02d}", f"images/ball_{number:02d}.nii.gz", f"labels/ball_{number:02d}.nii.gz", drawn)
        )
    with (folder / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "image", "label", "labelled"), *rows])
    return folder / "cases.csv"


HALVES = {number: "upper" if number % 2 else "lower" for number in range(COUNT)}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_case_trains_and_scores_what_was_drawn(tmp_path: Path) -> None:
    table, told = lay(tmp_path / "data", HALVES), Told()
    medfcn.train(table, tmp_path / "run", steps=30, folds=2, progress=told, **COMMON | {"report": True})
    rows = rows_of(tmp_path / "run" / "validation" / "scores.csv")
    assert {row["case"]: row["label"] for row in rows} == {f"ball_{n:02d}": name for n, name in HALVES.items()}
    assert len(rows) == COUNT
    assert np.mean([float(row["dice"]) for row in rows]) > 0.5
    assert any("upper alone drawn in 5 of 10 cases; lower alone drawn in 5 of 10" in line for line in told.lines)
    fold = tmp_path / "run" / "fold_1"
    assert {row["case"]: row["labelled"] for row in rows_of(fold / "cases.csv")} == {
        f"ball_{number:02d}": name for number, name in HALVES.items()
    }
    card = json.loads((fold / "model.json").read_text())
    assert "alone drawn in" in card["training"]["partly_drawn"]["training"]
    assert "alone drawn; no other label is scored there" in (tmp_path / "run" / "report.html").read_text()
    # Both labels are there in a case of which the training saw one.
    mask = medfcn.load(tmp_path / "run").predict(tmp_path / "data" / "images" / "ball_00.nii.gz").array
    assert {0, 1, 2} == set(np.unique(mask))


@pytest.fixture
def halves(tmp_path: Path) -> Prepared:
    """The slices of the training cases."""
    found = survey(
        find_dataset(lay(tmp_path / "data", HALVES)),
        medfcn.labels.LabelMap.parse(LABELS),
        ReadOptions(),
        skip_bad=False,
        progress=Silent(),
    )
    split, plan = plan_training(found, Settings(), seed=0)
    (tmp_path / "slices").mkdir()
    return prepare(found, split, plan, tmp_path / "slices", Silent())


def test_the_rest_of_a_case_is_background_or_the_other_label(halves: Prepared) -> None:
    batches = Batches(halves, Settings(), seed=0, share=range(8), device=torch.device("cpu"))
    cases, (_, targets) = batches.sampler.batch(0).cases[:8], batches.of(0)
    assert halves.survey.unions == ((1,), (2,))
    for case_id, target in zip(cases, targets.numpy(), strict=True):
        drawn = halves.survey.drawn[case_id]
        assert set(np.unique(target)) <= {*drawn, 2 + drawn[0]}  # 3 where upper was drawn, 4 where lower was
        assert (target == 2 + drawn[0]).any()


def test_a_case_without_names_is_drawn_throughout(tmp_path: Path) -> None:
    table = lay(tmp_path / "data", {1: "lower + upper", 2: "lower"})
    planned = medfcn.plan(table, labels=LABELS)
    assert " ".join(planned.to_text().split()).count("lower alone drawn in 1 of ") == 1
    table = lay(tmp_path / "whole", {1: "lower + upper"})
    assert "drawn" not in medfcn.plan(table, labels=LABELS).to_text()


def test_the_names_are_checked(tmp_path: Path) -> None:
    table = lay(tmp_path / "data", {1: "uper", 3: "upper"}, half=False)
    report = medfcn.check(table, labels=LABELS)
    assert [(one.code, one.case, one.severity) for one in report.problems if one.field == "labelled"] == [
        ("LABELLED_UNKNOWN", "ball_01", "error"),
        ("LABELLED_OTHERS", "ball_03", "warning"),
    ]
    assert "did you mean 'upper'?" in report.to_text()
    assert "voxels of lower, which labelled does not name" in report.to_text()
    assert {one.code for one in medfcn.check(table).errors} == {"LABELLED_UNKNOWN"}  # label_1 and label_2
    with pytest.raises(DatasetError, match="uper"):
        medfcn.train(table, tmp_path / "run", steps=2, **COMMON)
    assert not (tmp_path / "run" / "model.json").exists()


def test_what_cannot_be_trained_so_is_refused_in_one_line(tmp_path: Path) -> None:
    table = lay(tmp_path / "data", HALVES)
    settings = override(Settings(), "training", loss="mse")
    with pytest.raises(SettingsError, match="only some labels were drawn"):
        medfcn.plan(table, labels=LABELS, settings=settings)
    names = dict.fromkeys(range(3), "whole")
    table = lay(tmp_path / "overlapping", names)
    with pytest.raises((LabelError, DatasetError), match="labels overlap"):
        medfcn.plan(table, labels="whole=1+2,lower=2")


def test_a_list_names_them_too(tmp_path: Path) -> None:
    lay(tmp_path, HALVES)
    entries = [
        {"image": f"images/ball_{n:02d}.nii.gz", "label": f"labels/ball_{n:02d}.nii.gz", "labelled": [name]}
        for n, name in HALVES.items()
    ]
    labels = {"0": "background", "1": "upper", "2": "lower"}
    (tmp_path / "dataset.json").write_text(json.dumps({"training": entries, "labels": labels}))
    found = find_dataset(tmp_path)
    assert {case.id: case.labelled for case in found.cases} == {
        f"ball_{n:02d}": (name,) for n, name in HALVES.items()
    }


def test_a_mask_is_scored_on_what_was_drawn(tmp_path: Path) -> None:
    table = lay(tmp_path, HALVES)
    masks = {}
    for number in range(COUNT):
        _, mask = draw_ball(number)
        masks[f"ball_{number:02d}"] = (np.where(mask, 1, 0).astype(np.uint8), np.diag([1.0, 1.0, 1.5, 1.0]))
    scored = evaluate({case: str(tmp_path / "labels" / f"{case}.nii.gz") for case in masks}, table, labels=LABELS)
    assert [row.label for row in scored.rows] == [HALVES[number] for number in range(COUNT)]
    assert {row.dice for row in scored.rows} == {1.0}
    assert "5 cases of 10: lower alone drawn; no other label is scored there" in scored.notes


def test_wrong_names_are_refused_by_evaluate_as_they_are_by_check(tmp_path: Path) -> None:
    table = lay(tmp_path, HALVES)
    masks = {f"ball_{n:02d}": str(tmp_path / "labels" / f"ball_{n:02d}.nii.gz") for n in range(COUNT)}
    with pytest.raises(LabelError, match="ball_03: labelled names 'uper', which is no label; did you mean 'upper'"):
        evaluate(masks, masks, labels=LABELS, labelled={"ball_03": ("uper",)})
    with pytest.raises(LabelError, match="labelled names 'upper', which is no label") as refused:
        evaluate(masks, masks, labelled={"ball_03": ("upper",)})  # of which the masks name 1 and 2
    assert refused.value.code == "LABELLED_UNKNOWN"
    table.write_text(table.read_text().replace(",lower", ",lowest"))
    with pytest.raises(LabelError, match="ball_00: labelled names 'lowest', which is no label"):
        evaluate(masks, table, labels=LABELS)
    arguments = ["evaluate", str(tmp_path / "labels"), str(table), "-o", str(tmp_path / "scores")]
    result = CliRunner().invoke(main, [*arguments, "--labels", "organ=1+2"])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "labelled names 'lowest', which is no label; known are organ" in result.stderr
    assert not (tmp_path / "scores").exists()


def test_a_case_that_names_every_label_is_wholly_drawn(tmp_path: Path) -> None:
    lay(tmp_path, {})
    masks = {f"ball_{n:02d}": str(tmp_path / "labels" / f"ball_{n:02d}.nii.gz") for n in range(3)}
    said: dict[str, Any] = {"labels": LABELS, "definitions": Definitions(classes=True)}
    plain = evaluate(masks, masks, **said)
    named = evaluate(masks, masks, **said, labelled={"ball_01": ("lower", "upper"), "ball_02": ()})
    assert named.rows == plain.rows
    assert named.notes == plain.notes
    assert named.classes == plain.classes
    partly = evaluate(masks, masks, **said, labelled={"ball_01": ("lower",)})
    assert partly.classes != plain.classes


def test_cases_of_which_nothing_is_scored_are_named(tmp_path: Path) -> None:
    """A `dataset.json` names a third label, which no mask holds."""
    lay(tmp_path, {})
    names = {"background": 0, "upper": 1, "lower": 2, "third": 3}
    (tmp_path / "labels" / "dataset.json").write_text(json.dumps({"labels": names, "file_ending": ".nii.gz"}))
    labels, third = tmp_path / "labels", {"ball_01": ("third",)}
    found = evaluate(labels, labels, labelled=third)
    assert "nothing is scored in 1 case: no mask holds a label that was drawn there: ball_01" in found.notes
    assert len(found.rows) == 2 * (COUNT - 1)
    with pytest.raises(DatasetError, match=r"nothing is scored in 1 case: .*; correct the column labelled"):
        evaluate(labels, labels, labelled=third, cases=["ball_01"])


def test_a_run_is_not_resumed_with_other_names(tmp_path: Path) -> None:
    table = lay(tmp_path / "data", HALVES)
    medfcn.train(table, tmp_path / "run", steps=2, **COMMON)
    medfcn.train(table, tmp_path / "run", steps=2, resume=True, **COMMON)
    table.write_text(table.read_text().replace(",lower", ","))
    with pytest.raises(TrainingError, match="labelled"):
        medfcn.train(table, tmp_path / "run", steps=2, resume=True, **COMMON)
