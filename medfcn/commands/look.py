"""The command `medfcn look`."""

import sys
from typing import Any

import click

from medfcn.commands.exits import SOME_FAILED, answer, command, reporter, show
from medfcn.commands.options import (
    allow_outside_option,
    cases_option,
    group_by_option,
    groups_option,
    labels_option,
    overwrite_option,
    reading_options,
    text,
)
from medfcn.libraries import loading


@command()
@click.argument("dataset", metavar="DATASET|MASKS")
@click.argument("images", required=False)
@click.option("-o", "--output", default="look.html", show_default=True, help="The file to write.")
@text(
    "--png",
    "FOLDER",
    "Also a picture of each case for slides, 1920 × 1080 pixels: labels, legend, directions, scale bar.",
)
@click.option(
    "--ground",
    type=click.Choice(["dark", "light"]),
    default="dark",
    show_default=True,
    help="Ground of the pictures.",
)
@click.option(
    "--slices",
    metavar="fullest|PLANE=N,…",
    default="fullest",
    show_default=True,
    help="Slices of the pictures: those with most of the labels, or for example axial=12,coronal=30.",
)
@cases_option
@labels_option
@groups_option
@group_by_option
@allow_outside_option
@reading_options
@overwrite_option
def look(dataset: str, images: str | None, output: str, **choices: Any) -> None:
    """Look at DATASET before training, or at MASKS, with their IMAGES or without: one offline HTML file.

    The cases that look unlike the others come first.

    Every case is shown in three planes with its labels. Unusual are cases that look turned or mirrored, and those
    whose grid, intensities or volumes are far from all others.
    """
    with loading(for_good=True):
        from medfcn.reporting.look import LookRequest, look_with_findings

    looked = look_with_findings(LookRequest(dataset, output, images, progress=reporter(), **choices))
    for line in looked.lines:
        show(line)
    show(f"look: {looked.page}")
    if looked.pictures is not None:
        show(f"pictures: {looked.pictures}")
    for _, line in looked.refused:
        show(line, err=True)
    for case, reason in looked.undrawn:
        show(f"{case}: no picture: {reason}", err=True)
    names = ("page", "findings", "pictures", "undrawn", "refused")
    answer({name: getattr(looked, name) for name in names})
    if looked.undrawn:
        sys.exit(SOME_FAILED)
