#!/usr/bin/env bash
# MONAI's PydicomReader stacks the slices of a series by their number, and takes the affine from the first and the last.
#
# Guess: LoadImage of a folder with a DICOM series gives the slices in the order of their positions, or an error.
# What happens (MONAI 1.6.1): they are in the order of InstanceNumber. Where a scanner numbers the slices as it records them
# (every second one first), slices are exchanged, and their distance is that of the slices that come first and last by number,
# shared out: 1.8 mm in place of 3 mm here. Nothing warns. With ITK installed the default reader is another one, which is right.
# Why it matters: the standard gives InstanceNumber no meaning for places, and interleaved recording is usual in MR. The same
# script gives another volume on a machine without ITK, and a mask that is made on it has slices in wrong places of the patient.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 monai==1.6.1 pydicom==3.0.2 numpy==2.4.6 SimpleITK==2.5.7 2> "$folder/log" ||
  { cat "$folder/log"; exit 1; }
cd "$folder"
"$folder/venv/bin/python" - 2> "$folder/errors" <<'PYTHON' || { cat "$folder/errors"; exit 1; }
import sys
import warnings
from pathlib import Path

import monai
import numpy as np
import pydicom
import SimpleITK
from monai.transforms import LoadImage
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

print("Python", sys.version.split()[0], "MONAI", monai.__version__, "pydicom", pydicom.__version__)
print("SimpleITK", SimpleITK.Version.VersionString())
study, series, frame = (generate_uid() for _ in range(3))
NUMBERS = {
    "in order": [1, 2, 3, 4, 5, 6],
    "every second first": [1, 4, 2, 5, 3, 6],
    "every second first, from the second": [4, 1, 5, 2, 6, 3],
}
EXPECTED = {  # heights (mm) that the affine of MONAI gives the slices at 30, 33 … 45 mm
    "in order": [30, 33, 36, 39, 42, 45],
    "every second first": [30, 39, 33, 42, 36, 45],
    "every second first, from the second": [38.4, 33, 40.2, 34.8, 42, 36.6],
}
for name, numbers in NUMBERS.items():
    folder = Path(name.replace(" ", "_").replace(",", ""))
    folder.mkdir()
    for place, number in enumerate(numbers):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.SOPClassUID, image.SOPInstanceUID, image.Modality = MRImageStorage, generate_uid(), "MR"
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame
        image.PatientID, image.PatientName, image.SeriesNumber, image.InstanceNumber = "1", "A", 1, number
        image.ImagePositionPatient, image.ImageOrientationPatient = [10, 20, 30 + 3 * place], [1, 0, 0, 0, 1, 0]
        image.Rows, image.Columns, image.PixelSpacing, image.SliceThickness = 9, 8, [1.5, 2], 3
        image.SamplesPerPixel, image.PhotometricInterpretation, image.PixelRepresentation = 1, "MONOCHROME2", 0
        image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
        image.PixelData = np.full((9, 8), 30 + 3 * place, np.uint16).tobytes()
        image.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    by_itk = SimpleITK.ReadImage(names)
    assert SimpleITK.GetArrayFromImage(by_itk)[:, 0, 0].tolist() == [30, 33, 36, 39, 42, 45]
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        read = LoadImage(reader="PydicomReader")(folder)
    said = [str(one.message) for one in heard if "slice" in str(one.message).lower()]
    held, affine = np.asarray(read)[0, 0], np.asarray(read.affine)
    heights = affine[2, 2] * np.arange(6) + affine[2, 3]
    stated = [round(float(heights[np.flatnonzero(held == value)[0]]), 2) for value in range(30, 48, 3)]
    print(f"{name}: slices at 30, 33 … 45 mm (so SimpleITK) are at {stated} by MONAI; warnings: {said}")
    assert not said
    assert np.allclose(stated, EXPECTED[name]), f"changed: {name}"
print("as described")
PYTHON
