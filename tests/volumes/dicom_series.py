"""DICOM series of many kinds, made with pydicom alone: nothing here uses medfcn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}
ENHANCED = {"CT": EnhancedCTImageStorage, "MR": EnhancedMRImageStorage, "PT": EnhancedPETImageStorage}
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
PATIENT = "SECRET^NAME"
PATIENT_ID = "SECRET-ID-4711"


def turned(*degrees: float) -> tuple[float, ...]:
    """Direction cosines of axial slices turned about x, y and z, one after the other."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        one, two = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[one, one] = turn[two, two] = np.cos(angle)
        turn[one, two], turn[two, one] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return (*matrix[:, 0], *matrix[:, 1])


@dataclass(frozen=True)
class Made:
    """A series to make: 10 slices of 7 columns and 5 rows."""

    modality: str = "CT"
    orientation: tuple[float, ...] = AXIAL
    spacing: tuple[float, float] = (0.8, 0.8)
    origin: tuple[float, float, float] = (-31.25, 12.5, -104.75)
    step: float = 2.5
    count: int = 10
    rows: int = 5
    columns: int = 7
    dtype: str = "int16"
    bits: int = 16
    rescale: Callable[[int], tuple[float, float] | None] = lambda k: (1.0, -1024.0)
    shear: tuple[float, float, float] = (0.0, 0.0, 0.0)
    decimals: int | None = None
    fields: dict[str, Any] = field(default_factory=dict)

    def position(self, k: float) -> list[float]:
        """ImagePositionPatient of slice k."""
        cosines = np.array(self.orientation)
        normal = np.cross(cosines[:3], cosines[3:])
        place = np.array(self.origin) + k * self.step * normal + k * np.array(self.shear)
        return [float(number) for number in (place if self.decimals is None else np.round(place, self.decimals))]

    def pixels(self, k: int) -> NDArray[Any]:
        """Numbers that name their place: all are different in a series of at most 10 slices."""
        rows, columns = np.mgrid[: self.rows, : self.columns]
        numbers = 40 * (k % 10) + self.columns * rows + columns
        if self.dtype.startswith("int"):
            numbers = numbers - 200
        if self.bits == 8:
            numbers = numbers % 250
        return numbers.astype(self.dtype)


def _common(made: Made, uids: dict[str, str], sop_class: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate, dataset.PatientSex = PATIENT, PATIENT_ID, "", ""
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uids["study"], uids["series"]
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = uids["frame"], ""
    dataset.StudyID, dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber = "1", "20200102", "101112", ""
    dataset.SeriesNumber, dataset.SeriesDescription = 3, "SECRET DESCRIPTION"
    dataset.ReferringPhysicianName, dataset.Manufacturer, dataset.Modality = "", "Maker", made.modality
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = made.rows, made.columns, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 8 * np.dtype(made.dtype).itemsize
    dataset.BitsStored, dataset.HighBit = made.bits, made.bits - 1
    dataset.PixelRepresentation = int(np.dtype(made.dtype).kind == "i")
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    return dataset


def _stored(made: Made, pixels: NDArray[Any]) -> bytes:
    """Pixels as they are stored: the bits that are not used are 0, also of negative numbers."""
    unsigned = np.dtype(made.dtype.replace("int", "uint").replace("uuint", "uint"))
    bits: bytes = (pixels.view(unsigned) & unsigned.type((1 << made.bits) - 1)).tobytes()
    return bits + b"\0" * (len(bits) % 2)


def new_uids() -> dict[str, str]:
    return {name: str(generate_uid()) for name in ("study", "series", "frame")}


def classic(made: Made, uids: dict[str, str] | None = None) -> list[Dataset]:
    """One data set a slice."""
    uids = uids or new_uids()
    slices = []
    for k in range(made.count):
        dataset = _common(made, uids, CLASSES[made.modality])
        dataset.InstanceNumber = k + 1
        dataset.ImagePositionPatient = made.position(k)
        dataset.ImageOrientationPatient = list(made.orientation)
        dataset.PixelSpacing = list(made.spacing)
        dataset.SliceThickness = 7.0  # no spacing
        if (rescale := made.rescale(k)) is not None:
            dataset.RescaleSlope, dataset.RescaleIntercept = rescale
        for name, value in made.fields.items():
            setattr(dataset, name, value)
        dataset.add_new("PixelData", "OW" if dataset.BitsAllocated > 8 else "OB", _stored(made, made.pixels(k)))
        slices.append(dataset)
    return slices


def _item(**fields: Any) -> Dataset:
    item = Dataset()
    for name, value in fields.items():
        setattr(item, name, value)
    return item


def enhanced(made: Made, order: Sequence[int] | None = None, *, shared_rescale: bool = False) -> Dataset:
    """One multi-frame data set whose frames are stored in some order of the slices."""
    order = list(range(made.count)) if order is None else list(order)
    dataset = _common(made, new_uids(), ENHANCED[made.modality])
    dataset.NumberOfFrames, dataset.InstanceNumber = len(order), 1
    measures = _item(PixelSpacing=list(made.spacing), SliceThickness=7.0)
    shared = _item(
        PixelMeasuresSequence=[measures],
        PlaneOrientationSequence=[_item(ImageOrientationPatient=list(made.orientation))],
    )

    def rescale_of(k: int) -> Dataset:
        slope, inter = made.rescale(k) or (1.0, 0.0)
        return _item(RescaleSlope=slope, RescaleIntercept=inter, RescaleType="US")

    if shared_rescale:
        shared.PixelValueTransformationSequence = [rescale_of(0)]
    frames = []
    for k in order:
        own = _item(
            FrameContentSequence=[_item(StackID="1", InStackPositionNumber=k + 1, DimensionIndexValues=[1, k + 1])],
            PlanePositionSequence=[_item(ImagePositionPatient=made.position(k))],
        )
        if not shared_rescale:
            own.PixelValueTransformationSequence = [rescale_of(k)]
        frames.append(own)
    dataset.DimensionIndexSequence = [
        _item(DimensionIndexPointer=tag, FunctionalGroupPointer=0x00209111) for tag in (0x00209056, 0x00209057)
    ]
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], frames
    pixels = b"".join(_stored(made, made.pixels(k)) for k in order)
    dataset.add_new("PixelData", "OW" if dataset.BitsAllocated > 8 else "OB", pixels)
    return dataset


def save(dataset: Dataset, path: Path, syntax: str | None = None) -> Path:
    """Write a file, in a transfer syntax."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = dataset.file_meta
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    if (syntax is not None and syntax.startswith("1.2.840.10008.1.2.4.")) or syntax == "1.2.840.10008.1.2.5":
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path, enforce_file_format=True)
    elif syntax is not None:
        meta.TransferSyntaxUID = syntax
        dataset.save_as(path, enforce_file_format=True)
    else:
        dataset.save_as(path, enforce_file_format=True)
    return path


def save_all(slices: Sequence[Dataset], folder: Path, syntax: str | None = None) -> Path:
    """Write slices under names that say nothing of their order."""
    names = np.random.default_rng(4).permutation(len(slices))
    for number, dataset in zip(names, slices, strict=True):
        save(dataset, folder / f"IM{number:04d}.dcm", syntax)
    return folder


def expected_voxels(folder: Path) -> list[tuple[NDArray[np.float64], float]]:
    """World positions in RAS+ mm and intensities of the four corners of each slice or frame, by pydicom alone."""
    found = []
    for path in sorted(folder.iterdir()):
        dataset = pydicom.dcmread(path, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
        frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
        for index, pixels in enumerate(frames):
            position, orientation, spacing, slope, inter = _geometry(dataset, index)
            for row in (0, dataset.Rows - 1):
                for column in (0, dataset.Columns - 1):
                    along_row = orientation[:3] * spacing[1] * column
                    along_column = orientation[3:] * spacing[0] * row
                    world = (position + along_row + along_column) * [-1.0, -1.0, 1.0]
                    found.append((world, float(pixels[row, column]) * slope + inter))
    return found


def _geometry(dataset: Dataset, index: int) -> tuple[Any, Any, Any, float, float]:
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        holders = [dataset] * 4
    else:
        own = dataset.PerFrameFunctionalGroupsSequence[index]
        shared = dataset.SharedFunctionalGroupsSequence[0]
        names = ("PlanePosition", "PlaneOrientation", "PixelMeasures", "PixelValueTransformation")
        holders = [(own.get(f"{name}Sequence") or shared.get(f"{name}Sequence") or [Dataset()])[0] for name in names]
    position, orientation, measures, rescale = holders
    return (
        np.array(position.ImagePositionPatient, dtype=float),
        np.array(orientation.ImageOrientationPatient, dtype=float),
        np.array(measures.PixelSpacing, dtype=float),
        float(rescale.get("RescaleSlope", 1.0)),
        float(rescale.get("RescaleIntercept", 0.0)),
    )
