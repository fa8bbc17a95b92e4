"""The result of a search: `trials.csv`, `best.toml`, and a few lines for the terminal."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medfcn.errors import TrainingError
from medfcn.files import write_bytes, write_csv
from medfcn.runs.folder import BEST_FILE, TRIALS_FILE
from medfcn.settings import Settings
from medfcn.text import aligned, counted, duration, page
from medfcn.tuning.space import Value
from medfcn.tuning.task import changed_tables
from medfcn.tuning.trial import Trial

_COLUMNS = ("trial", "state", "dice_mean", "dice_median", "dice_worst", "steps", "seconds")
_SHOWN = 5
"""Number of trials in the text."""


@dataclass(frozen=True)
class Tuned:
    """A finished search.

    Attributes:
        folder: The folder of `best.toml`, `trials.csv` and `study.db`.
        trials: All trials in order; the first has the defaults.
        settings: All settings of the best trial.
        validation_cases: Number of cases that the trials were scored on.
        in_folds: True if each case was scored by a network that was not trained on it.
        has_test: True if cases were left out.
        of_labelled: What the Dice is of, where less than half of some cases is labelled; empty without.
    """

    folder: Path
    trials: tuple[Trial, ...]
    settings: Settings
    validation_cases: int
    in_folds: bool
    has_test: bool
    of_labelled: str = ""

    @property
    def best(self) -> Trial:
        """The trial with the highest mean Dice; the first of equals, so that the defaults win a tie."""
        return best_of(self.trials)

    @property
    def defaults(self) -> Trial | None:
        """The trial with the defaults; None if it failed."""
        return next((trial for trial in self.trials if trial.origin == 0 and trial.score), None)

    @property
    def gain(self) -> float | None:
        """Mean Dice of the best trial minus that of the defaults, never negative; None if these failed."""
        return None if self.defaults is None else self.best.mean - self.defaults.mean

    def to_text(self) -> str:
        """The best trials, and advice."""
        rows: list[tuple[str, ...]] = [("trial", "Dice mean", "median", "worst", "time", "settings")]
        for trial in sorted(self.trials, key=lambda trial: -trial.mean)[:_SHOWN]:
            if score := trial.score:
                name = f"{trial.number} (the defaults)" if trial.origin == 0 else str(trial.number)
                dices = (f"{dice:.4f}" for dice in (score.mean, score.median, score.worst))
                rows.append((name, *dices, duration(score.seconds), values_text(trial.values)))
        return page([*aligned(rows, prose=[5]), self._verdict()])

    def _verdict(self) -> str:
        """The gain, and why that number is too good."""
        cases = counted(self.validation_cases, "validation case") + (" out of fold" if self.in_folds else "")
        cases += f", Dice{self.of_labelled}" if self.of_labelled else ""
        if self.gain is None:
            result = f"the defaults failed; best: trial {self.best.number}, Dice {self.best.mean:.4f} on {cases}"
        elif self.best == self.defaults:
            result = f"no trial was better than the defaults on {cases}"
        else:
            result = f"best: trial {self.best.number}, Dice {self.gain:.4f} above the defaults on {cases}"
        test = "the cases you left out" if self.has_test else "cases that no trial used (--leave-out)"
        return (
            f"{result}; it was chosen on them, so this number is too good: train with --config "
            f"{self.folder / BEST_FILE} and score on {test}"
        )


def best_of(trials: Sequence[Trial]) -> Trial:
    """The trial with the highest mean Dice, the first of equals.

    Raises:
        TrainingError: None is done.
    """
    best = max(trials, key=lambda trial: (trial.mean, -trial.number), default=None)
    if best is None or best.score is None:
        problem = next((f": {trial.problem}" for trial in trials if trial.state == "failed"), "")
        raise TrainingError(f"none of the {len(trials)} trials could be trained; the first{problem}")
    return best


def values_text(values: Mapping[str, Value]) -> str:
    """The searched values, without their tables, on one line.

    Example:
        >>> values_text({"training.learning_rate": 0.0041234, "slices.context": 3})
        'learning_rate 0.00412, context 3'
    """
    shown = (f"{value:.3g}" if isinstance(value, float) else str(value) for value in values.values())
    return ", ".join(f"{name.split('.')[1]} {value}" for name, value in zip(values, shown, strict=True))


def write_trials(folder: Path, trials: Sequence[Trial], names: Sequence[str]) -> None:
    """Write `trials.csv`, a row for every trial, with a column for each searched setting."""
    rows = []
    for trial in trials:
        score = (None,) * 5 if trial.score is None else dataclasses.astuple(trial.score)
        is_repeated = trial.origin != trial.number and not trial.problem
        note = f"again for trial {trial.origin}" if is_repeated else trial.problem
        rows.append((trial.number, trial.state, *score, *(trial.values.get(name) for name in names), note))
    write_csv(folder / TRIALS_FILE, (*_COLUMNS, *names, "note"), rows)


def write_best(folder: Path, settings: Settings, trials: Sequence[Trial]) -> None:
    """Write `best.toml`: the settings that differ from the defaults of medfcn, for `medfcn train --config`."""
    best = best_of(trials)
    text = (
        f"# medfcn tune: trial {best.number} of {len(trials)}, validation Dice {best.mean:.4f}\n"
        f"# medfcn train DATASET -o RUN --config {BEST_FILE}\n"
    )
    write_bytes(folder / BEST_FILE, (text + settings_toml(settings)).encode())


def settings_toml(settings: Settings) -> str:
    """The settings that differ from the defaults, as a settings file.

    Example:
        >>> print(settings_toml(Settings()) or "nothing")
        nothing
    """
    return "".join(
        "\n".join([f"\n[{table}]", *(f"{key} = {_toml(value)}" for key, value in values.items()), ""])
        for table, values in changed_tables(settings).items()
        if values
    )


def _toml(value: object) -> str:
    """A value in TOML, which has JSON's numbers, texts, booleans and lists."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)
