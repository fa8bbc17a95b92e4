"""A channel that has one value in every case is left out of training and prediction, and named."""

import csv
import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest

import medfcn
from medfcn.datasets.channels import ChannelUse, DroppedChannel
from medfcn.datasets.check import check
from medfcn.errors import DatasetError, ModelError
from medfcn.inference.card import read_card
from medfcn.inference.ensemble import Ensemble, load
from medfcn.inference.model import Model
from medfcn.volumes import ReadOptions
from tests.conftest import draw_ball

AFFINE = np.diag([-1.0, -1.0, 1.5, 1.0])
TRAINING = {"device": "cpu", "threads": 1, "steps": 6, "labels": "ball=1"}


def lay(root: Path, number: int, channels: Sequence[str]) -> None:
    """A case of channels that are the ball, its inverse, the same constant, or NaN."""
    image, mask = draw_ball(number, (16, 14, 9))
    kinds = {
        "ball": image,
        "inverse": 300 - image,
        "constant": np.full_like(image, 7 * number),
        "empty": np.full(image.shape, np.nan, dtype=np.float32),
    }
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(mask, AFFINE), root / f"labels/case_{number}.nii.gz")
    for place, name in enumerate(channels):
        nibabel.save(nibabel.Nifti1Image(kinds[name], AFFINE), root / f"images/case_{number}_{place:04d}.nii.gz")


def dataset(root: Path, *channels: str, cases: int = 5) -> Path:
    for number in range(cases):
        lay(root, number, channels)
    return root


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three channels, of which the middle one is constant in every case; never written to."""
    return dataset(tmp_path_factory.mktemp("three"), "ball", "constant", "inverse")


@pytest.fixture(scope="module")
def run(three: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on `three`; never written to."""
    folder = tmp_path_factory.mktemp("run") / "run"
    medfcn.train(three, folder, **TRAINING)
    return folder


def test_a_channel_that_is_constant_in_every_case_is_named_once_and_stops_nothing(three: Path) -> None:
    report = check(three)
    assert (report.errors, report.dropped) == ((), (1,))
    assert [problem.line for problem in report.warnings if problem.code == "CHANNEL_CONSTANT"] == [
        "warning CHANNEL_CONSTANT dataset: channel 0001 has one value in every case; it is left out of training "
        "and prediction, which use the other 2 channels"
    ]
    assert json.loads(json.dumps(report.to_json()))["dropped"] == [1]
    planned = medfcn.plan(three, labels="ball=1")
    assert len(planned.plan.intensities) == 2
    assert "left out: channel 0001 has one value in every case" in " ".join(planned.to_text().split())


def test_a_channel_that_is_constant_in_some_cases_makes_these_cases_bad(tmp_path: Path) -> None:
    dataset(tmp_path, "ball", "inverse")
    lay(tmp_path, 3, ("ball", "constant"))
    report = check(tmp_path)
    assert report.dropped == ()
    assert [(problem.code, problem.case) for problem in report.errors] == [("IMAGE_CONSTANT", "case_3")]


def test_a_data_set_of_constant_channels_alone_is_refused(tmp_path: Path) -> None:
    dataset(tmp_path, "constant", "constant")
    report = check(tmp_path)
    assert report.dropped == ()
    assert report.bad_cases == {f"case_{number}" for number in range(5)}
    with pytest.raises(DatasetError, match=r"5 of 5 cases cannot be used: .*every voxel is 0") as refused:
        medfcn.train(tmp_path, tmp_path / "run", **TRAINING)
    assert refused.value.code == "IMAGE_CONSTANT"


def test_a_channel_of_nan_alone_is_one_value_once_it_is_filled(tmp_path: Path) -> None:
    dataset(tmp_path, "ball", "empty", "inverse", cases=3)
    assert {problem.code for problem in check(tmp_path).errors} == {"VOXELS_NOT_FINITE"}
    assert check(tmp_path, options=ReadOptions(nonfinite=0.0)).dropped == (1,)


def test_a_training_without_the_channel_makes_the_same_weights(three: Path, run: Path, tmp_path: Path) -> None:
    two = shutil.copytree(three, tmp_path / "two")
    for file in (two / "images").glob("*_0001.nii.gz"):
        file.unlink()
    for file in (two / "images").glob("*_0002.nii.gz"):
        file.rename(file.with_name(file.name.replace("_0002", "_0001")))
    other = tmp_path / "run"
    medfcn.train(two, other, **TRAINING)
    assert (other / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_the_card_says_which_channels_are_used(run: Path) -> None:
    stored = json.loads((run / "model.json").read_text())
    assert stored["dropped"] == [{"place": 1, "name": "0001"}]
    assert stored["channels"] == ["0000", "0002"]
    card = read_card(run / "model.json")
    assert card.use == ChannelUse(("0000", "0002"), (DroppedChannel(1, "0001"),))
    columns = next(csv.reader((run / "cases.csv").read_text().splitlines()))
    assert {name for name in columns if name.startswith("sha256_0")} == {"sha256_0000", "sha256_0002"}


@pytest.mark.parametrize("place", [-1, 3, 4097])
def test_a_card_with_an_impossible_channel_is_refused(run: Path, tmp_path: Path, place: int) -> None:
    broken = shutil.copytree(run, tmp_path / "run")
    stored = json.loads((broken / "model.json").read_text())
    stored["dropped"][0]["place"] = place
    (broken / "model.json").write_text(json.dumps(stored))
    with pytest.raises(ModelError, match="dropped"):
        read_card(broken / "model.json")


def test_masks_are_the_same_with_and_without_the_channel(three: Path, run: Path, tmp_path: Path) -> None:
    """As files in a folder, as one file for its siblings, and as a list."""
    whole, without, varying = (
        shutil.copytree(three / "images", tmp_path / name) for name in ("whole", "without", "varying")
    )
    for file in without.glob("*_0001.nii.gz"):
        file.unlink()
    for file in varying.glob("*_0001.nii.gz"):
        shutil.copy(file.with_name(file.name.replace("_0001", "_0000")), file)
    masks = {}
    for folder in (whole, without, varying):
        done = medfcn.predict(run, folder, tmp_path / f"{folder.name}_masks", device="cpu")
        assert len(done.predicted) == 5
        masks[folder.name] = [path.read_bytes() for path in sorted(done.output.glob("*.nii.gz"))]
        notes = {note for path in done.output.glob("case_*.json") for note in json.loads(path.read_text())["notes"]}
        noted = {note for note in notes if note.startswith("left out: ")}
        line = "left out: channel 0001, which had one value in each training case and varies here"
        assert noted == ({line} if folder is varying else set())
        assert {flag for _, flag in done.flags if "0001" in flag} == noted
        again = medfcn.predict(run, folder, done.output, device="cpu", resume=True)
        assert len(again.skipped) == 5
        assert len(again.training_cases) == 4
    assert masks["whole"] == masks["without"] == masks["varying"]
    model = Model.load(run, device="cpu")
    files = [str(whole / f"case_0_{place:04d}.nii.gz") for place in range(3)]
    expected = model.predict(files).array
    assert np.array_equal(model.predict([files[0], files[2]]).array, expected)
    assert np.array_equal(model.predict(str(without / "case_0_0002.nii.gz")).array, expected)
    with pytest.raises(ModelError, match=r"takes 3 channels .*, of which 0001 may be absent, the case has 1"):
        model.predict([medfcn.volumes.read_volume(files[0])])


def test_a_case_that_lacks_a_used_channel_is_refused(three: Path, run: Path, tmp_path: Path) -> None:
    shutil.copy(three / "images" / "case_0_0000.nii.gz", tmp_path)
    shutil.copy(three / "images" / "case_0_0001.nii.gz", tmp_path)
    (failure,) = medfcn.predict(run, tmp_path, tmp_path / "masks", device="cpu").failures
    assert "case_0_0002.nii.gz is missing" in failure[1]


def test_a_broken_file_of_the_channel_is_in_nobodys_way(three: Path, run: Path, tmp_path: Path) -> None:
    for place in range(3):
        shutil.copy(three / "images" / f"case_0_{place:04d}.nii.gz", tmp_path)
    (tmp_path / "case_0_0001.nii.gz").write_bytes(b"no volume")
    assert medfcn.predict(run, tmp_path, tmp_path / "masks", device="cpu").predicted == ("case_0",)


def test_the_channels_may_be_in_the_fourth_dimension(tmp_path: Path) -> None:
    names = {"0": "DWI", "1": "T2"}
    about = {"modality": names, "labels": {"0": "background", "1": "ball"}, "training": []}
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    for number in range(5):
        image, mask = draw_ball(number, (16, 14, 9))
        file = f"{{}}/case_{number}.nii.gz"
        stacked = np.stack([np.zeros_like(image), image], axis=-1)
        nibabel.save(nibabel.Nifti1Image(stacked, AFFINE), tmp_path / file.format("imagesTr"))
        nibabel.save(nibabel.Nifti1Image(mask, AFFINE), tmp_path / file.format("labelsTr"))
        about["training"].append({"image": file.format("./imagesTr"), "label": file.format("./labelsTr")})  # type: ignore[union-attr]
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    run = tmp_path / "run"
    medfcn.train(tmp_path, run, **TRAINING)
    assert read_card(run / "model.json").use == ChannelUse(("T2",), (DroppedChannel(0, "DWI"),))
    done = medfcn.predict(run, tmp_path / "imagesTr", tmp_path / "masks", device="cpu")
    assert len(done.predicted) == 5
    model = load(run, device="cpu")
    image = nibabel.load(tmp_path / "imagesTr" / "case_0.nii.gz")
    alone = nibabel.Nifti1Image(np.asanyarray(image.dataobj)[..., 1], AFFINE)
    assert np.array_equal(model.predict(alone).array, nibabel.load(done.output / "case_0.nii.gz").get_fdata())


def test_runs_that_use_other_channels_are_not_averaged(run: Path) -> None:
    first = Model.load(run, device="cpu")
    moved = DroppedChannel(0, "0001")
    other = first.with_card(dataclasses.replace(first.card, dropped=(moved,)))
    with pytest.raises(ModelError, match="differ in their channels"):
        Ensemble([first, other])


def test_folds_leave_the_channel_out(three: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folds"
    medfcn.train(three, folder, **TRAINING | {"steps": 4}, folds=2)
    assert [read_card(folder / f"fold_{number}" / "model.json").use.dropped_places for number in (1, 2)] == [(1,)] * 2
