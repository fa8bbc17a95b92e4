"""medfcn in a research script, as the README shows it."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner

import medfcn
from medfcn.cli import main
from medfcn.volumes import read_volume


def test_a_path_a_nibabel_image_and_an_array_with_an_affine_give_one_mask(
    balls: Path, ball_run: Path, tmp_path: Path
) -> None:
    path = balls / "images" / "ball_7.nii.gz"
    image = nibabel.load(path)
    model = medfcn.load(ball_run, device="cpu")
    from_path = model.predict(path)
    from_nibabel = model.predict(image)
    from_array = model.predict((np.asarray(image.dataobj), image.affine))
    from_volume = model.predict(read_volume(path))
    for other in (from_nibabel, from_array, from_volume):
        assert np.array_equal(from_path.array, other.array)
    assert from_path.array.any()
    saved = from_path.save(tmp_path / "ball_7_mask.nii.gz")
    assert np.array_equal(nibabel.load(saved).dataobj, from_path.array)
    assert np.array_equal(nibabel.load(saved).affine, image.affine)


@pytest.mark.parametrize("has_table", [True, False], ids=["table", "no table"])
def test_a_mask_that_is_saved_is_the_file_that_the_command_writes(
    has_table: bool, balls: Path, ball_run: Path, tmp_path: Path
) -> None:
    image = balls / "images" / "ball_7.nii.gz"
    options = [] if has_table else ["--no-label-table"]
    words = ["predict", str(ball_run), str(image), "-o", str(tmp_path / "masks"), "--device", "cpu", *options]
    assert CliRunner().invoke(main, words).exit_code == 0
    mask = medfcn.load(ball_run, device="cpu").predict(image)
    saved = mask.save(tmp_path / "mask.nii.gz", labels=None if has_table else ())
    assert saved.read_bytes() == (tmp_path / "masks" / "ball_7.nii.gz").read_bytes()
    header = nibabel.load(saved).header
    assert header["intent_code"] == (1002 if has_table else 0)
    assert len(header.extensions) == has_table
    assert all(b"ball" in extension.get_content() for extension in header.extensions)
    empty = mask.with_array(np.zeros(mask.shape, np.uint8)).save(tmp_path / "other.nii.gz")
    assert nibabel.load(empty).header["intent_code"] == 0, "other voxels were not predicted"


def test_training_predicting_and_evaluating_work_as_library_calls(
    balls: Path, ball_run: Path, tmp_path: Path
) -> None:
    result = medfcn.predict(ball_run, balls, tmp_path / "masks", cases=["ball_6", "ball_7"], device="cpu")
    assert result.predicted == ("ball_6", "ball_7")
    references = {case: balls / "labels" / f"{case}.nii.gz" for case in result.predicted}
    table = medfcn.evaluate(tmp_path / "masks", references)
    assert [row.label for row in table.rows] == ["ball", "ball"]
    assert min(row.dice for row in table.rows) > 0.8
    table.to_csv(tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text().startswith("case,label,status,dice,iou,")


def test_a_run_loads_its_own_model(balls: Path, tmp_path: Path) -> None:
    run = medfcn.train(balls, tmp_path / "run", steps=2, device="cpu", threads=1)
    assert run.steps == 2
    assert run.load(device="cpu").card.labels.names == ("label_1",)


def test_library_calls_leave_the_random_numbers_alone(balls: Path, tmp_path: Path) -> None:
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    medfcn.train(balls, tmp_path / "run", steps=2, device="cpu", threads=1)
    assert torch.equal(torch.rand(3), expected)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_errors_are_medfcn_errors_and_builtin_ones(tmp_path: Path) -> None:
    with pytest.raises(medfcn.MedfcnError):
        medfcn.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        medfcn.load(tmp_path / "nowhere")


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("verb", "choices", "options"),
    [
        ("train", {"steps": 2}, ["--steps", "2"]),
        ("train", {"steps": 2, "folds": 2}, ["--steps", "2", "--folds", "2"]),
        ("train", {"steps": 2, "report": False}, ["--steps", "2", "--no-report"]),
        ("tune", {"steps": 2, "trials": 1}, ["--steps", "2", "--trials", "1"]),
    ],
    ids=["train", "folds", "no report", "tune"],
)
def test_a_script_leaves_the_files_that_the_command_leaves(
    verb: str, choices: dict[str, object], options: list[str], balls: Path, tmp_path: Path
) -> None:
    getattr(medfcn, verb)(balls, tmp_path / "script", device="cpu", threads=1, **choices)
    words = [verb, str(balls), "-o", str(tmp_path / "command"), "--device", "cpu", "--threads", "1", *options]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.stderr
    files = files_in(tmp_path / "script")
    assert files == files_in(tmp_path / "command")
    assert ("report.html" in files) == (verb == "train" and "--no-report" not in options)


def test_a_script_predicts_with_a_report_as_the_command_does(balls: Path, ball_run: Path, tmp_path: Path) -> None:
    volume = balls / "images" / "ball_7.nii.gz"
    result = medfcn.predict(ball_run, volume, tmp_path / "script", device="cpu", report=True)
    assert result.report == tmp_path / "script" / "report.html"
    words = ["predict", str(ball_run), str(volume), "-o", str(tmp_path / "command"), "--device", "cpu", "--report"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.stderr
    assert f"report: {tmp_path / 'command' / 'report.html'}" in done.stdout
    assert files_in(tmp_path / "script") == files_in(tmp_path / "command")
