"""Stored values and indices: one way there and one way back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from medfcn.errors import LabelError
from medfcn.labels import IGNORED, LabelCodec, LabelMap
from medfcn.labels.whole_numbers import CHUNK_VOXELS, label_counts, values_in
from tests.overlapping import overlapping_maps

codecs = st.dictionaries(st.integers(1, 700), st.integers(1, 255), max_size=6).map(LabelCodec)
masks = arrays(np.uint16, array_shapes(min_dims=3, max_dims=3, max_side=5), elements=st.integers(0, 9))


def views_of(mask: NDArray[np.uint16]) -> list[NDArray[np.uint16]]:
    """The same memory in other orders, with gaps, backwards, and one value for many voxels."""
    turned = [mask.transpose(order) for order in ((2, 0, 1), (1, 0, 2), (2, 1, 0))]
    return [mask, *turned, mask[::-1], mask[..., ::2], mask[:, ::-1, 1:], np.broadcast_to(mask[:1], mask.shape)]


@given(codecs, masks)
def test_every_voxel_has_the_index_of_its_value_in_any_memory_order(
    codec: LabelCodec, mask: NDArray[np.uint16]
) -> None:
    for view in views_of(mask):
        expected = np.vectorize(lambda value: codec.indices.get(int(value), 0), otypes=[np.uint8])(view)
        found = codec.encode(view)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.uint8
        assert found.flags.f_contiguous or not view.flags.f_contiguous
        assert found.flags.c_contiguous or not view.flags.c_contiguous
        assert values_in(view) == set(np.unique(view).tolist()) - {0}


def test_volumes_of_many_chunks_are_encoded_as_small_ones_are() -> None:
    mask = np.asfortranarray(np.random.default_rng(0).integers(0, 4, (130, 120, 110), dtype=np.uint8))
    assert mask.size > 3 * CHUNK_VOXELS
    for array in (mask, np.ascontiguousarray(mask), mask[::-1, :, ::2]):
        np.testing.assert_array_equal(LabelCodec({2: 1, 3: 1}).encode(array), array >= 2)
        assert label_counts(array) == {value: int((array == value).sum()) for value in range(4)}


def test_an_empty_array_has_no_values() -> None:
    empty = np.zeros((0, 3), dtype=np.uint8)
    assert (LabelCodec({1: 1}).encode(empty).shape, values_in(empty), label_counts(empty)) == ((0, 3), set(), {})


@given(overlapping_maps(), masks)
def test_what_was_encoded_is_decoded(labels: LabelMap, mask: NDArray[np.uint16]) -> None:
    for codec in (labels.written_codec, LabelCodec({3: 1, 700: 2})):
        indices = (mask % (max(codec.indices.values()) + 1)).astype(np.uint8)
        stored = codec.decode(indices)
        np.testing.assert_array_equal(codec.encode(stored), indices)
        assert stored.dtype == np.min_scalar_type(max(codec.indices))


@given(overlapping_maps(), masks)
def test_a_label_is_where_its_overlaps_are(labels: LabelMap, mask: NDArray[np.uint16]) -> None:
    indices = labels.encode(mask, name="case")
    for label, entry in enumerate(labels.entries, start=1):
        np.testing.assert_array_equal(labels.mask_of(indices, label), np.isin(mask, entry.values))
        np.testing.assert_array_equal(
            labels.mask_of(indices, label)[indices != IGNORED],
            labels.membership[indices[indices != IGNORED], label - 1],
        )


def test_a_prediction_has_no_ignored_voxels() -> None:
    labels = LabelMap.parse("a=1+2,ignore=9")
    assert labels.reference_codec.encode(np.array([2, 9])).tolist() == [1, IGNORED]
    assert labels.reference_codec.without_ignored.encode(np.array([2, 9])).tolist() == [1, 0]


def test_other_values_are_refused_on_request() -> None:
    codec = LabelCodec({1: 1, 7: 2})
    codec.refuse_other_values(np.array([0, 7], dtype=np.uint8), name="case")
    with pytest.raises(LabelError, match=r"case: unexpected label values 3, 9; expected 1, 7; .*labels="):
        codec.refuse_other_values(np.array([0, 9, 3], dtype=np.uint8), name="case")
