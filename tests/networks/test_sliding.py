"""A 2D network slid through a volume: every voxel gets its own logits, whole or tiled, from every stored order."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers.inferer import Inferer

from medfcn.errors import MemoryShortError
from medfcn.monai.inferer import SlidingVolumeInferer
from medfcn.networks.sliding import (
    ArraySlices,
    Sliding,
    _Recent,
    gaussian_weights,
    in_twos,
    sliding_logits,
    stacked,
    tile_of,
    tile_starts,
)
from medfcn.settings import View
from medfcn.slices.grid import map_to_network, to_native_grid, to_network_grid
from medfcn.slices.sampler import SliceSampler
from medfcn.slices.slicing import VIEW_AXIS, slice_volume, stack_slices
from medfcn.slices.store import StoredCase
from medfcn.volumes import orientation_of, spacing_mm
from tests.slices.stored_orders import ORDERS, oblique_affine, restored, stored_in

VIEWS = st.sampled_from(sorted(VIEW_AXIS))
EDGES = st.integers(1, 20)


@given(st.tuples(EDGES, EDGES, EDGES), VIEWS, st.tuples(st.integers(1, 16), st.integers(1, 16)), st.integers(1, 7))
@settings(max_examples=80, deadline=None)
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
def test_an_identity_network_returns_the_volume(
    overlap: float, shape: tuple[int, int, int], view: View, window: tuple[int, int], batch_size: int
) -> None:
    volume = torch.randn(1, 2, *shape, generator=torch.Generator().manual_seed(sum(shape)))
    inferer = SlidingVolumeInferer(view, window=window, batch_size=batch_size, tile_overlap=overlap)
    found = inferer(volume, lambda slices: slices)
    in_plane = [size for axis, size in enumerate(shape) if axis != VIEW_AXIS[view]]
    if all(size <= 1.25 * edge for size, edge in zip(in_plane, window, strict=True)):
        assert torch.equal(found, volume)  # in one piece: not a bit changes
    else:
        assert torch.allclose(found, volume, atol=1e-5)


@given(st.tuples(EDGES, EDGES, EDGES), VIEWS, st.sampled_from([3, 5]), st.integers(0, 4), st.integers(4, 30))
@settings(max_examples=40, deadline=None)
def test_a_network_that_picks_one_neighbour_returns_that_slice(
    shape: tuple[int, int, int], view: View, context: int, picked: int, edge: int
) -> None:
    picked = picked % context
    volume = torch.randn(1, 2, *shape, generator=torch.Generator().manual_seed(sum(shape)))
    inferer = SlidingVolumeInferer(view, window=(edge, edge), context=context, batch_size=3)
    found = inferer(volume, lambda slices: slices[:, 2 * picked : 2 * picked + 2])
    axis = 2 + VIEW_AXIS[view]
    numbers = (torch.arange(volume.shape[axis]) + picked - context // 2).clamp(0, volume.shape[axis] - 1)
    assert torch.allclose(found, volume.index_select(axis, numbers), atol=1e-5)


def _place_dependent(slices: torch.Tensor) -> torch.Tensor:
    """Differs along H and W, and from slice to slice: no flip or transposition of it goes unseen."""
    rows = torch.arange(slices.shape[2])[:, None] / slices.shape[2]
    columns = torch.arange(slices.shape[3])[None, :] / slices.shape[3]
    return slices * (1 + rows + 3 * columns**2) + torch.roll(slices, 1, 2) * rows


@pytest.mark.parametrize("view", sorted(VIEW_AXIS))
@pytest.mark.parametrize("wanted", [(None, None, None), (1.1, 0.9, 1.4)])
def test_all_48_stored_orders_give_the_same_up_to_their_own_order(view: View, wanted: Any) -> None:
    affine = oblique_affine(8, (0.8, 1.2, 2.0))
    image = np.random.default_rng(0).normal(size=(11, 9, 8)).astype(np.float32)
    inferer = SlidingVolumeInferer(view, window=(6, 6))
    expected = None
    for order in ORDERS:
        stored, stored_affine = stored_in(image, affine, order)
        grid = map_to_network(stored.shape, orientation_of(stored_affine), spacing_mm(stored_affine), wanted)
        there = torch.from_numpy(to_network_grid(stored, grid))[None, None]
        back = restored(to_native_grid(inferer(there, _place_dependent)[0, 0].numpy(), grid), order)
        expected = back if expected is None else expected
        assert back.shape == image.shape
        assert np.array_equal(back, expected)


@pytest.mark.parametrize("view", sorted(VIEW_AXIS))
def test_tiles_of_a_translation_invariant_network_agree_with_the_whole_slice(view: View) -> None:
    kernel = torch.randn(3, 1, 5, 5, generator=torch.Generator().manual_seed(0))

    def network(slices: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(slices, kernel, padding=2)

    volume = torch.randn(1, 1, 50, 46, 54, generator=torch.Generator().manual_seed(1))
    whole = SlidingVolumeInferer(view, window=(60, 60))(volume, network)
    tiled = SlidingVolumeInferer(view, window=(24, 20), tile_overlap=0.5)(volume, network)
    # A tile's rim sees zeros beyond it; Gaussian weights keep that from mattering, though not altogether.
    inner = (..., slice(6, -6), slice(6, -6), slice(6, -6))
    assert (tiled - whole)[inner].abs().max() < 0.05 * whole.std()
    assert (tiled - whole)[inner].abs().median() < 1e-3 * whole.std()


@given(st.tuples(EDGES, EDGES, EDGES), VIEWS, st.tuples(st.integers(4, 24), st.integers(4, 24)))
@settings(max_examples=40, deadline=None)
def test_a_small_slice_lies_in_the_window_as_the_sampler_lays_it(
    shape: tuple[int, int, int], view: View, window: tuple[int, int]
) -> None:
    volume = torch.ones(1, 1, *shape)
    seen: list[torch.Tensor] = []
    SlidingVolumeInferer(view, window=window)(volume, lambda slices: seen.append(slices) or slices)
    height, width = slice_volume(volume[0].numpy(), view).shape[2:]
    case = StoredCase(
        "case", view, np.ones((1, 1, height, width), np.float32), np.ones((1, height, width), np.uint8), ()
    )
    sampler = SliceSampler(cases=(case,), window=window, context=1, batch_size=1, foreground_share=0.0, seed=0)
    shown = torch.from_numpy(sampler.batch(0).images)
    for axis, edge in enumerate(window):
        if (height, width)[axis] <= edge:
            margin = (sampler.region[axis] - edge) // 2
            laid = shown.amax(dim=(0, 1, 3 - axis))[margin : margin + edge]
            assert torch.equal(seen[0].amax(dim=(0, 1, 3 - axis)), laid)


def test_memory_that_goes_while_a_volume_passes_is_a_refusal_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control group ends a process that takes more than it has, without a limit of the address space."""
    free, seen = [100 << 20], []
    monkeypatch.setattr("medfcn.memory.free_bytes", lambda: free[0])

    def network(slices: torch.Tensor) -> torch.Tensor:
        seen.append(len(slices))
        free[0] -= 50 << 20
        return slices

    sliding = Sliding((8, 8), batch_size=2, slice_bytes=10 << 20)
    with pytest.raises(MemoryShortError, match="the network's maps of 2 slices: needs 52 MB, 50 MB are free"):
        sliding_logits(np.zeros((1, 8, 8, 6), dtype=np.float32), network, "axial", sliding)
    assert seen == [2]


def test_it_is_an_inferer_of_monai() -> None:
    inferer = SlidingVolumeInferer("axial", window=(8, 8))
    assert isinstance(inferer, Inferer)
    volume = torch.ones(2, 1, 4, 5, 6)
    found = inferer(inputs=volume, network=lambda slices, gain, *, shift: gain * slices + shift, gain=2.0, shift=1.0)
    assert torch.equal(found, torch.full_like(volume, 3.0))
    assert torch.equal(inferer(volume, lambda slices, gain: gain * slices, 4.0), 4 * volume)


def test_volumes_of_a_batch_are_told_apart() -> None:
    volumes = torch.randn(3, 1, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    inferer = SlidingVolumeInferer("coronal", window=(4, 4))
    found = inferer(volumes, lambda slices: slices)
    assert torch.allclose(found, volumes, atol=1e-6)


def test_the_network_sees_float32_batches_of_at_most_the_batch_size() -> None:
    seen: list[tuple[int, ...]] = []

    def network(slices: torch.Tensor) -> torch.Tensor:
        assert slices.dtype == torch.float32
        seen.append(tuple(slices.shape))
        return slices[:, :1]

    SlidingVolumeInferer("axial", window=(10, 10), context=3, batch_size=4)(torch.zeros(1, 2, 12, 10, 9), network)
    assert seen == [(3, 6, 12, 10)] * 3


@given(st.integers(1, 300), st.integers(1, 64), st.floats(0, 0.95))
@settings(max_examples=200, deadline=None)
def test_tiles_cover_an_edge_and_overlap_as_wanted(size: int, tile: int, overlap: float) -> None:
    starts = tile_starts(size, tile, overlap)
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    if size > tile:
        assert starts[-1] == size - tile
        stride = max(1, round(tile * (1 - overlap)))
        assert all(second - first <= stride for first, second in pairwise(starts))
    else:
        assert starts == [0]


@given(st.integers(1, 40), st.integers(1, 40))
@settings(deadline=None)
def test_tile_weights_are_symmetric_and_never_zero(height: int, width: int) -> None:
    weights = gaussian_weights((height, width))
    assert weights.shape == (height, width)
    assert weights.min() > 0
    assert np.array_equal(weights, weights[::-1, ::-1])
    assert weights.argmax() == np.ravel_multi_index(((height - 1) // 2, (width - 1) // 2), weights.shape)


@pytest.mark.parametrize(
    ("count", "slab", "is_even", "expected"),
    [
        (51, None, True, [26, 25]),
        (51, None, False, [32, 19]),
        (33, None, True, [17, 16]),
        (32, None, True, [32]),
        (66, 8, True, [11] * 6),
        (51, 24, True, [26, 25]),
    ],
    ids=["two", "full", "one more", "one", "slabs", "large slabs"],
)
def test_batches_are_even(count: int, slab: int | None, is_even: bool, expected: list[int]) -> None:
    seen: list[int] = []

    def network(slices: torch.Tensor) -> torch.Tensor:
        seen.append(len(slices))
        return slices

    volume = np.random.default_rng(0).normal(size=(1, 5, 6, count)).astype(np.float32)
    sliding = Sliding((8, 8), batch_size=32, slab=slab, is_even=is_even)
    np.testing.assert_array_equal(sliding_logits(volume, network, "axial", sliding), volume)
    assert seen == expected


@pytest.mark.parametrize(
    ("count", "edge", "slab", "expected"),
    [
        (32, 140, 24, [16, 16]),
        (27, 140, 24, [16, 8, 3]),
        (33, 140, 24, [16, 8, 4, 2, 3]),
        (1, 140, 24, [1]),
        (27, 128, 24, [27]),
        (27, 200, 24, [27] * 9),
        (51, 140, 11, [13, 13, 13, 12]),
        (51, 140, None, [26, 25]),
    ],
    ids=["32", "27", "33", "one", "window", "tiles", "few at once", "no slabs"],
)
def test_slices_larger_than_the_window_go_through_in_powers_of_two(
    count: int, edge: int, slab: int | None, expected: list[int]
) -> None:
    seen: list[int] = []

    def network(slices: torch.Tensor) -> torch.Tensor:
        seen.append(len(slices))
        return slices

    volume = np.random.default_rng(0).normal(size=(1, edge, edge, count)).astype(np.float32)
    sliding = Sliding((128, 128), batch_size=32, slab=slab)
    np.testing.assert_allclose(sliding_logits(volume, network, "axial", sliding), volume, rtol=1e-4, atol=1e-5)
    assert seen == expected


@given(st.integers(2, 400), st.sampled_from([2, 4, 8, 16]))
@settings(deadline=None)
def test_slabs_in_twos_hold_each_slice_once_and_none_alone(count: int, most: int) -> None:
    ends = list(in_twos(count, most))
    assert [start for start, _ in ends] == [0, *(stop for _, stop in ends[:-1])]
    assert ends[-1][1] == count
    sizes = [stop - start for start, stop in ends]
    assert {*sizes[:-1]} <= {2, 4, 8, 16}
    assert sizes[-1] in {2, 3, 4, 8, 16}
    assert max(sizes) <= max(3, most)


@pytest.mark.parametrize("view", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("edge", [20, 140], ids=["small", "large"])
@pytest.mark.parametrize("turned", [False, True], ids=["as an array", "as a file"])
def test_slices_of_any_size_and_order_in_memory_come_back_as_they_were(view: View, edge: int, turned: bool) -> None:
    volume = np.random.default_rng(3).normal(size=(2, edge, edge + 4, edge + 1)).astype(np.float32)
    stored = np.ascontiguousarray(volume.transpose(0, 3, 2, 1)).transpose(0, 3, 2, 1) if turned else volume
    slices = ArraySlices(stored, view)
    recent = _Recent(slices, (edge + 6, edge + 6), (slice(1, slices.shape[2] + 1), slice(2, slices.shape[3] + 2)))
    expected = slice_volume(volume, view)
    for start, stop in ((0, 3), (2, 5)):  # the second keeps one of the first
        part = recent.part(start, stop)
        assert np.array_equal(part[:, :, 1 : slices.shape[2] + 1, 2 : slices.shape[3] + 2], expected[start:stop])
        assert np.count_nonzero(part) == np.count_nonzero(expected[start:stop])
    assert np.array_equal(stacked(expected[:5], view), stack_slices(expected[:5], view))


def test_slices_a_few_times_as_large_go_through_in_one_piece_and_huge_ones_in_tiles() -> None:
    seen: list[torch.Size] = []
    volume = np.ones((1, 20, 30, 2), np.float32)

    def network(part: torch.Tensor) -> torch.Tensor:
        seen.append(part.shape[-2:])
        return part

    for whole in (4.0, 3.0):
        sliding_logits(volume, network, "axial", Sliding((8, 8), whole=whole))
    assert set(seen[:1]) == {(20, 30)}
    assert set(seen[1:]) == {(20, 8)}
    assert tile_of((1024, 512), (300, 300), 4.0) == (1024, 512)
    assert tile_of((1024, 513), (300, 300), 4.0) == (300, 300)
    assert tile_of((2000, 2000), (1800, 1800), 4.0) == (2000, 2000)  # as large in training
    assert tile_of((10, 9), (8, 8), 1.0) == (8, 8)
