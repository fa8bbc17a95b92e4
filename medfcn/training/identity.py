"""What must be the same for a stopped training to go on: `state/training.json`."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from medfcn.config import to_tables
from medfcn.errors import TrainingError
from medfcn.files import write_json
from medfcn.runs.folder import RunFolder
from medfcn.settings import Settings
from medfcn.slices.plan import Plan
from medfcn.training.distributed import Machine, versions
from medfcn.training.folds import Split
from medfcn.training.schedule import Length
from medfcn.training.survey import Survey

_FORMAT = 1
_SHOWN = 3
"""Differences named in one message."""


def identity_of(
    found: Survey, split: Split, plan: Plan, settings: Settings, machine: Machine, length: Length
) -> dict[str, Any]:
    """Everything that the steps of a training follow from, except the number of threads and the first weights.

    How often to save is left out: what a training comes to does not depend on it. The number of processes counts as
    threads do: sums are rounded otherwise, and dropout draws otherwise.
    """
    tables = to_tables(settings)
    del tables["training"]["checkpoint_seconds"]
    planned = plan.to_json()
    del planned["reasons"]
    processes = machine.world.size
    numbers = {name: number for name, number in versions().items() if name != "python"}
    transforms = {} if found.transforms is None else {"transforms": found.transforms.to_json()}
    return {
        "format": _FORMAT,
        "settings": tables,
        "length": {"steps": length.steps, "budget_seconds": length.budget_seconds},
        "seed": machine.seed,
        "device": machine.device.type if processes == 1 else f"{processes} × {machine.device.type}",
        "versions": numbers,
        "labels": found.labels.to_json(),
        "reading": dataclasses.asdict(found.options),
        "training": {case: list(found.hashes[case]) for case in split.training},
        "validation": {case: list(found.hashes[case]) for case in split.validation},
        "plan": planned,
        "fold": split.fold,
        **transforms,
    }


def with_recorded_monai(identity: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, Any]:
    """`identity` with the version of MONAI that earlier medfcn recorded; another one is no other training.

    The slices are prepared once, and stay as they are; see `prepare`.
    """
    monai = recorded.get("versions", {}).get("monai")
    return {**identity, "versions": identity["versions"] | ({"monai": monai} if monai else {})}


def weights_key(weights: Mapping[str, torch.Tensor]) -> str:
    """A hash of weights, such as those that a training starts from."""
    content = hashlib.sha256()
    for name, tensor in weights.items():
        content.update(name.encode())
        content.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()


def key_of(identity: Mapping[str, Any]) -> str:
    """A hash of everything in an identity."""
    return hashlib.sha256(_canonical(identity).encode()).hexdigest()


def write_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    """Keep an identity in a run folder's `state/`."""
    write_json(RunFolder(folder).identity, identity)


def read_identity(folder: Path) -> dict[str, Any]:
    """What `state/` says must be the same; nothing when a training was stopped in the data check.

    Raises:
        TrainingError: The file is broken.
    """
    try:
        value = json.loads(RunFolder(folder).identity.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise TrainingError(
            f"{folder}: {RunFolder.identity} is broken, so it cannot be resumed; start again "
            "(--overwrite, overwrite=True)"
        )
    return value


def recorded_length(recorded: Mapping[str, Any]) -> Length | None:
    """The length that a stopped training was asked to be; None when nothing is recorded."""
    try:
        return Length(**recorded["length"])
    except (KeyError, TypeError):
        return None


def require_same(recorded: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with a training as something else than it was.

    Args:
        recorded: What `read_identity` gave.
        now: What the training would be now; parts that are not known yet may be left out.
        folder: The run folder, for the message.

    Raises:
        TrainingError: They differ; the message names what does.

    Example:
        >>> require_same({"seed": 1, "threads": 2}, {"seed": 3, "threads": 2}, Path("run"))
        Traceback (most recent call last):
            ...
        medfcn.errors.TrainingError: run: cannot be resumed as something else: seed is 3, was 1; resume it as it was \
started, or start again (--overwrite, overwrite=True)
    """
    then, here = (
        dict(_flat(json.loads(json.dumps({name: side[name] for name in now if name in recorded}))))
        for side in (recorded, now)
    )
    names = [name for name in here | then if here.get(name) != then.get(name)]
    if not names:
        return
    said = "; ".join(f"{name} is {_shown(here, name)}, was {_shown(then, name)}" for name in names[:_SHOWN])
    more = f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    raise TrainingError(
        f"{folder}: cannot be resumed as something else: {said}{more}; resume it as it was started, or start again "
        "(--overwrite, overwrite=True)"
    )


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _shown(values: Mapping[str, Any], name: str) -> str:
    return json.dumps(values[name], ensure_ascii=False) if name in values else "absent"
