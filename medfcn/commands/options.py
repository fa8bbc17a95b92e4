"""The options that several commands share, each declared once. Their values are checked where they are used."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import click

from medfcn.allocator import Allocator, use_allocator
from medfcn.commands.exits import show
from medfcn.errors import SettingsError

_Command = Callable[..., Any]
_Option = Callable[[_Command], _Command]


def all_of(*options: _Option) -> _Option:
    """One decorator that adds several options, which `--help` lists in this order."""
    return lambda command: functools.reduce(lambda inner, option: option(inner), reversed(options), command)


def _fill_value(text: str) -> float:
    prefix, _, number = text.partition(":")
    try:
        value = float(number) if prefix == "fill" else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SettingsError(
            f"{text!r} is not fill:VALUE with a finite number; write for example fill:0", field="nonfinite"
        )
    return value


def _read_ids(ctx: click.Context, parameter: click.Parameter, path: str | None) -> Sequence[str] | None:
    from medfcn.datasets.tables import read_ids

    return None if path is None else read_ids(path)


def flag(name: str, explanation: str) -> _Option:
    """An option without a value."""
    return click.option(name, is_flag=True, help=explanation)


def text(name: str, metavar: str, explanation: str) -> _Option:
    """An option whose value is checked where it is used."""
    return click.option(*name.split(), metavar=metavar, help=explanation)


def count(name: str, explanation: str, *, least: int = 1, default: int | None = None) -> _Option:
    """An option whose value is a whole number."""
    kind, is_shown = click.IntRange(min=least), default is not None
    return click.option(name, type=kind, default=default, show_default=is_shown, help=explanation)


def ids(name: str, explanation: str) -> _Option:
    """An option whose value is a file of ids of cases or patients, one per line; the command gets the ids."""
    return click.option(name, metavar="FILE", callback=_read_ids, help=explanation)


labels_option = text(
    "--labels",
    "NAME=V[+V…],…",
    "Labels to segment or score: hippocampus=1+2 merges values 1 and 2; anterior=1,posterior=2 keeps two; "
    "lesion=1-42 is a range, lesion=any every value but 0; whole=1+2,core=2 overlap; ignore=255 leaves out voxels "
    "that nobody labelled. Where masks are one file for each structure: liver,kidneys=kidney_left+kidney_right.",
)
cases_option = ids("--cases", "File of the cases to use: one id of a case or patient a line.")
groups_option = text(
    "--groups",
    "FILE",
    "CSV of id, group: cases of one group (a patient) are never split across training and validation.",
)
group_by_option = text(
    "--group-by",
    "stem|none|REGEX",
    "Patients from the ids (instead of --groups). stem: ids that differ in a last token for a frame, time, visit, "
    "side, scan or date are one patient. REGEX: its first group, else the whole match, is the patient. none: each "
    "case is one.",
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps (Apple's GPU)."
)
engine_options = all_of(
    text(
        "--engine",
        "torch|onnx|openvino|auto",
        "Library that runs the networks. auto: the fastest that makes the same masks here. "
        "[default: torch, or that of the output]",
    ),
    text(
        "--precision",
        "float32|bfloat16|auto",
        "auto: bfloat16 where the training found it as good and the processor has it. "
        "[default: float32, or that of the output]",
    ),
    click.option(
        "--fold-norm/--no-fold-norm",
        default=None,
        help="Fold batch normalisation into convolutions, for torch in float32. [default: do, or as in the output]",
    ),
)
threads_option = count("--threads", "CPU threads. [default: one or all, whichever is faster]")
cluster_option = text(
    "--cluster",
    "ADDRESS",
    "Work on a running Dask cluster: its scheduler's address or scheduler file. Its network must be trusted.",
)
allow_outside_option = flag("--allow-outside", "Accept paths in a table that lead out of its folder.")
all_metrics_option = flag("--all-metrics", "Print every metric of each label, not one line a label.")
overwrite_option = flag("--overwrite", "Replace an existing output.")
start_options = all_of(
    text(
        "--init",
        "RUN",
        "A run folder whose weights are the initial ones; its network, views, spacing and context are then the "
        "defaults.",
    ),
    text(
        "--encoder-weights",
        "FILE",
        "VGG-16 or ResNet in torchvision's layout: the initial weights of a fitting preset's encoder.",
    ),
)


def allocator_option(command: _Command) -> _Command:
    """Adds the option for the C library's allocator, which is told before the command's work begins."""

    @functools.wraps(command)
    def with_allocator(allocator: Allocator | None, **choices: Any) -> Any:
        if allocator is None:
            from medfcn.config import read_settings

            allocator = read_settings(choices.get("settings")).machine.allocator
        use_allocator(allocator)
        return command(**choices)

    add = click.option(
        "--allocator",
        type=click.Choice(["keep", "system"]),
        help="keep: freed memory is kept for the next arrays, which is faster. system: the C library decides. "
        "[default: keep]",
    )
    return add(with_allocator)


def memory_option(name: str) -> _Option:
    """The option for the memory of a command, which is told before the command's work begins.

    Args:
        name: Of the command.
    """

    def add_to(command: _Command) -> _Command:
        @functools.wraps(command)
        def with_memory(memory: str | None, **choices: Any) -> Any:
            if memory is None:
                return command(**choices)
            from medfcn.commands.starts import STARTS
            from medfcn.memory import bytes_of, limit_memory, megabytes

            if choices.get("cluster"):
                raise SettingsError("memory: the workers of a cluster have limits of their own", field="memory")
            most, count = bytes_of(memory), choices.get("jobs") or 1
            limit_memory(most // count)
            try:
                STARTS[name].require()
                limit_memory(most)
                each = f", {megabytes(most // count)} for each of {count} processes" if count > 1 else ""
                show(f"memory: {megabytes(most)} at most{each}", err=True)
                return command(**choices)
            finally:
                limit_memory(None)

        add = text("--memory", "SIZE", "Memory to take at most, such as 4g; the processes share it. [default: all]")
        return add(with_memory)

    return add_to


def reading_options(command: _Command) -> _Command:
    """Adds the options that opt in to volumes which are otherwise refused, as one `options`."""

    @functools.wraps(command)
    def with_options(
        xform: str,
        assume_grid: bool,
        nonfinite: str | None,
        volume: int | None,
        series: str | None,
        bids: str | None,
        max_bytes: int | None,
        **choices: Any,
    ) -> Any:
        from medfcn.volumes import ReadOptions

        fill = None if nonfinite is None else _fill_value(nonfinite)
        options = ReadOptions(
            xform=xform,  # type: ignore[arg-type]
            assume_grid=assume_grid,
            nonfinite=fill,
            volume_index=volume,
            series=series,
            bids=bids,
        )
        if max_bytes is not None:
            options = dataclasses.replace(options, max_bytes=max_bytes)
        return command(options=options, **choices)

    add = all_of(
        click.option(
            "--xform",
            type=click.Choice(["auto", "sform", "qform"]),
            default="auto",
            help="Which transform to take where qform, sform and pixdim disagree; such files are refused otherwise. "
            "sform is taken as it is, a gantry tilt included.",
        ),
        flag(
            "--assume-grid",
            "Read files that do not say left from right: i to the left, j to the back, k to the head.",
        ),
        text(
            "--nonfinite",
            "fill:VALUE",
            "Put VALUE where voxels are NaN or infinite; such files are refused otherwise.",
        ),
        count(
            "--volume",
            "Number of the volume of a 4D file, or of the time point, echo or acquisition of a DICOM series, from 0.",
            least=0,
        ),
        text("--series", "UID|HASH", "Which series of a folder with several DICOM series to read."),
        text(
            "--bids",
            "KEY=VALUE,…",
            "Which files of a BIDS data set to take: suffix=T1w (several with +, as channels), entities such as "
            "space=…, desc=…, and derivatives=NAME for the labels. [default: the one kind there is]",
        ),
        count("--max-bytes", "The longest file to read, uncompressed. [default: 2147483648, 2 GiB]"),
    )
    return add(with_options)


design_options = all_of(
    labels_option,
    text("--config settings", "FILE", "TOML file of settings."),
    text("--preset", "NAME", "The network's design, such as fcn8s. [default: auto]"),
    count(
        "--context",
        "Number of slices in the network's input, odd. [default: 3 with the preset auto where slices are at "
        "most two pixels apart, else 1]",
    ),
    text(
        "--views --view",
        "auto|all|VIEW[,VIEW]",
        "Planes of the slices: axial, coronal, sagittal, several with commas, or all. [default: auto]",
    ),
    groups_option,
    group_by_option,
    ids("--leave-out", "File of ids of cases or patients to exclude (held-out test set), one per line."),
    count("--seed", "Random seed.", least=0, default=0),
    flag("--skip-bad", "Leave out cases that cannot be used, and list them in cases.csv."),
    allow_outside_option,
    reading_options,
)
"""Those of `DesignRequest`: shared by plan, train and tune."""


def work_options(work: str, *, folds: str, resume: str) -> _Option:
    """The options of `WorkRequest`: shared by train and tune, which explain three of them each."""
    return all_of(
        text(
            "--budget",
            "TIME",
            f"Wall time of {work}, such as 90s, 10m, 2h; a bare number is seconds. [default: 10m]",
        ),
        count("--epochs", "Number of epochs (instead of --budget)."),
        text(
            "--steps",
            "N",
            "Number of optimiser steps (instead of --budget); reproduces an earlier run exactly, as 900,650@300 one "
            "that was shortened.",
        ),
        click.option("--folds", type=click.IntRange(min=2), metavar="N", help=folds),
        device_option,
        threads_option,
        flag("--resume", resume),
        overwrite_option,
    )
