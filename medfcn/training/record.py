"""The files of a run folder that describe its training: `log.csv` and `cases.csv`."""

import time
from pathlib import Path
from typing import Any

from medfcn.files import write_csv
from medfcn.labels.drawn import SEPARATOR
from medfcn.runs.cases import IMAGE_HASHES, LABEL_HASH, TRAINING
from medfcn.training.folds import Split
from medfcn.training.state import State
from medfcn.training.survey import Survey

LEFT_OUT = "left out"
"""The use of a case that is not used, in `cases.csv`."""
ON_REQUEST = "on request"
"""Its problem, if it has none but that the user left it out."""
LABELLED = "labelled"
"""The column of the labels that were drawn, where not all were in every case."""
_COLUMNS = ("step", "epoch", "loss", "learning_rate", "validation_dice", "seconds", "cpu_seconds")


class Log:
    """`log.csv`: a row for each epoch and each validation, rewritten whole every time.

    Args:
        path: Where to write.
        started: `time.monotonic()` when the command began.
        cpu_started: CPU seconds that this process had used by then, for other things.
    """

    def __init__(self, path: Path, *, started: float, cpu_started: float = 0.0) -> None:
        self.path = path
        self.started = started
        self.rows: list[tuple[float | None, ...]] = []
        self._cpu_started = cpu_started

    def add(
        self, *, step: int, epoch: float, loss: float, learning_rate: float, validation_dice: float | None
    ) -> None:
        """Add a row; wall and CPU seconds are those of the whole training so far, the data check included."""
        seconds, used = self.time_used()
        self.rows.append(
            (step, round(epoch, 2), loss, learning_rate, validation_dice, round(seconds, 2), round(used, 2))
        )
        write_csv(self.path, _COLUMNS, self.rows)

    def time_used(self) -> tuple[float, float]:
        """Wall and CPU seconds of the training so far, those before an interruption included."""
        return time.monotonic() - self.started, cpu_seconds() - self._cpu_started

    def state(self) -> dict[str, Any]:
        """The part of a `State` that is kept here."""
        seconds, used = self.time_used()
        return {"rows": list(self.rows), "seconds": seconds, "cpu_seconds": used}

    def restore(self, state: State) -> None:
        """Continue a log: the time that a stopped training had used is added."""
        self.rows = [tuple(row) for row in state.rows]
        self.started -= state.seconds
        self._cpu_started -= state.cpu_seconds


def cpu_seconds() -> float:
    """User and system seconds of this process, all threads, since it began."""
    return time.process_time()


def write_cases(path: Path, survey: Survey, split: Split) -> None:
    """`cases.csv`: the use of each case, and the hashes of its files."""
    uses = dict.fromkeys(split.training, TRAINING) | dict.fromkeys(split.validation, "validation")
    problems = dict(survey.problems)
    channels = survey.dataset.channel_names
    columns = ("case", "group", "use", *(f"{IMAGE_HASHES}{name}" for name in channels), LABEL_HASH, "problem")
    every = (*survey.dataset.all_cases, *survey.dataset.left_out)
    labelled = [SEPARATOR.join(case.labelled) for case in every]
    rows = []
    for case in survey.dataset.all_cases:
        hashes = survey.hashes.get(case.id, ("",) * (len(channels) + 1))
        rows.append((case.id, case.group, uses.get(case.id, LEFT_OUT), *hashes, problems.get(case.id, "")))
    unread = ("",) * (len(channels) + 1)
    rows += [(case.id, case.group, LEFT_OUT, *unread, ON_REQUEST) for case in survey.dataset.left_out]
    if any(labelled):
        columns = (*columns, LABELLED)
        rows = [(*row, names) for row, names in zip(rows, labelled, strict=True)]
    write_csv(path, columns, rows)
