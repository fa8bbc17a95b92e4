"""What a search comes to: `trials.csv`, `best.toml`, and a few lines for the terminal."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medfcn.config import to_tables
from medfcn.errors import TrainingError
from medfcn.files import atomic_write, write_csv
from medfcn.runs.folder import BEST_FILE
from medfcn.settings import Settings
from medfcn.text import duration
from medfcn.tuning.space import Value
from medfcn.tuning.trial import Score, Trial

_COLUMNS = ("trial", "state", "dice_mean", "dice_median", "dice_worst", "steps", "seconds")
_SHOWN = 5


@dataclass(frozen=True)
class Tuned:
    """A finished search.

    Attributes:
        folder: Where `best.toml`, `trials.csv` and `study.db` lie.
        trials: All of them, in order; the first is the defaults.
        settings: All settings of the best trial.
        validation_cases: How many cases the trials were scored on.
        in_folds: Whether each case was scored by a network that had not seen it.
        has_test: Whether cases were left out.
    """

    folder: Path
    trials: tuple[Trial, ...]
    settings: Settings
    validation_cases: int
    in_folds: bool
    has_test: bool

    @property
    def best(self) -> Trial:
        """The trial with the highest mean Dice; the first of equals, so that the defaults win a tie."""
        return best_of(self.trials)

    @property
    def defaults(self) -> Trial | None:
        """The trial with the defaults; None where it failed."""
        return next((trial for trial in self.trials if trial.origin == 0 and trial.state == "done"), None)

    @property
    def gain(self) -> float | None:
        """Mean Dice of the best trial above that of the defaults, never negative; None where these failed."""
        return None if self.defaults is None else _score(self.best).mean - _score(self.defaults).mean

    def to_text(self) -> str:
        """The best trials, and what to make of them."""
        done = sorted((trial for trial in self.trials if trial.score), key=lambda trial: -_score(trial).mean)
        rows = [("trial", "Dice mean", "median", "worst", "time", "settings")]
        for trial in done[:_SHOWN]:
            score = _score(trial)
            named = f"{trial.number} (the defaults)" if trial.origin == 0 else str(trial.number)
            mean, median, worst = (f"{dice:.4f}" for dice in (score.mean, score.median, score.worst))
            rows.append((named, mean, median, worst, duration(score.seconds), values_text(trial.values)))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = [
            "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[5]])
            for row in rows
        ]
        return "\n".join([*lines, self._verdict()])

    def _verdict(self) -> str:
        """How much was gained, and why that figure flatters."""
        cases = (
            "the one validation case" if self.validation_cases == 1 else f"{self.validation_cases} validation cases"
        )
        cases += " out of fold" if self.in_folds else ""
        if self.gain is None:
            dice = _score(self.best).mean
            found = f"the defaults failed; best: trial {self.best.number}, Dice {dice:.4f} on {cases}"
        elif self.best == self.defaults:
            found = f"no trial was better than the defaults on {cases}"
        else:
            found = f"best: trial {self.best.number}, Dice {self.gain:.4f} above the defaults on {cases}"
        where = "the cases you left out" if self.has_test else "cases that no trial saw (--leave-out)"
        return (
            f"{found}; it was chosen there, so this flatters: train with --config {self.folder / BEST_FILE} and "
            f"score on {where}"
        )


def best_of(trials: Sequence[Trial]) -> Trial:
    """The trial with the highest mean Dice, the first of equals.

    Raises:
        TrainingError: None is done.
    """
    done = [trial for trial in trials if trial.state == "done"]
    if not done:
        first = next((trial for trial in trials if trial.state == "failed"), None)
        why = f": {first.problem}" if first is not None else ""
        raise TrainingError(f"none of the {len(trials)} trials could be trained; the first{why}")
    return max(done, key=lambda trial: (_score(trial).mean, -trial.number))


def values_text(values: Mapping[str, Value]) -> str:
    """What was searched, without the tables, on one line.

    Example:
        >>> values_text({"training.learning_rate": 0.0041234, "slices.context": 3})
        'learning_rate 0.00412, context 3'
    """
    return ", ".join(
        f"{name.split('.')[1]} {value:.3g}" if isinstance(value, float) else f"{name.split('.')[1]} {value}"
        for name, value in values.items()
    )


def write_trials(path: Path, trials: Sequence[Trial], names: Sequence[str]) -> None:
    """Write `trials.csv`, a row for every trial."""
    rows = []
    for trial in trials:
        score = trial.score
        reached: tuple[float | None, ...] = (None,) * 5
        if score is not None:
            reached = (score.mean, score.median, score.worst, score.steps, score.seconds)
        note = (
            f"again for trial {trial.origin}" if trial.origin != trial.number and not trial.problem else trial.problem
        )
        rows.append((trial.number, trial.state, *reached, *(trial.values.get(name) for name in names), note))
    write_csv(path, (*_COLUMNS, *names, "note"), rows)


def write_best(path: Path, settings: Settings, trials: Sequence[Trial]) -> None:
    """Write `best.toml`: what differs from the defaults of medfcn, for `medfcn train --config`."""
    best = best_of(trials)
    text = (
        f"# medfcn tune: trial {best.number} of {len(trials)}, validation Dice {_score(best).mean:.4f}\n"
        "# medfcn train DATASET -o RUN --config best.toml\n"
    )
    with atomic_write(path) as file:
        file.write((text + settings_toml(settings)).encode())


def settings_toml(settings: Settings) -> str:
    """Those settings that differ from the defaults, as a settings file.

    Example:
        >>> print(settings_toml(Settings()) or "nothing")
        nothing
    """
    blocks = []
    usual = to_tables(Settings())
    for table, values in to_tables(settings).items():
        # JSON's numbers, texts, truths and lists are TOML's too.
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if value != usual[table][key]]
        if lines:
            blocks.append("\n".join([f"\n[{table}]", *lines, ""]))
    return "".join(blocks)


def _score(trial: Trial) -> Score:
    if trial.score is None:
        raise TrainingError(f"trial {trial.number} has no score")
    return trial.score
