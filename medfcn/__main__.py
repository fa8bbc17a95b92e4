"""`python -m medfcn` is `medfcn`."""

import sys


def run() -> None:
    """Run the command line. Ctrl-C ends it in one line even while it is loaded."""
    try:
        from medfcn.cli import main
    except KeyboardInterrupt:
        sys.stderr.write("medfcn: stopped\n")
        sys.exit(130)
    try:
        main()
    except SystemExit as end:
        from medfcn.systems import end_quickly

        if isinstance(end.code, int) and _is_program():
            end_quickly(end.code)
        raise


def _is_program() -> bool:
    """True where `run` is all that the process is for: not in a profiler, a debugger, a test or another script."""
    caller = sys._getframe(2)
    behind = caller.f_back
    while behind is not None and behind.f_globals.get("__name__") == "runpy":  # `python -m`
        behind = behind.f_back
    return behind is None and caller.f_code.co_name == "<module>"


if __name__ == "__main__":
    run()
