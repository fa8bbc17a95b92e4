"""Training batches follow from seed and step alone, hold the right voxels, and favour the foreground."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfcn.labels import IGNORED
from medfcn.settings import View
from medfcn.slices.sampler import SliceSampler
from medfcn.slices.store import StoredCase
from medfcn.slices.views import VIEWS


def _case(
    name: str, seed: int, shape: tuple[int, int, int], *, channels: int = 1, drawn: bool = True, view: View = "axial"
) -> StoredCase:
    """Every voxel holds its own number (from 1), so that a batch tells where it was read."""
    count, height, width = shape
    images = np.arange(1, count * channels * height * width + 1, dtype=np.float32)
    labels = np.zeros(shape, dtype=np.uint8)
    random = np.random.default_rng(seed)
    if drawn:
        for number in random.choice(count, max(1, count // 4), replace=False):
            labels[number, random.integers(height), random.integers(width)] = 1
    present = (np.flatnonzero(labels.any(axis=(1, 2))),) if drawn else ()
    return StoredCase(name, view, images.reshape(count, channels, height, width), labels, present)


def _sampler(store: tuple[StoredCase, ...], **changed: object) -> SliceSampler:
    options = {"window": (16, 24), "context": 1, "batch_size": 8, "foreground_share": 0.5, "seed": 0} | changed
    return SliceSampler(cases=store, **options)  # type: ignore[arg-type]


STORE = (_case("a", 0, (9, 40, 30)), _case("b", 1, (5, 12, 60)), _case("c", 2, (3, 10, 10), drawn=False))


def test_a_batch_does_not_depend_on_what_was_asked_before() -> None:
    forwards, backwards = _sampler(STORE), _sampler(STORE)
    first = [forwards.batch(step) for step in range(6)]
    second = [backwards.batch(step) for step in reversed(range(6))][::-1]
    for one, other in zip(first, second, strict=True):
        assert one.images.tobytes() == other.images.tobytes()
        assert one.targets.tobytes() == other.targets.tobytes()
        assert one.cases == other.cases
    assert len({batch.images.tobytes() for batch in first}) == 6
    assert _sampler(STORE, seed=1).batch(0).images.tobytes() != first[0].images.tobytes()


@pytest.mark.parametrize(("share", "least"), [(0.0, 0), (0.5, 4), (0.99, 8)])
def test_the_share_of_slices_with_foreground_in_their_window_holds(share: float, least: int) -> None:
    sampler = _sampler(STORE, foreground_share=share)
    for step in range(30):
        targets = sampler.batch(step).targets
        inner = targets[:, 2:-2, 3:-3]  # the window within what is read for augmentation
        assert inner.shape[1:] == sampler.window
        held = inner.any(axis=(1, 2))
        assert held.sum() >= least
        assert held[:least].all()
    if share == 0:
        every = np.concatenate([_sampler(STORE, foreground_share=0.0).batch(step).targets for step in range(40)])
        assert every.any(axis=(1, 2)).mean() < 0.4


def test_every_case_and_slice_is_drawn() -> None:
    sampler = _sampler(STORE, foreground_share=0.2)
    drawn = [name for step in range(40) for name in sampler.batch(step).cases]
    assert {name: drawn.count(name) > 40 for name in "abc"} == dict.fromkeys("abc", True)


def test_a_store_without_foreground_still_gives_batches() -> None:
    batch = _sampler((STORE[2],)).batch(0)
    assert not batch.targets.any()
    assert batch.images.any()


@given(
    st.integers(0, 999),
    st.tuples(st.integers(1, 5), st.integers(3, 50), st.integers(3, 50)),
    st.tuples(st.integers(8, 30), st.integers(8, 30)),
    st.sampled_from([1, 3, 5]),
    st.integers(1, 2),
)
@settings(max_examples=60, deadline=None)
def test_a_region_is_the_slice_padded_with_zeros(
    seed: int, shape: tuple[int, int, int], window: tuple[int, int], context: int, channels: int
) -> None:
    case = _case("case", seed, shape, channels=channels)
    sampler = _sampler((case,), window=window, context=context, seed=seed, batch_size=4)
    batch = sampler.batch(seed)
    height, width = sampler.region
    assert batch.images.shape == (4, context * channels, height, width)
    reach = height + width
    margins = ((0, 0), (reach, reach), (reach, reach))
    neighbours = ((context // 2, context // 2), (0, 0), (0, 0), (0, 0))
    for image, target in zip(batch.images, batch.targets, strict=True):
        middle = image[context // 2 * channels]
        row, column = (int(places[0]) for places in np.nonzero(middle))
        number, _, down, across = np.unravel_index(int(middle[row, column]) - 1, case.images.shape)
        start, left = int(down) - row + reach, int(across) - column + reach
        seen = np.pad(case.images, neighbours, mode="edge")[number : number + context]
        whole = np.pad(seen.reshape(-1, *shape[1:]), margins)
        assert np.array_equal(image, whole[:, start : start + height, left : left + width])
        drawn = np.pad(case.labels, margins)[number]
        assert np.array_equal(target, drawn[start : start + height, left : left + width])


@given(st.integers(8, 400))
@settings(deadline=None)
def test_as_much_is_read_on_either_side_of_the_window(edge: int) -> None:
    for size in _sampler(STORE, window=(edge, edge)).region:
        assert (size - edge) % 2 == 0
        assert size >= 1.25 * edge


def test_a_small_slice_lies_in_the_middle_of_its_window() -> None:
    batch = _sampler((STORE[2],), window=(30, 30), batch_size=2).batch(3)
    rows, columns = (np.flatnonzero(batch.images[0, 0].any(axis=axis)) for axis in (1, 0))
    for held, size in ((rows, batch.images.shape[2]), (columns, batch.images.shape[3])):
        assert len(held) == 10
        assert abs(held.mean() - (size - 1) / 2) <= 0.5


def test_no_window_is_drawn_to_what_is_ignored() -> None:
    """One labelled pixel in a slice that is otherwise ignored: every foreground window holds it."""
    labels = np.full((1, 90, 90), IGNORED, dtype=np.uint8)
    labels[0, 70, 20] = 1
    case = StoredCase("a", "axial", np.zeros((1, 1, 90, 90), dtype=np.float32), labels, (np.array([0]),))
    sampler = _sampler((case,), foreground_share=1.0)
    for step in range(20):
        targets = sampler.batch(step).targets
        assert (targets == 1).any(axis=(1, 2)).all()
        assert set(np.unique(targets)) <= {0, 1, IGNORED}


def test_a_batch_shares_its_slices_evenly_among_the_views() -> None:
    """Each view's voxels hold numbers of their own thousands, so that a slice tells which view it was read along."""
    cases = []
    for place, view in enumerate(VIEWS):
        case = _case("a", place, (9, 20, 20), view=view)
        cases.append(dataclasses.replace(case, images=case.images % 1000 + 1000 * (place + 1)))
    sampler = _sampler(tuple(cases), batch_size=11, foreground_share=0.6)
    for step in range(5):
        batch = sampler.batch(step)
        for image, view in zip(batch.images, batch.views, strict=True):
            assert image.max() // 1000 == VIEWS.index(view) + 1
        for part in (batch.views, batch.views[:6]):  # all of them, and those that favour the foreground
            counts = [part.count(view) for view in VIEWS]
            assert max(counts) - min(counts) <= 1
        assert batch.targets[:6, 2:-2, 3:-3].any(axis=(1, 2)).all()
    single = _sampler(tuple(cases), batch_size=1)
    assert {single.batch(step).views for step in range(3)} == {(view,) for view in VIEWS}


@pytest.mark.parametrize("count", [2, 3, 8])
def test_shares_of_a_batch_are_its_slices_and_nothing_else_is_read(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = _sampler(STORE, window=(16, 24))
    read: list[str] = []
    original = SliceSampler._copy

    def copy(self: SliceSampler, case: StoredCase, *arguments: object) -> None:
        read.append(case.id)
        original(self, case, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(SliceSampler, "_copy", copy)
    for step in range(4):
        whole = sampler.batch(step)
        edges = [round(8 * part / count) for part in range(count + 1)]
        read.clear()
        shares = [sampler.batch(step, range(*edge)) for edge in itertools.pairwise(edges)]
        assert len(read) == 8
        assert np.array_equal(np.concatenate([share.images for share in shares]), whole.images)
        assert np.array_equal(np.concatenate([share.targets for share in shares]), whole.targets)
        assert sum((share.cases for share in shares), ()) == whole.cases
        assert all(share.views == whole.views for share in shares)
