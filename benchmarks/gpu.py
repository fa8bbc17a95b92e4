"""What medfcn does on a GPU, in one command of about ten minutes: is it right, how fast, and what limits it.

    python benchmarks/gpu.py OUTPUT [--device auto] [--tiny]

It makes a phantom of 104 labels in OUTPUT, and needs no other data. Then, on the device:

1. trains on it, merged to 3 labels and with all, in float32 and in bfloat16: slices per second, the share of the time
   in the device's kernels, the share that waits for slices, and the kernels that take longest;
2. predicts with the first model there and on the CPU: how many voxels differ, the Dice of the two, seconds a volume;
3. lets memory run out in a training (on a GPU by a limit of its memory, on a CPU by an error in its place): it must
   go on with fewer slices at a time.

The exit status is 1 if a check fails. `--tiny` takes a minute on a CPU, to see that the script runs.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from measured import processor
from speed import make_phantom, merged
from torch.profiler import ProfilerActivity, profile

import medfcn
from medfcn.config import override
from medfcn.errors import MedfcnError
from medfcn.inference.devices import choose_device
from medfcn.networks.supervision import SupervisedFCN
from medfcn.settings import Settings
from medfcn.training.batches import Batches
from medfcn.training.trainer import Trainer

VOXELS_DIFFER = 1e-4
"""The largest share of the foreground's voxels that may differ from the CPU's masks. TF32 is off, and a prediction is
float32 whatever the training was."""


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
        cases: Of the phantom.
        slices: Of each case.
        steps: Of each training.
        batch: Slices in a step.
        window: Edge of the window in pixels.
    """

    cases: int
    slices: int
    steps: int
    batch: int
    window: int


FULL, TINY = Size(24, 16, 300, 32, 256), Size(4, 2, 6, 4, 32)
LABELS = {"3 labels": merged(3), "104 labels": None}


class Watch:
    """Times the steps of trainings, and what they wait for.

    Attributes:
        steps: Seconds of each step.
        waiting: Seconds of each step until its slices were on the device.
        kernels: Of the profiled steps, the seconds in kernels by name.
        profiled: Seconds of the profiled steps.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.steps: list[float] = []
        self.waiting: list[float] = []
        self.kernels: dict[str, float] = {}
        self.profiled = 0.0

    def synchronised(self, work: Callable[[], Any]) -> tuple[Any, float]:
        self._wait()
        started = time.perf_counter()
        result = work()
        self._wait()
        return result, time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @contextmanager
    def watching(self, profiled: range) -> Iterator[None]:
        """Time every step within the block; those of `profiled` give the kernels."""
        make, slices = Trainer._step, Batches.of

        def timed_slices(batches: Batches, step: int) -> Any:
            result, seconds = self.synchronised(lambda: slices(batches, step))
            self.waiting.append(seconds)
            return result

        def timed_step(trainer: Trainer, *given: Any) -> None:
            if len(self.steps) not in profiled:
                self.steps.append(self.synchronised(lambda: make(trainer, *given))[1])
                return
            kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])]
            with profile(activities=kinds) as found:
                seconds = self.synchronised(lambda: make(trainer, *given))[1]
            self.steps.append(seconds)
            self.profiled += seconds
            for row in found.key_averages():
                taken = row.self_device_time_total if self.device.type == "cuda" else row.self_cpu_time_total
                self.kernels[row.key] = self.kernels.get(row.key, 0.0) + taken / 1e6

        Trainer._step, Batches.of = timed_step, timed_slices  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            Trainer._step, Batches.of = make, slices  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    device, size = choose_device(arguments.device), TINY if arguments.tiny else FULL
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    print(f"{name}, torch {torch.__version__}, medfcn {medfcn.__version__}\n")
    data = arguments.output / f"phantom_{size.cases}_{size.slices}"
    if not data.exists():
        make_phantom(data, cases=size.cases, slices=size.slices)
    runs = train(data, arguments.output, device, size)
    fails = predict(runs, data, arguments.output, device) + short_memory(data, arguments.output, device, size)
    print("\n" + ("\n".join(fails) or "all checks passed"))
    sys.exit(bool(fails))


def settings_of(size: Size, precision: str) -> Settings:
    settings = override(Settings(), "slices", window=(size.window, size.window))
    return override(settings, "training", batch_size=size.batch, precision=precision, validation_share=0.1)


def train(data: Path, output: Path, device: torch.device, size: Size) -> dict[str, Path]:
    """Train in each precision and with each number of labels, and print what the steps took; the runs of 3 labels."""
    print("| labels | precision | slices / s | in kernels | waiting for slices | longest kernels |")
    print("|---|---|---|---|---|---|")
    runs = {}
    for labels, given in LABELS.items():
        for precision in ("float32", "bfloat16"):
            run, watch = output / f"run_{labels.split()[0]}_{precision}", Watch(device)
            half = size.steps // 2
            with watch.watching(range(half, half + max(2, size.steps // 50))):
                medfcn.train(
                    data,
                    run,
                    labels=given,
                    settings=settings_of(size, precision),
                    steps=size.steps,
                    device=str(device),
                    overwrite=True,
                    report=False,
                )
            warm = slice(size.steps // 5, half)
            seconds, waited = median(watch.steps[warm]), median(watch.waiting[warm])
            busy = sum(watch.kernels.values())
            longest = sorted(watch.kernels.items(), key=lambda item: -item[1])[:3]
            shown = ", ".join(f"{kernel[:32]} {taken / max(busy, 1e-9):.0%}" for kernel, taken in longest)
            rate = size.batch / seconds
            share = min(1.0, busy / watch.profiled)
            print(
                f"| {labels} | {precision} | {rate:.1f} | {share:.0%} | {waited / seconds:.0%} | {shown} |",
                flush=True,
            )
            if labels == "3 labels":
                runs[precision] = run
    print("\nA small share in kernels: the CPU that starts them is the limit. Much waiting: the slices are.")
    return runs


def predict(runs: dict[str, Path], data: Path, output: Path, device: torch.device) -> list[str]:
    """Masks of the device beside the CPU's; what is wrong with them."""
    fails = []
    images = sorted((data / "images").glob("*.nii.gz"))[:3]
    print(
        "\n| trained in | seconds a volume | on the CPU | voxels that differ, of the foreground |\n|---|---|---|---|"
    )
    for precision, run in runs.items():
        masks, seconds = {}, {}
        for place in (str(device), "cpu"):
            model = medfcn.load(run, device=place)
            model.predict(images[0])  # warm
            started = time.perf_counter()
            masks[place] = [np.asarray(model.predict(image).array) for image in images]
            seconds[place] = (time.perf_counter() - started) / len(images)
        pairs = list(zip(masks[str(device)], masks["cpu"], strict=True))
        differ = sum(np.count_nonzero(one != other) for one, other in pairs)
        share = differ / max(1, sum(np.count_nonzero(other) for _, other in pairs))
        print(f"| {precision} | {seconds[str(device)]:.3f} | {seconds['cpu']:.3f} | {share:.2e} |")
        if share > VOXELS_DIFFER:
            fails.append(f"FAILED: {share:.2e} of the foreground differ from the CPU's masks ({precision} training)")
    return fails


def short_memory(data: Path, output: Path, device: torch.device, size: Size) -> list[str]:
    """Let memory run out in a training; what is wrong then."""
    forward = SupervisedFCN.forward

    def refusing(network: SupervisedFCN, slices: torch.Tensor) -> Any:
        if len(slices) > size.batch // 2:
            raise torch.OutOfMemoryError("CUDA out of memory (in its place)")
        return forward(network, slices)

    if device.type == "cuda":
        torch.cuda.empty_cache()
        most, total = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, 0.6 * most / total), device)
    else:
        SupervisedFCN.forward = refusing  # type: ignore[method-assign]
    try:
        run = medfcn.train(
            data,
            output / "run_short",
            settings=settings_of(size, "float32"),
            steps=min(size.steps, 20),
            device=str(device),
            overwrite=True,
            report=False,
        )
    except MedfcnError as error:
        return [f"FAILED: a training of short memory ended: {error}"]
    finally:
        SupervisedFCN.forward = forward  # type: ignore[method-assign]
        if device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, device)
    card = json.loads((run.folder / "model.json").read_text())
    taken = np.min(card["training"].get("micro_batch", size.batch))
    print(f"\nmemory ran out: {taken} of {size.batch} slices at a time from then on")
    return [] if taken < size.batch else ["FAILED: the batch was not halved when memory ran out"]


if __name__ == "__main__":
    main()
