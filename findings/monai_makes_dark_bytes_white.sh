#!/usr/bin/env bash
# MONAI's ScaleIntensityRange makes dark pixels of bytes white, where the window is given in whole numbers.
#
# Guess: ScaleIntensityRange(50, 150, 0, 1, clip=True) makes 0 of every pixel up to 50, and 1 of every pixel from 150, in
# any type.
# What happens (MONAI 1.6.1): the lower end is subtracted before the pixels become floats. Bytes wrap round below 0, so that
# 0 to 49 become 206 to 255, and after clipping 1 in place of 0. Nothing warns. With 50.0 in place of 50 it is right, and so
# are int16 and float32. ScaleIntensityRanged is the same. NormalizeIntensity(50, 50), which subtracts too, is right.
# Why it matters: images of 8 bits are common (PNG, ultrasound, X-ray), and tutorials write windows in whole numbers. The
# air around the body is as white as the brightest bone. A negative lower end turns bright pixels dark.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 monai==1.6.1 numpy==2.4.6 2> "$folder/log" || { cat "$folder/log"; exit 1; }
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import monai
import numpy as np
import torch
from monai.transforms import NormalizeIntensity, ScaleIntensityRange, ScaleIntensityRanged

print("Python", sys.version.split()[0], "torch", torch.__version__, "monai", monai.__version__, "numpy", np.__version__)
pixels = np.array([[[0, 30, 49, 50, 100, 150, 250]]])
print("pixels            ", *pixels.ravel())
for low, high in ((50, 150), (50.0, 150.0), (-100, 200), (-100.0, 200.0)):
    right = np.clip((pixels - low) / (high - low), 0, 1)
    for kind in (np.uint8, np.int16, np.float32):
        image = pixels.astype(kind)
        scaled = ScaleIntensityRange(low, high, 0, 1, clip=True)
        found = {"numpy": scaled(image), "torch": scaled(torch.from_numpy(image))}
        found["dictionary"] = ScaleIntensityRanged("image", low, high, 0, 1, clip=True)({"image": image})["image"]
        wraps = kind is np.uint8 and isinstance(low, int)
        print(f"{kind.__name__:8}{low:>6} to {high:<6}", *np.asarray(found["numpy"]).ravel().round(2))
        for name, values in found.items():
            same = np.allclose(np.asarray(values), right, atol=1e-5)
            assert same != wraps, f"changed: {kind.__name__}, {low}, {name}"
dark = np.asarray(ScaleIntensityRange(50, 150, 0, 1, clip=True)(pixels.astype(np.uint8))).ravel()
assert dark.tolist() == [1, 1, 1, 0, 0.5, 1, 1], "changed: bytes"
assert np.allclose(np.asarray(NormalizeIntensity(50, 50)(pixels.astype(np.uint8))), (pixels - 50) / 50), "changed: normal"
print("as described")
PYTHON
