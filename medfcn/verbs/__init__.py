"""The calls that also write a report: above everything they put together.

Each is loaded when it is first used: a prediction needs nothing of training.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medfcn.verbs.predicting import predict as predict
    from medfcn.verbs.training import train as train

_HOMES = {"predict": "medfcn.verbs.predicting", "train": "medfcn.verbs.training"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'medfcn.verbs' has no attribute {name!r}")
