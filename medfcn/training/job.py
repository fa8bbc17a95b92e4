"""One training in its run folder: from the checked cases, or from a stopped state, to the written model."""

import dataclasses
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medfcn.config import budget_seconds
from medfcn.errors import TrainingStoppedError
from medfcn.evaluation import ScoreTable
from medfcn.files import make_inner_folder
from medfcn.inference.card import read_card
from medfcn.inference.devices import using_threads
from medfcn.inference.ensemble import load
from medfcn.inference.model import Model, Predictor
from medfcn.progress import Progress
from medfcn.runs.checkpoints import Checkpoints, has_checkpoints
from medfcn.runs.folder import RunFolder
from medfcn.runs.lock import locked
from medfcn.runs.outputs import clear, remove_half_written
from medfcn.runs.stop import Stop
from medfcn.settings import Settings
from medfcn.slices.plan import Plan
from medfcn.text import duration, listed
from medfcn.training.distributed import Machine
from medfcn.training.finishing import write_run
from medfcn.training.folds import Split
from medfcn.training.follow import Order
from medfcn.training.identity import (
    as_recorded,
    identity_of,
    key_of,
    read_identity,
    recorded_length,
    require_same,
    weights_key,
    with_recorded_monai,
    write_identity,
)
from medfcn.training.prepare import Prepared, as_planned, ceiling_text, prepare
from medfcn.training.record import Log, cpu_seconds, write_cases
from medfcn.training.schedule import Length
from medfcn.training.start import Start
from medfcn.training.state import State
from medfcn.training.survey import Survey
from medfcn.training.trainer import Trainer

DEFAULT_BUDGET = "10m"


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        folder: The run folder.
        steps: Optimiser steps made.
        validation: Scores of the validation cases.
        seconds: Wall time.
        cpu_seconds: User and system time.
        scored: Every folder with scores of its own, which gets a report.
    """

    folder: Path
    steps: int
    validation: ScoreTable
    seconds: float
    cpu_seconds: float
    scored: tuple[Path, ...]

    def load(self, *, device: str = "auto") -> Predictor:
        """The trained model; of folds, the mean of theirs."""
        return (
            Model.load(self.folder, device=device)
            if RunFolder(self.folder).is_finished
            else load(self.folder, device=device)
        )


@dataclass(frozen=True)
class Job:
    """Everything that the trainings of one command have in common.

    Attributes:
        found: The cases.
        settings: All settings.
        machine: Device, seed, clock and processes.
        start: The first weights of the network.
        length: The length; None takes that of a stopped training, else the default.
        threads: CPU threads; None takes those of a stopped training, else the fastest number.
        resume: Continue a stopped training.
        stop: Looked at between two steps.
        progress: Where messages go.
        slices: A folder of prepared slices that several trainings share; None keeps each training's own in its state.
    """

    found: Survey
    settings: Settings
    machine: Machine
    start: Start
    length: Length | None
    threads: int | None
    resume: bool
    stop: Stop
    progress: Progress
    slices: Path | None = None

    def timed_from_now(self) -> "Job":
        """The job with a clock that starts now."""
        machine = dataclasses.replace(self.machine, started=time.monotonic(), cpu_started=cpu_seconds())
        return dataclasses.replace(self, machine=machine)


def train_into(folder: Path, job: Job, split: Split, made: Plan) -> Run:
    """Fill a run folder that is locked.

    Args:
        folder: The run folder.
        job: The options of the training.
        split: The use of each case.
        made: The plan.
    """
    run, recorded = RunFolder(folder), read_identity(folder) if job.resume else {}
    made = as_recorded(made, recorded)
    length = job.length or recorded_length(recorded) or Length(budget_seconds=budget_seconds(DEFAULT_BUDGET))
    job = dataclasses.replace(
        job,
        settings=as_planned(job.settings, made),
        length=length,
        threads=job.threads or recorded.get("threads"),
    )
    identity = identity_of(job.found, split, made, job.settings, job.machine, length)
    identity = with_recorded_monai(identity, recorded)
    if job.threads is not None:
        identity["threads"] = job.threads
    require_same(recorded, identity, folder)
    if not job.resume:
        clear(folder)
    remove_half_written(folder)
    try:
        make_inner_folder(run.state)
        if job.resume and not recorded:
            job.progress.say(f"{folder}: was stopped before anything was recorded; it starts over, {length.text}")
        if not recorded:  # a kill while slices are prepared must not let the next start be of another length
            write_identity(folder, identity)
        prepared = prepare(job.found, split, made, job.slices or run.state, job.progress, state=run.state)
        write_cases(run.cases, job.found, split)
        _report_data(prepared, job.progress)
        with using_threads(job.threads):
            result = _train_prepared(run, job, prepared, recorded, identity)
        del prepared  # a network file system removes no file that is still mapped
        shutil.rmtree(run.state)
    except BaseException:
        # Before the first checkpoint half a run is of no use, unless it was stopped in order to continue later.
        if not has_checkpoints(run.state) and not job.stop.is_asked:
            clear(folder)
        raise
    job.progress.say(
        f"trained {result.steps} steps in {duration(result.seconds)}, {result.cpu_seconds:.0f} CPU seconds: {folder}"
    )
    return result


def _train_prepared(
    run: RunFolder, job: Job, prepared: Prepared, recorded: Mapping[str, Any], identity: dict[str, Any]
) -> Run:
    """Train from the start or from the last checkpoint, and write the result."""
    machine, split, length = job.machine, prepared.split, job.length or Length()
    with torch.random.fork_rng(devices=[machine.device] if machine.device.type == "cuda" else []):
        torch.manual_seed(machine.seed)
        log = Log(run.log, started=machine.started, cpu_started=machine.cpu_started)
        network = job.start.network(job.settings, prepared.plan, job.found.labels, progress=job.progress)
        identity["first_weights"] = weights_key(network.state_dict())
        trainer = Trainer(prepared, job.settings, machine, network, log=log, progress=job.progress)
        if "threads" not in identity:
            torch.set_num_threads(trainer.stepper.fastest_threads())
            identity["threads"] = torch.get_num_threads()
        require_same(recorded, identity, run.path)
        write_identity(run.path, identity)
        every = job.settings.training.checkpoint_seconds
        checkpoints = Checkpoints(run.state, key_of(identity), every_seconds=every)
        saved = checkpoints.latest(State.load, job.progress) if job.resume else None
        if saved is not None:
            trainer.restore(saved)
            job.progress.say(f"going on after step {saved.step}")
        elif job.resume:
            job.progress.say("it was stopped before its first checkpoint: starting from the slices that are prepared")
        order = Order(
            job.found.without_volumes(),
            split,
            prepared.plan,
            job.settings,
            length,
            identity["threads"],
            run.state.resolve(),
            saved,
        )
        machine.world.broadcast(order)
        outcome = trainer.run(length, checkpoints=checkpoints, stop=job.stop)
    seconds, used = log.time_used()
    record = {"seconds": round(seconds, 1), "cpu_seconds": round(used, 1), "seed": machine.seed, **job.start.record}
    if machine.world.size > 1:
        record["processes"] = machine.world.size
    if length.budget_seconds is not None:
        record["budget_seconds"] = length.budget_seconds
    if split.fold:
        record["fold"] = split.fold
    table = write_run(run, prepared, outcome, record, job.progress)
    return Run(run.path, outcome.steps, table, *log.time_used(), scored=(run.path,))


def _report_data(prepared: Prepared, progress: Progress) -> None:
    """Report the cases and the slices."""
    split, made = prepared.split, prepared.plan
    progress.say(
        f"{len(split.training)} cases to train on, {len(split.validation)} to validate; labels "
        f"{listed(prepared.survey.labels.names)}; {listed(made.views)} slices, windows "
        f"{made.window[0]}×{made.window[1]}"
    )
    for line in (split.origin, *split.notes):
        if line:
            progress.say(line)
    progress.say(f"the network grid allows a Dice of {ceiling_text(prepared.ceilings)}")


@contextmanager
def stopping(folders: Sequence[Path], stop: Stop) -> Iterator[None]:
    """Turn the interrupt of a signal into the one line that says how to continue.

    Args:
        folders: The locked run folders to fill, in order.
        stop: The request that the signal made.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not stop.is_asked:
            raise
        unfinished = [folder for folder in folders if not RunFolder(folder).is_finished]
        if not unfinished:
            raise TrainingStoppedError("stopped; nothing was changed", signal_number=stop.signal_number) from None
        make_inner_folder(RunFolder(unfinished[0]).state)
        raise TrainingStoppedError(
            "stopped; go on with the same command and --resume", signal_number=stop.signal_number
        ) from None


def finished_run(folder: Path, progress: Progress) -> Run:
    """The run in a folder that needs no resuming."""
    run = RunFolder(folder)
    if run.state.is_dir():  # killed after the last file was written
        with locked(folder, progress):
            shutil.rmtree(run.state)
    remove_half_written(folder)
    progress.say(f"{folder}: is finished; nothing is left to do")
    training = read_card(run.card).training
    table = ScoreTable.from_csv(run.scores)
    return Run(folder, training["steps"], table, training["seconds"], training["cpu_seconds"], scored=(folder,))
