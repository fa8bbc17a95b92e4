#!/usr/bin/env bash
# TotalSegmentator's change_spacing writes an affine that its image does not have: content is up to a slice beside its place.
#
# Guess: after change_spacing(image, 1.5) every structure has the coordinates in mm that it had before, to a fraction of a voxel.
# What happens (TotalSegmentator 2.18.0): voxels are resampled so that the first and the last centre stay the first and the last,
# and the affine says that the voxel size was divided by the zoom. The two differ: the further along an axis, the further content
# is from where the affine says. In slices of 5 mm the last one comes out 3.0 mm off, two voxels of 1.5 mm, with every order of
# interpolation. Nothing warns. Its note about rotated affines does not apply: this one is diagonal.
# Why it matters: a resampled scan or mask that is saved is laid over the original by its affine. Two marks 175 mm apart are
# 177 mm apart, and what is at the end of the scan comes out beside it. Within TotalSegmentator both ways cancel out.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 scipy==1.17.1 nibabel==5.4.2 joblib==1.6.0 psutil==7.2.2 2> "$folder/log" ||
  { cat "$folder/log"; exit 1; }
"$folder/venv/bin/pip" install -q --no-deps TotalSegmentator==2.18.0 2> "$folder/log" || { cat "$folder/log"; exit 1; }
cd "$folder"
HOME="$folder" "$folder/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata
import sys

import nibabel
import numpy as np
from totalsegmentator.resampling import change_spacing

print("Python", sys.version.split()[0], "TotalSegmentator", importlib.metadata.version("TotalSegmentator"))
print("nibabel", nibabel.__version__, "numpy", np.__version__)
affine = np.diag([0.8, 0.8, 5.0, 1.0])
affine[:3, 3] = -100, -90, 30


def heights(shape, affine):
    """The coordinate of every voxel along the patient, in mm."""
    return np.broadcast_to(affine[2, 2] * np.arange(shape[2]) + affine[2, 3], shape)


scan = nibabel.Nifti1Image(heights((40, 40, 40), affine), affine)
found = {}
for order in (1, 3):
    made, name = change_spacing(scan, 1.5, order=order), f"order={order}"
    moved = made.get_fdata() - heights(made.shape, made.affine)
    found[name] = [float(moved[20, 20, k]) for k in (0, made.shape[2] // 2, made.shape[2] - 1)]
    print(f"{name}: {made.shape[2]} slices of {made.affine[2, 2]:.2f} mm; first, middle, last are off by", end=" ")
    print(*(f"{value:.2f} mm" for value in found[name]))
for name in found:
    assert np.allclose(found[name], [0, -1.49, -3.0], atol=0.06), f"changed: {name}"

needle = np.zeros((40, 40, 40), np.uint8)
needle[20, 20, 2], needle[20, 20, 37] = 1, 2
made = change_spacing(nibabel.Nifti1Image(needle, affine), 1.5, order=0)
middles = [float(np.mean(np.argwhere(made.get_fdata() == value)[:, 2])) * made.affine[2, 2] for value in (1, 2)]
print(f"two marks 175.0 mm apart: {middles[1] - middles[0]:.1f} mm after change_spacing")
assert middles[1] - middles[0] > 176.5, "changed: marks"
print("as described")
PYTHON
