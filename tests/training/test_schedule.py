"""How long a training is, and how fast it learns."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfcn.training.budget import StepClock, steps_in_budget
from medfcn.training.schedule import Length, Schedule, learning_rate, validation_steps

steps = st.integers(min_value=60, max_value=10_000)


@given(steps)
def test_learning_rate_rises_once_and_falls_to_nothing(total: int) -> None:
    rates = [
        learning_rate(step, largest=0.1, warmup_steps=50, total_steps=total)
        for step in (0, 25, 49, total // 2, total)
    ]
    assert rates[0] < rates[1] < rates[2] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0)
    assert max(rates) <= 0.1 + 1e-12


@given(steps, st.integers(min_value=0, max_value=49))
def test_warm_up_does_not_depend_on_the_number_of_steps(total: int, step: int) -> None:
    unknown = learning_rate(step, largest=1.0, warmup_steps=50, total_steps=None)
    assert learning_rate(step, largest=1.0, warmup_steps=50, total_steps=total) == unknown


@given(
    st.floats(min_value=10, max_value=1000),
    st.floats(min_value=0, max_value=2000),
    st.floats(min_value=0.001, max_value=2),
)
def test_steps_fit_what_is_left_and_are_never_fewer_than_those_made(
    budget: float, spent: float, step_seconds: float
) -> None:
    total = steps_in_budget(budget, spent_seconds=spent, reserve_seconds=1, step_seconds=[step_seconds] * 21, done=30)
    assert total >= 30
    if total > 30:
        assert (total - 30) * step_seconds <= budget - spent - 1 + 1e-6


def test_one_slow_step_does_not_shorten_a_training() -> None:
    pace = [0.1] * 20 + [30.0]
    assert steps_in_budget(60, spent_seconds=0, reserve_seconds=0, step_seconds=pace, done=0) == 600


def test_the_clock_measures_at_least_twenty_warm_steps() -> None:
    clock = StepClock(Length(budget_seconds=100), started=time.monotonic())
    clock.begin()
    ticks = 0
    while not clock.is_measured():
        clock.tick()
        ticks += 1
    assert ticks - clock.WARM >= 20


def test_a_fixed_number_of_steps_is_kept() -> None:
    assert StepClock(Length(steps=7), started=0.0).fix_steps(reserve_seconds=99) == 7


@given(
    steps, st.lists(st.floats(min_value=0.05, max_value=0.95), max_size=4), st.integers(min_value=0, max_value=100)
)
def test_a_shortened_training_falls_on_without_a_leap_and_ends_at_nothing(
    total: int, shares: list[float], warmup: int
) -> None:
    schedule = Schedule.of(total)
    for share in shares:
        step = schedule.changes[-1][0] + 1 + int(share * (schedule.total - schedule.changes[-1][0] - 1))
        schedule = schedule.shortened(step, step + max(1, int(0.9 * (schedule.total - step))))
    assert Schedule.parse(schedule.text) == schedule
    rates = [
        learning_rate(step, largest=1.0, warmup_steps=warmup, total_steps=schedule)
        for step in range(schedule.total + 1)
    ]
    falling = rates[warmup:]
    assert falling == sorted(falling, reverse=True)
    if len(falling) > 1:
        assert falling[-1] == pytest.approx(0, abs=1e-12)
    for step, _ in schedule.changes[1:]:
        if warmup < step < schedule.total:
            before = Schedule(tuple(change for change in schedule.changes if change[0] < step))
            assert rates[step] == pytest.approx(
                learning_rate(step, largest=1.0, warmup_steps=warmup, total_steps=before), abs=1e-12
            )


def test_a_change_within_the_warm_up_is_no_change() -> None:
    changed = Schedule.of(900).shortened(40, 300)
    for step in range(300):
        now = learning_rate(step, largest=1.0, warmup_steps=50, total_steps=changed)
        assert now == learning_rate(step, largest=1.0, warmup_steps=50, total_steps=300)


def test_a_shortened_training_validates_as_long_as_each_number_held_and_at_its_end() -> None:
    schedule = Schedule.of(3000).shortened(1800, 2600)
    kept = {step for step in validation_steps(3000) if step <= 1800}
    assert schedule.validation_steps() == kept | {step for step in validation_steps(2600) if step > 1800}
    assert 2600 in schedule.validation_steps()
