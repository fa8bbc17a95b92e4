"""Phantoms: a run finds its labels in them, and only voxels of which it is sure are compared."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import medfcn
from medfcn.cli import main
from medfcn.errors import ModelError
from medfcn.exporting import one_view
from medfcn.exporting.phantom import ANY_SIZE, _cut_shape, phantoms
from medfcn.inference.ensemble import Ensemble
from medfcn.inference.model import Model
from medfcn.networks.sliding import WHOLE_PIXELS, tile_of
from medfcn.slices.plan import Intensity
from medfcn.slices.preprocess import network_image
from medfcn.slices.slicing import in_plane_axes
from tests.inference.models import looking_model, saved, tiny_model


def cautious(model: Model, logit: float) -> Model:
    """A model that finds less in noise."""
    with torch.no_grad():
        model.network.head.bias[0] += logit if model.head == "softmax" else -logit
    return model


CT: dict[str, Any] = {"intensities": (Intensity("ct", lower=-200, upper=300, mean=20, std=90),)}
VIEWS: dict[str, Any] = {"labels": "left=1,right=7", "views": ("coronal", "sagittal"), "spacing_mm": (1.5, 1.5, 1.5)}


@pytest.mark.parametrize(
    ("make", "logit"),
    [(looking_model, 4.0), (lambda: tiny_model(**CT), 3.0), (lambda: tiny_model(**VIEWS), 2.5)],
    ids=["turned", "ct", "two views"],
)
def test_where_noise_shows_no_label_slices_are_made_that_do(make: Callable[[], Model], logit: float) -> None:
    noise, model = phantoms(Ensemble([make()])), make()  # the noise shows all to the one
    written = {entry.written for entry in model.card.labels.entries}
    loaded = Ensemble([cautious(model, logit)])
    made = phantoms(loaded)
    assert all(phantom.labels for phantom in made)
    assert {value for phantom in made for value in np.unique(phantom.mask.array).tolist()} == {0} | written
    assert not all(
        np.array_equal(one.volumes[0].array, other.volumes[0].array) for one, other in zip(made, noise, strict=True)
    )
    for phantom, plain in zip(made, noise, strict=True):
        if np.array_equal(phantom.volumes[0].array, plain.volumes[0].array):
            continue
        seen = network_image(phantom.volumes, model.card.plan)
        assert -0.5 < seen.mean() < 0.5
        assert 0.5 < seen.std() < 1.5
        assert np.array_equal(loaded.predict_case(phantom.volumes, options=ANY_SIZE).mask.array, phantom.mask.array)
    again = phantoms(loaded)
    for first, second in zip(made, again, strict=True):
        assert np.array_equal(first.volumes[0].array, second.volumes[0].array)


def test_noise_that_shows_all_labels_stays_noise() -> None:
    one = phantoms(Ensemble([tiny_model()]))
    other = phantoms(Ensemble([tiny_model(seed=3)]))
    for first, second in zip(one, other, strict=True):
        assert first.mask.array.any()
        assert np.array_equal(first.volumes[0].array, second.volumes[0].array)


@pytest.mark.parametrize("make", [tiny_model, looking_model], ids=["one label", "two labels"])
def test_a_voxel_of_which_the_run_is_not_sure_is_not_compared(make: Callable[[], Model]) -> None:
    phantom = phantoms(Ensemble([make()]))[0]
    assert phantom.decided.mean() > 0.99
    assert phantom.dice_to(phantom.mask.array) == 1
    assert phantom.dice_to(phantom.mask.array[1:]) == 0
    other = phantom.mask.array.copy()
    sure = tuple(np.argwhere(phantom.decided & (other == 1))[0])
    other[sure] = 0
    assert 0.99 < phantom.dice_to(other) < 1
    phantom.decided[sure] = False
    assert phantom.dice_to(other) == 1


def test_export_names_labels_that_no_phantom_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = saved(cautious(tiny_model(labels="left=1,right=7"), 1e4), tmp_path / "run")
    with pytest.raises(SystemExit) as ended:
        main(["export", str(run), "-o", str(tmp_path / "model.medfcn")])
    assert ended.value.code == 0
    said = capsys.readouterr().err
    assert "predicts a phantom in several sizes as the run does; the run finds no left, right in it" in said


@pytest.mark.parametrize(
    "plan",
    [{"whole": 4.0}, {"whole": 4.0, "window": (256, 192)}, {"whole": 1.25, "window": (24, 40)}],
    ids=str,
)
def test_the_last_size_of_one_view_is_cut_along_rows_and_columns(plan: dict[str, Any]) -> None:
    made = tiny_model(**plan).card.plan
    size = tuple(_cut_shape(made)[axis] for axis in in_plane_axes(made.views[0]))
    assert tile_of((size[0], size[1]), made.window, made.whole) == made.window
    assert np.prod(size) < 2 * max(WHOLE_PIXELS, 16 * np.prod(made.window))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("for row in rows for column in columns", "for row in rows for column in columns[:1]"),
        ("* 8 / edge", "* 1 / edge"),
    ],
    ids=["the first column alone", "other weights"],
)
def test_an_export_that_cuts_tiles_otherwise_is_refused(
    right: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = one_view.template

    def changed(name: str) -> str:
        text = original(name)
        assert right in text
        return text.replace(right, wrong)

    run = saved(tiny_model(whole=4.0), tmp_path / "run")
    monkeypatch.setattr(one_view, "template", changed)
    with pytest.raises(ModelError, match=r"the script's mask of a phantom of .*; nothing was written"):
        medfcn.export(run, tmp_path / "model.pt2", format="pt2")
    assert not (tmp_path / "model.pt2").exists()
