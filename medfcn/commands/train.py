"""`medfcn train`: a data set becomes a run folder with its report."""

import time
from typing import Any

import click
from click.core import ParameterSource

from medfcn.commands.exits import answer, command, reporter, requested_stop, show, show_report
from medfcn.commands.options import (
    all_metrics_option,
    allocator_option,
    cluster_option,
    design_options,
    flag,
    memory_option,
    start_options,
    text,
    work_options,
)
from medfcn.libraries import loading, require_installed
from medfcn.progress import process_rank
from medfcn.runs.folder import RunFolder


@command()
@click.argument("dataset", metavar="DATASET|RUN")
@click.argument("moved_to", metavar="[DATASET]", required=False)
@click.option("-o", "--output", default="", metavar="RUN", help="The run folder to make.")
@work_options(
    "the whole command",
    folds="Train N folds into RUN/fold_1 …, which share the budget.",
    resume="Go on with the training that was stopped in RUN; it ends as it would have without the stop. RUN keeps "
    "its options: medfcn train --resume RUN.",
)
@text(
    "--more",
    "TIME|'N steps'",
    "Carry on a finished RUN for so long, into another run folder: medfcn train --more 10m RUN -o RUN2. It starts "
    "from RUN's weights, with its split, labels and settings; RUN stays as it is.",
)
@text("--fold", "K/N", "Train fold K of N, into RUN/fold_K.")
@cluster_option
@design_options
@start_options
@text(
    "--track",
    "tensorboard|mlflow|wandb",
    "Keep the course of the training for these programs too, several with commas. Their files lie in RUN; "
    "mlflow=ADDRESS sends it to that server.",
)
@flag("--track-images", "Give them the pictures of validation slices too.")
@click.option("--report/--no-report", default=True, show_default=True, help="Write report.html.")
@memory_option("train")
@all_metrics_option
@allocator_option
def train(all_metrics: bool, **choices: Any) -> None:
    """Train a network on the volumes and masks of DATASET.

    DATASET is a folder with images/ and labels/, a Decathlon or nnU-Net folder with its dataset.json, a folder of
    cases with one file for each structure, or a CSV or TSV with the columns image and label.

    With --resume or --more, it is a run folder, which keeps its options. If its data set has moved, name the new
    place after it: medfcn train --resume RUN DATASET.

    On several GPUs, and on several machines with one file system: torchrun --nproc-per-node 8 -m medfcn train ….
    """
    if not choices["output"] and not choices["resume"]:
        raise click.UsageError("Missing option '-o' / '--output': the run folder to make.")
    started = time.monotonic()  # loading torch is part of a budget
    if choices["cluster"]:
        require_installed("cluster")
    if choices["track"]:
        from medfcn.runs.tracking import kinds_of, require_libraries

        require_libraries(kinds_of(choices["track"]))
    with loading(for_good=True):
        from medfcn.verbs import train as run_training

    source = click.get_current_context().get_parameter_source
    given = [name for name in choices if source(name) is ParameterSource.COMMANDLINE]
    run = run_training(stop=requested_stop(), progress=reporter(), started=started, given=given, **choices)
    if not process_rank():
        has_page = (run.folder / RunFolder.report).is_file()  # a run that is resumed keeps its --no-report
        show(f"Validation, {run.folder}{f' (see {RunFolder.report} in it)' if has_page else ''}:")
        show_report(run.validation.to_text(all_metrics=all_metrics))
        facts = {name: getattr(run, name) for name in ("folder", "steps", "schedule", "seconds", "cpu_seconds")}
        answer({**facts, "validation": run.validation.summary().to_json()})
