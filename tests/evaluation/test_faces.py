"""Faces that nobody drew are not surface: slices, ignored voxels, ends of the volume."""

from itertools import product

import numpy as np
import pytest

from medfcn.evaluation import Definitions, count_lesions, evaluate, summarise, surface_distances
from tests.evaluation.brute_force import INF, NAN, directed, element_size, percentile95

IDENTITY = np.eye(4)
EVERY_OPTION = [
    {"boundary_at_edges": at_edges, "boundary": boundary, "nsd_boundary": nsd, "lesions": True}
    for at_edges, boundary, nsd in product((True, False), ("voxels", "elements"), ("voxels", "elements"))
]


def disc(radius, size=64):
    rows, columns = np.indices((size, size)) - size // 2
    return rows**2 + columns**2 <= radius**2


def cylinder(radius, slices=16):
    return np.repeat(disc(radius)[..., None], slices, axis=2)


def one_row(reference, prediction, spacing=(1, 1, 1), labels="organ=1", **settings):
    affine = np.diag([*spacing, 1.0])
    pair = [{"a": (mask.astype(np.uint8), affine)} for mask in (prediction, reference)]
    (row,) = evaluate(*pair, labels=labels, definitions=Definitions(**settings)).rows
    return row


def test_a_slice_is_measured_in_its_plane():
    row = one_row(disc(20)[..., None], disc(24)[..., None])
    assert row.assd_mm == pytest.approx(3.76, abs=0.005)
    assert row.hd95_mm == pytest.approx(4.12, abs=0.005)
    assert row.nsd == 0


def test_slices_left_out_are_neither_surface_nor_gaps():
    reference, prediction = cylinder(20).astype(np.uint8), cylinder(24)
    reference[..., 1::2] = 255
    row = one_row(reference, prediction, (1, 1, 3), "organ=1,ignore=255", lesions=True)
    assert row.nsd == pytest.approx(0.177, abs=0.0005)
    assert (row.lesions, row.lesions_found, row.lesions_false) == (1, 1, 0)


def test_a_box_that_ends_inside_the_volume_ends_at_no_face():
    """The masks end at ignored slices; only the labelled slice beyond tells that the surface goes on."""
    reference = np.pad(cylinder(20, 9), ((0, 0), (0, 0), (4, 4))).astype(np.uint8)
    reference[..., 1::2] = 255
    row = one_row(reference, np.pad(cylinder(24, 9), ((0, 0), (0, 0), (4, 4))), (1, 1, 3), "organ=1,ignore=255")
    assert row.nsd == 0
    assert row.assd_mm > 3.7


def boundary(mask, ignored, spacing, kind, at_edges):
    """Points and sizes by loops over voxels and corners; None is a voxel that nobody labelled."""
    shape = mask.shape

    def value(at):
        inside = tuple(min(max(i, 0), length - 1) for i, length in zip(at, shape, strict=True))
        if inside != at and at_edges:
            return False
        return None if ignored[inside] else bool(mask[inside])

    def between(at):
        """Does the voxel lie between two labelled ones along an axis?"""
        for axis in range(mask.ndim):
            line = [value((*at[:axis], i, *at[axis + 1 :])) for i in range(shape[axis])]
            if any(v is not None for v in line[: at[axis]]) and any(v is not None for v in line[at[axis] + 1 :]):
                return True
        return False

    def is_open(at):
        inside = all(0 <= i < length for i, length in zip(at, shape, strict=True))
        return inside and value(at) is None and not between(at)

    points, sizes = [], []
    if kind == "voxels":
        for at in product(*map(range, shape)):
            near = [(*at[:axis], at[axis] + step, *at[axis + 1 :]) for axis in range(mask.ndim) for step in (-1, 1)]
            if value(at) is True and any(value(other) is False for other in near):
                points.append(at)
                sizes.append(1.0)
        return np.array(points, float).reshape(-1, mask.ndim), np.array(sizes)
    steps = list(product((-1, 0), repeat=mask.ndim))
    for corner in product(*(range(length + 1) for length in shape)):
        places = [tuple(c + d for c, d in zip(corner, step, strict=True)) for step in steps]
        # Outside of a volume that goes on, the voxels are as far away as they look.
        cell = [value(at) for at in places]
        apart = [[sum(a != b for a, b in zip(one, other, strict=True)) for other in steps] for one in steps]
        faces = [(i, j) for i, row in enumerate(apart) for j, distance in enumerate(row) if distance == 1]
        if not any(cell[i] is True and cell[j] is False for i, j in faces):
            continue
        low, high = [], []
        for i, voxel in enumerate(cell):
            nearest = min(distance for j, distance in enumerate(apart[i]) if cell[j] is not None)
            near = {cell[j] for j, distance in enumerate(apart[i]) if distance == nearest and cell[j] is not None}
            low.append(voxel if voxel is not None else near == {True})
            high.append(voxel if voxel is not None else True in near)
        share = 1 - np.mean([is_open(at) for at in places])
        points.append(corner)
        sizes.append(share * sum(element_size(tuple(filled), tuple(spacing)) for filled in (low, high)) / 2)
    return np.array(points, float).reshape(-1, mask.ndim), np.array(sizes)


@pytest.mark.parametrize("kind", ["voxels", "elements"])
@pytest.mark.parametrize("at_edges", [True, False])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_scores_equal_their_definitions(kind, at_edges, dimensions):
    random = np.random.default_rng(dimensions)
    for number in range(25):
        shape = tuple(random.integers(2, 7 if dimensions == 2 else 5, size=dimensions))
        reference, prediction = random.random((2, *shape)) < random.uniform(0.2, 0.95)
        ignored = random.random(shape) < (0, 0.2, 0.5)[number % 3]
        spacing = tuple(random.uniform(0.5, 3, dimensions))
        options = {"boundary": kind, "ignored": ignored, "boundary_at_edges": at_edges}
        found = surface_distances(reference, prediction, spacing, **options)
        (first, sizes), (second, others) = (
            boundary(mask, ignored, spacing, kind, at_edges) for mask in (reference, prediction)
        )
        values = [found.hausdorff_mm(), found.hausdorff_mm(percentile=95), found.assd_mm(), found.nsd()]
        if not (len(first) and len(second)):
            none = INF if len(first) or len(second) or ((reference != prediction) & ~ignored).any() else NAN
            expected = [none] * 3 + [NAN if np.isnan(none) else 0]
        else:
            a, b = directed(first, second, spacing), directed(second, first, spacing)
            both, weights = np.concatenate([a, b]), np.concatenate([sizes, others])
            hd95 = max(percentile95(a, sizes, kind), percentile95(b, others, kind))
            expected = [both.max(), hd95, both @ weights / weights.sum(), weights[both <= 1].sum() / weights.sum()]
        assert values == pytest.approx(expected, abs=1e-9, nan_ok=True), (number, shape)


def test_a_cut_mask_has_no_surface_at_the_end_of_the_volume():
    reference, prediction = cylinder(20), cylinder(24)
    assert one_row(reference, prediction, (1, 1, 3)).nsd > 0.25
    row = one_row(reference, prediction, (1, 1, 3), boundary_at_edges=False)
    assert row.nsd == 0
    assert row.assd_mm == pytest.approx(3.76, abs=0.005)


@pytest.mark.parametrize("at_edges", [True, False])
def test_a_large_share_of_surface_at_the_end_of_the_volume_is_said(at_edges):
    inner = np.pad(disc(6, 20)[..., None].repeat(8, axis=2), ((0, 0), (0, 0), (2, 2)))
    cases = {"cut": cylinder(20), "inner": np.pad(inner, ((22, 22), (22, 22), (2, 2)))}
    masks = {case: (mask.astype(np.uint8), IDENTITY) for case, mask in cases.items()}
    for kind in ("voxels", "elements"):
        definitions = Definitions(boundary_at_edges=at_edges, boundary=kind)
        table = evaluate(masks, masks, labels="organ=1", definitions=definitions)
        (note,) = [note for note in table.summary().notes if "end of the volume" in note]
        assert note.startswith("more than 5 % of the surface is at the end of the volume: organ (1 of 2 references, ")
        assert ("--no-boundary-at-edges" in note) == at_edges
        first, second = table.rows
        ends = 2 * disc(20).sum()
        assert first.reference_at_edges == pytest.approx(ends / (ends + 14 * 112))
        assert second.reference_at_edges == second.prediction_at_edges == 0


@pytest.mark.parametrize("settings", EVERY_OPTION)
def test_a_miss_or_a_flooded_volume_never_improves_a_summary(settings):
    random = np.random.default_rng(1)
    metrics = ("hd_mm", "hd95_mm", "assd_mm", "masd_mm", "nsd", "dice", "iou", "precision", "recall")
    for shape in ((6, 5, 4), (6, 5, 1)):
        for kind in range(4):
            reference = np.where(random.random(shape) < 0.3, 1, 0).astype(np.uint8)
            reference[0] = (0, 1, 0, 255)[kind]
            reference[1:] *= kind != 2
            row = one_row(reference, reference == 1, labels="organ=1,ignore=255", **settings)
            worse = [
                one_row(reference, np.full(shape, fill), labels="organ=1,ignore=255", **settings) for fill in (0, 1)
            ]
            before = summarise([row, row], Definitions(**settings))["organ"]
            for other in worse:
                after = summarise([row, other], Definitions(**settings))["organ"]
                for metric in metrics:
                    old, new = before[metric].mean, after[metric].mean
                    better = new > old + 1e-12 if metric in before.shares else new < old - 1e-12
                    assert not better, (shape, kind, metric, old, new)
                assert np.isinf(other.assd_mm) or other.true_positives or other.status == "both_empty"


def test_a_mask_without_a_boundary_counts_as_an_empty_one():
    full, part = np.ones((5, 4, 1), bool), np.zeros((5, 4, 1), bool)
    part[1:3, 1:3] = True
    nothing = np.zeros_like(full)
    for pair in ((part, full), (full, part), (nothing, full), (full, nothing)):
        row = one_row(*pair, boundary_at_edges=False)
        assert (row.hd_mm, row.assd_mm, row.nsd) == (INF, INF, 0)
    row = one_row(full, full, boundary_at_edges=False)
    assert np.isnan([row.hd_mm, row.assd_mm, row.nsd]).all()
    assert row.dice == 1
    assert one_row(full, full).hd_mm == 0


def test_lesions_are_not_connected_around_corners():
    mask = np.zeros((5, 5), bool)
    mask[0, 0] = mask[2, 2] = True
    ignored = np.zeros_like(mask)
    ignored[1], ignored[:, 1] = True, True
    assert count_lesions(mask, mask, ignored=ignored).reference == 2
    mask[2, 0] = True
    assert count_lesions(mask, mask, ignored=ignored).reference == 1
