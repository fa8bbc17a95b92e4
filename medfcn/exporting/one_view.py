"""Runs of one network and one view, which plain scripts can use, and what these need to know of them."""

import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import ModelError
from medfcn.exporting.phantom import Phantom
from medfcn.exporting.source import Source
from medfcn.files import make_folder, refuse_existing_file, write_together
from medfcn.inference.model import Model
from medfcn.inference.region import most_mm3
from medfcn.networks.graph import INPUT, SIZE, quiet_export, stride_of
from medfcn.networks.sliding import REACH, WHOLE_PIXELS
from medfcn.slices.plan import Intensity
from medfcn.slices.slicing import VIEW_AXIS
from medfcn.text import listed

LEAST_DICE = 0.9999
ANYWHERE = {"most_mm3": None}
"""The facts that are changed for a phantom, which is looked at as a whole; see `phantom.ANY_SIZE`."""
_FORMAT = 3
_STEPS, _STEPS_HERE = "steps.txt", "# steps\n"


@dataclass(frozen=True)
class ScriptedFormat:
    """A file of a network, with a script beside it that predicts without medfcn.

    Attributes:
        script: The name of the script's template.
        reader: The script in words, for messages.
        content: The file of a model's network.
        opened: Of the file's content, a function of what the script's `predicted` takes before the paths of a case.
    """

    script: str
    reader: str
    content: Callable[[Model], bytes]
    opened: Callable[[bytes], Callable[[], Any]]


def write_with_script(path: Path, source: Source, form: ScriptedFormat, *, overwrite: bool) -> None:
    """Write a network and a script that predicts with it, once they predict a phantom as the run does.

    Args:
        path: The network's file; the script is beside it, see `script_of`.
        source: The run.
        form: The form of both.
        overwrite: Replace an existing script.

    Raises:
        ModelError: The run needs more than the script can do, or both predict differently.
        MissingFileError: A library is not installed.
        OutputExistsError: There is a script already.
        WriteError: The disk is full, or the folder may not be written to.
    """
    script = script_of(path)
    refuse_existing_file(script, overwrite=overwrite)
    content, text = form.content(exportable(source, form.reader)), template(form.script)
    predicted = _predicted_by(form, content, text)
    with TemporaryDirectory() as folder, quiet_export():
        for phantom in source.phantoms:
            names = [Path(folder) / f"{volume.name}.nii.gz" for volume in phantom.volumes]
            paths = [each.save(name, overwrite=True) for each, name in zip(phantom.volumes, names, strict=True)]
            require_alike(phantom, predicted(paths), "the script's")
    make_folder(path.parent)
    write_together({path: content, script: text.encode()})


def script_of(path: Path) -> Path:
    """The script beside a network's file: each format has its own, so that one name can be exported as several.

    Example:
        >>> script_of(Path("heart.onnx")).name, script_of(Path("heart.pt2")).name
        ('heart_onnx.py', 'heart_pt2.py')
    """
    return path.with_name(f"{path.stem}_{path.suffix[1:]}.py")


def _predicted_by(form: ScriptedFormat, content: bytes, text: str) -> Callable[[Sequence[Path]], NDArray[Any]]:
    """The script's way from the files of a case to its mask."""
    module, opened = types.ModuleType(Path(form.script).stem), form.opened(content)
    names = vars(module)
    exec(compile(text, form.script, "exec"), names)
    whole = names["mask_image"]
    names["mask_image"] = lambda run, known, paths: whole(run, known | ANYWHERE, paths)
    return lambda paths: np.asarray(names["predicted"](opened(), paths).dataobj)


def exportable(source: Source, reader: str) -> Model:
    """The only network of a run, if it needs no more than plain scripts can do.

    Args:
        source: The run.
        reader: What cannot do more, for the message.

    Raises:
        ModelError: There are several, or it needs more; named.
    """
    model = source.loaded.models[0]
    card = model.card
    needs = {
        f"{len(source.files)} networks": len(source.files) > 1,
        f"the views {listed(card.plan.views)}": len(card.plan.views) > 1,
        "a volume's own statistics (slices.own_statistics)": card.plan.own_statistics > 0,
        "transforms of its own": bool(card.transforms),
        "labels that overlap": card.labels.overlapping,
        "mirror images": card.settings.prediction.tta,
    }
    found = [name for name, is_needed in needs.items() if is_needed]
    if found:
        instead = ", or train with --views axial" if len(card.plan.views) > 1 else ""
        raise ModelError(
            f"the run uses {listed(found)}, which {reader} does not know; export it without --format{instead}",
            field="format",
        )
    return model


def about(model: Model) -> dict[str, Any]:
    """The steps before and after the network, as plain values for scripts that run without medfcn."""
    card, plan = model.card, model.card.plan
    rules, slabs, every = model.rules, model.inferer.slabs, list(range(1, 1 + len(card.labels.entries)))
    return {
        "format": _FORMAT,
        "intended_use": card.intended_use,
        "labels": list(card.labels.names),
        "written": [entry.written for entry in card.labels.entries],
        "channels": list(card.channels),
        "sigmoid": model.head == "sigmoid",
        "logits": len(card.labels.entries) + (model.head == "softmax"),
        "threshold": rules.threshold,
        "parts": [every] * rules.together + [[index] for index in rules.one_part],
        "certainty": int(rules.needs_certainty),
        "view": plan.views[0],
        "axis": VIEW_AXIS[plan.views[0]],
        "spacing_mm": list(plan.spacing_mm),
        "window": list(plan.window),
        "context": plan.context,
        "whole": [plan.whole, min(plan.whole, REACH)] if model.network.takes_any_size else [1.0, 1.0],
        "whole_pixels": WHOLE_PIXELS,
        "stride": stride_of(model.network),
        "tile_overlap": card.settings.prediction.tile_overlap,
        "inputs": [INPUT, SIZE] if plan.turns else [INPUT],
        "batch": slabs.batch_size,
        "group": slabs.most,
        "group_pixels": slabs.pixels,
        "group_map_pixels": slabs.map_pixels,
        "most_mm3": most_mm3(card),
        "intensities": [_scaling(item) for item in plan.intensities],
        "weights_sha256": card.weights_sha256,
        "decides_sha256": card.decision_sha256,
    }


def _scaling(intensity: Intensity) -> dict[str, Any]:
    """How a channel is scaled. Bounds that clip nothing leave it as it is: that is one way less for a script."""
    kept = {name: getattr(intensity, name) for name in ("kind", "lower", "upper", "mean", "std", "background")}
    if intensity.kind == "none":
        most = float(np.finfo(np.float32).max)
        kept |= {"lower": -most, "upper": most, "mean": 0.0, "std": 1.0}
    return kept


def template(name: str) -> str:
    """The text of a script that runs without medfcn.

    The steps that all such scripts have (the way of a volume to the network grid, through the network in tiles, and
    back) are one text, which stands where a script says so.
    """
    folder = files("medfcn.exporting") / "templates"
    steps = (folder / _STEPS).read_text(encoding="utf-8")
    return (folder / name).read_text(encoding="utf-8").replace(_STEPS_HERE, steps)


def require_alike(phantom: Phantom, mask: NDArray[Any], whose: str) -> None:
    """Refuse an export that makes another mask of a phantom than the run.

    Args:
        phantom: The phantom.
        mask: That of the export.
        whose: Whose mask it is, for the message.

    Raises:
        ModelError: It does; the Dice and the size are named.
    """
    dice, size = phantom.dice_to(mask), "×".join(map(str, phantom.mask.shape))
    if not dice >= LEAST_DICE:
        raise ModelError(
            f"{whose} mask of a phantom of {size} voxels has a Dice of {dice:.5f} to the run's, expected "
            f"{LEAST_DICE}; nothing was written"
        )
