"""TensorBoard's files, written by tensorboardX; to look at with `tensorboard --logdir RUN/tensorboard`."""

from collections.abc import Mapping
from pathlib import Path

from medfcn.runs.outputs import emptied

_TITLE = "validation slices"


class TensorBoardTracker:
    """Writes event files. A training that goes on writes all of them anew, so that no point is shown twice.

    Args:
        folder: Where the files lie; what is in it is removed.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(logdir=str(emptied(folder)))

    def begin(self, facts: Mapping[str, str]) -> int:
        """See `Tracker`."""
        table = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
        self._writer.add_text("settings", f"| setting | value |\n|---|---|\n{table}", 0)
        return -1

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def add_picture(self, step: int, path: Path) -> None:
        """See `Tracker`."""
        from matplotlib.image import imread

        self._writer.add_image(_TITLE, imread(path)[..., :3], step, dataformats="HWC")

    def end(self, *, is_finished: bool) -> None:
        """See `Tracker`."""
        self._writer.close()
