"""Commands of their own, and the CPU seconds and memory that the system says they took."""

import argparse
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
ONE_THREAD |= {"OMP_WAIT_POLICY": "PASSIVE"}


@dataclass(frozen=True)
class Used:
    """What a command took.

    Attributes:
        cpu_seconds: User and system time, with all its children.
        peak_mb: The largest resident size of it or of a child. The system counts from the fork on, so it is at least
            that of this process, which holds no torch.
    """

    cpu_seconds: float
    peak_mb: float


def run_measured(command: Sequence[str], log: Path, **variables: str) -> Used:
    """Run a command to its end, with what it says in a file.

    Raises:
        SystemExit: It failed; the message names the file.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        started = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=os.environ | ONE_THREAD | variables
        )
        try:
            _, status, usage = os.wait4(started.pid, 0)
        except BaseException:
            started.terminate()
            raise
    started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode != 0:
        raise SystemExit(f"{Path(command[0]).name} ended with status {started.returncode}; what it said is in {log}")
    return Used(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


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
