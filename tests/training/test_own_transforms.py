"""A user's own MONAI transforms in a training: in the plan, the slices, the card, and undone for every mask."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from monai.transforms import Compose, Flipd, Lambdad, RandFlipd, ScaleIntensityRanged, Spacingd

import medfcn
from medfcn.errors import ModelError, SettingsError, TrainingError, TrainingStoppedError, VolumeError
from medfcn.monai.preparing import Slicer
from medfcn.settings import Settings, SliceSettings
from medfcn.slices.case_slices import PlainSlicer
from medfcn.slices.grid import to_network_grid
from medfcn.slices.overlaps import overlaps_to_network
from medfcn.slices.preprocess import grid_of, network_image
from medfcn.slices.slicing import slice_volume
from medfcn.training.distributed import versions
from tests.training.test_resume import StopAfter, Told

KEYS = ["image", "label"]
COMMON: dict[str, Any] = {"labels": "ball=1", "device": "cpu", "threads": 1, "report": False}


def spatial() -> Compose:
    """To 1.4 mm, and a window of intensities: every step can be written in a card."""
    return Compose(
        [
            Spacingd(KEYS, pixdim=(1.4, 1.4, 1.5), mode=("bilinear", "nearest")),
            Flipd(KEYS, spatial_axis=0),
            ScaleIntensityRanged("image", a_min=50, a_max=250, b_min=0.0, b_max=1.0, clip=True),
        ]
    )


def of_a_script() -> Compose:
    return Compose([Spacingd(KEYS, pixdim=1.4, mode=("bilinear", "nearest")), Lambdad("image", lambda image: -image)])


@pytest.fixture(scope="module")
def run(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spatial") / "run"
    medfcn.train(balls, folder, transforms=spatial(), leave_out=["ball_7"], steps=60, **COMMON)
    return folder


@pytest.fixture(scope="module")
def script_run(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("script") / "run"
    medfcn.train(balls, folder, transforms=of_a_script(), steps=3, **COMMON)
    return folder


def card_of(run: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((run / "model.json").read_text())
    return card


def test_the_plan_is_of_the_transformed_volumes(run: Path, balls: Path) -> None:
    card = card_of(run)
    assert card["plan"]["spacing_mm"][:2] == [1.4, 1.4]
    assert [entry["name"] for entry in card["transforms"]] == ["Spacingd", "Flipd", "ScaleIntensityRanged"]
    assert all(entry["arguments"] for entry in card["transforms"])
    planned = medfcn.plan(balls, labels="ball=1", transforms=spatial())
    assert planned.plan.spacing_mm[0] == 1.4
    assert medfcn.plan(balls, labels="ball=1").plan.spacing_mm[0] == 1.0


def test_masks_are_on_the_grid_of_the_file_and_good(run: Path, balls: Path, tmp_path: Path) -> None:
    model = medfcn.load(run, device="cpu")
    image = nibabel.load(balls / "images" / "ball_7.nii.gz")
    case = model.predict_case(balls / "images" / "ball_7.nii.gz", keep_probabilities=True)
    assert case.mask.shape == image.shape
    assert np.array_equal(case.mask.affine, image.affine)
    assert case.probabilities is not None
    assert case.probabilities.shape == (1, *image.shape)
    reference = np.asarray(nibabel.load(balls / "labels" / "ball_7.nii.gz").dataobj)
    overlap = 2 * np.logical_and(case.mask.array, reference).sum() / (case.mask.array.sum() + reference.sum())
    assert overlap > 0.8
    assert case.volumes_ml["ball"] == pytest.approx(case.mask.array.sum() * case.mask.voxel_ml)


def test_validation_masks_are_those_that_a_user_gets(run: Path, balls: Path) -> None:
    model = medfcn.load(run, device="cpu")
    for path in sorted((run / "validation").glob("*.nii.gz")):
        image = nibabel.load(balls / "images" / path.name)
        mask = nibabel.load(path)
        assert np.array_equal(mask.affine, image.affine)
        predicted = model.predict(balls / "images" / path.name)
        assert np.array_equal(np.asarray(mask.dataobj), predicted.array)


def test_the_command_line_rebuilds_them(run: Path, balls: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "medfcn", "predict", str(run), str(balls / "images" / "ball_7.nii.gz")]
    done = subprocess.run([*command, "-o", str(tmp_path / "masks")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    mask = medfcn.read_volume(tmp_path / "masks" / "ball_7.nii.gz")
    assert np.array_equal(mask.array, medfcn.load(run).predict(balls / "images" / "ball_7.nii.gz").array)


def test_what_no_card_can_hold_is_named_and_refused_until_a_script_passes_it(
    script_run: Path, balls: Path, tmp_path: Path
) -> None:
    names = [entry["name"] for entry in card_of(script_run)["transforms"]]
    assert names == ["Spacingd", "monai.transforms.utility.dictionary.Lambdad"]
    assert card_of(script_run)["transforms"][1]["arguments"] is None
    for call in (medfcn.load, lambda folder: medfcn.predict(folder, balls / "images", tmp_path / "masks")):
        with pytest.raises(ModelError, match=r"Lambdad, which no card can hold; pass the same transforms") as caught:
            call(script_run)
        assert "\n" not in str(caught.value)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "medfcn",
            "predict",
            str(script_run),
            str(balls / "images"),
            "-o",
            str(tmp_path / "m"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no card can hold" in done.stderr
    medfcn.predict(script_run, balls / "images", tmp_path / "masks", transforms=of_a_script(), cases=["ball_7"])
    model = medfcn.load(script_run, transforms=of_a_script())
    mask = medfcn.read_volume(tmp_path / "masks" / "ball_7.nii.gz")
    assert np.array_equal(mask.array, model.predict(balls / "images" / "ball_7.nii.gz").array)


def test_other_transforms_than_those_of_the_training_are_refused(run: Path, script_run: Path, ball_run: Path) -> None:
    wider = Compose([Spacingd(KEYS, pixdim=(1.5, 1.4, 1.5), mode=("bilinear", "nearest")), *spatial().transforms[1:]])
    for folder, wrong in ((run, wider), (run, of_a_script()), (script_run, spatial())):
        with pytest.raises(ModelError, match="was trained with others"):
            medfcn.load(folder, transforms=wrong)
    with pytest.raises(ModelError, match="was trained without any"):
        medfcn.load(ball_run, transforms=spatial())
    assert medfcn.load(run, transforms=spatial()).models[0].transforms is not None


def test_runs_with_other_transforms_are_no_ensemble(run: Path, ball_run: Path) -> None:
    with pytest.raises(ModelError, match="differ in their transforms"):
        medfcn.load([run, ball_run])


def test_a_stopped_training_continues_to_the_same_end(balls: Path, tmp_path: Path) -> None:
    options = {"steps": 4, **COMMON}
    whole = medfcn.train(balls, tmp_path / "whole", transforms=spatial(), **options)
    with pytest.raises(TrainingStoppedError):
        medfcn.train(balls, tmp_path / "run", transforms=spatial(), stop=StopAfter(2), **options)
    with pytest.raises(ModelError, match="was trained with others"):
        medfcn.train(balls, tmp_path / "run", transforms=of_a_script(), resume=True, **options)
    ended = medfcn.train(balls, tmp_path / "run", resume=True, **options)  # rebuilt from what was recorded
    for name in ("model.safetensors", "validation/scores.csv"):
        assert (ended.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert card_of(ended.folder)["transforms"] == card_of(whole.folder)["transforms"]
    again = medfcn.train(balls, tmp_path / "run", resume=True, **options)
    assert again.steps == 4
    with pytest.raises(TrainingError, match="transforms"):
        medfcn.train(balls, tmp_path / "run", transforms=of_a_script(), resume=True, **options)


def test_a_training_without_them_is_not_resumed_with_them(balls: Path, tmp_path: Path) -> None:
    options = {"steps": 4, **COMMON}
    with pytest.raises(TrainingStoppedError):
        medfcn.train(balls, tmp_path / "run", stop=StopAfter(2), **options)
    with pytest.raises(TrainingError, match="started without transforms"):
        medfcn.train(balls, tmp_path / "run", transforms=spatial(), resume=True, **options)


@pytest.mark.parametrize("transforms", [spatial(), None])
def test_another_version_of_monai_is_noted_and_no_reason_to_refuse(
    transforms: Compose | None, balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"steps": 4, "transforms": transforms, **COMMON}
    whole = medfcn.train(balls, tmp_path / "whole", **options)
    with pytest.raises(TrainingStoppedError):
        medfcn.train(balls, tmp_path / "run", stop=StopAfter(2), **options)
    state = tmp_path / "run" / "state"
    identity = json.loads((state / "training.json").read_text())
    monkeypatch.setattr("medfcn.training.prepare.version", lambda name: "9.9")
    told = Told()
    ended = medfcn.train(balls, tmp_path / "run", resume=True, progress=told, **options)
    assert (ended.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()
    assert "monai" not in identity["versions"]
    noted = [line for line in told.lines if "9.9 is installed" in line]
    assert len(noted) == (transforms is not None)
    assert card_of(ended.folder)["versions"]["monai"] == card_of(whole.folder)["versions"]["monai"]


def test_a_run_that_recorded_monai_although_it_did_not_run_is_resumed(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As medfcn did before slices were prepared by MONAI transforms."""
    options = {"steps": 4, **COMMON}
    whole = medfcn.train(balls, tmp_path / "whole", **options)
    with monkeypatch.context() as earlier:
        earlier.setattr("medfcn.training.identity.versions", lambda: versions(monai="1.0"))
        with pytest.raises(TrainingStoppedError):
            medfcn.train(balls, tmp_path / "run", stop=StopAfter(2), **options)
    told = Told()
    ended = medfcn.train(balls, tmp_path / "run", resume=True, progress=told, **options)
    assert any(line.startswith("going on after step") for line in told.lines)
    assert (ended.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()


def test_a_run_to_start_from_gives_its_transforms_on(run: Path, balls: Path, tmp_path: Path) -> None:
    started = medfcn.train(balls, tmp_path / "more", init=run, steps=1, **COMMON)
    assert card_of(started.folder)["transforms"] == card_of(run)["transforms"]


def test_random_and_useless_transforms_are_refused_before_any_work(balls: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="RandFlipd is random"):
        medfcn.train(balls, tmp_path / "run", transforms=Compose([RandFlipd(KEYS, prob=1.0)]), steps=1, **COMMON)
    with pytest.raises(VolumeError, match="cannot be undone"):
        medfcn.train(
            balls, tmp_path / "run", transforms=Lambdad(KEYS, lambda array: array[:, ::2]), steps=1, **COMMON
        )
    assert not (tmp_path / "run" / "model.json").exists()


def test_folds_share_their_transforms(balls: Path, tmp_path: Path) -> None:
    medfcn.train(balls, tmp_path / "run", transforms=spatial(), folds=2, steps=2, **COMMON)
    model = medfcn.load(tmp_path / "run", device="cpu")
    assert len(model.models) == 2
    image = medfcn.read_volume(balls / "images" / "ball_7.nii.gz")
    assert model.predict(image).shape == image.shape


def test_a_training_without_transforms_has_no_key_for_them(ball_run: Path) -> None:
    assert "transforms" not in card_of(ball_run)
    assert "monai" in card_of(ball_run)["versions"]  # it prepared the slices


def test_prediction_without_transforms_does_not_load_monai(ball_run: Path, balls: Path, tmp_path: Path) -> None:
    code = f"""
import sys, medfcn
medfcn.predict({str(ball_run)!r}, {str(balls / "images")!r}, {str(tmp_path / "masks")!r}, cases=["ball_7"])
print("monai" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("views", [("axial",), ("axial", "coronal", "sagittal")])
def test_the_compose_and_the_functions_underneath_prepare_the_same_bits(balls: Path, views: Any) -> None:
    """Training goes through MONAI, prediction does not: both see one input."""
    settings = Settings(slices=SliceSettings(views=views, spacing_mm=(1.3, 1.3)))
    plan = medfcn.plan(balls, labels="ball=1", settings=settings).plan
    image = medfcn.read_volume(balls / "images" / "ball_3.nii.gz")
    reference = medfcn.read_volume(balls / "labels" / "ball_3.nii.gz").array
    slices, plain = (kind(plan, None)([image], reference) for kind in (Slicer, PlainSlicer))
    grid = grid_of(image, plan)
    assert np.array_equal(slices.label, plain.label)
    assert np.array_equal(slices.label, to_network_grid(reference, grid))
    for view in views:
        images, labels = slices.along[view]
        assert np.array_equal(images, slice_volume(network_image([image], plan), view))
        assert np.array_equal(labels, slice_volume(slices.label[None], view)[:, 0])
        assert all(map(np.array_equal, (images, labels), plain.along[view]))
    members = np.array([[False, False], [True, False], [True, True]])
    case = [image], reference + (reference > 0) * (image.array > 190)
    overlaps = Slicer(plan, members)(*case)
    assert np.array_equal(overlaps.label, PlainSlicer(plan, members)(*case).label)
    expected = overlaps_to_network(
        (reference + (reference > 0) * (image.array > 190)).astype(np.uint8), grid, members
    )
    assert np.array_equal(overlaps.label, expected)


def test_a_training_without_room_for_monai_is_the_same_to_the_bit(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The functions of the transforms prepare the slices by themselves, and the card does not name MONAI."""
    monkeypatch.setattr("medfcn.training.prepare.is_room", lambda needed: False)
    options = {"labels": "ball=1", "steps": 3, "threads": 1, "report": False}
    medfcn.train(balls, tmp_path / "plain", **options)
    monkeypatch.undo()
    medfcn.train(balls, tmp_path / "monai", **options)
    one, other = ((tmp_path / run / "model.safetensors").read_bytes() for run in ("plain", "monai"))
    assert one == other
    assert "monai" not in card_of(tmp_path / "plain")["versions"]
