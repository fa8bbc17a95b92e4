"""One trial of a search: a whole training with some settings, and what it reaches on the validation cases."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from medfcn.errors import SettingsError, TrainingError, TrainingStoppedError
from medfcn.evaluation import ScoreTable
from medfcn.progress import Progress
from medfcn.runs.folder import RunFolder
from medfcn.runs.stop import Stop
from medfcn.settings import Settings
from medfcn.training.crossvalidation import train_folds
from medfcn.training.distributed import Machine
from medfcn.training.folds import Folds, Split
from medfcn.training.job import Job, Run, finished_run, train_into
from medfcn.training.prepare import plan_split
from medfcn.training.record import cpu_seconds
from medfcn.training.schedule import Length
from medfcn.training.start import Start
from medfcn.training.survey import Survey
from medfcn.tuning.space import Value

State = Literal["done", "failed", "interrupted"]


@dataclass(frozen=True)
class Score:
    """What a trial reached.

    Attributes:
        mean: Mean Dice over the validation cases, each the mean over its labels.
        median: Their median.
        worst: The smallest of them.
        steps: Optimiser steps made, those of all folds together.
        seconds: Wall time.
    """

    mean: float
    median: float
    worst: float
    steps: int
    seconds: float


@dataclass(frozen=True)
class Trial:
    """One row of `trials.csv`.

    Attributes:
        number: From 0, as in `study.db`.
        values: What was searched, by name.
        state: `failed` trials could not be trained; `interrupted` ones were stopped or killed, and are repeated.
        score: Of one that is done.
        problem: Why it failed, in one line; for one that is done, whose score it took over.
        origin: The first trial that these values were drawn for; another number than `number` in a repetition.
    """

    number: int
    values: Mapping[str, Value]
    state: State
    score: Score | None
    problem: str
    origin: int


@dataclass(frozen=True)
class Bench:
    """What is the same for every trial.

    Attributes:
        found: The cases; those left out are not among them.
        folds: Train and score in folds; None trains once and scores on the cases kept for validation.
        splits: Which cases are trained on; one for each fold.
        device: Where the networks are.
        seed: Of the split and of every training.
        length: Of one trial; None takes that of the search that is resumed, else the default.
        threads: CPU threads; None takes whichever number is faster.
        slices: Where the prepared slices lie that all trials share.
        stop: Looked at between two steps.
        progress: Where bars go.
    """

    found: Survey
    folds: Folds | None
    splits: Sequence[Split]
    device: torch.device
    seed: int
    length: Length | None
    threads: int | None
    slices: Path
    stop: Stop
    progress: Progress

    def machine(self) -> Machine:
        """The device and the seed, with a clock that starts now."""
        return Machine(self.device, self.seed, started=time.monotonic(), cpu_started=cpu_seconds())


def run_trial(folder: Path, bench: Bench, settings: Settings) -> Score:
    """Train with some settings, or go on where the same training was stopped, and score it.

    Args:
        folder: The trial's own; what a stopped one left there is gone on with.
        bench: What is the same for every trial.
        settings: All settings.

    Raises:
        MedfcnError: It cannot be trained.
        TrainingStoppedError: `bench.stop` was asked to.
    """
    resume = folder.is_dir()
    folder.mkdir(exist_ok=True)
    settings = Start().settle(settings, preset=None)
    job = Job(
        bench.found, settings, bench.machine(), Start(), bench.length, bench.threads,
        resume=resume, stop=bench.stop, progress=bench.progress, slices=bench.slices,
    )  # fmt: skip
    return score_of(_run(folder, bench, job))


def _run(folder: Path, bench: Bench, job: Job) -> Run:
    if bench.folds is not None:
        for place in bench.folds.folders(folder):
            place.mkdir(exist_ok=True)
        return train_folds(folder, bench.folds, job, overwrite=False)
    if RunFolder(folder).is_finished:
        return finished_run(folder, bench.progress)
    split = bench.splits[0]
    return train_into(folder, job, split, plan_split(bench.found, split, job.settings))


def score_of(run: Run) -> Score:
    """Dice over the validation cases of a run; a miss counts 0, and a case that holds nothing and got nothing is left
    out.
    """
    dices = case_dices(run.validation) or [0.0]
    return Score(float(np.mean(dices)), float(np.median(dices)), min(dices), run.steps, round(run.seconds, 1))


def case_dices(table: ScoreTable) -> list[float]:
    """For each case the mean Dice over its labels; those empty in both masks are left out."""
    by_case: dict[str, list[float]] = {}
    for row in table.rows:
        if row.is_scored and not math.isnan(row.dice):
            by_case.setdefault(row.case, []).append(row.dice)
    return [float(np.mean(dices)) for dices in by_case.values()]


def problem_of(error: BaseException) -> str | None:
    """In one line, why a trial with these settings cannot be trained; None for what would stop every other one too.

    A loss that is not finite, settings that do not fit each other and memory that runs out are a trial's own. Files
    that cannot be read, a full disk, a lost device and an interrupt are not.
    """
    if isinstance(error, TrainingStoppedError):
        return None
    if isinstance(error, TrainingError | SettingsError):
        return str(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate memory" in str(error)):
        return "out of memory"
    return None
