"""The trials of a search on disk: `study.db`, an sqlite file that optuna keeps and draws from.

What is drawn for a trial follows from the seed, from how many trials came before, and from what they reached: a
search that was killed and goes on draws what it would have drawn.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medfcn.errors import MedfcnError, MissingFileError, TrainingError
from medfcn.tuning.space import Between, Searched, Value
from medfcn.tuning.trial import Score, State, Trial

if TYPE_CHECKING:
    import optuna

_NAME = "medfcn"
_AT_RANDOM = 8
"""Trials that are drawn at random, before the draws follow from what the trials reached."""


def require_optuna() -> None:
    """Refuse to search without optuna.

    Raises:
        MissingFileError: It is not installed.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise MissingFileError("a search needs optuna, which is not installed; pip install 'medfcn[tune]'") from error


@dataclass(frozen=True)
class Asked:
    """A trial that is to be run.

    Attributes:
        number: From 0.
        values: What to run it with.
        origin: The trial it repeats; itself where it repeats none.
        kills: How often a process was killed in it.
        handle: Optuna's own.
    """

    number: int
    values: Mapping[str, Value]
    origin: int
    kills: int
    handle: "optuna.Trial"


class Study:
    """The trials of one search.

    Args:
        path: The sqlite file; made where it is missing.
        seed: Of what is drawn.

    Raises:
        TrainingError: The file is broken.
    """

    def __init__(self, path: Path, *, seed: int) -> None:
        import optuna
        from sqlalchemy import URL

        self.path = path
        self.seed = seed
        url = URL.create("sqlite", database=str(path.absolute())).render_as_string(hide_password=False)
        with self._translated(), _quiet():
            self._storage = optuna.storages.RDBStorage(url)
            self._study = optuna.create_study(
                storage=self._storage, study_name=_NAME, direction="maximize", load_if_exists=True
            )

    def close(self) -> None:
        """Let go of the file."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    @property
    def identity(self) -> dict[str, Any]:
        """What was noted that must stay the same; nothing in a study that has just begun."""
        with self._translated():
            value = json.loads(self._study.user_attrs.get("identity", "{}"))
        return value if isinstance(value, dict) else {}

    def write_identity(self, identity: Mapping[str, Any]) -> None:
        """Note what must stay the same."""
        with self._translated():
            self._study.set_user_attr("identity", json.dumps(identity))

    def trials(self) -> tuple[Trial, ...]:
        """All that have ended, in order."""
        with self._translated():
            return tuple(_trial_of(frozen) for frozen in self._frozen() if frozen.state.is_finished())

    def begin(self, defaults: Mapping[str, Value]) -> None:
        """Make sure that the defaults come first, and that trials that were stopped or killed come again.

        Args:
            defaults: The values of the first trial.
        """
        from optuna.trial import TrialState

        with self._translated():
            for frozen in self._frozen():
                if frozen.state == TrialState.RUNNING:  # its process is gone, or the folder would be locked
                    self._study.tell(frozen.number, state=TrialState.FAIL)
            if not self._frozen():
                self._study.enqueue_trial(dict(defaults))
            repeated = {frozen.user_attrs.get("repeats") for frozen in self._frozen()}
            for trial in self.trials():
                if trial.state == "interrupted" and trial.number not in repeated:
                    attributes = {"repeats": trial.number, "origin": trial.origin}
                    self._study.enqueue_trial(dict(trial.values), user_attrs=attributes)

    def ask(self, space: Sequence[Searched]) -> Asked:
        """The next trial: one that waits, else one that is drawn."""
        import optuna

        distributions = {searched.name: _distribution(searched) for searched in space}
        settled = sum(trial.state != "interrupted" for trial in self.trials())
        seed = int(np.random.SeedSequence([self.seed, settled]).generate_state(1)[0])
        with self._translated(), _quiet():
            self._study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_AT_RANDOM)
            handle = self._study.ask(distributions)
            origin = handle.user_attrs.get("origin", handle.number)
            kills = sum(
                frozen.state.name == "FAIL" and not {"problem", "stopped"} & set(frozen.user_attrs)
                for frozen in self._frozen()
                if frozen.user_attrs.get("origin", frozen.number) == origin
            )
        return Asked(handle.number, dict(handle.params), origin, kills, handle)

    def finish(self, asked: Asked, score: Score, *, note: str = "") -> None:
        """A trial is done; the note says whose score it took over, where it did."""
        with self._translated():
            asked.handle.set_user_attr("score", asdict(score))
            asked.handle.set_user_attr("problem", note)
            self._study.tell(asked.handle, score.mean)

    def fail(self, asked: Asked, problem: str) -> None:
        """A trial cannot be trained."""
        self._end(asked, "problem", problem)

    def interrupt(self, asked: Asked) -> None:
        """A trial was stopped, and will be repeated."""
        self._end(asked, "stopped", True)

    def _end(self, asked: Asked, attribute: str, value: object) -> None:
        from optuna.trial import TrialState

        with self._translated():
            asked.handle.set_user_attr(attribute, value)
            self._study.tell(asked.handle, state=TrialState.FAIL)

    def _frozen(self) -> "list[optuna.trial.FrozenTrial]":
        return self._study.get_trials(deepcopy=False)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Tell in one line what is wrong with the file.

        Raises:
            TrainingError: It cannot be read or written.
        """
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except MedfcnError:
            raise
        except (StorageInternalError, SQLAlchemyError, RuntimeError) as error:
            cause = error.__cause__ or error
            line = str(getattr(cause, "orig", None) or cause).splitlines()[0]
            raise TrainingError(
                f"{self.path.parent}: {self.path.name} cannot be read or written ({line}); look at the disk, or "
                "start again with --overwrite"
            ) from error


def _distribution(searched: Searched) -> "optuna.distributions.BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    domain = searched.domain
    if isinstance(domain, Between):
        return FloatDistribution(domain.low, domain.high, log=domain.log)
    return CategoricalDistribution(domain.values)


def _trial_of(frozen: "optuna.trial.FrozenTrial") -> Trial:
    attributes = frozen.user_attrs
    state: State = "interrupted"
    if frozen.state.name == "COMPLETE":
        state = "done"
    elif "problem" in attributes:
        state = "failed"
    score = Score(**attributes["score"]) if state == "done" else None
    # One that was killed as it was begun may have only the values it waited with.
    values = {**frozen.system_attrs.get("fixed_params", {}), **frozen.params}
    origin = attributes.get("origin", frozen.number)
    return Trial(frozen.number, values, state, score, attributes.get("problem", ""), origin)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep optuna from telling what medfcn tells itself."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
