#!/usr/bin/env bash
# SimpleITK reads another file than the one that is named.
#
# Guess: ReadImage("scan.nii.gz") gives the voxels of scan.nii.gz, whatever lies beside it.
# What happens: where scan.nii lies in the same folder, the header is that of scan.nii.gz and the voxels are those of
# scan.nii, without a warning. Where they are fewer, the values are made of its bytes, header included. The library
# looks for the file of the voxels by the name without extension, and tries .nii first.
# Why it matters: a volume that was unpacked, changed and kept beside the original (a mask that was corrected, an image
# that was normalised) silently takes its place, in everything that reads through ITK. nibabel reads what is named.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 nibabel==5.4.2 SimpleITK==2.5.7
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import nibabel
import numpy as np
import SimpleITK

affine = np.diag([1.0, 2.0, 3.0, 1.0])
voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
nibabel.save(nibabel.Nifti1Image(voxels, affine), "scan.nii.gz")
alone = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("scan.nii.gz")).T
nibabel.save(nibabel.Nifti1Image(voxels + 100, affine), "scan.nii")
beside = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("scan.nii.gz")).T
by_nibabel = np.asarray(nibabel.load("scan.nii.gz").dataobj)
nibabel.save(nibabel.Nifti1Image(np.full((5, 5, 5), 7, np.uint8), np.eye(4)), "scan.nii")
another_shape = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("scan.nii.gz")).T

print("SimpleITK", SimpleITK.Version.VersionString(), "nibabel", nibabel.__version__)
print("scan.nii.gz has the voxels 0 to 23")
print("SimpleITK, alone:                           ", alone.min(), "to", alone.max())
print("SimpleITK, beside scan.nii of 100 to 123:   ", beside.min(), "to", beside.max())
print("nibabel, beside it:                         ", by_nibabel.min(), "to", by_nibabel.max())
print("SimpleITK, beside scan.nii of 5 x 5 x 5 x 7:", another_shape.shape, np.unique(another_shape))
assert np.array_equal(alone, voxels)
assert np.array_equal(by_nibabel, voxels)
assert np.array_equal(beside, voxels + 100)
assert another_shape.shape == (2, 3, 4)
assert np.unique(another_shape).tolist() == [0x0707]
PYTHON
