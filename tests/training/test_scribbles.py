"""A network that learned from strokes says nothing about whole organs that only whole references could tell."""

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

import medfcn
from medfcn.inference.card import read_card
from medfcn.reporting.methods import methods_paragraph
from tests.conftest import draw_ball, write_case
from tests.training.test_resume import Told

LABELS = "ball=1,ignore=255"
COMMON: dict[str, Any] = {"labels": LABELS, "device": "cpu", "threads": 1}


def scribbled(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every fifth row of each slice, of which every third voxel is labelled."""
    drawn = np.full_like(mask, 255)
    drawn[::5, ::3] = mask[::5, ::3]
    return drawn


def lay(folder: Path, scribbles: range, whole: range = range(0)) -> Path:
    for number in (*scribbles, *whole):
        image, mask = draw_ball(number)
        write_case(folder, f"ball_{number:02d}", image, scribbled(mask) if number in scribbles else mask)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run on strokes alone, and what was said."""
    folder, told = tmp_path_factory.mktemp("strokes"), Told()
    data = lay(folder / "data", range(8))
    medfcn.train(data, folder / "run", steps=40, progress=told, **COMMON)
    return folder / "run", told.lines


def test_a_validation_on_strokes_says_that_it_is_one(trained: tuple[Path, list[str]]) -> None:
    run, lines = trained
    share = "less than half is labelled in 1 of 1 cases, 576 of 6,864 voxels (8.4 %)"
    grid = next(line for line in lines if "network grid" in line)
    assert "of the labelled voxels alone (less than half is labelled in 7 of 7 cases" in grid
    scored = [line for line in lines if "validation Dice" in line]
    assert scored
    assert all(line.endswith(f" of the labelled voxels alone ({share})") for line in scored)
    card = json.loads((run / "model.json").read_text())
    assert card["training"]["partly_labelled"]["validation"] == share
    assert "in 7 of 7 cases" in card["training"]["partly_labelled"]["training"]
    ball = card["validation"]["labels"]["ball"]
    assert ball["partly_labelled"]["cases"] == 1
    assert ball["distances"]["hd95_mm"]["mean"] is ball["shares"]["nsd"]["mean"] is ball["volume"]["mean_ml"] is None
    assert any("predict expects no Dice" in note for note in card["validation"]["notes"])
    page = (run / "report.html").read_text()
    assert "Validation Dice of the labelled voxels" in page
    assert "8.4 %" in page


def test_the_paragraph_and_the_model_card_say_of_what_dice_is(
    trained: tuple[Path, list[str]], tmp_path: Path
) -> None:
    run, _ = trained
    file = medfcn.export(run, tmp_path / "model.medfcn")
    with zipfile.ZipFile(file) as archive:
        shown = archive.read("card.md").decode()
    meaning = "less than half is labelled in 1 of 1 case, 576 of 6,864 voxels (8.4 %): their overlaps (Dice, IoU, "
    for text in (methods_paragraph(run), methods_paragraph(file), shown):
        assert meaning in text
        assert "are of these voxels alone, not of the organ" in text
        assert "– mm" not in text
    for text in (methods_paragraph(run), shown):
        assert "In the training cases less than half is labelled in 7 of 7 cases, " in text


def test_the_card_takes_no_figure_of_an_organ_from_strokes(trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    run, _ = trained
    unseen = read_card(run / "model.json").unseen
    assert unseen is not None
    (ball,) = unseen.labels
    assert (ball.scores, ball.log_ml, ball.absent_share, unseen.threshold_dices) == ((), None, 0, ())
    write_case(tmp_path, "ball_20", *draw_ball(20))
    medfcn.predict(run, tmp_path / "images", tmp_path / "masks", device="cpu")
    record = json.loads((tmp_path / "masks" / "ball_20.json").read_text())
    assert record["volumes_ml"]["ball"] > 0.3
    assert record["expected_dice"] == {"ball": None}
    assert not any("far larger" in flag for flag in record["flags"])


def test_beside_strokes_the_whole_references_tell_the_volumes(tmp_path: Path) -> None:
    data = lay(tmp_path / "data", range(3), range(3, 13))
    run = medfcn.train(data, tmp_path / "run", steps=2, settings=None, **COMMON)
    with (run.folder / "cases.csv").open() as file:
        training = [row["case"] for row in csv.DictReader(file) if row["use"] == "training"]
    whole = [int(case[-2:]) for case in training if int(case[-2:]) >= 3]
    assert len(whole) < len(training)
    logs = np.log([draw_ball(number)[1].sum() * 1.5 / 1000 for number in whole])
    unseen = read_card(run.folder / "model.json").unseen
    assert unseen is not None
    assert unseen.labels[0].log_ml == pytest.approx((logs.mean(), logs.std(ddof=1)))


def test_strokes_do_not_tell_organs_from_lesions(tmp_path: Path) -> None:
    """Strokes of very different length in balls of one size: no reason to show mirror images."""
    for number in range(4):
        image, mask = draw_ball(number)
        drawn = np.full_like(mask, 255)
        inside = np.flatnonzero(mask)
        drawn.flat[inside[: 4 ** (number + 1)]] = 1
        drawn[0] = 0
        write_case(tmp_path / "data", f"ball_{number}", image, drawn)
    checked = " ".join(medfcn.check(tmp_path / "data", labels=LABELS).to_text().split())
    assert "1: 4, ignored: 6596 ball_1" in checked  # no millilitres
    assert "less than half is labelled in 4 of 4 cases" in checked
    reasons = " ".join(medfcn.plan(tmp_path / "data", labels=LABELS).to_text().split())
    assert "less than half of every case is labelled" in reasons
    words = medfcn.plan(tmp_path / "data", labels=LABELS).of_labelled
    assert words.startswith(" of the labelled voxels alone (less than half is labelled in 3 of 3 cases")


def pair(number: int, *, is_organ: bool) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """A ball, and a smaller one like it where nobody labelled anything; or both with strokes, as a paired organ."""
    mask = draw_ball(number, (26, 48, 12))[1]
    mask, other = np.roll(mask, -12, axis=1), np.roll(ndimage.binary_erosion(mask), 12, axis=1)
    noise = np.random.default_rng(number).normal(0, 15, mask.shape)
    drawn = scribbled(mask | other)
    if not is_organ:
        drawn[:, 24:] = 255
    return (100 + 80 * (mask | other) + noise).astype(np.int16), drawn


@pytest.mark.parametrize("folds", [None, 2], ids=["one split", "folds"])
@pytest.mark.parametrize("is_organ", [True, False], ids=["two kidneys", "an organ and its double"])
def test_strokes_tell_whether_an_organ_is_one_component(tmp_path: Path, is_organ: bool, folds: int | None) -> None:
    for number in range(6):
        write_case(tmp_path / "data", f"case_{number}", *pair(number, is_organ=is_organ))
    run = medfcn.train(tmp_path / "data", tmp_path / "run", steps=30, folds=folds, report=False, **COMMON)
    models = [run.folder] if folds is None else [run.folder / "fold_1", run.folder / "fold_2"]
    assert {read_card(folder / "model.json").one_part for folder in models} == {() if is_organ else (1,)}
    write_case(tmp_path, "case_9", *pair(9, is_organ=is_organ))
    model = run.load(device="cpu")
    found = model.predict(tmp_path / "images" / "case_9.nii.gz").array
    assert found[:, :24].sum() > 200
    assert (found[:, 24:].sum() > 50) == is_organ


@pytest.mark.parametrize("is_organ", [True, False], ids=["two pairs", "an organ of two labels and its double"])
def test_strokes_tell_whether_all_labels_together_are_one_component(tmp_path: Path, is_organ: bool) -> None:
    """The upper half of each ball is another label; the steps are enough that masks find both, or nothing is told."""

    def halved(number: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        image, drawn = pair(number, is_organ=is_organ)
        upper = drawn[:, :, 6:]
        upper[upper == 1] = 2
        image[:, :, 6:][image[:, :, 6:] > 140] += 60
        return image, drawn

    for number in range(6):
        write_case(tmp_path / "data", f"case_{number}", *halved(number))
    labels = {**COMMON, "labels": "lower=1,upper=2,ignore=255"}
    run = medfcn.train(tmp_path / "data", tmp_path / "run", steps=90, report=False, **labels)
    card = read_card(run.folder / "model.json")
    assert card.together != is_organ
    write_case(tmp_path, "case_9", *halved(9))
    found = run.load(device="cpu").predict(tmp_path / "images" / "case_9.nii.gz").array
    assert found[:, :24].sum() > 200
    assert (found[:, 24:].sum() > 50) == is_organ
