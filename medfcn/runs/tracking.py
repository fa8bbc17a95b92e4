"""The course of a training for other programs: TensorBoard, MLflow or Weights & Biases, through one small interface.

Everything that they get is in `log.csv` too. Nothing leaves the machine unless an address is given: the files of
TensorBoard and wandb lie in the run folder, MLflow's database too; wandb works offline, and telemetry and reports of
errors are turned off. They get numbers, names of labels and settings; no id of a case, no path of the data set, and
pictures only if they are asked for.

Only finite numbers are passed on: an infinite one comes back from MLflow as 1.8e308. Every number has its step.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from medfcn.errors import MedfcnError, SettingsError
from medfcn.libraries import require_installed
from medfcn.progress import Progress, warn
from medfcn.runs.folder import PICTURE
from medfcn.text import did_you_mean, one_line

Kind = Literal["tensorboard", "mlflow", "wandb"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_STEP = "step"
_UNSAFE = re.compile(r"[^\w.\- :]")
"""Characters that MLflow takes in no name, and the slash, which groups names."""


class Tracker(Protocol):
    """Interface of a program that shows the course of trainings."""

    def begin(self, facts: Mapping[str, str]) -> int:
        """Begin, with the settings of the training; the last step that it has already, -1 without any."""

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add finite numbers after a step."""

    def add_picture(self, step: int, path: Path) -> None:
        """Add a PNG."""

    def end(self, *, is_finished: bool) -> None:
        """Write what is left, and close."""


def kinds_of(text: str | None) -> tuple[tuple[Kind, str], ...]:
    """The trackers of `--track`, each with its address, if there is one.

    Raises:
        SettingsError: One is not known, or has an address and takes none.

    Example:
        >>> kinds_of("tensorboard, mlflow=http://server:5000")
        (('tensorboard', ''), ('mlflow', 'http://server:5000'))
    """
    found: list[tuple[Kind, str]] = []
    for part in (text or "").split(",") if text else ():
        name, _, address = part.strip().partition("=")
        kind = next((kind for kind in KINDS if kind == name), None)
        if kind is None:
            raise SettingsError(f"track {name!r} is not known{did_you_mean(name, KINDS)}", field="track")
        if address and kind != "mlflow":
            raise SettingsError(
                f"track {part.strip()!r}: only mlflow takes an address; write {kind}, whose files lie in the run",
                field="track",
            )
        found.append((kind, address))
    return tuple(found)


def require_libraries(kinds: Sequence[tuple[Kind, str]]) -> None:
    """Refuse trackers whose libraries are not installed, before any work.

    Raises:
        MissingFileError: One is not; the message says how to install it.
    """
    for kind, _ in kinds:
        require_installed(kind)


def _tracker(kind: Kind, address: str, run: Path) -> Tracker:
    """A tracker that writes into a run folder; its library is loaded here."""
    if kind == "tensorboard":
        from medfcn.runs.tensorboard import TensorBoardTracker

        return TensorBoardTracker(run / kind)
    if kind == "mlflow":
        from medfcn.runs.mlflow import MlflowTracker

        return MlflowTracker(run / kind, address, name=run.resolve().name)
    from medfcn.runs.wandb import WandbTracker

    return WandbTracker(run / kind, name=run.resolve().name)


class Tracking:
    """The trackers of one training. One that fails is left out from there on, and the training goes on.

    Args:
        kinds: As `kinds_of`.
        run: The run folder.
        pictures: The folder of the run's pictures; None passes none on.
        progress: Where a tracker that fails is reported.
    """

    def __init__(
        self, kinds: Sequence[tuple[Kind, str]], run: Path, *, pictures: Path | None, progress: Progress
    ) -> None:
        self.pictures = pictures
        self._kinds, self._run = tuple(kinds), run
        self._progress = progress
        self._trackers: dict[str, Tracker] = {}
        self._last: dict[str, int] = {}

    def begin(self, facts: Mapping[str, object]) -> None:
        """Open the trackers.

        Raises:
            SettingsError: A tracker cannot be opened.
        """
        known = {_name(name): str(value) for name, value in facts.items() if value is not None}
        for kind, address in self._kinds:
            try:
                tracker = _tracker(kind, address, self._run)
                self._last[kind] = tracker.begin(known)
            except MedfcnError:
                raise
            except Exception as error:
                raise SettingsError(
                    f"track {kind}: cannot be opened: {one_line(str(error))}", field="track"
                ) from error
            self._trackers[kind] = tracker

    def write(self, columns: Sequence[str], rows: Sequence[Sequence[float | None]], labels: Sequence[str]) -> None:
        """Pass on the rows of `log.csv` that a tracker does not have yet.

        Args:
            columns: Names of the columns.
            rows: Numbers; None where there is none.
            labels: Names of the labels, by which columns are grouped.
        """
        names = [_grouped(column, labels) for column in columns]
        place = columns.index(_STEP)
        for row in rows:
            step = int(row[place] or 0)
            numbers = {
                name: float(value)
                for name, column, value in zip(names, columns, row, strict=True)
                if column != _STEP and value is not None and math.isfinite(value)
            }
            self._each("add", step, numbers)
            picture = None if self.pictures is None else self.pictures / PICTURE.format(f"{step:07d}")
            if picture is not None and picture.is_file():
                self._each("add_picture", step, picture)
            self._last = {kind: max(last, step) for kind, last in self._last.items()}

    def finish(self, step: int, numbers: Mapping[str, float]) -> None:
        """Pass on the results of a finished training, and close."""
        finite = {_name(name): value for name, value in numbers.items() if math.isfinite(value)}
        self._last = dict.fromkeys(self._last, step - 1)
        self._each("add", step, finite)
        self.close(is_finished=True)

    def close(self, *, is_finished: bool = False) -> None:
        """Close the trackers; those of a training that is stopped go on when it does."""
        for kind in list(self._trackers):
            self._guarded(kind, lambda tracker: tracker.end(is_finished=is_finished))
        self._trackers = {}

    def _each(self, name: str, step: int, *values: Any) -> None:
        for kind, last in self._last.items():
            if step > last and kind in self._trackers:
                self._guarded(kind, lambda tracker: getattr(tracker, name)(step, *values))

    def _guarded(self, kind: str, work: Any) -> None:
        try:
            work(self._trackers[kind])
        except Exception as error:
            del self._trackers[kind]
            warn(
                self._progress,
                f"{kind} gets nothing more, because it failed ({one_line(str(error), limit=200)}); the training goes "
                "on, and log.csv has everything",
            )


def _name(text: str) -> str:
    """A name that every tracker takes."""
    return _UNSAFE.sub("_", text)


def _grouped(column: str, labels: Sequence[str]) -> str:
    """The name of a column, with that of a label behind a slash.

    Example:
        >>> _grouped("curve_dice_left/right", ["left/right"]), _grouped("loss", ["organ"])
        ('curve_dice/left_right', 'loss')
    """
    for label in labels:
        if column.endswith(f"_dice_{label}"):
            return f"{_name(column.removesuffix(f'_{label}'))}/{_name(label)}"
    return _name(column)
