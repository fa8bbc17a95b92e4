#!/usr/bin/env bash
# MONAI's NrrdReader turns a NRRD from LPS to RAS only where the header spells the space out.
#
# Guess: LoadImage(reader="NrrdReader") gives an affine in RAS, whatever anatomical space the header names.
# What happens (MONAI 1.6.1): "left-posterior-superior" is turned. "LPS", which the format defines as the same space, is
# not, so that left and right, and front and back, are exchanged. "left-anterior-superior" (or "LAS") is not turned
# either: left and right are exchanged. Nothing warns. SimpleITK reads all six right.
# Why it matters: the affine goes with the array into every transform and into the saved mask. An image whose header says
# LPS and a mask whose header spells it out lie 180 degrees apart, though the two files say the same.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 monai==1.6.1 pynrrd==1.1.3 nibabel==5.4.2 numpy==2.4.6 SimpleITK==2.5.7
cd "$folder"
"$folder/venv/bin/python" -W ignore - 2> "$folder/errors" <<'PYTHON' || { cat "$folder/errors"; exit 1; }
import sys

import monai
import nrrd
import numpy as np
import SimpleITK
from monai.transforms import LoadImage

SIGNS = {"P": (1, -1), "A": (1, 1), "L": (0, -1), "R": (0, 1)}
SPACES = {
    "left-posterior-superior": "LPS",
    "LPS": "LPS",
    "right-anterior-superior": "RAS",
    "RAS": "RAS",
    "left-anterior-superior": "LAS",
    "LAS": "LAS",
}
print("Python", sys.version.split()[0], "MONAI", monai.__version__, "pynrrd", nrrd.__version__)
print("SimpleITK", SimpleITK.Version_VersionString())
voxels = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
origin = np.array([10.0, 20.0, 30.0])
seen = {}
for space, axes in SPACES.items():
    path = f"{space}.nrrd"
    header = {"space": space, "space directions": np.diag([2.0, 3.0, 4.0]), "space origin": origin}
    nrrd.write(path, voxels, header)
    right = origin.copy()
    for letter in axes[:2]:
        axis, sign = SIGNS[letter]
        right[axis] *= sign
    simpleitk = np.array(SimpleITK.ReadImage(path).GetOrigin()) * [-1, -1, 1]
    monai_origin = np.asarray(LoadImage(reader="NrrdReader")(path).affine)[:3, 3]
    print(f"{space:24} first voxel in RAS: right {right}, SimpleITK {simpleitk}, MONAI {monai_origin}")
    assert np.array_equal(simpleitk, right), space
    seen[space] = bool(np.array_equal(monai_origin, right))
expected = {space: space not in ("LPS", "left-anterior-superior", "LAS") for space in SPACES}
assert seen == expected, f"changed: {seen}"
print("as described")
PYTHON
