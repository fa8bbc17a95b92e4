"""The options of `plan` and `train`, which `tune` shares, and what they are resolved to."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from medfcn.calls import require_one
from medfcn.config import budget_seconds, override, read_settings
from medfcn.datasets import Dataset, find_dataset
from medfcn.datasets.cases import Splits
from medfcn.datasets.patients import require_stated_patients
from medfcn.datasets.tables import Ids, ids_of
from medfcn.errors import SettingsError
from medfcn.inference.devices import require_threads
from medfcn.labels import LabelMap
from medfcn.labels.label_map import LabelsLike
from medfcn.progress import Progress, reporting, warn
from medfcn.runs.stop import Stop
from medfcn.runs.tracking import kinds_of
from medfcn.settings import Settings
from medfcn.slices.views import parse_views
from medfcn.text import counted, listed
from medfcn.training.budget import require_possible_budget
from medfcn.training.folds import Folds
from medfcn.training.prepare import require_possible
from medfcn.training.record import parts_of
from medfcn.training.schedule import Length, Schedule
from medfcn.volumes.options import DEFAULT_OPTIONS, ReadOptions

if TYPE_CHECKING:
    from medfcn.monai.case_transforms import Transforms


@dataclass(frozen=True, kw_only=True)
class DesignRequest:
    """The cases, how they are read, and the settings that are fixed.

    Attributes:
        dataset: A folder with `images/` and `labels/`, a Decathlon or nnU-Net folder, or a CSV or TSV of files.
        labels: The labels to segment, such as `hippocampus=1+2`, or `whole=1+2,core=2` for labels that overlap; None
            takes the data set's names or values.
        settings: All settings, or a TOML file that sets some of them.
        preset: The network's design, such as `fcn8s`; overrides `network.preset`.
        context: Number of slices in the network's input, odd; overrides `slices.context`.
        views: `axial`, `coronal`, `sagittal`, several of them with commas between or as a list, or `all`; overrides
            `slices.views`.
        groups: A CSV of `id, group`. Cases of one group (a patient) are never split across training and validation.
        group_by: Groups from the ids (instead of `groups`): `stem`, `none` or a regular expression; see
            `medfcn.datasets.patients.groups_from_ids`.
        leave_out: Ids of cases or patients (groups) to exclude, or a file of them, such as a held-out test set. All
            cases of a patient are excluded together.
        seed: Random seed.
        skip_bad: Leave out cases that cannot be used, instead of stopping.
        options: What to opt in to when reading volumes that are otherwise refused.
        allow_outside: Accept paths in a table or `dataset.json` that lead out of its folder.
        progress: Where messages and progress are reported.
    """

    dataset: Path | str = field(kw_only=False)
    labels: LabelsLike | None = None
    settings: Settings | Path | str | None = None
    preset: str | None = None
    context: int | None = None
    views: str | Sequence[str] | None = None
    groups: Path | str | None = None
    group_by: str | None = None
    leave_out: Ids | None = None
    seed: int = 0
    skip_bad: bool = False
    options: ReadOptions = DEFAULT_OPTIONS
    allow_outside: bool = False
    progress: Progress | None = None

    @property
    def say(self) -> Progress:
        """Where messages go; nowhere unless requested."""
        return reporting(self.progress)

    def chosen_settings(self) -> Settings:
        """The settings of the file or object, overridden by the single options.

        Raises:
            MissingFileError: The file is not there.
            SettingsError: A setting is unknown or has a value that is not allowed.
        """
        chosen = self.settings if isinstance(self.settings, Settings) else read_settings(self.settings)
        views = None if self.views is None else parse_views(self.views)
        chosen = override(chosen, "slices", context=self.context, views=views)
        return override(chosen, "network", preset=self.preset)

    def label_map(self, settings: Settings, cases: Dataset) -> LabelMap | None:
        """The requested labels, refused before a volume is read if they do not fit the settings."""
        labels = cases.labels_of(self.labels)
        if labels is not None:
            require_possible(settings, labels)
        return labels

    def cases(self) -> Dataset:
        """The data set without the cases to leave out."""
        found = find_dataset(
            self.dataset,
            groups=self.groups,
            group_by=self.group_by,
            allow_outside=self.allow_outside,
            bids=self.options.bids,
        )
        names = () if self.leave_out is None else ids_of(self.leave_out)
        kept = found.without(names)
        others = [case.id for case in kept.left_out if case.id not in names and case.group not in names]
        if others:
            count = counted(len(others), "other case")
            warn(self.say, f"left out with them, because a patient is never split: {count}: {listed(others)}")
        return kept


@dataclass(frozen=True, kw_only=True)
class PlanRequest(DesignRequest):
    """The options of `plan`: those of a training that decide its plan.

    Attributes:
        init: A run folder whose weights are the initial ones. Its network, views, spacing, context and kinds of
            intensities are kept where they are not set; finer skips may be new, and start with scores of zero.
        encoder_weights: A state dict of VGG-16 or ResNet in torchvision's key layout, the initial weights of the
            encoder of a fitting preset: a safetensors file, or one that `torch.load` reads with `weights_only=True`.
        transforms: Your own deterministic MONAI transforms between reading and slicing, such as a `Compose`. They get
            a dictionary with `image` and `label`. Those of a run to start from, or to resume, are kept.
    """

    init: Path | str | None = None
    encoder_weights: Path | str | None = None
    transforms: Transforms | None = None


@dataclass(frozen=True, kw_only=True)
class WorkRequest(DesignRequest):
    """The options of trainings: an output, a length, a device.

    Attributes:
        output: The folder to make. `train` does without where `dataset` is a run folder to resume: the options are
            then those that it keeps, and those that are given beside must be as they were.
        budget: Wall time of a training, such as `10m`; a bare number is seconds. The default is `10m`, unless epochs
            or steps are given.
        epochs: Number of epochs of `training.epoch_steps` steps each (instead of a budget).
        steps: Number of optimiser steps (instead of a budget); reproduces an earlier run exactly. A text such as
            `900,650@300`, as such a run reported it, repeats one that was shortened: 900 steps, after step 300 only
            650.
        folds: Train so many folds, which share the budget. Every case is scored by the fold that was not trained on
            it.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; each of several processes takes the GPU of its number.
        threads: CPU threads; None takes one or all cores, whichever is faster.
        overwrite: Replace an existing output.
        resume: Go on with the work that was stopped in `output`; it ends as it would have without the stop. All other
            options must be as they were, but length and threads may be left out.
        stop: Looked at between two steps. Without one, an interrupt leaves the last checkpoint.
    """

    output: Path | str = field(kw_only=False)
    budget: str | float | None = None
    epochs: int | None = None
    steps: int | str | None = None
    folds: int | None = None
    device: str = "auto"
    threads: int | None = None
    overwrite: bool = False
    resume: bool = False
    stop: Stop | None = None

    def __post_init__(self) -> None:
        require_one(budget=self.budget, epochs=self.epochs, steps=self.steps)
        require_one(resume=self.resume or None, overwrite=self.overwrite or None)
        require_threads(self.threads)
        if self.epochs is not None and self.epochs < 1:
            raise SettingsError(f"epochs {self.epochs}: at least 1 is needed; give a larger number", field="epochs")
        if self.steps is not None:
            Schedule.parse(self.steps)
        if self.budget is not None and self.folds is not None:
            require_possible_budget(budget_seconds(self.budget), folds=self.folds)

    def cases(self) -> Dataset:
        """The data set without the cases to leave out.

        Raises:
            DatasetError: Its ids seem to name patients, and nothing says whether they do. A training that is resumed
                was split as it is.
        """
        found = super().cases()
        if not self.resume:
            require_stated_patients(found)
        return found

    def length(self, settings: Settings) -> Length | None:
        """The requested length; None without one."""
        if self.budget is not None:
            return Length(budget_seconds=budget_seconds(self.budget))
        if self.epochs is not None:
            return Length(steps=self.epochs * settings.training.epoch_steps)
        return None if self.steps is None else Length.of(Schedule.parse(self.steps))


@dataclass(frozen=True, kw_only=True)
class TrainRequest(WorkRequest, PlanRequest):
    """The options of `train`.

    Attributes:
        fold: `K/N`: train only the K-th of N folds, into `output/fold_K`; the same on every machine with this data
            set and seed.
        cluster: The address of a Dask scheduler, or the path of its scheduler file: its workers train a fold each,
            with the whole budget if there is one, and one thread unless `threads` says more.
        report: Write `report.html` beside the scores.
        started: `time.monotonic()` from which a budget counts, such as the start of a script; None counts from the
            call.
        more: Instead of another length: carry on the finished run that `dataset` names, for a time such as `10m` or
            for `500 steps`. The training starts from its weights, with its cases, labels and settings, and with the
            next seed; slices are prepared anew, and the run stays as it is.
        track: Programs that get the course of the training: `tensorboard`, `mlflow` or `wandb`, several with commas.
            Their files lie in the run folder; only `mlflow=ADDRESS` sends anything, to that server.
        track_images: Pass the pictures of validation slices on to them too.
        moved_to: The data set of the run that `dataset` names, where it is not at its place any more.
        given: Names of options that are meant although they have their defaults, such as `["seed"]`: beside a run
            folder that keeps its options, a default is else taken as not given. A call of `train` fills it in.
    """

    output: Path | str = field(default="", kw_only=False)
    more: str | None = None
    moved_to: Path | str | None = None
    given: Collection[str] = ()
    track: str | None = None
    track_images: bool = False
    fold: str | None = None
    cluster: str | None = None
    report: bool = True
    started: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one(fold=self.fold, folds=self.folds)
        require_one(budget=self.budget, epochs=self.epochs, steps=self.steps, more=self.more)
        if not self.output and not self.resume:
            raise SettingsError(
                "output: the run folder to make is missing; name it, such as runs/one", field="output"
            )
        if self.moved_to is not None and not self.resume and self.more is None:
            raise SettingsError(
                "moved_to: one data set is trained on; a second path is the new place of that of a run "
                "which is resumed or carried on; leave it out",
                field="moved_to",
            )
        if self.more is not None:
            _length_of_more(self.more)
        if self.track_images and not self.track:
            raise SettingsError("track_images: nothing is tracked; name a program with track", field="track_images")
        kinds_of(self.track)

    def cases(self) -> Dataset:
        """The data set without the cases to leave out; of a run that is carried on, with the run's split.

        Raises:
            DatasetError: As for every training; or none of the run's cases is in the data set.
        """
        if self.more is None or self.init is None:
            return super().cases()
        run = Path(self.init)
        found, parts = DesignRequest.cases(self), parts_of(run)
        lost = {case for part in parts for case in part} - {case.id for case in found.all_cases}
        if lost:
            warn(self.say, f"{counted(len(lost), 'case')} of {run.name} not in the data set any more: {listed(lost)}")
        return replace(found, splits=Splits(f"{run.name}, which is carried on", (parts,)))

    def length(self, settings: Settings) -> Length | None:
        """The requested length; None without one."""
        return super().length(settings) if self.more is None else _length_of_more(self.more)

    def chosen_folds(self) -> Folds | None:
        """The folds to train; None for a training without folds."""
        return Folds.of(self.fold, self.folds)


def _length_of_more(more: str) -> Length:
    """The length that `--more` names: a time, or a number of steps."""
    steps = re.fullmatch(r"([0-9]{1,12}) *steps?", str(more).strip())
    if steps:
        return Length.of(Schedule.parse(steps[1]))
    try:
        return Length(budget_seconds=budget_seconds(more))
    except SettingsError as error:
        message = f"more {more!r}: expected a time or a number of steps; write for example 10m, or '500 steps'"
        raise SettingsError(message, field="more") from error
