"""The sample volumes are what their README says, and neither too easy nor unfit to ship."""

# nibabel is annotated only in part.
# mypy: disable-error-code="no-untyped-call"

import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from tests.scripts import module_at

FOLDER = Path(__file__).resolve().parents[1] / "sample_data"
TRAIN = tuple(range(1, 13))
TEST = tuple(range(13, 17))
EASY_DICE = 0.6

Mask = NDArray[np.bool_]
Brightness = NDArray[np.float64]


@pytest.fixture(scope="session")
def maker() -> ModuleType:
    return module_at(FOLDER / "make.py")


def path_of(number: int, kind: str) -> Path:
    split = "train" if number in TRAIN else "test"
    return FOLDER / split / kind / f"sample_{number:02d}.nii.gz"


def load(path: Path) -> Any:
    return nib.load(path)


@cache
def image_of(number: int, kind: str = "images") -> Any:
    return load(path_of(number, kind))


@cache
def upright(number: int) -> tuple[Brightness, Mask, NDArray[np.float64]]:
    """Brightness, mask and affine with the axes nearest to RAS, so that volumes can be laid on each other."""
    image = nib.as_closest_canonical(image_of(number))
    label = nib.as_closest_canonical(image_of(number, "labels"))
    return image.get_fdata(), np.asarray(label.dataobj) == 1, image.affine


def dice(first: Mask, second: Mask) -> float:
    return float(2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second)))


# --- Baselines, each with the best setting in hindsight: chosen on the very mask that it is scored on. ---


def best_threshold(brightness: Brightness, mask: Mask) -> float:
    """The best Dice of `brightness >= t` and of `brightness <= t`, over all t."""
    hits = np.cumsum(mask.ravel()[np.argsort(brightness, axis=None)])
    count = np.arange(1, mask.size + 1)
    below = 2 * hits / (count + hits[-1])
    above = 2 * (hits[-1] - hits) / (mask.size - count + hits[-1])
    return float(max(below.max(), above.max()))


def best_band(brightness: Brightness, mask: Mask) -> float:
    """The best Dice of `low <= brightness < high`, over all pairs of 200 quantiles."""
    edges = np.unique(np.quantile(brightness, np.linspace(0, 1, 201)))
    edges[-1] = np.inf
    hits = np.concatenate([[0], np.cumsum(np.histogram(brightness[mask], edges)[0])])
    count = np.concatenate([[0], np.cumsum(np.histogram(brightness, edges)[0])])
    band_hits, band_count = hits[None] - hits[:, None], count[None] - count[:, None]
    return float((2 * band_hits / (np.maximum(band_count, 0) + mask.sum())).max())


def best_band_component(brightness: Brightness, mask: Mask) -> float:
    """The best Dice of the largest component of a band, over all pairs of 16 quantiles."""
    edges = np.quantile(brightness, np.linspace(0, 1, 17))
    best = 0.0
    for index, low in enumerate(edges):
        for high in edges[index + 1 :]:
            parts, _ = ndimage.label((brightness >= low) & (brightness <= high))
            sizes = np.bincount(parts.ravel())[1:]
            if sizes.size:
                best = max(best, dice(parts == sizes.argmax() + 1, mask))
    return best


def smoothed_band(brightness: Brightness, mask: Mask) -> float:
    return best_band(ndimage.gaussian_filter(brightness, 1.0), mask)


BASELINES = (best_threshold, best_band, best_band_component, smoothed_band)


def mean_training_mask(number: int, *, in_mm: bool) -> Brightness:
    """The twelve training masks on a test volume's grid, centre on centre in millimetres or edge on edge."""
    _, mask, affine = upright(number)
    indices = np.moveaxis(np.indices(mask.shape), 0, -1).astype(np.float64)
    total = np.zeros(mask.shape)
    for train in TRAIN:
        _, other, other_affine = upright(train)
        middle, other_middle = ((np.array(grid.shape) - 1) / 2 for grid in (mask, other))
        if in_mm:
            turn = np.linalg.inv(other_affine[:3, :3]) @ affine[:3, :3]
            places = (indices - middle) @ turn.T + other_middle
        else:
            places = (indices + 0.5) * other.shape / mask.shape - 0.5
        total += ndimage.map_coordinates(other.astype(float), np.moveaxis(places, -1, 0), order=1)
    return total / len(TRAIN)


@pytest.mark.parametrize("baseline", BASELINES)
def test_no_threshold_finds_the_organ(baseline: Callable[[Brightness, Mask], float]) -> None:
    scores = [baseline(*upright(number)[:2]) for number in TEST]
    assert np.mean(scores) < EASY_DICE, scores


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_threshold_finds_a_bright_ball(baseline: Callable[[Brightness, Mask], float]) -> None:
    # The baselines can win, or the test above would prove nothing.
    place = np.indices((30, 30, 30)) - 14.5
    mask = np.square(place).sum(axis=0) < 81
    noise = np.random.default_rng(0).normal(0, 0.1, mask.shape)
    assert baseline(mask + noise, mask) > 0.9


@pytest.mark.parametrize("in_mm", [True, False])
def test_mean_training_mask_misses_the_organ(in_mm: bool) -> None:
    scores = [best_threshold(mean_training_mask(number, in_mm=in_mm), upright(number)[1]) for number in TEST]
    assert np.mean(scores) < EASY_DICE, scores


def test_mean_mask_finds_its_own_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "TRAIN", (2,))
    for in_mm in (True, False):
        assert best_threshold(mean_training_mask(2, in_mm=in_mm), upright(2)[1]) == 1.0


# --- Files ---


def test_twelve_to_train_and_four_to_test_in_two_megabytes() -> None:
    for kind in ("images", "labels"):
        for split, numbers in (("train", TRAIN), ("test", TEST)):
            found = sorted(path.name for path in (FOLDER / split / kind).iterdir())
            assert found == [f"sample_{number:02d}.nii.gz" for number in numbers]
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.nii.gz")) <= 2_000_000


@pytest.mark.parametrize("number", TRAIN + TEST)
def test_mask_lies_on_its_images_grid(number: int) -> None:
    image, label = image_of(number), image_of(number, "labels")
    assert image.shape == label.shape
    for field in (
        "srow_x",
        "srow_y",
        "srow_z",
        "qform_code",
        "sform_code",
        "quatern_b",
        "quatern_c",
        "quatern_d",
    ):
        np.testing.assert_array_equal(image.header[field], label.header[field])
    for field in ("qoffset_x", "qoffset_y", "qoffset_z", "pixdim", "xyzt_units"):
        np.testing.assert_array_equal(image.header[field], label.header[field])
    assert np.unique(np.asarray(label.dataobj)).tolist() == [0, 1]


@pytest.mark.parametrize("number", TRAIN + TEST)
def test_qform_and_sform_agree_in_millimetres(number: int) -> None:
    image = image_of(number)
    assert image.header.get_xyzt_units()[0] == "mm"
    (sform, sform_code), (qform, qform_code) = image.get_sform(coded=True), image.get_qform(coded=True)
    assert (int(sform_code), int(qform_code)) == (1, 1)
    corners = np.array(np.meshgrid(*((0, count - 1) for count in image.shape))).reshape(3, -1)
    moved_mm = (sform - qform)[:3, :3] @ corners + (sform - qform)[:3, 3:]
    assert np.abs(moved_mm).max() < 1e-3


@pytest.mark.parametrize("number", TRAIN + TEST)
def test_organ_is_whole_and_large_enough_to_score(number: int) -> None:
    _, mask, _ = upright(number)
    assert 1500 <= mask.sum() <= 6000
    assert ndimage.label(mask, np.ones((3, 3, 3)))[1] == 1
    inner = mask[1:-1, 1:-1, 1:-1]
    assert inner.sum() == mask.sum(), "the organ touches the edge of the volume"


@pytest.mark.parametrize("numbers", [TRAIN, TEST], ids=["train", "test"])
def test_orientations_datatypes_and_spacings_vary(numbers: tuple[int, ...]) -> None:
    images = [image_of(number) for number in numbers]
    assert len({nib.aff2axcodes(image.affine) for image in images}) >= 3
    assert len({image.get_data_dtype() for image in images}) >= 3
    assert any(image.dataobj.slope != 1 for image in images), "none has a slope"
    assert any(nib.affines.obliquity(image.affine).max() > np.radians(10) for image in images), "none is oblique"
    ratios = [max(image.header.get_zooms()) / min(image.header.get_zooms()) for image in images]
    assert min(ratios) < 1.001
    assert max(ratios) > 2


# --- The script ---


def test_script_makes_the_files_that_are_here(maker: ModuleType, tmp_path: Path) -> None:
    maker.main(tmp_path)
    made = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.nii.gz")}
    assert made == {path.relative_to(FOLDER) for path in FOLDER.rglob("*.nii.gz")}
    for relative in sorted(made):
        new, here = load(tmp_path / relative), load(FOLDER / relative)
        assert new.get_data_dtype() == here.get_data_dtype(), relative
        np.testing.assert_allclose(new.affine, here.affine, atol=1e-4)
        assert new.shape == here.shape, relative
        # Another machine's sine may differ in its last digit, and then a voxel on a border may too.
        differing = np.count_nonzero(new.get_fdata() != here.get_fdata())
        assert differing <= new.get_fdata().size / 1000, relative


def test_a_sample_depends_on_its_number_alone(maker: ModuleType, tmp_path: Path) -> None:
    for name in ("first.nii.gz", "second.nii.gz"):
        maker.write_nifti(maker.make_case(4)[0], tmp_path / name)
        np.random.default_rng().normal()
    assert (tmp_path / "first.nii.gz").read_bytes() == (tmp_path / "second.nii.gz").read_bytes()
    assert not np.array_equal(maker.make_case(1)[0].dataobj, maker.make_case(12)[0].dataobj)


def test_noise_is_rician(maker: ModuleType) -> None:
    rng = np.random.default_rng(0)
    sigma = 0.04
    air = maker.add_rician_noise(rng, np.zeros((50, 50, 50), np.float32), sigma)
    tissue = maker.add_rician_noise(rng, np.full((50, 50, 50), 0.8, np.float32), sigma)
    # In air Rician noise is Rayleigh noise, of mean sigma * sqrt(pi / 2); in bright tissue it is Gaussian.
    assert air.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.01)
    assert tissue.mean() == pytest.approx(np.hypot(0.8, sigma), rel=0.002)
    assert tissue.std() == pytest.approx(sigma, rel=0.02)


def test_borders_are_partial_volumes(maker: ModuleType) -> None:
    acquisition = maker.Acquisition("train", (20, 20, 20), (1.0, 1.0, 1.0), "RAS", "int16")
    flat = maker.Ripples(np.zeros((1, 3), np.float32), np.full(1, np.pi / 2, np.float32))
    ball = maker.Structure(
        np.zeros((1, 3), np.float32), np.full(1, 6.0, np.float32), (maker.Layer(0.0, 1.02),), flat, 0.0
    )
    brightness, organ = maker.sample((ball,), acquisition)
    share = brightness - maker.AIR
    assert share.sum() == pytest.approx(4 / 3 * np.pi * 6**3, rel=0.01)
    assert ((share > 0.1) & (share < 0.9)).sum() > 200
    np.testing.assert_array_equal(organ, share >= 0.499)


def test_readme_lists_every_file_as_it_is() -> None:
    rows = re.findall(r"^\| `(\S+)` \| (.+) \|$", (FOLDER / "README.md").read_text(), flags=re.MULTILINE)
    assert [row[0] for row in rows] == [
        path_of(number, "images").relative_to(FOLDER).as_posix() for number in TRAIN + TEST
    ]
    for number, (_, text) in zip(TRAIN + TEST, rows, strict=True):
        shape, spacing, axes, datatype, oblique, organ_ml = text.split(" | ")
        image, mask = image_of(number), upright(number)[1]
        assert shape == " × ".join(str(count) for count in image.shape)
        assert spacing == " × ".join(f"{size:.4g}" for size in image.header.get_zooms())
        assert axes == "".join(nib.aff2axcodes(image.affine))
        assert datatype.split(",")[0] == str(image.get_data_dtype())
        assert (oblique == "yes") == bool(nib.affines.obliquity(image.affine).max() > 0.01)
        assert float(organ_ml) == pytest.approx(mask.sum() * np.prod(image.header.get_zooms()) / 1000, abs=0.06)
