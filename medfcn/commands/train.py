"""`medfcn train`: a data set becomes a run folder with its report."""

from typing import Any

import click

from medfcn.commands.options import (
    allow_outside_option,
    check_budget,
    checked,
    context_option,
    device_option,
    init_option,
    labels_option,
    overwrite_option,
    preset_option,
    reading_options,
    refuse_together,
    slice_views_option,
    threads_option,
)
from medfcn.progress import for_terminal, process_rank


def _check_fold(text: str) -> object:
    from medfcn.training.folds import Folds

    return Folds.of(text, None)


@click.command()
@click.argument("dataset")
@click.option("-o", "--output", required=True, metavar="RUN", help="The run folder to make.")
@labels_option
@click.option(
    "--budget",
    callback=checked(check_budget),
    help="Wall time of the whole command, such as 90s, 10m, 2h; a bare number is seconds. [default: 10m]",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Instead of a budget.")
@click.option("--steps", type=click.IntRange(min=1), help="Instead of a budget; repeats a run of that many exactly.")
@preset_option
@init_option
@click.option(
    "--encoder-weights",
    metavar="FILE",
    help="VGG-16 or ResNet in torchvision's layout, for the encoder of a preset that fits.",
)
@context_option
@slice_views_option
@click.option("--groups", metavar="FILE", help="CSV of id, group: cases of one group (a patient) are never parted.")
@click.option("--leave-out", metavar="FILE", help="Ids, one a line, of cases not to use at all: the test part.")
@click.option("--config", metavar="FILE", help="TOML file of settings.")
@device_option
@threads_option
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of every random number.")
@allow_outside_option
@reading_options
@click.option("--skip-bad", is_flag=True, help="Leave out cases that cannot be used, and say so in cases.csv.")
@click.option("--fold", metavar="K/N", callback=checked(_check_fold), help="Train fold K of N, into RUN/fold_K.")
@click.option(
    "--folds", type=click.IntRange(min=2), metavar="N", help="Train N folds into RUN/fold_1 …, sharing the budget."
)
@click.option(
    "--resume", is_flag=True, help="Go on with the training that was stopped in RUN, and end as it would have."
)
@overwrite_option
def train(dataset: str, output: str, config: str | None, leave_out: str | None, **choices: Any) -> None:
    """Train a network on the volumes and masks of DATASET.

    DATASET is a folder with images/ and labels/, a Decathlon or nnU-Net folder with its dataset.json, or a CSV or
    TSV with the columns image and label.

    On several GPUs, and on several machines with one file system: torchrun --nproc-per-node 8 -m medfcn train ….
    """
    from medfcn.datasets.tables import read_ids
    from medfcn.reporting.compose import train_report
    from medfcn.runs.folder import RunFolder
    from medfcn.runs.stop import stop_on_signals
    from medfcn.training.train import train as run_training

    refuse_together(choices, "budget", "epochs", "steps")
    refuse_together(choices, "fold", "folds")
    progress = for_terminal()
    ids = read_ids(leave_out) if leave_out else ()
    with stop_on_signals() as stop:
        run = run_training(dataset, output, settings=config, leave_out=ids, stop=stop, progress=progress, **choices)
    if process_rank():
        return
    for folder in run.scored:
        if not RunFolder(folder).report.is_file():
            train_report(folder, dataset, allow_outside=choices["allow_outside"], progress=progress)
    click.echo(f"Validation, {run.folder} (see report.html in it):")
    click.echo(run.validation.to_text())
