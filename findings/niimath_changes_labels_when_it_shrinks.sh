#!/usr/bin/env bash
# niimath's -resize changes the values of an image that it makes smaller.
#
# Guess: -resize 0.7 0.7 0.7 0 (0 is "nearest") of a mask of ones is a smaller mask of ones, and of any image has values of it.
# What happens (niimath 1.0.20261016): a volume of ones becomes 0.34 to 2.74, because the weights do not add up to 1. Nearest
# sums and mixes: labels 0, 2 and 4 by 0.7 become 0, 0.69, 1.37, 2.74, 5.49 and 10.98. By 0.5 a volume of ones is kept, and
# labels are averaged to nine values. Linear interpolation (1) of a constant image is up to 25 % too low and 40 % too high.
# Factors above 1 are right in both. Nothing warns.
# Why it matters: 0.7 brings a scan from 1 mm to about 1.4 mm, as one does before training or to compare scans. Labels become
# other labels, and thresholds of HU no longer hold.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 nibabel==5.4.2 niimath==1.0.20261016 2> "$folder/log" || { cat "$folder/log"; exit 1; }
cd "$folder"
PATH="$folder/venv/bin:$PATH" "$folder/venv/bin/python" - <<'PYTHON'
import importlib.metadata
import subprocess
import sys

import nibabel
import numpy as np

print("Python", sys.version.split()[0], "niimath", importlib.metadata.version("niimath"), "nibabel", nibabel.__version__)
METHODS = ("nearest", "linear", "spline", "Lanczos", "Mitchell")


def resized(voxels, factor, method):
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), "in.nii")
    by = [str(factor)] * 3
    subprocess.run(["niimath", "in.nii", "-resize", *by, str(method), "out.nii.gz"], check=True, capture_output=True)
    return nibabel.load("out.nii.gz").get_fdata()


ones = np.ones((40, 40, 40), np.float32)
found = {}
for factor in (0.5, 0.6, 0.7, 0.8, 0.9, 1.5, 2):
    for method in range(5):
        out = resized(ones, factor, method)
        found[factor, method] = float(out.min()), float(out.max())
    shown = [f"{METHODS[method]} {found[factor, method][0]:.2f} to {found[factor, method][1]:.2f}" for method in range(5)]
    print(f"an image of ones, by {factor}:", ", ".join(shown))
labels = np.zeros((40, 40, 40), np.uint8)
labels[8:20, 8:32, 8:32], labels[20:32, 8:32, 8:32] = 2, 4
values = {factor: np.unique(resized(labels.astype(np.float32), factor, 0).round(2)) for factor in (0.5, 0.7, 1.5, 2)}
for factor, seen in values.items():
    print(f"labels 0, 2 and 4, nearest, by {factor}: {seen.tolist()}")

for factor in (0.5, 1.5, 2):
    for method in (0, 1):
        assert np.allclose(found[factor, method], 1, atol=1e-3), f"changed: {factor}, {METHODS[method]}"
for factor in (0.6, 0.7, 0.8, 0.9):
    assert found[factor, 0][0] < 0.8, f"changed: {factor}, nearest"
    assert found[factor, 0][1] > 1.7, f"changed: {factor}, nearest"
    assert found[factor, 1][1] > 1.2, f"changed: {factor}, linear"
assert np.allclose(found[0.7, 0], (0.34, 2.74), atol=0.01), "changed: 0.7, nearest"
assert np.allclose(found[0.7, 1], (0.75, 1.40), atol=0.01), "changed: 0.7, linear"
assert np.allclose(values[0.7], [0, 0.69, 1.37, 2.74, 5.49, 10.98], atol=0.01), "changed: labels by 0.7"
assert len(values[0.5]) == 9, "changed: labels by 0.5"
assert values[1.5].tolist() == values[2].tolist() == [0, 2, 4], "changed: labels enlarged"
print("as described")
PYTHON
