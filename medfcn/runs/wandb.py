"""Weights & Biases, offline: its files lie in the run folder until `wandb sync` sends them."""

import os
from collections.abc import Mapping
from pathlib import Path

from medfcn.runs.outputs import emptied

_TITLE = "validation slices"


class WandbTracker:
    """Writes an offline run. A training that goes on writes all of it anew, because offline runs cannot go on.

    Args:
        folder: Where its files lie; what is in it is removed.
        name: The run's name.
    """

    def __init__(self, folder: Path, *, name: str) -> None:
        os.environ.update(WANDB_ERROR_REPORTING="false")  # before it is imported: it reports its errors otherwise
        import wandb

        self._wandb, self._name = wandb, name
        self._folder = emptied(folder)

    def begin(self, facts: Mapping[str, str]) -> int:
        """See `Tracker`."""
        wandb = self._wandb
        self._run = wandb.init(
            project="medfcn",
            name=self._name,
            dir=str(self._folder),
            mode="offline",
            config=dict(facts),
            reinit="create_new",
            # Neither the machine, its user, the command line nor the program's text goes into its files.
            settings=wandb.Settings(
                console="off",
                disable_git=True,
                disable_code=True,
                save_code=False,
                silent=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_disable_machine_info=True,
                x_disable_viewer=True,
            ),
        )
        return -1

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._run.log(dict(numbers), step=step)

    def add_picture(self, step: int, path: Path) -> None:
        """See `Tracker`."""
        self._run.log({_TITLE: self._wandb.Image(str(path))}, step=step)

    def end(self, *, is_finished: bool) -> None:
        """See `Tracker`."""
        self._run.finish(exit_code=0 if is_finished else 1, quiet=True)
