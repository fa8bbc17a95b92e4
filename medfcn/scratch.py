"""Large arrays that lie in a file without a name, so that memory holds only the part that is in use.

The file is unlinked as soon as it is open: it vanishes with the last array that lies in it, however the process ends.
Its pages leave memory by `release`, and come back from the file, or from the system's cache of it, when they are next
used. Where no disk has room, the array lies in memory.
"""

import mmap
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from medfcn.memory import require_memory
from medfcn.systems import take_room

LARGE_BYTES = 32 << 20
"""Smaller arrays lie in memory."""
PART_BYTES = 8 << 20
"""Bytes of an array that are worked on at a time; see `parts`."""
_MARGIN_BYTES = 1 << 28
"""Bytes that stay free on the disk."""
_IN_MEMORY = ("tmpfs", "ramfs", "rootfs")
"""File systems that lie in memory themselves."""


def scratch_array(shape: tuple[int, ...], dtype: DTypeLike, *, purpose: str) -> NDArray[Any]:
    """A new writeable array of zeros in Fortran order: its first axis is the fastest, as in files of volumes.

    Args:
        shape: Its shape.
        dtype: Its type.
        purpose: What it is for, in the message of an error.

    Raises:
        MemoryShortError: Neither a disk nor the memory has room.

    Example:
        >>> array = scratch_array((2, 3), np.uint8, purpose="a mask")
        >>> array[1, 2] = 7
        >>> release(array)
        >>> array.tolist()
        [[0, 0, 0], [0, 0, 7]]
    """
    kind = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    mapped = mapped_file(count) if count > LARGE_BYTES else None
    if mapped is None:
        require_memory(count, purpose)
        return np.zeros(shape, dtype=kind, order="F")
    return np.ndarray(shape, kind, buffer=mapped, order="F")


def mapped_file(count: int) -> mmap.mmap | None:
    """So many zero bytes in a file without a name; None where no disk has room for them."""
    for folder in dict.fromkeys((tempfile.gettempdir(), "/var/tmp")):
        with suppress(OSError):
            if _is_in_memory(folder) or shutil.disk_usage(folder).free < count + _MARGIN_BYTES:
                continue
            with tempfile.TemporaryFile(dir=folder) as file:
                take_room(file.fileno(), count)
                return mmap.mmap(file.fileno(), count)
    return None


def release(array: NDArray[Any]) -> None:
    """Let the pages of an array that lies in a file leave the memory of the process; any other array stays."""
    owner = _mapped_by(array)
    if owner is not None and sys.platform == "linux":
        owner.madvise(mmap.MADV_DONTNEED)


def _mapped_by(array: NDArray[Any]) -> mmap.mmap | None:
    """The file that an array lies in; None for an array in memory."""
    owner: Any = array
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    return owner if isinstance(owner, mmap.mmap) else None


def put(array: NDArray[Any], values: NDArray[Any], *, add: bool = False) -> None:
    """Set an array, most likely a part of a larger one that lies in a file, to some values, and release it.

    Some voxels of each row of a volume lie on all its pages. So it is done a few megabytes of the file at a time.

    Args:
        array: Where they go.
        values: Of the same shape.
        add: Add them to what is there.

    Example:
        >>> array = np.zeros((2, 3), np.uint8)
        >>> put(array[:, 1:2], np.ones((2, 1), np.uint8))
        >>> array.tolist()
        [[0, 1, 0], [0, 1, 0]]
    """
    near = [()] if _mapped_by(array) is None else _near_places(array)
    for place in near:
        if add:
            array[place] += values[place]
        else:
            array[place] = values[place]
        release(array)


def _near_places(array: NDArray[Any]) -> Iterator[tuple[slice, ...]]:
    """Places in an array that are together all of it, and each of which lies within `PART_BYTES`, gaps included."""
    steps = [abs(stride) for stride in array.strides]
    order = sorted(range(array.ndim), key=lambda axis: -steps[axis])

    def within(axes: Sequence[int], place: list[slice]) -> Iterator[tuple[slice, ...]]:
        span = sum((array.shape[axis] - 1) * steps[axis] for axis in axes)
        if not axes or span < PART_BYTES:
            yield tuple(place)
            return
        axis, *others = axes
        count = max(1, PART_BYTES // steps[axis])
        for start in range(0, array.shape[axis], count):
            place[axis] = slice(start, start + count)
            yield from within(others if count == 1 else (), place)
        place[axis] = slice(None)

    return within(order, [slice(None)] * array.ndim)


def parts(array: NDArray[Any], *, part_bytes: int = PART_BYTES) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
    """An array in parts of a few megabytes along the axis that is slowest in memory; each is released after its use.

    Yields:
        The place of the part in the array, and the part, a view of it.

    Example:
        >>> array = np.arange(6).reshape(3, 2)
        >>> [part.tolist() for _, part in parts(array, part_bytes=32)]
        [[[0, 1], [2, 3]], [[4, 5]]]
    """
    axis = int(np.argmax(np.abs(array.strides)))
    thickness = max(1, part_bytes // max(1, array.nbytes // max(1, array.shape[axis])))
    for start in range(0, array.shape[axis], thickness):
        place = [slice(None)] * array.ndim
        place[axis] = slice(start, min(start + thickness, array.shape[axis]))
        yield tuple(place), array[tuple(place)]
        release(array)


def extremes(array: NDArray[Any]) -> tuple[Any, Any]:
    """The smallest and the largest value of an array, part by part."""
    found = [(part.min(), part.max()) for _, part in parts(array)]
    return min(least for least, _ in found), max(most for _, most in found)


def _is_in_memory(folder: str) -> bool:
    """True if a folder's file system lies in memory."""
    device = Path(folder).stat().st_dev
    with suppress(OSError, AttributeError):  # not of Windows
        name = f"{os.major(device)}:{os.minor(device)}"
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            found = re.search(r" - (\S+) ", line)
            if found and line.split()[2] == name:
                return found[1] in _IN_MEMORY
    return False
