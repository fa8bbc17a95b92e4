"""Runs a command of medfcn in this process, and takes its memory away at a chosen moment.

    python tests/memory_faults.py MOMENT COUNT SPARE_MB COMMAND...

At the COUNT-th call of MOMENT, one of `MOMENTS`, the limit of the address space is set to what the process uses and
SPARE_MB more. Needs Linux.
"""

import functools
import importlib
import resource
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
