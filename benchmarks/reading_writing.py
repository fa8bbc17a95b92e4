"""Reading and writing a 512 x 512 x 300 int16 volume and its mask: medfcn against nibabel and SimpleITK.

    python benchmarks/reading_writing.py [--rounds 5] [--shape 512 512 300] [--json FILE]

Every measurement is a fresh process that imports its library, works once on a small file, and is then timed on
the large one: CPU seconds (user + system), wall seconds, and the peak of memory above what the imports took. The
tools take turns (A B C, A B C, ...), and the ratios are medians of the ratios within one turn, so that a machine
that others use slows all of them alike. medfcn's figures include what the others do not do: the CRC and length of
the stream, the SHA-256 of the file, the check that every voxel is finite, and reading back what was written.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

TOOLS = ("medfcn", "nibabel", "SimpleITK")
TASKS = ("read image", "read mask", "write mask", "write image")


def make_volume(shape: tuple[int, int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth body with noise, in HU, and a mask of five organs."""
    rng = np.random.default_rng(seed)
    axes = [np.linspace(-1, 1, size, dtype=np.float32) for size in shape]
    image = np.empty(shape, dtype=np.int16, order="F")
    mask = np.zeros(shape, dtype=np.uint8, order="F")
    centres = rng.uniform(-0.4, 0.4, (5, 3))
    for k, z in enumerate(axes[2]):
        radius = np.sqrt(axes[0][:, None] ** 2 + (1.4 * axes[1][None, :]) ** 2 + 0.3 * z**2)
        body = np.where(radius < 0.8, 40 + 60 * np.cos(9 * radius), -1000)
        image[:, :, k] = body + rng.normal(0, 12, shape[:2]) * (radius < 0.8)
        for label, centre in enumerate(centres, start=1):
            offset = (axes[0][:, None] - centre[0]) ** 2 + (axes[1][None, :] - centre[1]) ** 2 + (z - centre[2]) ** 2
            mask[:, :, k][offset < 0.04] = label
    return image, mask


def run(tool: str, task: str, folder: Path) -> None:
    """One task with one tool: what a user of it would write."""
    source = folder / ("mask.nii.gz" if "mask" in task else "image.nii.gz")
    target = folder / f"out_{tool}.nii.gz"
    if tool == "medfcn":
        import medfcn.volumes as volumes

        if "read" in task:
            read = volumes.read_mask if "mask" in task else volumes.read_volume
            measure(lambda: read(source), lambda: read(folder / "small.nii.gz"))
        else:
            grid = volumes.read_volume(folder / "image.nii.gz")
            volume = grid if "image" in task else grid.with_array(volumes.read_mask(source).array)
            small = volumes.read_volume(folder / "small.nii.gz")
            measure(lambda: volume.save(target, overwrite=True), lambda: small.save(target, overwrite=True))
    elif tool == "nibabel":
        import nibabel

        if "read" in task:
            measure(
                lambda: np.asanyarray(nibabel.load(source).dataobj),
                lambda: np.asanyarray(nibabel.load(folder / "small.nii.gz").dataobj),
            )
        else:
            image = nibabel.load(source)
            copy = nibabel.Nifti1Image(np.asanyarray(image.dataobj), image.affine, image.header)
            small = nibabel.load(folder / "small.nii.gz")
            measure(lambda: nibabel.save(copy, target), lambda: nibabel.save(small, target))
    else:
        import SimpleITK

        SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
        if "read" in task:

            def read_array(path: Path) -> np.ndarray:
                return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(os.fspath(path)))

            measure(lambda: read_array(source), lambda: read_array(folder / "small.nii.gz"))
        else:
            itk = SimpleITK.ReadImage(os.fspath(source))
            little = SimpleITK.ReadImage(os.fspath(folder / "small.nii.gz"))
            measure(
                lambda: SimpleITK.WriteImage(itk, os.fspath(target), useCompression=True),
                lambda: SimpleITK.WriteImage(little, os.fspath(target), useCompression=True),
            )
    if "write" in task:
        print(json.dumps({"bytes": target.stat().st_size}))


def measure(work: Any, warm: Any) -> None:
    """Print the cost of `work` as a line of JSON."""
    warm()
    with Path("/proc/self/clear_refs").open("w") as file:  # start the peak anew
        file.write("5")
    before, cpu, wall = _status("VmRSS"), time.process_time(), time.perf_counter()
    result = work()
    cost = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "mb": _status("VmHWM") - before}
    del result
    print(json.dumps(cost))


def _status(field: str) -> float:
    """A line of /proc/self/status, in megabytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one_turn(task: str, folder: Path) -> dict[str, dict[str, float]]:
    """Every tool once, each in a process of its own."""
    costs = {}
    for tool in TOOLS:
        command = [sys.executable, __file__, "--child", tool, task, os.fspath(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        costs[tool] = {}
        for line in done.stdout.splitlines():
            costs[tool].update(json.loads(line))
    return costs


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 300))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=3)
    arguments = parser.parse_args()
    if arguments.child:
        run(arguments.child[0], arguments.child[1], Path(arguments.child[2]))
        return
    from medfcn.volumes import Volume

    results: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "shape": list(arguments.shape)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        affine = np.diag([-0.75, -0.75, 1.0, 1.0])
        image, mask = make_volume(tuple(arguments.shape))
        Volume(image, affine).save(folder / "image.nii.gz")
        Volume(mask, affine).save(folder / "mask.nii.gz")
        Volume(mask[:16, :16, :16], affine).save(folder / "small.nii.gz")
        megabytes = image.nbytes / 2**20
        del image, mask
        print(
            f"image {megabytes:.0f} MB; medians of {arguments.rounds} turns; ratios are of CPU seconds within a turn"
        )
        print(f"{'task':12} {'tool':10} {'cpu s':>7} {'wall s':>7} {'peak MB':>8} {'file MB':>8} {'x medfcn':>9}")
        for task in TASKS:
            turns = [one_turn(task, folder) for _ in range(arguments.rounds)]
            results[task] = turns
            for tool in TOOLS:
                cost = {key: statistics.median(turn[tool][key] for turn in turns) for key in turns[0][tool]}
                ratio = statistics.median(turn[tool]["cpu"] / turn["medfcn"]["cpu"] for turn in turns)
                size = f"{cost['bytes'] / 2**20:8.2f}" if "bytes" in cost else " " * 8
                times = f"{cost['cpu']:7.3f} {cost['wall']:7.3f} {cost['mb']:8.0f}"
                print(f"{task:12} {tool:10} {times} {size} {ratio:9.2f}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
