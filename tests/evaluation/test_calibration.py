"""Calibration of voxels: by hand, by another way of counting, and from the files beside masks."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from medfcn.evaluation import evaluate, write_scores
from medfcn.evaluation.calibration import BINS, Bins, CaseBins, calibration_of, near_border, of_entropy
from medfcn.reporting.compose import report
from medfcn.verbs import predict
from medfcn.volumes import read_volume
from tests.inference.models import blobs, saved, tiny_model, write_image


def test_the_error_is_that_of_the_formula_by_hand() -> None:
    """Bins 0.1 (two voxels, one of the label), 0.75 (four, two of them) and 1 (two, both)."""
    probabilities = np.array([0.1, 0.1, 0.75, 0.75, 0.75, 0.75, 1.0, 1.0])
    truth = np.array([True, False, True, True, False, False, True, True])
    bins = Bins.of(probabilities, truth)
    assert bins.expected_error == pytest.approx(2 / 8 * abs(0.1 - 0.5) + 4 / 8 * abs(0.75 - 0.5) + 0)
    assert [(row["from"], row["voxels"], row["share_of_label"]) for row in bins.rows()] == [
        (0.1, 2, 0.5),
        (0.7, 4, 0.5),
        (0.9, 2, 1.0),
    ]
    assert math.isnan(Bins.of(probabilities[:0], truth[:0]).expected_error)


def test_voxels_of_cases_are_counted_together() -> None:
    random = np.random.default_rng(0)
    values, truth = random.random((2, 500)), random.random((2, 500)) < 0.4
    pairs = [
        (Bins.of(one, is_label), Bins.of(one[:9], is_label[:9])) for one, is_label in zip(values, truth, strict=True)
    ]
    found = calibration_of([CaseBins({"organ": pairs[0]}), CaseBins(), CaseBins({"organ": pairs[1]})])
    assert found is not None
    assert found.cases == 2
    flat, of_label = values.reshape(-1), truth.reshape(-1)
    expected = 0.0
    for low in np.arange(BINS) / BINS:
        inside = (flat >= low) & (flat < low + 1 / BINS)
        expected += inside.mean() * abs(flat[inside].mean() - of_label[inside].mean())
    assert found.errors()["organ"][0] == pytest.approx(expected)
    assert calibration_of([CaseBins(), CaseBins()]) is None


def test_what_is_near_the_border_is_measured_in_millimetres() -> None:
    mask = np.zeros((9, 9, 9), dtype=bool)
    mask[4:, :, :] = True
    near = near_border(mask, (2.0, 1.0, 1.0))
    assert np.flatnonzero(near[:, 4, 4]).tolist() == [3, 4]
    assert np.flatnonzero(near_border(mask, (1.5, 1.0, 1.0))[:, 4, 4]).tolist() == [2, 3, 4, 5]
    assert not near_border(np.zeros((3, 3, 3), dtype=bool), (1.0, 1.0, 1.0)).any()


def test_an_entropy_gives_its_probability_back() -> None:
    probabilities = np.linspace(0, 1, 1001)
    inside = (probabilities > 0) & (probabilities < 1)
    bits = np.zeros(1001)
    p = probabilities[inside]
    bits[inside] = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    found = of_entropy(bits.astype(np.float32), probabilities >= 0.5)
    assert np.abs(found - probabilities).max() < 2e-3
    assert np.abs(found - probabilities)[np.abs(probabilities - 0.5) > 0.01].max() < 1e-4


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Masks with probabilities and uncertainty, and references that are other masks."""
    folder = tmp_path_factory.mktemp("calibration")
    for number in range(2):
        write_image(folder / "images" / f"case_{number}.nii.gz", blobs(seed=number))
    run = saved(tiny_model(labels="left=1,right=7"), folder / "run")
    other = saved(tiny_model(labels="left=1,right=7", seed=3), folder / "other")
    masks = predict(
        run, folder / "images", folder / "masks", device="cpu", probabilities=True, uncertainty=True
    ).output
    return masks, predict(other, folder / "images", folder / "references", device="cpu").output


def test_probabilities_beside_masks_are_judged(folders: tuple[Path, Path], tmp_path: Path) -> None:
    masks, references = folders
    table = evaluate(masks, references)
    assert table.calibration is not None
    whole, near = table.calibration.labels["right"]
    values = [read_volume(masks / "probabilities" / f"case_{number}_7.nii.gz").array for number in range(2)]
    truth = [read_volume(references / f"case_{number}.nii.gz").array == 7 for number in range(2)]
    expected = Bins.of(np.concatenate(values), np.concatenate(truth))
    assert whole.expected_error == pytest.approx(expected.expected_error)
    assert 0 < near.voxels.sum() < whole.voxels.sum()
    write_scores(table, tmp_path / "scores")
    written = json.loads((tmp_path / "scores" / "summary.json").read_text())["calibration"]["labels"]["right"]
    assert written["everywhere"]["expected_calibration_error"] == pytest.approx(whole.expected_error)
    page = report(masks, references, tmp_path / "report.html", table=table).read_text()
    assert f"right, near the border: expected calibration error {near.expected_error:.4f}" in page


def test_uncertainty_stands_in_for_probabilities_of_its_own_mask(folders: tuple[Path, Path], tmp_path: Path) -> None:
    masks, references = folders
    by_probability = evaluate(masks, references).calibration
    shutil.copytree(masks, tmp_path / "masks")
    shutil.rmtree(tmp_path / "masks" / "probabilities")
    by_entropy = evaluate(tmp_path / "masks", references).calibration
    assert by_probability is not None
    assert by_entropy is not None
    # With softmax a voxel of two labels and the background can be of a label to which it gives less than one half.
    for name, pair in by_entropy.errors().items():
        assert pair == pytest.approx(by_probability.errors()[name], abs=0.15)
    for path in (tmp_path / "masks" / "uncertainty").iterdir():  # those of other masks
        path.write_bytes((masks / "case_0.nii.gz").read_bytes())
    assert evaluate(tmp_path / "masks", references).calibration is None


def test_uncertainty_alone_says_so_and_nothing_where_the_mask_was_not_decided_at_a_half(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    masks, references = folders
    shutil.copytree(masks, tmp_path / "masks")
    shutil.rmtree(tmp_path / "masks" / "probabilities")
    found = evaluate(tmp_path / "masks", references).calibration
    assert found is not None
    assert (found.cases, found.by_entropy) == (2, 2)
    assert "Of 2 of them the uncertainty alone is known" in found.to_text()
    whole = evaluate(masks, references).calibration
    assert whole is not None
    assert (whole.by_entropy, "uncertainty alone" in whole.to_text()) == (0, False)
    for path in (tmp_path / "masks").glob("case_*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"threshold": 0.35}))
    assert evaluate(tmp_path / "masks", references).calibration is None


def test_probabilities_under_names_of_bids_are_those_of_flat_names(tmp_path: Path) -> None:
    for place, seed in (("images", 0), ("again", 1)):
        for subject in (1, 2):
            name = f"sub-0{subject}_ses-1_T1w.nii.gz"
            write_image(tmp_path / place / f"sub-0{subject}/ses-1/anat/{name}", blobs(seed=seed + subject))
        (tmp_path / place / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    run = saved(tiny_model(labels="left=1,right hand=7"), tmp_path / "run")
    plain, named = (
        predict(run, tmp_path / "images", tmp_path / kind, device="cpu", probabilities=True, format=kind).output
        for kind in ("nifti", "bids")
    )
    references = predict(run, tmp_path / "again", tmp_path / "references", device="cpu").output
    expected, found = (evaluate(masks, references).calibration for masks in (plain, named))
    assert expected is not None
    assert found is not None
    assert (found.cases, found.errors(), found.by_entropy) == (2, expected.errors(), 0)
    one = next(named.rglob("sub-01*_probseg.nii.gz"))
    one.write_bytes(b"another")  # those of another mask
    left = evaluate(named, references).calibration
    assert left is not None
    assert left.cases == 1
