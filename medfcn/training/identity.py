"""Everything that must be the same for a stopped training to continue: `state/training.json`."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import torch

from medfcn.config import to_tables
from medfcn.decoding import convert, read_json
from medfcn.errors import TrainingError
from medfcn.files import write_json
from medfcn.inference.devices import MOST_THREADS
from medfcn.runs.folder import RunFolder
from medfcn.settings import Settings
from medfcn.slices.plan import USUAL, Plan
from medfcn.text import listed
from medfcn.training.differences import differences
from medfcn.training.distributed import Machine, versions
from medfcn.training.folds import Split
from medfcn.training.schedule import Length
from medfcn.training.state import STEPS_MOST
from medfcn.training.survey import Survey

PRECISIONS = "precisions"
"""The entry with the arithmetic of the steps so far; a machine that computes otherwise may go on."""
_FORMAT = 1
_Step = Annotated[int, msgspec.Meta(ge=0, le=STEPS_MOST)]
_AGAIN = "start again (--overwrite, overwrite=True)"


def identity_of(
    found: Survey, split: Split, plan: Plan, settings: Settings, machine: Machine, length: Length
) -> dict[str, Any]:
    """Everything that decides the steps of a training, except the number of threads and the first weights.

    How often checkpoints are saved is left out: the result does not depend on it. The number of processes is in it,
    as threads are: sums are rounded differently, and dropout draws differently.
    """
    planned = plan.to_json()
    del planned["reasons"]
    processes = machine.world.size
    transforms = {} if found.transforms is None else {"transforms": found.transforms.to_json()}
    drawn = {"labelled": {case: list(of_case) for case, of_case in found.drawn.items()}} if found.drawn else {}
    return {
        "format": _FORMAT,
        "settings": deciding_settings(settings),
        "length": length.to_json(),
        "seed": machine.seed,
        "device": machine.device.type if processes == 1 else f"{processes} × {machine.device.type}",
        "versions": {name: number for name, number in versions().items() if name != "python"},
        "labels": found.labels.to_json(),
        "reading": found.options.recorded(),
        "training": {case: list(found.hashes[case]) for case in split.training},
        "validation": {case: list(found.hashes[case]) for case in split.validation},
        "plan": planned,
        "fold": split.fold,
        **transforms,
        **drawn,
    }


def with_recorded_monai(identity: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, Any]:
    """`identity` with the version of MONAI that earlier medfcn recorded; another one is no other training.

    The slices are prepared once, and stay as they are; see `prepare`.
    """
    monai = recorded.get("versions", {}).get("monai")
    return {**identity, "versions": identity["versions"] | ({"monai": monai} if monai else {})}


def deciding_settings(settings: Settings) -> dict[str, Any]:
    """The settings that decide the result of a training."""
    tables = to_tables(settings)
    del tables["training"]["checkpoint_seconds"]
    for table, name in (
        ("slices", "crop"),
        ("slices", "turns"),
        ("slices", "apart"),
        ("slices", "own_statistics"),
        ("augment", "movement"),
    ):
        if tables[table][name] == "auto":  # as in earlier medfcn; the plan says what was chosen
            del tables[table][name]
    if not settings.training.micro_batch:  # as in earlier medfcn, which had no such setting
        del tables["training"]["micro_batch"], tables["training"]["micro_batch_from"]
    return tables


def as_recorded(plan: Plan, recorded: Mapping[str, Any]) -> Plan:
    """`plan` as a stopped training had it, as far as earlier medfcn had no choice there and recorded none.

    Such are the rule for the background by which it prepared its slices, and the fields of `USUAL`.
    """
    before = recorded.get("plan", {})
    for name, value in USUAL.items() if before else ():
        if name not in before and getattr(plan, name) != value:
            reasons = {part: why for part, why in plan.reasons.items() if part != name}
            plan = dataclasses.replace(plan, reasons=reasons, **{name: value})
    intensities = before.get("intensities", [])
    if not intensities or any("background" in intensity for intensity in intensities):
        return plan
    old = tuple(msgspec.structs.replace(intensity, background="minimum") for intensity in plan.intensities)
    return dataclasses.replace(plan, intensities=old)


def with_precision(identity: Mapping[str, Any], precision: str, *, goes_on: bool) -> dict[str, Any]:
    """`identity` with the arithmetic of the steps to come.

    Args:
        identity: Of the training.
        precision: `float32` or `bfloat16`.
        goes_on: There are steps before, of which earlier medfcn recorded nothing.

    Example:
        >>> begun = with_precision({}, "bfloat16", goes_on=False)
        >>> with_precision(begun, "float32", goes_on=True)
        {'precisions': ['bfloat16', 'float32']}
    """
    before = list(identity.get(PRECISIONS, [])) if goes_on else []
    return {**identity, PRECISIONS: before if before[-1:] == [precision] else [*before, precision]}


def _kept(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that must stay the same."""
    return {name: value for name, value in identity.items() if name != PRECISIONS}


def weights_key(weights: Mapping[str, torch.Tensor]) -> str:
    """A hash of weights, such as the first ones of a training."""
    content = hashlib.sha256()
    for name, tensor in weights.items():
        content.update(name.encode())
        content.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()


def key_of(identity: Mapping[str, Any]) -> str:
    """A hash of everything in an identity that must stay the same."""
    return hashlib.sha256(json.dumps(_kept(identity), sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def write_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    """Keep an identity in a run folder."""
    write_json(RunFolder(folder).identity, identity)


def read_identity(folder: Path) -> dict[str, Any]:
    """The identity in a run folder; empty if its training was stopped in the data check.

    Raises:
        TrainingError: The file is broken.
    """
    path = RunFolder(folder).identity
    if not path.is_file():
        return {}
    try:
        recorded = read_json(path, dict[str, Any], error=TrainingError, remedy=_AGAIN)
        require_sound(recorded, source=path.name)
    except TrainingError as error:
        raise TrainingError(f"{folder}: cannot be resumed: {error}", code="CHECKPOINT_BROKEN") from error
    return recorded


class _Length(msgspec.Struct, frozen=True):
    steps: Annotated[int, msgspec.Meta(ge=1, le=STEPS_MOST)] | None = None
    budget_seconds: Annotated[float, msgspec.Meta(ge=0, le=1e10)] | None = None
    changes: list[tuple[_Step, _Step]] = []


class _Plan(msgspec.Struct, frozen=True):
    intensities: list[dict[str, Any]] = []


class _Transform(msgspec.Struct, frozen=True):
    name: str
    arguments: dict[str, Any] | None
    sha256: str


class _Entry(msgspec.Struct, frozen=True):
    name: str
    values: list[int | list[int]] | str = []
    structures: list[str] = []


class _Labels(msgspec.Struct, frozen=True):
    entries: list[_Entry] | str = []


class _Used(msgspec.Struct, frozen=True):
    """The entries of an identity that are used before it is compared, or are put into words as a whole."""

    length: _Length = _Length()
    threads: Annotated[int, msgspec.Meta(ge=1, le=MOST_THREADS)] | None = None
    versions: dict[str, str] = {}
    plan: _Plan = _Plan()
    transforms: list[_Transform] = []
    labels: _Labels = _Labels()
    training: dict[str, list[str]] = {}
    validation: dict[str, list[str]] = {}
    precisions: list[Literal["float32", "bfloat16"]] = []


def require_sound(recorded: Mapping[str, Any], *, source: str) -> None:
    """Refuse a recorded identity with values that none has.

    Raises:
        TrainingError: There is one.
    """
    convert(dict(recorded), _Used, source=source, error=TrainingError, remedy=_AGAIN)


def recorded_length(recorded: Mapping[str, Any]) -> Length | None:
    """The requested length of a stopped training; None if nothing is recorded."""
    try:
        return Length.from_json(recorded["length"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def require_same(recorded: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Refuse to resume a training as a different one.

    Args:
        recorded: The result of `read_identity`.
        now: The identity now; entries that are not known yet may be left out.
        folder: The run folder, for the message.

    Raises:
        TrainingError: They differ; the message names the differences.

    Example:
        >>> require_same({"seed": 1, "threads": 2}, {"seed": 3, "threads": 2}, Path("run"))
        Traceback (most recent call last):
            ...
        medfcn.errors.TrainingError: run: cannot be resumed as something else: seed is 3, was 1; resume it as it was \
started, or start again (overwrite=True)
    """
    found = differences(_kept(recorded), _kept(now))
    if found:
        changes = listed((words for _, words in found), limit=3, separator="; ")
        raise TrainingError(
            f"{folder}: cannot be resumed as something else: {changes}; resume it as it was started, or {_AGAIN}",
            code="RUN_DIFFERS",
            field=found[0][0],
        )
