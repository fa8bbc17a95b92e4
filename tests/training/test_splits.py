"""A patient is never on both sides of a split."""

from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfcn.datasets import Case, Dataset
from medfcn.datasets.cases import Splits
from medfcn.errors import DatasetError
from medfcn.labels import LabelMap
from medfcn.training.folds import split_by_group, split_cases, split_into_folds
from medfcn.training.survey import Survey
from medfcn.volumes import ReadOptions


def cases_of(groups: list[int]) -> list[Case]:
    return [
        Case(id=f"case_{number}", images=(Path("a.nii"),), label=Path("b.nii"), group=str(group))
        for number, group in enumerate(groups)
    ]


@given(
    st.lists(st.integers(min_value=0, max_value=12), min_size=2, max_size=60).filter(
        lambda groups: len(set(groups)) > 1
    ),
    st.floats(min_value=0, max_value=0.9),
    st.integers(min_value=0, max_value=5),
)
def test_no_group_is_parted_and_no_case_is_lost(groups: list[int], share: float, seed: int) -> None:
    cases = cases_of(groups)
    split = split_by_group(cases, validation_share=share, seed=seed)
    group_of = {case.id: case.group for case in cases}
    assert set(split.training) | set(split.validation) == set(group_of)
    assert not {group_of[case] for case in split.training} & {group_of[case] for case in split.validation}
    assert split.training
    assert split.validation


def test_a_split_follows_from_the_seed_and_not_from_the_order_of_files() -> None:
    cases = cases_of(list(range(30)))
    first = split_by_group(cases, validation_share=0.2, seed=3)
    assert split_by_group(cases[::-1], validation_share=0.2, seed=3) == first
    assert split_by_group(cases, validation_share=0.2, seed=4) != first


def test_one_patient_alone_cannot_be_validated() -> None:
    with pytest.raises(DatasetError, match="two groups or more"):
        split_by_group(cases_of([1, 1, 1]), validation_share=0.2, seed=0)


def folded(cases: list[Case], held: dict[str, tuple[int, ...]], count: int, seed: int = 0) -> list[set[str]]:
    names = [f"label_{number}" for number in range(len(next(iter(held.values()))))]
    splits = split_into_folds(cases, held, names, count=count, seed=seed)
    for number, split in enumerate(splits, start=1):
        assert split.fold == f"{number} of {count}"
        assert sorted(split.training + split.validation) == sorted(case.id for case in cases)
    return [set(split.validation) for split in splits]


@given(st.data(), st.integers(min_value=2, max_value=6), st.integers(min_value=0, max_value=5))
def test_folds_part_no_group_and_hold_each_case_out_once(data: st.DataObject, count: int, seed: int) -> None:
    groups = data.draw(
        st.lists(st.integers(min_value=0, max_value=15), min_size=count, max_size=50).filter(
            lambda groups: len(set(groups)) >= count
        )
    )
    cases = cases_of(groups)
    held = folded(cases, {case.id: (1,) for case in cases}, count, seed)
    assert sorted(case for part in held for case in part) == sorted(case.id for case in cases)
    for group in {case.group for case in cases}:
        assert sum(bool(part & {case.id for case in cases if case.group == group}) for part in held) == 1
    # Largest first, each to the emptiest: no fold is larger than the smallest by more than the largest group.
    largest = max(groups.count(group) for group in groups)
    assert max(map(len, held)) - min(map(len, held)) <= largest


@given(st.integers(min_value=2, max_value=7), st.integers(min_value=7, max_value=60))
def test_folds_of_single_cases_differ_by_one_at_most(count: int, number: int) -> None:
    cases = cases_of(list(range(number)))
    sizes = [len(part) for part in folded(cases, {case.id: (1,) for case in cases}, count)]
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(min_value=0, max_value=20), st.integers(min_value=3, max_value=12))
def test_a_rare_label_is_in_every_fold_where_that_can_be(seed: int, rare: int) -> None:
    cases = cases_of(list(range(40)))
    held = {case.id: (1, int(number < rare)) for number, case in enumerate(cases)}
    parts = folded(cases, held, 3, seed)
    counts = [sum(held[case][1] for case in part) for part in parts]
    assert max(counts) - min(counts) <= 1
    assert max(map(len, parts)) - min(map(len, parts)) <= 2


def test_folds_follow_from_the_seed_and_not_from_the_order_of_files() -> None:
    cases = cases_of(list(range(30)))
    held = {case.id: (1,) for case in cases}
    assert folded(cases, held, 5) == folded(cases[::-1], held, 5)
    assert folded(cases, held, 5) != folded(cases, held, 5, seed=1)


def test_folds_that_cannot_be_are_refused() -> None:
    cases = cases_of([1, 1, 2, 2])
    with pytest.raises(DatasetError, match="3 folds of 2 groups"):
        folded(cases, {case.id: (1,) for case in cases}, 3)
    cases = cases_of([1, 2, 3, 4])
    with pytest.raises(
        DatasetError, match=r"fold 1 of 2: none of its 2 training cases contains label_1 \(of all 4 cases 1"
    ):
        folded(cases, {case.id: (1, int(case.group == "4")) for case in cases}, 2)


def present_rule(cases: list[Case], share: float, seed: int) -> set[str]:
    """The groups that are drawn without a look at labels."""
    return set(split_by_group(cases, validation_share=share, seed=seed).validation)


@given(st.data(), st.integers(min_value=2, max_value=9), st.integers(min_value=0, max_value=9))
def test_every_label_is_validated_where_that_is_possible(data: st.DataObject, count: int, seed: int) -> None:
    labels = data.draw(st.integers(min_value=1, max_value=4))
    cases = cases_of(
        data.draw(st.lists(st.integers(0, 6), min_size=2, max_size=10).filter(lambda g: len(set(g)) > 1))
    )
    voxels = {case.id: tuple(data.draw(st.sampled_from([0, 0, 7])) for _ in range(labels)) for case in cases}
    present = {place for row in voxels.values() for place, number in enumerate(row) if number}
    split = split_by_group(cases, validation_share=0.1 * count, seed=seed, label_voxels=voxels)

    def labels_in(ids: Iterable[str]) -> set[int]:
        return {place for name in ids for place, number in enumerate(voxels[name]) if number}

    group_of = {case.id: case.group for case in cases}
    assert not {group_of[case] for case in split.training} & {group_of[case] for case in split.validation}
    assert split.training
    assert split.validation
    drawn = present_rule(cases, 0.1 * count, seed)
    left = [labels_in(set(group_of) - drawn), labels_in(drawn)]
    if left == [present, present]:
        assert set(split.validation) == drawn
    assert [len(labels_in(part)) for part in (split.training, split.validation)] >= [len(part) for part in left]
    groups = sorted(set(group_of.values()))
    parts = [set(part) for size in range(1, len(groups)) for part in combinations(groups, size)]
    sides = [
        [labels_in(case for case in group_of if (group_of[case] in part) is inside) for inside in (True, False)]
        for part in parts
    ]
    if [present, present] in sides:
        assert labels_in(split.validation) == present
        assert labels_in(split.training) == present


def test_of_twenty_cases_of_which_every_second_is_empty_one_that_is_not_is_validated() -> None:
    cases = cases_of(list(range(20)))
    for even in (0, 1):
        voxels = {case.id: (500 * (number % 2 == even),) for number, case in enumerate(cases)}
        for seed in range(10):
            split = split_by_group(cases, validation_share=0.1, seed=seed, label_voxels=voxels)
            assert any(voxels[case][0] for case in split.validation)
            assert len(split.validation) == 2


def test_a_rare_label_stays_among_the_training_cases() -> None:
    cases = cases_of(list(range(8)))
    voxels = {case.id: (9, int(case.group == "5")) for case in cases}
    for seed in range(20):
        assert "case_5" in split_by_group(cases, validation_share=0.1, seed=seed, label_voxels=voxels).training


def test_labels_of_one_patient_each_leave_a_validation_case() -> None:
    cases = cases_of([0, 1])
    split = split_by_group(cases, validation_share=0.1, seed=0, label_voxels={"case_0": (9, 0), "case_1": (0, 9)})
    assert (len(split.training), len(split.validation)) == (1, 1)


def surveyed(cases: list[Case], voxels: dict[str, tuple[int, ...]], **about: Any) -> Survey:
    figures = {name: SimpleNamespace(label_voxels=row) for name, row in voxels.items()}
    dataset = Dataset(Path(), "nnunet", tuple(cases), ("MRI",), **about)
    labels = LabelMap.from_names({place + 1: f"label_{place}" for place in range(len(next(iter(voxels.values()))))})
    return Survey(dataset, labels, ReadOptions(), tuple(cases), cast("Any", figures), {}, {}, ())


def test_a_prescribed_split_is_used_as_it_is() -> None:
    cases = cases_of(list(range(6)))
    voxels = {case.id: (1, int(case.id == "case_5")) for case in cases}
    splits = Splits("splits_final.json", ((("case_0", "case_1", "case_5"), ("case_2", "case_3")),))
    found = surveyed(cases, voxels, splits=splits)
    split = split_cases(found, validation_share=0.5, seed=3)
    assert (split.training, split.validation) == (("case_0", "case_1", "case_5"), ("case_2", "case_3"))
    assert split.origin == "the split is that of splits_final.json; 1 case in neither of its parts, and not used"
    assert split.notes == ("label_1: in no validation case, so it has no score (1 training case)",)
    with pytest.raises(DatasetError, match=r"splits_final.json prescribes 1 fold, 2 are requested; train without"):
        split_into_folds(cases, voxels, ["a", "b"], count=2, seed=0, prescribed=splits)
    without = surveyed(cases[:2], {case.id: (1,) for case in cases[:2]}, splits=splits)
    with pytest.raises(DatasetError, match="split 1 has no validation case that can be used"):
        split_cases(without, validation_share=0.5, seed=3)


def test_prescribed_splits_are_folds() -> None:
    cases = cases_of(list(range(5)))
    voxels = {case.id: (1,) for case in cases}
    parts = ((("case_0", "case_1"), ("case_2", "case_3")), (("case_2", "case_3", "case_4"), ("case_0",)))
    splits = Splits("splits_final.json", parts)
    folds = split_into_folds(cases, voxels, ["a"], count=2, seed=0, prescribed=splits)
    assert [(fold.training, fold.validation) for fold in folds] == list(parts)
    assert [fold.fold for fold in folds] == ["1 of 2", "2 of 2"]
    with pytest.raises(DatasetError, match=r"splits_final.json prescribes 2 folds, 3 are requested; request as many"):
        split_into_folds(cases, voxels, ["a"], count=3, seed=0, prescribed=splits)
    split = split_cases(surveyed(cases, voxels, splits=splits), validation_share=0.2, seed=0)
    assert split.origin == "2 folds are prescribed, and not used without --folds 2 or --fold K/2"
