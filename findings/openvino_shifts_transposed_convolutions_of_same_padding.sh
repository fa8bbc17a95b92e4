#!/usr/bin/env bash
# OpenVINO puts the output of an ONNX ConvTranspose one pixel off, or makes it larger, where its padding is "same".
#
# Guess: ConvTranspose with auto_pad or output_shape has the same output in ONNX Runtime and in OpenVINO.
# What happens (OpenVINO 2026.4.1): ONNX cuts the surplus of such a layer off both sides, and its text says on which side
# the odd pixel falls. With SAME_UPPER and output_shape OpenVINO cuts it off the other side: all is one pixel off to the
# left and up. Where height and width of the input are left free, auto_pad alone cuts nothing (17 x 17 pixels in place of
# 16 x 16), and output_shape is one pixel off the other way. Nothing warns. With pads it is right, and with a kernel as large
# as its stride.
# Why it matters: decoders enlarge to twice the size so. A mask comes back a pixel beside the organ, and a network that was
# compared with fixed sizes is another one with free sizes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 2> "$folder/log" ||
  { cat "$folder/log"; exit 1; }
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
core = openvino.Core()
point = np.zeros((1, 1, 8, 8), np.float32)
point[0, 0, 3, 4] = 1


def outputs(kernel, sizes, options):
    """What ONNX Runtime and OpenVINO make of one point in 8 x 8 pixels, enlarged with stride 2."""
    weights = np.arange(1, kernel**2 + 1, dtype=np.float32)
    weights = helper.make_tensor("w", TensorProto.FLOAT, [1, 1, kernel, kernel], weights)
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], **options)
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, *sizes])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, "rows", "columns"])
    graph = helper.make_graph([node], "enlarge", [given], [made], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    model = model.SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return session.run(None, {"x": point})[0][0, 0], compiled([point])[0][0, 0]


def first_pixel(kernel, options):
    """Row and column where the image of the point begins, by the formulas of ONNX's text on ConvTranspose."""
    surplus = 2 * 7 + kernel - 16
    before = surplus // 2 if options.get("auto_pad") == "SAME_UPPER" else surplus - surplus // 2
    before = options["pads"][0] if "pads" in options else before
    return 2 * 3 - before, 2 * 4 - before


FIXED, FREE, SHAPE = (8, 8), ("h", "w"), {"output_shape": [16, 16]}
UPPER, LOWER = ({"auto_pad": f"SAME_{side}"} for side in ("UPPER", "LOWER"))
CASES = (  # sizes of the input, kernel, attributes; OpenVINO's size, and how many pixels it is off
    (FIXED, 3, {"pads": [0, 0, 1, 1]}, 16, 0),
    (FREE, 3, {"pads": [0, 0, 1, 1]}, 16, 0),
    (FIXED, 3, UPPER, 16, 0),
    (FREE, 3, UPPER, 17, 0),
    (FREE, 3, LOWER, 17, 1),
    (FREE, 4, UPPER, 18, 1),
    (FIXED, 3, UPPER | SHAPE, 16, -1),
    (FIXED, 5, UPPER | SHAPE, 16, -1),
    (FIXED, 3, LOWER | SHAPE, 16, 0),
    (FIXED, 4, SHAPE, 16, 0),
    (FREE, 4, SHAPE, 16, 1),
    (FREE, 2, UPPER, 16, 0),
)
for sizes, kernel, options, size, off in CASES:
    by_runtime, by_openvino = outputs(kernel, sizes, options)
    expected = first_pixel(kernel, options)
    seen, of_openvino = (tuple(np.argwhere(out)[0].tolist()) for out in (by_runtime, by_openvino))
    words = ", ".join(f"{name} {value}" for name, value in options.items())
    what = f"kernel {kernel}, {words}, {'fixed' if sizes == FIXED else 'free'} sizes"
    print(what)
    print(f"    ONNX Runtime {by_runtime.shape} from {seen}, OpenVINO {by_openvino.shape} from {of_openvino}")
    assert (by_runtime.shape, seen) == ((16, 16), expected), f"changed: ONNX Runtime, {what}"
    assert by_openvino.shape == (size, size), f"changed: size, {what}"
    assert of_openvino == (expected[0] + off, expected[1] + off), f"changed: {what}"
print("as described")
PYTHON
