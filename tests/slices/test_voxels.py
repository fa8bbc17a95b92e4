"""Intensities a part at a time: the same to the bit as in one piece, in every order that a file may store."""

import numpy as np
import pytest

from medfcn.slices import background, preprocess, voxels
from medfcn.slices.background import find_background, image_of
from medfcn.slices.plan import Intensity
from medfcn.slices.preprocess import CaseImage, network_image, normalise
from medfcn.slices.slicing import slice_volume
from medfcn.slices.voxels import Voxels
from medfcn.volumes import Volume
from tests.inference.models import tiny_plan
from tests.slices.stored_orders import ORDERS, oblique_affine, stored_in

INTENSITIES = (Intensity("zscore", background="robust"), Intensity("zscore"), Intensity("none"))


@pytest.fixture(params=[1 << 6, 1 << 21], ids=["many parts", "one part"])
def part_voxels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(voxels, "_PART_VOXELS", request.param)
    monkeypatch.setattr(voxels, "_KEPT_VOXELS", 0)
    return int(request.param)


def _image(seed: int) -> np.ndarray:  # type: ignore[type-arg]
    """Noise in a frame, with a slice of one value and another padding."""
    array = np.random.default_rng(seed).normal(100, 30, (17, 14, 11)).astype(np.float32)
    array[:3] = array[:, :, 9:] = -50
    array[8] = 400
    array[array < 80] = 0
    return array


@pytest.mark.parametrize("seed", range(3))
def test_samples_and_ends_are_those_of_the_array(seed: int, part_voxels: int) -> None:
    array = _image(seed)
    channel = Voxels.of(array)
    for step in (1, 7, 100):
        assert np.array_equal(channel.every(step), np.sort(array.reshape(-1)[::step]))
    least, count, most = channel.extremes()
    assert (least, count, most) == (array.min(), np.count_nonzero(array == array.min()), array.max())
    rows = np.concatenate([block for _, block in channel.rows()])
    assert np.array_equal(rows, array)


@pytest.mark.parametrize("order", ORDERS[::7], ids=str)
@pytest.mark.parametrize("kind", [np.int16, np.uint8])
def test_what_is_stored_tells_the_same_as_floats_of_it(order: object, kind: type, part_voxels: int) -> None:
    array, _ = stored_in(np.clip(_image(1), 0, 255).astype(kind), np.eye(4), order)  # type: ignore[arg-type]
    floats = Voxels.of(array)
    stored = Voxels(floats.shape, floats.read, array.T)
    assert stored.extremes() == floats.extremes()
    assert [type(end) for end in stored.extremes()] == [np.float32, int, np.float32]
    for step in (7, 100):
        assert np.array_equal(stored.every(step), floats.every(step))
        assert stored.every(step).dtype == np.float32
    found, expected = find_background(stored), find_background(floats)
    assert (found.level, found.within, found.count) == (expected.level, expected.within, expected.count)
    image = np.concatenate([found.image(ranges, block) for ranges, block in floats.slabs()]).T
    assert np.array_equal(found.image_rows(stored), image.sum(axis=-1).T)
    for step in (3, 50):
        sample = preprocess._image_sample(stored, found, step)
        assert np.array_equal(sample, array[image].astype(np.float32)[::step])
        assert np.array_equal(sample, preprocess._image_sample(floats, found, step))


@pytest.mark.parametrize("intensity", INTENSITIES, ids=["robust", "minimum", "none"])
def test_normalising_in_parts_changes_no_bit(intensity: Intensity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_SAMPLE", 150)
    monkeypatch.setattr(preprocess, "_PERCENTILE_SAMPLE", 130)
    array = _image(0)
    whole, image = normalise(array, intensity), image_of(array)
    monkeypatch.setattr(voxels, "_PART_VOXELS", 1 << 6)
    monkeypatch.setattr(voxels, "_KEPT_VOXELS", 0)
    found = image_of(array)
    assert image is not None
    assert found is not None
    assert np.array_equal(found, image)
    assert not found[:3].any()
    assert not found[8].any()
    np.testing.assert_allclose(normalise(array, intensity), whole, rtol=3e-7, atol=1e-7)


@pytest.mark.parametrize("place", range(0, len(ORDERS), 7))
@pytest.mark.parametrize("spacing", [(1.1, 0.7, None), (2.3, 2.1, 2.2)], ids=["in plane", "along all axes"])
def test_parts_of_a_case_are_those_of_the_whole(
    place: int, spacing: tuple[float | None, ...], part_voxels: int
) -> None:
    array, affine = stored_in(_image(1)[None], oblique_affine(1, (0.9, 1.2, 2.0), most_degrees=20), ORDERS[place])
    volume = Volume(array[0].astype(np.int16), affine)
    plan = tiny_plan(spacing_mm=spacing, intensities=(Intensity("zscore", background="robust"),))
    whole, case = network_image([volume], plan), CaseImage([volume], plan)
    assert case.shape == whole.shape
    ranges = tuple(slice(length // 3, length) for length in whole.shape[1:])
    assert np.array_equal(case.part(ranges), whole[:, *ranges])
    for view in ("axial", "coronal", "sagittal"):
        slices = slice_volume(whole, view)
        made = case.slices(view)
        assert made.shape == slices.shape
        assert np.array_equal(made.part(2, 4), slices[2:4])
