"""The methods paragraph says what the run's record says, and names no case."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from medfcn.cli import main
from medfcn.inference.card import read_card
from medfcn.reporting.methods import _channels, _scores, _slices, methods_paragraph, scaling
from medfcn.runs.models import models_of
from medfcn.slices.plan import Intensity
from tests.inference.models import tiny_model


def changed(run: Path, folder: Path, **values: object) -> Path:
    """A copy of a run whose card has other values."""
    shutil.copytree(run, folder)
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(card | values))
    return folder


def test_it_states_data_split_plan_training_scores_and_versions(ball_run: Path) -> None:
    card = read_card(models_of(ball_run)[0].card)
    text = methods_paragraph(ball_run)
    steps, window = card.training["steps"], card.plan.window
    for words in (
        f"trained on {card.training['cases']} volumes",
        f"{steps} steps of {card.plan.batch_size} slices",
        f"windows of {window[0]} × {window[1]} pixels",
        "the sum of cross-entropy and Dice loss",
        "rotation to 20°",
        f"torch {card.versions['torch']}",
        "2 TP / (2 TP + FP + FN)",
        "Research use only",
    ):
        assert words in text, words
    dice = card.validation["labels"]["ball"]["shares"]["dice"]["mean"]
    assert f"a mean Dice of {dice:.3f}" in text


def test_no_case_is_named(ball_run: Path) -> None:
    with (ball_run / "cases.csv").open(newline="") as file:
        cases = [row["case"] for row in csv.DictReader(file)]
    text = methods_paragraph(ball_run)
    assert cases
    assert not [case for case in cases if case in text]


def test_what_was_chosen_otherwise_is_said_otherwise(ball_run: Path, tmp_path: Path) -> None:
    card = json.loads((ball_run / "model.json").read_text())
    settings = card["settings"]
    settings["training"] |= {"loss": "dice", "ema_decay": 0.0, "learning_rate": 0.001}
    settings["augment"] = dict.fromkeys(settings["augment"], 0.0) | {"mirror": "never", "movement": "usual"}
    text = methods_paragraph(changed(ball_run, tmp_path / "other", settings=settings, validation={}))
    assert "on Dice loss" in text
    assert "rises to 0.001" in text
    for words in ("augmented", "moving average", "mean Dice"):
        assert words not in text


def test_patients_with_several_volumes_are_counted(ball_run: Path, tmp_path: Path) -> None:
    run = changed(ball_run, tmp_path / "grouped")
    with (run / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (run / "cases.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows({**row, "group": "P1"} for row in rows)
    assert "split by patient (1 patient in all)" in methods_paragraph(run)
    assert "split by patient" not in methods_paragraph(ball_run)


def test_several_runs_are_networks_of_one_paragraph(ball_run: Path) -> None:
    text = methods_paragraph([ball_run, ball_run])
    assert "2 networks, whose probabilities were averaged" in text
    assert "Network 2 was trained on" in text


def test_the_weights_it_starts_from_are_said(ball_run: Path, tmp_path: Path) -> None:
    training = json.loads((ball_run / "model.json").read_text())["training"]
    assert "starts from" not in methods_paragraph(ball_run)
    for number, (start, said) in enumerate(
        (
            (
                {"init": "0123456789abcdef", "init_steps": 80},
                "another run (SHA-256 0123456789ab…), trained for 80 steps.",
            ),
            ({"init": "0123456789abcdef"}, "another run (SHA-256 0123456789ab…). "),
            ({"encoder_weights": "fedcba9876543210"}, "an encoder (SHA-256 fedcba987654…). "),
        )
    ):
        run = changed(ball_run, tmp_path / f"run_{number}", training=training | start)
        assert f" It starts from the weights of {said}" in methods_paragraph(run)
    assert "Network 1 starts from the weights" in methods_paragraph([run, ball_run])


def test_labels_that_were_drawn_in_some_cases_are_said(ball_run: Path, tmp_path: Path) -> None:
    training = json.loads((ball_run / "model.json").read_text())["training"]
    drawn = {"training": "ball alone drawn in 2 of 5 cases"}
    text = methods_paragraph(changed(ball_run, tmp_path / "drawn", training=training | {"partly_drawn": drawn}))
    said = "In the training cases ball alone drawn in 2 of 5 cases; elsewhere in them is background or another label."
    assert said in text
    assert "In the training cases" not in methods_paragraph(ball_run)


@pytest.mark.parametrize(
    ("steps", "warmup", "rate", "said"),
    [
        (30, 50, None, "rises to at most 0.0024 for all of its 30 steps)"),
        (50, 50, 0.001, "rises to 0.001 for all of its 50 steps)"),
        (51, 50, 0.001, "rises to 0.001 in 50 steps, then falls as a cosine)"),
        (1, 1, 0.001, "rises to 0.001 for all of its 1 step)"),
        (30, 0, None, "falls as a cosine from at most 0.004)"),
    ],
)
def test_the_learning_rate_is_said_as_it_was(
    ball_run: Path, tmp_path: Path, steps: int, warmup: int, rate: float | None, said: str
) -> None:
    card = json.loads((ball_run / "model.json").read_text())
    card["settings"]["training"] |= {"warmup_steps": warmup, "learning_rate": rate}
    training = card["training"] | {"steps": steps}
    text = methods_paragraph(changed(ball_run, tmp_path / "run", settings=card["settings"], training=training))
    assert f"; the learning rate {said} on " in text


def test_the_command_prints_it(ball_run: Path) -> None:
    result = CliRunner().invoke(main, ["describe", str(ball_run)])
    assert result.exit_code == 0, result.output
    assert result.stdout == methods_paragraph(ball_run) + "\n"
    asked = CliRunner().invoke(main, ["describe", str(ball_run), "--json"])
    assert json.loads(asked.stdout) == {"run": str(ball_run), "methods": methods_paragraph(ball_run)}
    missing = CliRunner().invoke(main, ["describe", str(ball_run / "nothing")])
    assert missing.exit_code == 1
    assert "nothing" in missing.stderr


@pytest.mark.parametrize("value", ["inf", None, 1.25])
def test_a_distance_may_be_infinite_or_unknown(ball_run: Path, tmp_path: Path, value: object) -> None:
    card = read_card(models_of(ball_run)[0].card)
    validation = json.loads(json.dumps(dataclasses.asdict(card)["validation"]))
    validation["labels"]["ball"]["distances"]["hd95_mm"]["median"] = value
    text = methods_paragraph(changed(ball_run, tmp_path / "run", validation=validation))
    if value is None:
        assert "HD95" not in text
        assert "infinite" not in text
    else:
        assert f"a median HD95 of { {'inf': '∞', 1.25: '1.25'}[value] } mm" in text
        assert "HD95 is" in text


def test_labels_that_are_drawn_in_the_same_part_share_a_sentence_and_have_no_distance(ball_run: Path) -> None:
    card = read_card(models_of(ball_run)[0].card)
    validation = json.loads(json.dumps(card.validation))
    ball = validation["labels"]["ball"]
    ball["partly_labelled"] = {"cases": 1, "labelled_voxels": 10, "voxels": 1000}
    ball["distances"]["hd95_mm"]["median"] = "inf"
    validation["labels"] |= {"other": ball}
    text = " ".join(_scores([dataclasses.replace(card, validation=validation)]))
    assert text.count("less than half is labelled in 1 of") == 1
    assert "HD95" not in text
    assert "∞" not in text


def test_a_channel_with_a_number_for_a_name_is_called_by_its_kind(ball_run: Path) -> None:
    card = read_card(models_of(ball_run)[0].card)
    kinds = (Intensity("ct", -100.0, 300.0, 50.0, 80.0), card.plan.intensities[0], card.plan.intensities[0])
    plan = dataclasses.replace(card.plan, intensities=kinds)
    named = dataclasses.replace(card, plan=plan, channels=("0000", "0001", "PET"))
    assert list(_channels(named)) == ["channel 1 (CT)", "channel 2 (not named)", "PET"]


def test_choices_are_named_only_if_there_was_a_choice(ball_run: Path, tmp_path: Path) -> None:
    training = json.loads((ball_run / "model.json").read_text())["training"]
    assert training["validations"] == 1
    nothing = {"threshold": None, "one_part": [], "together": False}
    assert "These volumes chose" not in methods_paragraph(changed(ball_run, tmp_path / "one", **nothing))
    cut = changed(ball_run, tmp_path / "cut", **nothing | {"one_part": [1]})
    assert "These volumes chose the components to keep, so new ones" in methods_paragraph(cut)
    several = changed(ball_run, tmp_path / "several", **nothing, training=training | {"validations": 2})
    assert "These volumes chose the weights, so new ones" in methods_paragraph(several)
    fold = changed(ball_run, tmp_path / "fold", training=training | {"validations": 0, "fold": "1 of 2"})
    assert "These volumes chose" not in methods_paragraph(fold)


def test_each_channel_has_its_own_scaling(ball_run: Path) -> None:
    card = read_card(models_of(ball_run)[0].card)
    zscore = card.plan.intensities[0]
    ct = Intensity("ct", -100.0, 300.0, 50.0, 80.0)

    def words(*intensities: Intensity) -> str:
        plan = dataclasses.replace(card.plan, intensities=intensities)
        return scaling(dataclasses.replace(card, plan=plan, channels=("CT", "PET")[: len(intensities)]))

    own = "scaled by each volume's own mean and standard deviation"
    assert words(zscore) == words(zscore, zscore) == f"Intensities were {own}."
    clipped = "clipped and scaled by the intensities of the organ in all training volumes"
    assert words(ct, zscore) == f"Of the channels, CT was {clipped}; PET was {own}."


def test_nothing_is_said_of_patients_where_the_record_has_none(ball_run: Path, tmp_path: Path) -> None:
    run = changed(ball_run, tmp_path / "travelled")
    with (run / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [{name: row[name] for name in ("use", "sha256_image")} for row in rows]
    with (run / "cases.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, kept[0])
        table.writeheader()
        table.writerows(kept)
    assert "patient" not in methods_paragraph(run)


def test_slices_that_were_left_out_are_told() -> None:
    views: dict[str, Any] = {"views": ("axial", "coronal", "sagittal"), "spacing_mm": (1.5, 1.5, 1.5)}
    said = " ".join(_slices(tiny_model(apart=(3, 3, 1), **views).card))
    steps = "3 (axial), 3 (coronal), 1 (sagittal)"
    assert f"It saw one slice in {steps}; between them its probabilities were interpolated linearly." in said
    assert "one slice in" not in " ".join(_slices(tiny_model(**views).card))


def test_statistics_of_the_volume_itself_are_told() -> None:
    said = " ".join(_slices(tiny_model(own_statistics=0.5).card))
    assert "Each batch normalisation took 50% of its statistics from the volume to be segmented" in said
    assert "statistics" not in " ".join(_slices(tiny_model().card))
