"""A search on a Dask cluster: each trial is a task, trained by one worker process."""

import pickle
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from medfcn.errors import MedfcnError
from medfcn.inference.devices import choose_device
from medfcn.inference.on_cluster import device_of
from medfcn.inference.worker import Broken
from medfcn.progress import Silent
from medfcn.runs.cluster import Cluster, LostError, own_number
from medfcn.runs.passing import shareable
from medfcn.runs.stop import Stop
from medfcn.training.distributed import Machine
from medfcn.training.folds import Folds, Split
from medfcn.training.job import Job
from medfcn.training.record import cpu_seconds
from medfcn.training.start import Start
from medfcn.tuning.space import Value
from medfcn.tuning.study import NextTrial
from medfcn.tuning.task import Task
from medfcn.tuning.trial import Score, problem_of, run_trial


@dataclass(frozen=True)
class _Order:
    """Everything that a worker needs for any trial of a search."""

    task: Task
    job: Job
    folds: Folds | None
    splits: Sequence[Split]
    device: str


class TrialsOnCluster:
    """The trials of a search, which the workers of a cluster train.

    They see the same files under the same names. A trial whose worker is killed is continued by another.

    Args:
        cluster: The cluster.
        device: As it was requested; each worker chooses its own.
    """

    def __init__(self, cluster: Cluster, device: str) -> None:
        self._cluster, self._device = cluster, device

    @property
    def count(self) -> int:
        """Number of workers, at least 1: so many trials are trained at the same time."""
        return max(1, len(self._cluster.places()))

    def each(
        self, task: Task, job: Job, folds: Folds | None, splits: Sequence[Split], trials: Mapping[str, NextTrial]
    ) -> Iterator[tuple[NextTrial, Score | str]]:
        """Train trials, and give the score of each as it comes, or why there is none.

        Args:
            task: The settings that vary.
            job: A training; each trial replaces its settings.
            folds: Train and score in folds; None trains once and scores on the validation cases.
            splits: The cases to train on and to validate with; one for each fold.
            trials: By the path of their folders.

        Raises:
            MedfcnError: The scheduler is gone, or a trial met a problem that every other would meet.
        """
        machine = Machine(torch.device("cpu"), job.machine.seed, started=0.0)
        plain = replace(job, machine=machine, stop=Stop(), progress=Silent(), threads=job.threads or 1)
        content = shareable(_Order(task, plain, folds, splits, self._device), "the transforms")
        places = self._cluster.places()
        items = {folder: (folder, dict(trial.values), places) for folder, trial in trials.items()}
        for folder, result in self._cluster.each(try_one, content, items):
            if isinstance(result, Broken):
                raise MedfcnError(result.problem, code=result.code)
            yield trials[folder], str(result) if isinstance(result, LostError) else result


def try_one(
    content: bytes, folder: str, values: Mapping[str, Value], places: Mapping[str, int]
) -> Score | str | Broken:
    """Train and score one trial, in a worker; or continue it, if a worker that was killed had begun it.

    Returns:
        The score; the problem of these settings in one line; or that of every trial.
    """
    order: _Order = pickle.loads(content)
    device = device_of(order.device, own_number(places), torch.cuda.device_count()) or order.device
    try:
        machine = Machine(
            choose_device(device), order.job.machine.seed, started=time.monotonic(), cpu_started=cpu_seconds()
        )
        settings = Start().settle(order.task.settings(values), preset=None)
        job = replace(order.job, machine=machine, settings=settings)
        return run_trial(Path(folder), job, order.folds, order.splits)
    except Exception as error:
        problem = problem_of(error)
        if problem is not None:
            return problem
        if isinstance(error, MedfcnError):
            return Broken(f"on {platform.node()}: {error}", error.code)
        raise
