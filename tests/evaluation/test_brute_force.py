"""All metrics against their definitions written out, on random masks, by every way of searching."""

import numpy as np
import pytest

import medfcn.evaluation as evaluation
from medfcn.evaluation import boundary as boundary_module
from medfcn.evaluation import mask_pairs, nearest
from medfcn.evaluation import overlap as overlap_module
from tests.evaluation.brute_force import overlap, surface
from tests.evaluation.masks_at_random import random_pair

WAYS = {
    "as chosen": {},
    "by steps": {"_TREE_COST": 1e9},
    "by tree": {"_STEP_COST": 1e9, "_TRANSFORM_VOXEL_COST": 1e9},
    "by transform": {"_STEP_COST": 1e9, "_TRANSFORM_VOXEL_COST": 0},
    "by sample": {"_STEP_COST": 1e9, "_QUERY_COST": 1e-9, "_TOO_FEW_TO_SAMPLE": 64},
}


def compare(reference, prediction, spacing, tolerance):
    expected = overlap(reference, prediction)
    counts = evaluation.count_voxels(reference, prediction)
    for metric, value in expected.items():
        assert getattr(counts, metric) == pytest.approx(value, abs=1e-12, nan_ok=True), metric
    for boundary in ("voxels", "elements"):
        expected = surface(reference, prediction, spacing, boundary=boundary, tolerance=tolerance)
        found = evaluation.surface_distances(reference, prediction, spacing, boundary=boundary)
        values = {
            "hd": found.hausdorff_mm(),
            "hd95": found.hausdorff_mm(percentile=95),
            "hd95_pooled": found.hausdorff_mm(percentile=95, pooled=True),
            "assd": found.assd_mm(),
            "masd": found.masd_mm(),
            "nsd": found.nsd(tolerance_mm=tolerance),
        }
        for metric, value in expected.items():
            assert values[metric] == pytest.approx(value, abs=1e-9, nan_ok=True), (boundary, metric)


def run(seed, count):
    random = np.random.default_rng(seed)
    for number in range(count):
        reference, prediction, spacing = random_pair(random)
        tolerance = float(random.uniform(0, 4))
        try:
            compare(reference, prediction, spacing, tolerance)
        except AssertionError as error:
            raise AssertionError(f"pair {number}, shape {reference.shape}, spacing {spacing}: {error}") from error


@pytest.mark.parametrize("way", WAYS)
def test_metrics_equal_their_definitions(way, monkeypatch):
    for name, value in WAYS[way].items():
        monkeypatch.setattr(nearest, name, value)
    run(seed=1, count=120)


def test_metrics_do_not_depend_on_the_size_of_chunks(monkeypatch):
    for module in (boundary_module, mask_pairs, overlap_module):
        monkeypatch.setattr(module, "CHUNK_VOXELS", 8)
    run(seed=2, count=60)


@pytest.mark.slow
def test_metrics_equal_their_definitions_on_2000_masks():
    run(seed=3, count=2000)


def test_every_way_of_searching_gives_the_same_distances(monkeypatch):
    random = np.random.default_rng(4)
    field = np.sin(np.indices((40, 44, 36)) / 5).sum(axis=0)
    reference = field + random.normal(size=field.shape) * 0.2 > 0.8
    prediction = np.roll(field, 3, axis=1) + random.normal(size=field.shape) * 0.2 > 0.8
    spacing = (0.7, 1.1, 2.3)
    found = {}
    for way, settings in WAYS.items():
        with monkeypatch.context() as patch:
            for name, value in settings.items():
                patch.setattr(nearest, name, value)
            found[way] = evaluation.surface_distances(reference, prediction, spacing)
    for way, distances in found.items():
        np.testing.assert_allclose(distances.reference_mm, found["by tree"].reference_mm, rtol=1e-14, err_msg=way)
        np.testing.assert_allclose(distances.prediction_mm, found["by tree"].prediction_mm, rtol=1e-14, err_msg=way)


def test_labels_together_score_as_each_alone():
    random = np.random.default_rng(5)
    for _ in range(30):
        dimensions = int(random.integers(2, 4))
        shape = tuple(int(length) for length in random.integers(1, 12, size=dimensions))
        reference = random.integers(0, 6, size=shape).astype(np.uint8)
        prediction = np.where(random.random(shape) < 0.7, reference, random.integers(0, 6, size=shape)).astype(
            np.uint8
        )
        spacing = tuple(float(edge) for edge in random.uniform(0.3, 4.0, size=dimensions))
        counts = evaluation.count_labels(reference, prediction, labels=6)
        for boundary in ("voxels", "elements"):
            together = evaluation.label_surface_distances(reference, prediction, spacing, labels=6, boundary=boundary)
            for label, found in enumerate(together, start=1):
                alone = evaluation.surface_distances(
                    reference == label, prediction == label, spacing, boundary=boundary
                )
                np.testing.assert_array_equal(found.reference_mm, alone.reference_mm)
                np.testing.assert_array_equal(found.prediction_mm, alone.prediction_mm)
                np.testing.assert_array_equal(found.reference_sizes, alone.reference_sizes)
                np.testing.assert_array_equal(found.prediction_sizes, alone.prediction_sizes)
                assert counts[label - 1] == evaluation.count_voxels(reference == label, prediction == label)
