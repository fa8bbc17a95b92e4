#!/usr/bin/env bash
# ants.from_numpy turns the negative numbers of an int16 array into numbers of four billion.
#
# Guess: an array of int16 becomes an image of its values, as float32 if ANTs has no such type.
# What happens (antspyx 0.6.3): int8, int16, int32 and int64 are cast to uint32. Air of -1000 HU becomes 4294966296, nothing
# warns, and what is computed or written from it is wrong too. ants.image_read of the same numbers from a file makes floats
# and is right, and so is from_numpy of float32.
# Why it matters: CT is stored as int16, and nibabel, SimpleITK and pydicom hand it out so. Means are in the billions, and
# where the values are cut off afterwards to a window, air is as bright as bone. Give from_numpy array.astype("float32").
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.3.5 scipy==1.15.3 nibabel==5.4.2 antspyx==0.6.3 2> "$folder/log" ||
  { cat "$folder/log"; exit 1; }
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata
import sys

import ants
import nibabel
import numpy as np

print("Python", sys.version.split()[0], "antspyx", importlib.metadata.version("antspyx"), "numpy", np.__version__)
values = np.full((8, 8, 8), -100, np.int16)
values[4:] = 100
for kind in ("int8", "int16", "int32", "int64", "float32", "float64"):
    image = ants.from_numpy(values.astype(kind))
    seen = np.unique(image.numpy()).tolist()
    print(f"-100 and 100 as {kind:7}: pixels are {image.pixeltype}, values {seen}")
    assert seen == ([-100.0, 100.0] if kind.startswith("float") else [100, 2**32 - 100]), f"changed: {kind}"

scan = np.full((8, 8, 8), -1000, np.int16)
scan[4:] = 40
image = ants.from_numpy(scan)
window = np.clip(image.numpy(), -200, 300)
ants.image_write(image, "made.nii.gz")
written = np.unique(np.asarray(nibabel.load("made.nii.gz").dataobj)).tolist()
print(f"half air, half 40 HU, from_numpy: mean {image.mean():.4g}; values in a file that is written: {written}")
print(f"    in the window of -200 to 300 HU: air is {window[0, 0, 0]}")
assert image.mean() > 1e9
assert window[0, 0, 0] == 300
assert written == [40, 2**32 - 1000]
nibabel.save(nibabel.Nifti1Image(scan, np.eye(4)), "scan.nii.gz")
read = ants.image_read("scan.nii.gz")
print("the same by image_read:", read.pixeltype, np.unique(read.numpy()).tolist())
assert np.unique(read.numpy()).tolist() == [-1000.0, 40.0]
print("as described")
PYTHON
