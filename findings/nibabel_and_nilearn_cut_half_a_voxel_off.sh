#!/usr/bin/env bash
# nibabel and nilearn take the outer half of the outermost voxels for outside of the image when they resample.
#
# Guess: a mask of ones, resampled with nearest neighbour to half the voxel size over the same extent (20 voxels of 1 mm in
# place of 10 of 2 mm), is again a mask of ones. A voxel is a cube, and all new centres lie within it.
# What happens: the outermost layer is 0, with nearest neighbour as with linear interpolation, because scipy takes what
# lies beyond the outermost centres for outside. The mask has 73 % of its volume. SimpleITK keeps all of it.
# Why it matters: organs reach the border of the field of view, in cropped volumes above all. Their volumes in ml shrink, and
# CT gets a rim of 0 HU (water) in place of tissue or air.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 scipy==1.17.1 nibabel==5.4.2 nilearn==0.14.1 SimpleITK==2.5.7 \
  2> "$folder/log" || { cat "$folder/log"; exit 1; }
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import nibabel
import nilearn
import numpy as np
import SimpleITK
from nibabel.processing import resample_from_to
from nilearn.image import resample_img

print("Python", sys.version.split()[0], "nibabel", nibabel.__version__, "nilearn", nilearn.__version__)
print("SimpleITK", SimpleITK.Version.VersionString())
SHAPE = (20, 20, 20)
coarse, fine = np.diag([2.0, 2.0, 2.0, 1.0]), np.eye(4)
fine[:3, 3] = -0.5
mask = nibabel.Nifti1Image(np.ones((10, 10, 10), np.uint8), coarse)
air = nibabel.Nifti1Image(np.full((10, 10, 10), -1000, np.int16), coarse)
image = SimpleITK.GetImageFromArray(np.ones((10, 10, 10), np.uint8))
image.SetSpacing((2.0, 2.0, 2.0))
found = {}
for name, order in (("nearest", 0), ("linear", 1)):
    how = {"nearest": SimpleITK.sitkNearestNeighbor, "linear": SimpleITK.sitkLinear}[name]
    grid = SHAPE, SimpleITK.Transform(), how, (-0.5, -0.5, -0.5), (1.0, 1.0, 1.0)
    found["nibabel", name] = resample_from_to(mask, (SHAPE, fine), order=order).dataobj
    found["nilearn", name] = resample_img(mask, fine, SHAPE, interpolation=name).dataobj
    found["SimpleITK", name] = SimpleITK.GetArrayFromImage(SimpleITK.Resample(image, *grid))
for (library, name), voxels in found.items():
    millilitres = np.asarray(voxels, dtype=float).sum() / 1000
    print(f"{library:9} {name:8} a mask of 8.000 ml has {millilitres:.3f} ml")
    assert np.isclose(millilitres, 8.0 if library == "SimpleITK" else 5.832), f"changed: {library}, {name}"
for name, rim in {
    "nibabel": resample_from_to(air, (SHAPE, fine), order=1).get_fdata()[0],
    "nilearn": resample_img(air, fine, SHAPE, interpolation="linear").get_fdata()[0],
}.items():
    print(f"{name:9} linear   air of -1000 HU has {np.unique(rim)} HU in its first slice")
    assert np.array_equal(np.unique(rim), [0.0]), f"changed: {name}, rim"
print("as described")
PYTHON
