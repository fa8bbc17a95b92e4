"""The number of steps that all folds of a cross-validation take: `steps.json` in the folder of the folds.

The first fold that has found a number for its budget writes it there. The others take it up, from other machines too.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from medfcn.decoding import read_json
from medfcn.errors import TrainingError, naming
from medfcn.files import json_bytes, write_json
from medfcn.runs.folder import RunFolder
from medfcn.runs.write_once import write_once
from medfcn.training.budget import Costs
from medfcn.training.schedule import Schedule

_FORMAT = 1
_AGAIN = "remove it, or start again (--overwrite, overwrite=True)"


@dataclass(frozen=True)
class Agreed:
    """The content of `steps.json`.

    Attributes:
        format: Of the file.
        budget_seconds: The budget of one fold.
        steps: As in `Schedule.text`; None before it is known.
        until: The step up to which all folds are trained next; 0 where each is trained by itself.
        seconds: Wall time that one command has used for all folds.
        validation_seconds: As in `Costs`, for one fold.
        end_seconds: As in `Costs`, for one fold.
    """

    format: int
    budget_seconds: float
    steps: str | None = None
    until: int = 0
    seconds: float = 0.0
    validation_seconds: float = 0.0
    end_seconds: float = 0.0

    @property
    def schedule(self) -> Schedule | None:
        """The number of steps; None before it is known."""
        return None if self.steps is None else Schedule.parse(self.steps)

    @property
    def costs(self) -> Costs:
        """The time that one fold needs besides its steps."""
        return Costs(self.validation_seconds, self.end_seconds)


@dataclass(frozen=True)
class Agreement:
    """The number of steps on which the folds of one cross-validation agree.

    Attributes:
        run: The folder of all folds.
        budget_seconds: The budget of one fold.
    """

    run: Path
    budget_seconds: float

    def look(self) -> Agreed | None:
        """Everything that is agreed on; None before anything is.

        Raises:
            TrainingError: The file is broken, or of another budget.
            SettingsError: Its steps are none.
        """
        path = RunFolder(self.run).steps
        if not path.is_file():
            return None
        found = read_json(path, Agreed, error=TrainingError, remedy=_AGAIN)
        if found.format != _FORMAT:
            raise TrainingError(f"{path}: its format is {found.format}, not {_FORMAT}; {_AGAIN}")
        if found.budget_seconds != self.budget_seconds:
            raise TrainingError(
                f"{path}: the other folds have a budget of {found.budget_seconds:g} s each, this one of "
                f"{self.budget_seconds:g} s; give the same, or {_AGAIN}",
                code="FOLDS_DIFFER",
                field="budget",
            )
        if found.steps is not None:
            with naming(str(path)):
                Schedule.parse(found.steps)
        return found

    def schedule(self) -> Schedule | None:
        """The number of steps of all folds; None before it is known."""
        found = self.look()
        return None if found is None else found.schedule

    def agree(self, schedule: Schedule) -> Schedule:
        """The number of steps to take: that of the other folds, if there is one, else the given one.

        A fold that had to be shortened tells the others, which take its number from then on.
        """
        found = self.look()
        if found is None:
            found = Agreed(_FORMAT, self.budget_seconds, steps=schedule.text)
            if write_once(RunFolder(self.run).steps, json_bytes(asdict(found))):
                return schedule
            found = self.look()
        known = None if found is None else found.schedule
        if known is None or (len(schedule.changes) > 1 and schedule.total < known.total):
            self.note(steps=schedule.text)
            return schedule
        return known

    def note(self, **changes: str | float) -> None:
        """Record some of `Agreed`."""
        found = self.look() or Agreed(_FORMAT, self.budget_seconds)
        write_json(RunFolder(self.run).steps, asdict(replace(found, **changes)))  # type: ignore[arg-type]
