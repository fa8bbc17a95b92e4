"""Slices that prediction leaves out, and what it says of them."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medfcn.inference import slice_inferer
from medfcn.inference.case import native_parts
from medfcn.inference.model import Model
from medfcn.inference.probabilities import between_slices
from medfcn.inference.uncertainty import network_maps
from medfcn.slices.preprocess import CaseImage, network_image
from medfcn.slices.slicing import VIEW_AXIS, spread
from medfcn.slices.views import VIEWS
from medfcn.volumes import Volume
from tests.inference.models import blobs, tiny_model

THREE: dict[str, Any] = {"views": VIEWS, "spacing_mm": (1.5, 1.5, 1.5)}
APART = (3, 2, 1)
LABELS = ["organ=1", "left=2,right=5"]


def _image(shape: tuple[int, int, int] = (13, 12, 7)) -> Volume:
    return Volume(blobs(shape), np.diag([1.5, 1.5, 4.5, 1.0]), name="case")


def _probabilities(model: Model, image: Volume) -> NDArray[np.float32]:
    found = model.predict_case(image, keep_probabilities=True).probabilities
    assert found is not None
    return found


@given(st.integers(1, 400), st.integers(1, 32))
@settings(max_examples=200, deadline=None)
def test_slices_are_spread_from_the_first_to_the_last(count: int, apart: int) -> None:
    numbers = spread(count, apart).tolist()
    assert (numbers[0], numbers[-1]) == (0, count - 1)
    gaps = [after - before for before, after in pairwise(numbers)]
    assert all(0 < gap <= apart for gap in gaps)
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


@given(st.integers(1, 30), st.integers(1, 7), st.data())
@settings(max_examples=60, deadline=None)
def test_probabilities_between_slices_lie_on_a_line_whatever_the_parts(count: int, apart: int, data: Any) -> None:
    shown = spread(count, apart)
    seen = np.random.default_rng(0).random((len(shown), 2, 3, 1), dtype=np.float32)
    expected = np.apply_along_axis(lambda line: np.interp(np.arange(count), shown, line), 0, seen)
    found = []
    for _ in range(2):
        cuts = sorted(data.draw(st.sets(st.integers(1, len(shown)), max_size=4)) | {0, len(shown)})
        parts = [(start, seen[start:stop]) for start, stop in pairwise(cuts)]
        thickness, whole = data.draw(st.integers(1, 9)), np.full((count, 2, 3, 1), np.nan, dtype=np.float32)
        for start, part in between_slices(parts, shown, thickness):
            assert 1 <= len(part) <= thickness
            assert np.isnan(whole[start : start + len(part)]).all()
            whole[start : start + len(part)] = part
        np.testing.assert_allclose(whole, expected, atol=1e-6)
        assert whole[shown].tobytes() == seen.tobytes()
        found.append(whole.tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("context", [1, 3])
def test_the_network_sees_these_slices_with_their_own_neighbours(context: int) -> None:
    model = tiny_model(apart=APART, context=context, window=(24, 24), **THREE)
    image = CaseImage([_image()], model.card.plan)
    for view, apart in zip(VIEWS, APART, strict=True):
        shown: list[NDArray[np.float32]] = []
        model.runner = lambda slices, shown=shown: shown.append(slices.numpy()) or model.network(slices)  # type: ignore[misc, func-returns-value]
        parts = list(model.view_slabs(image.slices(view), view))
        every = image.slices(view).part(0, image.shape[1 + VIEW_AXIS[view]])[:, 0]
        seen, numbers = np.concatenate(shown), spread(len(every), apart)
        assert len(seen) == len(numbers)
        for place, offset in enumerate(range(-(context // 2), context // 2 + 1)):
            beside = every[np.clip(numbers + offset, 0, len(every) - 1)]
            top, left = ((big - small) // 2 for big, small in zip(seen.shape[2:], beside.shape[1:], strict=True))
            inside = seen[:, place, top : top + beside.shape[1], left : left + beside.shape[2]]
            assert np.array_equal(inside, beside)
        ends = [place[1 + VIEW_AXIS[view]] for place, _ in parts]
        assert [end.start for end in ends] == [0, *(end.stop for end in ends[:-1])]
        assert ends[-1].stop == len(every)


@pytest.mark.parametrize("labels", LABELS)
def test_each_view_is_that_of_all_slices_where_it_was_seen(labels: str) -> None:
    every, some = (tiny_model(labels=labels, apart=apart, **THREE) for apart in ((), APART))
    image = network_image([_image()], every.card.plan)
    for view, apart in zip(VIEWS, APART, strict=True):
        axis = 1 + VIEW_AXIS[view]
        numbers = spread(image.shape[axis], apart)
        whole, thinned = (model.view_probabilities(image, view) for model in (every, some))
        np.testing.assert_allclose(thinned.take(numbers, axis), whole.take(numbers, axis), atol=1e-5)
        assert (np.abs(thinned - whole).max() > 1e-3) == (apart > 1)


@pytest.mark.parametrize("labels", LABELS)
def test_one_slice_apart_is_every_slice_bit_for_bit(labels: str) -> None:
    before, now = (tiny_model(labels=labels, apart=apart, **THREE) for apart in ((), (1, 1, 1)))
    assert _probabilities(before, _image()).tobytes() == _probabilities(now, _image()).tobytes()
    thinned = tiny_model(labels=labels, apart=APART, **THREE)
    assert _probabilities(thinned.looking_once, _image()).tobytes() == _probabilities(before, _image()).tobytes()


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("labels", LABELS)
def test_all_ways_to_the_probabilities_agree(labels: str, tta: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training validates with arrays, predict reads slabs, and uncertainty takes mirror images one by one."""
    model = tiny_model(labels=labels, apart=APART, view_weights=(0.5, 0.2, 0.3), mirror_axes=(0, 2), **THREE)
    whole, case = network_image([_image()], model.card.plan), CaseImage([_image()], model.card.plan)
    expected = model.network_probabilities(case, tta=tta).copy()
    shares = np.float32(0.5), np.float32(0.2), np.float32(0.3)
    mean = sum(
        share * model.view_probabilities(whole, view, tta=tta) for share, view in zip(shares, VIEWS, strict=True)
    )
    np.testing.assert_allclose(mean, expected, atol=1e-6)
    np.testing.assert_allclose(network_maps(model, [_image()], tta=tta).likely, expected, atol=1e-6)
    monkeypatch.setattr(slice_inferer, "_GROUP_VALUES", 1)
    np.testing.assert_allclose(model.network_probabilities(case, tta=tta), expected, atol=1e-6)


def test_some_views_keep_their_distances() -> None:
    model = tiny_model(apart=APART, **THREE)
    assert model.with_views(["sagittal", "axial"]).card.plan.apart == (3, 1)
    assert model.with_views(["coronal"]).card.plan.apart == (2,)
    assert model.with_views(None).card.plan.apart == APART
    assert tiny_model(**THREE).with_views(["coronal"]).card.plan.apart == ()


@pytest.mark.parametrize("shape", [(1, 1, 1), (13, 12, 1), (2, 9, 7)], ids=str)
def test_volumes_of_few_slices_are_predicted(shape: tuple[int, int, int]) -> None:
    image = Volume(blobs((13, 12, 9))[: shape[0], : shape[1], : shape[2]].copy(), np.diag([1.5, 1.5, 1.5, 1.0]))
    assert tiny_model(apart=(5, 4, 3), **THREE).predict(image).shape == shape


def test_one_view_whose_slices_lie_as_in_the_file_passes_through_and_gives_the_same() -> None:
    """Its slices go from the network to the file; a model that sees all and one that does not cannot side by side."""
    image = Volume(blobs((13, 12, 9)), np.diag([1.5, 1.5, 1.5, 1.0]), name="case")
    whole, thinned = (tiny_model(apart=apart, **THREE).with_views(["axial"]) for apart in ((), (3, 3, 3)))
    expected = thinned.network_probabilities(CaseImage([image], thinned.card.plan))
    assert _probabilities(thinned, image).tobytes() == np.ascontiguousarray(expected).tobytes()
    for models in ([whole, thinned], [thinned, whole]):
        seen = np.full((2, *image.shape), np.nan, dtype=np.float32)
        for place, parts in native_parts(models, [image]):
            for number, part in enumerate(parts):
                seen[number][place] = part[0]
        each = [model.network_probabilities(CaseImage([image], model.card.plan))[0] for model in models]
        assert np.array_equal(seen, np.stack(each))
