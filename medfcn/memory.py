"""Memory: how much is free, the limit that a user chose, and a refusal of work that does not fit."""

import gc
import mmap
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from medfcn.errors import MemoryShortError, SettingsError
from medfcn.systems import address_limit, free_memory, gnu_c_library

_NO_LIMIT = 1 << 60
_DIGITS_MOST = 12


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
    known = [limit for limit in (_physical_free(), address_space_free()) if limit is not None]
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


def give_back() -> None:
    """Give freed memory, which Python and the C library keep for later, back to the system."""
    gc.collect()
    library = gnu_c_library()
    if library is not None:
        library.malloc_trim(0)


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
    others = _least((_machine_free(), *_group_free(), address_space_free()))
    return chosen is not None and (others is None or chosen <= others)


def _chosen_free() -> int | None:
    """The rest of the chosen limit; pages of files, which can leave the memory, do not count."""
    if _Chosen.most is None:
        return None
    fields = dict(re.findall(r"^(Rss\w+):\s+(\d+) kB$", _text("/proc/self/status"), re.MULTILINE))
    used = (int(fields.get("RssAnon", 0)) + int(fields.get("RssShmem", 0))) << 10
    return max(0, _Chosen.most - used)


def machine_free() -> int | None:
    """Bytes that the machine and each control group have left; None where the system does not say."""
    return _least((_machine_free(), *_group_free()))


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


def address_space_free() -> int | None:
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
