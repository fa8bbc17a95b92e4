"""The command line: each command is a thin shell over one library call.

Results go to stdout, progress and messages to stderr. Exit status: 0 all done; 1 the run failed, or every case
did; 2 misuse of the command line; 3 finished, but some cases failed; 130 interrupted, 143 ended by SIGTERM.
Of several processes that torchrun started, one speaks: the first, or the one that met an error.

Nothing heavy is imported before a command needs it: `medfcn --help` answers at once.
"""

import click

from medfcn.commands.bids_app import bids_app
from medfcn.commands.check import check
from medfcn.commands.demo import demo
from medfcn.commands.describe import describe
from medfcn.commands.evaluate import evaluate
from medfcn.commands.exits import Commands
from medfcn.commands.export import export, models
from medfcn.commands.look import look
from medfcn.commands.measure import measure
from medfcn.commands.networks import networks
from medfcn.commands.plan import plan
from medfcn.commands.predict import predict
from medfcn.commands.starts import STARTS
from medfcn.commands.train import train
from medfcn.commands.tune import tune
from medfcn.progress import process_count


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="medfcn")
def main(debug: bool) -> None:
    """Train 2D fully convolutional networks on NIfTI volumes, put masks on new ones, and score them.

    Research use only; not a medical device.
    """
    command = click.get_current_context().invoked_subcommand
    if command != "train" and process_count() > 1:
        raise click.UsageError(f"{command} runs in one process; start it without torchrun")
    if command in STARTS:
        STARTS[command].require()


_COMMANDS = (
    check,
    look,
    plan,
    train,
    tune,
    predict,
    evaluate,
    measure,
    export,
    models,
    networks,
    demo,
    describe,
    bids_app,
)
for _command in _COMMANDS:
    main.add_command(_command)
