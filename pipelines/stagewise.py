"""FCN-32s, then FCN-16s, then FCN-8s, each from the weights of the one before, through the public API.

    python pipelines/stagewise.py DATASET -o runs/stages --width 0.25 --budget 10m
    python pipelines/stagewise.py DATASET -o runs/stages --encoder-weights vgg16.pth

Source: Long, Shelhamer, Darrell, CVPR 2015, section 4.2: the skip that a stage adds starts with scores of zero, so
that the stage begins as the coarser network and learns what finer maps add.
"""

from pathlib import Path

import click

import medfcn
from medfcn.config import override, read_settings
from medfcn.errors import MedfcnError
from medfcn.files import write_csv
from medfcn.progress import for_terminal
from medfcn.runs.outputs import refuse_existing

STAGES = ("fcn32s", "fcn16s", "fcn8s")


@click.command()
@click.argument("dataset")
@click.option("-o", "--output", default="runs/stages", show_default=True, help="The folder of the three runs.")
@click.option("--labels", help="What to segment, such as hippocampus=1+2.")
@click.option("--leave-out", metavar="FILE", help="Ids of the cases or patients to keep out, one a line.")
@click.option("--groups", metavar="FILE", help="CSV of id, group: cases of one patient are never split.")
@click.option("--group-by", metavar="stem|none|REGEX", help="Patients from the ids, instead of --groups.")
@click.option("--width", type=float, help="Factor on VGG-16's channels. [default: 1]")
@click.option("--encoder-weights", metavar="FILE", help="VGG-16 in torchvision's layout, to start the first stage.")
@click.option("--budget", help="Wall time of each stage. [default: 10m]")
@click.option("--steps", type=click.IntRange(min=1), help="Optimiser steps of each stage, instead of a budget.")
@click.option("--config", metavar="FILE", help="TOML file of settings for every stage.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=int, help="CPU threads. [default: one or all, whichever is faster]")
@click.option("--seed", default=0, show_default=True, help="Random seed; every stage has the same split.")
def main(
    dataset: str,
    output: str,
    labels: str | None,
    leave_out: str | None,
    groups: str | None,
    group_by: str | None,
    width: float | None,
    encoder_weights: str | None,
    budget: str | None,
    steps: int | None,
    config: str | None,
    device: str,
    threads: int | None,
    seed: int,
) -> None:
    """Train FCN-32s, 16s and 8s on DATASET, stage by stage, and report the validation Dice of each."""
    folder, progress = Path(output), for_terminal()
    former: Path | None = None
    rows = []
    try:
        refuse_existing(folder, overwrite=False)
        folder.mkdir(parents=True, exist_ok=True)
        settings = override(read_settings(config), "network", width=width)
        for stage in STAGES:
            run = medfcn.train(
                dataset,
                folder / stage,
                labels=labels,
                leave_out=leave_out,
                groups=groups,
                group_by=group_by,
                settings=settings,
                preset=stage,
                init=former,
                encoder_weights=encoder_weights if former is None else None,
                budget=budget,
                steps=steps,
                device=device,
                threads=threads,
                seed=seed,
                progress=progress,
            )
            former = run.folder
            rows.append((stage, run.steps, f"{run.validation.summary().macro['dice']:.4f}"))
            click.echo(f"{stage}: validation Dice {rows[-1][-1]} after {run.steps} steps, {run.folder}")
    except MedfcnError as error:
        raise click.ClickException(str(error)) from error
    write_csv(folder / "stages.csv", ("stage", "steps", "validation_dice"), rows)


if __name__ == "__main__":
    main()
