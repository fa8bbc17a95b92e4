#!/usr/bin/env bash
# dcm2niix sorts the frames of an enhanced multi-frame file by position, unless its pixels are compressed.
#
# Guess: frames are put in the order of their positions, whatever the transfer syntax.
# What happens: with uncompressed pixels they are. With RLE the same frames come out in the order in which they are
# stored, under the affine of the sorted stack: slices are exchanged, and the exit status is 0.
# Why it matters: the standard allows any order of frames, and archives compress files on request. A mask that was drawn
# on such a volume is in the wrong slices of the patient.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 pydicom==3.0.2 nibabel==5.4.2 dcm2niix==1.0.20260724
cd "$folder"
PATH="$folder/venv/bin:$PATH" "$folder/venv/bin/python" - <<'PYTHON'
import subprocess
from pathlib import Path

import nibabel
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid


def item(**fields):
    one = Dataset()
    for name, value in fields.items():
        setattr(one, name, value)
    return one


order, found = [7, 2, 9, 0, 4, 1, 8, 3, 6, 5], {}
for name, syntax in (("uncompressed", None), ("RLE", RLELossless)):
    dataset = item(SOPClassUID=EnhancedMRImageStorage, SOPInstanceUID=generate_uid(), Modality="MR", Manufacturer="Maker")
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PatientID, dataset.PatientName, dataset.SeriesNumber, dataset.InstanceNumber = "1", "A", 1, 1
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = (generate_uid() for _ in "123")
    dataset.Rows = dataset.Columns = 32
    dataset.NumberOfFrames, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 10, 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation, dataset.ImageType = 15, 0, ["ORIGINAL", "PRIMARY", "OTHER", "NONE"]
    dataset.DimensionIndexSequence = [
        item(DimensionIndexPointer=tag, FunctionalGroupPointer=0x00209111) for tag in (0x00209056, 0x00209057)
    ]
    dataset.SharedFunctionalGroupsSequence = [
        item(
            PixelMeasuresSequence=[item(PixelSpacing=[1.0, 1.0], SliceThickness=2.5)],
            PlaneOrientationSequence=[item(ImageOrientationPatient=[1.0, 0, 0, 0, 1.0, 0])],
        )
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        item(
            FrameContentSequence=[item(StackID="1", InStackPositionNumber=k + 1, DimensionIndexValues=[1, k + 1])],
            PlanePositionSequence=[item(ImagePositionPatient=[0.0, 0.0, 2.5 * k])],
        )
        for k in order
    ]
    pixels = np.stack([np.full((32, 32), 100 * (k + 1), dtype=np.uint16) for k in order])
    dataset.add_new("PixelData", "OW", pixels.tobytes())
    if syntax:
        dataset.compress(syntax, generate_instance_uid=False)
    Path(name).mkdir()
    dataset.save_as(Path(name) / "one.dcm", enforce_file_format=True)
    Path(name, "out").mkdir()
    run = subprocess.run(
        ["dcm2niix", "-b", "n", "-z", "n", "-f", "v", "-o", f"{name}/out", f"{name}/one.dcm"], capture_output=True, text=True
    )
    volume = nibabel.load(next(Path(name, "out").glob("*.nii")))
    found[name] = [int(volume.dataobj[..., k].max()) for k in range(volume.shape[2])]
    print(name, found[name], "exit status", run.returncode, run.stdout.split("\n")[0])
assert found["uncompressed"] == [100 * (k + 1) for k in range(10)]
assert found["RLE"] == [100 * (k + 1) for k in order]
PYTHON
