"""The law of summaries, under every option: a miss or a flooded volume never improves one."""

import math
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from medfcn.evaluation import Definitions, evaluate

LABELS = {
    "one": ("organ=1", (0, 1)),
    "ignoring": ("organ=1,ignore=255", (0, 1, 255)),
    "two": ("organ=1,other=2,ignore=255", (0, 1, 2, 255)),
    "overlapping": ("whole=1+2,core=2", (0, 1, 2)),
}
SHAPES = [(4, 3, 3), (3, 4, 1), (2, 2, 2), (1, 5, 1), (9, 2, 1)]
PENALTIES = [None, "diagonal", 2.0]

DEFINITIONS = st.builds(
    Definitions,
    tolerance_mm=st.sampled_from([0.0, 1.0, 4.0]),
    boundary=st.sampled_from(["voxels", "elements"]),
    nsd_boundary=st.sampled_from(["voxels", "elements"]),
    pooled_hd95=st.booleans(),
    lesions=st.booleans(),
    boundary_at_edges=st.booleans(),
)


@st.composite
def tables(draw):
    """The labels, and one to three cases of a reference, a prediction (or none) and a spacing."""
    labels, values = LABELS[draw(st.sampled_from(sorted(LABELS)))]
    predicted = [value for value in values if value != 255]
    cases = []
    for _ in range(draw(st.integers(1, 3))):
        random, shape = np.random.default_rng(draw(st.integers(0, 10**6))), draw(st.sampled_from(SHAPES))
        reference, prediction = (
            random.choice(some, shape, p=random.dirichlet(np.ones(len(some)))).astype(np.uint8)
            for some in (values, predicted)
        )
        if draw(st.booleans()):
            prediction = np.where(reference == 255, 0, reference)
        cases.append((reference, prediction, tuple(random.choice([0.5, 1.0, 3.0], 3))))
    return labels, cases


def summary(labels, cases, definitions, penalty=None):
    """The summary of cases; a case without a prediction has no file."""
    references, predictions = {}, {"sentinel": (np.zeros((1, 1, 1), np.uint8), np.eye(4))}
    references["sentinel"] = predictions["sentinel"]
    for number, (reference, prediction, spacing) in enumerate(cases):
        affine = np.diag([*spacing, 1.0])
        references[f"case_{number}"] = (reference, affine)
        if prediction is not None:
            predictions[f"case_{number}"] = (prediction, affine)
    table = evaluate(predictions, references, labels=labels, definitions=definitions, threads=1)
    return replace(table, rows=tuple(row for row in table.rows if row.case != "sentinel")).summary(penalty_mm=penalty)


def figures(of, *, counted):
    """Figures by name, larger is better. `counted` adds those of the voxels or lesions of all cases together.

    Specificity is left out: that of an empty mask is 1.
    """
    shares, found = ("dice", "iou", "recall", "precision", "nsd"), {}
    for label in of.labels:
        for metric in shares:
            share = label.shares[metric]
            found |= {f"{label.label} {metric} {name}": getattr(share, name) for name in ("mean", "median", "worst")}
        for metric, distance in label.distances.items():
            for name in ("mean", "median", "lower_quartile", "upper_quartile", "worst", "penalised_mean"):
                found[f"{label.label} {metric} {name}"] = -getattr(distance, name)
        if counted:
            found |= {f"{label.label} micro {name}": label.micro[name] for name in shares[:4]}
            if label.lesions is not None:
                found |= {f"{label.label} lesion {name}": getattr(label.lesions, name) for name in ("recall", "f1")}
    for metric, value in of.macro.items():
        if metric in shares or metric.endswith("mm"):
            found[f"macro {metric}"] = -value if metric.endswith("mm") else value
    return found | ({f"micro {name}": of.micro[name] for name in shares[:4]} if counted else {})


def assert_no_better(before, after, *, counted=True):
    old, new = figures(before, counted=counted), figures(after, counted=counted)
    for name, value in old.items():
        assert math.isnan(value) or new[name] <= value + 1e-9, (name, value, new[name])


@given(tables(), DEFINITIONS, st.sampled_from(PENALTIES), st.sampled_from(SHAPES), st.booleans())
@settings(max_examples=60)
def test_a_further_miss_improves_no_figure(table, definitions, penalty, shape, has_file):
    labels, cases = table
    reference = np.zeros(shape, np.uint8)
    reference.flat[::3] = 1
    reference.flat[1::3] = 2 if "2" in labels else 1
    missed = (reference, np.zeros(shape, np.uint8) if has_file else None, (1.0, 1.0, 1.0))
    before, after = (summary(labels, some, definitions, penalty) for some in (cases, [*cases, missed]))
    assert_no_better(before, after)


@pytest.mark.parametrize(("boundary", "hd", "diagonal"), [("voxels", 12.0, 12.0), ("elements", 15.0, 235**0.5)])
def test_no_distance_is_longer_than_the_penalty_of_a_miss(boundary, hd, diagonal):
    """Surface elements lie at the corners of voxels, so they can lie further apart than any two centres."""
    reference, prediction = (
        (np.array(values, np.uint8).reshape(1, 5, 1), np.diag([1.0, 3.0, 3.0, 1.0]))
        for values in ([1, 255, 2, 2, 2], [0, 1, 1, 1, 1])
    )
    labels, chosen = "organ=1,other=2,ignore=255", Definitions(boundary=boundary, boundary_at_edges=True)
    row = evaluate({"a": prediction}, {"a": reference}, labels=labels, definitions=chosen, threads=1).rows[0]
    assert (row.hd_mm, row.diagonal_mm) == pytest.approx((hd, diagonal))


@given(tables(), DEFINITIONS, st.sampled_from([None, "diagonal"]), st.booleans(), st.data())
@settings(max_examples=60)
def test_a_miss_in_place_of_a_prediction_improves_no_figure(table, definitions, penalty, has_file, data):
    labels, cases = table
    number = data.draw(st.integers(0, len(cases) - 1))
    reference, prediction, spacing = cases[number]
    # An empty mask is a miss only if every predicted label is drawn too; else it takes a false prediction away.
    is_drawn = {*np.unique(prediction)} <= {0, *np.unique(reference)}
    nothing = np.zeros_like(prediction) if has_file and is_drawn else None
    worse = [*cases[:number], (reference, nothing, spacing), *cases[number + 1 :]]
    before, after = (summary(labels, some, definitions, penalty) for some in (cases, worse))
    assert_no_better(before, after, counted=False)


@given(tables(), DEFINITIONS, st.sampled_from(PENALTIES), st.sampled_from([0, 1]))
@settings(max_examples=60)
def test_a_flooded_volume_in_place_of_a_right_mask_improves_no_figure(table, definitions, penalty, fill):
    labels, cases = table
    right = [(reference, np.where(reference == 255, 0, reference), spacing) for reference, _, spacing in cases]
    flooded = [(reference, np.full_like(reference, fill), spacing) for reference, _, spacing in cases]
    for number in range(len(cases)):
        worse = [*right[:number], flooded[number], *right[number + 1 :]]
        before, after = (summary(labels, some, definitions, penalty) for some in (right, worse))
        assert_no_better(before, after)


def test_the_penalty_of_a_miss_is_that_of_the_largest_volume_missed():
    """A second miss in a small volume must not lower the mean that the first, in a large one, has set."""
    small, large = np.ones((2, 2, 2), np.uint8), np.ones((9, 9, 9), np.uint8)
    cases = [(mask, np.zeros_like(mask), (1.0, 1.0, 1.0)) for mask in (large, small)]
    for some in (cases[:1], cases):
        found = summary("organ=1", some, Definitions(), "diagonal")["organ"].distances["hd_mm"]
        assert found.penalised_mean == pytest.approx(8 * 3**0.5)
