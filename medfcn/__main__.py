"""`python -m medfcn` is `medfcn`."""

from medfcn.cli import main

if __name__ == "__main__":
    main()
