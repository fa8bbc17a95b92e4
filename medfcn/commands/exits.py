"""How a command ends: its exit status, and one line for whatever a user can mend."""

import os
import sys
import traceback
from typing import Any, NoReturn

import click

from medfcn.errors import MedfcnError, ProcessError, TrainingStoppedError
from medfcn.progress import process_count, process_rank
from medfcn.text import printable

FAILED, MISUSE, SOME_FAILED, INTERRUPTED, BY_SIGNAL = 1, 2, 3, 130, 128


class Commands(click.Group):
    """Turns whatever a user can mend into one line and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for; what it raises ends the process."""
        debug = bool(ctx.params.get("debug"))
        try:
            return super().invoke(ctx)
        except click.UsageError:
            if process_rank():
                sys.exit(MISUSE)  # as the first process says
            raise
        except ProcessError as error:
            _fail(str(error), debug=debug, is_told=error.is_told)
        except TrainingStoppedError as error:
            _fail(str(error), debug=debug, status=BY_SIGNAL + error.signal_number)
        except MedfcnError as error:
            _fail(str(error), debug=debug)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            _fail(f"{where}{error.strerror or error}; nothing half-written was left behind", debug=debug)
        except KeyboardInterrupt:
            message = "interrupted; every file that was written is whole, the others are not there"
            _fail(message, debug=False, status=INTERRUPTED, before="\n")
        except MemoryError:
            _fail("out of memory; use smaller volumes, a smaller batch, or a machine with more", debug=debug)


def _fail(
    message: str, *, debug: bool, status: int = FAILED, is_told: bool | None = None, before: str = ""
) -> NoReturn:
    """Say what is wrong in one line and leave.

    Args:
        message: The line.
        debug: Whether to show the traceback too.
        status: To leave with.
        is_told: Whether another process says it; None where all processes have the same to say.
        before: Goes before the line.
    """
    if debug:
        traceback.print_exc()
    if not (process_rank() > 0 if is_told is None else is_told):
        click.echo(f"{before}medfcn: {printable(message)}", err=True)
    if process_count() > 1:  # at once: an interpreter that ends would wait for processes that are gone
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
