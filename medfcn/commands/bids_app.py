"""`medfcn bids-app`: the command line of a BIDS App."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medfcn.commands.exits import SOME_FAILED, Command, answer, reporter, show
from medfcn.commands.options import (
    allocator_option,
    count,
    device_option,
    flag,
    reading_options,
)
from medfcn.libraries import loading

if TYPE_CHECKING:
    from medfcn.volumes.options import ReadOptions

_SEVERAL = ("--participant-label", "--participant_label", "--session-label", "--session_label", "--model")


def _spread(arguments: Sequence[str]) -> list[str]:
    """Arguments in which an option with several values, as BIDS Apps have it, is given once for each.

    Example:
        >>> _spread(["in", "out", "participant", "--participant-label", "01", "02", "--jobs", "2"])
        ['in', 'out', 'participant', '--participant-label', '01', '--participant-label', '02', '--jobs', '2']
    """
    spread: list[str] = []
    option, values = "", 0
    for argument in arguments:
        if argument.startswith("-"):
            option, values = argument if argument in _SEVERAL else "", 0
            spread.append(argument)
            continue
        if option and values:
            spread.append(option)
        values += bool(option)
        spread.append(argument)
    return spread


class _BidsApp(Command):
    """Takes `--participant-label 01 02`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments."""
        return super().parse_args(ctx, _spread(args))


@click.command(cls=_BidsApp, name="bids-app")
@click.argument("root", metavar="INPUT")
@click.argument("output", metavar="OUTPUT")
@click.argument("level", metavar="participant|group", type=click.Choice(["participant", "group"]))
@click.option("--model", "models", multiple=True, metavar="RUN", help="The model; several are averaged.")
@click.option(
    "--participant-label",
    "--participant_label",
    "participant_label",
    multiple=True,
    metavar="LABEL...",
    help="Subjects, with or without sub-. [default: all]",
)
@click.option(
    "--session-label",
    "--session_label",
    "session_label",
    multiple=True,
    metavar="LABEL...",
    help="Sessions, with or without ses-. [default: all]",
)
@flag("--probabilities", "Also write _probseg files.")
@flag("--skip-bids-validation", "Accepted, as BIDS Apps take it: medfcn reads names and volumes strictly itself.")
@device_option
@count("--threads", "CPU threads of each process.", default=1)
@count("--jobs", "Number of processes that share the volumes. [default: as cores, memory and work allow]")
@reading_options
@allocator_option
def bids_app(root: str, output: str, level: str, options: "ReadOptions", **choices: Any) -> None:
    """Run as a BIDS App: masks of a BIDS data set INPUT into the derivative OUTPUT.

    participant makes masks, of all subjects or some, and keeps those that are there. group writes the tables of
    OUTPUT into OUTPUT/logs.
    """
    with loading(for_good=True):
        from medfcn.inference.bids_app import BidsCases, group_level, participant_level
        from medfcn.inference.request import PredictRequest
        from medfcn.text import counted

    cases = BidsCases(
        root=Path(root),
        options=options,
        participants=choices["participant_label"],
        sessions=choices["session_label"],
    )
    if level == "participant":
        from medfcn.commands.predict import say_outcome

        if not choices["models"]:
            raise click.UsageError(
                "participant needs a model: --model RUN, a run folder or a name of `medfcn models`"
            )
        how = {name: choices[name] for name in ("probabilities", "device", "threads", "jobs")}
        request = PredictRequest(list(choices["models"]), root, output, progress=reporter(), format="bids", **how)
        say_outcome(participant_level(request, cases))
        return
    done, without = group_level(cases, Path(output))
    show(f"tables of {counted(done, 'mask')}: {output}/logs")
    answer({"output": output, "masks": done, "without": without})
    if without:
        have = "has" if len(without) == 1 else "have"
        of_all = f"{len(without)} of {counted(done + len(without), 'case')} {have} no mask"
        show(f"{of_all}; see failures.csv", err=True)
        sys.exit(SOME_FAILED)
