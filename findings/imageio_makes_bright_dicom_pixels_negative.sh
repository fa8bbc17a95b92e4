#!/usr/bin/env bash
# imageio turns the bright pixels of a DICOM image or series into negative numbers.
#
# Guess: imread and volread of DICOM give the numbers that the file holds, in a type that holds them.
# What happens (imageio 2.38.1): where the file states a rescale slope of 1 and an intercept of 0, a signed type is chosen by
# limits of unsigned ones. A brightest pixel of 128 to 255 makes int8, one of 32,768 to 65,535 int16, and what is above the
# middle comes out 256 or 65,536 too low. volread takes the type of its first slice for all, so that a series that begins in
# air wraps round in every slice. Nothing warns. pydicom and SimpleITK have the same files right.
# Why it matters: a slope of 1 and an intercept of 0 are a usual way to say that there is none, and the first slice is often nearly
# black. The brightest tissue becomes darker than air, and a lesion has holes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 pydicom==3.0.2 imageio==2.38.1 SimpleITK==2.5.7 2> "$folder/log" ||
  { cat "$folder/log"; exit 1; }
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import contextlib
import io
import sys
from pathlib import Path

import imageio
import imageio.v2
import imageio.v3
import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

print("Python", sys.version.split()[0], "imageio", imageio.__version__, "pydicom", pydicom.__version__)
print("SimpleITK", SimpleITK.Version.VersionString())


def write(folder, values, rescale):
    """A series of one slice for each value, of pixels of 0 and that value."""
    folder.mkdir()
    study, series = generate_uid(), generate_uid()
    for number, value in enumerate(values, 1):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.SOPClassUID, image.SOPInstanceUID, image.Modality = MRImageStorage, generate_uid(), "MR"
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, study
        image.PatientID, image.PatientName, image.SeriesNumber, image.InstanceNumber = "1", "A", 1, number
        image.StudyDate, image.SeriesDate, image.StudyTime = "20260101", "20260101", "120000"
        image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, 3 * number], [1, 0, 0, 0, 1, 0]
        image.Rows, image.Columns, image.PixelSpacing, image.SliceThickness = 2, 4, [1, 1], 3
        image.SamplesPerPixel, image.PhotometricInterpretation, image.PixelRepresentation = 1, "MONOCHROME2", 0
        image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
        if rescale:
            image.RescaleSlope, image.RescaleIntercept = rescale
        image.PixelData = np.array([0, value] * 4, np.uint16).tobytes()
        image.save_as(folder / f"{number}.dcm", enforce_file_format=True)


def brightest(array):
    """The number of each slice that is not 0 in the file."""
    return [int(value) for value in np.asarray(array).reshape(-1, 2, 4)[:, 0, 1]]


SERIES = {  # brightest pixel of each slice
    "16 bits used": (40000, 50000, 65535),
    "8 bits used": (100, 200, 255),
    "first slice nearly black": (20, 300, 1000),
}
EXPECTED = {  # by imread of each file, by volread of the folder
    "16 bits used": ([-25536, -15536, -1], [-25536, -15536, -1]),
    "8 bits used": ([100, -56, -1], [100, -56, -1]),
    "first slice nearly black": ([20, 300, 1000], [20, 44, -24]),
}
for name, values in SERIES.items():
    for rescale in (None, (1, 0)):
        folder = Path(f"{name.replace(' ', '_')}_{rescale is None}")
        write(folder, values, rescale)
        paths = sorted(folder.iterdir())
        by_pydicom = brightest([pydicom.dcmread(path).pixel_array for path in paths])
        by_simpleitk = brightest([SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path)) for path in paths])
        with contextlib.redirect_stdout(io.StringIO()):
            images, volume = [imageio.v3.imread(path) for path in paths], imageio.v2.volread(folder, "DICOM")
        ones, together = [brightest(image)[0] for image in images], brightest(volume)
        print(f"{name}, {'slope 1, intercept 0' if rescale else 'no slope'}: {by_pydicom} by pydicom and SimpleITK")
        print(f"    imread {ones} as {[image.dtype.name for image in images]}, volread {together} as {volume.dtype}")
        assert by_pydicom == by_simpleitk == list(values)
        expected = EXPECTED[name] if rescale else (list(values),) * 2
        assert (ones, together) == expected, f"changed: {name}"
print("as described")
PYTHON
