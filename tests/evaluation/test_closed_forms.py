"""Concentric discs, cylinders and spheres, whole and cut by the field of view: figures against their closed forms.

`inner` and `outer` are the radii of reference and prediction, `d` is their difference. Cut shapes are halves whose
flat side lies at the end of the volume; a cylinder goes through the whole volume. Where the end is no boundary, the
surfaces are `d` apart everywhere. Where it is boundary, the flat side of the reference lies on that of the
prediction, and points close to the end are closer to a flat side than to the other round one.

The largest distance also depends on how a circle falls on voxels (up to half a diagonal for each mask), so the radii
are such for which voxels draw both circles alike.
"""

from math import asin, cos, pi

import numpy as np
import pytest

from medfcn.evaluation import Definitions, evaluate, surface_distances

RADII = {1.0: [(18, 22), (16, 20)], 0.25: [(8, 9), (6, 7)]}
CASES = [(spacing, *radii) for spacing, several in RADII.items() for radii in several]
WITHIN_MM = {1.0: 0.35, 0.25: 0.1}
WITHIN_SHARE = {1.0: 0.05, 0.25: 0.02}
LENGTH = 10


def ring(inner, outer):
    """The integral of the distance to the inner disc over a ring."""
    return 2 * pi * ((outer**3 - inner**3) / 3 - inner * (outer**2 - inner**2) / 2)


def half_disc(inner, outer, tolerance):
    """ASSD, and NSD for a tolerance below `d`."""
    d, steep = outer - inner, asin((outer - inner) / inner)
    size = pi * (inner + outer) + 2 * (inner + outer)
    far = 2 * inner**2 * (1 - cos(steep)) + inner * d * (pi - 2 * steep) + pi * outer * d + d**2
    near = 2 * inner * asin(tolerance / inner) + 4 * inner + 2 * tolerance
    return far / size, near / size


def half_ball(inner, outer, tolerance):
    d, size = outer - inner, 3 * pi * (inner**2 + outer**2)
    far = 2 * pi * inner * (d**2 / 2 + d * (inner - d)) + 2 * pi * outer**2 * d + ring(inner, outer)
    near = pi * (2 * inner * tolerance + inner**2 + (inner + tolerance) ** 2)
    return far / size, near / size


def cut_cylinder(inner, outer, tolerance):
    d, size = outer - inner, 2 * pi * LENGTH * (inner + outer) + 2 * pi * (inner**2 + outer**2)
    far = 2 * pi * inner * (LENGTH * d - d**2) + 2 * pi * outer * LENGTH * d + 2 * ring(inner, outer)
    near = 2 * pi * (2 * inner * tolerance + inner**2 + (inner + tolerance) ** 2)
    return far / size, near / size


# The number of round axes, and of the further axes: whole, the half that starts at the centre, or straight through.
SHAPES = {
    "disc": (2, "", None),
    "half disc": (2, "cut", half_disc),
    "ball": (3, "", None),
    "half ball": (3, "cut", half_ball),
    "cylinder": (2, "through", cut_cylinder),
}


def draw(name, radius, largest, spacing):
    """The shape on voxels: `round` axes through its centre, the last of which may be cut there."""
    axes, end, _ = SHAPES[name]
    places = np.arange(-largest - 2, largest + 2 + spacing / 2, spacing)
    along = [places] * axes
    if end == "cut":
        along[-1] = np.arange(spacing / 2, largest + 2, spacing)
    squares = sum(np.meshgrid(*(axis**2 for axis in along), indexing="ij", sparse=True))
    mask = squares <= radius**2
    return np.repeat(mask[..., None], round(LENGTH / spacing), axis=2) if end == "through" else mask


@pytest.mark.parametrize(("spacing", "inner", "outer"), CASES)
@pytest.mark.parametrize("at_edges", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_figures_are_those_of_the_closed_forms(name, at_edges, spacing, inner, outer):
    reference, prediction = (draw(name, radius, outer, spacing) for radius in (inner, outer))
    steps, rule = (spacing,) * reference.ndim, {"boundary_at_edges": at_edges}
    form, tolerance = SHAPES[name][2] if at_edges else None, (outer - inner) / 2
    assd, share = form(inner, outer, tolerance) if form else (outer - inner, 0)

    found = surface_distances(reference, prediction, steps, **rule)
    assert found.hausdorff_mm() == pytest.approx(outer - inner, abs=WITHIN_MM[spacing])
    assert found.assd_mm() == pytest.approx(assd, abs=WITHIN_MM[spacing])
    # Surface elements have an area, as the share of a surface asks for; voxels count one each.
    found = surface_distances(reference, prediction, steps, boundary="elements", **rule)
    assert found.nsd(tolerance_mm=tolerance) == pytest.approx(share, abs=WITHIN_SHARE[spacing])
    assert found.nsd(tolerance_mm=outer - inner + 0.75 * spacing) == 1


def test_a_shape_flush_with_the_volume_counts_as_the_shape_that_is_cut():
    """A slice of a cut cylinder is scored in its plane, with and without ends: the round side is all that is left."""
    rows = {}
    for name, shape in (("cylinder", "cylinder"), ("slice", "disc")):
        pair = [draw(shape, radius, 24, 1.0).astype(np.uint8) for radius in (24, 20)]
        masks = [{"a": (mask if mask.ndim == 3 else mask[..., None], np.eye(4))} for mask in pair]
        definitions = Definitions(boundary_at_edges=False, tolerance_mm=2.0)
        (rows[name],) = evaluate(*masks, labels="organ=1", definitions=definitions).rows
    assert rows["cylinder"].hd95_mm == pytest.approx(rows["slice"].hd95_mm, abs=1e-9)
    assert rows["cylinder"].assd_mm == pytest.approx(rows["slice"].assd_mm, abs=1e-9)
    assert rows["cylinder"].nsd == rows["slice"].nsd == 0
