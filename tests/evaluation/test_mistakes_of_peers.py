"""Mistakes of other tools, each once: medfcn does not make them."""

import math

import numpy as np
import pytest

from medfcn.evaluation import (
    Definitions,
    ScoreTable,
    assd_mm,
    count_lesions,
    dice,
    hausdorff_mm,
    masd_mm,
    nsd,
    score_case,
    surface_distances,
)
from medfcn.labels import LabelMap
from medfcn.volumes import Volume

LABELS = LabelMap.parse("organ=1")


def box(shape, low, high):
    mask = np.zeros(shape, dtype=np.uint8)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = 1
    return mask


def table_of(*pairs):
    volumes = [[None if mask is None else Volume(mask, np.eye(4)) for mask in pair] for pair in pairs]
    return ScoreTable(
        tuple(
            row
            for number, (prediction, reference) in enumerate(volumes)
            for row in score_case(prediction, reference, LABELS, case=f"case_{number}")
        ),
        Definitions(),
    )


ORGAN = box((9, 9, 9), (2, 2, 2), (6, 6, 6))
NOTHING = np.zeros_like(ORGAN)


def test_a_missed_organ_has_an_infinite_hd95_and_stays_in_the_mean():
    """MONAI 1.6.1: HD95 of a miss is NaN and drops out of the mean."""
    assert hausdorff_mm(ORGAN, NOTHING, (1, 1, 1), percentile=95) == math.inf
    organ = table_of((ORGAN, ORGAN), (NOTHING, ORGAN)).summary()["organ"]
    assert organ.distances["hd95_mm"].mean == math.inf
    assert organ.distances["hd95_mm"].cases == 2
    assert organ.shares["dice"].mean == 0.5


def test_a_model_that_misses_every_organ_is_not_perfect():
    """MONAI 1.6.1: NaN for each miss, NaN dropped, the mean of nothing is 0."""
    organ = table_of((NOTHING, ORGAN), (NOTHING, ORGAN)).summary()["organ"]
    assert organ.distances["hd95_mm"].mean == math.inf
    assert organ.missed == 2


def test_cases_that_are_all_empty_have_no_mean():
    """MONAI 1.6.1: all both-empty aggregates to 0."""
    organ = table_of((NOTHING, NOTHING)).summary()["organ"]
    assert math.isnan(organ.distances["hd_mm"].mean)
    assert math.isnan(organ.shares["dice"].mean)
    assert organ.both_empty == 1


def test_a_missed_organ_is_not_at_distance_zero():
    """seg-metrics: a missed organ scores 0 mm."""
    for distance in (hausdorff_mm, assd_mm, masd_mm):
        assert distance(ORGAN, NOTHING, (1, 1, 1)) == math.inf
        assert distance(NOTHING, ORGAN, (1, 1, 1)) == math.inf


def test_a_mask_that_fills_the_volume_has_a_boundary():
    """seg-metrics: a full mask is 1.8e19 mm away, because outside the image is not background."""
    full = np.ones((5, 6, 7), dtype=bool)
    assert hausdorff_mm(full, full, (1, 1, 1)) == 0
    assert nsd(full, full, (1, 1, 1)) == 1
    middle = box((5, 5, 5), (2, 2, 2), (3, 3, 3))
    assert hausdorff_mm(np.ones((5, 5, 5)), middle, (1, 1, 1)) == pytest.approx(math.sqrt(12))


@pytest.mark.parametrize("shape", [(40, 10), (10, 40), (12, 40, 7)])
def test_volumes_need_not_be_square(shape):
    """torchmetrics 1.9: 27.8 for 12.8 on an image that is not square."""
    first = box(shape, [1] * len(shape), [3] * len(shape))
    second = box(shape, [length - 3 for length in shape], [length - 1 for length in shape])
    expected = math.sqrt(sum((length - 4) ** 2 for length in shape))
    assert hausdorff_mm(first, second, [1] * len(shape)) == pytest.approx(expected)


def test_voxels_are_points_and_rows_are_not():
    """miseval: the rows of a mask are taken as points."""
    first, second = box((30, 30), (5, 5), (6, 6)), box((30, 30), (5, 25), (6, 26))
    assert hausdorff_mm(first, second, (1, 1)) == 20


@pytest.mark.parametrize("boundary", ["voxels", "elements"])
def test_empty_masks_are_measured(boundary):
    """surface-distance 0.1: empty masks crash with NumPy 2."""
    empty = surface_distances(NOTHING, NOTHING, (1, 1, 1), boundary=boundary)
    assert math.isnan(empty.hausdorff_mm())
    assert math.isnan(empty.nsd())
    assert surface_distances(ORGAN, NOTHING, (1, 1, 1), boundary=boundary).nsd() == 0


def test_assd_is_not_masd():
    """panoptica: what it calls ASSD is the mean of the two directed means."""
    reference = np.array([[1, 0, 1, 0], [1, 0, 1, 0], [1, 0, 1, 1], [1, 0, 1, 1]])
    prediction = np.array([[0, 1, 0, 1], [0, 1, 0, 1], [0, 1, 0, 0], [0, 1, 0, 0]])
    assert masd_mm(reference, prediction, (1, 1)) == pytest.approx(1.05)
    assert assd_mm(reference, prediction, (1, 1)) == pytest.approx(17 / 16)


def test_hausdorff_is_between_surfaces_and_not_between_volumes():
    """SimpleITK's Hausdorff filter works on all voxels: the middle of a filled organ is far from a hollow one."""
    full = box((11, 11, 11), (0, 0, 0), (11, 11, 11))
    shell = full.copy()
    shell[2:9, 2:9, 2:9] = 0
    core = box((11, 11, 11), (5, 5, 5), (6, 6, 6))
    assert hausdorff_mm(full, shell, (1, 1, 1)) == 1  # between all voxels it would be 4
    assert hausdorff_mm(full, core, (1, 1, 1)) == pytest.approx(math.sqrt(75))
    assert surface_distances(full, core, (1, 1, 1)).prediction_mm.tolist() == [5.0]


def test_a_mask_without_any_background_is_not_measured_to_a_voxel_outside():
    """scipy's transform without any background returns the distance to (-1, 0)."""
    full = np.ones((60, 70, 60), dtype=bool)
    found = surface_distances(full, full, (1, 2, 3))
    assert found.reference_mm.max() == 0
    corner = box((60, 70, 60), (0, 0, 0), (1, 1, 1))
    assert hausdorff_mm(full, corner, (1, 2, 3)) == pytest.approx(math.hypot(59, 138, 177))


def test_false_positives_count_where_the_reference_is_empty():
    """MONAI's default Dice ignores false positives where the reference is empty."""
    assert dice(NOTHING, ORGAN) == 0
    organ = table_of((ORGAN, ORGAN), (ORGAN, NOTHING)).summary()["organ"]
    assert organ.shares["dice"].mean == 0.5
    assert organ.false == 1


def test_hausdorff_has_spacing_and_both_directions():
    """ivadomed's Hausdorff has no spacing and one direction."""
    small, large = box((9, 9), (4, 4), (5, 5)), box((9, 9), (4, 1), (5, 8))
    assert hausdorff_mm(small, large, (1.0, 2.5)) == hausdorff_mm(large, small, (1.0, 2.5)) == 7.5


def test_distances_are_taken_in_space_and_not_slice_by_slice():
    """A lesion predicted two slices away is missed in every slice, and 2 slices away in space."""
    first, second = box((9, 9, 9), (4, 4, 2), (5, 5, 3)), box((9, 9, 9), (4, 4, 4), (5, 5, 5))
    assert hausdorff_mm(first, second, (1, 1, 3)) == 6


def test_an_organ_flush_with_its_crop_is_not_longer_than_it_is():
    """platipy 0.7 crops to the masks first: a flat-ended organ one 3 mm slice off had 18 mm instead of 1.573 (ASSD).

    The value is independent of the frame: the same masks in a volume cut to them, and in one with air around.
    """
    reference = np.ones((8, 8, 6), dtype=np.uint8)
    prediction = reference.copy()
    prediction[..., -1] = 0
    framed = [np.pad(mask, 4) for mask in (reference, prediction)]
    for first, second in ((reference, prediction), framed):
        assert hausdorff_mm(first, second, (1, 1, 3)) == 3
        # Boundary voxels: 240 and 212. The lost slice: 64 at 3 mm. The new end: 20, 12 and 4 at 1, 2 and 3 mm.
        assert assd_mm(first, second, (1, 1, 3)) == pytest.approx((64 * 3 + 20 + 12 * 2 + 4 * 3) / (240 + 212))


def test_one_thick_slice_off_is_one_slice_thickness():
    first, second = box((20, 20, 12), (5, 5, 3), (15, 15, 8)), box((20, 20, 12), (5, 5, 4), (15, 15, 9))
    assert hausdorff_mm(first, second, (1, 1, 5)) == 5
    assert hausdorff_mm(first, second, (1, 1, 5), percentile=95) == 5


def test_eight_false_of_ten_predicted_lesions_are_eight_false():
    """MedPy 0.5.2: `obj_fpr` is the share of lesions missed, so these eight false ones are 0.0."""
    reference = box((60, 60, 1), (5, 5, 0), (10, 10, 1)) | box((60, 60, 1), (5, 20, 0), (10, 25, 1))
    prediction = reference.copy()
    for number in range(8):
        row, column = 30 + number // 4 * 12, 5 + number % 4 * 12
        prediction |= box((60, 60, 1), (row, column, 0), (row + 4, column + 4, 1))
    counts = count_lesions(reference, prediction)
    assert (counts.reference, counts.found, counts.false) == (2, 2, 8)
    assert counts.precision == 0.2


def test_a_case_has_its_score_whatever_its_place_and_company():
    """TorchMetrics 1.9.0: one case alone, first and last of three has a generalised Dice of 1.0, 0.111 and 0.667."""
    pairs = [(ORGAN, ORGAN), (NOTHING, ORGAN), (box((9, 9, 9), (2, 2, 2), (6, 6, 5)), ORGAN)]
    alone = [table_of(pair).rows[0].dice for pair in pairs]
    assert [row.dice for row in table_of(*pairs).rows] == alone
    assert [row.dice for row in table_of(*pairs[::-1]).rows] == alone[::-1]
