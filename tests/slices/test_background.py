"""Specks, noise and padding around a scan do not move its intensities, or the mask that a network puts on it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import medfcn
from medfcn.inference.ensemble import Ensemble
from medfcn.slices.background import image_of
from medfcn.slices.plan import Intensity
from medfcn.slices.preprocess import normalise
from medfcn.volumes import Volume
from tests.conftest import draw_ball

Array = NDArray[np.float32]
AFFINE = np.diag([-1.0, -1.0, 1.5, 1.0])
INSIDE = (slice(13, 39), slice(11, 33), slice(6, 18))
ROBUST, MINIMUM = Intensity("zscore", background="robust"), Intensity("zscore")


def clean(number: int = 6, background: float = 0.0) -> tuple[Array, NDArray[np.bool_]]:
    """A ball in tissue, in a background of 87 % of the volume, and the ball's mask."""
    image, mask = draw_ball(number)
    whole, reference = np.full((52, 44, 24), background, dtype=np.float32), np.zeros((52, 44, 24), dtype=bool)
    whole[INSIDE], reference[INSIDE] = np.maximum(image, 1), mask
    return whole, reference


def _at(value: float, where: tuple[int | slice, ...]) -> Callable[[Array], Array]:
    def spoil(array: Array) -> Array:
        array[where] = value
        return array

    return spoil


def _noise(size: float) -> Callable[[Array], Array]:
    return lambda array: (array + np.random.default_rng(0).normal(0, size, array.shape)).astype(np.float32)


def _noise_of_air(array: Array) -> Array:
    noise = np.random.default_rng(0).uniform(-1, 1, array.shape).astype(np.float32)
    return np.where(array == 0, noise, array)


def _corners(array: Array) -> Array:
    """Outside the circle of the reconstruction there is another padding, as in many CT and PET."""
    first, second = np.ogrid[-1:1:52j, -1:1:44j]
    array[first**2 + second**2 > 1] = -1000
    return array


def _framed(value: float, edge: int = 6) -> Callable[[Array], Array]:
    return lambda array: np.pad(array, edge, constant_values=value)


def _both(*steps: Callable[[Array], Array]) -> Callable[[Array], Array]:
    def spoil(array: Array) -> Array:
        for step in steps:
            array = step(array)
        return array

    return spoil


SPOILT: dict[str, Callable[[Array], Array]] = {
    "a speck": _at(-0.001, (0, 0, 0)),
    "a speck far below": _at(-5000, (3, 4, 5)),
    "a speck far above": _at(1e6, (3, 4, 5)),
    "forty specks": _both(*(_at(-0.001 * index, (index, index, 3)) for index in range(1, 41))),
    "noise of 0.001": _noise(0.001),
    "noise of 1": _noise(1),
    "noise of 3": _noise(3),
    "noise in air only": _noise_of_air,
    "noise and a speck": _both(_noise(1), _at(-5000, (3, 4, 5))),
    "another padding in the corners": _corners,
    "paddings and noise": _both(_noise(1), _corners),
    "a small block of another padding": _at(-1000, (slice(8), slice(8), slice(8))),
    "a plane": _at(-1000, (slice(None), slice(None), 0)),
    "a plane in the scan": _at(-1000, (slice(None), slice(None), 7)),
    "three planes": _both(*(_at(-1000, (slice(None), slice(None), index)) for index in (0, 1, 23))),
    "a dark frame": _framed(-1000),
    "a wide frame": _framed(-1, edge=16),
    "a grey frame": _framed(100),
    "a bright frame": _framed(3000),
    "a frame and a speck": _both(_at(-0.001, (0, 0, 0)), _framed(-1024)),
    "a frame and noise": _both(_noise(1), _framed(-1024)),
    "a frame and a plane": _both(_at(-500, (slice(None), slice(None), 0)), _framed(50)),
}


def _dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


@pytest.fixture(scope="module")
def model(ball_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Ensemble:
    """A model that does not know the size of its training volumes, and so refuses none with a wide frame."""
    run = tmp_path_factory.mktemp("sizeless") / "run"
    shutil.copytree(ball_run, run)
    card = json.loads((run / "model.json").read_text())
    del card["fingerprint"]
    (run / "model.json").write_text(json.dumps(card))
    return medfcn.load(run, device="cpu")


def _mask(model: Ensemble, array: Array) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.asarray(model.predict(Volume(array, AFFINE, name="ball")).array) == 1
    return found


@pytest.mark.parametrize("how", SPOILT)
def test_masks_of_spoilt_volumes_are_those_of_clean_ones(how: str, model: Ensemble) -> None:
    array, reference = clean()
    expected = _dice(_mask(model, array), reference)
    spoilt = SPOILT[how](array.copy())
    edge = (spoilt.shape[0] - array.shape[0]) // 2
    whole = np.pad(reference, edge)
    assert expected > 0.85
    found = _mask(model, spoilt)
    if how == "a plane in the scan":  # nothing is to be seen in the plane itself
        seen = np.ones(24, dtype=bool)
        seen[6:9] = False
        assert _dice(found[..., seen], reference[..., seen]) == pytest.approx(
            _dice(_mask(model, array)[..., seen], reference[..., seen]), abs=0.02
        )
    else:
        assert _dice(found, whole) == pytest.approx(expected, abs=0.02)


def test_the_old_rule_is_upset_by_a_speck(model: Ensemble) -> None:
    array, _ = clean()
    there, spoilt = normalise(array, MINIMUM), normalise(_at(-0.001, (0, 0, 0))(array.copy()), MINIMUM)
    assert np.abs(spoilt - there)[INSIDE].max() > 1
    assert (model.card.plan.intensities[0].background, MINIMUM.background) == ("robust", "minimum")


@pytest.mark.parametrize("background", [0.0, -3.0, None])
def test_clean_volumes_get_the_numbers_of_the_old_rule(background: float | None) -> None:
    array = draw_ball(6)[0].astype(np.float32) if background is None else clean(background=background)[0]
    assert normalise(array, ROBUST).tobytes() == normalise(array, MINIMUM).tobytes()


@pytest.mark.parametrize("how", ["a plane", "a dark frame", "a grey frame", "a bright frame", "a speck far below"])
def test_a_scan_without_background_keeps_its_numbers_inside_foreign_padding(how: str) -> None:
    array = draw_ball(6)[0].astype(np.float32)
    spoilt = SPOILT[how](array.copy())
    edge = (spoilt.shape[0] - array.shape[0]) // 2
    found = normalise(spoilt, ROBUST)[edge : edge + 26, edge : edge + 22, edge : edge + 12]
    assert np.abs(found - normalise(array, ROBUST))[..., 1:-1].mean() < 0.03


def test_zeros_around_a_scan_that_is_scaled_already_are_background() -> None:
    array, _ = clean()
    image = array > 0
    array[image] = (array[image] - 110.5) / 30
    found = image_of(array)
    assert found is not None
    assert (found == image).all()


def test_noise_of_a_magnitude_image_is_part_of_the_image() -> None:
    """It has no voxel below 0, and such volumes are scaled as they always were."""
    noise = np.random.default_rng(0).normal(0, 5, (2, 52, 44, 24))
    array = np.maximum(np.hypot(*noise), clean()[0]).astype(np.float32)
    assert image_of(array) is None


@pytest.mark.parametrize("shape", [(1, 1, 1), (4,), (30, 20, 1), (2, 2, 2), (1, 40, 40)])
@pytest.mark.parametrize("values", [[0.0], [0.0, 1.0], [-1.0, 0.0, 5.0]])
def test_any_shape_is_scaled(shape: tuple[int, ...], values: list[float]) -> None:
    array = np.resize(np.array(values, dtype=np.float32), shape)
    found = normalise(array, ROBUST)
    assert found.shape == shape
    assert np.isfinite(found).all()


def test_the_card_holds_the_rule(ball_run: Path) -> None:
    card = json.loads((ball_run / "model.json").read_text())
    assert [intensity["background"] for intensity in card["plan"]["intensities"]] == ["robust"]
