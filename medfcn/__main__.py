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

        if isinstance(end.code, int):
            end_quickly(end.code)
        raise


if __name__ == "__main__":
    run()
