#!/usr/bin/env bash
# MONAI's PydicomReader lays the segments of a DICOM segmentation over each other, at a place where none of them is.
#
# Guess: LoadImage(reader="PydicomReader") of a SEG, which the documentation names as a kind that it reads, has each segment
# where the file says it is, or refuses the file.
# What happens (MONAI 1.6.1): frames are sorted by segment and stacked, and no position of a frame but the first and the last is
# looked at. Frames without a voxel are usually left out (highdicom's default). Two segments of three slices each,
# 9 mm apart, come out in the same three slices, with a slice thickness of 5 mm in place of 3 mm. Nothing warns. Only where
# the numbers of frames differ there is an error. With omit_empty_frames=False it is right, as highdicom is with both.
# Why it matters: masks of an archive are read so beside their CT, and the affine that comes with them looks sound. Segments
# that never touch overlap wholly, their volumes in ml are 1.5 times the right ones, and none is at its place in the patient.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 monai==1.6.1 pydicom==3.0.2 highdicom==0.28.2 numpy==2.4.6 2> "$folder/log" ||
  { cat "$folder/log"; exit 1; }
cd "$folder"
"$folder/venv/bin/python" -W ignore - 2> "$folder/errors" <<'PYTHON' || { cat "$folder/errors"; exit 1; }
import sys

import highdicom
import monai
import numpy as np
import pydicom
from highdicom.seg import Segmentation, SegmentAlgorithmTypeValues, SegmentDescription
from monai.transforms import LoadImage
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

print("Python", sys.version.split()[0], "MONAI", monai.__version__)
print("highdicom", highdicom.__version__, "pydicom", pydicom.__version__)
study, series, frame = (generate_uid() for _ in range(3))
EMPTY = ("PatientBirthDate", "PatientSex", "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator")


def slice_of_ct(number):
    """One of 12 slices, 3 mm apart, the first at 30 mm."""
    ct = Dataset()
    ct.file_meta = FileMetaDataset()
    ct.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ct.SOPClassUID, ct.SOPInstanceUID, ct.Modality = CTImageStorage, generate_uid(), "CT"
    ct.StudyInstanceUID, ct.SeriesInstanceUID, ct.FrameOfReferenceUID = study, series, frame
    ct.PatientID, ct.PatientName, ct.StudyID, ct.Manufacturer = "1", "A", "1", "Maker"
    ct.StudyDate, ct.StudyTime, ct.SeriesNumber, ct.InstanceNumber = "20260101", "120000", 1, number + 1
    for name in EMPTY:
        setattr(ct, name, "")
    ct.Rows, ct.Columns, ct.PixelSpacing, ct.SliceThickness = 9, 8, [1.5, 2], 3
    ct.ImageOrientationPatient, ct.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [10, 20, 30 + 3 * number]
    ct.SamplesPerPixel, ct.PhotometricInterpretation, ct.PixelRepresentation = 1, "MONOCHROME2", 0
    ct.BitsAllocated, ct.BitsStored, ct.HighBit = 16, 16, 15
    ct.PixelData = bytes(9 * 8 * 2)
    return ct


def save(mask, path, **options):
    described = [
        SegmentDescription(k, name, codes.SCT.Tissue, codes.SCT.Organ, SegmentAlgorithmTypeValues.MANUAL)
        for k, name in ((1, "low"), (2, "high"))
    ]
    uids = {"series_instance_uid": generate_uid(), "sop_instance_uid": generate_uid()}
    made = Segmentation(
        [slice_of_ct(number) for number in range(12)],
        mask,
        "BINARY",
        described,
        series_number=2,
        instance_number=1,
        manufacturer="Maker",
        manufacturer_model_name="Model",
        software_versions="1",
        device_serial_number="1",
        **uids,
        **options,
    )
    made.save_as(path)


def extents(array, affine):
    """Of each of two channels: lowest and highest slice in mm along the patient, and volume in mm3."""
    array, affine = np.asarray(array), np.asarray(affine, dtype=float)
    found = []
    for channel in (0, 1):
        indices = np.argwhere(array[..., channel] > 0)
        heights = (indices @ affine[:3, :3].T + affine[:3, 3])[:, 2]
        volume = len(indices) * abs(np.linalg.det(affine[:3, :3]))
        found.append(tuple(float(value) for value in np.round((heights.min(), heights.max(), volume), 3)))
    return found


mask = np.zeros((12, 9, 8), np.uint8)
mask[2:5, 1:5, 1:5], mask[7:10, 1:5, 1:5] = 1, 2
right = [(36.0, 42.0, 432.0), (51.0, 57.0, 432.0)]
for path, options in (("usual.dcm", {}), ("all_frames.dcm", {"omit_empty_frames": False})):
    save(mask, path, **options)
    frames = pydicom.dcmread(path).NumberOfFrames
    volume = highdicom.seg.segread(path).get_volume()
    by_highdicom = extents(volume.array, volume.affine)
    read = LoadImage(reader="PydicomReader")(path)
    by_monai = extents(read, read.affine)
    print(f"{path}, {frames} frames; per segment: lowest and highest slice (mm), volume (mm3)")
    print("    highdicom", by_highdicom)
    print("    MONAI    ", by_monai, "shape", tuple(read.shape))
    assert by_highdicom == right, "changed: highdicom"
    wrong = [(42.0, 51.0, 648.0)] * 2
    assert by_monai == (right if options else wrong), "changed: MONAI"
print("as described")
PYTHON
