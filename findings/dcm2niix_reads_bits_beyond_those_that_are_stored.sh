#!/usr/bin/env bash
# dcm2niix takes bits for part of a number that DICOM says are none of it, unless 12 bits are stored.
#
# Guess: a pixel is made of the bits that BitsStored names, and its sign is the highest of them, at every number of bits.
# What happens (dcm2niix 1.0.20260724): that is so for 12 and 16 bits. With 10, 11, 13, 14 or 15 bits the whole 16 are
# taken. Signed pixels that were compressed by JPEG-LS, which keeps no sign, come out without it: -1000 of 13 bits becomes
# 7192. So do uncompressed ones whose unused bits are 0, and unsigned ones whose unused bits are 1 become negative. Nothing
# warns. Pixels whose unused bits repeat the sign are right. pydicom and SimpleITK have all of them right.
# Why it matters: the standard says that nothing may be assumed about unused bits, and archives compress by JPEG-LS on
# request. Air becomes brighter than bone in the compressed copy of a CT, and the uncompressed one beside it is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pydicom==3.0.2 pyjpegls==1.5.1 nibabel==5.4.2 SimpleITK==2.5.7 dcm2niix==1.0.20260724 \
  numpy==2.4.6 2> "$folder/log" || { cat "$folder/log"; exit 1; }
cd "$folder"
PATH="$folder/venv/bin:$PATH" "$folder/venv/bin/python" - <<'PYTHON'
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEGLSLossless

print("Python", sys.version.split()[0], "pydicom", pydicom.__version__, "dcm2niix", version("dcm2niix"))
print("SimpleITK", SimpleITK.Version.VersionString())


def write(folder, slices, bits, signed, unused, compress):
    """A series of slices, the bits of which beyond the stored ones are those of `unused`."""
    folder.mkdir()
    for number, pixels in enumerate(slices):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number + 1}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = "1.2.5", "1.2.6", "1.2.7"
        dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "CT", 1, number + 1
        dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], [1, 1]
        dataset.ImagePositionPatient, dataset.SliceThickness = [0, 0, 2 * number], 2
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
        dataset.PixelRepresentation = int(signed)
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        stored = pixels.astype("<i4").astype("<u2")
        if unused != "the sign":
            stored &= (1 << bits) - 1
        if unused == "ones":
            stored |= np.uint16(0xFFFF << bits & 0xFFFF)
        dataset.PixelData = stored.tobytes()
        dataset["PixelData"].VR = "OW"
        if compress:
            dataset.compress(JPEGLSLossless, generate_instance_uid=False)
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)


def by_pydicom(folder):
    return np.stack([pydicom.dcmread(path).pixel_array for path in sorted(folder.iterdir())])


def by_simpleitk(folder):
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage([str(path) for path in sorted(folder.iterdir())]))


def by_dcm2niix(folder):
    out = Path(f"{folder}_nifti")
    out.mkdir()
    subprocess.run(["dcm2niix", "-f", "volume", "-o", out, folder], check=True, capture_output=True)
    return nibabel.load(out / "volume.nii").get_fdata().transpose(2, 1, 0)[:, ::-1]


EXPECTED = {  # signed, unused bits, compressed: whether dcm2niix is right at 12 and 16 bits alone
    (True, "the sign", True): True,
    (True, "zeros", False): True,
    (False, "ones", False): True,
    (True, "the sign", False): False,
    (False, "zeros", True): False,
}
for case, (key, limited) in enumerate(EXPECTED.items()):
    signed, unused, compress = key
    right = []
    for bits in (10, 11, 12, 13, 14, 15, 16):
        low = -(1 << bits - 1) if signed else 0
        ramp = np.linspace(low, low + (1 << bits) - 1, 32 * 40).round().astype(int).reshape(32, 40)
        slices = np.stack([ramp, ramp[::-1], ramp[:, ::-1]])
        folder = Path(f"series_{case}_{bits}")
        write(folder, slices, bits, *key)
        assert np.array_equal(by_pydicom(folder), slices), f"changed: pydicom, {key}, {bits}"
        assert np.array_equal(by_simpleitk(folder), slices), f"changed: SimpleITK, {key}, {bits}"
        found = by_dcm2niix(folder)
        if np.array_equal(found, slices):
            right.append(bits)
        elif bits == 13:
            print(f"  13 bits: {slices.min()} to {slices.max()} becomes {found.min():.0f} to {found.max():.0f}")
    kind = f"{'signed' if signed else 'unsigned'}, {'JPEG-LS' if compress else f'unused bits are {unused}'}"
    print(f"{kind}: dcm2niix is right with {', '.join(map(str, right))} bits")
    assert right == ([12, 16] if limited else [10, 11, 12, 13, 14, 15, 16]), f"changed: dcm2niix, {key}"
print("as described")
PYTHON
