"""DICOM series in, masks out: named by folders, on the series' own grid, and without a word of the patient."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("pydicom", reason="pydicom is not installed: pip install 'medfcn[dicom]'")

from medfcn.cli import main
from medfcn.datasets import find_inputs
from medfcn.verbs import predict
from medfcn.volumes import ReadOptions, read_volume
from tests.inference.models import saved, tiny_model
from tests.volumes.dicom_series import Made, classic, enhanced, save, save_all, turned

LARGE = {"rows": 26, "columns": 30, "spacing": (1.5, 1.5)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny_model(), tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients: one with a CT and an enhanced MR, one with two series in one folder and one that is broken."""
    root = tmp_path_factory.mktemp("tree")
    save_all(classic(Made(**LARGE)), root / "p1" / "ct")
    save(enhanced(Made("MR", turned(10, 5, 0), **LARGE)), root / "p1" / "mr" / "IM1")
    for made in (Made(**LARGE), Made(**LARGE, origin=(0, 0, 0), count=8)):
        for number, dataset in enumerate(classic(made)):
            save(dataset, root / "p2" / "both" / f"{made.count}_{number}")
    slices = classic(Made(**LARGE))
    save_all(slices[:4] + slices[5:], root / "p2" / "ct")
    save_all(classic(Made(**LARGE, shear=(0, 1, 0))), root / "p2" / "tilted")
    return root


def test_a_tree_of_series_becomes_a_mask_for_each_named_by_its_folder(run: Path, tree: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["predict", str(run), str(tree), "-o", str(tmp_path / "masks")])
    assert result.exit_code == 3, result.output
    written = sorted(path.name for path in (tmp_path / "masks").glob("*.nii.gz"))
    hashes = sorted(case.id for case in find_inputs(tree) if case.id.startswith("both_"))
    assert len(hashes) == 2
    assert all(len(name) == len("both_") + 8 for name in hashes)
    assert written == sorted(f"{name}.nii.gz" for name in [*hashes, "mr", "p1_ct"])
    with (tmp_path / "masks" / "failures.csv").open() as file:
        assert [row["case"] for row in csv.DictReader(file)] == ["p2_ct", "tilted"]
    for case in find_inputs(tree):
        if case.id in (*hashes, "mr", "p1_ct"):
            mask = read_volume(tmp_path / "masks" / f"{case.id}.nii.gz")
            image = read_volume(case.images[0])
            assert mask.shape == image.shape
            assert np.allclose(mask.affine, image.affine, atol=1e-4)
            assert 0 < mask.array.mean() < 1
    everything = b"".join(path.read_bytes() for path in (tmp_path / "masks").iterdir()) + result.output.encode()
    assert b"SECRET" not in everything


def test_the_series_alone_is_named_by_its_folder_and_resumed(run: Path, tree: Path, tmp_path: Path) -> None:
    first = predict(run, tree / "p1" / "ct", tmp_path / "masks")
    assert first.predicted == ("ct",)
    again = predict(run, tree / "p1" / "ct", tmp_path / "masks", resume=True)
    assert again.skipped == ("ct",)
    one_file = predict(run, tree / "p1" / "mr" / "IM1", tmp_path / "mask.nii.gz")
    assert not one_file.failures


def test_one_series_of_a_folder_can_be_chosen(run: Path, tree: Path, tmp_path: Path) -> None:
    case = find_inputs(tree / "p2" / "both")[1]
    chosen = predict(run, tree, tmp_path / "masks", options=ReadOptions(series=case.id.removeprefix("both_")))
    assert chosen.predicted == (case.id,)


def test_a_mask_does_not_depend_on_the_container_of_the_voxels(run: Path, tree: Path, tmp_path: Path) -> None:
    read_volume(tree / "p1" / "ct").save(tmp_path / "ct.nii.gz")
    predict(run, tmp_path / "ct.nii.gz", tmp_path / "from_nifti")
    predict(run, tree / "p1" / "ct", tmp_path / "from_dicom")
    masks = [read_volume(tmp_path / name / "ct.nii.gz") for name in ("from_nifti", "from_dicom")]
    assert np.array_equal(masks[0].array, masks[1].array)


def test_a_series_in_two_folders_is_refused_in_both(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree / "p1" / "ct", tmp_path / "half" / "a")
    (tmp_path / "half" / "b").mkdir()
    for path in sorted((tmp_path / "half" / "a").iterdir())[:5]:
        path.rename(tmp_path / "half" / "b" / path.name)
    lacks = [case.lacks for case in find_inputs(tmp_path / "half")]
    assert lacks == [
        "the series goes on in b/, with 5 files more; put all in one folder",
        "the series goes on in a/, with 5 files more; put all in one folder",
    ]
