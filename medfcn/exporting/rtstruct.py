"""A mask as an RTSTRUCT: an outline for each component of each slice, in millimetres."""

from __future__ import annotations

from typing import Any

import numpy as np

from medfcn.exporting.dicom_source import Source, label_masks, name_in_object, now, same_patient, software, uid_of
from medfcn.exporting.outlines import outlines
from medfcn.labels import LabelMap
from medfcn.volumes import Volume
from medfcn.volumes.formats.dicom.header import STRUCTURE_SET, Frame
from medfcn.volumes.formats.dicom.library import guarded, pydicom

_STUDY = (
    "StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName",
    "StudyDescription", "SpecificCharacterSet",
)  # fmt: skip
_EXPLICIT = "1.2.840.10008.1.2.1"
_COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""Okabe and Ito, colours that colour-blind readers tell apart: jfly.uni-koeln.de/color, 2002."""


def structure_set_of(mask: Volume, labels: LabelMap, source: Source, key: str) -> Any:
    """A structure set with a structure for each label, in the order of the labels.

    Args:
        mask: With the labels' written values, on the grid of the series.
        labels: Its labels.
        source: The series.
        key: Decides the UIDs, so that the same mask of the same series is the same object again.

    Raises:
        GeometryMismatchError: The mask is on another grid.
    """
    stored = source.slices_of(mask)
    with guarded("the structure set cannot be made", "report this", "FAILED"):
        content = _frame_of_object(source, key)
        reference = source.datasets[0].get("FrameOfReferenceUID") or uid_of(key, "frame of reference")
        content.ReferencedFrameOfReferenceSequence = [_references(source, reference)]
        content.StructureSetROISequence, content.ROIContourSequence, content.RTROIObservationsSequence = [], [], []
        for number, (name, inside) in enumerate(label_masks(stored, labels).items(), start=1):
            content.StructureSetROISequence.append(
                _item(
                    ROINumber=number,
                    ReferencedFrameOfReferenceUID=reference,
                    ROIName=name_in_object(name),
                    ROIGenerationAlgorithm="AUTOMATIC",
                )
            )
            contours = [
                _contour(points, source.grid.stack.frames[k], source, k)
                for k in map(int, np.flatnonzero(inside.any(axis=(1, 2))))
                for points in outlines(inside[k].T)
            ]
            colour = list(_COLOURS[(number - 1) % len(_COLOURS)])
            drawn = _item(ROIDisplayColor=colour, ReferencedROINumber=number)
            if contours:  # an empty structure has no contours, and no empty sequence of them
                drawn.ContourSequence = contours
            content.ROIContourSequence.append(drawn)
            content.RTROIObservationsSequence.append(
                _item(
                    ObservationNumber=number, ReferencedROINumber=number, RTROIInterpretedType="", ROIInterpreter=""
                )
            )
        return content


def _item(**fields: Any) -> Any:
    item = pydicom().Dataset()
    for name, value in fields.items():
        setattr(item, name, value)
    return item


def _frame_of_object(source: Source, key: str) -> Any:
    """Everything of a structure set but its structures."""
    first = source.datasets[0]
    date, time = now()
    maker, number = software()
    content = _item(
        SOPClassUID=STRUCTURE_SET,
        SOPInstanceUID=uid_of(key, "structure set", "instance"),
        Modality="RTSTRUCT",
        SeriesInstanceUID=uid_of(key, "structure set", "series"),
        SeriesNumber=1,
        SeriesDescription=f"{maker} {number} structure set",
        InstanceNumber=1,
        InstanceCreationDate=date,
        InstanceCreationTime=time,
        Manufacturer=maker,
        ManufacturerModelName=maker,
        SoftwareVersions=number,
        OperatorsName="",
        StructureSetLabel=maker,
        StructureSetDate=date,
        StructureSetTime=time,
        ApprovalStatus="UNAPPROVED",
    )
    for name in _STUDY:
        if name in first:
            content[name] = first[name]
    same_patient(content, first)
    library = pydicom()
    content.file_meta = library.dataset.FileMetaDataset()
    content.file_meta.TransferSyntaxUID = _EXPLICIT
    content.file_meta.MediaStorageSOPClassUID = content.SOPClassUID
    content.file_meta.MediaStorageSOPInstanceUID = content.SOPInstanceUID
    return content


def _references(source: Source, reference: str) -> Any:
    """The frame of reference, the study, the series and the slices."""
    first = source.datasets[0]
    images = [_image(frame, source) for frame in source.grid.stack.frames]
    if source.is_multi_frame:
        images = images[:1]
        del images[0].ReferencedFrameNumber
    series = _item(SeriesInstanceUID=first.SeriesInstanceUID, ContourImageSequence=images)
    study = _item(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",  # a study, as the standard's own examples have it
        ReferencedSOPInstanceUID=first.get("StudyInstanceUID", ""),
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=reference, RTReferencedStudySequence=[study])


def _image(frame: Frame, source: Source) -> Any:
    header = source.grid.headers[frame.path]
    image = _item(ReferencedSOPClassUID=header.sop_class, ReferencedSOPInstanceUID=header.instance)
    if frame.index >= 0:
        image.ReferencedFrameNumber = frame.index + 1
    return image


def _contour(points: Any, frame: Frame, source: Source, k: int) -> Any:
    """A closed contour on slice k, from `(points, 2)` columns and rows."""
    voxels = np.c_[points, np.full(len(points), float(k))]
    numbers = [f"{number:.6f}".rstrip("0").rstrip(".") for number in source.lps(voxels).ravel()]
    return _item(
        ContourImageSequence=[_image(frame, source)],
        ContourGeometricType="CLOSED_PLANAR",
        NumberOfContourPoints=len(points),
        ContourData=["0" if number == "-0" else number for number in numbers],
    )
