"""`check` sees that masks were exchanged between cases of one grid, and says nothing of masks that are right."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from medfcn.datasets.check import check
from medfcn.datasets.crossed import _ranks, exchanged, exchanged_problems, glance_at
from medfcn.labels.values import ValueSet
from medfcn.volumes import Volume, read_volume

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SHAPE = (30, 26, 22)
Pairs = Mapping[str, tuple[Volume, Volume]]


def organ(seed: int, *, noise: float = 1.0) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A noisy image of a ball with a bright half at a place of its own, and its mask of two labels."""
    chance = np.random.default_rng(seed)
    away = np.indices(SHAPE) - chance.uniform(7, np.array(SHAPE) - 7)[:, None, None, None]
    mask = ((away**2).sum(axis=0) < 5.5**2).astype(np.uint8)
    mask[(mask > 0) & (away[0] > 0)] = 2
    return (mask + chance.normal(0, noise, SHAPE)).astype(np.float32), mask


def write(root: Path, pairs: Pairs, order: Mapping[str, str]) -> Path:
    """A data set in which a case has the mask of another one."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for case, (image, _) in pairs.items():
        image.save(root / "images" / f"{case}.nii.gz")
        pairs[order.get(case, case)][1].save(root / "labels" / f"{case}.nii.gz")
    return root


def phantoms(count: int, *, affine: NDArray[np.float64] | None = None, noise: float = 1.0) -> Pairs:
    found = {}
    for seed in range(count):
        image, mask = organ(seed, noise=noise)
        grid = np.diag([1.5, 1.5, 2.0, 1.0]) if affine is None else affine
        found[f"case_{seed:03d}"] = (Volume(image, grid), Volume(mask, grid))
    return found


def found_in(root: Path, **choices: object) -> list[str]:
    return [one.line for one in check(root, **choices).problems if one.code == "MASKS_EXCHANGED"]  # type: ignore[arg-type]


def test_two_exchanged_masks_are_named(tmp_path: Path) -> None:
    pairs = phantoms(6)
    assert found_in(write(tmp_path / "right", pairs, {})) == []
    crossed = {"case_001": "case_004", "case_004": "case_001"}
    assert found_in(write(tmp_path / "wrong", pairs, crossed)) == [
        "warning MASKS_EXCHANGED dataset: the masks of case_001, case_004 seem to be exchanged: each fits the image "
        "of the other case much better than its own; look at these cases (medfcn look), and give each its own"
    ]


def test_a_list_that_slipped_by_one_is_a_round(tmp_path: Path) -> None:
    names = list(phantoms(5))
    slipped = dict(zip(names, [*names[1:], names[0]], strict=True))
    (line,) = found_in(write(tmp_path, phantoms(5), slipped))
    # The mask of 000 lies at 004, whose own lies at 003.
    assert "case_000, case_004, case_003, case_002, case_001 seem" in line
    assert "each fits the image of the case before it" in line


def test_only_cases_of_one_grid_are_compared() -> None:
    moved = np.diag([1.5, 1.5, 2.0, 1.0])
    moved[0, 3] = 0.8
    images = phantoms(2)
    glances = []
    for case, other in (("case_000", "case_001"), ("case_001", "case_000")):
        image, mask = images[case][0], images[other][1]
        glances.append((case, image, mask))
    same = [glance_at(case, [image], mask, ValueSet(())) for case, image, mask in glances]
    assert len(exchanged_problems([one for one in same if one is not None])) == 1
    case, image, mask = glances[1]
    far = glance_at(case, [Volume(image.array, moved)], Volume(mask.array, moved), ValueSet(()))
    assert same[0] is not None
    assert far is not None
    assert exchanged_problems([same[0], far]) == []


def test_nothing_is_said_where_nothing_can_be_told() -> None:
    image, mask = (Volume(array, np.eye(4)) for array in organ(0))
    few = Volume(np.where(np.indices(SHAPE).sum(axis=0) < 3, 1, 0).astype(np.uint8), np.eye(4))
    nothing = Volume(np.zeros(SHAPE, np.uint8), np.eye(4))
    assert glance_at("a", [image], mask, ValueSet(())) is not None
    assert glance_at("a", [image], few, ValueSet(())) is None
    assert glance_at("a", [image], nothing, ValueSet(())) is None
    assert glance_at("a", [image], mask, ValueSet((1, 2))) is None
    # Images of noise alone fit no mask: whichever is chosen is right.
    images = [Volume(organ(seed, noise=1e6)[0], np.eye(4)) for seed in range(9)]
    noise = [glance_at(f"{seed}", [image], mask, ValueSet(())) for seed, image in enumerate(images)]
    assert exchanged_problems([one for one in noise if one is not None]) == []


def test_voxels_that_nobody_labelled_tell_nothing() -> None:
    image, mask = organ(0)
    mask[:, ::6] = 255
    found = glance_at("a", [Volume(image, np.eye(4))], Volume(mask, np.eye(4)), ValueSet((255,)))
    assert found is not None
    assert not found.around[:, ::6].any()
    assert found.around[(mask == 1) | (mask == 2)].all()


def test_of_many_cases_the_doubtful_ones_are_compared() -> None:
    pairs = phantoms(120)
    own = {case: case for case in pairs}
    for order, expected in ((own, 0), (own | {"case_050": "case_099", "case_099": "case_050"}, 1)):
        glances = [glance_at(case, [pairs[case][0]], pairs[order[case]][1], ValueSet(())) for case in pairs]
        problems = exchanged_problems([one for one in glances if one is not None])
        assert len(problems) == expected
        assert all("case_050, case_099 seem" in problem.found for problem in problems)


def test_a_gain_that_right_masks_have_too_is_none() -> None:
    fits = np.array([[0.5, 0.55], [0.55, 0.5]])
    assert exchanged(fits) == []
    assert exchanged(fits + np.array([[0, 0.1], [0.1, 0]])) == [[0, 1]]
    assert exchanged(np.zeros((0, 0))) == []


def cropped(volume: Volume, shape: Sequence[int]) -> Volume:
    middle = tuple(
        slice((size - few) // 2, (size - few) // 2 + few) for size, few in zip(volume.shape, shape, strict=True)
    )
    return Volume(volume.array[middle], np.eye(4))


@pytest.mark.parametrize("folder", ["hippocampus", "sts_mr_t1", "sts_ct"])
def test_real_masks_are_right(folder: str, tmp_path: Path) -> None:
    """And exchanged ones are found: of the first ten hippocampi 43 of all 45 times that two are exchanged."""
    images = sorted((SHARED / folder / "images").glob("*.nii.gz"))[:10]
    if not images:
        pytest.skip("the shared data are not here")
    pairs = {}
    for path in images:
        image, mask = read_volume(path), read_volume(SHARED / folder / "labels" / path.name)
        pairs[path.name] = image, Volume(mask.array.astype(np.uint8), mask.affine)
    shape = [min(image.shape[axis] for image, _ in pairs.values()) for axis in range(3)]
    same = {case: (cropped(image, shape), cropped(mask, shape)) for case, (image, mask) in pairs.items()}
    found = {case: glance_at(case, [image], mask, ValueSet(())) for case, (image, mask) in same.items()}
    glances = [one for one in found.values() if one is not None]
    assert len(glances) >= 8
    assert exchanged_problems(glances) == []
    if folder != "hippocampus":
        return
    named = 0
    for one, other in itertools.combinations(same, 2):
        order = {one: other, other: one}
        crossed = [glance_at(case, [same[case][0]], same[order.get(case, case)][1], ValueSet(())) for case in same]
        problems = exchanged_problems([glance for glance in crossed if glance is not None])
        assert all(f"{one}, {other} seem" in problem.found for problem in problems)
        named += len(problems)
    assert named >= 43


@pytest.mark.parametrize("value", [0.0, 7.0, 1e308])
def test_images_of_one_value_or_of_numbers_without_a_range_tell_nothing(value: float) -> None:
    numbers = np.full((6, 6, 6), value)
    numbers[:3] = -1e308 if value == 1e308 else value
    assert not _ranks(numbers).any()
