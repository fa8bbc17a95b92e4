"""Large arrays in files without a name."""

import mmap
from pathlib import Path

import numpy as np
import pytest

from medfcn import scratch
from medfcn.scratch import _near_places, extremes, mapped_file, parts, put, release, scratch_array


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(scratch, "LARGE_BYTES", 0)
    monkeypatch.setattr(scratch.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


def _is_mapped(array: np.ndarray) -> bool:  # type: ignore[type-arg]
    return isinstance(array.base, mmap.mmap)


def test_a_large_array_lies_in_a_file_that_nobody_sees(everything_is_large: Path) -> None:
    array = scratch_array((5, 7, 300), np.int16, purpose="voxels")
    assert _is_mapped(array) or scratch._is_in_memory(str(everything_is_large))
    assert array.flags.f_contiguous
    assert not array.any()
    assert not any(everything_is_large.iterdir())
    array[:] = np.arange(array.size).reshape(array.shape)
    release(array)
    release(array[::-1, 2:3].T)
    assert np.array_equal(array, np.arange(array.size).reshape(array.shape))


def test_without_room_on_a_disk_the_array_lies_in_memory(
    everything_is_large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scratch.os, "posix_fallocate", full)
    assert mapped_file(100) is None
    array = scratch_array((4, 4), np.uint8, purpose="a mask")
    assert not _is_mapped(array)
    assert not array.any()
    assert not any(everything_is_large.iterdir())


@pytest.mark.parametrize("order", ["C", "F"])
def test_parts_are_the_whole(order: str) -> None:
    array = np.asarray(np.random.default_rng(0).integers(-9, 9, (5, 6, 7)), order=order)  # type: ignore[call-overload]
    back = np.zeros_like(array)
    count = 0
    for place, part in parts(array, part_bytes=500):
        back[place] = part
        count += 1
    assert count > 1
    assert np.array_equal(back, array)
    assert extremes(array) == (array.min(), array.max())


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
@pytest.mark.parametrize("part_bytes", [1, 100, 3000, 1 << 20])
def test_values_put_into_a_part_of_an_array_in_a_file_touch_little_of_it_at_a_time(
    order: tuple[int, ...], part_bytes: int, everything_is_large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "PART_BYTES", part_bytes)
    random = np.random.default_rng(1)
    array = scratch_array((5, 6, 7, 8), np.float32, purpose="voxels").transpose(order)
    expected = np.zeros(array.shape, dtype=np.float32)
    for add in (False, True):
        for axis in range(4):
            place = tuple(slice(1, 4) if each == axis else slice(None) for each in range(4))
            values = random.normal(size=expected[place].shape).astype(np.float32)
            put(array[place], values, add=add)
            expected[place] = expected[place] + values if add else values
            spans = [np.lib.array_utils.byte_bounds(array[place][near]) for near in _near_places(array[place])]
            steps = np.abs(array.strides)
            assert all(high - low < part_bytes + steps.min() * 9 for low, high in spans)
    assert np.array_equal(array, expected)
