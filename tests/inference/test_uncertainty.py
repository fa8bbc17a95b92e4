"""Uncertainty as volumes: entropy of the mean, and disagreement of folds, views and mirror images."""

import base64
import json
import mmap
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medfcn import scratch
from medfcn.inference.ensemble import Ensemble, load
from medfcn.inference.uncertainty import entropy_bits
from medfcn.runs.folder import TIMING_FILE
from medfcn.verbs import predict
from medfcn.volumes import Volume, read_volume
from tests.inference.models import blobs, saved, tiny_model, write_image

VIEWS = {"views": ("axial", "coronal"), "spacing_mm": (1.5, 1.5, 1.5)}


def volume(seed: int = 0) -> Volume:
    return Volume(blobs((15, 13, 9), seed=seed), np.diag([-1.0, -1.0, 2.0, 1.0]))


@pytest.mark.parametrize(
    ("count", "plan", "tta"),
    [(1, {}, False), (1, {}, True), (1, VIEWS, True), (2, {}, False), (2, VIEWS, True)],
    ids=["one", "mirrors", "views and mirrors", "two networks", "two networks, views, mirrors"],
)
@pytest.mark.parametrize("labels", ["organ=1", "one=1,two=2"])
def test_the_mask_is_the_same_and_the_maps_are_those_of_its_probabilities(
    count: int, plan: dict[str, Any], tta: bool, labels: str
) -> None:
    models = Ensemble([tiny_model(labels=labels, seed=seed, **plan) for seed in range(count)])
    plain = models.predict_case(volume(), tta=tta, keep_probabilities=True)
    found = models.predict_case(volume(), tta=tta, keep_probabilities=True, uncertainty=True)
    assert np.array_equal(found.mask.array, plain.mask.array)
    assert found.probabilities is not None
    assert np.array_equal(found.probabilities, plain.probabilities)  # type: ignore[arg-type]
    maps = found.uncertainty
    assert maps is not None
    assert np.allclose(maps.entropy, entropy_bits(found.probabilities), atol=1e-6)
    assert maps.disagreement.min() >= 0
    assert (maps.disagreement <= maps.entropy).all()
    assert bool(maps.disagreement.any()) == (count > 1 or tta)
    assert plain.uncertainty is None


def test_disagreement_of_two_networks_is_the_mutual_information() -> None:
    alone = [tiny_model(seed=seed) for seed in range(2)]
    said = [model.predict_case(volume(), keep_probabilities=True).probabilities for model in alone]
    first, second = (np.asarray(one, dtype=np.float64) for one in said)

    def entropy(p: np.ndarray) -> np.ndarray:
        clipped = np.clip(p, 1e-300, 1)
        return np.asarray(-(p * np.log2(clipped) + (1 - p) * np.log2(np.clip(1 - p, 1e-300, 1))))

    expected = entropy((first + second) / 2) - (entropy(first) + entropy(second)) / 2
    maps = Ensemble(alone).predict_case(volume(), uncertainty=True).uncertainty
    assert maps is not None
    assert np.allclose(maps.disagreement, expected, atol=1e-5)


@pytest.mark.parametrize("shift", [1e4, -1e4, 0.0], ids=["all of it", "nothing", "where it is sure"])
def test_where_a_network_is_certain_there_is_no_uncertainty(shift: float) -> None:
    model = tiny_model()
    model.network.head.weight.data.mul_(1e6)
    model.network.head.bias.data.add_(1e7 * shift)
    found = model.predict_case(volume(), uncertainty=True, tta=True, keep_probabilities=True)
    assert found.uncertainty is not None
    assert found.probabilities is not None
    sure = (found.probabilities == 0) | (found.probabilities == 1)
    assert sure.mean() > (0.99 if shift else 0.03)
    assert not found.uncertainty.entropy[sure].any()
    assert not found.uncertainty.disagreement[sure].any()


def test_large_maps_lie_in_files_and_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(labels="one=1,two=2", **VIEWS)
    small = model.predict_case(volume(), uncertainty=True, tta=True).uncertainty
    monkeypatch.setattr(scratch, "LARGE_BYTES", 0)
    large = model.predict_case(volume(), uncertainty=True, tta=True).uncertainty
    assert small is not None
    assert large is not None
    for ours, theirs in ((small.entropy, large.entropy), (small.disagreement, large.disagreement)):
        assert np.array_equal(ours, theirs)
        owner: Any = theirs
        while isinstance(owner, np.ndarray | memoryview):
            owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
        assert isinstance(owner, mmap.mmap)


def test_a_constant_volume_is_certain() -> None:
    blank = Volume(np.zeros((6, 5, 4), dtype=np.int16), np.eye(4))
    maps = tiny_model().predict_case(blank, uncertainty=True).uncertainty
    assert maps is not None
    assert maps.entropy.shape == (1, 6, 5, 4)
    assert not maps.entropy.any()


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != TIMING_FILE]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def shown_uncertainty(page: str, case: int) -> NDArray[np.float32]:
    """Bits of entropy of a case in a report."""
    found = re.search(rf'id="case-data-{case}">(.*?)</script>', page, re.DOTALL)
    assert found
    packed = json.loads(found[1])["uncertainty"]
    assert packed["factors"] == [1, 1, 1]
    values = np.frombuffer(zlib.decompress(base64.b64decode(packed["bytes"])), np.uint8)
    return values.reshape(packed["shape"], order="F").astype(np.float32) / 255


def sure_to_byte(bits: NDArray[np.float32]) -> tuple[float, float]:
    """Mean and largest value with 8 bits; these do not depend on how the axes of a volume lie."""
    rounded = np.rint(bits.astype(np.float64) * 255) / 255
    return float(rounded.mean()), float(rounded.max())


def test_files_lie_on_the_volume_s_grid_and_are_resumed_and_made_again(tmp_path: Path) -> None:
    run = saved(tiny_model(labels="one=1,two=2"), tmp_path / "run")
    for number in range(2):
        write_image(tmp_path / "images" / f"case_{number}.nii.gz", blobs((15, 13, 6), seed=number))
    masks = tmp_path / "masks"
    page = predict(run, tmp_path / "images", masks, uncertainty=True, tta=True, report=True, device="cpu").report
    assert page is not None
    text = page.read_text(encoding="utf-8")
    assert text.count("Uncertainty of two: entropy above 0.5 bit in") >= 2
    assert 'id="show-uncertainty"' in text
    least_sure = np.maximum(
        *(read_volume(masks / f"uncertainty/case_0_{one}_entropy.nii.gz").array for one in (1, 2))
    )
    assert sure_to_byte(shown_uncertainty(text, 0)) == pytest.approx(sure_to_byte(least_sure), abs=1e-3)
    page.unlink()
    names = sorted(path.name for path in (masks / "uncertainty").iterdir())
    assert names == [
        f"case_{case}_{value}_{what}.nii.gz"
        for case in range(2)
        for value in (1, 2)
        for what in ("disagreement", "entropy")
    ]
    maps = load(run, device="cpu").predict_case(tmp_path / "images" / "case_1.nii.gz", uncertainty=True, tta=True)
    stored = read_volume(masks / "uncertainty" / "case_1_2_entropy.nii.gz")
    assert maps.uncertainty is not None
    assert np.array_equal(stored.array, maps.uncertainty.entropy[1])
    assert np.array_equal(stored.affine, read_volume(tmp_path / "images" / "case_1.nii.gz").affine)
    clean = content(masks)
    (masks / "uncertainty" / names[0]).unlink()
    assert predict(run, tmp_path / "images", masks, uncertainty=True, tta=True, resume=True, device="cpu").predicted
    assert content(masks) == clean
    predict(run, tmp_path / "images", tmp_path / "again", again=masks, device="cpu")
    assert content(tmp_path / "again") == clean
