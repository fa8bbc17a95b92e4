"""A run folder keeps its options: it is resumed, and carried on, by its name alone."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import medfcn
from medfcn.cli import main
from medfcn.errors import MissingFileError, OutputExistsError, SettingsError, TrainingError, TrainingStoppedError
from medfcn.files import sha256_of
from medfcn.training.record import parts_of
from medfcn.volumes import ReadOptions
from tests.training.test_resume import StopAfter, Told, assert_same_run, train

CHOICES: dict[str, Any] = {"labels": "ball=1", "leave_out": ["3"], "seed": 3, "report": False}


def hashes(run: Path) -> dict[str, str]:
    return {str(path.relative_to(run)): sha256_of(path) for path in run.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted, with options of many kinds."""
    groups = balls.parent / "by_pair.csv"
    groups.write_text("id,group\n" + "".join(f"ball_{number},{number // 2}\n" for number in range(8)))
    return train(balls, tmp_path_factory.mktemp("kept") / "run", steps=12, groups=groups, **CHOICES).folder


@pytest.fixture
def stopped(balls: Path, whole: Path, tmp_path: Path) -> Path:
    """The same training, stopped; the folder is as deep in the tree as `whole`, so that the places are equal."""
    groups = balls.parent / "by_pair.csv"
    with pytest.raises(TrainingStoppedError):
        train(balls, tmp_path / "run", steps=12, stop=StopAfter(5), groups=groups, **CHOICES)
    return tmp_path / "run"


def test_a_run_folder_alone_goes_on_to_the_same_weights(stopped: Path, whole: Path) -> None:
    assert str(whole.parents[1]) not in (stopped / "options.json").read_text()  # no path of this machine
    run = medfcn.train(stopped, resume=True)
    assert run.folder == stopped
    assert_same_run(stopped, whole)


def test_the_command_takes_the_run_folder_as_its_one_argument(stopped: Path, whole: Path) -> None:
    result = CliRunner().invoke(main, ["train", "--resume", str(stopped)])
    assert result.exit_code == 0, result.stderr
    assert "going on after step" in result.stderr
    assert "report.html" not in result.stdout  # the run keeps its --no-report
    assert_same_run(stopped, whole)
    again = CliRunner().invoke(main, ["train", "--resume", str(stopped)])
    assert again.exit_code == 0, again.stderr
    assert "is finished; nothing is left to do" in again.stderr


def test_options_beside_the_run_folder_must_be_as_they_were(stopped: Path) -> None:
    before = hashes(stopped)
    with pytest.raises(TrainingError, match="cannot be resumed as something else: seed is 4, was 3; ball_"):
        medfcn.train(stopped, resume=True, seed=4)
    with pytest.raises(TrainingError, match="the length is 13 steps, was 12 steps"):
        medfcn.train(stopped, resume=True, steps=13)
    with pytest.raises(TrainingError, match="seed is 0, was 3; ball_"):
        medfcn.train(stopped, resume=True, seed=0)  # the default, but named
    result = CliRunner().invoke(main, ["train", "--resume", str(stopped), "--seed", "0"])
    assert "cannot be resumed as something else: seed is 0, was 3" in result.stderr
    assert hashes(stopped) == before


def test_a_data_set_that_moved_is_asked_for(stopped: Path, whole: Path, balls: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(balls, tmp_path / "moved")
    kept = json.loads((stopped / "options.json").read_text())
    (stopped / "options.json").write_text(json.dumps(kept | {"dataset": "../nowhere"}))
    with pytest.raises(MissingFileError, match=r"not at \.\./nowhere .*name its place \(moved_to=DATASET\)"):
        medfcn.train(stopped, resume=True)
    result = CliRunner().invoke(main, ["train", "--resume", str(stopped), str(moved)])
    assert result.exit_code == 0, result.stderr
    assert json.loads((stopped / "options.json").read_text())["dataset"] == "../moved"
    assert sha256_of(stopped / "model.safetensors") == sha256_of(whole / "model.safetensors")


def test_the_choice_of_bids_files_is_kept(balls: Path, tmp_path: Path) -> None:
    for number in range(8):
        for suffix in ("T1w", "FLAIR"):
            place = tmp_path / "root" / f"sub-{number}" / "anat" / f"sub-{number}_{suffix}.nii.gz"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(balls / "images" / f"ball_{number}.nii.gz", place)
        place = tmp_path / "root" / "derivatives" / "drawn" / f"sub-{number}" / "anat" / f"sub-{number}_dseg.nii.gz"
        place.parent.mkdir(parents=True)
        shutil.copy(balls / "labels" / f"ball_{number}.nii.gz", place)
    with pytest.raises(TrainingStoppedError):
        train(tmp_path / "root", tmp_path / "run", stop=StopAfter(3), options=ReadOptions(bids="suffix=T1w"))
    assert medfcn.train(tmp_path / "run", resume=True).folder == tmp_path / "run"
    assert json.loads((tmp_path / "run" / "model.json").read_text())["channels"] == ["T1w"]


def test_both_can_be_moved_together(balls: Path, tmp_path: Path) -> None:
    shutil.copytree(balls, tmp_path / "there" / "data")
    with pytest.raises(TrainingStoppedError):
        train(tmp_path / "there" / "data", tmp_path / "there" / "run", stop=StopAfter(3))
    (tmp_path / "there").rename(tmp_path / "here")
    assert medfcn.train(tmp_path / "here" / "run", resume=True).steps == 24


def test_folds_go_on_by_the_name_of_their_folder(balls: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingStoppedError):
        train(balls, tmp_path / "run", folds=2, steps=3, stop=StopAfter(4), report=False)
    assert (tmp_path / "run" / "fold_1" / "model.json").is_file()
    with pytest.raises(TrainingError, match=r"is one of the folds of .*; resume that folder"):
        medfcn.train(tmp_path / "run" / "fold_2", resume=True)
    assert medfcn.train(tmp_path / "run", resume=True).steps == 6
    with pytest.raises(TrainingError, match="carry on each alone: medfcn train --more 2 steps run/fold_1"):
        medfcn.train(tmp_path / "run", tmp_path / "more", more="2 steps")
    carried = medfcn.train(tmp_path / "run" / "fold_1", tmp_path / "more" / "fold_1", more="2 steps", report=False)
    assert json.loads((carried.folder / "model.json").read_text())["training"]["fold"] == "1 of 2"
    assert parts_of(carried.folder) == parts_of(tmp_path / "run" / "fold_1")


def test_a_single_fold_goes_on_by_its_folder(balls: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingStoppedError):
        train(balls, tmp_path / "run", fold="2/2", steps=3, stop=StopAfter(1), report=False)
    assert medfcn.train(tmp_path / "run" / "fold_2", resume=True).folder == tmp_path / "run" / "fold_2"


def test_a_run_without_options_says_how_it_is_resumed(stopped: Path, balls: Path, tmp_path: Path) -> None:
    (stopped / "options.json").unlink()
    with pytest.raises(TrainingError, match=r"keeps no options .*medfcn train DATASET -o RUN --resume"):
        medfcn.train(stopped, resume=True)
    with pytest.raises(MissingFileError, match="contains no stopped training"):
        medfcn.train(tmp_path / "nowhere", resume=True)
    (stopped / "options.json").write_text('{"format": 1, "dataset": "..", "settings": {}, "code": 1}')
    with pytest.raises(TrainingError, match=r"options\.json: .*unknown field"):
        medfcn.train(stopped, resume=True)
    groups = balls.parent / "by_pair.csv"
    train(balls, stopped, steps=12, resume=True, groups=groups, **CHOICES)  # as the line said
    assert json.loads((stopped / "options.json").read_text())["seed"] == CHOICES["seed"]


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "a newer version": ({"format": 99}, "format 99 is not 1; use the medfcn version that wrote it"),
    "more threads than any machine": ({"threads": 1_000_000}, "threads 1000000: expected 1 to 1024"),
    "no thread": ({"threads": 0}, "threads 0: expected 1 to 1024"),
    "two lengths": ({"budget": "10m", "steps": "12"}, "budget and steps are given together"),
    "unknown reading": ({"reading": {"xfrom": "qform"}}, "unknown option 'xfrom'; did you mean 'xform'"),
    "labels of another kind": ({"labels": {"entries": [{"name": 1}]}}, "expected str, found int"),
    "spacing in another unit": (
        {"settings": {"slices": {"spacing_mm": [1e6, 1e6]}}},
        "spacing_mm: .* is not two lengths from 0.00001 to 1000 mm",
    ),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_options_that_cannot_be_are_refused_with_the_file(name: str, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for file in ("model.json", "model.safetensors", "cases.csv"):
        shutil.copy(whole / file, run / file)
    changed, said = BROKEN[name]
    options = json.loads((whole / "options.json").read_text()) | {"dataset": str(whole)} | changed
    (run / "options.json").write_text(json.dumps(options))
    with pytest.raises((TrainingError, SettingsError), match=rf"options\.json: .*{said}"):
        medfcn.train(run, tmp_path / "more", more="1 steps")
    assert not (tmp_path / "more").exists()


def test_a_finished_run_is_carried_on_with_its_split_and_stays(whole: Path, balls: Path, tmp_path: Path) -> None:
    before = hashes(whole)
    told = Told()
    run = medfcn.train(whole, tmp_path / "more", more="4 steps", progress=told)
    card = json.loads((run.folder / "model.json").read_text())
    assert hashes(whole) == before
    assert any(line.startswith("starts from run: ") and "of" in line for line in told.lines)
    assert any("the split is that of run, which is carried on" in line for line in told.lines)
    assert parts_of(run.folder) == parts_of(whole)
    old = json.loads((whole / "model.json").read_text())
    assert card["training"]["init"] == old["weights_sha256"]
    assert (card["training"]["steps"], card["training"]["seed"]) == (4, 4)
    assert card["training"]["init_steps"] == old["training"]["steps"] == 12
    assert card["labels"] == old["labels"]
    assert {**card["plan"], "reasons": None} == {**old["plan"], "reasons": None}
    with pytest.raises(TrainingStoppedError):
        medfcn.train(whole, tmp_path / "again", more="4 steps", stop=StopAfter(2))
    again = medfcn.train(tmp_path / "again", resume=True)
    assert sha256_of(again.folder / "model.safetensors") == sha256_of(run.folder / "model.safetensors")
    assert medfcn.train(tmp_path / "again", resume=True).steps == 4  # finished: nothing is left to do


def test_new_cases_do_not_change_the_split_that_is_carried_on(balls: Path, tmp_path: Path) -> None:
    data = shutil.copytree(balls, tmp_path / "data")
    for kind in ("images", "labels"):
        (data / kind / "ball_5.nii.gz").rename(tmp_path / f"{kind}.nii.gz")
    run = train(data, tmp_path / "run", steps=2, report=False)
    for kind in ("images", "labels"):
        (tmp_path / f"{kind}.nii.gz").rename(data / kind / "ball_5.nii.gz")
    told = Told()
    more = medfcn.train(run.folder, tmp_path / "more", more="2 steps", progress=told, report=False)
    assert parts_of(more.folder) == parts_of(run.folder)
    assert any("1 case in neither of its parts" in line for line in told.lines)


def test_an_older_run_is_carried_on_once_the_data_set_is_named(whole: Path, balls: Path, tmp_path: Path) -> None:
    older = shutil.copytree(whole, tmp_path / "older")
    (older / "options.json").unlink()
    with pytest.raises(MissingFileError, match=r"of an earlier version; name its place \(moved_to=DATASET"):
        medfcn.train(older, tmp_path / "more", more="2 steps")
    run = medfcn.train(older, tmp_path / "more", more="2 steps", moved_to=balls, report=False)
    assert parts_of(run.folder) == parts_of(whole)


def test_what_cannot_be_carried_on_is_said(stopped: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="is not finished, so there is nothing to carry on"):
        medfcn.train(stopped, tmp_path / "more", more="2 steps")
    with pytest.raises(OutputExistsError, match="already exists"):
        medfcn.train(whole, whole, more="2 steps")
    with pytest.raises(SettingsError, match="would be replaced; choose another output"):
        medfcn.train(whole, whole, more="2 steps", overwrite=True)
    with pytest.raises(SettingsError, match="more 'soon': expected a time or a number of steps"):
        medfcn.train(whole, tmp_path / "more", more="soon")
    with pytest.raises(SettingsError, match="steps and more are given together"):
        medfcn.train(whole, tmp_path / "more", more="10m", steps=3)
    with pytest.raises(SettingsError, match="leave folds= and fold= out"):
        medfcn.train(whole, tmp_path / "more", more="10m", folds=2)
    for name in ("init", "encoder_weights"):
        with pytest.raises(SettingsError, match=f"more and {name} are given together; give one of them") as refused:
            medfcn.train(whole, tmp_path / "more", more="2 steps", **{name: whole})
        assert refused.value.code == "OPTIONS_TOGETHER"
    with pytest.raises(SettingsError, match=r"is inside .*, the run to carry on; choose an output outside of it"):
        medfcn.train(whole, whole / "further" / "more", more="2 steps")
    assert not (whole / "further").exists()
    with pytest.raises(SettingsError, match="output: the run folder to make is missing"):
        medfcn.train(whole)
    result = CliRunner().invoke(main, ["train", os.fspath(whole)])
    assert result.exit_code == 2
    assert "Missing option '-o'" in result.stderr
    assert not (tmp_path / "more").exists()
