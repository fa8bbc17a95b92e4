"""`medfcn check`: every case read, every problem named."""

import json
import sys
from typing import Any

import click

from medfcn.commands.exits import FAILED
from medfcn.commands.options import allow_outside_option, labels_option, reading_options
from medfcn.progress import for_terminal


@click.command()
@click.argument("dataset")
@labels_option
@click.option("--groups", metavar="FILE", help="CSV of id, group.")
@allow_outside_option
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON.")
@reading_options
def check(
    dataset: str, labels: str | None, groups: str | None, allow_outside: bool, as_json: bool, options: Any
) -> None:
    """Read every case of DATASET and name every problem: file, field, value, what to do.

    Exit status 1 if there is an error, 0 if there are only warnings.
    """
    from medfcn.datasets import find_dataset
    from medfcn.datasets.check import check_dataset
    from medfcn.labels import LabelMap

    found = find_dataset(dataset, groups=groups, allow_outside=allow_outside)
    label_map = LabelMap.parse(labels) if labels else None
    with for_terminal().task("check", len(found.all_cases)) as task:
        report = check_dataset(
            found, labels=label_map, options=options, threads=2, progress=lambda done, total: task.advance()
        )
    click.echo(json.dumps(report.to_json(), indent=2) if as_json else report.to_text())
    if report.errors:
        sys.exit(FAILED)
