"""The series and the coordinate system that a segmentation or a structure set refers to."""

from dataclasses import dataclass
from pathlib import Path

from medfcn.errors import naming
from medfcn.text import shown
from medfcn.volumes.formats.dicom.header import dataset_of
from medfcn.volumes.formats.dicom.library import guarded

_TAGS = ("FrameOfReferenceUID", "ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence")


@dataclass(frozen=True)
class References:
    """The images that an object refers to, or is one of.

    Attributes:
        series: UIDs of series.
        frames_of_reference: UIDs of coordinate systems.
    """

    series: frozenset[str]
    frames_of_reference: frozenset[str]


def references_of(path: Path) -> References:
    """The references of a file.

    Raises:
        VolumeError: It cannot be read as DICOM.
    """
    with naming(shown(path)), guarded("its header cannot be read as DICOM", "copy it again"):
        content = dataset_of(path, _TAGS)
        series = [str(item.SeriesInstanceUID) for item in content.get("ReferencedSeriesSequence") or ()]
        frames = [str(content.get("FrameOfReferenceUID", "") or "")]
        for frame in content.get("ReferencedFrameOfReferenceSequence") or ():
            frames.append(str(frame.get("FrameOfReferenceUID", "") or ""))
            for study in frame.get("RTReferencedStudySequence") or ():
                series += [str(item.SeriesInstanceUID) for item in study.get("RTReferencedSeriesSequence") or ()]
        return References(frozenset(series), frozenset(filter(None, frames)))
