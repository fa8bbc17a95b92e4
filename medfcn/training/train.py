"""The one call that trains: a data set and a few choices → a run folder."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from medfcn.config import budget_seconds, override, read_settings
from medfcn.datasets import find_dataset
from medfcn.errors import SettingsError
from medfcn.labels import LabelMap
from medfcn.progress import Progress, Silent
from medfcn.runs.folder import RunFolder
from medfcn.runs.lock import locked
from medfcn.runs.outputs import clear_folds, require_free, require_free_or_locked, require_stopped
from medfcn.runs.stop import Stop
from medfcn.settings import Settings
from medfcn.slices.plan import Plan
from medfcn.slices.views import parse_views
from medfcn.training.crossvalidation import finished_folds, require_place, train_folds
from medfcn.training.distributed import Machine, joined
from medfcn.training.finished import Asked
from medfcn.training.folds import Folds, Split
from medfcn.training.follow import Order, train_along
from medfcn.training.job import Job, Run, finished_run, stopping, train_into
from medfcn.training.prepare import as_planned, ceiling_text, ceilings_of, plan_training, require_possible
from medfcn.training.record import cpu_seconds
from medfcn.training.schedule import Length
from medfcn.training.start import Start, find_start
from medfcn.training.survey import leave_out as without
from medfcn.training.survey import survey
from medfcn.volumes import ReadOptions

READ_STRICTLY = ReadOptions()
_AXES = ("R", "A", "S")
"""Of the network grid, as they are shown."""


def train(
    dataset: Path | str,
    output: Path | str,
    *,
    labels: str | LabelMap | None = None,
    settings: Settings | Path | str | None = None,
    preset: str | None = None,
    context: int | None = None,
    views: str | Sequence[str] | None = None,
    init: Path | str | None = None,
    encoder_weights: Path | str | None = None,
    budget: str | float | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    groups: Path | str | None = None,
    leave_out: Sequence[str] = (),
    fold: str | None = None,
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
) -> Run:
    """Train a fully convolutional network on the slices of a data set's volumes.

    In processes that `torchrun` started, all call it alike: they share every batch, the first one writes the run
    folder, and all return the same.

    Args:
        dataset: A folder with `images/` and `labels/`, a Decathlon or nnU-Net folder, or a CSV or TSV of files.
        output: The run folder to make.
        labels: What to segment, such as `hippocampus=1+2`, or `whole=1+2,core=2` for labels that overlap; None takes
            the data set's names or values.
        settings: All settings, or a TOML file of some.
        preset: The network's design, such as `fcn8s`; overrides `network.preset`.
        context: Slices the network sees at once, odd; overrides `slices.context`.
        views: `axial`, `coronal`, `sagittal`, several of them with commas between or as a list, or `all`; overrides
            `slices.views`.
        init: A run folder whose weights are carried on. Its network, views, spacing, context and kinds of intensities
            are kept where they are not set; finer skips may be new, and start with scores of zero.
        encoder_weights: A state dict of VGG-16 or ResNet in torchvision's key layout, which the encoder of a fitting
            preset starts from: a safetensors file, or one that `torch.load` reads with `weights_only=True`.
        budget: Wall time of the whole call, such as `10m`; a bare number is seconds. The default, unless epochs or
            steps are given.
        epochs: Of `training.epoch_steps` steps each, instead of a budget.
        steps: Optimiser steps, instead of a budget; repeats a run of that many exactly.
        groups: A CSV of `id, group`; cases of one group are never parted.
        leave_out: Ids of cases that are not used at all, such as those held out for a test.
        fold: `K/N`: train only the K-th of N folds, into `output/fold_K`; the same on every machine with this data
            set and seed.
        folds: Train so many folds one after the other, into `output/fold_1` and so on, sharing the budget. Once all
            are there, `output/validation` scores every case by the fold that had not seen it.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; each of several processes takes the GPU of its number.
        threads: CPU threads of torch; None takes one or all cores, whichever is faster here and now.
        seed: Of every random number.
        skip_bad: Leave out cases that cannot be used, instead of stopping.
        options: What to opt in to when reading volumes that are otherwise refused.
        allow_outside: Accept paths in a table or `dataset.json` that lead out of its folder.
        overwrite: Replace an existing run folder.
        resume: Go on with the training that was stopped in `output`, and end where it would have ended; everything
            else must be as it was, but length and threads may be left out. A finished run is left as it is; whether
            its labels, settings, length, seed, first weights and case ids are these is told without reading volumes.
        stop: Looked at between two steps: a training that is asked to stop saves where it stands. Without one, an
            interrupt leaves the last checkpoint.
        progress: Where messages go.

    Raises:
        OutputExistsError: The run folder exists, and `overwrite` is false.
        DatasetError: The cases cannot be told, or some cannot be used and `skip_bad` is false.
        SettingsError: A setting is unknown or cannot be.
        MissingFileError: There is nothing to resume.
        ModelError: The weights to start from cannot be read, or are of another network.
        TrainingStoppedError: `stop` was asked to.
        TrainingError: Training cannot go on, is at work in the folder already, or cannot be resumed as something
            else.
        ProcessError: Another process met an error, or vanished.
    """
    if resume and overwrite:
        raise SettingsError("resume and overwrite are given together; give one of them")
    started, used = time.monotonic(), cpu_seconds()
    say, folder, stop = progress or Silent(), Path(output), stop or Stop()
    with joined(device) as (world, own_device):
        machine = Machine(own_device, seed, started=started, cpu_started=used, world=world)
        if not world.is_first:
            return _follow(machine, stop)
        chosen_folds = Folds.of(fold, folds)
        targets = (folder,) if chosen_folds is None else chosen_folds.folders(folder)
        todo = [target for target in targets if not (resume and RunFolder(target).is_finished)]
        if resume:
            require_stopped(folder, targets)
        elif overwrite or chosen_folds is None:
            require_free_or_locked(folder if len(targets) > 1 else targets[0], overwrite=overwrite)
        with ExitStack() as locks, stopping(todo, stop):
            for target in todo:
                locks.enter_context(locked(target, say))
            if chosen_folds is not None:
                require_place(folder, chosen_folds, resume=resume, overwrite=overwrite)
            elif not resume and not overwrite:
                require_free(folder)
            start = find_start(init, encoder_weights, output=folder)
            chosen = _resolved(settings, start, preset=preset, context=context, views=views)
            world.share(chosen.training.batch_size)
            length = length_of(budget, epochs, steps, epoch_steps=chosen.training.epoch_steps)
            label_map = label_map_of(labels, chosen)
            cases = without(find_dataset(dataset, groups=groups, allow_outside=allow_outside), leave_out)
            if not todo:
                asked = Asked(cases, label_map, chosen, seed, start, length)
                return world.broadcast(_finished(folder, chosen_folds, asked, say))
            found = survey(cases, label_map, options, skip_bad=skip_bad, progress=say)
            job = Job(found, chosen, machine, start, length, threads, resume=resume, stop=stop, progress=say)
            if chosen_folds is not None:
                return world.broadcast(train_folds(folder, chosen_folds, job, overwrite=overwrite))
            split, made = plan_training(found, chosen, seed=seed, like=start.plan)
            start.require_fit(as_planned(chosen, made), made, found.labels)
            if overwrite:
                clear_folds(folder, say)
            return world.broadcast(train_into(folder, job, split, made))


def _finished(folder: Path, folds: Folds | None, asked: Asked, say: Progress) -> Run:
    """What is there already, where it is what is asked for."""
    if folds is not None:
        return finished_folds(folder, folds, asked, say)
    asked.require_done(folder)
    return finished_run(folder, say)


def _follow(machine: Machine, stop: Stop) -> Run:
    """Take part in every training that the first process begins, and return what it returns."""
    while True:
        told: Order | Run = machine.world.broadcast(None)
        if isinstance(told, Run):
            return told
        train_along(told, machine, stop)


@dataclass(frozen=True)
class Planned:
    """What training would do with a data set.

    Attributes:
        plan: How volumes would become slices.
        split: Which cases would be trained on.
        labels: What would be segmented.
        ceilings: Best Dice that the network grid allows, by case id; see `prepare.ceiling`.
    """

    plan: Plan
    split: Split
    labels: LabelMap
    ceilings: Mapping[str, float]

    def to_text(self) -> str:
        """Every choice with its reason, a line each."""
        plan = self.plan.to_json()
        rows = [("labels", ", ".join(self.labels.names), "")]
        rows.append(("cases", f"{len(self.split.training)} + {len(self.split.validation)}", "training + validation"))
        for name in (
            "views",
            "spacing_mm",
            "window",
            "context",
            "stem_stride",
            "widths",
            "batch_size",
            "mirror_axes",
        ):
            value = [_AXES[axis] for axis in self.plan.mirror_axes] if name == "mirror_axes" else plan[name]
            rows.append((name, _shown(value), self.plan.reasons.get(name, "as set")))
        rows += [(name, "", reason) for name, reason in self.plan.reasons.items() if name.startswith("normalisation")]
        rows.append(("ceiling", ceiling_text(self.ceilings), "Dice of reference → network grid → back"))
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        return "\n".join(
            f"{name:<{widths[0]}}  {value:<{widths[1]}}  {reason}".rstrip() for name, value, reason in rows
        )


def _shown(value: object) -> str:
    if isinstance(value, tuple | list) and any(isinstance(item, str) for item in value):
        return ", ".join(map(str, value))
    if isinstance(value, tuple | list):
        return " × ".join("own" if item is None else f"{item:g}" for item in value) or "none"
    return str(value)


def plan(
    dataset: Path | str,
    *,
    labels: str | LabelMap | None = None,
    settings: Settings | Path | str | None = None,
    preset: str | None = None,
    context: int | None = None,
    views: str | Sequence[str] | None = None,
    init: Path | str | None = None,
    groups: Path | str | None = None,
    leave_out: Sequence[str] = (),
    seed: int = 0,
    skip_bad: bool = False,
    options: ReadOptions = READ_STRICTLY,
    allow_outside: bool = False,
    progress: Progress | None = None,
) -> Planned:
    """Say what `train` would do with a data set; the arguments are those of `train`."""
    start = find_start(init, None)
    chosen = _resolved(settings, start, preset=preset, context=context, views=views)
    cases = without(find_dataset(dataset, groups=groups, allow_outside=allow_outside), leave_out)
    label_map = label_map_of(labels, chosen)
    found = survey(cases, label_map, options, skip_bad=skip_bad, progress=progress or Silent())
    split, made = plan_training(found, chosen, seed=seed, like=start.plan)
    start.require_fit(as_planned(chosen, made), made, found.labels)
    return Planned(plan=made, split=split, labels=found.labels, ceilings=ceilings_of(found, split, made))


def _resolved(
    settings: Settings | Path | str | None,
    start: Start,
    *,
    preset: str | None,
    context: int | None,
    views: str | Sequence[str] | None,
) -> Settings:
    """All settings, with every part of the network set; only the widths of the preset `auto` stay the plan's."""
    chosen = settings if isinstance(settings, Settings) else read_settings(settings)
    chosen = override(chosen, "slices", context=context, views=None if views is None else parse_views(views))
    chosen = override(chosen, "network", preset=preset)
    return start.settle(chosen, preset=preset)


def label_map_of(labels: str | LabelMap | None, settings: Settings) -> LabelMap | None:
    """The labels that were asked for; what cannot be is refused before a volume is read."""
    label_map = LabelMap.parse(labels) if isinstance(labels, str) else labels
    if label_map is not None:
        require_possible(settings, label_map)
    return label_map


def length_of(
    budget: str | float | None, epochs: int | None, steps: int | None, *, epoch_steps: int
) -> Length | None:
    """The length that was asked for; None when nothing was."""
    given = [name for name, value in (("budget", budget), ("epochs", epochs), ("steps", steps)) if value is not None]
    if len(given) > 1:
        raise SettingsError(f"{' and '.join(given)} are given together; give one of budget, epochs and steps")
    for name, value in (("epochs", epochs), ("steps", steps)):
        if value is not None and value < 1:
            raise SettingsError(f"{name} {value}: at least 1 is needed; give a larger number")
    if budget is not None:
        return Length(budget_seconds=budget_seconds(budget))
    if epochs is not None:
        return Length(steps=epochs * epoch_steps)
    return None if steps is None else Length(steps=steps)
