#!/usr/bin/env bash
# pydicom's iter_pixels cannot read the frames of a binary segmentation whose slices have a number of pixels that is no
# multiple of 8.
#
# Guess: iter_pixels(path) gives the frames of pixel_array, one by one.
# What happens: frames of one bit a pixel follow each other without a gap, so that most begin within a byte. pixel_array
# knows that. iter_pixels does not: it raises an error about the shape for most frames that begin within a byte.
# Why it matters: binary segmentations of CT crops, MR and PET have such sizes (143 x 161, 27 x 30), and the
# documentation names iter_pixels as the way to read many frames with little memory.
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
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage, generate_uid

print("pydicom", pydicom.__version__)
found = {}
for rows, columns in ((4, 6), (3, 5), (3, 7), (5, 9), (143, 161)):
    frames = np.random.default_rng(0).integers(0, 2, (6, rows, columns), dtype=np.uint8)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = SegmentationStorage, generate_uid()
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames, dataset.SamplesPerPixel = rows, columns, 6, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = 0
    bits = np.packbits(frames.ravel(), bitorder="little").tobytes()
    dataset.add_new("PixelData", "OB", bits + b"\0" * (len(bits) % 2))
    dataset.save_as("seg.dcm", enforce_file_format=True)
    assert np.array_equal(pydicom.dcmread("seg.dcm").pixel_array, frames)
    results = []
    for index in range(6):
        try:
            results.append(np.array_equal(next(iter_pixels("seg.dcm", indices=[index])), frames[index]))
        except ValueError as error:
            results.append(str(error))
    found[rows, columns] = results
    wrong = sum(result is False for result in results)
    errors = [result for result in results if isinstance(result, str)]
    print(f"{rows} x {columns}: {results.count(True)} of 6 frames right, {wrong} wrong, {len(errors)} errors", *errors[:1])
assert all(result is True for result in found[4, 6])
assert any(result is not True for size in ((3, 5), (3, 7), (5, 9), (143, 161)) for result in found[size])
PYTHON
