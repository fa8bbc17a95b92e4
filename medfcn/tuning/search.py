"""The loop of a search: trial after trial, each noted before the next begins."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medfcn.config import budget_seconds
from medfcn.progress import Progress
from medfcn.runs.folder import BEST_FILE, TRIALS_FILE
from medfcn.settings import Settings
from medfcn.slices.plan import Plan
from medfcn.text import duration
from medfcn.training.folds import split_into_folds
from medfcn.training.identity import identity_of, recorded_length, require_same
from medfcn.training.job import DEFAULT_BUDGET
from medfcn.training.prepare import plan_split, plan_training, prepare
from medfcn.training.schedule import Length
from medfcn.training.start import Start
from medfcn.tuning.outcome import best_of, values_text, write_best, write_trials
from medfcn.tuning.study import Asked, Study
from medfcn.tuning.task import Task
from medfcn.tuning.trial import Bench, problem_of, run_trial

_KILLS_MOST = 3
"""A trial in which a process was killed this often has failed: its settings ask for too much memory, most likely."""

_CASES_FEW = 10


def split_and_plan(bench: Bench, settings: Settings) -> tuple[Bench, list[Plan]]:
    """The bench with its splits, and the plan of each, which all trials share but for what is searched.

    Raises:
        DatasetError: The cases cannot be split.
    """
    found = bench.found
    if bench.folds is None:
        split, made = plan_training(found, settings, seed=bench.seed)
        return dataclasses.replace(bench, splits=(split,)), [made]
    voxels = {case_id: shape.label_voxels for case_id, shape in found.fingerprints.items()}
    splits = split_into_folds(found.cases, voxels, found.labels.names, count=bench.folds.count, seed=bench.seed)
    return dataclasses.replace(bench, splits=splits), [plan_split(found, split, settings) for split in splits]


def enter(study: Study, bench: Bench, task: Task, plan: Plan, folder: Path) -> Bench:
    """The bench as the search was begun with, which is noted in the study.

    Raises:
        TrainingError: The study is of another search; the message names what differs.
    """
    recorded = study.identity
    length = bench.length or recorded_length(recorded) or Length(budget_seconds=budget_seconds(DEFAULT_BUDGET))
    threads = bench.threads or recorded.get("threads")
    settings = Start().settle(task.base, preset=None)
    split = bench.splits[0]  # of folds the first, which also names every case
    identity: dict[str, Any] = {  # what differs is named in this order
        "folds": None if bench.folds is None else bench.folds.count,
        "searched": {searched.name: dataclasses.asdict(searched.domain) for searched in task.space},
        **identity_of(bench.found, split, plan, settings, bench.machine(), length),
        "threads": threads,
    }
    require_same(recorded, identity, folder)
    study.write_identity(identity)
    study.begin(task.defaults)
    return dataclasses.replace(bench, length=length, threads=threads)


def run_trials(
    study: Study, bench: Bench, task: Task, plans: Sequence[Plan], folder: Path, *, trials: int, progress: Progress
) -> None:
    """Run the trials that are missing.

    Args:
        study: Where each is noted.
        bench: What is the same for every trial.
        task: What is varied.
        plans: Of each split.
        folder: Gets `trials.csv` and `best.toml`, anew after each trial.
        trials: How many there are to be.
        progress: Is told of each.
    """
    names = [searched.name for searched in task.space]
    write_trials(folder / TRIALS_FILE, study.trials(), names)
    missing = trials - _settled(study)
    if missing <= 0:
        progress.say(f"{folder}: has its {trials} trials; nothing is left to do")
        return
    bench.slices.mkdir(parents=True, exist_ok=True)
    # Before any clock starts, so that the first trial's budget is not shorter than that of the others.
    for split, made in zip(bench.splits, plans, strict=True):
        prepare(bench.found, split, made, bench.slices, bench.progress)
    training, validation = len(bench.splits[0].training), len(bench.splits[0].validation)
    progress.say(
        f"{missing} trials, each trained on {training} cases and scored on {validation}"
        f"{'' if bench.folds is None else f', {bench.folds.count} times'}; searched: {', '.join(names)}"
    )
    if bench.folds is None and validation < _CASES_FEW:
        progress.say(f"{validation} cases tell settings apart poorly: --folds N scores each trial on every case")
    while (settled := _settled(study)) < trials:
        asked = study.ask(task.space)
        said = _run(study, asked, bench, task)
        ended = study.trials()
        write_trials(folder / TRIALS_FILE, ended, names)
        if any(trial.state == "done" for trial in ended):
            write_best(folder / BEST_FILE, task.settings(best_of(ended).values), ended)
        progress.say(f"trial {asked.number}, {settled + 1} of {trials}: {values_text(asked.values)}: {said}")
        shutil.rmtree(_place(bench, asked), ignore_errors=True)


def _settled(study: Study) -> int:
    return sum(trial.state != "interrupted" for trial in study.trials())


def _run(study: Study, asked: Asked, bench: Bench, task: Task) -> str:
    """Run one trial and note what comes of it; in words, what did."""
    twin = next((trial for trial in study.trials() if trial.score and trial.values == asked.values), None)
    if twin is not None and twin.score is not None:
        study.finish(asked, twin.score, note=f"as trial {twin.number}")
        return f"as trial {twin.number}"
    if asked.kills >= _KILLS_MOST:
        study.fail(asked, f"its process was killed {asked.kills} times")
        return f"failed: its process was killed {asked.kills} times"
    try:
        score = run_trial(_place(bench, asked), bench, task.settings(asked.values))
    except BaseException as error:
        problem = problem_of(error)
        if problem is None:
            study.interrupt(asked)
            raise
        study.fail(asked, problem)
        return f"failed: {problem}"
    study.finish(asked, score)
    return f"Dice {score.mean:.4f}, {duration(score.seconds)}"


def _place(bench: Bench, asked: Asked) -> Path:
    """The folder of a trial and of those that repeat it, so that these go on where it stopped."""
    return bench.slices.parent / f"trial_{asked.origin}"
