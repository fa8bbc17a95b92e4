"""medfcn trains, applies and scores 2D fully convolutional networks on NIfTI volumes.

    import medfcn

    run = medfcn.train("dataset", "runs/hippocampus", labels="hippocampus=1+2", budget="10m")
    model = medfcn.load("runs/hippocampus")
    mask = model.predict("case_017.nii.gz")              # a Volume on the case's own grid
    mask.save("case_017_mask.nii.gz")
    table = medfcn.evaluate("masks", "references")       # per case, per label
    tuned = medfcn.tune("dataset", "search", steps=500)  # settings for train, in search/best.toml

The commands of `medfcn --help` are functions here, with the same options. Importing medfcn does nothing: the
libraries that a name needs (torch, MONAI, nibabel) are loaded when the name is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from medfcn.libraries import loading

if TYPE_CHECKING:
    from medfcn.datasets.check import check as check
    from medfcn.errors import MedfcnError as MedfcnError
    from medfcn.evaluation import compare as compare
    from medfcn.evaluation import evaluate as evaluate
    from medfcn.evaluation.measure import measure as measure
    from medfcn.exporting.export import export as export
    from medfcn.inference.ensemble import load as load
    from medfcn.inference.model import Model as Model
    from medfcn.reporting.compose import report as report
    from medfcn.reporting.look import look as look
    from medfcn.runs.named_models import models as models
    from medfcn.training.train import plan as plan
    from medfcn.tuning.tune import tune as tune
    from medfcn.verbs.predicting import predict as predict
    from medfcn.verbs.training import train as train
    from medfcn.volumes import ReadOptions as ReadOptions
    from medfcn.volumes import Volume as Volume
    from medfcn.volumes import read_volume as read_volume

_HOMES = {
    "MedfcnError": "medfcn.errors",
    "Model": "medfcn.inference.model",
    "ReadOptions": "medfcn.volumes",
    "Volume": "medfcn.volumes",
    "check": "medfcn.datasets.check",
    "compare": "medfcn.evaluation",
    "evaluate": "medfcn.evaluation",
    "export": "medfcn.exporting.export",
    "load": "medfcn.inference.ensemble",
    "look": "medfcn.reporting.look",
    "measure": "medfcn.evaluation.measure",
    "models": "medfcn.runs.named_models",
    "plan": "medfcn.training.train",
    "predict": "medfcn.verbs.predicting",
    "read_volume": "medfcn.volumes",
    "report": "medfcn.reporting.compose",
    "train": "medfcn.verbs.training",
    "tune": "medfcn.tuning.tune",
}

__all__ = [
    "MedfcnError",
    "Model",
    "ReadOptions",
    "Volume",
    "check",
    "compare",
    "evaluate",
    "export",
    "load",
    "look",
    "measure",
    "models",
    "plan",
    "predict",
    "read_volume",
    "report",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        with loading():
            return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("medfcn")
    raise AttributeError(f"module 'medfcn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
