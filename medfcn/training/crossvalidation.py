"""Cross-validation: a run folder for each fold, and scores of every case by the fold that was not trained on it.

Within a fold nothing is chosen on its validation cases: the last averaged weights are kept, and whether only the
largest component of a label stays is decided on training cases. The card records how the validation cases would
change each choice; the mean of all folds uses these. So the scores out of the folds are those of new cases, and no
case is taken from training to choose with, which would cost more than the choice gains: with a learning rate that
falls to zero and averaged weights, the last weights are nearly the best.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medfcn.config import budget_seconds
from medfcn.errors import DatasetError, OutputExistsError, TrainingError
from medfcn.evaluation import ScoreTable, read_scores, write_scores
from medfcn.evaluation.cohort import Cohort
from medfcn.evaluation.evaluate import notes_at_edges
from medfcn.files import csv_field, make_inner_folder
from medfcn.inference.card import Card, read_card
from medfcn.inference.postprocessing import best_threshold, held_out_gain
from medfcn.labels.partial_labels import notes_on_drawn, parse_labelled
from medfcn.progress import Progress
from medfcn.runs.cases import NOTHING_OF_NEW
from medfcn.runs.folder import RunFolder
from medfcn.runs.outputs import clear_scores, remove_half_written, require_free
from medfcn.runs.replaced import drop, put_back, set_aside, set_folds_aside
from medfcn.slices.plan import Plan
from medfcn.text import duration, listed
from medfcn.training.finished import Asked, as_made, facts, facts_of, length_of, recorded_of, schedule_of, settings_of
from medfcn.training.finishing import UNSTATED_IGNORE, never_predicted
from medfcn.training.fold_steps import Agreement
from medfcn.training.folds import Folds, Split, split_into_folds
from medfcn.training.identity import read_identity, recorded_length, require_same
from medfcn.training.interleaved_folds import InterleavedFolds
from medfcn.training.job import DEFAULT_BUDGET, Job
from medfcn.training.prepare import as_planned, plan_split
from medfcn.training.record import LABELLED
from medfcn.training.run import Run, finished_run
from medfcn.training.schedule import Length
from medfcn.training.start import require_room
from medfcn.training.survey import Survey
from medfcn.training.training import Training, train_into


def require_place(run: Path, folds: Folds, *, resume: bool, overwrite: bool) -> None:
    """Refuse to put folds into a folder with other things.

    Args:
        run: The folder of all folds.
        folds: The folds to train; their folders are locked.
        resume: Accept finished and stopped folds.
        overwrite: Accept everything that `require_free` accepts.

    Raises:
        OutputExistsError: The folder contains a training without folds, another number of folds, or one of these
            folds.
    """
    if overwrite:
        return
    folder = RunFolder(run)
    if folder.is_finished or folder.state.is_dir():
        raise OutputExistsError(f"{run}: contains a training without folds; choose another output")
    beyond = sorted(name for name in folder.folds() if name.isdecimal() and not 1 <= int(name) <= folds.count)
    if beyond:
        raise OutputExistsError(f"{run}: contains fold {beyond[0]} of {folds.count}; choose another output")
    if resume:
        return
    for place in folds.folders(run):
        require_free(place)
    others = {path.name for path in run.iterdir()} - {RunFolder.lock} - {path.name for path in folds.folders(run)}
    if folds.is_all and others:
        raise OutputExistsError(
            f"{run}: already exists; choose another output, replace it (--overwrite, overwrite=True), or train "
            "the folds that are missing (--resume, resume=True)"
        )


def fold_splits(found: Survey, folds: Folds, seed: int) -> tuple[Split, ...]:
    """The split of every fold; the first is fold 1. See `split_into_folds`."""
    return split_into_folds(
        found.cases,
        found.label_voxels,
        found.labels.names,
        count=folds.count,
        seed=seed,
        prescribed=found.dataset.splits,
    )


def train_folds(run: Path, folds: Folds, job: Job, *, overwrite: bool) -> Run:
    """Train folds that are locked, one after the other. With `job.resume`, finished folds are kept.

    Args:
        run: The folder of all folds.
        folds: The folds to train.
        job: The same for all folds, which share its budget.
        overwrite: Replace existing folds.

    Raises:
        DatasetError: The cases cannot be split into folds; nothing was trained.
        TrainingError: Finished folds are not of the same cross-validation.
    """
    splits = fold_splits(job.found, folds, job.machine.seed)
    plans = {
        number: plan_split(job.found, splits[number - 1], job.settings, like=job.start.plan)
        for number in folds.numbers
    }
    for made in plans.values():
        settings = as_planned(job.settings, made)
        job.start.require_fit(settings, made, job.found.labels)
        require_room(settings, made, job.found.labels, job.machine.device)
    repeated = () if job.resume else folds.numbers
    job = replace(job, length=_length_of_one(run, folds, job))
    for number, split in enumerate(splits, start=1):
        fold = RunFolder(run).fold(number)
        if number not in repeated and fold.is_finished:
            _require_sibling(fold, split, job)
    if overwrite and folds.is_all:
        set_aside(run)
        set_folds_aside(run, job.progress, held=folds.folders(run))
    remove_half_written(run)
    if folds.is_all and job.keep is not None:
        job.keep(run)
        job = replace(job, keep=None)  # the folds are resumed together
    if repeated:
        clear_scores(run)
    budget = None if job.length is None else job.length.budget_seconds
    agreement = None if budget is None else Agreement(run, budget)
    others = set(range(1, folds.count + 1)).difference(repeated)
    if not _has_begun(run, others):
        RunFolder(run).steps.unlink(missing_ok=True)
    try:
        runs = _train_each(run, folds, job, splits, plans, agreement)
    except BaseException:
        if not _has_begun(run, range(1, folds.count + 1)):
            RunFolder(run).steps.unlink(missing_ok=True)
            if folds.is_all:
                RunFolder(run).options.unlink(missing_ok=True)
            put_back(run)
        raise
    gathered = _together(run, folds, runs, job.progress)
    drop(run)
    return gathered


def _has_begun(run: Path, numbers: Iterable[int]) -> bool:
    """True if any of some folds is finished, in training or stopped."""
    each = [RunFolder(run).fold(number) for number in numbers]
    return any(fold.is_finished or fold.state.is_dir() for fold in each)


def _train_each(
    run: Path,
    folds: Folds,
    job: Job,
    splits: Sequence[Split],
    plans: Mapping[int, Plan],
    agreement: Agreement | None,
) -> list[Run]:
    """Train the folds that are not finished; in laps, if they share a budget."""
    places = dict(zip(folds.numbers, folds.folders(run), strict=True))
    missing = [number for number in places if not (job.resume and RunFolder(places[number]).is_finished)]
    runs = {number: finished_run(places[number], job.progress) for number in places if number not in missing}
    if agreement is not None and folds.is_all and missing:
        # Of the last, whose state is removed last; most slices are the same in every fold.
        shared = replace(job, slices=job.slices or RunFolder(places[missing[-1]]).state)
        trainings = [Training(places[number], shared, splits[number - 1], plans[number]) for number in missing]
        length = Length(budget_seconds=folds.count * agreement.budget_seconds)
        used = sum(each.seconds for each in runs.values()) if agreement.look() is None else 0.0
        laps = InterleavedFolds(
            trainings, agreement, length, started=job.machine.started - used, progress=job.progress
        )
        runs |= zip(missing, laps.run(), strict=True)
        missing = []
    for number in missing:
        job.progress.say(f"fold {folds.name(number)}")
        runs[number] = train_into(places[number], job, splits[number - 1], plans[number], agreement=agreement)
        job = job.timed_from_now()  # the data check counts for the first fold
    return [runs[number] for number in places]


def finished_folds(run: Path, folds: Folds, asked: Asked, progress: Progress) -> Run:
    """The run of folds that are all finished.

    Raises:
        TrainingError: One of them is another training than the requested one.
    """
    asked = replace(asked, length=None if asked.length is None else _share(asked.length, folds))
    for number, folder in zip(folds.numbers, folds.folders(run), strict=True):
        asked.require_done(folder, fold=folds.name(number))
    return _together(run, folds, [finished_run(folder, progress) for folder in folds.folders(run)], progress)


def _together(run: Path, folds: Folds, runs: Sequence[Run], progress: Progress) -> Run:
    """The result of a command that trained folds; once all folds are finished, their scores are written together."""
    table = gather(run, folds)
    if table is None:
        return replace(runs[0], scored=folds.folders(run))
    progress.say(
        f"all {folds.count} folds are trained: {RunFolder(run).scores} scores every case by the fold that was not "
        "trained on it"
    )
    scored = (*folds.folders(run), run)
    if not folds.is_all:
        return replace(runs[0], scored=scored)
    seconds, used = sum(each.seconds for each in runs), sum(each.cpu_seconds for each in runs)
    progress.say(f"{folds.count} folds in {duration(seconds)}, {used:.0f} CPU seconds: {run}")
    return Run(run, sum(each.steps for each in runs), table, seconds, used, scored=scored, schedule=runs[0].schedule)


def gather(run: Path, folds: Folds) -> ScoreTable | None:
    """Write `validation/scores.csv` and `summary.json` of all folds' validation cases, once all folds are finished.

    Returns:
        The scores; None while a fold is missing.

    Raises:
        TrainingError: The folds are not of one cross-validation.
    """
    together = RunFolder(run)
    each = [together.fold(number) for number in range(1, folds.count + 1)]
    if not all(fold.is_finished for fold in each):
        return None
    cards, tables = [read_card(fold.card) for fold in each], [read_scores(fold.validation) for fold in each]
    owners: dict[str, str] = {}
    notes = [f"out of fold: each case was scored by the one of {folds.count} networks that was not trained on it"]
    notes += _threshold_note(cards)
    notes += _unequal_note(each, cards)
    for number, (fold, card, table) in enumerate(zip(each, cards, tables, strict=True), start=1):
        if card.training.get("fold") != folds.name(number):
            raise TrainingError(
                f"{fold.path}: is not fold {folds.name(number)}; train it again with --overwrite", code="FOLDS_DIFFER"
            )
        for case in table.cases:
            if owners.setdefault(case, fold.path.name) != fold.path.name:
                raise TrainingError(
                    f"{run}: {owners[case]} and {fold.path.name} both kept {case} for validation; they were split "
                    "differently: train one again with --overwrite",
                    code="FOLDS_DIFFER",
                )
        unstated = str(card.training.get(UNSTATED_IGNORE, ""))
        notes += [f"{fold.path.name}: {line}" for line in never_predicted(table, unstated)]
        notes += [f"{fold.path.name}: {line}" for line in table.notes if NOTHING_OF_NEW in line]
    rows = tuple(sorted((row for table in tables for row in table.rows), key=lambda row: row.case))
    definitions = tables[0].definitions
    notes += notes_at_edges(rows, definitions)
    groups = recorded_of(each[0].path, "group")  # each fold records all cases
    labelled = recorded_of(each[0].path, LABELLED)
    notes += notes_on_drawn([parse_labelled(labelled.get(csv_field(case), "")) for case in owners])
    patients = Cohort.of_groups({case: groups.get(csv_field(case), case) for case in owners})
    gathered = ScoreTable(rows, definitions, notes=tuple(notes), cohort=patients)
    is_written = together.scores.is_file() and repr(ScoreTable.from_csv(together.scores).rows) == repr(gathered.rows)
    if not is_written:  # a finished run is left as it is
        make_inner_folder(together.validation)
        write_scores(gathered, together.validation, overwrite=True)
    return gathered


def _threshold_note(cards: Sequence[Card]) -> tuple[str, ...]:
    """The threshold that the out-of-fold cases chose for the mean of the folds; their scores do not use it."""
    unseen = [card.unseen for card in cards if card.unseen is not None]
    chosen = best_threshold(unseen) if len(unseen) == len(cards) else None
    if chosen is None:
        return ()
    return (
        f"the mean of the folds uses the threshold {chosen:g}, which was chosen on these cases; their scores here "
        f"are those with {cards[0].foreground_from:g} (chosen for each fold on the others alone, it changes the mean "
        f"Dice by {held_out_gain(unseen):+.4f})",
    )


def _unequal_note(folds: Sequence[RunFolder], cards: Sequence[Card]) -> tuple[str, ...]:
    """A line about folds that do not have the same number of steps."""
    steps = [schedule.total for schedule in map(schedule_of, cards) if schedule is not None]
    if len(set(steps)) < 2:
        return ()
    each = listed(f"{fold.path.name} {count}" for fold, count in zip(folds, steps, strict=False))
    return (f"the folds do not have the same number of steps: {each}; --steps N gives all the same",)


def _length_of_one(run: Path, folds: Folds, job: Job) -> Length:
    """The length of one fold: as requested, else that of a finished or stopped fold, else the default."""
    for number in range(1, folds.count + 1) if job.length is None and job.resume else ():
        fold = RunFolder(run).fold(number)
        length = length_of(read_card(fold.card)) if fold.is_finished else recorded_length(read_identity(fold.path))
        if length is not None:
            return length
    return _share(job.length or Length(budget_seconds=budget_seconds(DEFAULT_BUDGET)), folds)


def _share(length: Length, folds: Folds) -> Length:
    """The length of one of several folds, which share a budget."""
    if length.budget_seconds is None or not folds.is_all:
        return length
    return Length(budget_seconds=length.budget_seconds / folds.count)


def _require_sibling(fold: RunFolder, split: Split, job: Job) -> None:
    """Refuse to train a fold beside one of another cross-validation.

    Raises:
        TrainingError: Its number, settings, seed, length, initial weights or labels differ.
        DatasetError: Its validation cases differ.
    """
    card = read_card(fold.card)
    here = facts(
        replace(card, settings=settings_of(job.settings, card), labels=job.found.labels),
        fold=split.fold,
        seed=job.machine.seed,
        length=as_made(job.length, card),
        start=job.start.record,
    )
    require_same(facts_of(card), here, fold.path)
    odd = sorted(set(ScoreTable.from_csv(fold.scores).cases) ^ set(split.validation))
    if odd:
        raise DatasetError(
            f"{fold.path}: its validation cases are not those of fold {split.fold} of this data set, first {odd[0]}; "
            "give the data set it was trained on, or start again with --overwrite",
            code="FOLDS_DIFFER",
        )
