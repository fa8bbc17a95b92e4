"""Folders of many volumes: processes, kills and memory.

    python benchmarks/large_folders.py jobs RUN IMAGES OUTPUT [--volumes 300] [--rounds 3]
    python benchmarks/large_folders.py kills RUN IMAGES OUTPUT [--kills 100] [--volumes 60]
    python benchmarks/large_folders.py memory RUN OUTPUT [--volumes 400]

IMAGES is a folder of volumes that RUN can predict; they are linked under other names until there are enough. `jobs`
predicts all with one process and with two, in turn, and prints wall time and CPU seconds. `kills` ends a command, or
one of its processes, with SIGKILL at a random moment, continues it with `--resume`, and compares the folder byte for
byte with that of a command that was left alone. `memory` makes volumes of mixed size and watches the memory of one
process over them; RUN needs one channel, such as that of `medfcn train sample_data/train -o RUN --steps 100`.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from measured import ONE_THREAD, run_measured

MEDFCN = [sys.executable, "-m", "medfcn"]
DIFFERS = "timing.csv"
"""The one file that differs from run to run."""

EVERYWHERE = "-1e4,1e4,-1e4,1e4,-1e4,1e4"
"""Volumes far larger than those of a training are refused unless it is said where to look."""


def linked(images: Path, folder: Path, count: int) -> Path:
    """A folder of `count` volumes: links to those of another folder, again and again."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files = sorted(path.resolve() for path in images.glob("*.nii.gz"))
    for number in range(count):
        (folder / f"case_{number:04d}.nii.gz").symlink_to(files[number % len(files)])
    return folder


def predict_words(run: Path, images: Path, output: Path, *options: str) -> list[str]:
    return [*MEDFCN, "predict", str(run), str(images), "-o", str(output), "--device", "cpu", *options]


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != DIFFERS]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def jobs(arguments: argparse.Namespace) -> None:
    images = linked(arguments.images, arguments.output / "images", arguments.volumes)
    walls: dict[int, list[float]] = {1: [], 2: []}
    masks: list[dict[str, bytes]] = []
    for _ in range(arguments.rounds):
        for count, found in walls.items():
            output = arguments.output / f"masks_{count}"
            shutil.rmtree(output, ignore_errors=True)
            began = time.monotonic()
            used = run_measured(
                predict_words(arguments.run, images, output, "--jobs", str(count)), arguments.output / "log.txt"
            )
            found.append(time.monotonic() - began)
            masks.append(content(output))
            print(f"--jobs {count}: {found[-1]:.1f} s, {used.cpu_seconds:.1f} CPU s, load {os.getloadavg()[0]:.1f}")
    same = all(each == masks[0] for each in masks)
    print(f"best of {arguments.rounds}: two processes take {min(walls[2]) / min(walls[1]):.2f} of the time of one")
    print(f"every file but {DIFFERS} equal: {same}")


def processes_of(command: int) -> list[int]:
    """A process and its children."""
    lists = [path.read_text() for path in Path(f"/proc/{command}/task").glob("*/children")]
    return [command, *(int(number) for text in lists for number in text.split())]


def kills(arguments: argparse.Namespace) -> None:
    """Kill and continue until there were enough kills; each folder is compared when it is finished."""
    images = linked(arguments.images, arguments.output / "images", arguments.volumes)
    for name in ("case_0007", "case_0023"):
        (images / f"{name}.nii.gz").unlink()
        (images / f"{name}.nii.gz").write_bytes(b"no volume")
    clean, out = arguments.output / "clean", arguments.output / "out"
    words = ["--jobs", "2"]
    shutil.rmtree(clean, ignore_errors=True)
    subprocess.run(predict_words(arguments.run, images, clean, *words), capture_output=True, check=False)
    expected = content(clean)
    chance, killed, folders, left = random.Random(arguments.seed), {"command": 0, "worker": 0}, 0, 0
    environment = os.environ | ONE_THREAD
    while sum(killed.values()) < arguments.kills:
        shutil.rmtree(out, ignore_errors=True)
        is_ended = False
        while not is_ended:
            command = subprocess.Popen(
                predict_words(arguments.run, images, out, *words, "--resume"),
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
            )  # fmt: skip
            family: list[int] = []
            while sum(killed.values()) < arguments.kills:
                done = len(list(out.glob("*.json"))) + chance.randint(1, 8)
                while command.poll() is None and len(list(out.glob("*.json"))) < done:
                    time.sleep(0.001)
                time.sleep(chance.random() * 0.1)
                family = processes_of(command.pid) if command.poll() is None else []
                if not family:
                    break
                victim = chance.choice(family)
                os.kill(victim, signal.SIGKILL)
                killed["command" if victim == command.pid else "worker"] += 1
                if victim == command.pid:
                    break
            is_ended = command.wait() >= 0
            until = time.monotonic() + 60
            while any(is_alive(each) for each in family[1:]) and time.monotonic() < until:
                time.sleep(0.01)
            left += sum(is_alive(each) for each in family[1:])
        folders += 1
        found = content(out)
        if found != expected:
            odd = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
            raise SystemExit(f"after {killed}: differ: {odd}")
        print(f"{killed} killed, {folders} folders, all equal to the clean one; {left} processes left behind")


def is_alive(process: int) -> bool:
    path = Path(f"/proc/{process}/stat")
    try:
        return path.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def memory(arguments: argparse.Namespace) -> None:
    """Volumes of mixed size, in random order; the resident memory of the one process as the masks appear."""
    import nibabel

    images = arguments.output / "images"
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir(parents=True)
    chance = np.random.default_rng(arguments.seed)
    largest = 0
    for number in range(arguments.volumes):
        edge, slices = int(chance.integers(40, 200)), int(chance.integers(10, 60))
        voxels = chance.normal(100, 20, (edge, edge, slices)).astype(np.int16)
        largest = max(largest, 4 * voxels.size)
        image = nibabel.Nifti1Image(voxels, np.diag([-1.0, -1.0, 2.0, 1.0]))
        nibabel.save(image, images / f"case_{number:04d}.nii.gz")
    out = arguments.output / "masks"
    shutil.rmtree(out, ignore_errors=True)
    log = arguments.output / "log.txt"
    with log.open("w") as said:
        command = subprocess.Popen(
            predict_words(arguments.run, images, out, "--jobs", "1", "--box", EVERYWHERE),
            stdout=said, stderr=said, env=os.environ | ONE_THREAD,
        )  # fmt: skip
        peaks: dict[int, float] = {}
        began, done, counted = time.monotonic(), 0, 0.0
        while command.poll() is None:
            if time.monotonic() > counted + 0.1 and out.is_dir():  # counting takes longer than looking
                done, counted = len(list(out.glob("*.json"))), time.monotonic()
            try:
                resident = int(Path(f"/proc/{command.pid}/statm").read_text().split()[1]) * 4096 / 2**20
            except (OSError, IndexError):
                break
            peaks[done] = max(peaks.get(done, 0), resident)
            time.sleep(0.005)
    if command.wait():
        raise SystemExit(f"predict ended with {command.returncode}; see {log}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{time.monotonic() - began:.0f} s, {used.ru_utime + used.ru_stime:.1f} CPU s")
    count = arguments.volumes
    for share in (5, 20, 50, 80, 95):
        print(f"around {share} % of {count} volumes: at most {peak_around(peaks, share, count):.0f} MB")
    early, late = (peak_around(peaks, share, count, within=within) for share, within in ((11, 9), (95, 2)))
    bound = early + largest / 2**20
    print(f"largest volume as float32 {largest / 2**20:.0f} MB; {late:.0f} ≤ {bound:.0f}: {late <= bound}")


def peak_around(peaks: dict[int, float], share: float, count: int, *, within: float = 2) -> float:
    """The highest memory while about a share of the volumes was done.

    Args:
        peaks: For numbers of volumes that were seen to be done, the highest memory; at least one.
        share: In percent.
        count: Volumes in all.
        within: Percent on either side. Where none was seen there, as of few volumes, the nearest counts.
    """
    away = {done: abs(100 * done / count - share) for done in peaks}
    nearest = max(within, min(away.values()))
    return max(peak for done, peak in peaks.items() if away[done] <= nearest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    works = parser.add_subparsers(required=True)
    for work, volumes in ((jobs, 300), (kills, 60), (memory, 400)):
        one = works.add_parser(work.__name__)
        one.set_defaults(work=work)
        one.add_argument("run", type=Path)
        if work is not memory:
            one.add_argument("images", type=Path)
        one.add_argument("output", type=Path)
        one.add_argument("--volumes", type=int, default=volumes)
        one.add_argument("--seed", type=int, default=0)
        one.add_argument("--rounds", type=int, default=3)
        one.add_argument("--kills", type=int, default=100)
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    arguments.work(arguments)


if __name__ == "__main__":
    main()
