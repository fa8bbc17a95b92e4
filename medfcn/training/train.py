"""Training from a request: a data set and a few choices → a run folder; and its plan alone."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from medfcn.calls import called_with
from medfcn.datasets.channels import DroppedChannel, dropped_text
from medfcn.datasets.patients import patients_problem
from medfcn.files import refuse_link
from medfcn.labels import LabelMap
from medfcn.runs.folder import RunFolder
from medfcn.runs.lock import locked
from medfcn.runs.outputs import refuse_blocked_run, require_free, require_free_or_locked, require_stopped
from medfcn.runs.replaced import set_folds_aside
from medfcn.runs.stop import Stop
from medfcn.runs.tracking import kinds_of, require_libraries
from medfcn.slices.plan import Plan
from medfcn.text import Shown, aligned, listed
from medfcn.training.crossvalidation import finished_folds, require_place, train_folds
from medfcn.training.distributed import Machine, joined
from medfcn.training.finished import Asked
from medfcn.training.folds import Split
from medfcn.training.ineffective_settings import idle_settings
from medfcn.training.job import Job
from medfcn.training.options import keep_options
from medfcn.training.other_ranks import Order, train_along
from medfcn.training.prepare import as_planned, ceiling_text, ceilings_of, plan_training
from medfcn.training.record import cpu_seconds
from medfcn.training.request import PlanRequest, TrainRequest
from medfcn.training.run import Run, finished_run
from medfcn.training.start import Start, choose_transforms, find_start, require_room
from medfcn.training.stopping import stopping
from medfcn.training.survey import survey
from medfcn.training.training import train_into

_AXES = ("R", "A", "S")
_PLANNED = (
    *("views", "spacing_mm", "window", "crop", "context", "stem_stride", "restoring", "widths", "batch_size"),
    *("movement", "mirror_axes", "turns", "apart", "own_statistics"),
)
"""The parts of a plan that are shown, in that order."""


def run_training(request: TrainRequest) -> Run:
    """Train as requested, without a report; see `medfcn.train`."""
    started, used = time.monotonic() if request.started is None else request.started, cpu_seconds()
    say, folder, stop, folds = request.say, Path(request.output), request.stop or Stop(), request.chosen_folds()
    resume, overwrite = request.resume, request.overwrite
    require_libraries(kinds_of(request.track))
    with joined(request.device) as (world, device):
        machine = Machine(device, request.seed, started=started, cpu_started=used, world=world)
        if not world.is_first:
            return _follow(machine, stop)
        targets = (folder,) if folds is None else folds.folders(folder)
        todo = [target for target in targets if not (resume and RunFolder(target).is_finished)]
        _refuse_blocked(folder, todo, overwrite=overwrite)
        if resume:
            require_stopped(folder, targets)
        elif overwrite or folds is None:
            require_free_or_locked(folder if len(targets) > 1 else targets[0], overwrite=overwrite)
        with ExitStack() as locks, stopping(todo, stop):
            for target in todo:
                locks.enter_context(locked(target, say))
            if folds is not None:
                require_place(folder, folds, resume=resume, overwrite=overwrite)
            elif not resume and not overwrite:
                require_free(folder)
            start = find_start(request.init, request.encoder_weights, output=folder)
            settings = start.settle(request.chosen_settings(), preset=request.preset)
            world.share(settings.training.batch_size)
            length, cases = request.length(settings), request.cases()
            labels = request.label_map(settings, cases)
            transforms = choose_transforms(request.transforms, start, todo[0] if resume and todo else None)
            if not todo:
                asked = Asked(cases, labels, settings, request.seed, start, length, request.transforms)
                if folds is not None:
                    return world.broadcast(finished_folds(folder, folds, asked, say))
                asked.require_done(folder, fold=_fold_of(request, start))
                return world.broadcast(finished_run(folder, say))
            options, skip_bad = request.options, request.skip_bad
            found = survey(cases, labels, options, skip_bad=skip_bad, progress=say, transforms=transforms)
            job = Job(
                found,
                settings,
                machine,
                start,
                length,
                request.threads,
                resume=resume,
                stop=stop,
                progress=say,
                keep=partial(keep_options, request, labels),
                trackers=kinds_of(request.track),
                track_images=request.track_images,
            )
            if folds is not None:
                return world.broadcast(train_folds(folder, folds, job, overwrite=overwrite))
            split, made = plan_training(found, settings, seed=request.seed, like=start.plan)
            split = dataclasses.replace(split, fold=_fold_of(request, start))
            start.require_fit(as_planned(settings, made), made, found.labels)
            require_room(as_planned(settings, made), made, found.labels, device)
            if overwrite:
                set_folds_aside(folder, say)
            return world.broadcast(train_into(folder, job, split, made))


def _refuse_blocked(folder: Path, todo: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse links and strange things in the places that are filled or removed later."""
    folds = [fold.path for fold in RunFolder(folder).folds().values()] if overwrite else []
    for place in {folder, *todo, *folds}:
        if place != folder:
            refuse_link(place)
        refuse_blocked_run(place)


def _fold_of(request: TrainRequest, start: Start) -> str:
    """The fold of the run that is carried on, on whose validation cases nothing may be chosen; empty without one."""
    return "" if request.more is None or start.run is None else str(start.run.card.training.get("fold", ""))


def _follow(machine: Machine, stop: Stop) -> Run:
    """Take part in every training that the first process begins, and return what it returns."""
    while True:
        order: Order | Run = machine.world.broadcast(None)
        if isinstance(order, Run):
            return order
        train_along(order, machine, stop)


@dataclass(frozen=True)
class Planned(Shown):
    """The plan of a training, without the training.

    Attributes:
        plan: How volumes would become slices.
        split: The cases to train on and to validate with.
        labels: The labels to segment.
        ceilings: The best Dice that the network grid allows, by case id; see `prepare.ceiling`.
        idle: A line for each setting that changes nothing.
        unstated: A line about patients that only the ids tell of, on which a training stops; empty without.
        of_labelled: What the ceilings are of, where less than half of some cases is labelled; empty without.
        dropped: The channels that are left out, because they have one value in every case.
        drawn: Which labels alone were drawn in how many training cases; empty if all were in each.
    """

    plan: Plan
    split: Split
    labels: LabelMap
    ceilings: Mapping[str, float]
    idle: tuple[str, ...] = ()
    unstated: str = ""
    of_labelled: str = ""
    dropped: tuple[DroppedChannel, ...] = ()
    drawn: str = ""

    def to_text(self) -> str:
        """Every choice with its reason, one per line."""
        plan, reasons = self.plan.to_json(), self.plan.reasons
        plan["mirror_axes"] = [_AXES[axis] for axis in self.plan.mirror_axes]
        rows = [("labels", listed(self.labels.names), "")]
        rows.append(("cases", f"{len(self.split.training)} + {len(self.split.validation)}", "training + validation"))
        rows += [("channels", "", f"left out: {dropped_text(self.dropped)}")] if self.dropped else []
        rows += [("labelled", "", self.drawn)] if self.drawn else []
        rows += [("patients", "", self.unstated)] if self.unstated else []
        rows += [("split", "", line) for line in (self.split.origin, *self.split.notes) if line]
        rows += [(name, _shown(plan[name]), reasons.get(name, "as set")) for name in _PLANNED if name in plan]
        rows += [(name, "", reason) for name, reason in reasons.items() if name.startswith("normalisation")]
        rows += [("settings", "", line) for line in self.idle]
        rows.append(
            ("ceiling", ceiling_text(self.ceilings), f"Dice{self.of_labelled} of reference → network grid → back")
        )
        return "\n".join(aligned(rows, prose=[1, 2]))

    def to_json(self) -> dict[str, Any]:
        """Values for a JSON file: the plan with its reasons, the split, the labels, the ceilings, and all remarks."""
        return {
            "labels": list(self.labels.names),
            "training": list(self.split.training),
            "validation": list(self.split.validation),
            "plan": self.plan.to_json(),
            "reasons": dict(self.plan.reasons),
            "ceilings": dict(self.ceilings),
            "remarks": [line for line in (self.split.origin, *self.split.notes, *self.idle, self.unstated) if line],
        }


def _shown(value: object) -> str:
    if isinstance(value, tuple | list) and any(isinstance(item, str) for item in value):
        return ", ".join(map(str, value))
    if isinstance(value, tuple | list):
        return " × ".join("own" if item is None else f"{item:g}" for item in value) or "none"
    return str(value)


@called_with(PlanRequest)
def plan(request: PlanRequest) -> Planned:
    """Plan a training without starting it, with the options of `train`.

    Raises:
        MissingFileError: The data set, a file or a run is not there.
        DatasetError: A case cannot be used, and `skip_bad` is false.
        SettingsError: A setting is unknown or has a value that is not allowed.
        ModelError: The initial weights cannot be read or do not fit.
    """
    start = find_start(request.init, request.encoder_weights)
    settings = start.settle(request.chosen_settings(), preset=request.preset)
    cases = request.cases()
    found = survey(
        cases,
        request.label_map(settings, cases),
        request.options,
        skip_bad=request.skip_bad,
        progress=request.say,
        transforms=choose_transforms(request.transforms, start),
    )
    split, made = plan_training(found, settings, seed=request.seed, like=start.plan)
    start.require_fit(as_planned(settings, made), made, found.labels)
    problem = patients_problem(found.dataset)
    return Planned(
        plan=made,
        split=split,
        labels=found.labels,
        ceilings=ceilings_of(found, split, made),
        idle=idle_settings(settings, made, found, split),
        of_labelled=found.of_labelled(split.training),
        dropped=found.dropped,
        drawn=found.partly_drawn(split.training),
        unstated="" if problem is None else f"{problem.found}; {problem.remedy}",
    )
