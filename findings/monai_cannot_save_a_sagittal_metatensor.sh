#!/usr/bin/env bash
# Guess: monai.transforms.SaveImage writes a volume that is given as MetaTensor(array, affine=A), whatever its axes.
# What happens (MONAI 1.6.1): it does where the first two axes of the array span the axial plane, and for oblique
# volumes. Where they do not, as in a volume stored in sagittal or coronal slices, it says that it "cannot find a
# suitable writer": it takes the array for one of two dimensions, and cuts the affine to a matrix that has no inverse.
# The same array that LoadImage has read is written, and so is one whose meta has original_channel_dim = nan.
# Why it matters: whoever makes a MetaTensor in a post-processing step can save most cases, and not those of a scanner
# that stores sagittal slices. A mask needs that key.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 monai==1.6.1 nibabel==5.4.2 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import monai
import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImage

print("monai", monai.__version__, "torch", torch.__version__, "nibabel", nibabel.__version__)
AXES = {"axial": (0, 1, 2), "sagittal": (1, 2, 0), "coronal": (0, 2, 1)}
EXPECTED = {("axial", "plain"): True, ("sagittal", "plain"): False, ("coronal", "plain"): False}
EXPECTED |= {(name, "with original_channel_dim"): True for name in AXES}
array, found = np.arange(9 * 8 * 7, dtype=np.int16).reshape(9, 8, 7), {}
for name, axes in AXES.items():
    affine = np.eye(4)
    affine[:3, :3] = np.diag([1.5, 1.25, 2.0])[:, axes]
    for how, more in {"plain": {}, "with original_channel_dim": {"original_channel_dim": float("nan")}}.items():
        volume = MetaTensor(torch.from_numpy(array[None]), affine=affine, meta={"filename_or_obj": "a.nii.gz", **more})
        save = SaveImage(
            output_dir=".", output_postfix="", separate_folder=False, resample=False, output_dtype=np.int16,
            print_log=False,
        )
        try:
            save(volume)
        except RuntimeError as error:
            found[name, how] = False
            print(name, how, "refused:", " ".join(str(error).split())[:80])
        else:
            back = nibabel.load("a.nii.gz")
            found[name, how] = np.array_equal(back.dataobj, array) and np.allclose(back.affine, affine)
            print(name, how, "written, the same:", found[name, how])
sys.exit(found != EXPECTED)
PYTHON
