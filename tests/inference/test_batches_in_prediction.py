"""Batches of prediction: as large as set, smaller where their maps would take much memory, and no other mask."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import medfcn
from medfcn.config import override
from medfcn.networks.design import Design, MonaiDesign
from medfcn.networks.fcn import build_network
from medfcn.networks.memory import fitting_batch, map_bytes, map_bytes_of
from medfcn.networks.presets import PRESETS, with_preset
from medfcn.settings import NetworkSettings
from medfcn.slices.sizes import stem_for, widths_for
from tests.inference.models import tiny_model

GIB = 2**30


def planned(preset: str, edge: int) -> Design:
    """A preset as the plan builds it for windows of a size."""
    settings = with_preset(NetworkSettings(preset=preset))
    if settings.widths is None:
        stem = stem_for(edge) if settings.stem_stride is None else settings.stem_stride
        settings = dataclasses.replace(settings, stem_stride=stem, widths=widths_for(edge, stem))
    return Design.of(settings, channels_in=3, label_count=1)


@pytest.mark.parametrize("edge", [64, 128, 256, 512, 640])
def test_the_default_network_keeps_its_batch(edge: int) -> None:
    assert fitting_batch(32, planned("auto", edge), (edge, edge))[0] == 32


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_no_batch_of_large_slices_takes_more_than_a_gib(preset: str) -> None:
    design = planned(preset, 512)
    batch = fitting_batch(32, design, (512, 512))[0]
    assert batch * map_bytes(design, (512, 512)) / 4 <= GIB or batch == 1
    assert batch == 32 or (batch + 1) * map_bytes(design, (512, 512)) / 4 > GIB
    assert fitting_batch(1, design, (64, 64))[0] == 1


@pytest.mark.parametrize("preset", ["auto", "plain", "compact", "score_decoder"])
@pytest.mark.parametrize("size", [(128, 128), (100, 37), (513, 512)])
def test_a_network_in_memory_has_the_maps_of_its_design(preset: str, size: tuple[int, int]) -> None:
    design = dataclasses.replace(planned(preset, 128), dropout=0.0)
    network = build_network(design).eval()
    assert map_bytes_of(network, 3, size) == map_bytes(design, size)
    assert fitting_batch(32, design, size, network) == fitting_batch(32, design, size)


def test_a_wide_network_takes_few_large_slices() -> None:
    # 32 slices took 1.6 GB at 256×256, by the peak of the process.
    assert 8 <= fitting_batch(32, planned("score_decoder", 256), (256, 256))[0] <= 24
    assert 2 <= fitting_batch(32, planned("score_decoder", 512), (512, 512))[0] <= 6


def test_networks_of_monai_are_counted_too() -> None:
    settings = with_preset(NetworkSettings(monai="BasicUNet"))
    design = MonaiDesign.of(settings, channels_in=1)
    assert map_bytes(design, (64, 64)) > 4 * 64 * 64
    assert fitting_batch(32, design, (64, 64))[0] == 32


def test_slabs_of_slices_in_one_piece_have_no_larger_maps() -> None:
    model = tiny_model(window=(128, 128), widths=(16, 32, 64), whole=4.0)
    bounded = 1.25 * 1.25 * 128 * 128 * max(2, model.inferer.slabs.most)
    for edge in (160, 256, 512):
        count = model.inferer._slab((edge, edge))
        assert count == 2 or count * edge * edge <= bounded
    assert model.inferer._slab((512, 512)) < model.inferer._slab((160, 160))
    tiled = tiny_model(window=(128, 128), widths=(16, 32, 64))
    assert tiled.inferer._slab((160, 160)) == model.inferer._slab((160, 160))
    assert (
        tiled.inferer._slab((520, 520)) == model.inferer._slab((520, 520)) > model.inferer._slab((512, 512))
    )  # in tiles by both


def test_a_mask_does_not_depend_on_the_batch(ball_run: Path, balls: Path) -> None:
    model = medfcn.Model.load(ball_run, device="cpu")
    image = balls / "images" / "ball_6.nii.gz"
    whole = model.predict_case(image, keep_probabilities=True)
    for size in (1, 2, 5):
        settings = override(model.card.settings, "prediction", batch_size=size)
        parts = model.with_card(dataclasses.replace(model.card, settings=settings))
        found = parts.predict_case(image, keep_probabilities=True)
        np.testing.assert_array_equal(found.mask.array, whole.mask.array)
        assert found.probabilities is not None
        assert whole.probabilities is not None
        np.testing.assert_allclose(found.probabilities, whole.probabilities, atol=1e-5)
