"""`medfcn export --format onnx`: the network for ONNX Runtime and OpenVINO, and a script that needs no torch."""

import json
import types
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from medfcn.errors import ModelError, needing
from medfcn.exporting.one_view import about, exportable, require_alike, template
from medfcn.exporting.phantom import phantoms
from medfcn.exporting.source import Source
from medfcn.files import refuse_existing_file, write_together
from medfcn.inference.model import Model
from medfcn.networks.graph import INPUT, OUTPUT, PaddedNetwork, example_of, exporting, free_edges

OPSET = 26
"""The newest that ONNX Runtime 1.32 and OpenVINO 2026.4 read."""
METADATA_KEY = "medfcn"
_SCRIPT = "run_onnx.txt"


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
    model = exportable(source, "the script beside an ONNX file")
    content = onnx_bytes(model)
    text = template(_SCRIPT)
    _require_alike(source, content, text)
    write_together({path: content, script: text.encode()})


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
    with exporting("the network as ONNX", field="format"):
        program = torch.onnx.export(
            PaddedNetwork(network).cpu().eval(),
            (example_of(network, plan.channels_in, plan.window),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=free_edges(network),
            verbose=False,
        )
    if program is None:
        raise ModelError("torch exported nothing", field="format")
    proto = program.model_proto
    for node in proto.graph.node:  # where in whose Python files it came from
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(about(model), sort_keys=True)})
    result: bytes = proto.SerializeToString(deterministic=True)
    return result


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
            theirs = np.asarray(script.predicted(session, paths).dataobj)
            require_alike(source, list(map(str, paths)), theirs, "the script's")
