"""Cases unlike the others are found, and usual ones are not."""

import numpy as np
import pytest

from medfcn.labels.values import ValueSet
from medfcn.slices.likeness import FEWEST, Shape, cube_of, far_from_others, label_cubes_of, turned
from medfcn.volumes import Volume
from tests.slices.stored_orders import ORDERS, stored_in

GRID = np.diag([2.0, 2.0, 3.0, 1.0])


def head(seed: int) -> np.ndarray:
    """A picture without any symmetry: bright in front, a mark on the left, falling towards the feet."""
    random = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(0, 1, size) for size in (30, 36, 20)), indexing="ij")
    picture = 2.0 * y + 1.0 * z + 3.0 * ((x < 0.3) & (y < 0.5)) + 2.0 * (x - 0.4) ** 2
    return (100 * (picture + 0.2 * random.standard_normal(picture.shape))).astype(np.int16)


def shape_of(array: np.ndarray) -> Shape:
    return Shape(cube_of(Volume(np.ascontiguousarray(array), GRID)))


def cubes(count: int = 10) -> dict[str, Shape]:
    return {f"case_{number}": shape_of(head(number)) for number in range(count)}


def organ(seed: int) -> np.ndarray:
    """A mask like a boot, anywhere and of any size."""
    random = np.random.default_rng(seed)
    x, y, z = random.integers(2, 10, 3)
    long = int(random.integers(9, 13))
    mask = np.zeros((30, 36, 24), np.uint8)
    mask[x : x + 4, y : y + long, z : z + 3] = 3
    mask[x : x + 4, y : y + 3, z : z + long // 2 + 2] = 3
    return mask


def ball(seed: int) -> np.ndarray:
    """A picture that is the same from all sides."""
    random = np.random.default_rng(seed)
    axes = (np.linspace(-1, 1, size) for size in (30, 36, 24))
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return x**2 + y**2 + z**2 + 0.1 * random.standard_normal(x.shape)


def test_labels_tell_a_turned_case_where_its_picture_does_not() -> None:
    def shaped(seed: int, move) -> Shape:
        mask = Volume(np.ascontiguousarray(move(organ(seed))), GRID)
        return Shape(cube_of(Volume(ball(seed), GRID)), label_cubes_of(mask))

    usual = {f"case_{number}": shaped(number, lambda mask: mask) for number in range(10)}
    assert turned(usual | {"right": shaped(99, lambda mask: mask)}) == {}
    mirrored = turned(usual | {"wrong": shaped(99, lambda mask: mask[:, ::-1])})
    assert mirrored == {"wrong": "mirrored front-back"}
    assert turned({case: Shape(shape.image) for case, shape in usual.items()}) == {}


def test_ignored_values_are_no_labels_and_an_empty_mask_has_none() -> None:
    mask = organ(1)
    expected = label_cubes_of(Volume(mask, GRID))
    assert expected.keys() == {3}
    strokes = np.where(mask == 0, 255, mask).astype(np.uint8)
    found = label_cubes_of(Volume(strokes, GRID), ignored=ValueSet((255,)))
    assert found.keys() == {3}
    np.testing.assert_array_equal(found[3], expected[3])
    assert label_cubes_of(Volume(np.zeros((9, 9, 9), np.uint8), GRID)) == {}


def test_each_plane_of_a_continuum_is_usual_and_the_opposite_of_all_is_not() -> None:
    """As hearts, whose planes are chosen for each patient: pictures turned by −40 to 40° are no question."""
    from scipy.ndimage import rotate

    def seen(angle: float, seed: int) -> Shape:
        return shape_of(rotate(head(seed)[3:27, 6:30].astype(float), angle, (0, 1), reshape=False, mode="nearest"))

    usual = {f"case_{angle}": seen(angle, angle + 99) for angle in range(-40, 41, 5)}
    assert turned(usual) == {}
    assert turned(usual | {"wrong": seen(180, 7)}).keys() == {"wrong"}


def test_the_same_patient_is_no_witness() -> None:
    usual = {case: Shape(shape.image, group=case) for case, shape in cubes(12).items()}
    wrong = {f"wrong_{visit}": Shape(shape_of(head(visit)[::-1]).image, group="one") for visit in range(90, 96)}
    assert turned(usual | wrong).keys() == wrong.keys()
    strangers = {case: Shape(shape.image) for case, shape in wrong.items()}
    assert turned(usual | strangers) == {}, "six patients are a way to be"


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize(("plane", "axes"), [("axial", (0, 1)), ("coronal", (0, 2)), ("sagittal", (1, 2))])
def test_a_turned_case_is_named_with_the_turn_that_rights_it(
    plane: str, axes: tuple[int, int], quarters: int
) -> None:
    wrong = np.rot90(head(99), -quarters, axes)
    found = turned(cubes() | {"wrong": shape_of(wrong)})
    assert found == {"wrong": f"turned by {90 * quarters}° in the {plane} plane"}


def test_a_mirror_image_is_named() -> None:
    found = turned(cubes() | {"wrong": shape_of(head(99)[::-1])})
    assert found == {"wrong": "mirrored right-left"}


def test_the_stored_order_alone_is_nothing_unusual() -> None:
    usual, expected = cubes(), cube_of(Volume(head(99), GRID))
    for order in ORDERS:
        cube = cube_of(Volume(*stored_in(head(99), GRID, order)))
        assert np.corrcoef(cube.ravel(), expected.ravel())[0, 1] > 0.98
        assert turned(usual | {"other": Shape(cube)}) == {}


def test_the_stored_order_alone_changes_no_labels() -> None:
    (expected,) = label_cubes_of(Volume(organ(99), GRID)).values()
    for order in ORDERS:
        (cube,) = label_cubes_of(Volume(*stored_in(organ(99), GRID, order))).values()
        assert np.corrcoef(cube.ravel(), expected.ravel())[0, 1] > 0.98


def test_nothing_is_said_of_few_cases_or_of_a_set_without_a_usual_look() -> None:
    wrong = {"wrong": shape_of(head(99)[::-1])}
    assert turned(cubes(FEWEST - 2) | wrong) == {}
    random = np.random.default_rng(1)
    noise = {f"noise_{number}": shape_of(random.standard_normal((20, 20, 20))) for number in range(12)}
    assert turned(noise) == {}


def test_a_constant_volume_is_no_turned_one() -> None:
    assert turned(cubes() | {"empty": shape_of(np.zeros((20, 20, 20)))}) == {}


def test_values_far_from_all_others() -> None:
    usual = [10.0, 10.5, 9.5, 10.2, 9.8, 10.1, 9.9, 10.0]
    assert far_from_others([*usual, 14.0]) == [False] * 8 + [True]
    assert far_from_others([*usual, np.nan, np.inf]) == [False] * 10
    assert far_from_others([1.0] * 12 + [1.01]) == [False] * 13
    assert far_from_others([384.0] * 40 + [324.0] * 30) == [False] * 70
