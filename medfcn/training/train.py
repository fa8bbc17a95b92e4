"""The one call that trains: a data set and a few choices → a run folder."""

import dataclasses
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from medfcn.config import Settings, budget_seconds, override, read_settings
from medfcn.errors import SettingsError
from medfcn.evaluation import ScoreTable, evaluate, write_scores
from medfcn.files import refuse_existing
from medfcn.inference.devices import choose_device, using_threads
from medfcn.inference.model import Model
from medfcn.networks.fcn import FCN, build_network
from medfcn.networks.presets import with_preset
from medfcn.progress import Progress, Silent, duration
from medfcn.slices.plan import Plan
from medfcn.slices.views import parse_views
from medfcn.training.folds import Split
from medfcn.training.fuse import choose_view_weights
from medfcn.training.prepare import Prepared, Survey, ceiling, ceiling_text, plan_training, prepare, read_case, survey
from medfcn.training.prepare import leave_out as without
from medfcn.training.record import Log, cpu_seconds, write_cases
from medfcn.training.schedule import Length
from medfcn.training.trainer import Machine, Outcome, Trainer
from medfcn.training.validate import choose_one_part
from medfcn.volumes import LabelMap, ReadOptions, find_dataset

DEFAULT_BUDGET = "10m"
READ_STRICTLY = ReadOptions()


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        folder: The run folder.
        steps: Optimiser steps made.
        validation: Scores of the validation cases.
        seconds: Wall time.
        cpu_seconds: User and system time of the process.
    """

    folder: Path
    steps: int
    validation: ScoreTable
    seconds: float
    cpu_seconds: float

    def load(self, *, device: str = "auto") -> Model:
        """The trained model."""
        return Model.load(self.folder, device=device)


def train(
    dataset: Path | str,
    output: Path | str,
    *,
    labels: str | LabelMap | None = None,
    settings: Settings | Path | str | None = None,
    preset: str | None = None,
    context: int | None = None,
    views: str | Sequence[str] | None = None,
    budget: str | float | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    groups: Path | str | None = None,
    leave_out: Sequence[str] = (),
    device: str = "auto",
    threads: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    options: ReadOptions = READ_STRICTLY,
    allow_outside: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Train a fully convolutional network on the slices of a data set's volumes.

    Args:
        dataset: A folder with `images/` and `labels/`, a Decathlon or nnU-Net folder, or a CSV or TSV of files.
        output: The run folder to make.
        labels: What to segment, such as `hippocampus=1+2`; None takes the data set's names or values.
        settings: All settings, or a TOML file of some.
        preset: The network's design, such as `fcn8s`; overrides `network.preset`.
        context: Slices the network sees at once, odd; overrides `slices.context`.
        views: `axial`, `coronal`, `sagittal`, several of them with commas between or as a list, or `all`; overrides
            `slices.views`.
        budget: Wall time of the whole call, such as `10m`; the default, unless epochs or steps are given.
        epochs: Of `training.epoch_steps` steps each, instead of a budget.
        steps: Optimiser steps, instead of a budget; repeats a run of that many exactly.
        groups: A CSV of `id, group`; cases of one group are never parted.
        leave_out: Ids of cases that are not used at all, such as those held out for a test.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: CPU threads of torch; None takes one or all cores, whichever is faster here and now.
        seed: Of every random number.
        skip_bad: Leave out cases that cannot be used, instead of stopping.
        options: What to opt in to when reading volumes that are otherwise refused.
        allow_outside: Accept paths in a table or `dataset.json` that lead out of its folder.
        overwrite: Replace an existing run folder.
        progress: Where messages go.

    Raises:
        OutputExistsError: The run folder exists, and `overwrite` is false.
        DatasetError: The cases cannot be told, or some cannot be used and `skip_bad` is false.
        SettingsError: A setting is unknown or cannot be.
        TrainingError: Training cannot go on.
    """
    started, say, folder = time.monotonic(), progress or Silent(), Path(output)
    length = _length(budget, epochs, steps)
    chosen = _resolved(settings, preset=preset, context=context, views=views)
    if epochs is not None:
        length = Length(steps=epochs * chosen.training.epoch_steps)
    label_map = LabelMap.parse(labels) if isinstance(labels, str) else labels
    refuse_existing(folder, overwrite=overwrite)
    machine = Machine(device=choose_device(device), seed=seed, started=started)
    cases = without(find_dataset(dataset, groups=groups, allow_outside=allow_outside), leave_out)
    found = survey(cases, label_map, options, skip_bad=skip_bad, progress=say)
    split, made = plan_training(found, chosen, seed=seed)
    _clear(folder)
    try:
        steps, table = _train_into(folder, (found, split, made), chosen, machine, length, threads, say)
    except BaseException:
        # Half a run is of no use, and the prepared slices are a patient's.
        _clear(folder)
        with suppress(OSError):
            folder.rmdir()
        raise
    run = Run(folder, steps, table, time.monotonic() - started, cpu_seconds())
    say.say(f"trained {run.steps} steps in {duration(run.seconds)}, {run.cpu_seconds:.0f} CPU seconds: {folder}")
    return run


def _train_into(
    folder: Path,
    planned: tuple[Survey, Split, Plan],
    settings: Settings,
    machine: Machine,
    length: Length,
    threads: int | None,
    say: Progress,
) -> tuple[int, ScoreTable]:
    """Fill a run folder; returns the number of steps and the scores of the validation cases."""
    found, split, made = planned
    state = folder / "state"
    state.mkdir(parents=True)
    prepared = prepare(found, split, made, state, say)
    write_cases(folder / "cases.csv", prepared)
    say.say(
        f"{len(split.training)} cases to train on, {len(split.validation)} to validate; labels "
        f"{', '.join(found.labels.names)}; {', '.join(made.views)} slices, windows {made.window[0]}×{made.window[1]}"
    )
    say.say(f"the network grid allows a Dice of {ceiling_text(prepared.ceilings)}")
    with using_threads(threads):
        with torch.random.fork_rng(devices=[machine.device] if machine.device.type == "cuda" else []):
            torch.manual_seed(machine.seed)
            log = Log(folder / "log.csv", started=machine.started)
            network = _start(prepared, settings)
            trainer = Trainer(prepared, settings, machine, network, log=log, progress=say)
            if threads is None:
                torch.set_num_threads(trainer.fastest_threads())
            outcome = trainer.run(length)
        table = _write_run(folder, prepared, outcome, machine.started)
    del trainer
    shutil.rmtree(state)
    return outcome.steps, table


def _start(prepared: Prepared, settings: Settings) -> FCN:
    """The network as its training starts."""
    return build_network(
        settings.network,
        widths=prepared.plan.widths,
        channels_in=prepared.plan.channels_in,
        label_count=len(prepared.survey.labels.entries),
    )


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
        for name in ("views", "spacing_mm", "window", "context", "widths", "batch_size", "mirror_axes"):
            rows.append((name, _shown(plan[name]), self.plan.reasons.get(name, "as set")))
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
    groups: Path | str | None = None,
    leave_out: Sequence[str] = (),
    seed: int = 0,
    skip_bad: bool = False,
    options: ReadOptions = READ_STRICTLY,
    allow_outside: bool = False,
    progress: Progress | None = None,
) -> Planned:
    """Say what `train` would do with a data set; the arguments are those of `train`."""
    chosen = _resolved(settings, preset=preset, context=context, views=views)
    cases = without(find_dataset(dataset, groups=groups, allow_outside=allow_outside), leave_out)
    label_map = LabelMap.parse(labels) if isinstance(labels, str) else labels
    found = survey(cases, label_map, options, skip_bad=skip_bad, progress=progress or Silent())
    split, made = plan_training(found, chosen, seed=seed)
    by_id = {case.id: case for case in found.cases}
    ceilings = {
        case_id: ceiling(read_case(by_id[case_id], found.labels, options), made, len(found.labels.entries))
        for case_id in split.training
    }
    return Planned(plan=made, split=split, labels=found.labels, ceilings=ceilings)


def _resolved(
    settings: Settings | Path | str | None,
    *,
    preset: str | None,
    context: int | None,
    views: str | Sequence[str] | None,
) -> Settings:
    """All settings, with every part of the network set; only the widths of the preset `auto` stay the plan's."""
    chosen = settings if isinstance(settings, Settings) else read_settings(settings)
    chosen = override(chosen, "slices", context=context, views=None if views is None else parse_views(views))
    chosen = override(chosen, "network", preset=preset)
    return dataclasses.replace(chosen, network=with_preset(chosen.network))


def _length(budget: str | float | None, epochs: int | None, steps: int | None) -> Length:
    given = [name for name, value in (("budget", budget), ("epochs", epochs), ("steps", steps)) if value is not None]
    if len(given) > 1:
        raise SettingsError(f"{' and '.join(given)} are given together; give one of budget, epochs and steps")
    for name, value in (("epochs", epochs), ("steps", steps)):
        if value is not None and value < 1:
            raise SettingsError(f"{name} {value}: at least 1 is needed; give a larger number")
    if steps is not None:
        return Length(steps=steps)
    return Length(budget_seconds=budget_seconds(DEFAULT_BUDGET if budget is None else budget))


def _clear(folder: Path) -> None:
    """Remove what an earlier training left in a run folder, and nothing else that may lie there."""
    for name in ("model.safetensors", "model.json", "cases.csv", "log.csv", "report.html"):
        (folder / name).unlink(missing_ok=True)
    for name in ("validation", "state"):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)


def _write_run(folder: Path, prepared: Prepared, outcome: Outcome, started: float) -> ScoreTable:
    """What the model reaches on the validation cases, then the model with the card that says so."""
    validation = folder / "validation"
    validation.mkdir()
    model = outcome.model
    cases = prepared.cases(prepared.split.validation)
    model.card = dataclasses.replace(model.card, view_weights=choose_view_weights(model, prepared))
    model.card = dataclasses.replace(model.card, one_part=choose_one_part(model, prepared))
    masks, references = {}, {}
    for case in cases:
        prediction = model.predict([str(path) for path in case.images], options=prepared.survey.options)
        prediction.save(validation / f"{case.id}.nii.gz")
        masks[case.id], references[case.id] = prediction, case.label
    table = evaluate(masks, references, labels=prepared.survey.labels)
    write_scores(table, validation)
    model.card = dataclasses.replace(
        model.card,
        training={
            "cases": len(prepared.split.training),
            "validation_cases": len(prepared.split.validation),
            "steps": outcome.steps,
            "best_step": outcome.best_step,
            "seconds": round(time.monotonic() - started, 1),
            "cpu_seconds": round(cpu_seconds(), 1),
            "device": str(model.device),
            "threads": torch.get_num_threads(),
            "ceiling_dice": ceiling_text(prepared.ceilings),
        },
        validation=table.summary().to_json(),
    )
    model.save(folder)
    return table
