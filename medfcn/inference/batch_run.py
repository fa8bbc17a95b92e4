"""A whole batch: all its cases, in one process or several, each to a mask; then the tables of the folder.

A case that cannot be predicted is recorded in `failures.csv` and the others continue. A full disk, a missing
permission or a lost GPU stop the batch.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from medfcn.datasets import Case
from medfcn.errors import DatasetError, SettingsError
from medfcn.files import make_folder, make_inner_folder, remove_half_written
from medfcn.inference.batch import (
    Batch,
    Kind,
    ModelSource,
    Outcome,
    PredictionRun,
    Recipe,
)
from medfcn.inference.case_queue import CaseQueue
from medfcn.inference.case_work import CaseWork
from medfcn.inference.devices import using_threads
from medfcn.inference.jobs import Jobs, devices_of
from medfcn.inference.merge import merge_parts
from medfcn.inference.on_cluster import predict_on_cluster
from medfcn.inference.processes import Workers
from medfcn.inference.tables import read_records, write_tables
from medfcn.inference.timing import Timings
from medfcn.labels.sidecar import CHOSEN_CASE, TRAINING_CASE, record_path
from medfcn.labels.tables import write_label_tables
from medfcn.memory import limit_memory, memory_limit
from medfcn.progress import Progress, warn
from medfcn.runs.claims import Claims
from medfcn.runs.folder import (
    ITK_SNAP_FILE,
    PROBABILITIES_FOLDER,
    SEG_NRRD_FOLDER,
    SLICER_FILE,
    TIMING_FILE,
    UNCERTAINTY_FOLDER,
)
from medfcn.runs.shards import Parts
from medfcn.runs.workers import end_waiting
from medfcn.text import counted, failure

_WAIT_SECONDS = 0.2
"""Between two looks at the cases of other processes."""


def predict_cases(
    cases: Sequence[Case],
    batch: Batch,
    progress: Progress,
    *,
    source: ModelSource,
    jobs: int | None = None,
    cluster: str | None = None,
) -> PredictionRun:
    """Predict cases, and write the masks and the tables of the folder.

    Several commands that work on one folder share its cases: each takes the next that nobody has, and ends when all
    cases are done.

    Args:
        cases: The cases.
        batch: Everything that is the same for them.
        progress: Where failures and progress are reported.
        source: Where workers load the models.
        jobs: Number of processes; None takes those for which there are cores, memory and work.
        cluster: The address of a Dask scheduler whose workers predict instead.

    Raises:
        WriteError: The disk is full, or a folder may not be written to.
        SettingsError: Several processes were requested, and the models' transforms cannot be passed to others.
    """
    everything = cases
    make_folder(batch.folder)
    if batch.names.tables:
        make_inner_folder(batch.tables_folder)
    if batch.shard is not None:
        Parts(batch.tables_folder).enter(batch.shard)
        cases = [case for case in cases if batch.shard.has(case.id)]
        progress.say(f"shard {batch.shard}: {len(cases)} of {counted(len(everything), 'case')}")
    batch.names.prepare(batch.folder, batch.table)
    remove_litter(cases, batch)
    ended: dict[str, Outcome] = {}
    later: list[str] = []

    with ExitStack() as stack:
        task = stack.enter_context(progress.task("predict", len(cases)))
        stack.enter_context(using_threads(batch.threads))
        work = CaseWork(batch, Claims(batch.claimed_folder))
        stack.callback(work.claims.close)
        timings = stack.enter_context(_timings_of(batch))

        def report(outcome: Outcome) -> None:
            if not outcome.is_end:
                later.append(outcome.case)
                return
            ended[outcome.case] = outcome
            if outcome.kind == "failed":
                warn(progress, failure(outcome.case, outcome.problem))
            elif outcome.kind == "predicted":
                timings.add(outcome.case, outcome.seconds, outcome.host)
            task.advance(outcome.case)

        if cluster is not None:
            predict_on_cluster(cases, batch, source, cluster, report, progress)
            remove_litter(cases, batch)
        else:
            _work_together(cases, work, CaseQueue(cases, report), progress, source=source, jobs=jobs)
        _work_alone([case for case in cases if case.id in set(later)], work, report)
    if not batch.is_one_file:
        tables = batch.tables_folder
        write_label_tables(batch.table, itk_snap=tables / ITK_SNAP_FILE, slicer=tables / SLICER_FILE)
    _finish_shard(everything, batch, ended, progress)
    # The only mask may be anywhere, beside a `failures.csv` that is not medfcn's.
    return result_of(cases, batch, ended, tables=batch.has_tables and not batch.is_one_file and batch.shard is None)


def _timings_of(batch: Batch) -> Timings:
    if batch.shard is not None:
        return Timings(Parts(batch.tables_folder).timing_path(batch.shard), str(batch.shard))
    return Timings(None if batch.is_one_file else batch.tables_folder / TIMING_FILE)


def _work_together(
    cases: Sequence[Case],
    work: CaseWork,
    queue: CaseQueue,
    progress: Progress,
    *,
    source: ModelSource,
    jobs: int | None,
) -> None:
    """Work on the cases in this process, and in workers where there are to be some."""
    batch, own = work.batch, 0
    device = batch.models.models[0].device
    done = [case.id for case in cases if batch.resume and record_path(batch.mask_path(case)).exists()]
    how_many = Jobs(cases, jobs, threads=batch.threads, device=device, done=done, waiting=lambda: len(queue))
    queue.join(own)
    with Workers(Recipe.of(batch, source), queue, progress) as workers:

        def grow(count: int) -> None:
            if count <= 1:
                return
            most = memory_limit()
            try:
                limit_memory(None if most is None else most // count)  # which workers take over
                workers.start(devices_of(count - 1, device))
            except SettingsError:
                limit_memory(most)
                if jobs is not None:
                    raise
            else:
                progress.say(how_many.line)

        grow(how_many.wanted())
        end_waiting()  # where there are fewer volumes than processes were asked for
        for outcome in work.outcomes(lambda is_needed: queue.take(own, is_needed=is_needed, wait=is_needed)):
            queue.give(own, outcome)
            grow(how_many.after(outcome))
    if workers.were_lost:
        remove_litter(cases, batch)


def _work_alone(cases: Sequence[Case], work: CaseWork, report: Callable[[Outcome], None]) -> None:
    """Work once more on cases for which memory was short, without other volumes in memory, or that others had."""
    while cases:
        claimed: list[Case] = []
        for case in cases:
            outcome = work.finish(case, partial(work.read, case), is_last_try=True)
            if outcome.is_end:
                report(outcome)
            else:
                claimed.append(case)
        if len(claimed) == len(cases):
            time.sleep(_WAIT_SECONDS)
        cases = claimed


def _finish_shard(cases: Sequence[Case], batch: Batch, ended: Mapping[str, Outcome], progress: Progress) -> None:
    """Leave the table of a shard; if it is the last one, write those of the folder."""
    shard, parts = batch.shard, Parts(batch.tables_folder)
    if shard is None:
        return
    own = [ended[case.id] for case in cases if case.id in ended]
    parts.write(shard, [(outcome.case, outcome.kind, outcome.problem) for outcome in own])
    if parts.missing():
        return
    try:
        merge_parts(cases, batch)
    except DatasetError as error:
        warn(progress, str(error))
    else:
        progress.say(f"all {shard.count} shards have ended: the tables of {batch.folder} are complete")


def result_of(cases: Sequence[Case], batch: Batch, ended: Mapping[str, Outcome], *, tables: bool) -> PredictionRun:
    """Put the result together.

    Args:
        cases: The cases that it is about.
        batch: The batch.
        ended: The outcome of each.
        tables: Also write the tables of the folder.
    """
    outcomes = [ended[case.id] for case in cases]
    records = read_records(cases, batch, outcomes)
    review = write_tables(batch.tables_folder if tables else None, outcomes, records)

    def ids(kind: Kind) -> tuple[str, ...]:
        return tuple(outcome.case for outcome in outcomes if outcome.kind == kind)

    trained, chosen = (
        tuple(case for case, record in records.items() if note in record.notes or is_one(record.input_sha256))
        for note, is_one in ((TRAINING_CASE, batch.trained_on.contain), (CHOSEN_CASE, batch.trained_on.chose))
    )
    known = batch.of_patients.difference(trained, chosen)
    return PredictionRun(
        batch.target,
        predicted=ids("predicted"),
        skipped=ids("kept"),
        failures=tuple((outcome.case, outcome.problem) for outcome in outcomes if outcome.kind == "failed"),
        flags=tuple((outcome.case, flag) for outcome in outcomes for flag in outcome.flags),
        review=review,
        inputs={case.id: case.images for case in cases},
        others=ids("others"),
        training_cases=trained,
        chosen_cases=chosen,
        training_patients=tuple(case for case in records if case in known),
    )


def remove_litter(cases: Sequence[Case], batch: Batch) -> None:
    """Remove the temporary files of killed processes, of which each can be a patient's mask."""
    is_own = batch.is_one_file or batch.shard is not None  # another one's may be in work, with locks or without
    by_folder = batch.outputs_by_folder(cases if is_own else ())
    every = [name for names in by_folder.values() for name in names]
    inner = [batch.folder / name for name in (PROBABILITIES_FOLDER, UNCERTAINTY_FOLDER, SEG_NRRD_FOLDER)]
    nested = {batch.mask_path(case).parent for case in cases} - {batch.folder}
    for folder in (batch.folder, *inner, *sorted(nested)):
        if folder == batch.folder or not folder.is_symlink():
            remove_half_written(folder, *(by_folder.get(folder, ()) if folder in nested else every))
