"""The types of a card's facts: its training, and the summary of its scores.

Cards keep them as they are. What others use of them is checked here, when a card or a summary is read; keys that are
not named are of other versions, and pass.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct

from medfcn.decoding import convert
from medfcn.errors import ModelError

Count = Annotated[int, Meta(ge=0, le=2**53)]
_Seconds = Annotated[float, Meta(ge=0, le=1e10)]
_Number = float | str | None
"""`inf` is text; None is not known."""


class _Training(Struct, frozen=True):
    cases: Count = 0
    validation_cases: Count = 0
    validation_seen_before: Count = 0
    steps: Count | None = None
    best_step: Count | None = None
    validations: Count | None = None
    seed: int | None = None
    fold: str = ""
    precision: str = ""
    init: str | None = None
    init_steps: Count | None = None
    encoder_weights: str | None = None
    budget_seconds: _Seconds | None = None
    schedule: str | None = None
    micro_batch: Count | list[Count] | None = None
    micro_batch_from: Count | list[Count] | None = None
    unstated_ignore: str = ""
    partly_labelled: dict[str, str] = {}
    partly_drawn: dict[str, str] = {}


class _Figures(Struct, frozen=True):
    """A share or a distance over the cases of a label."""

    mean: _Number = None
    mean_low: float | None = None
    mean_high: float | None = None
    median: _Number = None
    worst: _Number = None


class _Label(Struct, frozen=True):
    scored: Count = 0
    missed: Count = 0
    shares: dict[str, _Figures] = {}
    distances: dict[str, _Figures] = {}
    partly_labelled: dict[str, Count] | None = None


class _Definitions(Struct, frozen=True):
    metrics: dict[str, str] = {}


class _Summary(Struct, frozen=True):
    labels: dict[str, _Label] = {}
    definitions: _Definitions = _Definitions()
    interval: str = ""
    notes: list[str] = []


def require_training(training: Mapping[str, Any], *, source: str, remedy: str) -> None:
    """Refuse facts of a training that are of another type than facts are.

    Args:
        training: As a card keeps it.
        source: The file and the key, for the message.
        remedy: What to do, for the message.

    Raises:
        ModelError: One is.
    """
    convert(training, _Training, source=source, error=ModelError, remedy=remedy)


def require_summary(summary: Mapping[str, Any], *, source: str, remedy: str) -> None:
    """The same for the summary of scores, as a card and `summary.json` keep it.

    Raises:
        ModelError: A figure is of another type than figures are.

    Example:
        >>> require_summary({"labels": {"organ": {"shares": {"dice": 1}}}}, source="x.json", remedy="copy it")
        Traceback (most recent call last):
            ...
        medfcn.errors.ModelError: x.json: labels[...].shares[...]: expected object, found int; copy it
    """
    convert(summary, _Summary, source=source, error=ModelError, remedy=remedy)
