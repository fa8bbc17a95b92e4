"""The allocator of the C library, told to keep freed memory for the arrays that come next.

glibc maps every large array anew and gives it back to the system when it is freed, so that the system has to clear
and map each of its pages again: two fifths of a prediction's CPU time on large slices. Freed memory is kept instead.
No bit of a result changes. Commands do this when they start; `import medfcn` never does.
"""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from medfcn.systems import address_limit, gnu_c_library

Allocator = Literal["keep", "system"]
"""`keep` keeps freed memory; `system` leaves the C library as it is."""

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
"""The numbers of `mallopt`'s parameters (malloc.h of glibc)."""
_TOP_PAD_BYTES = 64 << 20
"""Memory is asked for in pieces of this size; what is not written to takes none."""
_LARGE_BYTES = 500 << 20
"""Work that leaves more freed memory than this behind gives it back."""
_ROUNDS = 16
"""So many pieces of work share what they freed before it is given back all the same."""
_STATM = Path("/proc/self/statm")


class _Kept:
    """True for a process that keeps freed memory, and the pieces of work since it gave some back."""

    is_on = False
    rounds = 0


def use_allocator(allocator: Allocator = "keep") -> bool:
    """Keep freed memory in this process from now on, or leave the C library as it is.

    Args:
        allocator: See `Allocator`.

    Returns:
        True if freed memory is kept: glibc alone can be told to. Where the address space is limited (`ulimit -v`) it
        is not, because memory that is kept counts as used there.

    Example:
        >>> use_allocator("system") == _Kept.is_on  # what was kept before stays so
        True
    """
    library = gnu_c_library() if allocator == "keep" and address_limit() is None else None
    if library is None or _Kept.is_on:
        return _Kept.is_on
    told = [
        library.mallopt(_MMAP_MAX, 0),
        library.mallopt(_TRIM_THRESHOLD, -1),  # never
        library.mallopt(_TOP_PAD, _TOP_PAD_BYTES),
        library.mallopt(_ARENA_MAX, 1),  # what one thread freed is there for the others
    ]
    _Kept.is_on = all(told)
    return _Kept.is_on


@contextmanager
def large_memory_returned() -> Iterator[None]:
    """Give freed memory back to the system after work that took more than 500 MB, and after each sixteenth piece.

    Without this, the memory of a process that works on many volumes would stay at what its largest one took, and
    rise: what is still in use lies between freed blocks, which then are too small for the next arrays. Nothing is
    done where freed memory is not kept.
    """
    before = _resident_bytes() if _Kept.is_on else 0
    try:
        yield
    finally:
        _Kept.rounds += 1
        is_time = _Kept.is_on and (_Kept.rounds >= _ROUNDS or _resident_bytes() - before > _LARGE_BYTES)
        library = gnu_c_library() if is_time else None
        if library is not None:
            library.malloc_trim(0)
            _Kept.rounds = 0


def _resident_bytes() -> int:
    """Bytes of memory that this process takes."""
    return int(_STATM.read_text(encoding="ascii").split()[1]) * mmap.PAGESIZE
