"""Every preset trains on the sample volumes, and its run predicts a mask."""

from pathlib import Path

import numpy as np
import pytest

import medfcn
from medfcn.demo import sample_data
from medfcn.networks.presets import PRESETS
from medfcn.settings import NetworkSettings, Settings

IN_EVERY_RUN = ("fcn8s", "compact", "resnet18_8s")


@pytest.mark.parametrize(
    "preset", [pytest.param(name, marks=() if name in IN_EVERY_RUN else pytest.mark.slow) for name in PRESETS]
)
def test_a_preset_trains_on_the_sample_volumes_and_predicts(preset: str, tmp_path: Path) -> None:
    cases = sorted((sample_data() / "train" / "images").glob("*.nii.gz"))
    run = medfcn.train(
        sample_data() / "train",
        tmp_path / "run",
        preset=preset,
        settings=Settings(network=NetworkSettings(width=1 / 16)),
        leave_out=[case.name.removesuffix(".nii.gz") for case in cases[3:]],
        steps=3,
        device="cpu",
        threads=1,
    )
    assert run.steps == 3
    model = medfcn.load(run.folder, device="cpu")
    assert model.card.settings.network.preset == preset
    image, mask = medfcn.read_volume(cases[-1]), model.predict(cases[-1])
    assert mask.array.shape == image.array.shape
    assert np.array_equal(mask.affine, image.affine)
    assert set(np.unique(mask.array)) <= {0, 1}
