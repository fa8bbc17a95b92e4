"""Segmentations and structure sets of made series, by highdicom and pydicom alone: nothing here uses medfcn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    SegmentationFractionalTypeValues,
    SegmentationTypeValues,
    SegmentDescription,
)
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from tests.volumes.dicom_series import save


def segmentation(
    slices: Sequence[Dataset],
    masks: Mapping[str, NDArray[Any]],
    path: Path,
    *,
    kind: str = "BINARY",
    omit_empty_frames: bool = True,
) -> Path:
    """A segmentation by highdicom; masks are `(slices, rows, columns)` in the order of the slices."""
    algorithm = highdicom.AlgorithmIdentificationSequence("made", codes.DCM.ArtificialIntelligence, "1")
    descriptions = [
        SegmentDescription(
            number, name, codes.SCT.Organ, codes.SCT.Liver, SegmentAlgorithmTypeValues.AUTOMATIC, algorithm
        )
        for number, name in enumerate(masks, start=1)
    ]
    stacked = np.stack(list(masks.values()), axis=-1)
    if kind == "LABELMAP":
        stacked = (stacked * np.arange(1, len(masks) + 1)).max(axis=-1).astype(np.uint8)
    elif kind == "BINARY":
        stacked = stacked.astype(np.uint8)
    content = highdicom.seg.Segmentation(
        slices, stacked, SegmentationTypeValues(kind), descriptions, generate_uid(), 100, generate_uid(), 1, "Maker",
        "made", "1", "0", omit_empty_frames=omit_empty_frames, max_fractional_value=200,
        fractional_type=SegmentationFractionalTypeValues.PROBABILITY,
    )  # fmt: skip
    return save(content, path)


def structure_set(
    slices: Sequence[Dataset], contours: Mapping[str, Sequence[NDArray[np.float64]]], path: Path
) -> Path:
    """An RTSTRUCT; each contour is `(points, 3)` in LPS millimetres."""
    first = slices[0]
    content = Dataset()
    content.file_meta = FileMetaDataset()
    content.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    content.SOPClassUID, content.SOPInstanceUID, content.Modality = RTStructureSetStorage, generate_uid(), "RTSTRUCT"
    content.StudyInstanceUID, content.SeriesInstanceUID = first.StudyInstanceUID, generate_uid()
    content.PatientID, content.PatientName = first.PatientID, first.PatientName
    series = Dataset()
    series.SeriesInstanceUID = first.SeriesInstanceUID
    study = Dataset()
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = first.FrameOfReferenceUID, [study]
    content.ReferencedFrameOfReferenceSequence = [frame]
    rois, drawn = [], []
    for number, (name, polygons) in enumerate(contours.items(), start=1):
        roi = Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, first.FrameOfReferenceUID
        rois.append(roi)
        item = Dataset()
        item.ReferencedROINumber, item.ContourSequence = number, []
        for points in polygons:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            contour.ContourData = [f"{number:.6f}" for number in np.asarray(points).ravel()]
            item.ContourSequence.append(contour)
        drawn.append(item)
    content.StructureSetROISequence, content.ROIContourSequence = rois, drawn
    return save(content, path)
