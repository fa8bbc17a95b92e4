"""What every command does with too little memory: 11 limits of the address space, and 4 of a control group.

    python benchmarks/memory_levels.py [--levels 300,500,...] [--groups 400,...] [--commands predict,...]

A folder holds one made volume of 512 x 512 x 200 voxels and small ones. `predict`, `train`, `evaluate` and `check`
run on it under each limit, with one thread. A run is bad if it ends with a traceback or by a signal, if a message
about memory names no megabytes, or if the small cases are not done though 300 MB more are there than the command
needs to start; in an address space, than torch needs to be imported. Control groups are of version 1 or 2; where
none can be made, the table says so.
"""

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from medfcn.commands.starts import STARTS

SAMPLES = Path(__file__).resolve().parents[1] / "sample_data"
LEVELS_MB = (300, 500, 700, 800, 890, 1000, 1200, 1500, 1800, 2400, 3000)
GROUPS_MB = (300, 600, 1000, 1500)
COMMANDS = ("predict", "train", "evaluate", "check")
SPARE_MB = 300
"""So much above the start of a command, each small case must be done."""
TORCH_MB = 590
"""An address space in which torch 2.13.0 for CPUs can be imported."""
_SECONDS = 900


@dataclass(frozen=True)
class Ended:
    """One command under one limit.

    Attributes:
        command: Its name.
        limit: `as` for the address space, `group` for a control group.
        megabytes: The limit.
        status: The exit status; negative for a signal.
        is_traceback: It ended with a traceback.
        small: The small cases are done; None where nothing says so.
        big: The large case is done.
        message: The line about memory, if there is one.
    """

    command: str
    limit: str
    megabytes: int
    status: int
    is_traceback: bool
    small: bool
    big: bool
    message: str

    @property
    def must_be_done(self) -> bool:
        """The small cases must be done at this level."""
        start = STARTS[self.command]
        needed = min(start.address_mb, TORCH_MB) if self.limit == "as" else start.resident_mb
        return self.megabytes >= needed + SPARE_MB

    @property
    def problem(self) -> str:
        """What is bad about it; empty if nothing is."""
        if self.is_traceback:
            return "traceback"
        if self.status not in (0, 1, 3):
            return f"ended by signal {-self.status}" if self.status < 0 else f"status {self.status}"
        if self.status and not re.search(r"[\d,]+ MB", self.message):
            return "no megabytes"
        if self.must_be_done and not self.small:
            return "small case not done"
        return ""


def make_data(folder: Path) -> None:
    """The cases: `big` and two small ones with their masks, as a data set and as masks of another reader."""
    for name in ("images", "labels", "masks"):
        (folder / name).mkdir(parents=True)
    for kind in ("images", "labels"):
        for place, file in enumerate(sorted((SAMPLES / "train" / kind).iterdir())[:6]):
            shutil.copy(file, folder / kind / f"small_{place}.nii.gz")
            if kind == "labels":
                shutil.copy(file, folder / "masks" / f"small_{place}.nii.gz")
    affine = nibabel.load(folder / "images" / "small_0.nii.gz").affine
    random, shape = np.random.default_rng(0), (512, 512, 200)
    mask = np.zeros(shape, dtype=np.uint8)
    mask[150:350, 150:350, 60:140] = 1
    image = random.integers(0, 200, shape, dtype=np.int16) + 100 * mask.astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(image, affine), folder / "images" / "big.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mask, affine), folder / "labels" / "big.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.roll(mask, 3, axis=0), affine), folder / "masks" / "big.nii.gz")


def words_of(command: str, data: Path, run: Path, out: Path) -> list[str]:
    """The arguments of a command."""
    if command == "predict":
        return ["predict", str(run), str(data / "images"), "-o", str(out), "--threads", "1"]
    if command == "train":
        return ["train", str(data), "-o", str(out), "--steps", "4", "--threads", "1", "--skip-bad"]
    if command == "evaluate":
        return ["evaluate", str(data / "masks"), str(data / "labels"), "-o", str(out)]
    return ["check", str(data)]


def run_limited(command: str, words: Sequence[str], out: Path, limit: str, megabytes: int) -> Ended:
    """Run a command under a limit."""
    with _limited(limit, megabytes) as before:
        ended = subprocess.run(
            [sys.executable, "-m", "medfcn", *words],
            capture_output=True,
            text=True,
            errors="replace",
            preexec_fn=before,
            timeout=_SECONDS,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        )
    said = ended.stderr + ended.stdout
    lines = [line for line in said.splitlines() if "MB" in line and ("free" in line or "needs" in line)]
    small, big = _done(command, out, ended.stdout)
    return Ended(
        command, limit, megabytes, ended.returncode, "Traceback" in said, small, big, lines[-1] if lines else ""
    )


def _done(command: str, out: Path, table: str) -> tuple[bool, bool]:
    """Are the small cases done, and is the large one?"""
    if command == "predict":
        return all((out / f"small_{place}.nii.gz").is_file() for place in range(6)), (out / "big.nii.gz").is_file()
    if command == "train":
        cases = out / "cases.csv"
        rows = cases.read_text().splitlines() if cases.is_file() else []
        is_used = any(row.startswith("big,") and ("training" in row or "validation" in row) for row in rows)
        return (out / "model.json").is_file(), is_used
    if command == "evaluate":
        scores = out / "scores.csv"
        rows = scores.read_text().splitlines() if scores.is_file() else []
        done = {row.partition(",")[0] for row in rows if "missing" not in row}
        return {f"small_{place}" for place in range(6)} <= done, "big" in done
    read = [line.split()[0] for line in table.splitlines() if re.search(r"\d×\d", line)]
    return {f"small_{place}" for place in range(6)} <= set(read), "big" in read


def _know_large_volumes(card: Path) -> None:
    """Let a model take the large case for a usual one: what is tried here is memory, not what it was trained on."""
    known = json.loads(card.read_text())
    for axis in "RAS":
        known["fingerprint"]["grid"][f"field_{axis}"] |= {"highest": 1000.0, "most": 1000.0}
    card.write_text(json.dumps(known))


class _limited:  # noqa: N801 - used as a function
    """A limit for one child process; gives what the child calls before it starts."""

    def __init__(self, limit: str, megabytes: int) -> None:
        self.limit, self.bytes = limit, megabytes << 20
        self.group: Path | None = None

    def __enter__(self) -> Callable[[], None]:
        if self.limit == "as":
            return lambda: resource.setrlimit(resource.RLIMIT_AS, (self.bytes, self.bytes))
        self.group = group = _new_group(self.bytes)
        return lambda: (group / "cgroup.procs").write_text(str(os.getpid())) and None  # type: ignore[func-returns-value]

    def __exit__(self, *error: object) -> None:
        if self.group is not None:
            self.group.rmdir()


def _own_group() -> tuple[Path, str] | None:
    """The control group of this process that counts memory, and the file of its limit; None without one."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, inside = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path("/sys/fs/cgroup/memory") / inside.lstrip("/"), "memory.limit_in_bytes"
        root = Path("/sys/fs/cgroup") / inside.lstrip("/")
        if controllers == "" and (root / "memory.max").is_file():
            return root, "memory.max"
    return None


def _new_group(most: int) -> Path:
    """A control group inside that of this process, with a limit.

    Raises:
        OSError: None can be made.
    """
    own = _own_group()
    if own is None:
        raise FileNotFoundError("no control group counts memory here")
    group = own[0] / f"medfcn_{os.getpid()}"
    group.mkdir()
    try:
        (group / own[1]).write_text(str(most))
    except OSError:
        group.rmdir()
        raise
    return group


def can_group() -> str:
    """Why no control group can be made; empty if one can be."""
    try:
        _new_group(1 << 30).rmdir()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def measure(
    folder: Path,
    *,
    commands: Sequence[str] = COMMANDS,
    levels: Sequence[int] = LEVELS_MB,
    groups: Sequence[int] = GROUPS_MB,
    say: Callable[[str], None] = print,
) -> list[Ended]:
    """Run every command under every limit.

    Args:
        folder: An empty folder for the data and the outputs.
        commands: Some of `COMMANDS`.
        levels: Limits of the address space, in MB.
        groups: Limits of a control group, in MB.
        say: Gets a line for every run.
    """
    data, run = folder / "data", folder / "run"
    make_data(data)
    if "predict" in commands:
        words = ["train", str(SAMPLES / "train"), "-o", str(run), "--steps", "4", "--threads", "1"]
        subprocess.run([sys.executable, "-m", "medfcn", *words], check=True, capture_output=True)
        _know_large_volumes(run / "model.json")
    why = can_group() if groups else ""
    if why:
        say(f"no control group can be made here ({why}); their rows are left out")
    limits = [("as", level) for level in levels] + ([] if why else [("group", level) for level in groups])
    found = []
    for command in commands:
        for limit, megabytes in limits:
            out = folder / f"{command}_{limit}_{megabytes}"
            ended = run_limited(command, words_of(command, data, run, out), out, limit, megabytes)
            found.append(ended)
            say(line_of(ended))
            shutil.rmtree(out, ignore_errors=True)
    return found


def line_of(ended: Ended) -> str:
    """One row of the table."""
    kind = "address space" if ended.limit == "as" else "control group"
    small, big = ("done" if done else "–" for done in (ended.small, ended.big))
    return (
        f"| {ended.command} | {kind} | {ended.megabytes} | {ended.status} | {small} | {big} | "
        f"{ended.problem or 'right'} | {ended.message[:110]} |"
    )


def row(folder: Path, **choices: Sequence[int]) -> tuple[bool, str]:
    """The row `memory` of a scorecard: is everything right, and what was seen in a few words."""
    found = measure(folder, say=lambda line: None, **choices)  # type: ignore[arg-type]
    bad = [f"{one.command} {one.limit} {one.megabytes}: {one.problem}" for one in found if one.problem]
    tracebacks = sum(one.is_traceback or one.status < 0 for one in found)
    due = [one for one in found if one.must_be_done]
    text = (
        f"{len(found)} runs, {tracebacks} tracebacks or signals, small cases done in {sum(one.small for one in due)} "
        f"of {len(due)} where they must be, {len(bad)} not right"
    )
    return not bad, text + (f": {'; '.join(bad)}" if bad else "")


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def numbers(text: str) -> list[int]:
        return [int(number) for number in text.split(",") if number]

    parser.add_argument("--levels", type=numbers, default=list(LEVELS_MB))
    parser.add_argument("--groups", type=numbers, default=list(GROUPS_MB))
    parser.add_argument("--commands", type=lambda text: text.split(","), default=list(COMMANDS))
    parser.add_argument("-o", "--output", type=Path, help="a folder to keep; a temporary one without")
    chosen = parser.parse_args()
    print("| command | limit | MB | status | small cases | large case | verdict | last line |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.output or Path(temporary)
        found = measure(folder, commands=chosen.commands, levels=chosen.levels, groups=chosen.groups)
    bad = [one for one in found if one.problem]
    print(f"\n{len(found)} runs, {len(bad)} not right")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
