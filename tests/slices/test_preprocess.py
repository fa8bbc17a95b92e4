"""The input of the network: intensities that compare, channels that share a grid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medfcn.errors import GeometryMismatchError, VolumeError
from medfcn.slices.plan import Intensity
from medfcn.slices.preprocess import normalise, percentile, stack_channels
from medfcn.volumes import Volume

ZSCORE = Intensity("zscore")


@given(st.integers(0, 999), st.floats(0.1, 50), st.floats(-300, 300))
@settings(max_examples=50, deadline=None)
def test_zscore_does_not_depend_on_the_scale_of_a_scanner(seed: int, slope: float, inter: float) -> None:
    array = np.random.default_rng(seed).normal(size=(6, 7, 8)).astype(np.float32)
    first = normalise(array, ZSCORE)
    np.testing.assert_allclose(normalise((slope * array + inter).astype(np.float32), ZSCORE), first, atol=2e-2)
    assert first.dtype == np.float32
    assert abs(float(first.mean())) < 1e-3
    assert 0.9 < float(first.std()) < 1.1


@given(st.integers(0, 2**32 - 1), st.integers(1, 3000), st.sampled_from([0.0, 0.5, 50.0, 99.5, 100.0]))
def test_a_percentile_is_numpys_to_the_last_bit(seed: int, count: int, percent: float) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(300, 100, count).astype(np.float32)
    for each in (values, values.round(), (values * 1e-30).astype(np.float32)):
        assert percentile(each, percent) == np.percentile(each, [percent])[0]


def test_zscore_is_not_moved_by_a_few_extreme_voxels() -> None:
    array = np.random.default_rng(0).normal(100, 10, (20, 20, 10)).astype(np.float32)
    spoilt = array.copy()
    spoilt[0, 0, :5] = 1e6
    clean, found = normalise(array, ZSCORE), normalise(spoilt, ZSCORE)
    np.testing.assert_allclose(found[1:], clean[1:], atol=0.15)
    assert found.max() < 5


def test_zscore_leaves_a_large_share_of_air_out() -> None:
    tissue = np.random.default_rng(0).normal(100, 10, (10, 10, 10)).astype(np.float32)
    surrounded = np.zeros((20, 20, 20), dtype=np.float32)
    surrounded[5:15, 5:15, 5:15] = tissue
    inside = normalise(surrounded, ZSCORE)[5:15, 5:15, 5:15]
    np.testing.assert_allclose(inside, normalise(tissue, ZSCORE), atol=0.02)


@pytest.mark.parametrize("value", [0.0, -1024.0, 7.5])
def test_a_constant_channel_becomes_zero(value: float) -> None:
    found = normalise(np.full((3, 4, 5), value, dtype=np.float32), ZSCORE)
    assert found.shape == (3, 4, 5)
    assert (found == 0).all()


def test_ct_is_clipped_and_scaled_by_the_figures_of_the_data_set() -> None:
    array = np.array([-1024.0, -100.0, 50.0, 3000.0], dtype=np.float32)
    found = normalise(array, Intensity("ct", lower=-100, upper=200, mean=50, std=25))
    assert found.tolist() == [-6.0, -6.0, 0.0, 6.0]
    assert found.dtype == np.float32


def _volume(affine: NDArray[np.float64], shape: tuple[int, int, int] = (4, 5, 6), name: str = "flair") -> Volume:
    return Volume(np.zeros(shape, dtype=np.int16), affine, name=name)


def test_channels_on_another_grid_are_refused_in_one_line() -> None:
    moved, first = np.eye(4), _volume(np.eye(4), name="t1")
    moved[0, 3] = 2.0
    for other in (_volume(moved), _volume(np.diag([-1.0, 1, 1, 1])), _volume(np.eye(4), (4, 5, 7))):
        with pytest.raises(GeometryMismatchError, match=r"t1.*channels of one case") as caught:
            stack_channels([first, other])
        assert "\n" not in str(caught.value)


def test_intensities_beyond_float32_are_refused_not_made_infinite() -> None:
    array = np.ones((2, 2, 2))
    array[0, 0, 0] = 1e300
    with pytest.raises(VolumeError, match="huge: contains intensities"):
        stack_channels([Volume(array, np.eye(4), name="huge")])


def test_a_channel_without_normalisation_stays_as_it_is() -> None:
    array = np.array([-7.5, 0.0, 3000.0], dtype=np.float32)
    assert np.array_equal(normalise(array, Intensity("none")), array)
