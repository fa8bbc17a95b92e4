#!/usr/bin/env bash
# OpenVINO reads the ONNX operator Resize without its attribute antialias.
#
# Guess: a network that OpenVINO reads and compiles has the outputs that ONNX Runtime has, up to rounding; an attribute that it
# does not know is refused.
# What happens (OpenVINO 2026.4.1): a linear Resize with antialias=1 is computed with antialias=0. Nothing warns. ONNX Runtime
# smooths before it shrinks. Where the size grows, the two are equal, so that networks which enlarge alone look sound.
# Why it matters: torch exports interpolate(..., antialias=True) so, which is how an image is brought to a coarser spacing
# within a network. A step edge comes back with other values, and so does the mask.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 2> "$folder/log" || { cat "$folder/log"; exit 1; }
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper

print("Python", sys.version.split()[0], "onnx", onnx.__version__, "ONNX Runtime", onnxruntime.__version__)
print("OpenVINO", openvino.__version__)


def both(antialias, scale):
    """The outputs of ONNX Runtime and of OpenVINO for one row with an edge."""
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, 1, scale])
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear", antialias=antialias)
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1, 16])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 1, int(16 * scale)])
    graph = helper.make_graph([node], "resize", [image], [out], [scales])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "resize.onnx")
    row = np.r_[np.zeros(5), np.full(11, 100)].astype(np.float32).reshape(1, 1, 1, 16)
    runtime = onnxruntime.InferenceSession("resize.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": row})[0]
    core = openvino.Core()
    compiled = core.compile_model(core.read_model("resize.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return runtime.ravel(), compiled([row])[0].ravel()


equal = {}
for antialias, scale in ((0, 0.25), (1, 0.25), (1, 2.0)):
    runtime, vino = both(antialias, scale)
    equal[antialias, scale] = bool(np.allclose(runtime, vino, atol=1e-3))
    if scale < 1:
        print(f"antialias={antialias}, scale {scale}: ONNX Runtime {runtime}, OpenVINO {vino}")
plain, smoothed = both(0, 0.25), both(1, 0.25)
assert equal == {(0, 0.25): True, (1, 0.25): False, (1, 2.0): True}, f"changed: {equal}"
assert np.array_equal(plain[1], smoothed[1]), "OpenVINO now makes use of antialias"
print("as described")
PYTHON
