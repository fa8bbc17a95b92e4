"""A network learns from what was labelled, and not that the rest is background."""

import json
from pathlib import Path

import numpy as np
import pytest

import medfcn
from medfcn.evaluation import dice
from tests.conftest import draw_ball, write_case


@pytest.fixture(scope="module")
def half_labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six balls of which nobody looked at one half."""
    folder = tmp_path_factory.mktemp("half")
    for number in range(6):
        image, mask = draw_ball(number)
        mask[:, :11] = 255
        write_case(folder, f"ball_{number}", image, mask)
    return folder


def test_half_labelled_volumes_train_a_network_that_finds_the_whole(half_labelled: Path, tmp_path: Path) -> None:
    image, mask = draw_ball(7)
    write_case(tmp_path / "unseen", "ball_7", image, mask)
    found = {}
    for labels in ("ball=1,ignore=255", "ball=1"):
        run = medfcn.train(half_labelled, tmp_path / labels, labels=labels, steps=80, device="cpu", threads=1)
        volume = run.load(device="cpu").predict(tmp_path / "unseen" / "images" / "ball_7.nii.gz")
        found[labels] = dice(mask, volume.array)
        if "ignore" in labels:
            card = json.loads((run.folder / "model.json").read_text())
            assert card["labels"]["ignored"] == [255]
            assert all(row.dice > 0.8 for row in run.validation.rows)
            assert all(np.isfinite(row.hd95_mm) for row in run.validation.rows)
    assert found["ball=1,ignore=255"] > 0.85
    assert found["ball=1"] < found["ball=1,ignore=255"] - 0.1
