"""The loop of a search: one trial after the other, or those of a cluster's workers at a time, each recorded."""

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medfcn.config import budget_seconds
from medfcn.errors import DatasetError
from medfcn.files import make_folder
from medfcn.progress import Progress, warn
from medfcn.slices.plan import Plan
from medfcn.text import counted, duration, listed
from medfcn.training.crossvalidation import fold_splits
from medfcn.training.folds import Folds, Split
from medfcn.training.identity import identity_of, recorded_length, require_same
from medfcn.training.job import DEFAULT_BUDGET, Job
from medfcn.training.prepare import plan_split, plan_training, prepare
from medfcn.training.schedule import Length
from medfcn.training.start import Start
from medfcn.tuning.folder import WORK_FOLDER
from medfcn.tuning.on_cluster import TrialsOnCluster
from medfcn.tuning.outcome import best_of, values_text, write_best, write_trials
from medfcn.tuning.study import NextTrial, Study
from medfcn.tuning.task import Task
from medfcn.tuning.trial import Score, Trial, problem_of, run_trial

_KILLS_MOST = 3
"""A trial has failed if its process was killed this often: its settings need too much memory, most likely."""
_CASES_FEW = 10


def split_and_plan(job: Job, folds: Folds | None) -> tuple[Sequence[Split], Sequence[Plan]]:
    """The splits that all trials share, and the plan of each.

    Raises:
        DatasetError: The cases cannot be split, or no validation case contains a label.
    """
    found, settings, seed = job.found, job.settings, job.machine.seed
    if folds is None:
        split, made = plan_training(found, settings, seed=seed)
        if not any(sum(found.label_voxels[name]) for name in split.validation):
            raise DatasetError(
                f"none of the {len(split.validation)} validation cases contains a label, so trials cannot be "
                "compared; add cases, or search with --folds",
                code="LABELS_EMPTY",
            )
        return (split,), (made,)
    splits = fold_splits(found, folds, seed)
    return splits, [plan_split(found, split, settings) for split in splits]


@dataclass(frozen=True)
class Search:
    """Everything that is the same for all trials of a search.

    Attributes:
        folder: The output.
        task: The settings that vary.
        job: A training; each trial replaces its settings and its clock.
        folds: Train and score in folds; None trains once and scores on the validation cases.
        splits: The cases to train on and to validate with; one for each fold.
        plans: The plan of each split; those of the trials differ by the searched settings alone.
        elsewhere: Where trials are trained, if not in this process.
    """

    folder: Path
    task: Task
    job: Job
    folds: Folds | None
    splits: Sequence[Split]
    plans: Sequence[Plan]
    elsewhere: TrialsOnCluster | None = None

    def enter(self, study: Study) -> "Search":
        """Record the search in its study, or continue the one that is recorded there.

        Returns:
            The search with the recorded length and number of threads, where none are requested.

        Raises:
            TrainingError: The study is of another search; the message names the difference.
        """
        recorded, job, split = study.identity, self.job, self.splits[0]  # in folds the first split has every case too
        length = job.length or recorded_length(recorded) or Length(budget_seconds=budget_seconds(DEFAULT_BUDGET))
        job = dataclasses.replace(job, length=length, threads=job.threads or recorded.get("threads"))
        identity = {  # differences are named in this order
            "folds": None if self.folds is None else self.folds.count,
            "searched": {searched.name: dataclasses.asdict(searched.domain) for searched in self.task.space},
            **identity_of(job.found, split, self.plans[0], job.settings, job.machine, length),
            "threads": job.threads,
        }
        require_same(recorded, identity, self.folder)
        study.write_identity(identity)
        study.begin(self.task.defaults)
        return dataclasses.replace(self, job=job)

    def run(self, study: Study, count: int, progress: Progress) -> tuple[Trial, ...]:
        """Run trials until there are `count`; `trials.csv` and `best.toml` are written after each.

        Args:
            study: Where the trials are recorded.
            count: Number of trials, those that have already ended included.
            progress: Where each trial is reported.

        Returns:
            All trials.
        """
        names = [searched.name for searched in self.task.space]
        write_trials(self.folder, study.trials(), names)
        missing = count - study.ended_count
        if missing <= 0:
            progress.say(f"{self.folder}: has its {count} trials; nothing is left to do")
            return study.trials()
        self._prepare(missing, names, progress)
        while study.ended_count < count:
            for trial, result in self._round(study, count - study.ended_count):
                trials = study.trials()
                write_trials(self.folder, trials, names)
                if any(trial.score for trial in trials):
                    write_best(self.folder, self.task.settings(best_of(trials).values), trials)
                done = f"trial {trial.number}, {study.ended_count} of {count}"
                progress.say(f"{done}: {values_text(trial.values)}: {result}")
                shutil.rmtree(self._place(trial), ignore_errors=True)
        return study.trials()

    def _round(self, study: Study, missing: int) -> Iterator[tuple[NextTrial, str]]:
        """Run the next trial, or as many as a cluster has workers, each with its result in words."""
        if self.elsewhere is None:
            trial = study.next_trial(self.task.space)
            yield trial, self._run_one(study, trial)
            return
        drawn = [
            study.next_trial(self.task.space, ahead=ahead) for ahead in range(min(missing, self.elsewhere.count))
        ]
        begun: dict[str, NextTrial] = {}
        for trial in drawn:
            known = self._known(study, trial)
            if known is None:
                begun[str(self._place(trial).absolute())] = trial
            else:
                yield trial, known
        try:
            scored = self.elsewhere.each(self.task, self.job, self.folds, self.splits, dict(begun))
            for trial, result in scored:
                del begun[str(self._place(trial).absolute())]
                if isinstance(result, str):
                    study.fail(trial, result)
                    yield trial, f"failed: {result}"
                else:
                    study.finish(trial, result)
                    yield trial, _words(result)
        except BaseException:
            for trial in begun.values():
                study.interrupt(trial)
            raise

    def _prepare(self, missing: int, names: Sequence[str], progress: Progress) -> None:
        """Prepare the slices before any clock starts, so that the first trial has as much time as the others."""
        job, training, validation = self.job, len(self.splits[0].training), len(self.splits[0].validation)
        slices = job.slices or self.folder
        make_folder(slices)
        for split, made in zip(self.splits, self.plans, strict=True):
            prepare(job.found, split, made, slices, job.progress)
        repeated = "" if self.folds is None else f", {self.folds.count} times"
        progress.say(
            f"{counted(missing, 'trial')}, each trained on {counted(training, 'case')} and scored on "
            f"{validation}{repeated}; searched: {listed(names)}"
        )
        if self.folds is None and validation < _CASES_FEW:
            few = f"{counted(validation, 'case')} to score on: too few to tell settings apart well"
            warn(progress, f"{few}; --folds N scores a trial on every case")

    def _run_one(self, study: Study, trial: NextTrial) -> str:
        """Run one trial and record its result, which is returned in words."""
        known = self._known(study, trial)
        if known is not None:
            return known
        settings = Start().settle(self.task.settings(trial.values), preset=None)
        job = dataclasses.replace(self.job, settings=settings)
        try:
            score = run_trial(self._place(trial), job, self.folds, self.splits)
        except BaseException as error:
            problem = problem_of(error)
            if problem is None:
                study.interrupt(trial)
                raise
            study.fail(trial, problem)
            return f"failed: {problem}"
        study.finish(trial, score)
        return _words(score)

    def _known(self, study: Study, trial: NextTrial) -> str | None:
        """Record a trial that need not be run, and give its result in words; None for one that is to be run."""
        twin = next((ended for ended in study.trials() if ended.score and ended.values == trial.values), None)
        if twin is not None and twin.score is not None:
            study.finish(trial, twin.score, note=f"as trial {twin.number}")
            return f"as trial {twin.number}"
        if trial.kills < _KILLS_MOST:
            return None
        problem = f"its process was killed {trial.kills} times"
        study.fail(trial, problem)
        return f"failed: {problem}"

    def _place(self, trial: NextTrial) -> Path:
        """The folder of a trial and of its repetitions, which continue where it stopped."""
        return self.folder / WORK_FOLDER / f"trial_{trial.origin}"


def _words(score: Score) -> str:
    return f"Dice {score.mean:.4f}, {duration(score.seconds)}"
