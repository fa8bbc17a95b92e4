"""`medfcn tune`: a search for the settings that suit a data set."""

from typing import Any

import click

from medfcn.commands.exits import answer, command, reporter, requested_stop, show_report
from medfcn.commands.options import allocator_option, cluster_option, count, design_options, work_options
from medfcn.libraries import loading, require_installed


def _names(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    """Names that are given one by one, or with commas between."""
    return [name.strip() for value in values for name in value.split(",")] or None


@command()
@click.argument("dataset")
@click.option("-o", "--output", required=True, metavar="FOLDER", help="The folder to make.")
@count("--trials", "Number of trainings in all.", default=20)
@work_options(
    "one trial",
    folds="Score each trial on all cases, in N folds.",
    resume="Go on with the search that was stopped in FOLDER, or add trials.",
)
@click.option("--only", multiple=True, metavar="NAME[,NAME…]", callback=_names, help="Search these settings only.")
@cluster_option
@design_options
@allocator_option
def tune(**choices: Any) -> None:
    """Search for the settings that suit DATASET best: many trainings, scored on the same validation cases.

    The first trial has the defaults. Settings that you set are not searched. FOLDER/best.toml is for `medfcn train
    --config`. Needs medfcn[tune].
    """
    for extra in ("tune", *(["cluster"] if choices["cluster"] else [])):
        require_installed(extra)
    with loading(for_good=True):
        from medfcn.tuning.tune import tune as run_search

    found = run_search(stop=requested_stop(), progress=reporter(), **choices)
    show_report(found.to_text())
    best = {"number": found.best.number, "dice": found.best.mean, "values": found.best.values}
    answer({"folder": found.folder, "trials": len(found.trials), "best": best, "gain": found.gain})
