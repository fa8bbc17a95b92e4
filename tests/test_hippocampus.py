"""Real volumes: the whole way on a few people of the Decathlon's hippocampus, kept beside the project."""

import itertools
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

import medfcn

ROOT = Path(__file__).resolve().parents[1]
TEST_IDS = (ROOT / "benchmarks" / "hippocampus_test.txt").read_text().split()
GEOMETRY = (
    "dim", "pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y",
    "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units",
)  # fmt: skip


@pytest.fixture(scope="module")
def hippocampus_run(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network trained for a few seconds on twelve volumes, none of them held out."""
    folder = shared_data / "hippocampus"
    ids = sorted(path.name.removesuffix(".nii.gz") for path in (folder / "images").glob("*.nii.gz"))
    kept = [case_id for case_id in ids if case_id not in TEST_IDS][:12]
    run = tmp_path_factory.mktemp("hippocampus") / "run"
    others = [case_id for case_id in ids if case_id not in kept]
    medfcn.train(folder, run, labels="hippocampus=1+2", leave_out=others, steps=60, device="cpu", threads=1)
    return run


def test_one_patient_stored_in_48_ways_gets_one_mask(
    hippocampus_run: Path, shared_data: Path, tmp_path: Path
) -> None:
    image = nibabel.load(shared_data / "hippocampus" / "images" / f"{TEST_IDS[0]}.nii.gz")
    array = np.asarray(image.dataobj)
    model = medfcn.load(hippocampus_run, device="cpu")
    expected = model.predict((array, image.affine)).array
    assert expected.sum() > 500
    identity = np.eye(3, dtype=int)
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            # Column k of the map takes new axis k to old axis order[k], perhaps reversed.
            change = np.eye(4)
            change[:3, :3] = identity[:, list(order)] * signs
            for axis, sign in zip(order, signs, strict=True):
                change[axis, 3] = (array.shape[axis] - 1) if sign < 0 else 0
            flips = tuple(axis for axis, sign in enumerate(signs) if sign < 0)
            stored = np.flip(array.transpose(order), flips)
            path = tmp_path / "stored.nii.gz"
            nibabel.save(nibabel.Nifti1Image(stored, image.affine @ change), path)
            mask = model.predict(path)
            assert np.array_equal(mask.array, np.flip(expected.transpose(order), flips)), (order, signs)


def test_an_oblique_volume_comes_back_on_its_own_grid(
    hippocampus_run: Path, shared_data: Path, tmp_path: Path
) -> None:
    image = nibabel.load(shared_data / "hippocampus" / "images" / f"{TEST_IDS[1]}.nii.gz")
    turn = nibabel.eulerangles.euler2mat(0.3, -0.2, 0.25)
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.9, 1.0, 1.3]) @ np.diag([-1, 1, -1])
    affine[:3, 3] = [12.5, -40.25, 7.75]
    oblique = nibabel.Nifti1Image(np.asarray(image.dataobj).astype(np.int16), affine)
    oblique.set_sform(affine, code=4)
    oblique.set_qform(affine, code=2)
    oblique.header.set_xyzt_units("mm", "msec")
    nibabel.save(oblique, tmp_path / "oblique.nii.gz")
    medfcn.predict(hippocampus_run, tmp_path / "oblique.nii.gz", tmp_path / "mask.nii.gz", device="cpu")
    before = nibabel.load(tmp_path / "oblique.nii.gz").header
    after = nibabel.load(tmp_path / "mask.nii.gz").header
    for name in GEOMETRY:
        assert before[name].tobytes() == after[name].tobytes(), name
    assert np.asarray(nibabel.load(tmp_path / "mask.nii.gz").dataobj).any()


def test_the_pipeline_goes_the_whole_way_and_holds_out_the_committed_people(
    shared_data: Path, tmp_path: Path
) -> None:
    arguments = ["--data", str(shared_data / "hippocampus"), "-o", str(tmp_path / "out"), "--budget", "15s"]
    command = [sys.executable, str(ROOT / "pipelines" / "hippocampus.py"), *arguments, "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Dice" in done.stdout
    masks = sorted(path.name.removesuffix(".nii.gz") for path in (tmp_path / "out" / "masks").glob("*.nii.gz"))
    assert masks == TEST_IDS == (tmp_path / "out" / "test.txt").read_text().split()
