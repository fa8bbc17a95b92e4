#!/usr/bin/env bash
# OpenVINO divides by pixels that are not there where a pooling window reaches over the edge.
#
# Guess: a pooling layer with ceil_mode has the same output in torch, in ONNX Runtime and in OpenVINO, at every size.
# What happens (OpenVINO 2026.4.1): torch and ONNX Runtime divide the last row and column of avg_pool2d(x, 3, 2, 1,
# ceil_mode=True) by the pixels within the image and its padding; OpenVINO divides by other numbers, from ONNX as well as from
# torch. Inside they are equal, and at odd sizes, where no window reaches over the edge, everywhere.
# Why it matters: the error is at the border of the image, for half of all sizes. A comparison of an export at one odd size
# finds nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 2> "$folder/log" ||
  { cat "$folder/log"; exit 1; }
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
import openvino
import torch
from onnx import TensorProto, helper

print("Python", sys.version.split()[0], "torch", torch.__version__, "ONNX Runtime", onnxruntime.__version__)
print("OpenVINO", openvino.__version__)
options = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1, "count_include_pad": 1}
node = helper.make_node("AveragePool", ["x"], ["y"], **options)
image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, "h", "w"])
out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, "i", "j"])
graph = helper.make_graph([node], "pool", [image], [out])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "pool.onnx")
layer = torch.nn.AvgPool2d(3, 2, 1, ceil_mode=True).eval()
session = onnxruntime.InferenceSession("pool.onnx", providers=["CPUExecutionProvider"])
core = openvino.Core()
exact = {"INFERENCE_PRECISION_HINT": "f32"}
from_onnx = core.compile_model(core.read_model("pool.onnx"), "CPU", exact)
from_torch = core.compile_model(openvino.convert_model(layer, example_input=torch.ones(1, 1, 8, 8)), "CPU", exact)
for size in (7, 8):
    x = torch.ones(1, 1, size, size)
    right = layer(x)[0, 0].numpy()
    others = {
        "ONNX Runtime": session.run(None, {"x": x.numpy()})[0][0, 0],
        "OpenVINO, from ONNX": from_onnx([x.numpy()])[0][0, 0],
        "OpenVINO, from torch": from_torch([x.numpy()])[0][0, 0],
    }
    print(f"an image of {size} x {size} ones, last row")
    print(f"  {'torch':22}", right[-1].round(3))
    for name, given in others.items():
        print(f"  {name:22}", given[-1].round(3))
        same = given.shape == right.shape and np.allclose(given, right, atol=1e-5)
        assert same == (size == 7 or name == "ONNX Runtime"), f"changed: {name}, size {size}"
        assert np.allclose(given[:-1, :-1], right[:-1, :-1], atol=1e-5), f"changed within: {name}, size {size}"
print("as described")
PYTHON
