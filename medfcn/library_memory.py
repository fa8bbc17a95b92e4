"""Memory that libraries take: a command starts, and MONAI is loaded, only where they fit."""

import ctypes
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from medfcn.errors import MemoryShortError, SettingsError
from medfcn.libraries import loading
from medfcn.memory import (
    address_space_free,
    machine_free,
    megabytes,
    memory_limit,
    more_memory,
    require_memory,
)
from medfcn.systems import gnu_c_library

_MMAP_THRESHOLD, _ARENA_MAX = -3, -8
"""Numbers of `mallopt` in the GNU C library."""
_LITTLE_BYTES = 1000 << 20
"""Where less of an address space is free at the start, even small blocks are returned, which costs time."""
_STACK_BYTES, _THREAD_ATTRIBUTES = 2 << 20, 128
"""The stack of each thread, and room for a `pthread_attr_t` of the GNU C library, which takes 56 to 64 bytes."""
_MONAI_BYTES = 330 << 20
"""Address space that it takes beside torch (MONAI 1.6)."""


@dataclass(frozen=True)
class Start:
    """Memory that the libraries of a command take. Where they do not fit, some end the process without an error.

    Attributes:
        address_mb: Megabytes of a limited address space (`ulimit -v`).
        resident_mb: Megabytes of the machine and its control groups.
        modules: Imported at once if the address space is limited, before work fills it.
    """

    address_mb: int
    resident_mb: int
    modules: tuple[str, ...] = ()

    def require(self) -> None:
        """Refuse to start where there is less.

        Raises:
            MemoryShortError: There is less.
            SettingsError: The chosen limit is less.
        """
        chosen = memory_limit()
        if chosen is not None and chosen < self.resident_mb << 20:
            raise SettingsError(
                f"memory: {megabytes(chosen)} for each process, and the start needs {self.resident_mb:,} MB; "
                "give more of it, or fewer jobs",
                field="memory",
            )
        address = address_space_free()
        resident = machine_free()  # what this process took of the limit is of its start
        for needed, free in ((self.address_mb, address), (self.resident_mb, resident)):
            if free is not None and free < needed << 20:
                found = f"the start needs {needed:,} MB, {megabytes(free)} are free"
                raise MemoryShortError(f"out of memory: {found}; {more_memory()}")
        if address is not None:
            _save_address_space(address)
            with loading(for_good=True):
                for name in self.modules:
                    importlib.import_module(name)
            _take_buffers()


def _save_address_space(free: int) -> None:
    """Make the C library return blocks when they are freed, keep one heap, and give threads small stacks.

    Otherwise freed blocks of up to 32 MB stay in a heap, threads get heaps of 64 MB and stacks of 8 MB, and the limit
    of an address space counts them all as used. Each OpenBLAS (numpy has one, scipy another) works with one thread:
    each thread takes a buffer of 32 MB, and where there is none OpenBLAS looks for it for ever, or ends the process.

    Args:
        free: Bytes of the address space that are not taken yet.
    """
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    library = gnu_c_library()
    if library is None:
        return
    library.mallopt(_MMAP_THRESHOLD, 1 << 16 if free < _LITTLE_BYTES else 1 << 20)
    library.mallopt(_ARENA_MAX, 1)
    attributes = ctypes.create_string_buffer(_THREAD_ATTRIBUTES)
    if library.pthread_attr_init(attributes) == 0:
        library.pthread_attr_setstacksize(attributes, ctypes.c_size_t(_STACK_BYTES))
        library.pthread_setattr_default_np(attributes)
        library.pthread_attr_destroy(attributes)


def _take_buffers() -> None:
    """Let numpy's OpenBLAS take its buffers: later, it ends the process in words of its own where it finds none."""
    import numpy as np

    square = np.ones((256, 256))
    square @ square


@contextmanager
def loading_monai() -> Iterator[None]:
    """Import a module of MONAI, which with all that it loads may end the process where it does not fit.

    Raises:
        MemoryShortError: There is too little memory for it.
    """
    require_memory(_MONAI_BYTES, "MONAI")
    with loading():
        yield
