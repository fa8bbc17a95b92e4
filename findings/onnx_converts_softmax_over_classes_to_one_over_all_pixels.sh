#!/usr/bin/env bash
# onnx's version converter makes a softmax over classes one over all classes and pixels.
#
# Guess: convert_version(model, 12) gives a network with the outputs of the model, or says that it cannot.
# What happens (onnx 1.23.2): up to opset 12 a Softmax with axis=1 runs over that axis and all behind it, from 13 on over
# that axis alone. On the way down the converter leaves the node as it is. The probabilities of a slice no longer add up to
# 1 in each pixel but over the whole slice: with 4 classes and 32 x 32 pixels the largest is below 0.01. The model passes
# the checker, and nothing warns. The way up (11 to 13) is right. The axis -3 is the same, and a softmax over the last axis
# is right.
# Why it matters: older devices and runtimes ask for opset 11 or 12. The largest class of each pixel is still the same, so
# that a look at the labels shows nothing; thresholds of probability find nothing, and averages of models or tiles weigh
# them wrongly.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 2> "$folder/log" || { cat "$folder/log"; exit 1; }
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, version_converter

print("Python", sys.version.split()[0], "onnx", onnx.__version__, "ONNX Runtime", onnxruntime.__version__)
logits = np.random.default_rng(0).normal(size=(1, 4, 32, 32)).astype(np.float32)


def network(opset, axis):
    node = helper.make_node("Softmax", ["x"], ["y"], axis=axis)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, logits.shape) for name in "xy"]
    graph = helper.make_graph([node], "softmax", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)


def run(model):
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": logits})[0]


EXPECTED = {(13, 1, 12): False, (13, 1, 11): False, (13, -3, 12): False, (13, -1, 12): True, (11, 1, 13): True}
for (opset, axis, target), same in EXPECTED.items():
    before = run(network(opset, axis))
    after = run(version_converter.convert_version(network(opset, axis), target))
    over_classes = after.sum(axis=1)
    print(
        f"opset {opset} to {target}, axis {axis:2}: largest probability {before.max():.3f} and {after.max():.3f},"
        f" sum over the classes of a pixel {over_classes.min():.4f} to {over_classes.max():.4f}"
    )
    assert np.allclose(before, after, atol=1e-5) == same, f"changed: opset {opset} to {target}, axis {axis}"
    if not same:
        assert np.allclose(before.sum(axis=1), 1, atol=1e-4), "changed: before"
        assert abs(after.sum() - 1) < 1e-3 and after.max() < 0.02, "changed: after"
        assert np.array_equal(before.argmax(axis=1), after.argmax(axis=1)), "changed: the labels"
print("as described")
PYTHON
