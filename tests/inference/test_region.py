"""A model sees the part of a volume that is given; a volume much larger than those of its training is refused."""

import dataclasses
from pathlib import Path

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner

from medfcn.cli import main
from medfcn.errors import MedfcnError, ModelError, SettingsError, VolumeError
from medfcn.inference.foreign import fingerprint_of
from medfcn.inference.model import Model
from medfcn.slices.appearance import appearance_of
from medfcn.volumes import ReadOptions, Volume
from tests.inference.models import blobs, saved, tiny_model, write_image

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
TURNED = np.array([[0, 0, 1.0, -30], [-1.0, 0, 0, 20], [0, 2.0, 0, -9], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def model() -> Model:
    """Trained on boxes of 20 × 17 × 12 mm."""
    made = tiny_model(labels="left=1,right=2")
    looks = [appearance_of([Volume(blobs(seed=seed), AFFINE)]) for seed in range(3)]
    made.card = dataclasses.replace(made.card, fingerprint=fingerprint_of(looks))
    return made


def whole(affine: np.ndarray = AFFINE) -> Volume:
    return Volume(blobs((60, 50, 30), seed=5), affine, name="head")


@pytest.mark.parametrize("affine", [AFFINE, TURNED], ids=["plain", "turned"])
def test_a_box_gives_the_mask_of_its_part_on_the_whole_grid(model: Model, affine: np.ndarray) -> None:
    volume = whole(affine)
    box = (slice(10, 31), slice(5, 22), slice(7, 15))
    corners = [
        affine[:3, :3] @ [side.start, other.start, third.start] + affine[:3, 3] for side, other, third in [box]
    ]
    corners += [affine[:3, :3] @ [side.stop - 1 for side in box] + affine[:3, 3]]
    box_mm = tuple((min(pair), max(pair)) for pair in zip(*np.array(corners).tolist(), strict=True))
    found = model.predict_case(volume, keep_probabilities=True, options=ReadOptions(box_mm=box_mm))
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ [10, 5, 7]
    alone = model.predict_case(Volume(volume.array[box].copy(), moved), keep_probabilities=True)
    assert alone.mask.array.any()
    expected = np.zeros(volume.shape, dtype=alone.mask.array.dtype)
    expected[box] = alone.mask.array
    assert np.array_equal(found.mask.array, expected)
    assert np.array_equal(found.mask.affine, affine)
    assert found.volumes_ml == alone.volumes_ml
    assert found.probabilities is not None
    assert found.probabilities.shape == (2, 60, 50, 30)
    assert not found.probabilities[:, :10].any()


def test_a_place_gives_a_box_of_the_size_of_the_training(model: Model) -> None:
    volume = whole()
    place = tuple(float(value) for value in AFFINE[:3, :3] @ [30, 25, 15])
    found = model.predict_case(volume, options=ReadOptions(around_mm=place))
    inside = np.argwhere(found.mask.array)
    assert len(inside)
    assert (inside.min(axis=0) >= (20, 16, 12)).all()
    assert (inside.max(axis=0) <= (40, 34, 18)).all()


def test_a_much_larger_volume_is_refused_in_one_line(model: Model) -> None:
    with pytest.raises(
        VolumeError,
        match=r"head: it spans 60 × 50 × 60 mm .* 44 times the room .*around_mm=\(X,Y,Z",
    ):
        model.predict(whole())
    model.predict(Volume(blobs((30, 25, 10)), AFFINE))  # less than twice each edge


def test_a_model_that_knows_no_sizes_refuses_nothing_but_a_place() -> None:
    model = tiny_model()
    model.predict(whole())
    with pytest.raises(ModelError, match="give a box"):
        model.predict(whole(), options=ReadOptions(around_mm=(0.0, 0.0, 0.0)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"around_mm": (500.0, 0.0, 0.0)}, "the place 500 × 0 × 0 mm is outside of it"),
        ({"box_mm": ((500.0, 510.0), (0.0, 10.0), (0.0, 10.0))}, "the box contains none of its voxels"),
    ],
    ids=["place", "box"],
)
def test_a_part_outside_is_refused(model: Model, options: dict[str, object], words: str) -> None:
    with pytest.raises(VolumeError, match=words):
        model.predict(whole(), options=ReadOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"around_mm": (0.0, 0.0, float("nan"))},
        {"box_mm": ((1.0, 0.0), (0.0, 1.0), (0.0, 1.0))},
        {"around_mm": (0.0, 0.0, 0.0), "box_mm": ((0.0, 1.0),) * 3},
    ],
    ids=["nan", "falling", "both"],
)
def test_a_part_that_cannot_be_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        ReadOptions(**options)  # type: ignore[arg-type]


def test_the_command_takes_a_place_and_writes_it_down(model: Model, tmp_path: Path) -> None:
    run = saved(model, tmp_path / "run")
    image = write_image(tmp_path / "head.nii.gz", blobs((60, 50, 30), seed=5), AFFINE)
    command = ["predict", str(run), str(image), "-o", str(tmp_path / "masks"), "--device", "cpu"]
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 1
    assert "--around X,Y,Z" in refused.stderr
    done = CliRunner().invoke(main, [*command, "--around", "-30,-25,30", "--resume"])
    assert done.exit_code == 0, done.stderr
    assert nibabel.load(tmp_path / "masks" / "head.nii.gz").shape == (60, 50, 30)
    record = (tmp_path / "masks" / "head.json").read_text()
    assert '"around_mm"' in record
    kept = CliRunner().invoke(main, [*command, "--around", "-30,-25,30", "--resume"])
    assert "1 kept" in kept.stdout
    wrong = CliRunner().invoke(main, [*command, "--around", "1,2", "--resume"])
    assert wrong.exit_code == 2
    assert isinstance(SettingsError("a"), MedfcnError)
