"""`medfcn demo`: every step, on the sample volumes."""

from typing import Any

import click

from medfcn.commands.exits import answer, command, reporter, show, show_report
from medfcn.commands.options import (
    allocator_option,
    count,
    device_option,
    flag,
    overwrite_option,
    threads_option,
)
from medfcn.libraries import loading


@command()
@click.option("-o", "--output", default="medfcn_demo", show_default=True, help="The folder to make.")
@count("--steps", "Number of optimiser steps.", default=350)
@flag("--resume", "Go on with a demo that was stopped.")
@overwrite_option
@device_option
@threads_option
@allocator_option
def demo(**choices: Any) -> None:
    """Train, predict, evaluate and draw on the sample volumes that come with medfcn, in about two minutes."""
    with loading(for_good=True):
        from medfcn.demo import demo as run_demo
        from medfcn.runs.folder import SCORES_FILE

    result = run_demo(progress=reporter(), **choices)
    show_report(result.scores.to_text())
    show(f"masks:   {result.masks}", f"scores:  {result.folder / 'scores' / SCORES_FILE}")
    show(f"picture: {result.picture}", f"report:  {result.report}")
    places = {name: getattr(result, name) for name in ("folder", "run", "masks", "picture", "report")}
    answer({**places, "summary": result.scores.summary().to_json()})
