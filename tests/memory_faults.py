"""Runs commands of medfcn, and takes the memory of each away at a chosen moment. Needs Linux.

    python tests/memory_faults.py MOMENT COUNT SPARE_MB COMMAND...

At the COUNT-th call of MOMENT, one of `MOMENTS`, the limit of the address space is set to what the process uses and
SPARE_MB more.
"""

import functools
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

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

_SECONDS_MOST = 300
SAMPLES = Path(__file__).resolve().parents[1] / "sample_data"


def command_of(moment: str, run: Path, out: Path) -> list[str]:
    """A command, with one thread, in which a moment comes; `run` is a model, `out` a folder that is not there yet."""
    if moment in ("batch", "step", "checkpoint"):
        return ["train", str(SAMPLES / "train"), "-o", str(out), "--steps", "4", "--threads", "1"]
    if moment == "score":
        return ["evaluate", *[str(SAMPLES / "test" / "labels")] * 2, "-o", str(out)]
    return ["predict", str(run), str(SAMPLES / "test" / "images"), "-o", str(out), "--threads", "1"]


class Faults:
    """Runs each command in a process of its own: a fork of one that has loaded the libraries of all commands."""

    def __enter__(self) -> Self:
        words = [sys.executable, __file__]
        threads = os.environ | {"OMP_NUM_THREADS": "1"}
        self._server = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=threads)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._server.communicate()

    def run(
        self, command: list[str], moment: str = "", count: int = 0, spare_mb: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """A command whose memory is taken away at a moment, if one is named."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps([moment, count, spare_mb, command]) + "\n")
        self._server.stdin.flush()
        status, said = json.loads(self._server.stdout.readline())
        return subprocess.CompletedProcess(command, status, said, "")


def _serve() -> list[str]:
    """Fork for each line of the input; the words for the command line of a fork, and none in the end."""
    from medfcn.commands import starts

    for start in starts.STARTS.values():
        for name in start.modules:
            importlib.import_module(name)
    while line := sys.stdin.readline():
        moment, count, spare_mb, command = json.loads(line)
        with tempfile.TemporaryFile() as said:
            child = os.fork()
            if not child:
                signal.alarm(_SECONDS_MOST)
                for stream in (1, 2):
                    os.dup2(said.fileno(), stream)
                return [moment, str(count), str(spare_mb), *command]
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            said.seek(0)
            print(json.dumps([status, said.read().decode(errors="replace")]), flush=True)
    return []


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

    words = sys.argv[1:] or _serve()
    if words:
        if words[0]:
            arm(words[0], int(words[1]), int(words[2]))
        main(words[3:])
