"""`pipelines/monai_loop.py`: a plain MONAI training loop, from files to scored masks."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "pipelines" / "monai_loop.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def test_the_loop_is_short() -> None:
    assert len(SCRIPT.read_text().splitlines()) < 100


def test_masks_of_unseen_cases_are_on_their_own_grids_and_scored(balls: Path, tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("ball_6\nball_7\n")
    out = tmp_path / "out"
    done = run(balls, "--labels", "ball=1", "--leave-out", tmp_path / "test.txt", "-o", out, "--steps", 40)
    assert done.returncode == 0, done.stderr
    assert "Dice" in done.stdout
    assert sorted(path.name for path in (out / "masks").iterdir()) == ["ball_6.nii.gz", "ball_7.nii.gz"]
    for case in ("ball_6", "ball_7"):
        image = nibabel.load(balls / "images" / f"{case}.nii.gz")
        mask = nibabel.load(out / "masks" / f"{case}.nii.gz")
        assert mask.shape == image.shape
        assert np.array_equal(mask.affine, image.affine)
    summary = json.loads((out / "scores" / "summary.json").read_text())
    assert summary["macro"]["dice"] > 0.8
    assert (out / "network.pt").is_file()


def test_several_labels_get_a_channel_each(balls: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for kind in ("images", "labels"):
        (data / kind).mkdir(parents=True)
        for number in range(3):
            name = f"ball_{number}.nii.gz"
            image = nibabel.load(balls / kind / name)
            array = np.asarray(image.dataobj).copy()
            if kind == "labels":
                array[: array.shape[0] // 2] *= 3  # the ball's halves are two labels
            nibabel.save(nibabel.Nifti1Image(array, image.affine), data / kind / name)
    (tmp_path / "test.txt").write_text("2\n")  # a patient
    out = tmp_path / "out"
    done = run(
        *(data, "--labels", "a=1,b=3", "--leave-out", tmp_path / "test.txt", "--group-by", "_(.)$"),
        *("-o", out, "--steps", 4),
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (out / "masks").iterdir()] == ["ball_2.nii.gz"]
    mask = nibabel.load(out / "masks" / "ball_2.nii.gz")
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1, 3}


def test_an_existing_folder_is_refused(balls: Path, tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("ball_6\n")
    done = run(balls, "--labels", "ball=1", "--leave-out", tmp_path / "test.txt", "-o", tmp_path)
    assert done.returncode != 0
    assert "already exists" in done.stderr


@pytest.mark.slow
def test_its_masks_of_people_it_has_not_seen_are_good(shared_data: Path, tmp_path: Path) -> None:
    """Eight hippocampi of six people, all of whose volumes are left out; 200 CPU seconds, Dice 0.905."""
    ids = ("007", "008", "011", "025", "026", "044", "065", "074")
    (tmp_path / "test.txt").write_text("".join(f"hippocampus_{number}\n" for number in ids))
    done = run(
        *(shared_data / "hippocampus", "--labels", "hippocampus=1+2", "--leave-out", tmp_path / "test.txt"),
        *("-o", tmp_path / "out", "--steps", 700, "--threads", 1),
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "scores" / "summary.json").read_text())
    assert summary["macro"]["dice"] >= 0.85
