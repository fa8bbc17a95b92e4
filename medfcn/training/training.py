"""One training in its run folder: from the checked cases, or from a stopped state, to the written model."""

import dataclasses
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from medfcn.config import budget_seconds, override
from medfcn.files import make_inner_folder
from medfcn.inference.devices import using_threads
from medfcn.progress import Progress, Silent, warn
from medfcn.runs.checkpoints import Checkpoints, has_checkpoints
from medfcn.runs.folder import RunFolder
from medfcn.runs.outputs import clear, remove_half_written
from medfcn.runs.replaced import drop, put_back, set_aside
from medfcn.runs.tracking import Tracking
from medfcn.settings import Settings
from medfcn.slices.plan import Plan
from medfcn.text import counted, duration, listed
from medfcn.training.budget import Costs, Lap
from medfcn.training.curve import Curve
from medfcn.training.finishing import write_run
from medfcn.training.fold_steps import Agreement
from medfcn.training.folds import Split
from medfcn.training.identity import (
    PRECISIONS,
    as_recorded,
    identity_of,
    key_of,
    read_identity,
    recorded_length,
    require_same,
    weights_key,
    with_precision,
    with_recorded_monai,
    write_identity,
)
from medfcn.training.ineffective_settings import idle_settings
from medfcn.training.job import DEFAULT_BUDGET, Job
from medfcn.training.other_ranks import Order
from medfcn.training.outcome import Outcome
from medfcn.training.prepare import Prepared, as_planned, ceiling_text, plan_split, prepare
from medfcn.training.record import Log, cpu_seconds, final_dices, tracked_facts, write_cases
from medfcn.training.run import Run
from medfcn.training.schedule import Length
from medfcn.training.state import State
from medfcn.training.trainer import Trainer


def train_into(folder: Path, job: Job, split: Split, made: Plan, *, agreement: Agreement | None = None) -> Run:
    """Fill a run folder that is locked.

    Args:
        folder: The run folder.
        job: The options of the training.
        split: The use of each case.
        made: The plan.
        agreement: With the other folds, on the number of steps that a budget gives.
    """
    training = Training(folder, job, split, made)
    with training.cleared_in_vain():
        training.begin()
        training.prepare()
        return training.run(agreement)


class Training:
    """One training in its locked run folder, in one go or in laps.

    Nothing is prepared yet: what cannot be done is refused, and an older run is removed.

    Args:
        folder: The run folder.
        job: The options of the training.
        split: The use of each case.
        made: The plan.

    Attributes:
        step_seconds: Duration of each of the first steps.
        costs: The time needed besides steps, once it was measured.
    """

    def __init__(self, folder: Path, job: Job, split: Split, made: Plan) -> None:
        began, used = time.monotonic(), cpu_seconds()
        self.run_folder, self.split = RunFolder(folder), split
        self.recorded = recorded = read_identity(folder) if job.resume else {}
        self.plan = made = as_recorded(_as_stopped(made, recorded, job, split), recorded)
        default = Length(budget_seconds=budget_seconds(DEFAULT_BUDGET))
        self.length = length = job.length or recorded_length(recorded) or default
        self.job = job = dataclasses.replace(
            job,
            settings=as_planned(job.settings, made),
            length=length,
            threads=job.threads or recorded.get("threads"),
        )
        identity = identity_of(job.found, split, made, job.settings, job.machine, length)
        identity[PRECISIONS] = recorded.get(PRECISIONS, [])
        self.identity = identity = with_recorded_monai(identity, recorded)
        if job.threads is not None:
            identity["threads"] = job.threads
        require_same(recorded, identity, folder)
        if not job.resume:
            set_aside(folder)
        remove_half_written(folder)
        self.step_seconds: list[float] = []
        self.costs: Costs | None = None
        self._prepared: Prepared | None = None
        self._curve: Curve | None = None
        self._tracking: Tracking | None = None
        self._is_begun = False
        self._used = time.monotonic() - began, cpu_seconds() - used

    @contextmanager
    def cleared_in_vain(self) -> Iterator[None]:
        """Clear the run folder after an error.

        Before the first checkpoint half a run is of no use, unless it was stopped in order to continue later.
        """
        run = self.run_folder
        try:
            yield
        except BaseException:
            if not run.is_finished and not has_checkpoints(run.state) and not self.job.stop.is_asked:
                clear(run.path)
                put_back(run.path)
            raise
        finally:
            if self._tracking is not None:
                self._tracking.close()

    def begin(self) -> None:
        """Make the folder of everything that a stopped training needs, and record which training it is."""
        folder, say = self.run_folder.path, self.job.progress.say
        make_inner_folder(self.run_folder.state)
        if self.run_folder.replaced.is_dir():
            say(f"the run that was here is kept in {self.run_folder.replaced} until the new one is complete")
        if self.job.resume and not self.recorded:
            warn(
                self.job.progress,
                f"{folder}: was stopped before anything was recorded; it starts over, {self.length.text}",
            )
        write_cases(self.run_folder.cases, self.job.found, self.split, self.job.start.trained_on)
        if self.job.keep is not None:
            self.job.keep(folder)
        if not self.recorded:  # a kill while slices are prepared must not let the next start be of another length
            write_identity(folder, self.identity)

    def prepare(self) -> None:
        """Bring the cases to the network grid."""
        job, run, (began, used) = self.job, self.run_folder, (time.monotonic(), cpu_seconds())
        slices = job.slices or run.state
        self._prepared = prepare(job.found, self.split, self.plan, slices, job.progress, state=run.state)
        _report_data(self._prepared, job.settings, job.progress)
        self._used = self._used[0] + time.monotonic() - began, self._used[1] + cpu_seconds() - used

    def run(self, agreement: Agreement | None = None) -> Run:
        """Train to the end, and write the run; the clock is that of the job."""
        machine = self.job.machine
        log = self._log(machine.started, machine.cpu_started)
        return self._write(self._whole(log, agreement), log)

    def lap(self, lap: Lap, *, threads: int | None = None) -> Run | None:
        """Train until a lap ends; the clock counts the time in here alone.

        Args:
            lap: The lap.
            threads: CPU threads, where nothing else sets them.

        Returns:
            The run, written, after the last step; None before.
        """
        self.job = dataclasses.replace(self.job, threads=self.job.threads or threads)
        started, used = time.monotonic() - self._used[0], cpu_seconds() - self._used[1]
        log = self._log(started, used)
        outcome = self._part(log, lap)
        self._used, self._is_begun = (0.0, 0.0), True
        return None if outcome is None else self._write(outcome, log)

    def _log(self, started: float, cpu_started: float) -> Log:
        run, job = self.run_folder, self.job
        if self._tracking is None and job.trackers:
            pictures = run.pictures if job.track_images else None
            self._tracking = Tracking(job.trackers, run.path, pictures=pictures, progress=job.progress)
            self._tracking.begin(tracked_facts(job.found, self.split, job.settings, self.length, job.machine))
        names, tracking = job.found.labels.names, self._tracking
        return Log(
            run.log,
            started=started,
            cpu_started=cpu_started,
            labels=names,
            pictures=run.pictures,
            tracking=tracking,
        )

    # The trainers end in these two, so that nothing of the prepared slices is in use any more when they are removed.
    def _whole(self, log: Log, agreement: Agreement | None) -> Outcome:
        with self._trainer(log, None) as (trainer, checkpoints):
            return trainer.run(self.length, checkpoints=checkpoints, stop=self.job.stop, agreement=agreement)

    def _part(self, log: Log, lap: Lap) -> Outcome | None:
        with self._trainer(log, lap) as (trainer, checkpoints):
            outcome = trainer.run_lap(lap, checkpoints=checkpoints, stop=self.job.stop)
            self.step_seconds, self.costs = trainer.step_seconds, trainer.costs or self.costs
            return outcome

    @contextmanager
    def _trainer(self, log: Log, lap: Lap | None) -> Iterator[tuple[Trainer, Checkpoints]]:
        """A trainer from the start or from the last checkpoint, in every process."""
        job, run, identity, prepared = self.job, self.run_folder, self.identity, self._prepared
        if prepared is None:
            raise ValueError("nothing is prepared; call `prepare` first")
        machine, say = job.machine, Silent() if self._is_begun else job.progress
        with (
            using_threads(job.threads),
            torch.random.fork_rng(devices=[machine.device] if machine.device.type == "cuda" else []),
        ):
            torch.manual_seed(machine.seed)
            network = job.start.network(job.settings, prepared.plan, job.found.labels, progress=say)
            identity["first_weights"] = weights_key(network.state_dict())
            self._curve = self._curve or Curve(prepared, tile_overlap=job.settings.prediction.tile_overlap)
            trainer = Trainer(
                prepared, job.settings, machine, network, log=log, progress=job.progress, curve=self._curve
            )
            if "threads" not in identity:
                identity["threads"] = job.threads or trainer.stepper.fastest_threads()
                torch.set_num_threads(identity["threads"])
            self.job = dataclasses.replace(job, threads=identity["threads"])
            if not self._is_begun:
                require_same(self.recorded, identity, run.path)
                write_identity(run.path, identity)
            every = job.settings.training.checkpoint_seconds
            checkpoints = Checkpoints(run.state, key_of(identity), every_seconds=every)

            def restored(path: Path) -> State:
                state, wanted = State.load(path), self.length.schedule
                if wanted is not None and state.schedule not in (None, wanted):
                    raise ValueError(f"total is {state.total}, not the {wanted.total} steps that were requested")
                trainer.restore(state)
                return state

            saved = checkpoints.latest(restored, job.progress) if job.resume or self._is_begun else None
            if saved is not None:
                say.say(f"going on after step {saved.step}")
                before = identity[PRECISIONS][-1:]
                if before not in ([], [trainer.stepper.precision]):
                    warn(
                        say,
                        f"the steps so far were computed in {before[0]}, and this machine goes on in "
                        f"{trainer.stepper.precision}: the weights are not those of a training without the stop",
                    )
            elif job.resume:
                say.say("it was stopped before its first checkpoint: starting from the slices that are prepared")
            identity |= with_precision(identity, trainer.stepper.precision, goes_on=saved is not None)
            write_identity(run.path, identity)
            order = Order(
                job.found.without_volumes(),
                self.split,
                prepared.plan,
                job.settings,
                self.length,
                identity["threads"],
                (job.slices or run.state).resolve(),
                saved,
                lap,
            )
            machine.world.broadcast(order)
            yield trainer, checkpoints

    def _write(self, outcome: Outcome, log: Log) -> Run:
        """Write the result, and remove what only a training needs."""
        job, run, prepared, machine = self.job, self.run_folder, self._prepared, self.job.machine
        if prepared is None:
            raise ValueError("nothing is prepared; call `prepare` first")
        seconds, used = log.time_used()
        record: dict[str, Any] = {"seconds": round(seconds, 1), "cpu_seconds": round(used, 1), "seed": machine.seed}
        record["precision"] = ", then ".join(self.identity[PRECISIONS])
        record |= job.start.record
        if machine.world.size > 1:
            record["processes"] = machine.world.size
        if self.length.budget_seconds is not None:
            record["budget_seconds"] = self.length.budget_seconds
        if self.split.fold:
            record["fold"] = self.split.fold
        with using_threads(job.threads):
            table = write_run(run, prepared, outcome, record, job.start, job.progress)
        if self._tracking is not None:
            self._tracking.finish(outcome.steps, final_dices(table))
        seconds, used = log.time_used()
        text = outcome.schedule.text
        result = Run(run.path, outcome.steps, table, seconds, used, scored=(run.path,), schedule=text)
        del prepared  # a network file system removes no file that is still mapped
        self._prepared = self._curve = None
        drop(run.path)
        shutil.rmtree(run.state)
        job.progress.say(f"trained {result.steps} steps in {duration(seconds)}, {used:.0f} CPU seconds: {run.path}")
        return result


def _as_stopped(made: Plan, recorded: Mapping[str, Any], job: Job, split: Split) -> Plan:
    """The plan of a training, as an earlier medfcn made it if one stopped the training.

    Before parts of slices and three views of lesions were planned, a plan had no crop, and one view.
    """
    before = recorded.get("plan", {})
    if before and made.crop is not None and "crop" not in before:
        made = plan_split(job.found, split, override(job.settings, "slices", crop="never"), like=job.start.plan)
    if len(made.views) > 1 and job.settings.slices.views == "auto" and len(before.get("views", ())) == 1:
        single = override(job.settings, "slices", views=tuple(before["views"]))
        made = plan_split(job.found, split, single, like=job.start.plan)
    return made


def _report_data(prepared: Prepared, settings: Settings, progress: Progress) -> None:
    """Report the cases and the slices."""
    split, made = prepared.split, prepared.plan
    progress.say(
        f"{counted(len(split.training), 'case')} to train on, {len(split.validation)} to validate; labels "
        f"{listed(prepared.survey.labels.names)}; {listed(made.views)} slices, windows "
        f"{made.trained[0]}×{made.trained[1]}"
    )
    if split.origin:
        progress.say(split.origin)
    for line in (*split.notes, *idle_settings(settings, made, prepared.survey, split)):
        if line:
            warn(progress, line)
    of_what = prepared.survey.of_labelled(split.training)
    progress.say(f"the network grid allows a Dice of {ceiling_text(prepared.ceilings)}{of_what}")
