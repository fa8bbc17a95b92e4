"""Commands of their own, and the CPU seconds and memory that the system says they took."""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
ONE_THREAD |= {"OMP_WAIT_POLICY": "PASSIVE"}
WITH_BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}
"""A command keeps what Python compiled, as pip does. Else a checkout compiles all of medfcn each time: 0.2 CPU s."""


@dataclass(frozen=True)
class Used:
    """What a command took.

    Attributes:
        cpu_seconds: User and system time, with all its children.
        peak_mb: The largest resident size of it or of a child.
    """

    cpu_seconds: float
    peak_mb: float


_WATCH = """
import json, os, sys
_, status, used = os.wait4(os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ), 0)
found = [os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss]
os.write(int(sys.argv[1]), json.dumps(found).encode())
"""
# A small process between: a command's peak counts from the size that the process which starts it ever had.


def run_measured(command: Sequence[str], log: Path, **variables: str) -> Used:
    """Run a command to its end, with what it says in a file.

    Raises:
        SystemExit: It failed; the message names the file.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    told, tell = os.pipe()
    with log.open("a") as file, os.fdopen(told, "rb") as answer:
        started = subprocess.Popen(
            [sys.executable, "-S", "-c", _WATCH, str(tell), *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=os.environ | ONE_THREAD | WITH_BYTECODE | variables,
            pass_fds=[tell],
            start_new_session=True,
        )
        os.close(tell)
        try:
            started.wait()
        except BaseException:
            os.killpg(started.pid, signal.SIGTERM)
            raise
        status, seconds, peak_kb = json.loads(answer.read() or f"[{started.returncode}, 0, 0]")
    if status != 0:
        raise SystemExit(f"{Path(command[0]).name} ended with status {status}; what it said is in {log}")
    return Used(seconds, peak_kb / 1024)


def two_installs(about: str | None, *, steps: int) -> argparse.ArgumentParser:
    """The arguments of a script that trains with two installs of medfcn."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("labels", help="as `medfcn train --labels`; - for those of the data set")
    parser.add_argument("output", type=Path)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--after", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=steps)
    return parser


def training_words(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """The command line of a training with these arguments: one thread, a CPU."""
    labels = ["--labels", arguments.labels] if arguments.labels != "-" else []
    length = ["--steps", str(arguments.steps), "--threads", "1", "--device", "cpu"]
    return ["train", arguments.data, "-o", str(folder), "--overwrite", *labels, *length]


def trained(used: Used, *, before: float = 0.0) -> dict[str, float]:
    """What a training took, as it stands in a line of results; with what it took before it was stopped."""
    return {"cpu_seconds": round(before + used.cpu_seconds, 1), "peak_mb": round(used.peak_mb)}


def versions(*packages: str) -> dict[str, str]:
    return {name: version(name) for name in packages}


def processor() -> str:
    with Path("/proc/cpuinfo").open() as file:
        return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")
