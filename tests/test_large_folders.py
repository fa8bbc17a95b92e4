"""The figures of `benchmarks/large_folders.py memory`."""

from pathlib import Path

import pytest

from tests.scripts import module_at

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("peaks", "share", "expected"),
    [
        ({4: 300.0, 5: 310.0, 6: 305.0, 50: 400.0}, 5, 310.0),
        ({0: 200.0, 3: 393.0}, 95, 393.0),  # few volumes: nothing between 93 and 97 %
        ({0: 200.0}, 50, 200.0),  # a command that ended at once
    ],
)
def test_memory_around_a_share_is_that_of_the_nearest_volumes(
    peaks: dict[int, float], share: float, expected: float
) -> None:
    count = 3 if 3 in peaks else 100
    assert module_at(ROOT / "benchmarks" / "large_folders.py").peak_around(peaks, share, count) == expected
