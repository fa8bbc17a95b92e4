"""nnU-Net 2D, trained for CPU seconds; `accuracy_for_cost.py` runs this with the Python that has nnunetv2.

    python benchmarks/peers/nnunet_2d.py SECONDS --seed 0 --points 300 600

Data, plans and folders are nnU-Net's own (`nnUNet_raw`, `nnUNet_preprocessed`, `nnUNet_results`), and so are network,
loss, augmentation, optimiser and sampling: each step is `nnUNetTrainer.train_step` on fold `all`. Three things differ
from `nnUNetv2_train`, all in its favour: the learning rate falls by its polynomial with every step, and to nothing at
the end of the budget; batches to validate on, which are only logged, are left out, and so is the validation after the
training. What `nnUNetv2_predict` needs is left at each of the points, as `checkpoint_<seconds>.pth`, and in the end
as `checkpoint_final.pth`; `points.json` tells the CPU seconds and steps until then. A training that was stopped goes
on from where it last saved, 120 CPU seconds ago at most.
"""

import argparse
import json
import random
import resource
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.run.run_training import get_trainer_from_args

DATASET, CONFIGURATION, FOLD = "1", "2d", "all"
CPU_SECONDS_BETWEEN_STATES = 120.0
CPU_SECONDS_TO_END, CPU_SECONDS_TO_POINT = 3.0, 1.0
"""For the last step, the last checkpoint, and the end of the process; for the last step before a point."""


def cpu_seconds() -> float:
    """User and system time of this process and its children so far."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class Budgeted:
    """A training of nnU-Net with a clock of CPU seconds.

    Args:
        seconds: CPU seconds of the whole training.
        seed: Of every random number.
    """

    def __init__(self, seconds: float, seed: int) -> None:
        self.seconds = seconds
        self.trainer = get_trainer_from_args(DATASET, CONFIGURATION, FOLD, device=torch.device("cpu"))
        self.folder = Path(self.trainer.output_folder)
        self.latest, self.notes = self.folder / "checkpoint_latest.pth", self.folder / "points.json"
        self.before, self.steps, self.points = 0.0, 0, dict[str, Any]()
        is_resumed = self.latest.is_file() and self.notes.is_file()
        if is_resumed:
            found = json.loads(self.notes.read_text())
            self.before, self.steps, self.points = found["cpu_seconds"], found["steps"], found["points"]
        random.seed(seed + self.steps)
        np.random.seed(seed + self.steps)  # noqa: NPY002 (nnU-Net draws from it)
        torch.manual_seed(seed + self.steps)
        self.trainer.on_train_start()
        if is_resumed:
            self.trainer.load_checkpoint(str(self.latest))
        # Its scheduler, with CPU seconds in the place of epochs.
        self.trainer.lr_scheduler.max_steps = seconds

    def used(self) -> float:
        """CPU seconds so far, those before an interruption included."""
        return self.before + cpu_seconds()

    def save(self, name: str, *, point: str | None = None) -> None:
        """Write a checkpoint under its name once it is whole, then what stands in `points.json`."""
        if point is not None:
            self.points[point] = {"cpu_seconds": self.used(), "steps": self.steps}
        whole = self.folder / f"{name}.part"
        self.trainer.save_checkpoint(str(whole))
        whole.replace(self.folder / name)
        notes = {"cpu_seconds": self.used(), "steps": self.steps, "points": self.points}
        self.notes.write_text(json.dumps(notes, indent=1))

    def run(self, points: list[float]) -> None:
        """Train until the budget is used."""
        due = [point for point in sorted(points) if f"{point:g}" not in self.points]
        end, saved = self.seconds - CPU_SECONDS_TO_END, self.used()
        self.trainer.network.train()
        while (used := self.used()) < end:
            if due and used >= due[0] - CPU_SECONDS_TO_POINT:
                point = f"{due.pop(0):g}"
                self.save(f"checkpoint_{point}.pth", point=point)
            if used - saved > CPU_SECONDS_BETWEEN_STATES:
                self.save(self.latest.name)
                saved = used
            self.trainer.lr_scheduler.step(used)
            self.trainer.train_step(next(self.trainer.dataloader_train))
            self.steps += 1
            if self.steps % 50 == 0:
                print(f"step {self.steps}, {self.used():.0f} of {self.seconds:g} CPU s", flush=True)
        self.save("checkpoint_final.pth", point="final")
        self.latest.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--points", type=float, nargs="*", default=[])
    given = parser.parse_args()
    torch.set_num_threads(1)
    Budgeted(given.seconds, given.seed).run(given.points)


if __name__ == "__main__":
    main()
