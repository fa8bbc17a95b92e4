"""Real volumes of two channels: CT and PET of one patient on one grid, kept beside the project."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

import medfcn
from medfcn.errors import MedfcnError
from medfcn.settings import NetworkSettings, Settings
from medfcn.slices.preprocess import CaseImage


@pytest.fixture(scope="module")
def petct_run(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thin FCN-8s trained for a few steps on CT and PET of seven patients."""
    settings = Settings(network=NetworkSettings(preset="fcn8s", width=1 / 16))
    run = tmp_path_factory.mktemp("petct") / "run"
    dataset = shared_data / "sts_petct"
    ids = sorted(path.name.removesuffix(".nii.gz") for path in (dataset / "labels").glob("*.nii.gz"))
    medfcn.train(
        dataset, run, labels="tumour=1", settings=settings, leave_out=ids[:1], steps=4, device="cpu", threads=1
    )
    return run


def test_two_channels_train_and_predict(petct_run: Path, shared_data: Path, tmp_path: Path) -> None:
    model = medfcn.load(petct_run, device="cpu")
    assert model.card.channels == ("0000", "0001")
    assert [intensity.kind for intensity in model.card.plan.intensities] == ["ct", "zscore"]
    images = sorted((shared_data / "sts_petct" / "images").glob("*.nii.gz"))[:2]
    for image in images:
        shutil.copy(image, tmp_path)
    medfcn.predict(petct_run, tmp_path, tmp_path / "masks", device="cpu")
    mask = medfcn.read_volume(next((tmp_path / "masks").glob("*.nii.gz")))
    assert mask.shape == medfcn.read_volume(images[0]).shape
    assert np.isin(mask.array, (0, 1)).all()


def test_both_channels_count(petct_run: Path, shared_data: Path) -> None:
    """A mask that ignored the PET would be the same without it."""
    model = medfcn.load(petct_run, device="cpu").models[0]
    ct, pet = (
        medfcn.read_volume(path) for path in sorted((shared_data / "sts_petct" / "images").glob("*.nii.gz"))[:2]
    )
    cut = tuple(slice(0, size) for size in (*ct.shape[:2], 8))
    ct, pet = (dataclasses.replace(volume, array=volume.array[cut]) for volume in (ct, pet))
    other = dataclasses.replace(pet, array=pet.array[::-1].copy())
    both, turned = (model.network_probabilities(CaseImage([ct, second], model.card.plan)) for second in (pet, other))
    assert np.abs(both - turned).max() > 1e-4


def test_a_case_short_of_a_channel_is_refused(petct_run: Path, shared_data: Path, tmp_path: Path) -> None:
    ct, pet = sorted((shared_data / "sts_petct" / "images").glob("*.nii.gz"))[:2]
    shutil.copy(ct, tmp_path)
    model = medfcn.load(petct_run, device="cpu")
    with pytest.raises(MedfcnError, match=f"{pet.name} is missing: the model takes 2 channels"):
        model.predict(tmp_path / ct.name)
    assert np.array_equal(model.predict(ct).array, model.predict([ct, pet]).array)


def test_exchanged_channels_are_flagged(petct_run: Path, shared_data: Path) -> None:
    ct, pet = sorted((shared_data / "sts_petct" / "images").glob("*.nii.gz"))[:2]
    model = medfcn.load(petct_run, device="cpu")
    right, wrong = model.predict_case([ct, pet]), model.predict_case([pet, ct])
    assert not [flag for flag in right.flags if flag.startswith("foreign volume")]
    assert sum("are the channels in order?" in flag for flag in wrong.flags) >= 1
