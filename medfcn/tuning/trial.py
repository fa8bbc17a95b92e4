"""One trial of a search: a whole training with some settings, and its scores on the validation cases."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from medfcn.errors import SettingsError, TrainingError, TrainingStoppedError
from medfcn.evaluation import ScoreTable
from medfcn.files import make_inner_folder
from medfcn.runs.folder import RunFolder
from medfcn.training.crossvalidation import train_folds
from medfcn.training.folds import Folds, Split
from medfcn.training.job import Job
from medfcn.training.prepare import plan_split
from medfcn.training.run import Run, finished_run
from medfcn.training.training import train_into
from medfcn.tuning.space import Value

State = Literal["done", "failed", "interrupted"]


@dataclass(frozen=True)
class Score:
    """The result of a trial. The fields are columns of `trials.csv`, in their order.

    Attributes:
        mean: Mean Dice over the validation cases, each the mean over its labels.
        median: Median Dice.
        worst: Smallest Dice.
        steps: Number of optimiser steps, those of all folds together.
        seconds: Wall time.
    """

    mean: float
    median: float
    worst: float
    steps: int
    seconds: float

    @classmethod
    def of(cls, run: Run) -> "Score":
        """The score of a run. A miss counts 0; a case that is empty in both masks is left out."""
        dices = case_dices(run.validation) or [0.0]
        return cls(float(np.mean(dices)), float(np.median(dices)), min(dices), run.steps, round(run.seconds, 1))


@dataclass(frozen=True)
class Trial:
    """One row of `trials.csv`.

    Attributes:
        number: From 0, as in `study.db`.
        values: The searched values, by name.
        state: `failed` trials could not be trained; `interrupted` ones were stopped or killed, and are repeated.
        score: None unless the trial is done.
        problem: The error of a failed trial in one line; for a done one, the trial whose score it took over.
        origin: The first trial with these values; differs from `number` in a repetition.
    """

    number: int
    values: Mapping[str, Value]
    state: State
    score: Score | None
    problem: str
    origin: int

    @property
    def mean(self) -> float:
        """Mean Dice; -1 unless the trial is done."""
        return -1.0 if self.score is None else self.score.mean


def run_trial(folder: Path, job: Job, folds: Folds | None, splits: Sequence[Split]) -> Score:
    """Train, or continue where the same training was stopped, and score the result.

    Args:
        folder: The trial's own folder, which may contain a stopped training.
        job: The training, with the settings of this trial.
        folds: Train and score in folds; None trains once and scores on the validation cases.
        splits: The cases to train on and to validate with; one for each fold.

    Raises:
        MedfcnError: It cannot be trained.
        TrainingStoppedError: `job.stop` was asked to.
    """
    job = replace(job.timed_from_now(), resume=folder.is_dir())
    for place in (folder, *(folds.folders(folder) if folds else ())):
        make_inner_folder(place)
    if folds is not None:
        return Score.of(train_folds(folder, folds, job, overwrite=False))
    if RunFolder(folder).is_finished:
        return Score.of(finished_run(folder, job.progress))
    return Score.of(train_into(folder, job, splits[0], plan_split(job.found, splits[0], job.settings)))


def case_dices(table: ScoreTable) -> list[float]:
    """For each case the mean Dice over its labels; labels that are empty in both masks are left out."""
    by_case: dict[str, list[float]] = {}
    for row in table.rows:
        if row.is_scored and not math.isnan(row.dice):
            by_case.setdefault(row.case, []).append(row.dice)
    return [float(np.mean(dices)) for dices in by_case.values()]


def problem_of(error: BaseException) -> str | None:
    """In one line, why a trial with these settings cannot be trained; None for an error that would stop every trial.

    A loss that is not finite, settings that do not fit each other and too little memory are a trial's own problem.
    Files that cannot be read, a full disk, a lost device and an interrupt are not.
    """
    if isinstance(error, TrainingStoppedError):
        return None
    if isinstance(error, TrainingError | SettingsError):
        return str(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate memory" in str(error)):
        return "out of memory"
    return None
