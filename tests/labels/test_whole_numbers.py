"""Voxels of masks are whole numbers from 0 to 2^32 - 1, or refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from medfcn.errors import LabelError
from medfcn.labels import whole_numbers as module
from medfcn.labels.whole_numbers import label_counts, whole_numbers


@given(
    arrays(np.float32, (2, 3, 4), elements=st.integers(0, 300).map(float)),
    st.integers(-9, 9).map(lambda steps: steps * 1e-4),
)
def test_nearly_whole_numbers_are_rounded(mask: NDArray[np.float32], shift: float) -> None:
    near = mask + np.float32(shift)
    whole, off = whole_numbers(near, name="case")
    np.testing.assert_array_equal(whole, mask)
    assert whole.dtype.kind == "u"
    assert (off > 0) == bool((near != mask).any())


@given(st.floats(0.002, 0.998), st.integers(0, 23))
def test_one_voxel_that_is_no_label_is_found(value: float, place: int) -> None:
    mask = np.ones((2, 3, 4))
    mask.ravel()[place] = value
    with pytest.raises(LabelError, match="values that are no labels"):
        whole_numbers(mask, name="case")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1.0, 2.0**32, 1e30, -0.002])
def test_values_no_label_can_have_are_refused(value: float) -> None:
    mask = np.zeros((2, 2, 2))
    mask[1, 1, 1] = value
    with pytest.raises(LabelError), np.errstate(invalid="ignore"):
        whole_numbers(mask, name="case")


@given(
    arrays(np.uint16, st.tuples(*[st.integers(1, 6)] * 3), elements=st.integers(0, 9)),
    st.sampled_from([1, 65535 // 9, 70_000, 2**32 // 10]),
)
def test_counts_are_those_of_unique(mask: NDArray[np.generic], step: int) -> None:
    mask = mask.astype(np.uint32) * np.uint32(step)
    values, counts = np.unique(mask, return_counts=True)
    assert label_counts(mask) == dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert label_counts(np.asfortranarray(mask)) == label_counts(mask)


def test_chunks_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_VOXELS", 7)
    mask = np.random.default_rng(0).integers(0, 300, (5, 4, 6)).astype(np.float32)
    for near in (mask, np.asfortranarray(mask), mask[::-1, :, ::2], np.broadcast_to(mask[:, :1], mask.shape)):
        whole, off = whole_numbers(near + np.float32(4e-4), name="case")
        np.testing.assert_array_equal(whole, near)
        assert off == pytest.approx(4e-4, rel=0.1)
        assert label_counts(whole) == {int(value): int((near == value).sum()) for value in np.unique(near)}
