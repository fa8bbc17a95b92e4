"""Too little memory is the error of one case, in one line with megabytes."""

import errno
import os
import resource
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medfcn.commands.starts import STARTS
from medfcn.datasets.cases import Case
from medfcn.errors import MemoryShortError, SettingsError
from medfcn.inference.case_work import _read_ahead
from medfcn.library_memory import Start
from medfcn.memory import bytes_of, free_bytes, limit_memory, require_memory
from medfcn.memory_errors import is_memory_error, one_memory_error, raise_shortage, shortage
from medfcn.threads import in_threads
from tests.memory_faults import MOMENTS, SAMPLES, Faults, command_of, what_is_wrong

USUAL = {("network", 3), ("step", 3), ("write", 0), ("slab", 0)}
linux = pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs Linux")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("could not create a primitive"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("can't start new thread"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
    ids=["python", "system", "torch", "onednn", "cuda", "thread", "loader"],
)
def test_each_way_in_which_memory_runs_out_is_one_kind(error: Exception) -> None:
    assert is_memory_error(error)
    with (
        pytest.raises(MemoryShortError, match=r"^case_1: out of (GPU )?memory: .*needed.*; ") as caught,
        one_memory_error("case_1"),
    ):
        raise error
    assert caught.value.code == "OUT_OF_MEMORY"
    assert isinstance(caught.value, MemoryError)


def test_memory_that_runs_out_inside_of_another_library_is_the_same_kind() -> None:
    """As MONAI's `Compose` raises it."""
    wrapped = RuntimeError("applying transform <a transform>")
    wrapped.__cause__ = MemoryError()
    assert is_memory_error(wrapped)
    wrapped.__cause__ = ValueError("a wrong shape")
    assert not is_memory_error(wrapped)
    raise_shortage(wrapped)
    with pytest.raises(MemoryShortError, match=r"^out of memory: "):
        raise_shortage(MemoryError())


@pytest.mark.parametrize("error", [ValueError("out of range"), OSError(errno.ENOENT, "no such file"), KeyError("a")])
def test_other_errors_pass_as_they_are(error: Exception) -> None:
    assert not is_memory_error(error)
    with pytest.raises(type(error)), one_memory_error("case_1"):
        raise error


@pytest.mark.parametrize(
    ("text", "megabytes"),
    [
        ("Unable to allocate 2.00 GiB for an array with shape (512, 512, 1024) and data type float64", "2,048 MB"),
        (
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 268435456 bytes",
            "256 MB",
        ),
        ("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 1 GiB", "20 MB"),
    ],
    ids=["numpy", "torch", "cuda"],
)
def test_the_megabytes_that_were_needed_are_named(text: str, megabytes: str) -> None:
    assert f"{megabytes} more are needed" in shortage(RuntimeError(text))


@linux
def test_what_cannot_fit_is_refused_before_it_is_allocated() -> None:
    with pytest.raises(MemoryShortError, match=r"^the voxels: needs 8,796,093,022,208 MB, [\d,]+ MB are free; "):
        require_memory(1 << 63, "the voxels")
    require_memory(1 << 20, "the voxels")


@linux
def test_a_command_whose_libraries_do_not_fit_does_not_start() -> None:
    with pytest.raises(MemoryShortError, match="the start needs 1,000,000,000 MB"):
        Start(0, 1_000_000_000).require()
    Start(1, 1).require()


def test_a_case_that_found_no_memory_beside_others_is_tried_again_alone() -> None:
    done: list[int] = []
    alone: set[int] = set()

    def work(item: int) -> int:
        if item == 1 and item not in alone:
            alone.add(item)
            raise MemoryShortError("no room beside the other")
        return item

    assert in_threads(work, [0, 1, 2], threads=2, advance=done.append) == [0, 1, 2]
    assert sorted(done) == [0, 1, 2]

    def never(item: int) -> int:
        raise MemoryShortError(f"no room for {item}")

    (outcome,) = in_threads(never, [7], threads=1, advance=done.append)
    assert str(outcome) == "no room for 7"


@pytest.fixture(scope="module")
def faults() -> Iterator[Faults]:
    with Faults() as started:
        yield started


@pytest.fixture(scope="module")
def run(faults: Faults, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a few steps."""
    folder = tmp_path_factory.mktemp("memory") / "run"
    assert not faults.run(command_of("step", folder, folder)).returncode
    return folder


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a large volume and of a small one."""
    folder = tmp_path_factory.mktemp("mixed")
    small = sorted((SAMPLES / "test" / "images").iterdir())[0]
    (folder / "small.nii.gz").write_bytes(small.read_bytes())
    header = nibabel.Nifti1Header()
    header.set_data_shape((800, 800, 400))
    header.set_data_dtype(np.int16)
    header.set_sform(np.diag([0.5, 0.5, 1.0, 1.0]), 1)
    header["pixdim"][1:4], header["magic"], header["vox_offset"] = (0.5, 0.5, 1.0), b"n+1", 352
    with (folder / "big.nii").open("wb") as file:  # 488 MB, of which the disk keeps a page
        file.write(header.binaryblock + bytes(4) + b"\1\0")
        file.truncate(352 + 2 * 800 * 800 * 400)
    return folder


POINTS = [
    pytest.param(moment, count, spare, marks=() if (moment, spare) in USUAL else pytest.mark.slow)
    for moment, count in zip(MOMENTS, (1, 4, 3, 1, 2, 3, 1, 2), strict=True)
    for spare in (0, 3, 30)
]
# The scorecard has many more, 20 of them in its quick part.


@linux
@pytest.mark.parametrize(("moment", "count", "spare_mb"), POINTS, ids=lambda value: str(value))
def test_memory_that_runs_out_at_any_moment_is_reported(
    moment: str, count: int, spare_mb: int, faults: Faults, run: Path, tmp_path: Path
) -> None:
    """Where a transposed convolution finds no memory for its code, torch 2.13.0 with oneDNN ends the process."""
    ended = faults.run(command_of(moment, run, tmp_path / "out"), moment, count, spare_mb)
    assert not what_is_wrong(ended)


@linux
@pytest.mark.parametrize("free_mb", [1000, 1100])
def test_a_folder_goes_on_after_a_volume_that_does_not_fit(
    free_mb: int, run: Path, mixed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (free_mb << 20, free_mb << 20))

    words = [sys.executable, "-m", "medfcn", "predict", str(run), str(mixed), "-o", str(out), "--threads", "1"]
    ended = subprocess.run(words, capture_output=True, text=True, preexec_fn=limited, check=False)
    assert not what_is_wrong(ended)
    assert ended.returncode == 3
    assert (out / "small.nii.gz").is_file()
    assert not (out / "big.nii.gz").exists()
    assert "big: " in (out / "failures.csv").read_text()


@pytest.mark.parametrize("text", ["", "4", "g", "-4g", "4x", "0g", "1e3g", "４g", "9" * 13 + "t", "4 g b"])
def test_a_memory_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="expected a number with a unit, such as 4g"):
        bytes_of(text)


@linux
def test_the_chosen_memory_is_all_that_is_free() -> None:
    limit_memory(8 << 30)
    try:
        assert 0 < (free_bytes() or 0) < 8 << 30
        array = np.ones(64 << 20, dtype=np.uint8)
        limit_memory(len(array))
        assert free_bytes() == 0
        with pytest.raises(MemoryShortError, match=r"[01] MB of the 64 MB of --memory are free"):
            require_memory(100 << 20, "an array")
        with pytest.raises(SettingsError, match="memory: 64 MB for each process, and the start needs 100 MB"):
            Start(address_mb=1, resident_mb=100).require()
    finally:
        limit_memory(None)
    assert (free_bytes() or 0) > len(array)


@pytest.mark.parametrize("is_limited", [False, True])
def test_under_a_limit_no_other_thread_takes_what_the_network_was_promised(
    is_limited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medfcn.inference.case_work.has_limit", lambda: is_limited)
    cases, seen = deque([Case(id="a", images=(), label=None, group="a")]), set()

    def take(_: bool) -> Case | None:
        return cases.popleft() if cases else None

    for _, reading in _read_ahead(take, lambda case: seen.add(threading.current_thread())):
        reading.result()
    assert (seen == {threading.main_thread()}) == is_limited


@linux
def test_a_little_address_space_holds_few_stacks_and_keeps_nothing() -> None:
    code = """
import resource, threading
from medfcn.library_memory import Start
from medfcn.allocator import use_allocator

def size_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize() >> 20

resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
Start(1, 1).require()
before, waits = size_mb(), threading.Event()
threads = [threading.Thread(target=waits.wait) for _ in range(10)]
for thread in threads:
    thread.start()
print(size_mb() - before < 40, use_allocator())  # stacks of 8 MB would be 80
waits.set()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout == "True False\n"


@linux
@pytest.mark.parametrize("command", ["evaluate", "plan", "predict", "train"])
def test_a_start_takes_no_more_address_space_than_it_asks_for(command: str) -> None:
    """With less than they look for, two libraries (OpenBLAS, twice) end the process, or look for ever."""
    code = f"""
import os, re, resource
from pathlib import Path
from medfcn.commands.starts import STARTS

def peak_mb():
    return int(re.search(r"VmPeak:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) >> 10

resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))
before = peak_mb()
STARTS["{command}"].require()
print(peak_mb() - before <= STARTS["{command}"].address_mb, os.environ["OPENBLAS_NUM_THREADS"])
"""
    # More threads must not cost more: a library takes a buffer of 32 MB for each.
    threads = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "8")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600, env=threads
    )
    assert done.stdout == "True 1\n"


@linux
@pytest.mark.slow
@pytest.mark.parametrize("command", ["predict", "train"])
def test_small_cases_are_done_in_little_more_memory_than_torch_takes(command: str, run: Path, tmp_path: Path) -> None:
    """torch 2.13.0 for CPUs can be imported in an address space of 590 MB; 300 more are enough."""
    out = tmp_path / "out"
    moment = {"predict": "read", "train": "step"}[command]
    ended = subprocess.run(
        [sys.executable, "-m", "medfcn", *command_of(moment, run, out)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (890 << 20, 890 << 20)),
        check=False,
        timeout=900,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr


def test_where_a_limit_was_chosen_the_remedy_is_that_limit() -> None:
    need = free_bytes() or 1 << 40
    with pytest.raises(MemoryShortError, match="use a machine with more memory, or end other programs"):
        require_memory(2 * need, "the voxels")
    limit_memory(64 << 20)
    try:
        with pytest.raises(
            MemoryShortError, match=r"\d+ MB of the 64 MB of --memory are free; allow more with --memory"
        ):
            require_memory(2 * need, "the voxels")
        assert shortage(MemoryError()).endswith(" of the 64 MB of --memory are free")
    finally:
        limit_memory(None)


def test_where_the_machine_is_short_a_higher_limit_is_no_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medfcn.memory._machine_free", lambda: 40 << 20)
    limit_memory(1 << 50)
    try:
        with pytest.raises(MemoryShortError, match=r"^the voxels: needs 50 MB, 40 MB are free; use a machine"):
            require_memory(50 << 20, "the voxels")
    finally:
        limit_memory(None)


def test_a_limit_as_large_as_a_start_lets_it_start() -> None:
    """What this process takes already is a part of its start."""
    start = STARTS["train"]
    limit_memory(start.resident_mb << 20)
    try:
        start.require()
        limit_memory((start.resident_mb << 20) - 1)
        with pytest.raises(SettingsError, match="the start needs 300 MB; give more of it"):
            start.require()
    finally:
        limit_memory(None)
