#!/usr/bin/env bash
# dcm2niix leaves out the real-world mapping of a DICOM parametric map.
#
# Guess: the voxels of the NIfTI file are in the units of the map, as highdicom reads it: by a slope, or as floats.
# What happens (dcm2niix 1.0.20260724): whole numbers come out as they are stored, without a slope. A map of 0 to 1 that is
# stored in steps of 0.001 goes from 0 to 1000; one with an intercept loses its negative values. Nothing warns. Maps of
# floats are right.
# Why it matters: the standard's place for the scale of such a map (diffusion, perfusion, probabilities) is its
# RealWorldValueMapping. A threshold of 0.5 takes all but the zeros, and two maps of different steps cannot be compared.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 pydicom==3.0.2 highdicom==0.28.2 nibabel==5.4.2 dcm2niix==1.0.20260724 \
  2> "$folder/log" || { cat "$folder/log"; exit 1; }
cd "$folder"
PATH="$folder/venv/bin:$PATH" "$folder/venv/bin/python" -W ignore - <<'PYTHON'
import subprocess
import sys
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

print("Python", sys.version.split()[0], "highdicom", highdicom.__version__, "pydicom", pydicom.__version__)
print(subprocess.run(["dcm2niix", "--version"], capture_output=True, text=True).stdout.split("\n")[0])
study, series, frame = (generate_uid() for _ in range(3))
EMPTY = ("PatientBirthDate", "PatientSex", "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator")


def slice_of_ct(number):
    """A slice that the maps refer to."""
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


slices = [slice_of_ct(number) for number in range(6)]
steps = np.random.default_rng(0).integers(0, 1001, (6, 9, 8))
CASES = {  # stored numbers, slope, intercept; whether dcm2niix gives the units of the map
    "uint16, slope 0.001": (steps.astype(np.uint16), 0.001, 0.0, False),
    "uint8, slope 0.01, intercept -1": ((steps // 4).astype(np.uint8), 0.01, -1.0, False),
    "float32": ((steps / 1000).astype(np.float32), 1.0, 0.0, True),
}
for number, (name, (stored, slope, intercept, is_right)) in enumerate(CASES.items()):
    ends = (float(stored.min()), float(stored.max()))
    mapping = RealWorldValueMapping(
        lut_label="1",
        lut_explanation="share",
        unit=codes.UCUM.NoUnits,
        value_range=ends if stored.dtype.kind == "f" else tuple(map(int, ends)),
        slope=slope,
        intercept=intercept,
    )
    made = ParametricMap(
        slices,
        stored,
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Maker",
        manufacturer_model_name="Model",
        software_versions="1",
        device_serial_number="1",
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        window_center=0.5,
        window_width=1,
    )
    given, taken = Path(f"{number}_dicom"), Path(f"{number}_nifti")
    given.mkdir()
    taken.mkdir()
    made.save_as(given / "map.dcm")
    by_highdicom = highdicom.imread(given / "map.dcm").get_volume().array
    subprocess.run(["dcm2niix", "-o", taken, given], capture_output=True, check=True)
    (path,) = taken.glob("*.nii")
    voxels = nibabel.load(path).get_fdata()
    units = stored * slope + intercept
    print(f"{name}: the map goes from {units.min():.3f} to {units.max():.3f}")
    print(f"    highdicom {by_highdicom.min():.3f} to {by_highdicom.max():.3f}")
    print(f"    dcm2niix  {voxels.min():.3f} to {voxels.max():.3f}")
    assert np.allclose(np.sort(by_highdicom, None), np.sort(units, None))
    expected = units if is_right else stored
    assert np.allclose(np.sort(voxels, None), np.sort(expected, None)), f"changed: {name}"
print("as described")
PYTHON
