#!/usr/bin/env bash
# Convert3D writes minus infinity into the voxels that it erodes off a mask.
#
# Guess: `mask.nii -erode 1 1x1x1vox -o eroded.nii`, the example of its documentation, gives a mask of 0 and 1.
# What happens (picsl-c3d 1.4.6.0): voxels that are eroded off become minus infinity in the file, which is of float32 by default.
# The other voxels are right, and -dilate writes 0 and 1. An opening (-erode, then -dilate) leaves minus infinity where
# it removed something, and what is smoothed after erosion is minus infinity all around. -type uchar gives 0 and 1.
# Why it matters: the sum of such a mask, so its volume and each mean over it, is minus infinity or NaN. "Not 0" finds the
# mask as large as before the erosion, while "above 0" finds it right, so that two tools disagree about one file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 scipy==1.17.1 nibabel==5.4.2 picsl-c3d==1.4.6.0 2> "$folder/log" ||
  { cat "$folder/log"; exit 1; }
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata
import sys

import nibabel
import numpy as np
from picsl_c3d import Convert3D
from scipy import ndimage

print("Python", sys.version.split()[0], "picsl-c3d", importlib.metadata.version("picsl-c3d"))
print("nibabel", nibabel.__version__, "numpy", np.__version__)
mask = np.zeros((20, 20, 20), np.uint8)
mask[5:15, 5:15, 5:15] = 1
nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), "mask.nii")


def done(commands):
    Convert3D().execute(f"mask.nii {commands} -o done.nii")
    image = nibabel.load("done.nii")
    return image.get_data_dtype(), image.get_fdata()


CASES = {  # voxels of minus infinity
    "-dilate 1 1x1x1vox": 0,
    "-erode 1 1x1x1vox": 488,
    "-erode 1 2x2x2vox -dilate 1 2x2x2vox": 104,
    "-erode 1 1x1x1vox -smooth 1vox": 4088,
    "-erode 1 1x1x1vox -type uchar": 0,
}
for commands, expected in CASES.items():
    kind, voxels = done(commands)
    values, counts = np.unique(voxels.round(3), return_counts=True)
    seen = ", ".join(f"{count} of {value:g}" for value, count in zip(values, counts, strict=True))
    print(f"{commands}: {kind}, voxels: {seen if len(values) < 5 else f'{counts[0]} of {values[0]:g} and more'}")
    print(f"    the sum is {voxels.sum():g}; not 0: {np.count_nonzero(voxels)}; above 0: {(voxels > 0).sum()}")
    assert np.isneginf(voxels).sum() == expected, f"changed: {commands}"
_, eroded = done("-erode 1 1x1x1vox")
assert np.array_equal(eroded > 0, ndimage.binary_erosion(mask, np.ones((3, 3, 3))))
assert np.count_nonzero(eroded) == mask.sum() == 1000
assert (eroded > 0).sum() == 512
print("as described")
PYTHON
