"""What a run folder says of its training: `log.csv` and `cases.csv`."""

import resource
import time
from pathlib import Path

from medfcn.files import write_csv
from medfcn.training.prepare import Prepared

_COLUMNS = ("step", "epoch", "loss", "learning_rate", "validation_dice", "seconds", "cpu_seconds")


class Log:
    """`log.csv`: a row for each epoch and each validation, rewritten whole every time.

    Args:
        path: Where to write.
        started: `time.monotonic()` when the command began; earlier by what a stopped training had used.
        cpu_before: CPU seconds to add to those of this process: less what it had used for other things, and more what
            a training that goes on had used before it was stopped.
    """

    def __init__(self, path: Path, *, started: float, cpu_before: float = 0.0) -> None:
        self.path = path
        self.started = started
        self.cpu_before = cpu_before
        self.rows: list[tuple[float | None, ...]] = []

    def add(
        self, *, step: int, epoch: float, loss: float, learning_rate: float, validation_dice: float | None
    ) -> None:
        """Add a row; wall and CPU seconds are those of the whole training so far, the data check included."""
        seconds = round(time.monotonic() - self.started, 2)
        used = round(self.cpu_before + cpu_seconds(), 2)
        self.rows.append((step, round(epoch, 2), loss, learning_rate, validation_dice, seconds, used))
        write_csv(self.path, _COLUMNS, self.rows)


def cpu_seconds() -> float:
    """User and system seconds of this process, all threads, since it began."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def write_cases(path: Path, prepared: Prepared) -> None:
    """`cases.csv`: what each case was used for, with the hashes of its files."""
    survey = prepared.survey
    uses = dict.fromkeys(prepared.split.training, "training") | dict.fromkeys(prepared.split.validation, "validation")
    problems = dict(survey.problems)
    channels = survey.dataset.channel_names
    columns = ("case", "group", "use", *(f"sha256_{name}" for name in channels), "sha256_label", "problem")
    rows = []
    for case in survey.dataset.all_cases:
        hashes = survey.hashes.get(case.id, ("",) * (len(channels) + 1))
        rows.append((case.id, case.group, uses.get(case.id, "left out"), *hashes, problems.get(case.id, "")))
    write_csv(path, columns, rows)
