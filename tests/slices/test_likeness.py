"""Cases unlike the others are found, and usual ones are not."""

import numpy as np
import pytest

from medfcn.slices.likeness import FEWEST, cube_of, far_from_others, turned
from medfcn.volumes import Volume
from tests.slices.stored_orders import ORDERS, stored_in

GRID = np.diag([2.0, 2.0, 3.0, 1.0])


def head(seed: int) -> np.ndarray:
    """A picture without any symmetry: bright in front, a mark on the left, falling towards the feet."""
    random = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(0, 1, size) for size in (30, 36, 20)), indexing="ij")
    picture = 2.0 * y + 1.0 * z + 3.0 * ((x < 0.3) & (y < 0.5)) + 2.0 * (x - 0.4) ** 2
    return (100 * (picture + 0.2 * random.standard_normal(picture.shape))).astype(np.int16)


def cubes(count: int = 10) -> dict[str, np.ndarray]:
    return {f"case_{number}": cube_of(Volume(head(number), GRID)) for number in range(count)}


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize(("plane", "axes"), [("axial", (0, 1)), ("coronal", (0, 2)), ("sagittal", (1, 2))])
def test_a_turned_case_is_named_with_the_turn_that_rights_it(
    plane: str, axes: tuple[int, int], quarters: int
) -> None:
    wrong = np.rot90(head(99), -quarters, axes)
    found = turned(cubes() | {"wrong": cube_of(Volume(np.ascontiguousarray(wrong), GRID))})
    assert found == {"wrong": f"turned by {90 * quarters}° in the {plane} plane"}


def test_a_mirror_image_is_named() -> None:
    found = turned(cubes() | {"wrong": cube_of(Volume(np.ascontiguousarray(head(99)[::-1]), GRID))})
    assert found == {"wrong": "mirrored right-left"}


def test_the_stored_order_alone_is_nothing_unusual() -> None:
    usual, expected = cubes(), cube_of(Volume(head(99), GRID))
    for order in ORDERS:
        cube = cube_of(Volume(*stored_in(head(99), GRID, order)))
        assert np.corrcoef(cube.ravel(), expected.ravel())[0, 1] > 0.98
        assert turned(usual | {"other": cube}) == {}


def test_nothing_is_said_of_few_cases_or_of_a_set_without_a_usual_look() -> None:
    wrong = {"wrong": cube_of(Volume(np.ascontiguousarray(head(99)[::-1]), GRID))}
    assert turned(cubes(FEWEST - 2) | wrong) == {}
    random = np.random.default_rng(1)
    noise = {f"noise_{number}": cube_of(Volume(random.standard_normal((20, 20, 20)), GRID)) for number in range(12)}
    assert turned(noise) == {}


def test_a_constant_volume_is_no_turned_one() -> None:
    assert turned(cubes() | {"empty": cube_of(Volume(np.zeros((20, 20, 20)), GRID))}) == {}


def test_values_far_from_all_others() -> None:
    usual = [10.0, 10.5, 9.5, 10.2, 9.8, 10.1, 9.9, 10.0]
    assert far_from_others([*usual, 14.0]) == [False] * 8 + [True]
    assert far_from_others([*usual, np.nan, np.inf]) == [False] * 10
    assert far_from_others([1.0] * 12 + [1.01]) == [False] * 13
    assert far_from_others([384.0] * 40 + [324.0] * 30) == [False] * 70
