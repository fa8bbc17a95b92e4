"""Exports beside predict: probabilities, masks and CPU seconds on real volumes, engine after engine in turn.

    python benchmarks/exports.py DATA --model hippocampus-mr [--cases FILE] [--rounds 2]

DATA has a folder images/; of its volumes those are taken that FILE names, one a line. Needs
`pip install -c constraints.txt -e '.[onnx,bundle]'`; OpenVINO is measured too where it is installed. One thread each.
"""

import argparse
import shutil
import time
import types
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

import medfcn
from medfcn.datasets.tables import read_ids
from medfcn.exporting.bundle import run_bundle
from medfcn.exporting.one_view import about, script_of
from medfcn.exporting.phantom import dice_of
from medfcn.inference.model import Model
from medfcn.inference.probabilities import foreground
from medfcn.slices.preprocess import network_image
from medfcn.volumes import read_volume

TEST = Path(__file__).parent / "hippocampus_test.txt"
Run = Callable[..., NDArray[np.float32]]


def engines(onnx: Path, pt2: Path, inputs: list[str]) -> dict[str, Run]:
    """Each engine as what the script's steps run: slices, and their size if the network looks again, to logits."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    program = torch.export.load(pt2).module()

    def of_torch(*given: NDArray[Any]) -> NDArray[np.float32]:
        with torch.no_grad():
            return program(*map(torch.from_numpy, given[: len(inputs)])).numpy()

    found: dict[str, Run] = {
        "onnxruntime": lambda *given: session.run(None, dict(zip(inputs, given, strict=False)))[0],
        "pt2": of_torch,
    }
    try:
        import openvino
    except ImportError:
        return found
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.compile_model(str(onnx), "CPU", hints)
    return found | {"openvino f32": lambda *given: compiled(list(given[: len(inputs)]))[0].copy()}


class Steps:
    """The steps of the script beside an export."""

    def __init__(self, script: Path, model: Model) -> None:
        self.module, self.about, self.model = types.ModuleType("script"), about(model), model
        exec(compile(script.read_text(), "script", "exec"), vars(self.module))

    def probabilities(self, run: Run, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """`(L, R, A, S)` on the network grid."""
        logits = self.module.slid(run, image, self.about)
        flat = np.ascontiguousarray(logits).reshape(1, *logits.shape[:2], -1)
        return foreground(flat, self.model.head)[0].reshape(-1, *logits.shape[1:])

    def mask(self, run: Run, path: Path) -> NDArray[Any]:
        """The mask of a file."""
        return np.asarray(self.module.mask_image(run, self.about, [str(path)]).dataobj)


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with images/")
    parser.add_argument("--model", default="hippocampus-mr")
    parser.add_argument("--cases", type=Path, default=TEST)
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    model = medfcn.load(chosen.model, device="cpu").models[0]
    plan, view = model.card.plan, model.card.plan.views[0]
    paths = [chosen.data / "images" / f"{case}.nii.gz" for case in read_ids(chosen.cases)]
    images = [network_image([read_volume(path)], plan) for path in paths]
    ours = [model.predict(path).array for path in paths]
    once = [model.looking_once.predict(path).array for path in paths]
    with TemporaryDirectory() as place:
        folder = Path(place)
        exported = {"onnx": folder / "model.onnx", "pt2": folder / "model.pt2", "bundle": folder / "model"}
        for form, path in exported.items():
            medfcn.export(chosen.model, path, format=form)
        steps = Steps(script_of(exported["onnx"]), model)
        ways: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
            "predict": lambda image: model.view_probabilities(image, view)
        }
        runs = engines(exported["onnx"], exported["pt2"], steps.about["inputs"])
        ways |= {name: lambda image, run=run: steps.probabilities(run, image) for name, run in runs.items()}
        seconds, largest = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
        for _ in range(chosen.rounds):
            for name, way in ways.items():
                seconds[name] += cpu_seconds(lambda: [way(image) for image in images])  # noqa: B023
        for image in images:
            likely = {name: way(image) for name, way in ways.items()}
            for name, values in likely.items():
                largest[name] = max(largest[name], float(np.abs(values - likely["predict"]).max()))
        masks = {name: [steps.mask(run, path) for path in paths] for name, run in runs.items()}
        (folder / "data").mkdir()
        for path in paths:
            shutil.copy(path, folder / "data")
        whole = cpu_seconds(lambda: run_bundle(exported["bundle"], folder / "data", folder / "masks"))
        masks["bundle"] = [read_volume(folder / "masks" / path.name).array for path in paths]
    masks["one look of predict"] = once
    for name in ways:
        each = seconds[name] / chosen.rounds / len(images)
        print(f"{name}: {each:.4f} CPU s a volume, largest difference of a probability {largest[name]:.2g}")
    print(f"bundle: {whole / len(paths):.4f} CPU s a volume, reading and writing included")
    for name, found in masks.items():
        dices = [dice_of(first, second) for first, second in zip(ours, found, strict=True)]
        print(f"masks, {name}: Dice to predict {min(dices):.6f} at least, {np.mean(dices):.6f} in the mean")


if __name__ == "__main__":
    main()
