"""The files of a MONAI Bundle besides its weights and scripts: its configuration, its metadata, and their schema."""

import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from medfcn.errors import OutputExistsError
from medfcn.exporting.one_view import about
from medfcn.exporting.source import Source
from medfcn.inference.model import Model
from medfcn.text import listed

METADATA_FILE, INFERENCE_FILE = "configs/metadata.json", "configs/inference.json"
SCHEMA_FILE = "configs/metadata_schema.json"
SCHEMA_URL = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)
_VERSION = "1.0.0"
_STEPS = "scripts.steps"
_READ_BY_MONAI = re.compile(r"[$@%#:]")
"""Characters by which MONAI's configuration refers to other entries, to files, or to code to be run."""
_TEXTS = ("labels", "channels", "intended_use")
"""Texts of others, which have no place in a configuration."""
_LIBRARIES = ("nibabel", "pytorch-ignite", "fire")


def inference_config(model: Model) -> dict[str, Any]:
    """`inference.json`: what `python -m monai.bundle run` does."""
    known = about(model)
    network = "scripts.looking.LookingNetwork" if model.card.plan.turns else "scripts.network.Network"
    steps = {name: value for name, value in known.items() if name not in _TEXTS}
    reading = [
        {"_target_": f"{_STEPS}.LoadCased", "keys": "image", "about": "@steps"},
        {"_target_": f"{_STEPS}.ToNetworkGridd", "keys": "image", "about": "@steps"},
    ]
    saving = [
        {"_target_": f"{_STEPS}.ToMaskd", "keys": "pred", "about": "@steps"},
        {"_target_": f"{_STEPS}.SaveMaskd", "keys": "pred", "output_dir": "@output_dir"},
    ]
    return {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "steps": steps,
        "network_def": {"_target_": network},
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": reading},
        "dataset": {
            "_target_": "Dataset",
            "data": {
                "_target_": f"{_STEPS}.cases_in",
                "folder": "@dataset_dir",
                "channels": len(model.card.channels),
            },
            "transform": "@preprocessing",
        },
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 0,
        },
        "inferer": {"_target_": f"{_STEPS}.SlicesInferer", "about": "@steps"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": saving,
        },
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
                "map_location": "@device",
            }
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
            "amp": False,
        },
        "run": ["$@evaluator.run()"],
    }


def safe(text: str) -> str:
    """A text that MONAI's configuration takes as text, whatever it says.

    Example:
        >>> safe("$import os"), safe("tumour (core)")
        ('_import os', 'tumour (core)')
    """
    return _READ_BY_MONAI.sub("_", text)


def metadata(source: Source, model: Model) -> dict[str, Any]:
    """`metadata.json`, as the specification of MONAI Bundles wants it."""
    card = model.card
    labels, plan = [safe(name) for name in card.labels.names], card.plan
    medfcn = safe(str(card.versions.get("medfcn", "")))
    seen = [
        f"{safe(channel)}, slice {offset:+d}" if offset else safe(channel)
        for offset in range(-(plan.context // 2), plan.context // 2 + 1)
        for channel in card.channels
    ]
    classes = [*(["background"] if model.head == "softmax" else []), *labels]
    size: list[Any] = ["*", "*"] if model.network.takes_any_size else list(plan.window)
    values = ", ".join(f"{entry.written} is {safe(entry.name)}" for entry in card.labels.entries)
    return {
        "schema": SCHEMA_URL,
        "version": _VERSION,
        "changelog": {_VERSION: f"exported by medfcn {version('medfcn')}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch"),
        "numpy_version": np.__version__,
        "required_packages_version": {name: version(name) for name in _LIBRARIES},
        "optional_packages_version": {},
        "name": safe(source.name),
        "task": f"Segmentation of {listed(labels)}",
        "description": f"A 2D fully convolutional network, trained by medfcn {medfcn}, on {plan.views[0]} slices of "
        f"volumes of {listed(safe(name) for name in card.channels)}. docs/README.md is its model card.",
        "authors": "stated in docs/README.md, if they are",
        "copyright": "stated in docs/README.md, if it is",
        "data_source": "stated in docs/README.md, if it is",
        "data_type": "nifti",
        "image_classes": f"{listed(seen)}, scaled by scripts/steps.py",
        "label_classes": f"0 is background, {values}",
        "pred_classes": f"0 is background, {values}",
        "eval_metrics": _mean_dice(source.scores),
        "intended_use": safe(card.intended_use),
        "references": ["Long, Shelhamer, Darrell, Fully convolutional networks for semantic segmentation, CVPR 2015"],
        "network_data_format": {
            "inputs": {"image": _format("magnitude", size, seen)},
            "outputs": {"pred": _format("segmentation", size, classes)},
        },
    }


def _format(kind: str, size: list[Any], channels: list[str]) -> dict[str, Any]:
    return {
        "type": "image",
        "format": kind,
        "num_channels": len(channels),
        "spatial_shape": size,
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": {str(place): name for place, name in enumerate(channels)},
    }


def _mean_dice(scores: Mapping[str, Any]) -> dict[str, float]:
    """The mean Dice of each label on cases that the network was not trained on, as far as it is known."""
    found: dict[str, float] = {}
    labels = scores.get("labels")
    for name, figures in labels.items() if isinstance(labels, Mapping) else ():
        mean = figures.get("shares", {}).get("dice", {}).get("mean") if isinstance(figures, Mapping) else None
        if isinstance(mean, int | float):
            found[f"mean_dice of {safe(name)}"] = float(mean)
    return found


def schema() -> dict[str, Any]:
    """The schema of `metadata.json`, with which MONAI's `verify_metadata` verifies it offline.

    Source:
        The fields that the specification of MONAI Bundles calls required, and their types:
        https://docs.monai.io/en/stable/mb_specification.html
    """
    text, table = {"type": "string"}, {"type": "object"}
    numbers = {"type": "array", "items": {"type": "number"}}
    image = {
        "type": "object",
        "properties": {
            "type": text,
            "format": text,
            "num_channels": {"type": "integer", "minimum": 1},
            "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"]}},
            "dtype": text,
            "value_range": numbers,
            "is_patch_data": {"type": "boolean"},
            "channel_def": {"type": "object", "additionalProperties": text},
        },
    }
    image["required"] = list(image["properties"])

    def holding(name: str) -> dict[str, Any]:
        return {"type": "object", "properties": {name: image}, "required": [name]}

    known: dict[str, Any] = dict.fromkeys(
        ("schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description"), text
    )
    known |= dict.fromkeys(("authors", "copyright"), text)
    known |= dict.fromkeys(("changelog", "required_packages_version"), table)
    known["network_data_format"] = {
        "type": "object",
        "properties": {"inputs": holding("image"), "outputs": holding("pred")},
        "required": ["inputs", "outputs"],
    }
    optional = dict.fromkeys(("name", "data_source", "data_type", "image_classes", "label_classes"), text)
    optional |= dict.fromkeys(("pred_classes", "intended_use"), text)
    optional |= {"eval_metrics": table, "optional_packages_version": table, "references": {"type": "array"}}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": known | optional,
        "required": list(known),
    }


def refuse_existing_bundle(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder in which there is something else than a bundle that may be replaced.

    Raises:
        OutputExistsError: It is.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    is_empty = folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())
    is_bundle = folder.is_dir() and (folder / INFERENCE_FILE).is_file() and (folder / METADATA_FILE).is_file()
    if is_empty or (overwrite and is_bundle and not folder.is_symlink()):
        return
    if overwrite:
        raise OutputExistsError(f"{folder}: is no bundle, and is not replaced; choose another output", field="output")
    raise OutputExistsError(
        f"{folder}: already exists; choose another output, or replace it (--overwrite, overwrite=True)",
        field="output",
    )
