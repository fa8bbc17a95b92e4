"""`medfcn demo`: all of it, on the sample volumes."""

from typing import Any

import click

from medfcn.commands.options import device_option, overwrite_option, threads_option
from medfcn.progress import for_terminal


@click.command()
@click.option("-o", "--output", default="medfcn_demo", show_default=True, help="The folder to make.")
@click.option("--steps", type=click.IntRange(min=1), default=350, show_default=True, help="Of the training.")
@click.option("--resume", is_flag=True, help="Go on with a demo that was stopped.")
@overwrite_option
@device_option
@threads_option
def demo(**choices: Any) -> None:
    """Train, predict, evaluate and draw on the sample volumes that come with medfcn, in about two minutes."""
    from medfcn.demo import demo as run_demo

    result = run_demo(progress=for_terminal(), **choices)
    click.echo(result.scores.to_text())
    click.echo(
        f"masks:   {result.masks}\nscores:  {result.folder / 'scores' / 'scores.csv'}\npicture: {result.picture}\n"
        f"report:  {result.report}"
    )
