"""A patient is never on both sides of a split."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfcn.errors import DatasetError
from medfcn.training.folds import split_by_group
from medfcn.volumes import Case


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
