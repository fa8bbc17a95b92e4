"""`medfcn export --format onnx`: the network for ONNX Runtime and OpenVINO, and a script that needs no torch."""

import json
import types
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from medfcn.errors import ModelError, needing
from medfcn.exporting.phantom import dice_of, phantoms
from medfcn.exporting.source import Source
from medfcn.files import refuse_existing_file, write_together
from medfcn.inference.model import Model
from medfcn.networks.graph import INPUT, OUTPUT, PaddedNetwork, example_of, quiet_export, stride_of
from medfcn.networks.sliding import WHOLE
from medfcn.slices.slicing import VIEW_AXIS
from medfcn.text import listed
from medfcn.volumes import Volume

OPSET = 26
"""The newest that ONNX Runtime 1.32 and OpenVINO 2026.4 read."""
METADATA_KEY = "medfcn"
LEAST_DICE = 0.9999
_FORMAT = 1
_SCRIPT = "templates/run_onnx.txt"


def write_onnx(path: Path, source: Source, *, overwrite: bool) -> None:
    """Write a network and a script that predicts with it, once they predict a phantom as the run does.

    Args:
        path: The `.onnx` file; the script is beside it, with the ending `.py`.
        source: The run.
        overwrite: Replace an existing script.

    Raises:
        ModelError: The run needs more than the script can do, or both predict differently.
        MissingFileError: A library is not installed.
        OutputExistsError: There is a script already.
        WriteError: The disk is full, or the folder may not be written to.
    """
    script = path.with_suffix(".py")
    refuse_existing_file(script, overwrite=overwrite)
    model = _exportable(source)
    content = onnx_bytes(model)
    text = (files("medfcn.exporting") / _SCRIPT).read_text(encoding="utf-8")
    _require_alike(source, content, text)
    write_together({path: content, script: text.encode()})


def _exportable(source: Source) -> Model:
    """The only network of a run that the script can use.

    Raises:
        ModelError: There are several, or it needs more; named.
    """
    model = source.loaded.models[0]
    card = model.card
    needs = {
        f"{len(source.files)} networks": len(source.files) > 1,
        f"the views {listed(card.plan.views)}": len(card.plan.views) > 1,
        "transforms of its own": bool(card.transforms),
        "labels that overlap": card.labels.overlapping,
        "mirror images": card.settings.prediction.tta,
    }
    found = [name for name, is_needed in needs.items() if is_needed]
    if found:
        raise ModelError(
            f"the run uses {listed(found)}, which the script beside an ONNX file does not know; export it without "
            "--format",
            field="format",
        )
    return model


def onnx_bytes(model: Model) -> bytes:
    """The network of a model as an ONNX file, with all that is needed to use it in its metadata.

    The input `slices` is `(N, C, H, W)` float32, the output `logits` `(N, K, H, W)`. N is free, and H and W are free
    multiples of the network's coarsest stride, if it takes any size.

    Raises:
        MissingFileError: onnx or onnxscript is not installed.
        ModelError: torch cannot export the network.
    """
    onnx = _required("onnx")
    _required("onnxscript")
    network, plan = model.network, model.card.plan
    free = torch.export.Dim.DYNAMIC
    dynamic = {0: free, 2: free, 3: free} if network.takes_any_size else {0: free}
    with quiet_export():
        try:
            program = torch.onnx.export(
                PaddedNetwork(network).cpu().eval(),
                (example_of(network, plan.channels_in, plan.window),),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={INPUT: dynamic},
                verbose=False,
            )
        except Exception as error:  # whatever torch raises for an operation that ONNX does not have
            raise ModelError(f"torch cannot export the network as ONNX: {error}", field="format") from error
    if program is None:
        raise ModelError("torch exported nothing", field="format")
    proto = program.model_proto
    for node in proto.graph.node:  # where in whose Python files it came from
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(about(model), sort_keys=True)})
    result: bytes = proto.SerializeToString(deterministic=True)
    return result


def about(model: Model) -> dict[str, Any]:
    """The steps before and after the network, as plain values."""
    card, plan = model.card, model.card.plan
    rules = model.rules
    return {
        "format": _FORMAT,
        "intended_use": card.intended_use,
        "labels": list(card.labels.names),
        "written": [entry.written for entry in card.labels.entries],
        "channels": list(card.channels),
        "sigmoid": model.head == "sigmoid",
        "logits": len(card.labels.entries) + (model.head == "softmax"),
        "threshold": rules.threshold,
        "one_part": list(rules.one_part),
        "certainty": int(rules.needs_certainty),
        "view": plan.views[0],
        "axis": VIEW_AXIS[plan.views[0]],
        "spacing_mm": list(plan.spacing_mm),
        "window": list(plan.window),
        "context": plan.context,
        "whole": WHOLE if model.network.takes_any_size else 1.0,
        "stride": stride_of(model.network),
        "tile_overlap": card.settings.prediction.tile_overlap,
        "intensities": [
            {name: getattr(item, name) for name in ("kind", "lower", "upper", "mean", "std", "background")}
            for item in plan.intensities
        ],
        "weights_sha256": card.weights_sha256,
        "decides_sha256": card.decision_sha256,
    }


def _required(name: str) -> Any:
    """A library of the extra `onnx`.

    Raises:
        MissingFileError: It is not installed.
    """
    import importlib

    with needing(name, "ONNX", "onnx"):
        return importlib.import_module(name)


def _require_alike(source: Source, content: bytes, text: str) -> None:
    """Refuse an export whose script makes other masks of the phantom than the run.

    Raises:
        ModelError: It does; the Dice and the size are named.
    """
    script = types.ModuleType("run_onnx")
    exec(compile(text, _SCRIPT, "exec"), vars(script))
    session = _required("onnxruntime").InferenceSession(content, providers=["CPUExecutionProvider"])
    with TemporaryDirectory() as folder:
        for volumes in phantoms(source.loaded.card):
            paths = [volume.save(Path(folder) / f"{volume.name}.nii.gz", overwrite=True) for volume in volumes]
            ours = source.loaded.predict_case(list(map(str, paths))).mask
            theirs = np.asarray(script.predicted(session, paths).dataobj)
            dice = dice_of(ours.array, theirs)
            if not dice >= LEAST_DICE:
                raise ModelError(
                    f"the script's mask of a phantom of {_size(ours)} voxels has a Dice of {dice:.5f} to the run's, "
                    f"expected {LEAST_DICE}; nothing was written"
                )


def _size(volume: Volume) -> str:
    return "×".join(map(str, volume.shape))
