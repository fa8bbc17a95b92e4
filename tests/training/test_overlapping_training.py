"""Nested labels from files to scores: each is found, and scored as the union of its parts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import medfcn
from medfcn.config import override
from medfcn.datasets import find_dataset
from medfcn.errors import SettingsError
from medfcn.evaluation import evaluate
from medfcn.labels import IGNORED, LabelMap, read_mask
from medfcn.progress import Silent
from medfcn.settings import Settings
from medfcn.slices.augment import Augmenter
from medfcn.slices.plan import Plan
from medfcn.slices.preprocess import grid_of
from medfcn.training.prepare import ceiling, plan_training, prepare
from medfcn.training.survey import survey
from medfcn.training.train import Run, plan
from medfcn.verbs import predict
from medfcn.volumes import ReadOptions, Volume
from tests.overlapping import NESTED, draw_nested, write_nested

NAMES = ("whole", "core", "enhancing")


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nested(tmp_path_factory.mktemp("nested"), range(8))


@pytest.fixture(scope="module")
def run(nested: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained on six cases; the last two are unseen."""
    settings = override(Settings(), "training", presence_weight=0.1, distance_weight=0.1, deep_supervision=True)
    settings = override(settings, "slices", context=1)  # learnt sooner
    return medfcn.train(
        nested,
        tmp_path_factory.mktemp("run") / "run",
        labels=NESTED,
        settings=settings,
        leave_out=["ball_6", "ball_7"],
        steps=200,
        device="cpu",
        threads=1,
    )


def dice_of(drawn: np.ndarray, found: np.ndarray) -> float:
    return 2 * float((drawn & found).sum()) / float(drawn.sum() + found.sum())


def test_every_nested_label_is_found_and_scored_as_its_union(run: Run, nested: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in (6, 7):
        (images / f"ball_{number}.nii.gz").write_bytes((nested / "images" / f"ball_{number}.nii.gz").read_bytes())
    predict(run.folder, images, tmp_path / "masks", device="cpu")
    by_sidecar = evaluate(tmp_path / "masks", nested)
    for path in (tmp_path / "masks").glob("*.json"):
        path.unlink()
    by_option = evaluate(tmp_path / "masks", nested, labels=NESTED)
    assert [repr(row) for row in by_option.rows] == [repr(row) for row in by_sidecar.rows]
    dices = {(row.case, row.label): row.dice for row in by_sidecar.rows if row.case in ("ball_6", "ball_7")}
    assert len(dices) == 6
    for number in (6, 7):
        drawn = draw_nested(number)[1]
        found = read_mask(tmp_path / "masks" / f"ball_{number}.nii.gz").array
        for label, name in enumerate(NAMES):
            dice = dice_of(drawn > label, found > label)
            assert dices[f"ball_{number}", name] == pytest.approx(dice)
            assert dice > 0.8, name


def test_the_run_says_what_it_was_trained_for(run: Run) -> None:
    card = run.load(device="cpu").card
    assert card.labels == LabelMap.parse(NESTED)
    assert card.one_part == ()
    assert run.load(device="cpu").head == "sigmoid"
    assert run.load(device="cpu").network.channels_out == 3
    assert {row.label for row in run.validation.rows} == set(NAMES)
    assert all(row.dice > 0.8 for row in run.validation.rows)


def test_the_validation_dice_of_the_log_is_that_of_the_labels(run: Run) -> None:
    import csv

    with (run.folder / "log.csv").open() as file:
        last = [row["validation_dice"] for row in csv.DictReader(file) if row["validation_dice"]][-1]
    scored = [row.dice for row in run.validation.rows]
    assert float(last) == pytest.approx(np.mean(scored), abs=1e-6)


def test_a_run_of_overlapping_labels_goes_on(run: Run, nested: Path, tmp_path: Path) -> None:
    """All weights are carried on for the same labels; for others those of the labels start anew."""
    lines: list[str] = []

    class Told(Silent):
        def say(self, text: str) -> None:
            lines.append(text)

    medfcn.train(nested, tmp_path / "a", labels=NESTED, init=run.folder, steps=1, device="cpu", progress=Told())
    assert "labels overlap: 1 is whole; 2 is whole + core; 3 is whole + core + enhancing" in lines
    assert any("starts from" in line and "random" not in line for line in lines)
    lines.clear()
    labels = "rim=1,core=2,tip=3"
    again = medfcn.train(
        nested, tmp_path / "b", labels=labels, init=run.folder, steps=1, device="cpu", progress=Told()
    )
    assert any("the layers of the labels start at random" in line for line in lines)
    assert not any(line.startswith("labels overlap") for line in lines)
    assert again.load(device="cpu").head == "softmax"


@pytest.mark.parametrize(
    ("table", "name", "value", "words"),
    [
        ("network", "head", "softmax", "network.head: 'softmax' lets one label hold at a time"),
        ("prediction", "largest_part", "always", "prediction.largest_part: 'always' removes components"),
        ("training", "class_weights", (1.0, 1.0), "the background and 3 labels take 4"),
    ],
)
def test_settings_that_overlapping_labels_cannot_have_are_refused(
    nested: Path, tmp_path: Path, table: str, name: str, value: object, words: str
) -> None:
    settings = override(Settings(), table, **{name: value})
    with pytest.raises(SettingsError, match=words) as caught:
        medfcn.train(nested, tmp_path / "run", labels=NESTED, settings=settings, steps=1, device="cpu")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_regions_of_a_dataset_are_trained_without_an_option(nested: Path, tmp_path: Path) -> None:
    write_nested(tmp_path / "data", range(4))
    regions = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"labels": regions}))
    planned = plan(tmp_path / "data")
    assert planned.labels.names == NAMES
    assert planned.labels.overlapping
    softmax = override(Settings(), "network", head="softmax")
    with pytest.raises(SettingsError, match="labels overlap"):
        plan(tmp_path / "data", settings=softmax)


def test_training_shows_every_part(nested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two labels have three parts, the third of both."""
    shown: set[int] = set()
    original = Augmenter.__call__

    def noted(
        self: Augmenter, images: torch.Tensor, targets: torch.Tensor, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        images, targets = original(self, images, targets, **options)
        shown.update(targets.unique().tolist())
        return images, targets

    monkeypatch.setattr(Augmenter, "__call__", noted)
    medfcn.train(nested, tmp_path / "run", labels="a=1+3,b=2+3", steps=1, device="cpu", threads=1)
    assert shown == {0, 1, 2, 3}


def test_slices_hold_parts_and_what_is_ignored(tmp_path: Path) -> None:
    root = write_nested(tmp_path / "data", range(4))
    labels = LabelMap.parse("whole=1+2,core=2,ignore=3")
    found = survey(find_dataset(root), labels, ReadOptions(), skip_bad=False, progress=Silent())
    settings = override(Settings(), "slices", views=("axial",))
    split, made = plan_training(found, settings, seed=0)
    (tmp_path / "store").mkdir()
    prepared = prepare(found, split, made, tmp_path / "store", Silent())
    for case in prepared.stored:
        mask = draw_nested(int(case.id[-1]))[1]
        drawn = [int((mask == value).sum()) for value in (1, 2, 3)]
        assert [int((case.labels == value).sum()) for value in (1, 2, IGNORED)] == drawn
        assert found.fingerprints[case.id].label_voxels == (drawn[0] + drawn[1], drawn[1])
        assert len(case.label_slices) == 2
    assert set(prepared.ceilings.values()) == {1.0}


def test_the_ceiling_is_the_mean_of_the_labels_alone(nested: Path) -> None:
    image, mask = draw_nested(0)
    found = survey(find_dataset(nested), LabelMap.parse(NESTED), ReadOptions(), skip_bad=False, progress=Silent())
    _, made = plan_training(found, Settings(), seed=0)
    coarse = Plan.from_json(made.to_json() | {"spacing_mm": [1.7, 1.6, None]})
    volume = Volume(image, np.diag([-1.0, -1.0, 1.5, 1.0]), name="a")
    grid, single = grid_of(volume, coarse), LabelMap.parse("one=1")
    together = ceiling(mask, grid, found.labels)
    alone = [ceiling((mask > label).astype(np.uint8), grid, single) for label in range(3)]
    assert 0.6 < min(alone) < max(alone) < 1
    assert together == pytest.approx(np.mean(alone), abs=0.01)
