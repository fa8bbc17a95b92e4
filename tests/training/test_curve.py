"""A training that one can watch: looks at a few validation slices, which change nothing and cost little."""

import csv
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread

import medfcn
from medfcn.files import sha256_of
from medfcn.labels import IGNORED, LabelMap
from medfcn.training.curve import Block, Curve, _fullest, _pixels
from medfcn.training.curve_looks import CurveLooks
from medfcn.training.pictures import picture
from medfcn.training.schedule import Schedule, curve_steps, picture_steps, validation_steps
from tests.inference.models import tiny_plan
from tests.training.test_resume import StopAfter, Told, assert_same_run, train
from tests.two_labels import LABELS, write_two_labels


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two_labels(tmp_path_factory.mktemp("two") / "data")


@pytest.fixture(scope="module")
def watched(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run with two looks, and what it said."""
    told = Told()
    torch.set_num_threads(1)
    run = train(balls, tmp_path_factory.mktemp("watched") / "run", steps=70, progress=told, report=False)
    return run.folder, told.lines


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_looks_change_neither_weights_nor_masks(
    watched: tuple[Path, list[str]], balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CurveLooks, "steps", lambda self, schedule: set())
    without = train(balls, tmp_path / "run", steps=70, report=False).folder
    assert not (without / "pictures").exists()
    masks = sorted(path.relative_to(without) for path in without.glob("validation/*.nii.gz"))
    assert masks
    for name in (Path("model.safetensors"), *masks):
        assert sha256_of(watched[0] / name) == sha256_of(without / name)


def test_an_interrupted_training_has_the_same_curve_and_pictures(
    watched: tuple[Path, list[str]], balls: Path, tmp_path: Path
) -> None:
    with pytest.raises(medfcn.MedfcnError):
        train(balls, tmp_path / "run", steps=70, report=False, stop=StopAfter(36))
    assert [path.name for path in (tmp_path / "run" / "pictures").iterdir()] == ["step_0000035.png"]
    run = medfcn.train(tmp_path / "run", resume=True)
    assert_same_run(run.folder, watched[0])


def test_each_look_is_a_line_and_a_row_and_is_said_to_choose_nothing(watched: tuple[Path, list[str]]) -> None:
    run, lines = watched
    assert sum("validation Dice" in line for line in lines) == 1
    looks = [line for line in lines if "curve Dice" in line]
    assert [line.split(":")[0] for line in looks] == ["step 35 of 70"]
    assert any("slices of 1 validation case, 2 times; nothing is chosen by it" in line for line in lines)
    rows = {row["step"]: row for row in rows_of(run)}
    assert 0 < float(rows["35"]["curve_dice"]) <= 1
    assert rows["35"]["validation_dice"] == ""
    assert rows["35"]["curve_dice_label_1"] == rows["35"]["curve_dice"]
    assert float(rows["70"]["validation_dice_label_1"]) == pytest.approx(float(rows["70"]["validation_dice"]))
    assert rows["10"]["curve_dice"] == rows["10"]["validation_dice"] == ""
    assert all(math.isfinite(float(row[name])) for row in rows.values() for name in ("loss", "seconds"))


def test_several_labels_have_a_dice_each(data: Path, tmp_path: Path) -> None:
    told = Told()
    medfcn.train(
        data, tmp_path / "run", labels=LABELS, steps=34, progress=told, device="cpu", threads=1, report=False
    )
    line = next(line for line in told.lines if "validation Dice" in line)
    row = rows_of(tmp_path / "run")[-1]
    for name in ("whole", "inside"):
        assert f"{name} {float(row[f'validation_dice_{name}']):.4f}" in line
        assert 0 <= float(row[f"curve_dice_{name}"]) <= 1


@pytest.mark.parametrize("total", [33, 34, 100, 400, 1334, 5000, 100_000])
@pytest.mark.parametrize("cost", [0.4, 1.0, 7.5])
def test_all_looks_have_at_most_three_hundredths_of_the_pixels_of_the_steps(total: int, cost: float) -> None:
    looks = curve_steps(total, cost=cost)
    assert len(looks) * cost <= 0.03 * total + 1e-9
    assert len(looks) <= 40
    assert not looks or max(looks) == total
    assert all(step > 30 for step in looks)  # those before are made while a budget is measured
    assert picture_steps(looks) <= looks
    assert not looks or (len(picture_steps(looks)) <= 8 and max(picture_steps(looks)) == total)


def test_a_shortened_training_keeps_the_looks_that_were_made() -> None:
    schedule = Schedule.of(1000).shortened(500, 700)
    kept = {step for step in curve_steps(1000, cost=1.0) if step <= 500}
    assert schedule.curve_steps(1.0) == kept | {step for step in curve_steps(700, cost=1.0) if step > 500}


def test_the_steps_whose_validation_chooses_weights_are_as_before() -> None:
    assert sorted(validation_steps(3000)) == [1750, 2000, 2250, 2500, 2750, 3000]
    assert sorted(Schedule.of(900).shortened(300, 650).validation_steps()) == [650]


def test_a_look_sends_no_more_pixels_through_the_network_than_a_step(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in the network itself, not by the rule that decides the looks."""
    seen: list[int] = []
    original = CurveLooks.look

    def look(self: CurveLooks, model: medfcn.Model, step: int, *, is_drawn: bool = False) -> dict[str, float | None]:
        handle = model.network.register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0].shape[0] * math.prod(inputs[0].shape[2:]))
        )
        try:
            return original(self, model, step, is_drawn=is_drawn)
        finally:
            handle.remove()

    monkeypatch.setattr(CurveLooks, "look", look)
    run = medfcn.train(balls, tmp_path / "run", steps=40, device="cpu", threads=1, report=False)
    plan = run.load(device="cpu").models[0].card.plan
    assert 0 < sum(seen) <= plan.batch_size * math.prod(plan.window)


def test_pixels_count_windows_and_tiles() -> None:
    before, now = tiny_plan(window=(64, 64)), tiny_plan(window=(64, 64), whole=4.0)
    assert _pixels((20, 30), before, 0.5) == 64 * 64
    assert _pixels((70, 64), before, 0.5) == 70 * 64
    assert _pixels((128, 64), before, 0.5) == 3 * 64 * 64
    assert _pixels((128, 64), now, 0.5) == 128 * 64
    assert _pixels((320, 70), now, 0.5) == 9 * 64 * 70


def test_a_picture_shows_three_slices_with_both_masks(balls: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    blocks, found = [], []
    for _ in range(3):
        reference = np.zeros((20, 24, 5), dtype=np.uint8)
        reference[5:15, 5:15] = 1
        blocks.append(Block(random.normal(size=(1, 20, 24, 5)).astype(np.float32), reference, (0, 0)))
        found.append(np.zeros_like(reference))
    empty = picture(blocks, found, "axial", values=1)
    found[1][8:12, 8:12] = 1
    drawn = picture(blocks, found, "axial", values=1)
    assert drawn != empty
    assert drawn == picture(blocks, found, "axial", values=1)
    (tmp_path / "a.png").write_bytes(drawn)
    pixels = (imread(tmp_path / "a.png") * 255).round().astype(int)
    orange = (pixels[..., :3] == [0xE6, 0x9F, 0x00]).all(axis=2)
    width = pixels.shape[1]
    assert all(orange[:, part * width // 3 : (part + 1) * width // 3].any() for part in range(3))


def test_validation_cases_are_read_for_a_curve_only_if_a_look_is_due(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medfcn.training.curve._block", lambda *_: pytest.fail("read"))
    assert medfcn.train(balls, tmp_path / "run", steps=8, device="cpu", threads=1, report=False).steps == 8


def test_a_look_costs_more_steps_where_training_sees_parts_of_slices() -> None:
    def curve(trained: tuple[int, int]) -> Curve:
        case = SimpleNamespace(image=np.zeros((1, 64, 64, 9)))
        plan = tiny_plan(views=("axial",), context=1, batch_size=8, window=(64, 64), crop=trained)
        prepared: Any = SimpleNamespace(plan=plan, survey=SimpleNamespace(labels=None), validation=[case] * 4)
        return Curve(prepared, tile_overlap=0.5)

    whole, parts = curve((64, 64)), curve((32, 32))
    assert whole.cost <= 1
    assert (len(parts.cases), parts.thickness) == (len(whole.cases), whole.thickness)
    assert parts.cost == 4 * whole.cost
    assert len(curve_steps(700, cost=parts.cost)) < len(curve_steps(700, cost=whole.cost)) / 3


def test_slices_of_a_look_have_most_of_the_labels_whose_turn_it_is() -> None:
    # `long` is in slices 0 to 7, largest in 3 and 4; `short` in 9 and 10 and much smaller.
    reference = np.zeros((12, 10, 10), dtype=np.uint8)
    for place, edge in enumerate((2, 4, 6, 8, 8, 6, 4, 2)):
        reference[place, :edge, :edge] = 1
    reference[9:11, :3, :3] = 2
    labels, both, second = LabelMap.parse("long=1,short=2"), np.array([True, True]), np.array([False, True])
    assert _fullest(reference, labels, 2, both) == (3, 5)
    assert _fullest(reference, labels, 2, second) == (9, 11)
    assert _fullest(reference, labels, 5, second) == (5, 10)  # with most of the other one
    assert _fullest(reference, labels, 20, both) == (0, 12)
    assert _fullest(reference, LabelMap.parse("whole=1+2,core=2"), 2, second) == (9, 11)
    reference[reference == 2] = IGNORED
    assert _fullest(reference, labels, 2, second) == (3, 5)


def test_a_curve_has_slices_of_each_label_or_says_of_which_it_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[list[bool]] = []

    def block(case: Any, plan: Any, labels: Any, view: Any, thickness: Any, waiting: Any) -> Block:
        turns.append(waiting.tolist())
        return Block(case.image, np.full((2, 2, 2), case.held, dtype=np.uint8), (0, 0))

    monkeypatch.setattr("medfcn.training.curve._block", block)
    plan = tiny_plan(views=("axial",), context=1, batch_size=8, window=(64, 64))
    survey = SimpleNamespace(labels=LabelMap.parse("a=1,b=2"))

    def curve(*held: int) -> Curve:
        cases = [SimpleNamespace(image=np.zeros((1, 64, 64, 9)), held=value) for value in held]
        prepared: Any = SimpleNamespace(plan=plan, survey=survey, validation=cases)
        return Curve(prepared, tile_overlap=0.5)

    two = curve(1, 2)
    assert (two.absent, turns) == ((), [[True, True], [False, True]])
    lines, schedule = Told(), {4, 8}
    CurveLooks(curve(1, 1), SimpleNamespace(), lines).report(schedule)  # type: ignore[arg-type]
    assert lines.lines[-1].endswith("2 times; nothing is chosen by it; none of these slices has b")
