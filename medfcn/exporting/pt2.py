"""`medfcn export --format pt2`: the network as a program of torch.export, and a script that predicts with it."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import torch

from medfcn.exporting.one_view import ScriptedFormat, about, write_with_script
from medfcn.exporting.source import Source
from medfcn.inference.model import Model
from medfcn.networks.graph import Exportable, exporting

_ABOUT = "medfcn.json"


def write_pt2(path: Path, source: Source, *, overwrite: bool) -> None:
    """Write a `.pt2` file and its script; see `write_with_script`."""
    form = ScriptedFormat("run_pt2.txt", "the script beside a .pt2 file", pt2_bytes, _opened)
    write_with_script(path, source, form, overwrite=overwrite)


def pt2_bytes(model: Model) -> bytes:
    """The network of a model as a file of `torch.export`, with all that is needed to use it as `medfcn.json` in it.

    Inputs and output are those of `onnx_bytes`.

    Raises:
        ModelError: torch cannot export the network.
    """
    exported, written = Exportable.of(model.network, model.card.plan, model.head), io.BytesIO()
    with exporting("the network", field="format"):
        program = torch.export.export(exported.network, tuple(exported.inputs.values()), dynamic_shapes=exported.free)
        torch.export.save(program, written, extra_files={_ABOUT: json.dumps(about(model), sort_keys=True)})
    return written.getvalue()


def _opened(content: bytes) -> Callable[[], io.BytesIO]:
    """An open file for each case."""
    return lambda: io.BytesIO(content)
