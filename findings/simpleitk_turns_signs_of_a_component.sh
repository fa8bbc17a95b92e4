#!/usr/bin/env bash
# SimpleITK turns the sign of two voxels of every three in one component of a displacement field.
#
# Guess: a 3D volume of float32 is read with the values that are in the file, whatever its intent code is.
# What happens: where the intent code is 1006 (displacement vectors), ITK turns RAS into LPS by negating the first two
# of every three numbers, even if there is one number a voxel: two voxels of three change their sign, by their place in
# memory. As int16 the same file cannot be read at all ("RAS conversion of datatype short is not supported").
# Why it matters: one component of a warp, taken out of it by nibabel with the warp's header, keeps the code. Maps of
# motion along one axis made so are striped when they are read through ITK, in silence; nibabel reads them right.
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

warp = nibabel.Nifti1Image(np.ones((4, 4, 3, 1, 3), np.float32), np.eye(4))
warp.header.set_intent("displacement vector")
nibabel.save(warp, "warp.nii.gz")
warp = nibabel.load("warp.nii.gz")
along_x = nibabel.Nifti1Image(np.asarray(warp.dataobj)[..., 0, 0], warp.affine, warp.header)
nibabel.save(along_x, "along_x.nii.gz")

image = SimpleITK.ReadImage("along_x.nii.gz")
by_simpleitk = SimpleITK.GetArrayFromImage(image).ravel()
by_nibabel = np.asarray(nibabel.load("along_x.nii.gz").dataobj)
print("SimpleITK", SimpleITK.Version.VersionString(), "nibabel", nibabel.__version__)
header = nibabel.load("along_x.nii.gz").header
print("dim", header["dim"][:4], "intent", header["intent_code"])
print("nibabel:  ", np.unique(by_nibabel, return_counts=True))
print("SimpleITK:", np.unique(by_simpleitk, return_counts=True), by_simpleitk[:9])
assert header["intent_code"] == 1006
assert (by_nibabel == 1).all()
assert by_simpleitk.reshape(-1, 3).tolist() == [[-1.0, -1.0, 1.0]] * 16
PYTHON
