#!/usr/bin/env bash
# pydicom's iter_pixels finds no pixels in a deflated file that it opens itself.
#
# Guess: iter_pixels(path) gives the same frames as dcmread(path).pixel_array, in every transfer syntax that dcmread reads.
# What happens: for Deflated Explicit VR Little Endian (a syntax of the standard) it says that the data set has no pixels;
# pixel_array of the same file is right, and so is iter_pixels of the data set that dcmread returns.
# Why it matters: iter_pixels is the documented way to read large files frame by frame. A reader built on it takes good
# files for broken ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 pydicom==3.0.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import iter_pixels
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, generate_uid

pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
found = {}
for name, syntax in (("plain", ExplicitVRLittleEndian), ("deflated", DeflatedExplicitVRLittleEndian)):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 3, 4, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.add_new("PixelData", "OW", pixels.tobytes())
    path = f"{name}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    whole = pydicom.dcmread(path)
    assert np.array_equal(whole.pixel_array, pixels)
    assert np.array_equal(next(iter_pixels(whole)), pixels)
    try:
        found[name] = "right" if np.array_equal(next(iter_pixels(path)), pixels) else "other pixels"
    except AttributeError as error:
        found[name] = str(error)

print("pydicom", pydicom.__version__)
for name, result in found.items():
    print(f"iter_pixels of the {name} file: {result}")
assert found["plain"] == "right"
assert "no 'Pixel Data'" in found["deflated"]
PYTHON
