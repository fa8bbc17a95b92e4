#!/usr/bin/env bash
# onnxslim makes all passes of Monte Carlo dropout the same, so that a network is certain everywhere.
#
# Guess: slim() keeps what a network computes; a Dropout that is switched on (training_mode) stays, and two random nodes
# stay two.
# What happens (onnxslim 0.1.98): every Dropout is removed, switched on or not, and random nodes that look alike
# (RandomUniformLike, RandomNormalLike) become one. Of four passes whose probabilities differ by 0.25 (standard deviation)
# four equal ones are left. Nothing warns. ONNX Runtime, which optimises the same graph itself, keeps them apart.
# Why it matters: the spread of such passes is the usual map of a network's uncertainty. It is 0 in every voxel after
# slimming, and a rule that sends uncertain cases to a reader sends none. The mean looks like that of a sound network.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 onnxslim==0.1.98 2> "$folder/log" ||
  { cat "$folder/log"; exit 1; }
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
import onnxslim
from onnx import TensorProto, helper, numpy_helper

print("Python", sys.version.split()[0], "onnx", onnx.__version__, "ONNX Runtime", onnxruntime.__version__)
print("onnxslim", version("onnxslim"))
PASSES, rng = 4, np.random.default_rng(0)
constants = {
    "weights": rng.normal(size=(1, 8, 3, 3)).astype(np.float32),
    "ratio": np.float32(0.5),
    "on": np.bool_(True),
}
random = {
    "Dropout": lambda i: [helper.make_node("Dropout", ["x", "ratio", "on"], [f"kept{i}"])],
    "RandomUniformLike": lambda i: [
        helper.make_node("RandomUniformLike", ["x"], [f"drawn{i}"]),
        helper.make_node("Mul", ["x", f"drawn{i}"], [f"kept{i}"]),
    ],
    "RandomNormalLike": lambda i: [
        helper.make_node("RandomNormalLike", ["x"], [f"drawn{i}"]),
        helper.make_node("Add", ["x", f"drawn{i}"], [f"kept{i}"]),
    ],
}
image = rng.normal(size=(1, 8, 32, 32)).astype(np.float32)


def spread(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return float(session.run(None, {"x": image})[0].std(axis=0).mean())


for name, drop in random.items():
    nodes = []
    for i in range(PASSES):
        nodes += [*drop(i), helper.make_node("Conv", [f"kept{i}", "weights"], [f"logits{i}"])]
        nodes.append(helper.make_node("Sigmoid", [f"logits{i}"], [f"passed{i}"]))
    nodes.append(helper.make_node("Concat", [f"passed{i}" for i in range(PASSES)], ["y"], axis=0))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, image.shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [PASSES, 1, 30, 30])]
    kept = [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, "passes", inputs, outputs, kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    before = spread(model)
    after = spread(onnxslim.slim(model))
    print(f"{name:17} spread of {PASSES} passes: {before:.3f} as exported, {after:.3f} after onnxslim")
    assert before > 0.1, f"changed: {name}, as exported"
    assert after == 0, f"changed: {name}, after onnxslim"
print("as described")
PYTHON
