"""A finished training: what it made, and where."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from medfcn.evaluation import ScoreTable
from medfcn.inference.card import read_card
from medfcn.inference.ensemble import load
from medfcn.inference.model import Model
from medfcn.inference.predictor import Predictor
from medfcn.progress import Progress
from medfcn.runs.folder import RunFolder
from medfcn.runs.lock import locked
from medfcn.runs.outputs import remove_half_written
from medfcn.runs.replaced import drop


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        folder: The run folder.
        steps: Optimiser steps made.
        validation: Scores of the validation cases.
        seconds: Wall time.
        cpu_seconds: User and system time.
        scored: Every folder with scores of its own, which gets a report.
        schedule: The `steps` that repeat the training, such as `900`, or `900,650@300` for one that was shortened; of
            folds, those of the first.
    """

    folder: Path
    steps: int
    validation: ScoreTable
    seconds: float
    cpu_seconds: float
    scored: tuple[Path, ...]
    schedule: str = ""

    def load(self, *, device: str = "auto") -> Predictor:
        """The trained model; of folds, the mean of theirs."""
        return (
            Model.load(self.folder, device=device)
            if RunFolder(self.folder).is_finished
            else load(self.folder, device=device)
        )


def finished_run(folder: Path, progress: Progress) -> Run:
    """The run in a folder that needs no resuming."""
    run = RunFolder(folder)
    if run.state.is_dir():  # killed after the last file was written
        with locked(folder, progress):
            drop(folder)
            shutil.rmtree(run.state)
    remove_half_written(folder)
    progress.say(f"{folder}: is finished; nothing is left to do")
    training = read_card(run.card).training
    table = ScoreTable.from_csv(run.scores)
    return Run(
        folder,
        training.get("steps", 0),
        table,
        training.get("seconds", 0.0),
        training.get("cpu_seconds", 0.0),
        scored=(folder,),
        schedule=str(training.get("schedule") or training.get("steps", 0)),
    )
