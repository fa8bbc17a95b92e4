"""The model in the box: small, licensed, and used by its name."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner

import medfcn
from medfcn.cli import main
from medfcn.errors import VolumeError
from medfcn.exporting.phantom import dice_of
from medfcn.runs.models import card_text
from medfcn.training.start import find_start
from medfcn.volumes import ReadOptions, Volume
from pipelines.box_model import main as make_box_model
from tests.inference.models import blobs, write_image

NAME = "hippocampus-mr"
DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "hippocampus"


def test_it_is_small_and_its_card_names_licence_source_and_scores() -> None:
    (model,) = (model for model in medfcn.models() if model.name == NAME)
    assert model.is_ours
    assert model.path.stat().st_size < 2 * 2**20
    card = card_text(NAME)
    for words in (
        "CC BY-SA 4.0",
        "Medical Segmentation Decathlon",
        "not a medical device",
        "| hippocampus | 200 | 0 |",
    ):
        assert words in card
    assert f"`{NAME}.medfcn`" in (model.path.parent / "README.md").read_text()


def test_weights_to_start_from_have_a_name() -> None:
    run = find_start(NAME, None).run
    assert run is not None
    assert run.card.labels.names == ("hippocampus",)


def test_a_whole_head_is_refused_unless_the_place_is_given() -> None:
    model = medfcn.load(NAME, device="cpu")
    head = Volume(blobs((160, 190, 150)), np.diag([1.0, 1.0, 1.0, 1.0]), name="head")
    with pytest.raises(VolumeError, match="around_mm="):
        model.predict(head)
    mask = model.predict(head, options=ReadOptions(around_mm=(50.0, 90.0, 60.0)))
    assert mask.shape == head.shape


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA.name} beside the checkout")
def test_it_finds_a_hippocampus_in_a_box_and_in_a_large_volume() -> None:
    image = sorted((DATA / "images").glob("*.nii.gz"))[0]
    reference = np.asarray(nibabel.load(DATA / "labels" / image.name).dataobj) > 0
    model = medfcn.load(NAME, device="cpu")
    assert dice_of(model.predict(image).array > 0, reference) > 0.8
    box = nibabel.load(image)
    array = np.random.default_rng(0).normal(500, 100, size=(150, 160, 140)).astype(np.float32)
    place = tuple(slice(60, 60 + edge) for edge in box.shape)
    array[place] = np.asarray(box.dataobj)
    affine = box.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ [60, 60, 60]
    middle = box.affine[:3, :3] @ (np.array(box.shape) / 2 - 0.5) + box.affine[:3, 3]
    options = ReadOptions(box_mm=_corners(box), max_bytes=2**31)
    found = model.predict(Volume(array, affine), options=options)
    assert dice_of(found.array[place] > 0, reference) > 0.8
    assert found.array.sum() == found.array[place].sum()
    assert model.predict(Volume(array, affine), options=ReadOptions(around_mm=tuple(middle.tolist()))).array.any()


def _corners(box: nibabel.Nifti1Image) -> tuple[tuple[float, float], ...]:
    """Both ends of a volume along each axis of the world."""
    ends = [box.affine[:3, :3] @ np.array(end) + box.affine[:3, 3] for end in ((0, 0, 0), np.array(box.shape) - 1)]
    return tuple((float(min(pair)), float(max(pair))) for pair in zip(*ends, strict=True))


@pytest.mark.slow
def test_the_pipeline_makes_such_a_model(tmp_path: Path) -> None:
    for number in range(1, 9):
        image = blobs((24, 24, 12), seed=number)
        write_image(tmp_path / "data" / "images" / f"hippocampus_{number}.nii.gz", image)
        mask = (image > 500).astype(np.uint8) + (image > 1200)
        write_image(tmp_path / "data" / "labels" / f"hippocampus_{number}.nii.gz", mask)
    command = [str(tmp_path / "data"), "-o", str(tmp_path / "box"), "--steps", "2", "--folds", "2"]
    done = CliRunner().invoke(make_box_model, command)
    assert done.exit_code == 0, done.output
    shown = CliRunner().invoke(main, ["models", str(tmp_path / "box" / f"{NAME}.medfcn")])
    assert "of 2 other networks" in shown.stdout
    assert "| hippocampus | 8 |" in shown.stdout
