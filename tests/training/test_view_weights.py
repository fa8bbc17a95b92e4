"""Views weigh in their mean as the validation cases say, and alike where chance could have said it."""

import tempfile
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import medfcn
from medfcn.config import override
from medfcn.evaluation.overlap import count_labels
from medfcn.inference.model import Model
from medfcn.labels import IGNORED
from medfcn.settings import Settings
from medfcn.slices.preprocess import network_image
from medfcn.slices.views import VIEWS
from medfcn.training.validation import Outputs, ScoredCase
from medfcn.training.view_weights import best_weights, dices_by_weights, simplex
from medfcn.volumes import Volume
from tests.inference.models import blobs, tiny_model
from tests.overlapping import NESTED, write_nested
from tests.slices.stored_orders import oblique_affine

AFFINE = oblique_affine(4, (1.0, 1.3, 2.4), most_degrees=25)


def dices(model: Model, image: Volume, reference: NDArray[np.uint8], weights: NDArray[np.float64]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        blank = image.with_array(np.zeros(image.shape, np.uint8))
        case = ScoredCase("case", network_image([image], model.card.plan), image.with_array(reference), blank)
        return dices_by_weights(Outputs(model, Path(folder) / "outputs", [case]), case, weights)


@given(st.integers(2, 3), st.integers(1, 7))
def test_the_weights_tried_sum_to_one_and_begin_with_the_most_even(count: int, parts: int) -> None:
    weights = simplex(count, parts)
    assert len({tuple(row) for row in weights.tolist()}) == len(weights)
    assert np.allclose(weights.sum(axis=1), 1)
    spread = (weights**2).sum(axis=1)
    assert (np.diff(spread) > -1e-12).all()
    assert np.allclose(weights * parts, np.round(weights * parts))
    assert len(weights) == {2: parts + 1, 3: (parts + 1) * (parts + 2) // 2}[count]


@pytest.mark.parametrize("labels", ["organ=1", "left=1,right=2"])
@pytest.mark.parametrize("head", ["auto", "sigmoid"])
def test_each_weight_has_the_dice_of_the_mask_it_gives(
    labels: str, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medfcn.slices.grid._DECIDED_VOXELS", 700)  # several slabs
    plan: dict[str, Any] = {"views": VIEWS, "spacing_mm": (1.5, 1.5, 1.5)}
    count = labels.count("=")
    image = Volume(blobs(), AFFINE, name="case")
    reference = np.random.default_rng(0).integers(0, count + 1, image.shape).astype(np.uint8)
    weights = simplex(3, 2)
    model = tiny_model(labels=labels, head=head, **plan)
    found = dices(model, image, reference, weights)
    for row, dice in zip(weights, found, strict=True):
        weighted = tiny_model(labels=labels, head=head, view_weights=tuple(row.tolist()), **plan)
        counts = count_labels(reference, weighted.predict(image).array, labels=count)
        assert dice == pytest.approx(np.mean([item.dice for item in counts]), abs=2e-3)
    assert len(np.unique(found.round(6))) > 3


def test_a_label_that_neither_mask_holds_counts_as_right() -> None:
    model = tiny_model(views=VIEWS, spacing_mm=(1.5, 1.5, 1.5), prediction={"threshold": 1 - 1e-9})
    image = Volume(blobs(), AFFINE)
    found = dices(model, image, np.zeros(image.shape, np.uint8), simplex(3, 2))
    assert model.predict(image).array.max() == 0
    assert (found == 1).all()


def test_better_weights_win_only_where_chance_would_not_have() -> None:
    weights = simplex(2, 2)
    clear = np.array([[0.80, 0.85, 0.70], [0.70, 0.74, 0.6], [0.9, 0.94, 0.8]])
    assert best_weights(weights, clear) == (0.0, 1.0)
    assert best_weights(weights, clear[:, [0, 2, 1]]) == (1.0, 0.0)
    assert best_weights(weights, clear[:1]) == ()
    doubtful = np.array([[0.80, 0.90, 0.70], [0.80, 0.79, 0.6], [0.9, 0.9, 0.8]])
    assert doubtful[:, 1].mean() > doubtful[:, 0].mean()
    assert best_weights(weights, doubtful) == ()
    assert best_weights(weights, np.ones((5, 3))) == ()


def test_one_network_learns_from_all_views_and_its_card_says_how_they_weigh(balls: Path, tmp_path: Path) -> None:
    settings = override(Settings(), "training", validation_share=0.3)
    chosen: dict[str, Any] = {"settings": settings, "views": "all", "device": "cpu", "threads": 1, "steps": 60}
    run = medfcn.train(balls, tmp_path / "run", **chosen)
    model = run.load(device="cpu")
    assert model.card.plan.views == VIEWS
    assert model.card.plan.spacing_mm == (1.0, 1.0, 1.0)
    assert model.card.view_weights == () or sum(model.card.view_weights) == pytest.approx(1)
    for view in VIEWS:
        assert _dice(model.with_views([view]), balls) > 0.6, view
    again = medfcn.train(balls, tmp_path / "again", **chosen)
    weights = [(folder.folder / "model.safetensors").read_bytes() for folder in (run, again)]
    assert weights[0] == weights[1]


def _dice(model: Model, balls: Path) -> float:
    mask = model.predict(balls / "images" / "ball_0.nii.gz").array
    reference = medfcn.read_volume(balls / "labels" / "ball_0.nii.gz").array
    return float(2 * np.count_nonzero(mask & reference) / (mask.sum() + reference.sum()))


def test_what_the_reference_ignores_does_not_count() -> None:
    model = tiny_model(labels="left=1,right=2,ignore=255", views=VIEWS, spacing_mm=(1.5, 1.5, 1.5))
    image = Volume(blobs(), AFFINE)
    reference = np.random.default_rng(0).integers(0, 3, image.shape).astype(np.uint8)
    reference[: image.shape[0] // 2] = IGNORED
    counts = count_labels(reference, model.predict(image).array, labels=2)
    found = dices(model, image, reference, np.full((1, 3), 1 / 3))
    assert found[0] == pytest.approx(np.mean([item.dice for item in counts]), abs=2e-3)


def test_views_weigh_alike_in_folds_and_where_labels_overlap(balls: Path, tmp_path: Path) -> None:
    """Without a look at the validation cases, whatever they would say."""

    def forbidden(*_: object) -> NoReturn:
        raise AssertionError("a validation case was looked at")

    chosen: dict[str, Any] = {"views": "all", "device": "cpu", "threads": 1, "steps": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medfcn.training.view_weights.dices_by_weights", forbidden)
        fold = medfcn.train(balls, tmp_path / "folds", fold="1/2", **chosen)
        nested = write_nested(tmp_path / "nested", range(6))
        overlapping = medfcn.train(nested, tmp_path / "overlapping", labels=NESTED, **chosen)
    for run in (fold, overlapping):
        model = run.load(device="cpu").models[0]
        assert model.card.plan.views == VIEWS
        assert model.card.view_weights == ()


def test_a_run_of_several_views_goes_on_with_init_and_resume_finds_it_finished(balls: Path, tmp_path: Path) -> None:
    chosen: dict[str, Any] = {"device": "cpu", "threads": 1, "steps": 2}
    medfcn.train(balls, tmp_path / "first", views="axial,coronal", **chosen)
    run = medfcn.train(balls, tmp_path / "second", init=tmp_path / "first", **chosen)
    assert run.load(device="cpu").models[0].card.plan.views == ("axial", "coronal")
    before = (tmp_path / "second" / "model.safetensors").read_bytes()
    medfcn.train(balls, tmp_path / "second", init=tmp_path / "first", resume=True, **chosen)
    assert (tmp_path / "second" / "model.safetensors").read_bytes() == before
