"""Output and end of a command: text that is safe to print, an exit status, one line for every error."""

import functools
import io
import itertools
import json
import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from medfcn.errors import MedfcnError, ProcessError, SettingsError, TrainingStoppedError, as_command
from medfcn.files import NO_ROOM, plain_json, write_error
from medfcn.memory import more_memory
from medfcn.memory_errors import is_memory_error, shortage
from medfcn.progress import KINDS, JsonLines, Progress, for_terminal, process_count, process_rank
from medfcn.runs.stop import Stop, stop_on_signals
from medfcn.text import COLUMNS, for_command, page, printable

FAILED, MISUSE, SOME_FAILED, BY_SIGNAL = 1, 2, 3, 128


def show(*lines: str, err: bool = False) -> None:
    """Print lines; what could steer a terminal is made visible, a break in a line too. To stderr with `--json`."""
    _print(page(lines), err=err or _chosen(_JSON))


def show_report(text: str) -> None:
    """Print what a `to_text` returns, its sentences in lines that every terminal has room for."""
    _print(page(text.split("\n"), columns=COLUMNS), err=_chosen(_JSON))


def answer(value: Any) -> None:
    """Print the result of a command as one JSON document, if `--json` asks for it.

    Args:
        value: As for `plain_json`; paths become text.
    """
    if _chosen(_JSON):
        _print(json.dumps(plain_json(value), indent=2, default=os.fspath), err=False)


def reporter() -> Progress:
    """Where the progress of the running command goes: as `--progress` says."""
    return for_terminal(_chosen(_PROGRESS) or "auto")


def _print(text: str, *, err: bool) -> None:
    try:
        click.echo(text, err=err)
    except BrokenPipeError:  # `| head` has seen enough; the work goes on, and its exit status stays its own
        stream = sys.stderr if err else sys.stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def requested_stop() -> Stop:
    """The request to stop that signals to the running command make."""
    stop: Stop = _chosen(_STOP)
    return stop


_JSON, _PROGRESS, _STOP, _WORDS = "medfcn.json", "medfcn.progress", "medfcn.stop", "medfcn.words"
"""Names of the choices in the context of click, and of the words that were typed."""
_AT_ONCE = ("describe", "models", "networks")
"""Commands that have no progress to report."""


def _chosen(key: str) -> Any:
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(key)


def _choose(key: str) -> Any:
    def choose(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        context.meta[key] = value

    return choose


def _common_options(name: str) -> list[click.Option]:
    """The options that every command has."""
    shown = click.Option(
        ["--json"],
        is_flag=True,
        expose_value=False,
        callback=_choose(_JSON),
        help="Print the result as one JSON document; everything else goes to stderr.",
    )
    progress = click.Option(
        ["--progress"],
        type=click.Choice(KINDS),
        default="auto",
        show_default=True,
        expose_value=False,
        callback=_choose(_PROGRESS),
        help="On stderr. json: an object a line. none: warnings only. auto: bars on a terminal, else lines.",
    )
    return [shown] if name in _AT_ONCE else [shown, progress]


class Command(click.Command):
    """A command with the common options; a wrong value of one of its options is a misuse of the command line."""

    def __init__(self, *arguments: Any, **choices: Any) -> None:
        super().__init__(*arguments, **choices)
        own = {name for option in self.params for name in option.opts}
        self.params += [option for option in _common_options(self.name or "") if option.opts[0] not in own]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; an option is not the value of the option in front of it, whose value was left out."""
        ctx.meta[_WORDS] = tuple(args)
        options = {name: option for option in self.params for name in (*option.opts, *option.secondary_opts)}
        for name, value in itertools.pairwise(itertools.takewhile("--".__ne__, args)):
            option = options.get(name)
            takes_value = isinstance(option, click.Option) and not option.is_flag and not option.count
            if takes_value and value.startswith("-") and value in options:
                raise click.BadOptionUsage(name, f"Option {name!r} requires a value, and {value!r} follows.", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error that names an option which was given becomes one of its usage."""
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            name = error.field.rpartition(".")[2]
            given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
            for option in self.params:
                if given and option.name == name:
                    said = for_command(str(error)).removeprefix(f"{name}: ")  # click names the option
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
        with stop_on_signals() as stop, as_command(ctx.invoked_subcommand or ""):
            ctx.meta[_STOP] = stop
            return self._invoke(ctx, stop)

    def _invoke(self, ctx: click.Context, stop: Stop) -> Any:
        debug = bool(ctx.params.get("debug"))
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if process_rank():
                sys.exit(MISUSE)  # the first process reports it
            if hint := _hint_of_quotes():
                raise click.UsageError(f"{error.format_message()}{hint}", error.ctx) from error
            raise
        except ProcessError as error:
            _fail(str(error), debug=debug, is_reported=error.is_told)
        except TrainingStoppedError as error:
            _fail(str(error), debug=debug, status=BY_SIGNAL + error.signal_number)
        except MedfcnError as error:
            _fail(f"{error}{_hint_of_quotes()}", debug=debug, code=error.code)
        except OSError as error:
            if is_memory_error(error):
                _fail(f"{shortage(error)}; {more_memory()}", debug=debug)
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
            _fail(f"{shortage(error)}; {more_memory()}", debug=debug)


def _hint_of_quotes() -> str:
    """The end of a message, where the shell took one path with spaces apart; empty where it did not."""
    words: tuple[str, ...] = _chosen(_WORDS) or ()
    for first, last in itertools.combinations(range(len(words)), 2):
        parts = words[first : last + 1]
        if not any(part.startswith("-") for part in parts) and not os.path.lexists(words[first]):
            path = " ".join(parts)
            if os.path.lexists(path):
                return f"; {printable(path)!r} is one path with a space in it: put it in quotes"
    return ""


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


def _fail(
    message: str, *, debug: bool, status: int = FAILED, is_reported: bool | None = None, code: str = ""
) -> NoReturn:
    """Report an error in one line and end the process.

    Args:
        message: The line.
        debug: Show the traceback too.
        status: The exit status.
        is_reported: True if another process reports the error; None if all processes have the same error.
        code: That of the error.
    """
    if debug:
        traceback.print_exc()
    if not (process_rank() > 0 if is_reported is None else is_reported):
        if _chosen(_PROGRESS) == "json":
            JsonLines().write("error", code=code, text=for_command(message))
        _print(f"medfcn: {for_command(printable(message))}", err=True)
    if process_count() > 1:  # at once: an interpreter that ends would wait for processes that are gone
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
