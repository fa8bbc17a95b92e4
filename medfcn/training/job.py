"""Everything that the trainings of one command have in common."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medfcn.progress import Progress
from medfcn.runs.stop import Stop
from medfcn.runs.tracking import Kind
from medfcn.settings import Settings
from medfcn.training.distributed import Machine
from medfcn.training.record import cpu_seconds
from medfcn.training.schedule import Length
from medfcn.training.start import Start
from medfcn.training.survey import Survey

DEFAULT_BUDGET = "10m"


@dataclass(frozen=True)
class Job:
    """Everything that the trainings of one command have in common.

    Attributes:
        found: The cases.
        settings: All settings.
        machine: Device, seed, clock and processes.
        start: The first weights of the network.
        length: The length; None takes that of a stopped training, else the default.
        threads: CPU threads; None takes those of a stopped training, else the fastest number.
        resume: Continue a stopped training.
        stop: Looked at between two steps.
        progress: Where messages go.
        slices: A folder of prepared slices that several trainings share; None keeps each training's own in its state.
        keep: Called with the run folder, once it is the training's own: keeps the options there.
        trackers: Programs that get the course of the training; see `medfcn.runs.tracking`.
        track_images: Pass pictures on to them too.
    """

    found: Survey
    settings: Settings
    machine: Machine
    start: Start
    length: Length | None
    threads: int | None
    resume: bool
    stop: Stop
    progress: Progress
    slices: Path | None = None
    keep: Callable[[Path], None] | None = None
    trackers: tuple[tuple[Kind, str], ...] = ()
    track_images: bool = False

    def timed_from_now(self) -> "Job":
        """The job with a clock that starts now."""
        machine = dataclasses.replace(self.machine, started=time.monotonic(), cpu_started=cpu_seconds())
        return dataclasses.replace(self, machine=machine)
