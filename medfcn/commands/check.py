"""The command `medfcn check`."""

import json
import sys
from typing import Any

import click

from medfcn.commands.exits import FAILED, command, reporter, show_report
from medfcn.commands.options import (
    allow_outside_option,
    group_by_option,
    groups_option,
    labels_option,
    reading_options,
)
from medfcn.libraries import loading


@command()
@click.argument("dataset")
@labels_option
@groups_option
@group_by_option
@allow_outside_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@reading_options
def check(dataset: str, as_json: bool, **choices: Any) -> None:
    """Read every case of DATASET and report every problem: file, field, value, what to do.

    Exit status 1 if there is an error, 0 if there are only warnings.
    """
    with loading(for_good=True):
        from medfcn.datasets.check import check as run_check

    report = run_check(dataset, progress=reporter(), **choices)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    else:
        show_report(report.to_text())
    if report.errors:
        sys.exit(FAILED)
