"""`medfcn export --format onnx`: the network for ONNX Runtime and OpenVINO, and a script that needs no torch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from medfcn.errors import ModelError, needing
from medfcn.exporting.one_view import ScriptedFormat, about, write_with_script
from medfcn.exporting.source import Source
from medfcn.inference.model import Model
from medfcn.networks.graph import OUTPUT, Exportable, exporting

OPSET = 26
"""The newest that ONNX Runtime 1.32 and OpenVINO 2026.4 read."""
METADATA_KEY = "medfcn"


def write_onnx(path: Path, source: Source, *, overwrite: bool) -> None:
    """Write an `.onnx` file and its script; see `write_with_script`."""
    form = ScriptedFormat("run_onnx.txt", "the script beside an ONNX file", onnx_bytes, _opened)
    write_with_script(path, source, form, overwrite=overwrite)


def onnx_bytes(model: Model) -> bytes:
    """The network of a model as an ONNX file, with all that is needed to use it in its metadata.

    The input `slices` is `(N, C, H, W)` float32, the output `logits` `(N, K, H, W)`. N is free, and H and W are free
    multiples of the network's coarsest stride, if it takes any size. A network that looks again at what it found
    takes the N slices for neighbours that share a place of the part, and as `size` `(2,)` int64 rows and columns of
    the slices without what fills them up to the stride.

    Raises:
        MissingFileError: onnx or onnxscript is not installed.
        ModelError: torch cannot export the network.
    """
    onnx = _required("onnx")
    _required("onnxscript")
    exported = Exportable.of(model.network, model.card.plan, model.head)
    with exporting("the network as ONNX", field="format"):
        program = torch.onnx.export(
            exported.network,
            tuple(exported.inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(exported.inputs),
            output_names=[OUTPUT],
            dynamic_shapes=exported.free,
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


def _opened(content: bytes) -> Callable[[], Any]:
    """One session of ONNX Runtime for all cases."""
    session = _required("onnxruntime").InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda: session
