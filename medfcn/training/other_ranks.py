"""The work of every process of a training except the first: its share of each step.

It reads no volume and writes no file. The prepared slices are in the run folder, on a file system that all see.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from medfcn.inference.devices import using_threads
from medfcn.progress import Silent
from medfcn.runs.folder import RunFolder
from medfcn.runs.stop import Stop
from medfcn.settings import Settings
from medfcn.slices.plan import Plan
from medfcn.training.budget import Lap
from medfcn.training.distributed import Machine
from medfcn.training.folds import Split
from medfcn.training.prepare import reopen
from medfcn.training.record import Log
from medfcn.training.schedule import Length
from medfcn.training.start import Start
from medfcn.training.state import State
from medfcn.training.survey import Survey
from medfcn.training.trainer import Trainer


@dataclass(frozen=True)
class Order:
    """One training, sent from the first process to the others.

    Attributes:
        found: The cases, without their volumes.
        split: The use of each case.
        plan: How volumes became slices.
        settings: All settings, as planned.
        length: The length.
        threads: CPU threads of each process.
        folder: Where the slices are.
        saved: The state of a stopped or paused training; None for a new one.
        lap: The part of the training to make; None for all of it.
    """

    found: Survey
    split: Split
    plan: Plan
    settings: Settings
    length: Length
    threads: int
    folder: Path
    saved: State | None
    lap: Lap | None = None


def train_along(order: Order, machine: Machine, stop: Stop) -> None:
    """Make every step of the training, or of its lap, that the first process begins now."""
    prepared = reopen(order.found, order.split, order.plan, order.folder)
    device = machine.device
    with using_threads(order.threads), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # Replaced by the weights of the first process as soon as they meet.
        network = Start().network(order.settings, order.plan, order.found.labels, progress=Silent())
        log = Log(RunFolder(order.folder.parent).log, started=machine.started)
        trainer = Trainer(prepared, order.settings, machine, network, log=log, progress=Silent())
        if order.saved is not None:
            trainer.restore(order.saved)
        if order.lap is None:
            trainer.run(order.length, stop=stop)
        else:
            trainer.run_lap(order.lap, stop=stop)
