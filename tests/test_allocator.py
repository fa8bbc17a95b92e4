"""The allocator: told by commands, never by an import; results keep their bits."""

import subprocess
import sys
from pathlib import Path

import pytest

from medfcn.allocator import use_allocator
from medfcn.errors import SettingsError
from medfcn.settings import MachineSettings

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the allocator of Linux")

FAULTS = """
import resource, sys, threading
import numpy as np
from medfcn.allocator import large_memory_returned, use_allocator

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20

def faults(megabytes, rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        np.ones(megabytes << 20, dtype=np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

is_kept = use_allocator(sys.argv[1])
other = threading.Thread(target=faults, args=(48, 1))  # what it frees is there for this one
other.start()
other.join()
often, before = faults(40, 8), resident()
with large_memory_returned():
    np.ones(600 << 20, dtype=np.uint8)
    within = resident()
after, kept = resident(), []
for _ in range(16):
    with large_memory_returned():
        np.ones(200 << 20, dtype=np.uint8)
    kept.append(resident() - after)
print(is_kept, often, within - before, after - before, min(kept[:-1]), kept[-1])
"""


def measured(allocator: str) -> tuple[bool, int, int, int, int, int]:
    done = subprocess.run([sys.executable, "-c", FAULTS, allocator], capture_output=True, text=True, check=True)
    kept, *numbers = done.stdout.split()
    often, within, after, between, last = map(int, numbers)
    return kept == "True", often, within, after, between, last


def test_kept_memory_is_not_faulted_in_again_and_is_given_back_after_large_work() -> None:
    is_kept, often, within, after, between, last = measured("keep")
    if not is_kept:
        pytest.skip("this C library cannot be told to keep memory")
    assert often < 200  # eight arrays of 40 MB have 81,920 small pages; another thread had such memory before
    assert within > 400
    assert after < 100
    assert between > 100  # fifteen smaller pieces of work share what they freed
    assert last < 50


def test_memory_is_not_kept_where_it_would_count_against_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medfcn.allocator.address_limit", lambda: 1 << 40)
    monkeypatch.setattr("medfcn.allocator._Kept.is_on", False)
    assert not use_allocator("keep")


def test_the_system_decides_where_it_is_asked_to() -> None:
    is_kept, _, within, after, between, last = measured("system")
    assert not is_kept
    assert max(within, after, between, last) < 100


def test_a_word_that_is_no_allocator_is_refused(tmp_path: Path) -> None:
    from medfcn.config import read_settings

    path = tmp_path / "run.toml"
    path.write_text("[machine]\nallocator = 'jemalloc'\n")
    with pytest.raises(SettingsError, match="is not one of keep, system"):
        read_settings(path)
    path.write_text("[machine]\nallocator = 'system'\n")
    assert read_settings(path).machine == MachineSettings("system")


def test_an_import_tells_the_allocator_nothing() -> None:
    code = "import medfcn, medfcn.verbs, medfcn.allocator as a; print(a.use_allocator('system'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
