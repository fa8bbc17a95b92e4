"""Memory: how much is free, and too little of it as the error of one case.

Memory runs out in many words: Python's and numpy's `MemoryError`, a `RuntimeError` of torch's allocator, of oneDNN or
of the GPU, an `ImportError` of a library that cannot be mapped, `ENOMEM` of the system. Here they are one kind.
"""

import ctypes
import errno
import gc
import importlib
import mmap
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from medfcn.errors import MemoryShortError, SettingsError, naming
from medfcn.libraries import loading
from medfcn.systems import address_limit, free_memory, gnu_c_library

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
_NO_LIMIT = 1 << 60
_MMAP_THRESHOLD, _ARENA_MAX = -3, -8
"""Numbers of `mallopt` in the GNU C library."""
_LITTLE_BYTES = 1000 << 20
"""Where less of an address space is free at the start, even small blocks are returned, which costs time."""
_STACK_BYTES, _THREAD_ATTRIBUTES = 2 << 20, 128
"""The stack of each thread, and room for a `pthread_attr_t` of the GNU C library, which takes 56 to 64 bytes."""
_THREAD_BYTES = 1 << 25
_MONAI_BYTES = 330 << 20
"""Address space that it takes beside torch (MONAI 1.6)."""
_DIGITS_MOST = 12
Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


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


class _Chosen:
    """The most that this process may take, where its user chose a limit."""

    most: int | None = None


def limit_memory(most: int | None) -> None:
    """Let this process take so many bytes at most, beside what the machine has left; None takes the limit away."""
    _Chosen.most = most


def memory_limit() -> int | None:
    """The limit of `limit_memory`."""
    return _Chosen.most


def more_memory() -> str:
    """The remedy where memory is short: another limit if that is what is short, else another machine.

    Example:
        >>> more_memory()
        'use a machine with more memory, or end other programs'
    """
    if _is_chosen_short():
        return "allow more with --memory"
    return "use a machine with more memory, or end other programs"


def free_text(free: int) -> str:
    """The memory that is free, in words; where a chosen limit is what is short, with the limit.

    Example:
        >>> free_text(300 << 20)
        '300 MB are free'
    """
    limit = memory_limit()
    if limit is None or not _is_chosen_short():
        return f"{megabytes(free)} are free"
    return f"{megabytes(free)} of the {megabytes(limit)} of --memory are free"


def bytes_of(text: str) -> int:
    """An amount of memory in words.

    Raises:
        SettingsError: It is none.

    Example:
        >>> bytes_of("4g") == 4 << 30, bytes_of("512 MiB") == 512 << 20, bytes_of("1.5G") == 3 << 29
        (True, True, True)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgt])(?:i?b)?", text.strip(), re.ASCII | re.IGNORECASE)
    if found is None or not float(found[1]) or len(found[1]) > _DIGITS_MOST:
        raise SettingsError(f"memory {text!r}: expected a number with a unit, such as 4g or 512m", field="memory")
    return int(float(found[1]) * (1 << 10 * (1 + "kmgt".index(found[2].lower()))))


def free_bytes() -> int | None:
    """Bytes that this process can still take: of the machine, its control groups, its own limits and the chosen one.

    None where the system does not say.
    """
    known = [limit for limit in (_physical_free(), _address_space_free()) if limit is not None]
    return min(known) if known else None


def has_limit() -> bool:
    """True if the address space of this process is limited (`ulimit -v`), so that every request counts."""
    return address_limit() is not None


def require_memory(needed: int, purpose: str) -> None:
    """Refuse a piece of work before anything is allocated for it, if the memory is not there.

    Args:
        needed: The bytes that it takes at least.
        purpose: What takes them, for the message.

    Raises:
        MemoryShortError: There are fewer.
    """
    if needed < 1 << 24:  # less than 16 MB are not worth the question
        return
    free = free_bytes()
    if free is not None and needed > free:
        give_back()
        free = free_bytes()
    if free is not None and needed > free:
        raise MemoryShortError(f"{purpose}: needs {megabytes(needed)}, {free_text(free)}; {more_memory()}")


def is_room(needed: int) -> bool:
    """True if this process can still take so many bytes, or if the system does not say."""
    free = free_bytes()
    return free is None or free >= needed


@contextmanager
def loading_monai() -> Iterator[None]:
    """Import a module of MONAI, which with all that it loads may end the process where it does not fit.

    Raises:
        MemoryShortError: There is too little memory for it.
    """
    require_memory(_MONAI_BYTES, "MONAI")
    with loading():
        yield


def give_back() -> None:
    """Give freed memory, which Python and the C library keep for later, back to the system."""
    gc.collect()
    library = gnu_c_library()
    if library is not None:
        library.malloc_trim(0)


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
        address = _address_space_free()
        resident = _least((_machine_free(), *_group_free()))  # what this process took of the limit is of its start
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


def in_threads(
    work: Callable[[Item], Outcome], items: Sequence[Item], *, threads: int, advance: Callable[[Item], None]
) -> list[Outcome | MemoryShortError]:
    """The outcome of some work on each item, in their order; several are worked on at a time.

    An item for which memory ran out is worked on again by itself once the others are done. If memory runs out again,
    its outcome is the error. Where the address space is limited, items are worked on one by one: OpenBLAS takes
    a buffer for each thread that multiplies at the same time, and ends the process where it finds none.

    Args:
        work: Called by several threads at once.
        items: They are given to it in this order.
        threads: Number of items that are worked on at a time.
        advance: Called with each item that is done.
    """
    outcomes: list[Outcome | MemoryShortError] = []

    def attempt(item: Item) -> Outcome | MemoryShortError:
        try:
            return work(item)
        except MemoryShortError as error:
            return error.with_traceback(None)

    with ExitStack() as stack:
        found: Iterator[Outcome | MemoryShortError] = map(attempt, items)
        if threads > 1 and address_limit() is None and is_room_for_threads(threads):
            pool = ThreadPoolExecutor(max_workers=threads)
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
            found = pool.map(attempt, items)
        for item, outcome in zip(items, found, strict=True):
            outcomes.append(outcome)
            if not isinstance(outcome, MemoryShortError):
                advance(item)
    for place, item in enumerate(items):
        if isinstance(outcomes[place], MemoryShortError):
            outcomes[place] = attempt(item)
            advance(item)
    return outcomes


def is_room_for_threads(count: int) -> bool:
    """True if so many threads can be started: Python 3.11 waits for ever for one that finds no memory."""
    return is_room(count * _THREAD_BYTES)


def megabytes(count: int) -> str:
    """Bytes in words: `1,024 MB`."""
    return f"{max(1, round(count / (1 << 20))):,} MB"


def _physical_free() -> int | None:
    """The least that the machine and each control group have left."""
    return _least((_machine_free(), *_group_free(), _chosen_free()))


def _least(limits: Iterable[int | None]) -> int | None:
    known = [limit for limit in limits if limit is not None]
    return max(0, min(known)) if known else None


def _is_chosen_short() -> bool:
    """True if a chosen limit leaves less than the machine, its control groups and the address space."""
    chosen = _chosen_free()
    others = _least((_machine_free(), *_group_free(), _address_space_free()))
    return chosen is not None and (others is None or chosen <= others)


def _chosen_free() -> int | None:
    """The rest of the chosen limit; pages of files, which can leave the memory, do not count."""
    if _Chosen.most is None:
        return None
    fields = dict(re.findall(r"^(Rss\w+):\s+(\d+) kB$", _text("/proc/self/status"), re.MULTILINE))
    used = (int(fields.get("RssAnon", 0)) + int(fields.get("RssShmem", 0))) << 10
    return max(0, _Chosen.most - used)


def _machine_free() -> int | None:
    """Memory that the machine can give, swap included."""
    text = _text("/proc/meminfo")
    fields = (re.search(rf"^{name}: +(\d+) kB$", text, re.MULTILINE) for name in ("MemAvailable", "SwapFree"))
    available, swap = (0 if field is None else int(field[1]) << 10 for field in fields)
    if "MemAvailable" not in text:  # not Linux
        return free_memory()
    return available + swap


def _group_free() -> Iterator[int]:
    """The rest that each control group of the process has; files that can leave the memory count as free."""
    for limit, used, counts in _group_files(_text("/proc/self/cgroup")):
        most = _text(limit).strip()
        if not most.isdigit() or int(most) >= _NO_LIMIT:
            continue
        taken = _text(used).strip()
        if taken.isdigit():
            cached = re.search(r"^(?:total_)?inactive_file (\d+)$", _text(counts), re.MULTILINE)
            yield int(most) - int(taken) + (int(cached[1]) if cached else 0)


@lru_cache(maxsize=4)
def _group_files(groups: str) -> tuple[tuple[str, str, str], ...]:
    """Limit, use and counts of each control group that a process is in, from the system's list of these groups."""
    found = []
    for line in groups.splitlines():
        _, controllers, inside = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            root, limit, used = Path("/sys/fs/cgroup"), "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit, used = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = root / inside.lstrip("/")
        above = (folder for folder in (group, *group.parents) if folder.is_relative_to(root))
        found += [(f"{folder}/{limit}", f"{folder}/{used}", f"{folder}/memory.stat") for folder in above]
    return tuple(found)


def _address_space_free() -> int | None:
    """The rest of a limited address space; None without a limit."""
    most = address_limit()
    pages = _text("/proc/self/statm").split() if most is not None else []
    return max(0, most - int(pages[0]) * mmap.PAGESIZE) if most is not None and pages else None


def _text(path: str) -> str:
    """The content of a small file of the system; empty if it is not there."""
    with suppress(OSError, ValueError):
        descriptor = os.open(path, os.O_RDONLY)
        try:  # a third of the time that a file object takes, which counts in front of every batch
            content = b""
            while part := os.read(descriptor, 1 << 16):
                content += part
            return content.decode("ascii", errors="replace")
        finally:
            os.close(descriptor)
    return ""
