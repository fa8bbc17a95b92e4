"""The connected parts of a mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medfcn.slices.components import keep_one_part, largest_share
from tests.slices.stored_orders import ORDERS, restored, stored_in


def _random_labels(seed: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(seed).choice([0, 0, 0, 1, 2], (7, 6, 5)).astype(np.uint8)


@given(st.integers(0, 9999))
@settings(max_examples=50, deadline=None)
def test_the_largest_parts_are_those_of_scipy(seed: int) -> None:
    labels = _random_labels(seed)
    expected = labels.copy()
    for value in (1, 2):
        numbers, count = ndimage.label(labels == value)
        sizes = [int((numbers == part + 1).sum()) for part in range(count)]
        for part, size in enumerate(sizes, start=1):
            if size < max(sizes):
                expected[numbers == part] = 0
    before = labels.copy()
    assert np.array_equal(keep_one_part(labels, (1, 2)).indices, expected)
    assert np.array_equal(labels, before)
    only = keep_one_part(labels, (2,)).indices
    assert np.array_equal(only == 1, labels == 1)


@given(st.integers(0, 9999), st.sampled_from(ORDERS))
@settings(max_examples=50, deadline=None)
def test_what_is_kept_does_not_depend_on_the_stored_order(seed: int, order: object) -> None:
    labels = _random_labels(seed)
    stored, _ = stored_in(labels, np.eye(4), order)  # type: ignore[arg-type]
    assert np.array_equal(
        restored(keep_one_part(stored, (1, 2)).indices, order), keep_one_part(labels, (1, 2)).indices
    )  # type: ignore[arg-type]


def test_parts_that_touch_at_an_edge_are_two() -> None:
    mask = np.zeros((3, 3, 1), dtype=bool)
    mask[0, 0] = mask[1, 1] = mask[1, 2] = True
    assert largest_share(mask) == pytest.approx(2 / 3)
    assert np.isnan(largest_share(np.zeros((2, 2, 2), dtype=bool)))
