"""A trained model in a form that travels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from medfcn.calls import called_with
from medfcn.errors import SettingsError
from medfcn.exporting.one_file import write_one_file
from medfcn.exporting.source import Source
from medfcn.files import refuse_existing_file
from medfcn.libraries import require_installed
from medfcn.progress import Progress, reporting
from medfcn.runs.one_file import ENDING
from medfcn.text import listed

if TYPE_CHECKING:
    from medfcn.monai.case_transforms import Transforms

Format = Literal["medfcn", "onnx", "pt2", "bundle"]
_ENDINGS = {"medfcn": ENDING, "onnx": ".onnx", "pt2": ".pt2", "bundle": ""}


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """The options of `export`.

    Attributes:
        run: A run folder, a `.medfcn` file, or a name that `medfcn models` lists.
        output: The file to make; for a bundle, the folder.
        format: `medfcn` is one file that medfcn itself reads; `onnx` a network for ONNX Runtime and OpenVINO, with a
            script beside it that predicts without torch; `pt2` a program of `torch.export`, with a script beside it
            that predicts without medfcn; `bundle` a MONAI Bundle, which MONAI runs without medfcn.
        scores: A folder of scores (with a `summary.json`) for the model's card, instead of those of the run.
        about: A file of Markdown on the data and their licence, for the model's card.
        overwrite: Replace an existing file or bundle.
        transforms: The MONAI transforms that the run was trained with, if its card cannot hold them.
        progress: Where messages are reported.
    """

    run: Path | str = field(kw_only=False)
    output: Path | str = field(kw_only=False)
    format: Format = "medfcn"
    about: Path | str | None = None
    scores: Path | str | None = None
    overwrite: bool = False
    transforms: Transforms | None = None
    progress: Progress | None = None


@called_with(ExportRequest)
def export(request: ExportRequest) -> Path:
    """Write a trained model in a form that travels.

    The export is tried on a phantom in several sizes before its file gets its name, of one view on slices that are
    cut into tiles too; labels that the run finds in none of them are named.

    Returns:
        The file, or the folder of a bundle.

    Raises:
        OutputExistsError: It exists, and `overwrite` is false; or it is a folder and no bundle.
        SettingsError: The output has another ending than files of this format.
        MissingFileError: The run does not exist, or a library for the format is not installed.
        ModelError: The run cannot be loaded or exported, or the export predicts something else than the run.
        WriteError: The disk is full, or the folder may not be written to.
    """
    output, progress = Path(request.output), reporting(request.progress)
    if request.format not in get_args(Format):
        raise SettingsError(f"format {request.format!r}: not one of {listed(get_args(Format))}", field="format")
    require_installed(request.format)
    ending = _ENDINGS[request.format]
    if not output.name.endswith(ending):
        raise SettingsError(f"{output}: does not end in {ending}, as files of this format do", field="output")
    if request.format == "bundle":
        from medfcn.exporting.bundle_files import refuse_existing_bundle

        if output.suffix in (*filter(None, _ENDINGS.values()), ".zip"):
            raise SettingsError(f"{output}: a bundle is a folder; leave the ending out", field="output")
        refuse_existing_bundle(output, overwrite=request.overwrite)
    else:
        refuse_existing_file(output, overwrite=request.overwrite)
    name = output.name.removesuffix(ending)
    source = Source.of(
        request.run, name=name, about=request.about, scores_in=request.scores, transforms=request.transforms
    )
    if request.format == "onnx":
        from medfcn.exporting.onnx import write_onnx

        write_onnx(output, source, overwrite=request.overwrite)
    elif request.format == "pt2":
        from medfcn.exporting.pt2 import write_pt2

        write_pt2(output, source, overwrite=request.overwrite)
    elif request.format == "bundle":
        from medfcn.exporting.bundle import write_bundle

        write_bundle(output, source, overwrite=request.overwrite)
    else:
        write_one_file(output, source)
    found = {value for phantom in source.phantoms for value in np.unique(phantom.mask.array).tolist()}
    unseen = [entry.name for entry in source.loaded.card.labels.entries if entry.written not in found]
    lacks = f"; the run finds no {listed(unseen)} in it" if unseen else ""
    progress.say(f"{output.name} predicts a phantom in several sizes as the run does{lacks}")
    return output
