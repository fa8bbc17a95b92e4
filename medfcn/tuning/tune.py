"""The one call that searches: a data set → the settings that were best on its validation cases."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from medfcn.calls import called_with
from medfcn.errors import SettingsError, TrainingStoppedError
from medfcn.inference.devices import choose_device
from medfcn.libraries import require_installed
from medfcn.progress import Progress
from medfcn.progress import Task as ProgressTask
from medfcn.runs.cluster import connected
from medfcn.runs.folder import STUDY_FILE, RunFolder
from medfcn.runs.lock import locked
from medfcn.runs.outputs import remove_half_written
from medfcn.runs.passing import absolute_path
from medfcn.runs.stop import Stop
from medfcn.training.distributed import Machine
from medfcn.training.folds import Folds
from medfcn.training.job import Job
from medfcn.training.prepare import as_planned
from medfcn.training.record import cpu_seconds
from medfcn.training.request import WorkRequest
from medfcn.training.start import Start, require_room
from medfcn.training.survey import survey
from medfcn.tuning.folder import WORK_FOLDER, clear, clear_work, refuse_taken, require_place, require_search
from medfcn.tuning.on_cluster import TrialsOnCluster
from medfcn.tuning.outcome import Tuned, best_of
from medfcn.tuning.search import Search, split_and_plan
from medfcn.tuning.space import SPACE, Searched, choose_space
from medfcn.tuning.study import Study
from medfcn.tuning.task import set_by_user, task_of


@dataclass(frozen=True, kw_only=True)
class TuneRequest(WorkRequest):
    """The options of `tune`.

    Attributes:
        trials: Number of trials, failed ones included.
        only: Names of the settings to search, such as `learning_rate`; None takes all of `space` that are not set.
        space: The settings that can be searched, each with its range; None takes `medfcn.tuning.space.SPACE`.
        cluster: The address of a Dask scheduler, or the path of its scheduler file: its workers train a trial each,
            so many at a time. They must see the same files under the same names. The values of trials that are
            trained at the same time do not follow from each other's scores.
    """

    trials: int = 20
    only: Sequence[str] | None = None
    space: Sequence[Searched] | None = None
    cluster: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trials < 1:
            raise SettingsError(f"trials {self.trials}: at least 1 is needed; give a larger number", field="trials")


@called_with(TuneRequest)
def tune(request: TuneRequest) -> Tuned:
    """Search for the settings with the highest mean Dice on the validation cases.

    Each trial is a training of its own on the same cases, scored on the same validation cases. `budget`, `epochs` and
    `steps` are those of one trial. The first trial has the defaults, so the result is never worse than they are on
    these cases. Settings that are given (in `settings` those that differ from the defaults, or are in the file) are
    not searched.

    The output contains `best.toml` for `train`, `trials.csv` and `study.db`. With `resume`, more trials may be
    requested than before.

    Raises:
        MissingFileError: optuna is not installed, or there is nothing to resume.
        OutputExistsError: The output exists, and `overwrite` is false.
        SettingsError: A setting is unknown or has a value that is not allowed, or nothing is left to search.
        DatasetError: As in `train`.
        TrainingStoppedError: `stop` was asked to.
        TrainingError: Another process uses the folder, the search there is another one, or no trial could be trained.
    """
    require_installed("tune")
    if request.cluster is not None:
        request = replace(request, dataset=absolute_path(request.dataset), output=Path(request.output).absolute())
    say, folder, stop = request.say, Path(request.output), request.stop or Stop()
    if request.resume:
        require_search(folder)
    elif not RunFolder(folder).lock.is_file():
        require_place(folder, overwrite=request.overwrite)
    refuse_taken(folder)
    with locked(folder, say), _stopping(stop, folder):
        if not request.resume and not request.overwrite:
            require_place(folder)
        base, fixed = request.chosen_settings(), set_by_user(request)
        settings = Start().settle(base, preset=request.preset)
        space = choose_space(SPACE if request.space is None else request.space, fixed, request.only)
        length, cases = request.length(settings), request.cases()
        labels = request.label_map(settings, cases)
        found = survey(cases, labels, request.options, skip_bad=request.skip_bad, progress=say)
        started, used = time.monotonic(), cpu_seconds()
        machine = Machine(choose_device(request.device), request.seed, started=started, cpu_started=used)
        job = Job(
            found, settings, machine, Start(), length, request.threads, resume=False, stop=stop,
            progress=_Bars(say), slices=folder / WORK_FOLDER / "slices",
        )  # fmt: skip
        folds = Folds.of(None, request.folds)
        splits, plans = split_and_plan(job, folds)
        for made in plans:
            require_room(as_planned(settings, made), made, found.labels, machine.device)
        task = task_of(base, fixed, space, plan=plans[0], labels=found.labels)
        if request.overwrite:
            clear(folder)
        remove_half_written(folder)
        with closing(Study(folder / STUDY_FILE, seed=request.seed)) as study, _workers(request) as elsewhere:
            search = Search(folder, task, job, folds, splits, plans, elsewhere).enter(study)
            trials = search.run(study, request.trials, say)
        clear_work(folder)
        return Tuned(
            folder,
            trials,
            settings=task.settings(best_of(trials).values),
            validation_cases=sum(len(split.validation) for split in splits),
            in_folds=folds is not None,
            has_test=bool(request.leave_out),
            of_labelled=found.of_labelled(name for split in splits for name in split.validation),
        )


@contextmanager
def _workers(request: TuneRequest) -> Iterator[TrialsOnCluster | None]:
    """The workers of the requested cluster; None without one."""
    if request.cluster is None:
        yield None
        return
    with connected(request.cluster) as cluster:
        request.say.say(str(cluster))
        yield TrialsOnCluster(cluster, request.device)


@contextmanager
def _stopping(stop: Stop, folder: Path) -> Iterator[None]:
    """Turn an interrupt that a signal asked for into the one line that says how to continue."""
    try:
        yield
    except KeyboardInterrupt:
        if not stop.is_asked:
            raise
        begun = (folder / STUDY_FILE).is_file()
        how = "stopped; go on with the same command and --resume" if begun else "stopped before the first trial"
        raise TrainingStoppedError(how, signal_number=stop.signal_number) from None


class _Bars:
    """The bars of a trial's training without its messages, of which a search would have too many."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def say(self, message: str) -> None:
        """Nothing."""

    def task(self, name: str, total: int) -> AbstractContextManager[ProgressTask]:
        """A bar, as without a search around it."""
        return self.progress.task(name, total)
