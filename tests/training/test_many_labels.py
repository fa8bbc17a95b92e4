"""Data sets of many more labels than the last map has channels: plan, training, and earlier trainings."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import medfcn
from medfcn.config import override
from medfcn.settings import Settings
from medfcn.slices.plan import Plan
from medfcn.training import training
from medfcn.training.folds import Split
from medfcn.training.identity import as_recorded
from tests.conftest import draw_ball, write_case
from tests.inference.models import tiny_plan

COUNT = 17
HALVED = override(
    override(Settings(), "network", stem_stride=2, widths=(4, 8), score_channels=8), "training", batch_size=2
)


@pytest.fixture
def striped(tmp_path: Path) -> Path:
    """Balls of which each has 17 labels, which follow each other along its rows."""
    for number in range(3):
        image, mask = draw_ball(number)
        mask[mask > 0] = np.arange(np.count_nonzero(mask)) % COUNT + 1
        write_case(tmp_path / "data", f"ball_{number}", image, mask)
    return tmp_path / "data"


def test_a_training_with_many_more_labels_than_channels_makes_its_logits_at_full_size_at_once(
    striped: Path, tmp_path: Path
) -> None:
    medfcn.train(striped, tmp_path / "run", steps=2, settings=HALVED, device="cpu")
    model = medfcn.load(tmp_path / "run", device="cpu")
    assert model.card.plan.restoring == "joined"
    assert model.card.plan.reasons["restoring"].startswith(f"one layer gives the logits at full size: {COUNT} labels")
    assert model.predict(next((striped / "images").iterdir())).array.shape == draw_ball(0)[0].shape


def test_a_training_that_was_stopped_before_keeps_the_way_to_full_size_that_it_has() -> None:
    reasons = {"views": "as set", "restoring": "one layer"}
    joined = tiny_plan(stem_stride=2, restoring="joined", reasons=reasons)
    before = tiny_plan(stem_stride=2).to_json()
    kept = as_recorded(joined, {"plan": before})
    assert (kept.restoring, kept.reasons) == ("learned", {"views": "as set"})
    assert as_recorded(joined, {"plan": joined.to_json()}).restoring == "joined"
    assert as_recorded(joined, {}) == joined


def test_a_training_that_was_stopped_before_sees_every_slice() -> None:
    views: dict[str, Any] = {"views": ("axial", "coronal"), "spacing_mm": (1.0, 1.0, 1.0)}
    apart = tiny_plan(apart=(3, 3), reasons={"views": "as set", "apart": "thick"}, **views)
    kept = as_recorded(apart, {"plan": tiny_plan(**views).to_json()})
    assert (kept.apart, kept.reasons) == ((), {"views": "as set"})
    assert as_recorded(apart, {"plan": apart.to_json()}).apart == (3, 3)
    assert as_recorded(apart, {}) == apart


def test_a_training_that_was_stopped_before_looks_once() -> None:
    looking = tiny_plan(crop=(8, 8), turns=(20.0, -20.0), reasons={"views": "as set", "turns": "a small part"})
    kept = as_recorded(looking, {"plan": tiny_plan(crop=(8, 8)).to_json()})
    assert (kept.turns, kept.crop, kept.reasons) == ((), (8, 8), {"views": "as set"})
    assert as_recorded(looking, {"plan": looking.to_json()}).turns == (20.0, -20.0)
    assert as_recorded(looking, {}) == looking


def test_a_training_that_was_stopped_before_keeps_the_statistics_of_its_training() -> None:
    now = tiny_plan(own_statistics=0.5, reasons={"views": "as set", "own_statistics": "few cases"})
    kept = as_recorded(now, {"plan": tiny_plan().to_json()})
    assert (kept.own_statistics, kept.reasons) == (0, {"views": "as set"})
    assert as_recorded(now, {"plan": now.to_json()}).own_statistics == 0.5


def test_a_training_that_was_stopped_before_cuts_large_slices_into_tiles_as_it_did() -> None:
    now = tiny_plan(whole=4.0)
    assert as_recorded(now, {"plan": tiny_plan().to_json()}).whole == 1.25
    assert as_recorded(now, {"plan": now.to_json()}).whole == 4.0
    assert as_recorded(now, {}) == now


def test_a_training_that_was_stopped_before_is_moved_as_it_was() -> None:
    now = tiny_plan(movement="small", reasons={"views": "as set", "movement": "whole slices"})
    kept = as_recorded(now, {"plan": tiny_plan().to_json()})
    assert (kept.movement, kept.reasons) == ("usual", {"views": "as set"})
    assert as_recorded(now, {"plan": now.to_json()}) == as_recorded(now, {}) == now


OTHER: dict[str, Any] = {
    "restoring": "joined",
    "crop": (8, 8),
    "movement": "strong",
    "turns": (20.0,),
    "apart": (3,),
    "own_statistics": 0.5,
    "whole": 4.0,
}
"""For each field of a plan that earlier medfcn did not have, a value that it did not use."""


def test_no_field_of_a_plan_is_forgotten_where_an_earlier_training_goes_on() -> None:
    """A field with a default is a later one; `stem_stride` was there from the first card on."""
    later = {field.name for field in dataclasses.fields(Plan) if field.default is not dataclasses.MISSING}
    assert OTHER.keys() == later - {"stem_stride"}  # give a new field a value here
    usual = tiny_plan()
    assert not OTHER.keys() & usual.to_json().keys()
    for name, value in OTHER.items():
        now = tiny_plan(**{name: value}, reasons={"views": "as set", name: "better now"})
        assert as_recorded(now, {"plan": usual.to_json()}) == dataclasses.replace(usual, reasons={"views": "as set"})
        assert as_recorded(now, {"plan": now.to_json()}) == now


def test_a_training_that_was_stopped_before_sees_whole_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    crops: list[object] = []

    def plan_split(found: object, split: object, settings: Settings, *, like: object) -> Plan:
        crops.append(settings.slices.crop)
        return tiny_plan()

    monkeypatch.setattr(training, "plan_split", plan_split)
    given: Any = SimpleNamespace(settings=Settings(), found=None, start=SimpleNamespace(plan=None))
    cropped, split = tiny_plan(crop=(8, 8)), Split((), ())
    assert training._as_stopped(cropped, {"plan": tiny_plan().to_json()}, given, split) == tiny_plan()
    assert crops == ["never"]
    assert training._as_stopped(cropped, {"plan": cropped.to_json()}, given, split) == cropped
    assert training._as_stopped(cropped, {}, given, split) == cropped
    assert len(crops) == 1
