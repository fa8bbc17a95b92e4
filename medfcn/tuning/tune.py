"""The one call that searches: a data set → the settings that were best on its validation cases."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from medfcn.datasets import find_dataset
from medfcn.errors import SettingsError, TrainingStoppedError
from medfcn.inference.devices import choose_device
from medfcn.labels import LabelMap
from medfcn.progress import Progress, Silent
from medfcn.progress import Task as ProgressTask
from medfcn.runs.folder import STUDY_FILE, RunFolder
from medfcn.runs.lock import locked
from medfcn.runs.stop import Stop
from medfcn.settings import Settings
from medfcn.training.folds import Folds
from medfcn.training.start import Start
from medfcn.training.survey import leave_out as without
from medfcn.training.survey import survey
from medfcn.training.train import READ_STRICTLY, label_map_of, length_of
from medfcn.tuning.folder import WORK_FOLDER, clear, clear_work, require_place, require_search
from medfcn.tuning.outcome import Tuned, best_of
from medfcn.tuning.search import enter, run_trials, split_and_plan
from medfcn.tuning.space import SPACE, Searched, choose_space
from medfcn.tuning.study import Study, require_optuna
from medfcn.tuning.task import base_of, task_of
from medfcn.tuning.trial import Bench
from medfcn.volumes import ReadOptions

DEFAULT_TRIALS = 20


def tune(
    dataset: Path | str,
    output: Path | str,
    *,
    trials: int = DEFAULT_TRIALS,
    labels: str | LabelMap | None = None,
    settings: Settings | Path | str | None = None,
    preset: str | None = None,
    context: int | None = None,
    views: str | Sequence[str] | None = None,
    only: Sequence[str] | None = None,
    space: Sequence[Searched] = SPACE,
    budget: str | float | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    groups: Path | str | None = None,
    leave_out: Sequence[str] = (),
    folds: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    options: ReadOptions = READ_STRICTLY,
    allow_outside: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> Tuned:
    """Search for the settings with the highest mean Dice on the validation cases.

    Each trial is a training of its own on the same cases, scored on the same others. The first has the defaults, so
    that the result is never worse than they are there. What is not named here is as in `train`.

    Args:
        dataset: As in `train`.
        output: The folder to make: `best.toml` for `train`, `trials.csv`, `study.db`.
        trials: How many, those included that fail.
        labels: What to segment.
        settings: What all trials have in common: all settings, or a TOML file of some. What differs from the
            defaults, or stands in the file, is not searched.
        preset: The network's design; overrides `network.preset`.
        context: Overrides `slices.context`, which is not searched then.
        views: Overrides `slices.views`.
        only: Names of the settings to search, such as `learning_rate`; None takes all of `space` that are not set.
        space: The settings that could be searched, and where each may lie.
        budget: Wall time of one trial; its folds share it. `10m` unless epochs or steps are given.
        epochs: Of one trial, or of each of its folds.
        steps: Of one trial, or of each of its folds; makes a search that can be repeated.
        groups: A CSV of `id, group`; cases of one group are never parted.
        leave_out: Ids of cases that are neither read nor scored: the test part.
        folds: Score each trial on all cases, in so many folds, instead of on those kept for validation.
        device: Where the networks are.
        threads: CPU threads of torch.
        seed: Of the split, of every training and of what is drawn.
        skip_bad: Leave out cases that cannot be used, instead of stopping.
        options: What to opt in to when reading volumes that are otherwise refused.
        allow_outside: Accept paths in a table or `dataset.json` that lead out of its folder.
        overwrite: Replace an existing output.
        resume: Go on with the search that was stopped in `output`. Everything but `trials` must be as it was; length
            and threads may be left out.
        stop: Looked at between two steps; the trial that is stopped is gone on with by `resume`.
        progress: Where messages go.

    Raises:
        MissingFileError: optuna is not installed, or there is nothing to resume.
        OutputExistsError: The output exists, and `overwrite` is false.
        SettingsError: A setting is unknown or cannot be, or nothing is left to search.
        DatasetError: As in `train`.
        TrainingStoppedError: `stop` was asked to.
        TrainingError: Another process is at work in the folder, the search there is another one, or no trial could
            be trained.
    """
    require_optuna()
    if resume and overwrite:
        raise SettingsError("resume and overwrite are given together; give one of them")
    if trials < 1:
        raise SettingsError(f"trials {trials}: at least 1 is needed; give a larger number")
    say, folder, stop = progress or Silent(), Path(output), stop or Stop()
    if resume:
        require_search(folder)
    elif not RunFolder(folder).lock.is_file():
        require_place(folder, overwrite=overwrite)
    with locked(folder, say), _stopping(stop, folder):
        if not resume and not overwrite:
            require_place(folder)
        base, fixed = base_of(settings, preset=preset, context=context, views=views)
        settled = Start().settle(base, preset=None)
        searched = choose_space(space, fixed, only)
        label_map = label_map_of(labels, settled)
        length = length_of(budget, epochs, steps, epoch_steps=base.training.epoch_steps)
        cases = without(find_dataset(dataset, groups=groups, allow_outside=allow_outside), leave_out)
        found = survey(cases, label_map, options, skip_bad=skip_bad, progress=say)
        bench = Bench(
            found, Folds.of(None, folds), (), choose_device(device), seed, length, threads,
            slices=folder / WORK_FOLDER / "slices", stop=stop, progress=_Bars(say),
        )  # fmt: skip
        bench, plans = split_and_plan(bench, settled)
        task = task_of(base, fixed, searched, plan=plans[0], labels=found.labels)
        if overwrite:
            clear(folder)
        with closing(Study(folder / STUDY_FILE, seed=seed)) as study:
            bench = enter(study, bench, task, plans[0], folder)
            run_trials(study, bench, task, plans, folder, trials=trials, progress=say)
            ended = study.trials()
        clear_work(folder)
        scored_on = sum(len(split.validation) for split in bench.splits)
        chosen = task.settings(best_of(ended).values)
        return Tuned(folder, ended, chosen, scored_on, in_folds=folds is not None, has_test=bool(leave_out))


@contextmanager
def _stopping(stop: Stop, folder: Path) -> Iterator[None]:
    """Turn an interrupt that a signal asked for into the one line that says how to go on."""
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
        """As it would be without a search around it."""
        return self.progress.task(name, total)
