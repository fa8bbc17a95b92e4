#!/usr/bin/env bash
# medrs hands out labels of 32 bits as numbers of 1e-45, because it takes their bits for those of floats.
#
# Guess: load(path).to_numpy() gives the voxels of the file as float32, as its documentation says (like nibabel's
# get_fdata), or refuses it.
# What happens (medrs 0.2.0): for int32 and uint32 the bits of the whole numbers are handed out as floats. Label 1 becomes
# 1.4e-45, label 3 4.2e-45. load_cropped does the same. For float32 in the other byte order the bytes are not turned.
# Nothing warns. int8, uint8, int16, uint16, int64, float64 and scaled files are right, and int32 is right after resample,
# and through to_numpy_native.
# Why it matters: int32 is what many tools store label maps in. "Above 0.5" finds an empty mask, a loss sees background
# alone, and rounding makes 0 of all labels; "not 0" finds the mask, so that a quick look shows nothing wrong.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 nibabel==5.4.2 medrs==0.2.0 2> "$folder/log" || { cat "$folder/log"; exit 1; }
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import medrs
import nibabel
import numpy as np

print("Python", sys.version.split()[0], "medrs", version("medrs"), "nibabel", nibabel.__version__, "numpy", np.__version__)
labels = np.zeros((12, 14, 16), np.int64)
labels[2:6, 3:9, 4:12], labels[8:10, 3:9, 4:12] = 1, 3
WRONG = {"<i4", "<u4", ">i4", ">u4", ">f4"}
for order in "<>":
    for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"):
        for name in ("labels.nii", "labels.nii.gz"):
            header = nibabel.Nifti1Header(endianness=order)
            header.set_data_dtype(kind)
            nibabel.save(nibabel.Nifti1Image(labels.astype(order + kind), np.eye(4), header), name)
            assert np.array_equal(nibabel.load(name).get_fdata(), labels)
            image = medrs.load(name)
            found = image.to_numpy()
            cropped = medrs.load_cropped(name, [0, 0, 0], list(labels.shape)).to_numpy()
            for how, values in {"load": found, "load_cropped": cropped}.items():
                assert np.array_equal(values, labels) == (order + kind not in WRONG), f"changed: {order}{kind}, {how}"
            assert np.array_equal(image.to_numpy_native(), labels), f"changed: {order}{kind}, native"
            assert np.array_equal(image.resample((1.0, 1.0, 1.0), "nearest").to_numpy(), labels), f"changed: {order}{kind}"
        print(f"{order}{kind}: labels", np.unique(found), "voxels above 0.5:", (found > 0.5).sum(), "of", (labels > 0).sum())
print("as described")
PYTHON
