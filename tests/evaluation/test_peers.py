"""Sixty random masks against other implementations, where the definitions agree.

MONAI is a dependency; MedPy and surface-distance are looked for and skipped when they are not installed.
"""

import numpy as np
import pytest

from medfcn.evaluation import surface_distances
from tests.evaluation.masks_at_random import random_pair

# What the peers warn of is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


def pairs_with_both(count=60):
    random = np.random.default_rng(20)
    found = []
    while len(found) < count:
        reference, prediction, spacing = random_pair(random, longest=12)
        if reference.any() and prediction.any() and min(reference.shape) > 1:
            found.append((reference, prediction, spacing))
    return found


def test_voxel_distances_equal_medpys():
    binary = pytest.importorskip("medpy.metric.binary", reason="MedPy is not installed")
    for reference, prediction, spacing in pairs_with_both():
        found = surface_distances(reference, prediction, spacing)
        assert found.hausdorff_mm() == pytest.approx(binary.hd(prediction, reference, spacing), abs=1e-9)
        pooled = found.hausdorff_mm(percentile=95, pooled=True)
        assert pooled == pytest.approx(binary.hd95(prediction, reference, spacing), abs=1e-9)
        assert found.assd_mm() == pytest.approx(binary.assd(prediction, reference, spacing), abs=1e-9)
        assert found.prediction_mm.mean() == pytest.approx(binary.asd(prediction, reference, spacing), abs=1e-9)


def test_element_distances_equal_surface_distances():
    peer = pytest.importorskip("surface_distance", reason="surface-distance is not installed")
    for reference, prediction, spacing in pairs_with_both():
        theirs = peer.compute_surface_distances(reference, prediction, spacing)
        found = surface_distances(reference, prediction, spacing, boundary="elements")
        assert found.hausdorff_mm() == pytest.approx(peer.compute_robust_hausdorff(theirs, 100), abs=1e-9)
        hd95 = peer.compute_robust_hausdorff(theirs, 95)
        assert found.hausdorff_mm(percentile=95) == pytest.approx(hd95, abs=1e-9)
        for tolerance in (0.5, 1.0, 2.0):
            share = peer.compute_surface_dice_at_tolerance(theirs, tolerance)
            assert found.nsd(tolerance_mm=tolerance) == pytest.approx(share, abs=1e-9)
        directed = peer.compute_average_surface_distance(theirs)
        assert found.masd_mm() == pytest.approx(np.mean(directed), abs=1e-9)


def test_voxel_distances_equal_monais():
    metrics = pytest.importorskip("monai.metrics", reason="MONAI is not installed")
    torch = pytest.importorskip("torch")
    for reference, prediction, spacing in pairs_with_both():
        found = surface_distances(reference, prediction, spacing)
        masks = [torch.from_numpy(np.ascontiguousarray(mask))[None, None] for mask in (prediction, reference)]
        options = {"include_background": True, "spacing": list(spacing)}
        for percentile in (None, 95):
            theirs = float(metrics.compute_hausdorff_distance(*masks, percentile=percentile, **options))
            ours = found.hausdorff_mm(percentile=percentile or 100)
            assert ours == pytest.approx(theirs, rel=1e-5)  # MONAI stores float32
        share = float(metrics.compute_surface_dice(*masks, class_thresholds=[1.0], **options))
        assert found.nsd(tolerance_mm=1.0) == pytest.approx(share, rel=1e-5)
