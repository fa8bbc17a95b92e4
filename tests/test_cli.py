"""The commands, run in process: what they print where, what they leave behind, and how they end."""

import csv
import json
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner, Result

from medfcn.cli import main
from medfcn.commands.predict import say_outcome
from medfcn.inference.batch import PredictionRun
from medfcn.inference.foreign import FOREIGN
from medfcn.slices.planning import _NEIGHBOURS_NEAR
from tests.conftest import draw_ball, write_case


def medfcn(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def only_line(result: Result) -> str:
    """The one line an error is told in; progress lines may stand before it."""
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(("medfcn: ", "Error: "))
    return last


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_pipe_given_for_a_file_of_any_kind_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    write_case(tmp_path, "ball", *draw_ball(0))
    pipe, masks = tmp_path / "pipe", tmp_path / "labels"
    for arguments in (
        ("check", pipe),
        ("evaluate", pipe, masks, "-o", tmp_path / "scores"),
        ("evaluate", masks, pipe, "-o", tmp_path / "scores"),
        ("predict", pipe, tmp_path / "images", "-o", tmp_path / "masks"),
        ("train", tmp_path, "-o", tmp_path / "run", "--config", pipe),
        ("train", tmp_path, "-o", tmp_path / "run", "--leave-out", pipe),
    ):
        result = medfcn(*arguments)
        assert result.exit_code
        assert "pipe: a pipe (FIFO), not a file; write what comes out of it to a file" in only_line(result)


def test_the_misuse_of_an_option_names_it_once(tmp_path: Path) -> None:
    write_case(tmp_path, "ball", *draw_ball(0))
    result = medfcn("check", tmp_path, "--labels", "1=2=3")
    assert result.exit_code == 2
    assert only_line(result).startswith("Error: Invalid value for '--labels': '1=2=3' is not NAME=V")


def test_train_predict_and_evaluate_make_what_they_say(balls: Path, tmp_path: Path) -> None:
    ids = tmp_path / "test.txt"
    ids.write_text("ball_6\nball_7\n")
    run, masks, scores = tmp_path / "run", tmp_path / "masks", tmp_path / "scores"
    trained = medfcn(
        "train", balls, "-o", run, "--labels", "ball=1", "--leave-out", ids, "--steps", 60, "--device", "cpu"
    )
    assert trained.exit_code == 0, trained.stderr
    assert "ball" in trained.stdout
    validation = [name for name in files_in(run) if name.startswith("validation/ball_")]
    assert len(validation) == 1
    assert files_in(run) == sorted(
        [
            "cases.csv",
            "log.csv",
            "model.json",
            "model.safetensors",
            "options.json",
            "pictures/step_0000060.png",
            "report.html",
            "validation/labels.ctbl",
            "validation/labels.txt",
            "validation/scores.csv",
            "validation/summary.json",
            *validation,
        ]
    )
    with (run / "cases.csv").open() as file:
        uses = {row["case"]: row["use"] for row in csv.DictReader(file)}
    assert set(uses) == {f"ball_{number}" for number in range(8)}
    assert sorted(uses.values()) == ["left out"] * 2 + ["training"] * 5 + ["validation"]
    assert {name for name, use in uses.items() if use == "left out"} == {"ball_6", "ball_7"}

    for path in run.rglob("*"):
        if path.is_file():
            assert balls.parent.name.encode() not in path.read_bytes(), f"{path} names a folder above the data set"

    predicted = medfcn("predict", run, balls, "-o", masks, "--cases", ids, "--device", "cpu", "--probabilities")
    assert predicted.exit_code == 0, predicted.stderr
    assert files_in(masks) == sorted(
        [f"ball_{n}{end}" for n in (6, 7) for end in (".nii.gz", ".json")]
        + [f"probabilities/ball_{n}.nii.gz" for n in (6, 7)]
        + [".medfcn.engine", "labels.ctbl", "labels.txt", "timing.csv", "volumes.csv"]
    )
    probability = np.asarray(nibabel.load(masks / "probabilities" / "ball_6.nii.gz").dataobj)
    mask = np.asarray(nibabel.load(masks / "ball_6.nii.gz").dataobj) == 1
    # Smaller parts than the largest may have been taken away, nothing is ever added.
    assert (probability[mask] >= 0.5).all()
    assert mask.sum() > 0.9 * (probability >= 0.5).sum()

    evaluated = medfcn("evaluate", masks, balls / "labels", "-o", scores, "--cases", ids)
    assert evaluated.exit_code == 0, evaluated.stderr
    assert "Dice" in evaluated.stdout
    assert "HD95" in evaluated.stdout
    with (scores / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["ball_6", "ball_7"]
    assert all(float(row["dice"]) > 0.8 for row in rows)


def test_a_missing_prediction_counts_as_a_miss(balls: Path, ball_run: Path, tmp_path: Path) -> None:
    ids = tmp_path / "test.txt"
    ids.write_text("ball_6\nball_7\n")
    assert medfcn("predict", ball_run, balls, "-o", tmp_path / "masks", "--cases", ids).exit_code == 0
    (tmp_path / "masks" / "ball_7.nii.gz").unlink()
    assert medfcn("evaluate", tmp_path / "masks", balls, "-o", tmp_path / "scores", "--cases", ids).exit_code == 0
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    with (tmp_path / "scores" / "scores.csv").open() as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert rows["ball_7"]["status"] == "prediction_missing"
    assert (rows["ball_7"]["dice"], rows["ball_7"]["hd95_mm"]) == ("0", "inf")
    assert summary


@pytest.mark.parametrize("command", ["train", "predict", "evaluate"])
def test_an_existing_output_is_refused_before_any_work(
    command: str, balls: Path, ball_run: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "precious.txt").write_text("keep me")
    inputs = {"train": [balls], "predict": [ball_run, balls], "evaluate": [balls, balls]}[command]
    extra = ["--steps", 2] if command == "train" else []
    result = medfcn(command, *inputs, "-o", output, *extra)
    assert result.exit_code == 1
    assert "already exists" in only_line(result)
    assert files_in(output) == ["precious.txt"]


def test_overwriting_a_run_keeps_what_is_not_ours(balls: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert medfcn("train", balls, "-o", output, "--steps", 2, "--device", "cpu").exit_code == 0
    (output / "model.safetensors").write_bytes(b"old")
    (output / "notes.txt").write_text("keep me")
    assert medfcn("train", balls, "-o", output, "--steps", 2, "--overwrite", "--device", "cpu").exit_code == 0
    assert (output / "notes.txt").read_text() == "keep me"
    assert (output / "model.safetensors").stat().st_size > 3


@pytest.mark.parametrize("command", ["train", "predict", "evaluate"])
def test_a_folder_of_other_things_is_not_overwritten(
    command: str, balls: Path, ball_run: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(balls / "labels", output)
    (output / "cases.csv").write_text("image,label\n")
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    inputs = {"train": [balls], "predict": [ball_run, balls], "evaluate": [balls, balls]}[command]
    extra = ["--steps", 2] if command == "train" else []
    result = medfcn(command, *inputs, "-o", output, *extra, "--overwrite")
    assert result.exit_code == 1
    assert "none of them written by medfcn" in only_line(result)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


@pytest.mark.parametrize("name", ["m.nii.gzz", "m.nifti", "m.mha", "m.nii.zip", "m.ni.gz", "M.NII.GZ", "m.gz"])
def test_a_mistyped_mask_ending_makes_no_folder(name: str, balls: Path, ball_run: Path, tmp_path: Path) -> None:
    result = medfcn("predict", ball_run, balls / "images" / "ball_7.nii.gz", "-o", tmp_path / name)
    assert result.exit_code == 2
    assert "ends in neither .nii nor .nii.gz" in only_line(result)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_a_dot_in_its_name_is_a_folder(balls: Path, ball_run: Path, tmp_path: Path) -> None:
    (tmp_path / "b.nii.gzz").mkdir()
    for name in ("masks_v1.2", "b.nii.gzz"):
        result = medfcn("predict", ball_run, balls / "images" / "ball_7.nii.gz", "-o", tmp_path / name)
        assert result.exit_code == 0, result.stderr
        assert (tmp_path / name / "ball_7.nii.gz").is_file()


def break_missing_label(folder: Path) -> str:
    (folder / "labels" / "ball_1.nii.gz").unlink()
    return "ball_1"


def break_shape(folder: Path) -> str:
    image, _ = draw_ball(1)
    affine = np.diag([-1.0, -1.0, 1.5, 1.0])
    nibabel.save(nibabel.Nifti1Image(image[:, :, :-1], affine), folder / "images" / "ball_1.nii.gz")
    return "shape"


def break_truncated(folder: Path) -> str:
    path = folder / "images" / "ball_1.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])
    return "ball_1"


def break_empty(folder: Path) -> str:
    for path in (*folder.glob("images/*"), *folder.glob("labels/*")):
        path.unlink()
    return "images"


def break_labels(folder: Path) -> str:
    for path in folder.glob("labels/*"):
        mask = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.zeros(mask.shape, np.uint8), mask.affine), path)
    return "no case has a foreground voxel"


@pytest.mark.parametrize(
    "damage", [break_missing_label, break_shape, break_truncated, break_empty, break_labels], ids=lambda f: f.__name__
)
def test_bad_data_is_told_in_one_line_and_nothing_is_written(damage, balls: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "data"
    shutil.copytree(balls, folder)
    named = damage(folder)
    result = medfcn("train", folder, "-o", tmp_path / "run", "--steps", 2)
    assert result.exit_code == 1
    assert named in only_line(result)
    assert not (tmp_path / "run").exists()


def test_bad_cases_are_left_out_on_request_and_said_so(balls: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(balls, folder)
    break_truncated(folder)
    result = medfcn("train", folder, "-o", tmp_path / "run", "--steps", 2, "--skip-bad", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert "left out: ball_1" in result.stderr
    with (tmp_path / "run" / "cases.csv").open() as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert rows["ball_1"]["use"] == "left out"
    assert rows["ball_1"]["problem"]
    assert sum(row["use"] == "training" for row in rows.values()) == 6


def test_what_is_missing_is_told_by_check_and_left_out_on_request(balls: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(balls, folder)
    (folder / "labels" / "ball_1.nii.gz").unlink()
    (folder / "images" / "ball_2.nii.gz").unlink()
    checked = medfcn("check", folder)
    assert checked.exit_code == 1
    assert "error LABEL_MISSING images/ball_1.nii.gz: no label of that name in labels/; " in checked.stdout
    assert "error IMAGE_MISSING labels/ball_2.nii.gz: no image of that name in images/; " in checked.stdout
    as_json = json.loads(medfcn("check", folder, "--json").stdout)
    assert [problem["code"] for problem in as_json["problems"][:2]] == ["LABEL_MISSING", "IMAGE_MISSING"]
    assert as_json["errors"] == 2
    stopped = medfcn("plan", folder)
    assert stopped.exit_code == 1
    line = only_line(stopped)
    assert line.startswith("medfcn: 2 of 8 cases cannot be used: ball_1: images/ball_1.nii.gz: no label of that name")
    assert "--skip-bad" in line
    result = medfcn("train", folder, "-o", tmp_path / "run", "--steps", 2, "--skip-bad", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    with (tmp_path / "run" / "cases.csv").open() as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert [rows[name]["use"] for name in ("ball_1", "ball_2")] == ["left out"] * 2
    assert "no label of that name in labels/" in rows["ball_1"]["problem"]
    assert "no image of that name in images/" in rows["ball_2"]["problem"]
    assert sum(row["use"] == "training" for row in rows.values()) == 5


def test_an_incomplete_case_that_is_left_out_anyway_stops_nothing(balls: Path, tmp_path: Path) -> None:
    folder, ids = tmp_path / "data", tmp_path / "test.txt"
    shutil.copytree(balls, folder)
    (folder / "labels" / "ball_1.nii.gz").unlink()
    ids.write_text("ball_1\n")
    assert medfcn("plan", folder, "--leave-out", ids).exit_code == 0


@pytest.mark.parametrize("command", ["train", "plan", "tune"])
def test_the_help_says_how_many_slices_are_seen_as_the_plan_has_it(command: str) -> None:
    words = " ".join(medfcn(command, "--help").stdout.split())
    assert "[default: 3 with the preset auto where slices are at most two pixels apart, else 1]" in words
    assert _NEIGHBOURS_NEAR == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--labels", "ball"], "ball"),
        (["--budget", "soon"], "not a duration"),
        (["--epochs", 0], "0"),
        (["--view", "oblique"], "oblique"),
        (["--views", "axial,axial"], "axial,axial"),
        (["--context", 2], "2 is not an odd number"),
        (["--device", "tpu"], "device 'tpu' is unknown"),
        (["--device", "cuda:x"], "device 'cuda:x' is unknown"),
        (["--steps", 5, "--epochs", 2], "epochs and steps are given together"),
        (["--budget", "1m", "--steps", 2], "budget and steps are given together"),
        (["--no-such-option"], "--no-such-option"),
    ],
)
def test_misuse_of_the_command_line_ends_with_2(
    arguments: list[object], said: str, balls: Path, tmp_path: Path
) -> None:
    result = medfcn("train", balls, "-o", tmp_path / "run", *arguments)
    assert result.exit_code == 2
    assert said in only_line(result)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--leave-out", "nowhere.txt"], "nowhere.txt"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_choices_that_cannot_be_are_told_in_one_line(
    arguments: list[object], said: str, balls: Path, tmp_path: Path
) -> None:
    result = medfcn("train", balls, "-o", tmp_path / "run", *arguments)
    assert result.exit_code == 1
    assert said in only_line(result)
    assert not (tmp_path / "run").exists()


def test_an_unknown_option_in_the_settings_file_is_told_with_the_nearest_known(balls: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("[training]\nlearning_rat = 0.1\n")
    result = medfcn("train", balls, "-o", tmp_path / "run", "--config", tmp_path / "run.toml")
    assert result.exit_code == 1
    assert only_line(result) == (
        "medfcn: run.toml: unknown key 'learning_rat' in [training]; did you mean 'learning_rate'?"
    )
    assert not (tmp_path / "run").exists()


def test_a_misspelt_test_case_is_not_silently_trained_on(balls: Path, tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("ball_66\n")
    result = medfcn("train", balls, "-o", tmp_path / "run", "--leave-out", tmp_path / "test.txt")
    assert result.exit_code == 1
    assert "ball_66" in only_line(result)


def test_one_bad_volume_does_not_stop_a_folder(balls: Path, ball_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    shutil.copytree(balls / "images", folder)
    (folder / "ball_3.nii.gz").write_bytes(b"not a volume")
    result = medfcn("predict", ball_run, folder, "-o", tmp_path / "masks")
    assert result.exit_code == 3
    with (tmp_path / "masks" / "failures.csv").open() as file:
        assert [row["case"] for row in csv.DictReader(file)] == ["ball_3"]
    assert len(list((tmp_path / "masks").glob("*.nii.gz"))) == 7


def test_a_folder_of_nothing_but_bad_volumes_fails(ball_run: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.nii.gz").write_bytes(b"")
    result = medfcn("predict", ball_run, tmp_path / "images", "-o", tmp_path / "masks")
    assert result.exit_code == 1
    assert (tmp_path / "masks" / "failures.csv").is_file()


def test_scores_do_not_go_into_a_folder_that_is_scored(balls: Path, tmp_path: Path) -> None:
    """A report beside the masks would be replaced, and references would change."""
    before = files_in(balls / "labels")
    for place in (balls / "labels", balls / "images" / ".." / "labels"):
        result = medfcn("evaluate", balls / "labels", balls, "-o", place, "--overwrite")
        assert result.exit_code == 1
        assert "is PREDICTIONS itself; choose a folder of its own" in only_line(result)
    result = medfcn("evaluate", tmp_path, balls / "labels", "-o", balls / "labels", "--overwrite")
    assert "is REFERENCES itself" in only_line(result)
    assert files_in(balls / "labels") == before


def test_the_run_and_the_volumes_swapped(balls: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    (run / "model.json").write_text("{}")
    result = medfcn("predict", balls / "images", run, "-o", tmp_path / "masks")
    assert result.exit_code == 1
    assert f"`medfcn predict {run} {balls / 'images'} -o MASKS`" in only_line(result)
    assert not (tmp_path / "masks").exists()
    result = medfcn("predict", tmp_path / "runs", balls / "images", "-o", tmp_path / "masks")
    assert "runs: no model.json in it; it holds a run: give one" in only_line(result)


def test_a_path_with_a_space_that_was_not_in_quotes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_case(tmp_path / "good set", "ball", *draw_ball(0))
    monkeypatch.chdir(tmp_path)
    hint = "'good set' is one path with a space in it: put it in quotes"
    for arguments, status in (
        (("train", "good", "set", "-o", "run"), 2),
        (("check", "good", "set"), 2),
        (("look", "good", "set"), 1),
        (("predict", "run", "good", "set", "-o", "masks"), 1),
    ):
        result = medfcn(*arguments)
        assert result.exit_code == status
        assert only_line(result).endswith(hint), arguments
    (tmp_path / "other").mkdir()
    assert "in quotes" not in only_line(medfcn("check", "other")), "a path that is there is not a part of another"


def test_a_run_that_is_none_is_refused(balls: Path, tmp_path: Path) -> None:
    result = medfcn("predict", tmp_path, balls, "-o", tmp_path / "masks")
    assert result.exit_code == 1
    assert "no model.json in it" in only_line(result)
    assert not (tmp_path / "masks").exists()


def test_one_volume_becomes_one_named_mask(balls: Path, ball_run: Path, tmp_path: Path) -> None:
    result = medfcn("predict", ball_run, balls / "images" / "ball_7.nii.gz", "-o", tmp_path / "mask.nii.gz")
    assert result.exit_code == 0, result.stderr
    assert files_in(tmp_path) == ["mask.json", "mask.nii.gz"]
    again = medfcn("predict", ball_run, balls / "images" / "ball_7.nii.gz", "-o", tmp_path / "mask.nii.gz")
    assert again.exit_code == 1
    assert "already exists" in only_line(again)


def test_ids_that_look_like_options_work(balls: Path, ball_run: Path, tmp_path: Path) -> None:
    for number, case_id in enumerate(["-rf", "spaced out", "übung"]):
        write_case(tmp_path / "data", case_id, *draw_ball(number))
    result = medfcn("predict", ball_run, tmp_path / "data", "-o", tmp_path / "masks")
    assert result.exit_code == 0, result.stderr
    assert len(list((tmp_path / "masks").glob("*.nii.gz"))) == 3


def test_a_training_starts_from_a_run(balls: Path, ball_run: Path, tmp_path: Path) -> None:
    planned = medfcn("plan", balls, "--labels", "ball=1", "--init", ball_run)
    assert planned.exit_code == 0, planned.stderr
    assert "as in the run it starts from" in " ".join(planned.stdout.split())
    common = ["train", balls, "--labels", "ball=1", "--device", "cpu", "--steps", 1]
    result = medfcn(*common, "-o", tmp_path / "run", "--init", ball_run)
    assert result.exit_code == 0, result.stderr
    assert "starts from run: " in result.stderr
    misfit = medfcn(*common, "-o", tmp_path / "other", "--init", ball_run, "--preset", "compact")
    assert misfit.exit_code == 1
    assert "run: network.encoder is 'strided' there and 'pooled' here" in only_line(misfit)
    assert not (tmp_path / "other").exists()


def test_weights_that_cannot_be_started_from_are_told_in_one_line(
    balls: Path, ball_run: Path, tmp_path: Path
) -> None:
    import torch

    class Payload:
        def __reduce__(self) -> object:
            return (Path.touch, (tmp_path / "was_run",))

    torch.save({"features.0.weight": Payload()}, tmp_path / "code.pth")
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "little.pth")
    (tmp_path / "text.pth").write_text("Not Found")
    for name, said in (
        ("code.pth", "code.pth: contains code or objects besides tensors"),
        ("little.pth", "little.pth: 29 keys are missing, first features.0.bias"),
        ("text.pth", "text.pth: "),
        ("nowhere.pth", "weights file not found"),
    ):
        result = medfcn(
            "train", balls, "-o", tmp_path / "run", "--preset", "fcn8s", "--encoder-weights", tmp_path / name
        )
        assert result.exit_code == 1
        assert said in only_line(result)
    assert not (tmp_path / "was_run").exists()
    both = medfcn(
        "train", balls, "-o", tmp_path / "run", "--init", ball_run, "--encoder-weights", tmp_path / "code.pth"
    )
    assert both.exit_code == 2
    assert "given together" in only_line(both)
    assert not (tmp_path / "run").exists()


def test_an_unknown_preset_is_a_misuse(balls: Path, tmp_path: Path) -> None:
    for command in (("train", balls, "-o", tmp_path / "run"), ("plan", balls), ("networks",)):
        result = medfcn(*command, "--preset", "fc8s")
        assert result.exit_code == 2
        assert "did you mean 'fcn8s'?" in only_line(result)
    assert not (tmp_path / "run").exists()


def test_an_interrupt_is_told_in_one_line(balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **choices: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("medfcn.verbs.predict", interrupted)
    result = medfcn("predict", tmp_path, balls, "-o", tmp_path / "masks")
    assert result.exit_code == 130
    assert only_line(result).startswith("medfcn: interrupted")


def test_a_comparison_with_ones_own_scores_finds_no_difference(balls: Path, ball_run: Path, tmp_path: Path) -> None:
    ids = tmp_path / "test.txt"
    ids.write_text("ball_5\nball_6\nball_7\n")
    assert medfcn("predict", ball_run, balls, "-o", tmp_path / "masks", "--cases", ids).exit_code == 0
    common = ["evaluate", tmp_path / "masks", balls, "--cases", ids]
    assert medfcn(*common, "-o", tmp_path / "scores").exit_code == 0
    result = medfcn(*common, "-o", tmp_path / "again", "--compare", tmp_path / "scores")
    assert result.exit_code == 0, result.stderr
    assert str(tmp_path / "scores") in result.stdout
    comparison = json.loads((tmp_path / "again" / "comparison.json").read_text())
    assert {difference["equal"] for difference in comparison["differences"]} == {3}
    assert medfcn(*common, "-o", tmp_path / "again", "--overwrite", "--no-report").exit_code == 0
    left = {path.name for path in (tmp_path / "again").iterdir()}
    assert not left & {"comparison.json", "report.html"}, "they belong to the scores that were replaced"
    missing = medfcn(*common, "-o", tmp_path / "third", "--compare", tmp_path / "nowhere")
    assert missing.exit_code == 1
    assert "nowhere" in only_line(missing)
    assert not (tmp_path / "third").exists()


def test_a_command_names_the_option_and_not_the_library_call(ball_run: Path, balls: Path) -> None:
    result = medfcn("train", balls, "-o", ball_run, "--steps", 1)
    assert result.exit_code == 1
    assert "(--overwrite)" in only_line(result)
    assert "overwrite=True" not in result.stderr


@pytest.mark.parametrize(
    ("foreign", "said"),
    [
        (1, "1 of 2 volumes is unlike those of the training: look at its mask first"),
        (2, "2 of 2 volumes are unlike those of the training: look at their masks first"),
    ],
)
def test_foreign_volumes_are_counted_in_words(
    foreign: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = tuple((case, f"{FOREIGN}: spacing") for case in ("a", "b")[:foreign])
    say_outcome(PredictionRun(tmp_path, predicted=("a", "b"), skipped=(), failures=(), flags=flags))
    assert said in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("some_views", [True, False, None])
def test_why_no_dice_is_expected_is_said(
    some_views: bool | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say_outcome(PredictionRun(tmp_path, predicted=("a",), skipped=(), failures=(), flags=()), some_views=some_views)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("no expected Dice: ")]
    assert ("not all of its views were used" in line) is (some_views is not False)  # records may say either
    assert ("fewer than 5 validation cases" in line) is (some_views is not True)
