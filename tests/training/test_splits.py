"""A patient is never on both sides of a split."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfcn.datasets import Case
from medfcn.errors import DatasetError
from medfcn.training.folds import split_by_group, split_into_folds


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
        DatasetError, match=r"fold 1 of 2: none of its 2 training cases holds label_1 \(of all 4 cases 1"
    ):
        folded(cases, {case.id: (1, int(case.group == "4")) for case in cases}, 2)
