"""`medfcn export --format pt2`: the network as a program of torch.export, and a script that predicts with it."""

import io
import json
import types
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from medfcn.exporting.one_view import about, exportable, require_alike, template
from medfcn.exporting.phantom import phantoms
from medfcn.exporting.source import Source
from medfcn.files import refuse_existing_file, write_together
from medfcn.inference.model import Model
from medfcn.networks.graph import PaddedNetwork, example_of, exporting, free_edges, quiet_export

_SCRIPT, _ABOUT = "run_pt2.txt", "medfcn.json"


def write_pt2(path: Path, source: Source, *, overwrite: bool) -> None:
    """Write a network and a script that predicts with it, once they predict a phantom as the run does.

    Args:
        path: The `.pt2` file; the script is beside it, with the ending `.py`.
        source: The run.
        overwrite: Replace an existing script.

    Raises:
        ModelError: The run needs more than the script can do, or both predict differently.
        OutputExistsError: There is a script already.
        WriteError: The disk is full, or the folder may not be written to.
    """
    script = path.with_suffix(".py")
    refuse_existing_file(script, overwrite=overwrite)
    content, text = pt2_bytes(exportable(source, "the script beside a .pt2 file")), template(_SCRIPT)
    _require_alike(source, content, text)
    write_together({path: content, script: text.encode()})


def pt2_bytes(model: Model) -> bytes:
    """The network of a model as a file of `torch.export`, with all that is needed to use it as `medfcn.json` in it.

    The input is `(N, C, H, W)` float32, the output `(N, K, H, W)`. N is free, and H and W are free multiples of the
    network's coarsest stride, if it takes any size.

    Raises:
        ModelError: torch cannot export the network.
    """
    network, plan = model.network, model.card.plan
    example = example_of(network, plan.channels_in, plan.window)
    written = io.BytesIO()
    with exporting("the network", field="format"):
        program = torch.export.export(
            PaddedNetwork(network).cpu().eval(), (example,), dynamic_shapes=free_edges(network)
        )
        torch.export.save(program, written, extra_files={_ABOUT: json.dumps(about(model), sort_keys=True)})
    return written.getvalue()


def _require_alike(source: Source, content: bytes, text: str) -> None:
    """Refuse an export whose script makes other masks of the phantom than the run."""
    script = types.ModuleType("run_pt2")
    exec(compile(text, _SCRIPT, "exec"), vars(script))
    with TemporaryDirectory() as folder, quiet_export():
        for volumes in phantoms(source.loaded.card):
            paths = [volume.save(Path(folder) / f"{volume.name}.nii.gz", overwrite=True) for volume in volumes]
            theirs = np.asarray(script.predicted(io.BytesIO(content), paths).dataobj)
            require_alike(source, list(map(str, paths)), theirs, "the script's")
