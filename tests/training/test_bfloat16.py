"""The test of bfloat16 at the end of a training: what it says in the card, and when it says nothing."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import medfcn
from medfcn.inference import engines
from medfcn.inference.card import read_card
from medfcn.training import bfloat16
from medfcn.training.bfloat16 import bfloat16_test
from medfcn.training.validation import Outputs, ScoredCase
from tests.inference.models import tiny_model


def test_a_training_says_whether_bfloat16_is_as_good(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (bfloat16, engines):
        monkeypatch.setattr(module, "has_fast_bfloat16", lambda device: True)
    monkeypatch.setattr(bfloat16, "_MOST_CASES", 1)  # slow where the processor does not have it
    run = medfcn.train(balls, tmp_path / "run", steps=20, device="cpu", threads=1, report=False)
    found = json.loads((run.folder / "model.json").read_text())["training"]["bfloat16"]
    assert found["cases"] == 1
    assert found["passed"] is (found["largest_change"] <= 0.0005 and not found["lost"])
    assert read_card(run.folder / "model.json").is_bfloat16_alike is found["passed"]
    assert not list(run.folder.rglob("bfloat16"))


@pytest.mark.parametrize(
    ("changed", "lost", "passed"), [(0, 0, True), (1, 0, False), (500, 1, False)], ids=["none", "one", "all"]
)
def test_it_passes_only_masks_that_are_as_good_and_lose_no_label(
    changed: int, lost: int, passed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bfloat16, "has_fast_bfloat16", lambda device: True)
    monkeypatch.setattr(engines, "has_fast_bfloat16", lambda device: True)
    reference = np.zeros((10, 10, 10), dtype=np.uint8)
    reference[:5] = 1
    worse = reference.copy()
    worse.reshape(-1)[:changed] = 0

    def decided(model: Any, outputs: Any, case: Any) -> Any:
        return SimpleNamespace(indices=worse if model.arithmetic.precision == "bfloat16" else reference)

    monkeypatch.setattr(bfloat16, "decide_case", decided)
    model = tiny_model()
    case = SimpleNamespace(
        id="a",
        image=np.zeros((1, 10, 10, 10), dtype=np.float32),
        mask=SimpleNamespace(array=reference),
        reference=lambda labels: reference,
    )
    cases = [cast(ScoredCase, case)] * 3
    found = bfloat16_test(model, replace(model.card), cases, cast(Outputs, None), tmp_path / "half")
    assert found is not None
    assert (found["cases"], found["lost"], found["passed"]) == (3, 3 * lost, passed)
    assert not (tmp_path / "half").exists()
    assert bfloat16_test(model, model.card, [], cast(Outputs, None), tmp_path / "half") is None
    monkeypatch.setattr(bfloat16, "has_fast_bfloat16", lambda device: False)
    assert bfloat16_test(model, model.card, cases, cast(Outputs, None), tmp_path / "half") is None
