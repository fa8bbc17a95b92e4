"""Exported networks beside torch: probabilities, masks and CPU seconds on real volumes, engine after engine in turn.

    python benchmarks/exports.py DATA --model hippocampus-mr

Needs `pip install -c constraints.txt -e '.[onnx]'`; OpenVINO is measured too where it is installed. One thread each.
"""

import argparse
import time
import types
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch

import medfcn
from medfcn.datasets.tables import read_ids
from medfcn.exporting.one_view import script_of
from medfcn.exporting.phantom import dice_of
from medfcn.inference.probabilities import foreground
from medfcn.networks.graph import stride_of
from medfcn.networks.sliding import Network, Sliding, sliding_logits
from medfcn.slices.preprocess import network_image
from medfcn.volumes import read_volume

TEST = Path(__file__).parent / "hippocampus_test.txt"


def engines(path: Path, network: Network) -> dict[str, Network]:
    """Each engine as a function of `(N, C, H, W)` slices."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found = {
        "torch": network,
        "onnxruntime": lambda slices: torch.from_numpy(session.run(None, {"slices": slices.contiguous().numpy()})[0]),
    }
    try:
        import openvino
    except ImportError:
        return found
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.compile_model(str(path), "CPU", hints)
    found["openvino f32"] = lambda slices: torch.from_numpy(compiled(slices.contiguous().numpy())[0].copy())
    return found


def of_multiples(engine: Network, stride: int) -> Network:
    """An engine that takes slices of any size."""

    def run(slices: torch.Tensor) -> torch.Tensor:
        height, width = slices.shape[-2:]
        more = [max(-(-edge // stride), 2) * stride - edge for edge in (height, width)]
        return engine(torch.nn.functional.pad(slices, (0, more[1], 0, more[0])))[..., :height, :width]

    return run


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with images/ of the hippocampus")
    parser.add_argument("--model", default="hippocampus-mr")
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    model = medfcn.load(chosen.model, device="cpu").models[0]
    plan, view = model.card.plan, model.card.plan.views[0]
    sliding = Sliding(plan.window, plan.context, model.card.settings.prediction.batch_size)
    paths = [chosen.data / "images" / f"{case}.nii.gz" for case in read_ids(TEST)]
    with TemporaryDirectory() as folder:
        exported = medfcn.export(chosen.model, Path(folder) / "model.onnx", format="onnx")
        script = types.ModuleType("script")
        exec(compile(script_of(exported).read_text(), "script", "exec"), vars(script))
        session = onnxruntime.InferenceSession(exported)
        all_engines = {
            name: of_multiples(engine, stride_of(model.network))
            for name, engine in engines(exported, model.network).items()
        }
        images = [network_image([read_volume(path)], plan) for path in paths]
        seconds, largest = dict.fromkeys(all_engines, 0.0), dict.fromkeys(all_engines, 0.0)
        for _ in range(chosen.rounds):
            for name, engine in all_engines.items():
                seconds[name] += cpu_seconds(lambda: [sliding_logits(i, engine, view, sliding) for i in images])  # noqa: B023
        for image in images:
            logits = {name: sliding_logits(image, engine, view, sliding) for name, engine in all_engines.items()}
            likely = {name: foreground(values, model.head) for name, values in logits.items()}
            for name, values in likely.items():
                largest[name] = max(largest[name], float(np.abs(values - likely["torch"]).max()))
        dices = []
        for path in paths:
            mask = np.asarray(script.predicted(session, [path]).dataobj)
            dices.append(dice_of(model.predict(path).array, mask))
    for name in all_engines:
        each = seconds[name] / chosen.rounds / len(images)
        print(f"{name}: {each:.4f} CPU s a volume, largest difference of a probability {largest[name]:.2g}")
    print(f"masks of the script: Dice to ours {min(dices):.6f} at least, {np.mean(dices):.6f} in the mean")


if __name__ == "__main__":
    main()
