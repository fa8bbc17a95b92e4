#!/usr/bin/env bash
# MONAI's RandSimulateLowResolution moves the image, and not the mask beside it.
#
# Guess: an augmentation that shrinks an image and enlarges it again leaves everything at its place.
# What happens (MONAI 1.6.1): by default the image is shrunk with torch's mode "nearest", which takes the first pixel of
# each group, and enlarged with "trilinear", which puts it at the middle. A ramp comes back half a voxel off, always to the
# same side and along all axes, over the default range of zooms (0.5 to 1); with a zoom of 0.25 it is 1.5 voxels.
# downsample_mode="area" or "trilinear" leaves it at its place; "nearest-exact" does not.
# Why it matters: the transform has the numbers of the image alone. A share of the training pairs has a mask that is off by
# half a voxel towards one corner (1.5 mm in slices of 3 mm). It stands for a transform of nnU-Net's that moves nothing.
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
from monai.transforms import RandSimulateLowResolution

print("Python", sys.version.split()[0], "MONAI", monai.__version__, "torch", torch.__version__)
places = torch.stack(torch.meshgrid(*[torch.arange(64.0)] * 3, indexing="ij"))
inner = (slice(None), *[slice(16, 48)] * 3)


def moved(zoom, **modes):
    """How far the three ramps, and so the content, are moved along each axis, in voxels: the mean over the middle."""
    coarse = RandSimulateLowResolution(prob=1, zoom_range=(zoom, zoom), **modes)(places)
    return (places - np.asarray(coarse))[inner].mean((1, 2, 3)).numpy()


found = {zoom: moved(zoom) for zoom in (1.0, 0.9, 0.75, 0.5, 0.25)}
for zoom, voxels in found.items():
    print(f"zoom {zoom:4}, by default: the content moves by {voxels.round(3)} voxels")
for mode in ("nearest-exact", "trilinear", "area"):
    found[mode] = moved(0.5, downsample_mode=mode)
    print(f"zoom  0.5, {mode}: {found[mode].round(3)} voxels")
torch.manual_seed(0)
ball = ((places - 31.5) ** 2).sum(0).sqrt()[None] <= 12
coarse = np.asarray(RandSimulateLowResolution(prob=1, zoom_range=(0.25, 0.25))(ball.float())) > 0.5
mask = ball.numpy()
dice = 2 * (coarse & mask).sum() / (coarse.sum() + mask.sum())
print(f"a ball of radius 12 at zoom 0.25: Dice with its mask {dice:.3f}")
assert np.allclose(found[1.0], 0, atol=1e-3)
assert all(np.allclose(found[zoom], 0.5, atol=0.05) for zoom in (0.75, 0.5))
assert (found[0.9] > 0.3).all()
assert np.allclose(found[0.25], 1.5, atol=1e-2)
assert np.allclose(np.abs(found["nearest-exact"]), 0.5, atol=1e-2)
assert all(np.allclose(found[mode], 0, atol=1e-3) for mode in ("trilinear", "area"))
print("as described")
PYTHON
