#!/usr/bin/env bash
# onnxoptimizer turns zeros that a network pads with into minus infinity.
#
# Guess: optimize() with its own default passes gives a network of the same outputs, up to rounding.
# What happens (onnxoptimizer 0.4.2): a Pad with 0 before a MaxPool is put into the pads of the MaxPool, which pads with
# minus infinity. Wherever the image is negative at its border, the output is another one. Nothing warns. ONNX Runtime, which
# optimises the same graph itself, keeps the outputs.
# Why it matters: images are normalised to mean 0, and leaky ReLUs keep negative numbers. Behind a plain ReLU the two are
# equal, so that a test on such a network finds nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 onnxoptimizer==0.4.2 2> "$folder/log" ||
  { cat "$folder/log"; exit 1; }
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.metadata
import sys

import numpy as np
import onnx
import onnxoptimizer
import onnxruntime
from onnx import TensorProto, helper

print("Python", sys.version.split()[0], "onnx", onnx.__version__, "ONNX Runtime", onnxruntime.__version__)
print("onnxoptimizer", importlib.metadata.version("onnxoptimizer"))


def network(*before):
    """Maybe a layer, a rim of one zero, and a pooling of 3 x 3."""
    first = [helper.make_node(name, ["x"], ["r"], **options) for name, options in before]
    padded = helper.make_node("Pad", ["r" if before else "x", "pads"], ["p"])
    pooled = helper.make_node("MaxPool", ["p"], ["y"], kernel_shape=[3, 3], strides=[2, 2])
    sizes = {"x": 17, "y": 9}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, n, n]) for name, n in sizes.items()]
    pads = helper.make_tensor("pads", TensorProto.INT64, [8], [0, 0, 1, 1, 0, 0, 1, 1])
    graph = helper.make_graph([*first, padded, pooled], "pool", ends[:1], ends[1:], [pads])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model, image, level):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": image})[0][0, 0]


AS_IT_IS = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
image = np.random.default_rng(0).standard_normal((1, 1, 17, 17)).astype(np.float32) - 1
EXPECTED = {"as it is": True, "LeakyRelu": True, "Relu": False}
for name, before in {"as it is": (), "LeakyRelu": (("LeakyRelu", {"alpha": 0.01}),), "Relu": (("Relu", {}),)}.items():
    model = network(*before)
    right = run(model, image, AS_IT_IS)
    by_runtime = run(model, image, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
    optimized = onnxoptimizer.optimize(model)
    onnx.checker.check_model(optimized, full_check=True)
    given = run(optimized, image, AS_IT_IS)
    other = ~np.isclose(given, right)
    nodes = [node.op_type for node in optimized.graph.node]
    print(f"{name:10} nodes {nodes}, pixels that differ: {other.sum()} of {other.size}")
    print(f"{'':10} first row, right {right[0].round(2)}\n{'':10} first row, given {given[0].round(2)}")
    assert np.allclose(by_runtime, right), f"changed: ONNX Runtime, {name}"
    assert bool(other.any()) == EXPECTED[name], f"changed: {name}"
    assert not other[1:-1, 1:-1].any(), f"changed within: {name}"
print("as described")
PYTHON
