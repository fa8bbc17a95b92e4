"""`medfcn plan`: the plan of a training, with reasons."""

from typing import Any

import click

from medfcn.commands.exits import answer, command, reporter, show_report
from medfcn.commands.options import design_options, start_options
from medfcn.libraries import loading


@command()
@click.argument("dataset")
@design_options
@start_options
def plan(**choices: Any) -> None:
    """Show how DATASET would be trained on, and why."""
    with loading(for_good=True):
        from medfcn.training.train import plan as run_plan

    planned = run_plan(progress=reporter(), **choices)
    show_report(planned.to_text())
    answer(planned.to_json())
