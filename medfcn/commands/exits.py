"""Output and end of a command: text that is safe to print, an exit status, one line for every error."""

import functools
import io
import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from medfcn.errors import MedfcnError, ProcessError, SettingsError, TrainingStoppedError
from medfcn.files import NO_ROOM, write_error
from medfcn.memory import MORE_MEMORY, is_memory_error, shortage
from medfcn.progress import process_count, process_rank
from medfcn.runs.stop import Stop, stop_on_signals
from medfcn.text import page, printable

FAILED, MISUSE, SOME_FAILED, BY_SIGNAL = 1, 2, 3, 128


def show(text: str, *, err: bool = False) -> None:
    """Print lines of text with everything that could steer a terminal made visible."""
    click.echo(page(text.split("\n")), err=err)


class Command(click.Command):
    """A command that makes a wrong value of one of its options a misuse of the command line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error that names an option which was given becomes one of its usage."""
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            name = error.field.rpartition(".")[2]
            given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
            for option in self.params:
                if given and option.name == name:
                    said = str(error).removeprefix(f"{name}: ")  # click names the option
                    raise click.BadParameter(said, ctx=ctx, param=option) from error
            raise


command = functools.partial(click.command, cls=Command)
"""The decorator of all commands."""


class Commands(click.Group):
    """Turns every error that a user can fix into one line and an exit status."""

    def main(self, *arguments: Any, **choices: Any) -> Any:
        """Run the process; text that goes to a full disk before a command runs, such as help, is an error too."""
        _take_stderr_apart()
        try:
            return super().main(*arguments, **choices)
        except OSError as error:
            _fail_to_write(error, debug=False)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the requested command; an error ends the process."""
        with stop_on_signals() as stop:
            return self._invoke(ctx, stop)

    def _invoke(self, ctx: click.Context, stop: Stop) -> Any:
        debug = bool(ctx.params.get("debug"))
        try:
            return super().invoke(ctx)
        except click.UsageError:
            if process_rank():
                sys.exit(MISUSE)  # the first process reports it
            raise
        except ProcessError as error:
            _fail(str(error), debug=debug, is_reported=error.is_told)
        except TrainingStoppedError as error:
            _fail(str(error), debug=debug, status=BY_SIGNAL + error.signal_number)
        except MedfcnError as error:
            _fail(str(error), debug=debug)
        except OSError as error:
            if is_memory_error(error):
                _fail(f"{shortage(error)}; {MORE_MEMORY}", debug=debug)
            _fail_to_write(error, debug=debug)
        except KeyboardInterrupt:
            number = stop.signal_number
            click.echo(err=True)  # after the ^C of the terminal
            how = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
            _fail(
                f"{how}; no partial files were left behind{_going_on(self, ctx)}",
                debug=False,
                status=BY_SIGNAL + number,
            )
        except Exception as error:
            if not is_memory_error(error):
                raise
            _fail(f"{shortage(error)}; {MORE_MEMORY}", debug=debug)


def _going_on(commands: click.Group, ctx: click.Context) -> str:
    """How to go on with a command that was interrupted."""
    found = commands.commands.get(ctx.invoked_subcommand or "")
    can_resume = found is not None and any(option.name == "resume" for option in found.params)
    return "; go on with the same command and --resume" if can_resume else ""


def _take_stderr_apart() -> None:
    """Give Python a standard error of its own, so that lines of libraries can be told from those of medfcn."""
    with suppress(OSError, ValueError, AttributeError):
        if sys.stderr.fileno() == 2:
            own = os.fdopen(os.dup(2), "wb")
            sys.stderr = io.TextIOWrapper(own, sys.stderr.encoding, sys.stderr.errors, line_buffering=True)


def _fail_to_write(error: OSError, *, debug: bool) -> NoReturn:
    if error.errno in NO_ROOM:
        _fail(str(write_error(error, error.filename or "the output of this command")), debug=debug)
    where = f"{error.filename}: " if error.filename else ""
    _fail(f"{where}{error.strerror or error}; no partial files were left behind", debug=debug)


def _fail(message: str, *, debug: bool, status: int = FAILED, is_reported: bool | None = None) -> NoReturn:
    """Report an error in one line and end the process.

    Args:
        message: The line.
        debug: Show the traceback too.
        status: The exit status.
        is_reported: True if another process reports the error; None if all processes have the same error.
    """
    if debug:
        traceback.print_exc()
    if not (process_rank() > 0 if is_reported is None else is_reported):
        click.echo(f"medfcn: {printable(message)}", err=True)
    if process_count() > 1:  # at once: an interpreter that ends would wait for processes that are gone
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
