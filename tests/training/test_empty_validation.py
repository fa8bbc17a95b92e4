"""Validation cases that contain no label choose nothing, and are avoided where that is possible."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import medfcn
from medfcn.errors import DatasetError
from medfcn.files import sha256_of
from medfcn.inference.card import read_card
from medfcn.training.run import Run
from tests.conftest import draw_ball, write_case
from tests.training.test_resume import Told


def lay(folder: Path, count: int, *empty: int) -> Path:
    for number in range(count):
        image, mask = draw_ball(number)
        write_case(folder, f"ball_{number:02d}", image, np.zeros_like(mask) if number in empty else mask)
    return folder


def train(data: Path, run: Path, **choices: Any) -> tuple[Run, list[str]]:
    told = Told()
    common: dict[str, Any] = {"labels": "ball=1", "steps": 6, "device": "cpu", "threads": 1}
    return medfcn.train(data, run, progress=told, **common | choices), told.lines


def test_a_case_with_a_label_is_validated_though_the_draw_has_only_empty_ones(tmp_path: Path) -> None:
    data = lay(tmp_path / "data", 20, *range(0, 20, 2))
    run, lines = train(data, tmp_path / "run", steps=2)
    labelled = {row.case for row in run.validation.rows if row.reference_ml}
    assert labelled
    assert len(run.validation.cases) == 2
    assert not any("no validation case" in line for line in lines)


def test_validations_that_score_nothing_choose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = lay(tmp_path / "data", 3, 0, 2)  # the label of a single case is for training
    with monkeypatch.context() as often:
        often.setattr("medfcn.training.schedule._STEPS_BETWEEN_VALIDATIONS", 1)
        run, lines = train(data, tmp_path / "run")
    assert run.load(device="cpu").card.training["best_step"] == 6
    assert any("ball: in no validation case" in line for line in lines)
    assert any("no validation case contains a label: nothing is chosen on them" in line for line in lines)
    assert any("no validation found any label" in line for line in lines)
    assert not any("validation Dice" in line for line in lines)
    card = read_card(run.folder / "model.json")
    assert (card.threshold, card.one_part, card.view_weights) == (None, (), ())
    notes = run.validation.notes
    assert any("none chose weights" in note for note in notes)
    assert not any("were chosen on these cases" in note for note in notes)
    last, _ = train(data, tmp_path / "once")  # validated after its last step only
    assert sha256_of(run.folder / "model.safetensors") == sha256_of(last.folder / "model.safetensors")


def test_plan_says_what_is_not_validated_and_no_search_is_begun(tmp_path: Path) -> None:
    data = lay(tmp_path / "data", 3, 0, 2)
    planned = " ".join(medfcn.plan(data, labels="ball=1").to_text().split())
    assert "ball: in no validation case, so it has no score (1 training case)" in planned
    pytest.importorskip("optuna")
    with pytest.raises(DatasetError, match="none of the 1 validation cases contains a label") as caught:
        medfcn.tune(data, tmp_path / "search", labels="ball=1", steps=1, trials=1, device="cpu", threads=1)
    assert caught.value.code == "LABELS_EMPTY"
