"""Numbers that other projects publish for small masks, and real pairs of masks."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import medfcn.evaluation as evaluation
from tests.evaluation.brute_force import element_size

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
VECTORS = SHARED / "metric_vectors.json"
PAIRS = SHARED / "data" / "metric_pairs"


def read_vectors():
    if not VECTORS.exists():
        return []
    vectors = json.loads(VECTORS.read_text())["vectors"]
    # The others are measured between other sets of points than the boundaries that medfcn has.
    known = ("none", "voxel6", "surfel")
    return [pytest.param(vector, id=vector["id"]) for vector in vectors if vector["boundary"] in known]


def mask_of(description):
    if "array" in description:
        return np.array(description["array"]) > 0
    mask = np.zeros(description["shape"], dtype=bool)
    for box in description.get("boxes", ()):
        mask[tuple(itertools.starmap(slice, zip(box["lo"], box["hi"], strict=True)))] = True
    if "sphere" in description:
        sphere = description["sphere"]
        place = np.indices(mask.shape).T * np.array(sphere["spacing"]) - np.array(sphere["centre_mm"])
        mask |= ((place**2).sum(axis=-1) <= sphere["radius"] ** 2).T
    return mask


def scores(reference, prediction, vector):
    spacing, boundary = vector["spacing"], vector["boundary"]
    counts = evaluation.count_voxels(reference, prediction)
    values = {
        "dice": counts.dice,
        "iou": counts.iou,
        "tp": counts.true_positives,
        "fp": counts.false_positives,
        "fn": counts.false_negatives,
        "tn": counts.true_negatives,
    }
    if boundary in ("voxel6", "surfel"):
        kind = "voxels" if boundary == "voxel6" else "elements"
        found = evaluation.surface_distances(reference, prediction, spacing, boundary=kind)
        within = vector.get("tau", 1.0) * (1 + 1e-7)
        values |= {
            "hd": found.hausdorff_mm(),
            "hd95": found.hausdorff_mm(percentile=95),
            "hd95_pooled": found.hausdorff_mm(percentile=95, pooled=True),
            "hd_pred_to_ref": found.prediction_mm.max(),
            "hd95_pred_to_ref": np.percentile(found.prediction_mm, 95),
            "asd_pred_to_ref": np.average(found.prediction_mm, weights=found.prediction_sizes),
            "asd_ref_to_pred": np.average(found.reference_mm, weights=found.reference_sizes),
            "assd": found.assd_mm(),
            "masd": found.masd_mm(),
            "nsd": found.nsd(tolerance_mm=vector.get("tau", 1.0)),
            "overlap_ref": np.average(found.reference_mm <= within, weights=found.reference_sizes),
            "overlap_pred": np.average(found.prediction_mm <= within, weights=found.prediction_sizes),
            "distances_ref_to_pred": np.sort(found.reference_mm),
            "distances_pred_to_ref": np.sort(found.prediction_mm),
            "surfel_sizes_ref": found.reference_sizes,
        }
    return values


@pytest.mark.parametrize("vector", read_vectors())
def test_published_number_is_reproduced(vector):
    values = scores(mask_of(vector["ref"]), mask_of(vector["pred"]), vector)
    assert vector["expected"].keys() <= values.keys()
    for name, expected in vector["expected"].items():
        expected = float(expected) if isinstance(expected, str) else expected
        np.testing.assert_allclose(values[name], expected, atol=vector["tol"], rtol=0, err_msg=name)


def test_vectors_are_there():
    if not VECTORS.exists():
        pytest.skip("shared/metric_vectors.json is not beside the repository")
    assert len(read_vectors()) > 20


def real_pairs():
    return [
        ("meshmetrics_example_2d_ref_mask", "meshmetrics_example_2d_pred_mask"),
        ("meshmetrics_example_3d_ref_mask", "meshmetrics_example_3d_pred_mask"),
        ("panoptica_semantic_ref", "panoptica_semantic_pred"),
        ("panoptica_matched_instance_ref", "panoptica_matched_instance_pred"),
        ("panoptica_unmatched_instance_ref", "panoptica_unmatched_instance_pred"),
    ]


@pytest.mark.parametrize(("reference", "prediction"), real_pairs())
def test_real_pair_agrees_with_distance_transforms(reference, prediction):
    nibabel = pytest.importorskip("nibabel")
    if not PAIRS.exists():
        pytest.skip("shared/data/metric_pairs is not beside the repository")
    images = [nibabel.load(PAIRS / f"{name}.nii.gz") for name in (reference, prediction)]
    spacing = tuple(float(edge) for edge in images[0].header.get_zooms())
    drawn, found = (np.asarray(image.dataobj) > 0 for image in images)
    drawn, found, spacing = squeezed(drawn, found, spacing)
    assert evaluation.dice(drawn, found) == pytest.approx(2 * (drawn & found).sum() / (drawn.sum() + found.sum()))
    for boundary in ("voxels", "elements"):
        measured = evaluation.surface_distances(drawn, found, spacing, boundary=boundary)
        (a, a_sizes), (b, b_sizes) = by_transforms(*cropped(drawn, found), spacing, boundary)
        np.testing.assert_allclose(np.sort(measured.reference_mm), np.sort(a), atol=1e-9)
        np.testing.assert_allclose(np.sort(measured.prediction_mm), np.sort(b), atol=1e-9)
        total = a_sizes.sum() + b_sizes.sum()
        assert measured.assd_mm() == pytest.approx((a @ a_sizes + b @ b_sizes) / total, abs=1e-9)
        within = a_sizes[a <= 1.0000001].sum() + b_sizes[b <= 1.0000001].sum()
        assert measured.nsd(tolerance_mm=1.0) == pytest.approx(within / total, abs=1e-9)


def by_transforms(drawn, found, spacing, boundary):
    """Distances and sizes of both boundaries, from Euclidean distance transforms of the whole box."""
    padded = [np.pad(mask, 1) for mask in (drawn, found)]
    if boundary == "voxels":
        edges = [mask & ~ndimage.binary_erosion(mask) for mask in padded]
        sizes = [np.ones(int(edge.sum())) for edge in edges]
    else:
        windows = [np.lib.stride_tricks.sliding_window_view(mask, (2,) * mask.ndim) for mask in padded]
        counts = [window.sum(axis=tuple(range(window.ndim // 2, window.ndim))) for window in windows]
        edges = [(count > 0) & (count < 2**drawn.ndim) for count in counts]
        cells = [window[edge].reshape(int(edge.sum()), -1) for window, edge in zip(windows, edges, strict=True)]
        sizes = [np.array([element_size(tuple(cell.tolist()), spacing) for cell in mask]) for mask in cells]
    far = [ndimage.distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    return (far[1][edges[0]], sizes[0]), (far[0][edges[1]], sizes[1])


def squeezed(drawn, found, spacing):
    keep = [axis for axis, length in enumerate(drawn.shape) if length > 1]
    shape = tuple(drawn.shape[axis] for axis in keep)
    return drawn.reshape(shape), found.reshape(shape), tuple(spacing[axis] for axis in keep)


def cropped(drawn, found):
    at = np.argwhere(drawn | found)
    box = tuple(slice(low, high + 1) for low, high in zip(at.min(axis=0), at.max(axis=0), strict=True))
    return drawn[box], found[box]


def test_percentile_is_between_the_smallest_and_the_largest():
    mask = np.zeros((9, 9), dtype=bool)
    mask[2:5, 2:5] = True
    moved = np.roll(mask, 3, axis=1)
    values = [evaluation.hausdorff_mm(mask, moved, (1, 1), percentile=percentile) for percentile in (0, 50, 95, 100)]
    assert values == sorted(values)
    assert math.isclose(values[-1], 3)
