#!/usr/bin/env bash
# Guess: torch.onnx.export(dynamo=True) with free sizes gives a network that pads its input to a multiple the same output
# as torch, at least at the size of the example that it was exported with.
#
# What happens: rounding up is usually written -(-n // 8). torch divides down, so -67 // 8 is -9. The exported Div
# of integers cuts towards zero, so it is -8: rounding up becomes rounding down, the padding is lost, and the output is
# 64 x 64 for an input of 67 x 69, the example's own size. Nothing warns; (n + 7) // 8 is exported right. Compared at sizes
# that are multiples of 8 only, such an export looks sound.
#
# Why it matters: a mask comes back with fewer rows and columns than its slice. An export must be compared at odd sizes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2 \
  onnxruntime==1.32.0 2> "$work/pip.log" || { cat "$work/pip.log"; exit 1; }
cat > "$work/rounding.py" <<'PYTHON'
import logging
import warnings

import onnxruntime
import torch
from torch import nn
from torch.nn import functional

logging.disable(logging.WARNING)
warnings.simplefilter("ignore")


class Padded(nn.Module):
    def __init__(self, rounded):
        super().__init__()
        self.rounded = rounded
        self.down, self.up = nn.Conv2d(1, 4, 8, stride=8), nn.ConvTranspose2d(4, 1, 8, stride=8)

    def forward(self, x):
        h, w = x.shape[-2:]
        x = functional.pad(x, (0, self.rounded(w) * 8 - w, 0, self.rounded(h) * 8 - h))
        return self.up(self.down(x))[..., :h, :w]


def shapes(rounded):
    net, free = Padded(rounded).eval(), torch.export.Dim.DYNAMIC
    example = torch.zeros(2, 1, 67, 69)
    program = torch.onnx.export(net, (example,), dynamo=True, input_names=["x"], dynamic_shapes=({2: free, 3: free},))
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    return [tuple(session.run(None, {"x": torch.zeros(2, 1, *size).numpy()})[0].shape[2:]) for size in SIZES]


SIZES = ((67, 69), (64, 72), (33, 81))
usual, other = shapes(lambda n: -(-n // 8)), shapes(lambda n: (n + 7) // 8)
print("torch", torch.__version__, "onnxruntime", onnxruntime.__version__)
print("input      ", *SIZES)
print("-(-n // 8) ", *usual)
print("(n + 7)//8 ", *other)
assert usual == [(64, 64), (64, 72), (32, 80)], "changed"
assert other == list(SIZES), "changed"
PYTHON
"$work/venv/bin/python" "$work/rounding.py" 2> "$work/log" | grep -v '^\[torch.onnx\]' || { cat "$work/log"; exit 1; }
