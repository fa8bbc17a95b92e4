"""`medfcn plan`: what training would do, and why."""

from typing import Any

import click

from medfcn.commands.options import (
    allow_outside_option,
    context_option,
    init_option,
    labels_option,
    preset_option,
    reading_options,
    slice_views_option,
)
from medfcn.progress import for_terminal


@click.command()
@click.argument("dataset")
@labels_option
@click.option("--groups", metavar="FILE", help="CSV of id, group.")
@click.option("--config", metavar="FILE", help="TOML file of settings.")
@preset_option
@init_option
@context_option
@slice_views_option
@click.option("--leave-out", metavar="FILE", help="Ids, one a line, of cases not to use at all: the test part.")
@allow_outside_option
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the split.")
@click.option("--skip-bad", is_flag=True, help="Leave out cases that cannot be used.")
@reading_options
def plan(dataset: str, config: str | None, leave_out: str | None, **choices: Any) -> None:
    """Say what training would do with DATASET, and why."""
    from medfcn.datasets.tables import read_ids
    from medfcn.training.train import plan as run_plan

    ids = read_ids(leave_out) if leave_out else ()
    click.echo(run_plan(dataset, settings=config, leave_out=ids, progress=for_terminal(), **choices).to_text())
