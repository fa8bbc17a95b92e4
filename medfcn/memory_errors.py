"""Too little memory as one kind of error.

Memory runs out in many words: Python's and numpy's `MemoryError`, a `RuntimeError` of torch's allocator, of oneDNN or
of the GPU, an `ImportError` of a library that cannot be mapped, `ENOMEM` of the system. Here they are one kind.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from medfcn.errors import MemoryShortError, naming
from medfcn.memory import free_bytes, free_text, megabytes, more_memory

_WORDS = (
    "out of memory",
    "allocate memory",
    "unable to allocate",
    "bad_alloc",
    "insufficient memory",
    "could not create a primitive",
    "could not create a memory",
    "failed to map segment",
    "can't start new thread",
    "error -4 while",
)
"""Words of libraries, in lower case: CUDA, torch, numpy, the C++ library, zlib, oneDNN, the loader, Python, zlib."""
_AMOUNT = re.compile(r"allocate (?:memory[^0-9]*)?([\d.]+) ?(bytes|[KMGT]iB)")
_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def is_memory_error(error: BaseException) -> bool:
    """True if an error says that there is too little memory, in whichever library's words.

    Example:
        >>> is_memory_error(MemoryError()), is_memory_error(RuntimeError("could not create a primitive"))
        (True, True)
        >>> is_memory_error(OSError(errno.ENOMEM, "Cannot allocate memory")), is_memory_error(ValueError("no"))
        (True, False)
    """
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    foreign = isinstance(error, RuntimeError | ImportError | OSError | SystemError)
    foreign = foreign or type(error).__name__ in ("error", "IsalError")  # of zlib and isal
    if foreign and any(words in str(error).lower() for words in _WORDS):
        return True
    # MONAI's `Compose` wraps what happens in a transform.
    return isinstance(error, RuntimeError) and error.__cause__ is not None and is_memory_error(error.__cause__)


@contextmanager
def one_memory_error(name: str, remedy: str = "") -> Iterator[None]:
    """Turn each way in which memory runs out into one error that names a case and the megabytes.

    Args:
        name: The case, which is put in front of the message.
        remedy: What to do; `more_memory` by default.

    Raises:
        MemoryShortError: Memory ran out inside.

    Example:
        >>> with one_memory_error("case_1"):
        ...     raise MemoryShortError("the voxels: needs 900 MB, 300 MB are free")
        Traceback (most recent call last):
            ...
        medfcn.errors.MemoryShortError: case_1: the voxels: needs 900 MB, 300 MB are free
    """
    try:
        yield
    except MemoryShortError:
        with naming(name):
            raise
    except Exception as error:
        if not is_memory_error(error):
            raise
        raise MemoryShortError(f"{name}: {shortage(error)}; {remedy or more_memory()}") from error


def raise_shortage(error: BaseException) -> None:
    """Where a library's errors are turned into words: too little memory comes first, and is never called damage.

    Raises:
        MemoryShortError: The error says that memory ran out.
    """
    if isinstance(error, MemoryShortError):
        raise error
    if is_memory_error(error):
        raise MemoryShortError(f"{shortage(error)}; {more_memory()}") from error


def shortage(error: BaseException) -> str:
    """An error that `is_memory_error` knows in words, with the megabytes that were needed and those that are free.

    Example:
        >>> shortage(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
        'out of GPU memory: 2,048 MB more are needed'
    """
    found = _AMOUNT.search(str(error))
    needed = f"{megabytes(int(float(found[1]) * _UNITS[found[2]]))} more are needed" if found else "more is needed"
    if "CUDA" in str(error) or "MPS backend" in str(error):
        return f"out of GPU memory: {needed}"
    free = free_bytes()
    return f"out of memory: {needed}" + ("" if free is None else f", {free_text(free)}")
