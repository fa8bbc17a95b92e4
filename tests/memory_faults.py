"""Runs a command of medfcn in this process, and takes its memory away at a chosen moment.

    python tests/memory_faults.py MOMENT COUNT SPARE_MB COMMAND...

At the COUNT-th call of MOMENT, one of `MOMENTS`, the limit of the address space is set to what the process uses and
SPARE_MB more. Needs Linux.
"""

import functools
import importlib
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOMENTS = {
    "read": ("medfcn.volumes.formats.nifti", "_voxels_of"),
    "network": ("medfcn.networks.sliding", "_run"),
    "slab": ("medfcn.slices.grid", "_resample"),
    "batch": ("medfcn.training.batches:Batches", "of"),
    "step": ("medfcn.training.gradients:Gradients", "_sum_of_parts"),
    "checkpoint": ("medfcn.training.state:State", "save"),
    "write": ("medfcn.volumes.formats.nifti_writing", "_write_content"),
    "score": ("medfcn.evaluation.scores", "score_case"),
}

SAMPLES = Path(__file__).resolve().parents[1] / "sample_data"


def command_of(moment: str, run: Path, out: Path) -> list[str]:
    """A command, with one thread, in which a moment comes; `run` is a model, `out` a folder that is not there yet."""
    if moment in ("batch", "step", "checkpoint"):
        return ["train", str(SAMPLES / "train"), "-o", str(out), "--steps", "4", "--threads", "1"]
    if moment == "score":
        return ["evaluate", *[str(SAMPLES / "test" / "labels")] * 2, "-o", str(out)]
    return ["predict", str(run), str(SAMPLES / "test" / "images"), "-o", str(out), "--threads", "1"]


def faulty(moment: str, count: int, spare_mb: int, command: list[str]) -> subprocess.CompletedProcess[str]:
    """A command whose memory is taken away at a moment, in a process of its own."""
    words = [sys.executable, __file__, moment, str(count), str(spare_mb), *command]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


def what_is_wrong(ended: subprocess.CompletedProcess[str]) -> str:
    """Why it did not end by itself, in words: all done, or a line with megabytes; empty where it did."""
    said = ended.stdout + ended.stderr
    if ended.returncode not in (0, 1, 3):
        return f"exit status {ended.returncode}: {said}"
    if "Traceback" in said:
        return f"a traceback: {said}"
    if ended.returncode and " MB are free" not in said:
        return f"no megabytes: {said}"
    return ""


def take_memory_away(spare_mb: int) -> None:
    """Limit the address space to what is in use and some megabytes more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + (spare_mb << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def arm(moment: str, count: int, spare_mb: int) -> None:
    """Put the fault into the function of a moment."""
    place, name = MOMENTS[moment]
    module, _, kind = place.partition(":")
    owner = importlib.import_module(module)
    owner = getattr(owner, kind) if kind else owner
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    @functools.wraps(original)
    def counted(*arguments: Any, **choices: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            take_memory_away(spare_mb)
        return original(*arguments, **choices)

    setattr(owner, name, counted)
    # Modules that have imported the function by its name call it there.
    for other in list(sys.modules.values()):
        if getattr(other, "__name__", "").startswith("medfcn") and getattr(other, name, None) is original:
            setattr(other, name, counted)


if __name__ == "__main__":
    # A limit that limits nothing yet, as where somebody works under one.
    resource.setrlimit(resource.RLIMIT_AS, (1 << 40, resource.getrlimit(resource.RLIMIT_AS)[1]))
    from medfcn.cli import main

    arm(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    main(sys.argv[4:])
