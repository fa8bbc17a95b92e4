"""`medfcn tune`: a search for the settings that suit a data set."""

from typing import Any

import click

from medfcn.commands.options import (
    allow_outside_option,
    check_budget,
    checked,
    context_option,
    device_option,
    labels_option,
    overwrite_option,
    preset_option,
    reading_options,
    refuse_together,
    slice_views_option,
    threads_option,
)
from medfcn.progress import for_terminal


def _names(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    """Names that were given one by one, or with commas between."""
    return [name.strip() for value in values for name in value.split(",")] or None


@click.command()
@click.argument("dataset")
@click.option("-o", "--output", required=True, metavar="FOLDER", help="The folder to make.")
@click.option("--trials", type=click.IntRange(min=1), default=20, show_default=True, help="Trainings, in all.")
@click.option(
    "--budget",
    callback=checked(check_budget),
    help="Wall time of one trial; a bare number is seconds. [default: 10m]",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Of one trial, instead of a budget.")
@click.option("--steps", type=click.IntRange(min=1), help="Of one trial, instead of a budget; can be repeated.")
@click.option("--folds", type=click.IntRange(min=2), metavar="N", help="Score each trial on all cases, in N folds.")
@labels_option
@click.option("--only", multiple=True, metavar="NAME[,NAME…]", callback=_names, help="Search these settings only.")
@click.option("--config", metavar="FILE", help="TOML file of settings, which are not searched then.")
@preset_option
@context_option
@slice_views_option
@click.option("--groups", metavar="FILE", help="CSV of id, group: cases of one group (a patient) are never parted.")
@click.option("--leave-out", metavar="FILE", help="Ids, one a line, of cases that no trial sees: the test part.")
@device_option
@threads_option
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of every random number.")
@allow_outside_option
@reading_options
@click.option("--skip-bad", is_flag=True, help="Leave out cases that cannot be used.")
@click.option("--resume", is_flag=True, help="Go on with the search that was stopped in FOLDER, or add trials.")
@overwrite_option
def tune(dataset: str, output: str, config: str | None, leave_out: str | None, **choices: Any) -> None:
    """Search for the settings that suit DATASET best, trained and scored on the same cases each time.

    The first trial has the defaults; what you set is not searched. FOLDER/best.toml is for `medfcn train --config`.
    Needs medfcn[tune].
    """
    from medfcn.datasets.tables import read_ids
    from medfcn.runs.stop import stop_on_signals
    from medfcn.tuning.tune import tune as run_search

    refuse_together(choices, "budget", "epochs", "steps")
    ids = read_ids(leave_out) if leave_out else ()
    with stop_on_signals() as stop:
        tuned = run_search(
            dataset, output, settings=config, leave_out=ids, stop=stop, progress=for_terminal(), **choices
        )
    click.echo(tuned.to_text())
