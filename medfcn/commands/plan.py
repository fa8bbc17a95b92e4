"""`medfcn plan`: the plan of a training, with reasons."""

from typing import Any

import click

from medfcn.commands.exits import command, show
from medfcn.commands.options import design_options, start_options
from medfcn.progress import for_terminal


@command()
@click.argument("dataset")
@design_options
@start_options
def plan(**choices: Any) -> None:
    """Show how DATASET would be trained on, and why."""
    from medfcn.training.train import plan as run_plan

    show(run_plan(progress=for_terminal(), **choices).to_text())
