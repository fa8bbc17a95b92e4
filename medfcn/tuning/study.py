"""The trials of a search on disk: `study.db`, an sqlite file in which optuna keeps the trials it draws.

The values drawn for a trial follow from the seed, the number of earlier trials and their scores: a search that was
killed and is continued draws the same values as without the kill.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from medfcn.decoding import convert, decode_json
from medfcn.errors import MedfcnError, TrainingError
from medfcn.files import write_error
from medfcn.runs.folder import STUDY_FILE
from medfcn.text import listed
from medfcn.training.identity import require_sound
from medfcn.tuning.space import Between, Searched, Value
from medfcn.tuning.trial import Score, State, Trial

if TYPE_CHECKING:
    import optuna

_NAME = "medfcn"
_AT_RANDOM = 8
"""Number of trials that are drawn at random, before the draws follow from the scores."""
_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC)
_PAGE_BYTES = 4096
"""Bytes that sqlite writes at once, at least."""
_REMEDY = "look at the disk, or start again with --overwrite"
_BROKEN = (ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError)
"""Errors of optuna for values that it did not write."""
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class _Score(msgspec.Struct, frozen=True):
    """A `Score` as it is recorded."""

    mean: _Share
    median: _Share
    worst: _Share
    steps: _Count
    seconds: Annotated[float, msgspec.Meta(ge=0, le=1e10)]


class _Attributes(msgspec.Struct, frozen=True):
    """Facts of a trial that are recorded beside those of optuna."""

    score: _Score | None = None
    problem: str = ""
    stopped: bool = False
    origin: _Count | None = None
    repeats: _Count | None = None


@dataclass(frozen=True)
class NextTrial:
    """A trial that is to be run.

    Attributes:
        number: From 0.
        values: The searched values, by name.
        origin: The trial that it repeats; its own number if it repeats none.
        kills: How often a process was killed in it.
        handle: Optuna's own object.
    """

    number: int
    values: Mapping[str, Value]
    origin: int
    kills: int
    handle: "optuna.Trial"


class Study:
    """The trials of one search.

    Args:
        path: The sqlite file; made if it is missing.
        seed: Random seed of the draws.

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
        """Close the file."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    @property
    def identity(self) -> dict[str, Any]:
        """The recorded facts that must stay the same; empty in a new study."""
        with self._translated():
            content = self._study.user_attrs.get("identity", "{}")
        recorded = decode_json(
            str(content), dict[str, Any], source=self.path.name, error=TrainingError, remedy=_REMEDY
        )
        require_sound(recorded, source=self.path.name)
        return recorded

    def write_identity(self, identity: Mapping[str, Any]) -> None:
        """Record the facts that must stay the same."""
        with self._translated():
            self._study.set_user_attr("identity", json.dumps(identity))

    def trials(self) -> tuple[Trial, ...]:
        """All trials that have ended, in order.

        Raises:
            TrainingError: What is recorded of one cannot be.
        """
        with self._translated():
            found = tuple(_trial_of(frozen) for frozen in self._frozen() if frozen.state.is_finished())
        names = {name for trial in found for name in trial.values}
        for trial in found:
            if trial.score and trial.values.keys() != names:
                lost = listed(sorted(names - trial.values.keys()), limit=3)
                raise _broken_trial(trial.number, f"is done and has lost its values of {lost}")
        return found

    @property
    def ended_count(self) -> int:
        """Number of trials that ended by themselves."""
        return sum(trial.state != "interrupted" for trial in self.trials())

    def begin(self, defaults: Mapping[str, Value]) -> None:
        """Put the defaults first in the queue, and repeat trials that were stopped or killed.

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

    def next_trial(self, space: Sequence[Searched], *, ahead: int = 0) -> NextTrial:
        """The next trial: from the queue, else newly drawn.

        Args:
            space: The searched settings.
            ahead: Number of trials that were drawn before and have not ended.
        """
        import optuna

        distributions = {searched.name: _distribution(searched) for searched in space}
        seed = int(np.random.SeedSequence([self.seed, self.ended_count + ahead]).generate_state(1)[0])
        with self._translated(), _quiet():
            self._study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_AT_RANDOM)
            handle = self._study.ask(distributions)
            origin = handle.user_attrs.get("origin", handle.number)
            kills = sum(
                frozen.state.name == "FAIL" and not {"problem", "stopped"} & set(frozen.user_attrs)
                for frozen in self._frozen()
                if frozen.user_attrs.get("origin", frozen.number) == origin
            )
        return NextTrial(handle.number, dict(handle.params), origin, kills, handle)

    def finish(self, trial: NextTrial, score: Score, *, note: str = "") -> None:
        """Record that a trial is done; the note names the trial whose score it took over."""
        with self._translated():
            trial.handle.set_user_attr("score", asdict(score))
            trial.handle.set_user_attr("problem", note)
            self._study.tell(trial.handle, score.mean)

    def fail(self, trial: NextTrial, problem: str) -> None:
        """Record that a trial cannot be trained."""
        self._end(trial, "problem", problem)

    def interrupt(self, trial: NextTrial) -> None:
        """Record that a trial was stopped, and is to be repeated."""
        self._end(trial, "stopped", True)

    def _end(self, trial: NextTrial, attribute: str, value: object) -> None:
        from optuna.trial import TrialState

        with self._translated():
            trial.handle.set_user_attr(attribute, value)
            self._study.tell(trial.handle, state=TrialState.FAIL)

    def _frozen(self) -> "list[optuna.trial.FrozenTrial]":
        return self._study.get_trials(deepcopy=False)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Report a broken file in one line.

        Raises:
            WriteError: The disk is full.
            TrainingError: It cannot be read or written.
        """
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except MedfcnError:
            raise
        except (StorageInternalError, SQLAlchemyError, RuntimeError, *_BROKEN) as error:
            cause = error.__cause__ or error
            found = getattr(cause, "orig", None) or cause
            if getattr(found, "sqlite_errorcode", None) in _NO_ROOM:
                reason = "no room for it: the disk is full, or a quota or limit is reached"
                raise write_error(OSError(str(found)), self.path, _PAGE_BYTES, reason=reason) from error
            line = (str(found).splitlines() or [type(found).__name__])[0]
            raise TrainingError(
                f"{self.path.parent}: {self.path.name} cannot be read or written ({line}); {_REMEDY}",
                code="STUDY_BROKEN",
            ) from error


def _distribution(searched: Searched) -> "optuna.distributions.BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    domain = searched.domain
    if isinstance(domain, Between):
        return FloatDistribution(domain.low, domain.high, log=domain.log)
    return CategoricalDistribution(domain.values)


def _trial_of(frozen: "optuna.trial.FrozenTrial") -> Trial:
    attributes = frozen.user_attrs
    state: State = "failed" if "problem" in attributes else "interrupted"
    if frozen.state.name == "COMPLETE":
        state = "done"
    source = f"{STUDY_FILE}: trial {frozen.number}"
    known = convert(attributes, _Attributes, source=source, error=TrainingError, remedy=_REMEDY)
    if not isinstance(frozen.number, int):
        raise _broken_trial(frozen.number, "has no number")
    if state == "done" and known.score is None:
        raise _broken_trial(frozen.number, "is done and has no score")
    score = Score(**msgspec.structs.asdict(known.score)) if state == "done" and known.score else None
    # A trial that was killed at its very beginning has only the values it had in the queue.
    values = {**frozen.system_attrs.get("fixed_params", {}), **frozen.params}
    origin = frozen.number if known.origin is None else known.origin
    return Trial(frozen.number, values, state, score, known.problem, origin)


def _broken_trial(number: int, found: str) -> TrainingError:
    return TrainingError(f"{STUDY_FILE}: trial {number} {found}; {_REMEDY}", code="STUDY_BROKEN")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep optuna from reporting what medfcn reports itself."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
