#!/usr/bin/env bash
# SimpleITK drops the scaling of a NIfTI file whose slope is below 2.2e-16.
#
# Guess: voxels are scaled by scl_slope whatever its size, as nifti1.h says (a slope of 0 alone means none).
# What happens: a slope of 3e-16 is used; one of 1.5e-16 is taken for 1, without a warning, so that the stored whole
# numbers come back.
# Why it matters: physical units need such slopes. A map of up to 100 femtotesla (MEG) that nibabel writes as int16 has
# the slope 1.5e-18: it comes back as 32,767 tesla, and the same map written as float32 as 1e-13.
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


def read(path):
    return float(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path)).max())


found = {}
for largest, kind in ((1e-13, np.float32), (1e-13, np.int16), (1e-11, np.int16), (2e-11, np.int16)):
    image = nibabel.Nifti1Image(np.linspace(0, largest, 60).reshape(3, 4, 5), np.eye(4))
    image.set_data_dtype(kind)
    path = f"{largest}_{np.dtype(kind).name}.nii"
    nibabel.save(image, path)
    by_nibabel = nibabel.load(path)
    found[path] = float(by_nibabel.dataobj.slope), float(by_nibabel.get_fdata().max()), read(path)

print("SimpleITK", SimpleITK.Version.VersionString(), "nibabel", nibabel.__version__)
for path, (slope, by_nibabel, by_simpleitk) in found.items():
    print(f"{path}: slope {slope:.3g}, largest voxel by nibabel {by_nibabel:.4g}, by SimpleITK {by_simpleitk:.6g}")
assert all(np.isclose(by_nibabel, float(path.split("_")[0])) for path, (_, by_nibabel, _) in found.items())
assert np.isclose(found["1e-13_float32.nii"][2], 1e-13)
assert found["1e-13_int16.nii"][2] == found["1e-11_int16.nii"][2] == 32767.0
assert found["1e-11_int16.nii"][0] < 2.2e-16 < found["2e-11_int16.nii"][0]
assert np.isclose(found["2e-11_int16.nii"][2], 2e-11)
PYTHON
