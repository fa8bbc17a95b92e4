#!/usr/bin/env bash
# The package edt returns 0 for every voxel of a label map in another byte order, or in float16.
#
# Guess: a distance transform that says it supports integers and floats either computes the distances or refuses the array.
# What happens (edt 3.1.2): for an array whose bytes are not in the machine's order, and for float16, all distances are 0.
# Nothing warns. The same labels in the machine's order have the right distances.
# Why it matters: every .mgz of FreeSurfer is big-endian, and so are NIfTI files of older machines; nibabel hands the labels
# out as they are stored. Each structure is 0 mm thick in such a file, and right in a converted copy of it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 scipy==1.17.1 nibabel==5.4.2 edt==3.1.2 2> "$folder/log" ||
  { cat "$folder/log"; exit 1; }
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.metadata
import sys

import edt
import nibabel
import numpy as np
from scipy import ndimage

print("Python", sys.version.split()[0], "edt", importlib.metadata.version("edt"), "nibabel", nibabel.__version__)
print("numpy", np.__version__, "this machine is", f"{sys.byteorder}-endian")
labels = np.zeros((20, 20, 20), np.int32)
labels[4:16, 4:16, 4:16] = 17
right = ndimage.distance_transform_edt(labels, sampling=(1, 1, 2))
nibabel.save(nibabel.MGHImage(labels, np.diag([1.0, 1.0, 2.0, 1.0])), "labels.mgz")
read = np.asarray(nibabel.load("labels.mgz").dataobj)
print("labels.mgz is read as", read.dtype.str, "with the labels", np.unique(read))
assert read.dtype == ">i4"
assert np.array_equal(read, labels)
arrays = {"as read": read, "converted": read.astype(np.int32), "float16": read.astype(np.float16)}
arrays |= {kind: read.astype(kind) for kind in (">i2", ">u2", ">f4", "<i2", "<u2", "<f4")}
for name, array in arrays.items():
    distances = edt.edt(array, anisotropy=(1, 1, 2))
    print(f"{name:10} {array.dtype.str}: largest distance {distances.max():.3f} mm, right {right.max():.3f} mm")
    if name in ("converted", "<i2", "<u2", "<f4"):
        assert np.allclose(distances, right, atol=1e-4), f"changed: {name}"
    else:
        assert not distances.any(), f"changed: {name}"
print("as described")
PYTHON
