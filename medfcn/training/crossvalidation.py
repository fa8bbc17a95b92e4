"""Several folds: a run folder for each, and the scores of every case by the fold that had not seen it.

Within a fold nothing is chosen on its validation cases: the last averaged weights are kept, and whether only the
largest part of a label stays is decided on training cases. What each fold would have gained on its validation cases
stands in its card, and chooses for the mean of all. So the scores out of the folds are those of unseen cases, and no
case is spared from training to choose with, which would cost more than the choice gains: with a learning rate that
falls to nothing and averaged weights, the last are nearly the best.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medfcn.config import budget_seconds
from medfcn.errors import DatasetError, OutputExistsError, TrainingError
from medfcn.evaluation import ScoreTable, write_scores
from medfcn.inference.card import Card, read_card
from medfcn.inference.rules import best_threshold, held_out_gain
from medfcn.progress import Progress
from medfcn.runs.folder import RunFolder
from medfcn.runs.outputs import clear, clear_folds, clear_scores, require_free
from medfcn.text import duration
from medfcn.training.finished import Asked, facts, facts_of, length_of, settings_of
from medfcn.training.finishing import never_predicted
from medfcn.training.folds import Folds, Split, fold_folder, split_into_folds
from medfcn.training.identity import read_identity, recorded_length, require_same
from medfcn.training.job import DEFAULT_BUDGET, Job, Run, finished_run, train_into
from medfcn.training.prepare import as_planned, plan_split
from medfcn.training.schedule import Length
from medfcn.training.survey import Survey


def require_place(run: Path, folds: Folds, *, resume: bool, overwrite: bool) -> None:
    """Refuse to put folds where something else lies.

    Args:
        run: The folder of all folds.
        folds: Those to train; their folders are locked.
        resume: Finished and stopped folds may be there.
        overwrite: Anything may be there that `require_free` lets be replaced.

    Raises:
        OutputExistsError: A training without folds, another number of folds, or one of these folds is there.
    """
    if overwrite:
        return
    if RunFolder(run).is_finished or RunFolder(run).state.is_dir():
        raise OutputExistsError(f"{run}: holds a training without folds; choose another output")
    others = [number for number in RunFolder(run).folds() if number.isdecimal()]
    strange = sorted(number for number in others if not 1 <= int(number) <= folds.count)
    if strange:
        raise OutputExistsError(f"{run}: contains fold {strange[0]} of {folds.count}; choose another output")
    if resume:
        return
    for folder in folds.folders(run):
        require_free(folder)
    if folds.is_all:
        held = {path.name for path in run.iterdir()} - {RunFolder.lock} - {path.name for path in folds.folders(run)}
        if held:
            raise OutputExistsError(
                f"{run}: already exists; choose another output, replace it (--overwrite, overwrite=True), or train "
                "the folds that are missing (--resume, resume=True)"
            )


def fold_splits(found: Survey, folds: Folds, seed: int) -> tuple[Split, ...]:
    """The split of every fold, the first is fold 1; see `split_into_folds`."""
    return split_into_folds(
        found.cases,
        found.label_voxels,
        found.labels.names,
        count=folds.count,
        seed=seed,
        prescribed=found.dataset.splits,
    )


def train_folds(run: Path, folds: Folds, job: Job, *, overwrite: bool) -> Run:
    """Train folds that are locked, one after the other; finished ones are kept where `job.resume` says so.

    Args:
        run: The folder of all folds.
        folds: Those to train.
        job: What is the same for all; the folds of a command share its budget.
        overwrite: Replace what is there.

    Raises:
        DatasetError: The cases cannot be folded; nothing was trained then.
        TrainingError: Finished folds do not belong to these.
    """
    splits = fold_splits(job.found, folds, job.machine.seed)
    plans = {
        number: plan_split(job.found, splits[number - 1], job.settings, like=job.start.plan)
        for number in folds.numbers
    }
    for made in plans.values():
        job.start.require_fit(as_planned(job.settings, made), made, job.found.labels)
    redone = () if job.resume else folds.numbers
    job = replace(job, length=_length_of_one(run, folds, job))
    for number in set(range(1, folds.count + 1)) - set(redone):
        if RunFolder(fold_folder(run, number)).is_finished:
            _require_sibling(fold_folder(run, number), splits[number - 1], job)
    if overwrite and folds.is_all:
        clear(run)
        clear_folds(run, job.progress, held=folds.folders(run))
    if redone:
        clear_scores(run)
    runs = []
    for number, folder in zip(folds.numbers, folds.folders(run), strict=True):
        if job.resume and RunFolder(folder).is_finished:
            runs.append(finished_run(folder, job.progress))
            continue
        job.progress.say(f"fold {number} of {folds.count}")
        runs.append(train_into(folder, job, splits[number - 1], plans[number]))
        # The clock of the next fold starts here; the data check counts for the first.
        job = job.timed_from_now()
    return _together(run, folds, runs, job.progress)


def finished_folds(run: Path, folds: Folds, asked: Asked, progress: Progress) -> Run:
    """The run of folds that need no resuming.

    Raises:
        TrainingError: One of them is another training than is asked for.
    """
    asked = replace(asked, length=None if asked.length is None else _share(asked.length, folds))
    for number, folder in zip(folds.numbers, folds.folders(run), strict=True):
        asked.require_done(folder, fold=f"{number} of {folds.count}")
    return _together(run, folds, [finished_run(folder, progress) for folder in folds.folders(run)], progress)


def _together(run: Path, folds: Folds, runs: Sequence[Run], progress: Progress) -> Run:
    """What a command that trained some folds gives back, once the scores of all are written where all are there."""
    table = gather(run, folds.count)
    if table is not None:
        progress.say(
            f"all {folds.count} folds are trained: {RunFolder(run).scores} scores every case by the "
            "fold that had not seen it"
        )
    scored = (*folds.folders(run), *(() if table is None else (run,)))
    if not folds.is_all or table is None:
        return replace(runs[0], scored=scored)
    seconds, used = sum(each.seconds for each in runs), sum(each.cpu_seconds for each in runs)
    progress.say(f"{folds.count} folds in {duration(seconds)}, {used:.0f} CPU seconds: {run}")
    return Run(run, sum(each.steps for each in runs), table, seconds, used, scored=scored)


def gather(run: Path, count: int) -> ScoreTable | None:
    """Write `validation/scores.csv` and `summary.json` of all folds' validation cases, once all folds are there.

    Returns:
        The scores; None while a fold is missing.

    Raises:
        TrainingError: The folds are not of one cross-validation.
    """
    folders = [fold_folder(run, number) for number in range(1, count + 1)]
    if not all(RunFolder(folder).is_finished for folder in folders):
        return None
    cards = [read_card(RunFolder(folder).card) for folder in folders]
    owners: dict[str, str] = {}
    tables = [ScoreTable.from_csv(RunFolder(folder).scores) for folder in folders]
    for number, (folder, card, table) in enumerate(zip(folders, cards, tables, strict=True), start=1):
        if card.training.get("fold") != f"{number} of {count}":
            raise TrainingError(f"{folder}: is not fold {number} of {count}; train it again with --overwrite")
        for case in table.cases:
            if owners.setdefault(case, folder.name) != folder.name:
                raise TrainingError(
                    f"{run}: {owners[case]} and {folder.name} both kept {case} for validation; they were split "
                    "differently: train one again with --overwrite"
                )
    rows = sorted((row for table in tables for row in table.rows), key=lambda row: row.case)
    note = f"out of fold: each case was scored by the one of {count} networks that was not trained on it"
    named = zip(folders, tables, strict=True)
    missing = [f"{folder.name}: {line}" for folder, table in named for line in never_predicted(table)]
    gathered = ScoreTable(tuple(rows), tables[0].definitions, notes=(note, *_threshold_note(cards), *missing))
    if _is_written(run, gathered):
        return gathered
    RunFolder(run).validation.mkdir(exist_ok=True)
    write_scores(gathered, RunFolder(run).validation, overwrite=True)
    return gathered


def _threshold_note(cards: Sequence[Card]) -> tuple[str, ...]:
    """What the out-of-fold cases chose for the mean of the folds, which their scores know nothing of."""
    unseen = [card.unseen for card in cards if card.unseen is not None]
    chosen = best_threshold(unseen) if len(unseen) == len(cards) else None
    if chosen is None:
        return ()
    return (
        f"the mean of the folds takes the threshold {chosen:g}, which these cases chose; their scores here are those "
        f"with {cards[0].foreground_from:g} (chosen for each fold by the others alone, it changes the Dice by "
        f"{held_out_gain(unseen):+.4f} in the mean)",
    )


def _is_written(run: Path, table: ScoreTable) -> bool:
    """Whether the scores lie there already, so that a finished run is left as it is."""
    scores = RunFolder(run).scores
    return scores.is_file() and repr(ScoreTable.from_csv(scores).rows) == repr(table.rows)


def _length_of_one(run: Path, folds: Folds, job: Job) -> Length:
    """The length of one fold: as asked for, else that of a fold that is finished or was stopped, else the default."""
    for number in range(1, folds.count + 1) if job.length is None and job.resume else ():
        folder = fold_folder(run, number)
        if RunFolder(folder).is_finished:
            return length_of(read_card(RunFolder(folder).card))
        length = recorded_length(read_identity(folder))
        if length is not None:
            return length
    default = Length(budget_seconds=budget_seconds(DEFAULT_BUDGET))
    return _share(job.length or default, folds)


def _share(length: Length, folds: Folds) -> Length:
    """What each of some folds gets of a length."""
    if length.budget_seconds is None or not folds.is_all:
        return length
    return Length(budget_seconds=length.budget_seconds / folds.count)


def _require_sibling(folder: Path, split: Split, job: Job) -> None:
    """Refuse to train a fold beside one that is not of the same cross-validation.

    Raises:
        TrainingError: Its number, settings, seed, length, first weights or labels are others.
        DatasetError: It kept other cases for validation.
    """
    card = read_card(RunFolder(folder).card)
    here = facts(
        replace(card, settings=settings_of(job.settings, card), labels=job.found.labels),
        fold=split.fold,
        seed=job.machine.seed,
        length=job.length,
        start=job.start.record,
    )
    require_same(facts_of(card), here, folder)
    kept = set(ScoreTable.from_csv(RunFolder(folder).scores).cases)
    if kept != set(split.validation):
        odd = sorted(kept ^ set(split.validation))[0]
        raise DatasetError(
            f"{folder}: its validation cases are not those of fold {split.fold} of this data set, first {odd}; give "
            "the data set it was trained on, or start again with --overwrite"
        )
