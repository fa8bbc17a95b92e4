"""medfcn trains, applies and scores 2D fully convolutional networks on NIfTI volumes.

    import medfcn

    run = medfcn.train("dataset", "runs/hippocampus", labels="hippocampus=1+2", budget="10m")
    model = medfcn.load("runs/hippocampus")
    mask = model.predict("case_017.nii.gz")           # a Volume on the case's own grid
    mask.save("case_017_mask.nii.gz")
    table = medfcn.evaluate("masks", "references")     # per case, per label
    tuned = medfcn.tune("dataset", "search", steps=500)  # settings for train, in search/best.toml

Importing medfcn does nothing: what a name needs (torch, MONAI, nibabel) is loaded when the name is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medfcn.errors import MedfcnError as MedfcnError
    from medfcn.evaluation import evaluate as evaluate
    from medfcn.inference.ensemble import load as load
    from medfcn.inference.model import Model as Model
    from medfcn.inference.predict import predict as predict
    from medfcn.training.train import train as train
    from medfcn.tuning.tune import tune as tune
    from medfcn.volumes import Volume as Volume
    from medfcn.volumes import read_volume as read_volume

_HOMES = {
    "MedfcnError": "medfcn.errors",
    "Model": "medfcn.inference.model",
    "Volume": "medfcn.volumes",
    "evaluate": "medfcn.evaluation",
    "load": "medfcn.inference.ensemble",
    "predict": "medfcn.inference.predict",
    "read_volume": "medfcn.volumes",
    "train": "medfcn.training.train",
    "tune": "medfcn.tuning.tune",
}

__all__ = ["MedfcnError", "Model", "Volume", "evaluate", "load", "predict", "read_volume", "train", "tune"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("medfcn")
    raise AttributeError(f"module 'medfcn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
