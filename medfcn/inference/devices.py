"""The device and the threads that a network runs on."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch

from medfcn.errors import SettingsError
from medfcn.text import counted

_DEVICES = "auto, cpu, cuda, cuda:N or mps"
MOST_THREADS = 1024
"""More threads than any machine has for one network."""
_BFLOAT16_SINCE = 14
"""The macOS with which Apple's GPU computes in bfloat16."""


def choose_device(name: str = "auto") -> torch.device:
    """The device of a name: `auto` takes a CUDA GPU where there is one, else the CPU; `mps` is Apple's GPU.

    Raises:
        SettingsError: The name is unknown, or names a device that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingsError(f"device {name!r} is unknown; use {_DEVICES}", field="device") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise SettingsError(f"device {name!r} is not supported; use {_DEVICES}", field="device")
    if device.type == "mps" and (not torch.backends.mps.is_available() or device.index):
        raise SettingsError(
            f"device {name!r}: torch {torch.__version__} finds no such GPU of Apple's here; use auto or cpu",
            field="device",
        )
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise SettingsError(
            f"device {name!r}: this machine has {counted(torch.cuda.device_count(), 'CUDA GPU')}; use auto or cpu",
            field="device",
        )
    return device


def require_threads(threads: int | None) -> None:
    """Refuse a number of threads that no machine has; with a million of them torch ends the process.

    Raises:
        SettingsError: It is below one or above `MOST_THREADS`.
    """
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise SettingsError(
            f"threads {threads}: expected 1 to {MOST_THREADS}; omit --threads for the default", field="threads"
        )


@contextmanager
def using_threads(threads: int | None) -> Iterator[None]:
    """Set the number of CPU threads of torch, within a `with` block; None leaves it as it is.

    Raises:
        SettingsError: As in `require_threads`.
    """
    require_threads(threads)
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)


def has_fast_bfloat16(device: torch.device) -> bool:
    """True if a device multiplies bfloat16 faster than float32 (on CPUs: AVX512-BF16 or AMX)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def has_bfloat16(device: torch.device) -> bool:
    """True if a device computes in bfloat16, fast or not; Apple's GPU does not before macOS 14."""
    return device.type != "mps" or bool(torch.backends.mps.is_macos_or_newer(_BFLOAT16_SINCE, 0))


def fastest_threads(work: Callable[[], object], *, rounds: int = 3) -> int:
    """The faster number of CPU threads for a piece of work: one, or all that torch would use.

    More threads are not always faster: on cores that other programs use, threads that wait for each other were
    measured at five times the CPU time of one. The two are timed in turn, so that both meet the same changes of the
    machine's pace.

    Args:
        work: Called `2 * rounds` times, and twice to warm up; should take a few hundredths of a second or more.
        rounds: The number of timings of each.
    """
    most = torch.get_num_threads()
    if most == 1:
        return 1
    seconds: dict[int, list[float]] = {1: [], most: []}
    try:
        for turn in range(rounds + 1):
            for threads, taken in seconds.items():
                torch.set_num_threads(threads)
                began = time.monotonic()
                work()
                if turn:
                    taken.append(time.monotonic() - began)
    finally:
        torch.set_num_threads(most)
    return min(seconds, key=lambda threads: median(seconds[threads]))
