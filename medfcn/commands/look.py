"""The command `medfcn look`."""

from typing import Any

import click

from medfcn.commands.exits import command, show
from medfcn.commands.options import allow_outside_option, labels_option, overwrite_option, reading_options
from medfcn.progress import for_terminal


@command()
@click.argument("dataset")
@click.option("-o", "--output", default="look.html", show_default=True, help="The file to write.")
@labels_option
@allow_outside_option
@reading_options
@overwrite_option
def look(dataset: str, output: str, **choices: Any) -> None:
    """Look at DATASET before training: one offline HTML file, the cases that look unlike the others first.

    Every case is shown in three planes with its labels. Unusual are cases that look turned or mirrored, and those
    whose grid, intensities or volumes are far from all others.
    """
    from medfcn.reporting.look import look_with_findings

    looked = look_with_findings(dataset, output, progress=for_terminal(), **choices)
    for line in looked.findings:
        show(line)
    show(f"look: {looked.page}")
